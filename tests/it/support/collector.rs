//! An OpenTelemetry collector: takes OTLP over gRPC and as protobuf over HTTP on one port, and keeps everything.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use futures_util::{Stream, StreamExt, stream};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::Metric,
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Response, Status,
    service::Routes,
    transport::{
        Server,
        server::{Connected, TcpIncoming},
    },
};

use super::Certificates;

/// Runs until dropped.
pub(crate) struct Collector {
    pub(crate) port: u16,
    got: Arc<Mutex<Got>>,
    _stop: DropGuard,
}

/// Everything received.
#[derive(Debug, Default, Clone)]
pub(crate) struct Got {
    traces: Vec<ExportTraceServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    /// Of every request.
    pub(crate) headers: Vec<HeaderMap>,
}

#[derive(Clone)]
struct Sink(Arc<Mutex<Got>>);

impl Sink {
    fn keep(&self, headers: HeaderMap, keep: impl FnOnce(&mut Got)) {
        let mut got = self.0.lock().expect("no panic under the lock");
        got.headers.push(headers);
        keep(&mut got);
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let (port, listener) = listen().await;
        Self::serve(port, TcpIncoming::from(listener))
    }

    /// Speaks TLS as `localhost`.
    pub(crate) async fn with_tls(certificates: &Certificates) -> Self {
        let (port, listener) = listen().await;
        Self::serve(port, over_tls(listener, certificates))
    }

    fn serve<C>(
        port: u16,
        incoming: impl Stream<Item = std::io::Result<C>> + Send + 'static,
    ) -> Self
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        C::ConnectInfo: Clone + Send + Sync + 'static,
    {
        let got = Arc::<Mutex<Got>>::default();
        let sink = Sink(got.clone());
        let over_http = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/logs", post(logs))
            .route("/v1/metrics", post(metrics))
            .with_state(sink.clone());
        let over_grpc = Routes::new(TraceServiceServer::new(sink.clone()))
            .add_service(LogsServiceServer::new(sink.clone()))
            .add_service(MetricsServiceServer::new(sink))
            .into_axum_router();
        // tonic answers unknown paths itself, so its part is the fallback.
        let routes = Routes::from(over_http.fallback_service(over_grpc));
        let stop = CancellationToken::new();
        let mut server = Server::builder().accept_http1(true);
        let serving = server
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::spawn(serving);
        Self {
            port,
            got,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything received so far.
    pub(crate) fn got(&self) -> Got {
        self.got.lock().expect("no panic under the lock").clone()
    }
}

async fn listen() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("loopback has free ports");
    let port = listener.local_addr().expect("it is bound").port();
    (port, listener)
}

/// Connections with their handshakes done; those whose handshake fails are left out.
///
/// Not tonic's own TLS, which installs a crypto provider for the whole process.
fn over_tls(
    listener: TcpListener,
    certificates: &Certificates,
) -> impl Stream<Item = std::io::Result<TlsStream<TcpStream>>> + Send + 'static {
    let chain = CertificateDer::pem_file_iter(certificates.path("server.pem"));
    let chain = chain
        .expect("it was written")
        .map(|it| it.expect("it is PEM"));
    let key = PrivateKeyDer::from_pem_file(certificates.path("server.key"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(chain.collect(), key.expect("it is PEM"))
        .expect("the certificate is good");
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let connections = stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await;
        Some((accepted, listener))
    });
    connections.filter_map(move |accepted| {
        let acceptor = acceptor.clone();
        async move {
            let (connection, _) = accepted.ok()?;
            acceptor.accept(connection).await.ok().map(Ok)
        }
    })
}

impl Got {
    pub(crate) fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let resources = self.traces.iter().flat_map(|it| &it.resource_spans);
        let scopes = resources.flat_map(|it| &it.scope_spans);
        scopes.flat_map(|it| it.spans.clone()).collect()
    }

    /// All spans of this name.
    pub(crate) fn named(&self, name: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.name == name);
        spans
    }

    pub(crate) fn records(&self) -> Vec<LogRecord> {
        let resources = self.logs.iter().flat_map(|it| &it.resource_logs);
        let scopes = resources.flat_map(|it| &it.scope_logs);
        scopes.flat_map(|it| it.log_records.clone()).collect()
    }

    /// The targets of all records.
    pub(crate) fn targets(&self) -> Vec<String> {
        let resources = self.logs.iter().flat_map(|it| &it.resource_logs);
        let scopes = resources.flat_map(|it| &it.scope_logs);
        let scopes = scopes.filter_map(|it| it.scope.as_ref());
        scopes.map(|scope| scope.name.clone()).collect()
    }

    /// The newest state of this metric.
    pub(crate) fn metric(&self, name: &str) -> Option<Metric> {
        let resources = self.metrics.iter().flat_map(|it| &it.resource_metrics);
        let scopes = resources.flat_map(|it| &it.scope_metrics);
        let mut metrics = scopes.flat_map(|it| &it.metrics);
        metrics.rfind(|metric| metric.name == name).cloned()
    }

    /// The resource of the spans.
    pub(crate) fn origin(&self) -> Resource {
        let resources = self.traces.iter().flat_map(|it| &it.resource_spans);
        let mut resources = resources.filter_map(|it| it.resource.clone());
        resources.next().expect("spans came")
    }
}

/// An attribute's value as text.
pub(crate) fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    text(found.value.as_ref()?)
}

/// A value as text.
pub(crate) fn text(value: &AnyValue) -> Option<String> {
    match value.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

/// Lower-case hexadecimal digits, as in the ids of headers and logs.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn traces(State(sink): State<Sink>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let message = ExportTraceServiceRequest::decode(body).expect("it is OTLP");
    sink.keep(headers, |got| got.traces.push(message));
    StatusCode::OK
}

async fn logs(State(sink): State<Sink>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let message = ExportLogsServiceRequest::decode(body).expect("it is OTLP");
    sink.keep(headers, |got| got.logs.push(message));
    StatusCode::OK
}

async fn metrics(State(sink): State<Sink>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let message = ExportMetricsServiceRequest::decode(body).expect("it is OTLP");
    sink.keep(headers, |got| got.metrics.push(message));
    StatusCode::OK
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (headers, _, message) = request.into_parts();
        self.keep(headers.into_headers(), |got| got.traces.push(message));
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Sink {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let (headers, _, message) = request.into_parts();
        self.keep(headers.into_headers(), |got| got.logs.push(message));
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let (headers, _, message) = request.into_parts();
        self.keep(headers.into_headers(), |got| got.metrics.push(message));
        Ok(Response::new(Default::default()))
    }
}
