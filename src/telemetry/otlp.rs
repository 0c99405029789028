//! The exporters: traces, log records and metrics by OTLP, over gRPC or as protobuf over HTTP.
//!
//! The OpenTelemetry SDK batches, retries and reads its own variables (headers, sampler, resource attributes, delays;
//! `config` has checked them). This module adds TLS, limits and the service's resource attributes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider},
    trace::TracerProvider,
};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig, tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{BatchConfigBuilder as RecordBatches, BatchLogProcessor, SdkLogger, SdkLoggerProvider},
    metrics::{PeriodicReader, SdkMeterProvider},
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{BatchConfigBuilder as SpanBatches, BatchSpanProcessor, SdkTracer, SdkTracerProvider},
};
use tokio::{runtime::Handle, task::JoinSet};
use tracing::warn;

use super::queue::{Bounded, Counted, Queue};
use crate::config::{self, Otlp, OtlpProtocol, Roots};
use entra_redis::tls;

/// Time to export what is pending at the end; the last log lines have another second (`tracing_appender`'s own limit).
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
/// Timeout of a connection to a collector; part of the export's own timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The default of `service.name`, and the name of our instrumentation.
const SCOPE: &str = "entra-redis";

/// An error in setting up the exporters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An exporter cannot be made.
    #[error("cannot set up the export to {endpoint}")]
    Exporter {
        /// The collector's endpoint.
        endpoint: String,
        /// The cause.
        #[source]
        source: ExporterBuildError,
    },
    /// TLS for a collector could not be set up.
    #[error("cannot set up TLS for the OpenTelemetry collector")]
    Tls(#[from] tls::Error),
    /// The HTTP client for a collector could not be made.
    #[error("cannot set up the HTTP client for the OpenTelemetry collector")]
    HttpClient(#[source] reqwest::Error),
}

/// The exporters that are configured.
pub(super) struct Exporters {
    traces: Option<(SdkTracerProvider, Arc<Queue>)>,
    logs: Option<(SdkLoggerProvider, Arc<Queue>)>,
    metrics: Option<SdkMeterProvider>,
}

/// Builds an exporter: the three builders have the same methods and no common trait.
macro_rules! exporter {
    ($exporter:ty, $otlp:expr, $roots:expr) => {{
        let otlp: &Otlp = $otlp;
        let built = match otlp.protocol {
            OtlpProtocol::Grpc => {
                let builder = <$exporter>::builder()
                    .with_tonic()
                    .with_endpoint(&otlp.endpoint)
                    .with_timeout(otlp.timeout);
                let builder = if is_https(otlp) {
                    // The same roots: rustls-native-certs reads SSL_CERT_FILE and SSL_CERT_DIR too.
                    builder.with_tls_config(ClientTlsConfig::new().with_native_roots())
                } else {
                    builder
                };
                builder.build()
            }
            OtlpProtocol::HttpProtobuf => <$exporter>::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(&otlp.endpoint)
                .with_timeout(otlp.timeout)
                .with_http_client(Client::new(otlp, $roots)?)
                .build(),
        };
        built.map_err(|source| Error::Exporter {
            endpoint: otlp.endpoint.clone(),
            source,
        })?
    }};
}

impl Exporters {
    /// Sets up what is configured; nothing is exported yet.
    pub(super) fn new(config: &config::Telemetry) -> Result<Self, Error> {
        let (to_traces, to_logs) = (config.traces.as_ref(), config.logs.as_ref());
        let to_metrics = config.metrics.as_ref();
        Ok(Self {
            traces: to_traces.map(|otlp| traces(config, otlp)).transpose()?,
            logs: to_logs.map(|otlp| logs(config, otlp)).transpose()?,
            metrics: to_metrics.map(|otlp| metrics(config, otlp)).transpose()?,
        })
    }

    pub(super) fn tracer(&self) -> Option<SdkTracer> {
        let (provider, _) = self.traces.as_ref()?;
        Some(provider.tracer(SCOPE))
    }

    /// Returns the layer that makes records of events.
    pub(super) fn records(
        &self,
    ) -> Option<OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>> {
        let (provider, _) = self.logs.as_ref()?;
        Some(OpenTelemetryTracingBridge::new(provider))
    }

    pub(super) fn meter(&self) -> Option<Meter> {
        Some(self.metrics.as_ref()?.meter(SCOPE))
    }

    /// Creates the series that count drops.
    pub(super) fn count_from_zero(&self) {
        if let Some((_, queue)) = &self.traces {
            queue.count_from_zero();
        }
        if let Some((_, queue)) = &self.logs {
            queue.count_from_zero();
        }
    }

    /// Exports what is pending, all signals at once, and discards what is not exported in time.
    pub(super) async fn finish(self) {
        let mut ending = JoinSet::new();
        let mut end = |shut_down: Box<dyn FnOnce() -> OTelSdkResult + Send>| {
            ending.spawn_blocking(shut_down);
        };
        if let Some((provider, _)) = self.traces {
            end(Box::new(move || {
                provider.shutdown_with_timeout(FINISH_TIMEOUT)
            }));
        }
        if let Some((provider, _)) = self.logs {
            end(Box::new(move || {
                provider.shutdown_with_timeout(FINISH_TIMEOUT)
            }));
        }
        if let Some(provider) = self.metrics {
            end(Box::new(move || {
                provider.shutdown_with_timeout(FINISH_TIMEOUT)
            }));
        }
        let all = async {
            let mut whole = true;
            while let Some(ended) = ending.join_next().await {
                whole &= matches!(ended, Ok(Ok(())));
            }
            whole
        };
        if tokio::time::timeout(FINISH_TIMEOUT, all).await != Ok(true) {
            warn!("could not export pending telemetry; discarding it");
        }
        ending.detach_all(); // blocked threads end with the process
    }
}

fn traces(
    config: &config::Telemetry,
    otlp: &Otlp,
) -> Result<(SdkTracerProvider, Arc<Queue>), Error> {
    let queue = Queue::new("traces", config.spans_waiting);
    let exporter = exporter!(SpanExporter, otlp, &config.roots);
    let batches = SpanBatches::default().with_max_queue_size(config.spans_waiting);
    let processor = BatchSpanProcessor::builder(Counted::new(exporter, &queue))
        .with_batch_config(batches.build())
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Bounded::new(processor, &queue))
        .with_resource(resource(config))
        .build();
    Ok((provider, queue))
}

fn logs(config: &config::Telemetry, otlp: &Otlp) -> Result<(SdkLoggerProvider, Arc<Queue>), Error> {
    let queue = Queue::new("logs", config.records_waiting);
    let exporter = exporter!(LogExporter, otlp, &config.roots);
    let batches = RecordBatches::default().with_max_queue_size(config.records_waiting);
    let processor = BatchLogProcessor::builder(Counted::new(exporter, &queue))
        .with_batch_config(batches.build())
        .build();
    let provider = SdkLoggerProvider::builder()
        .with_log_processor(Bounded::new(processor, &queue))
        .with_resource(resource(config))
        .build();
    Ok((provider, queue))
}

fn metrics(config: &config::Telemetry, otlp: &Otlp) -> Result<SdkMeterProvider, Error> {
    let exporter = exporter!(MetricExporter, otlp, &config.roots);
    let queue = Queue::new("metrics", 0); // nothing waits: sums are read when they are exported
    let reader = PeriodicReader::builder(Counted::new(exporter, &queue)).build();
    let provider = SdkMeterProvider::builder()
        .with_reader(reader)
        .with_resource(resource(config))
        .build();
    Ok(provider)
}

/// Returns the attributes of the origin of everything exported. `OTEL_RESOURCE_ATTRIBUTES` takes precedence.
fn resource(config: &config::Telemetry) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.name", SCOPE),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    // Without it the sums of several replicas would be one series that alternates between them.
    if let Some(instance) = &config.instance {
        attributes.push(KeyValue::new("service.instance.id", instance.clone()));
    }
    if config.on_container_apps {
        attributes.push(KeyValue::new("cloud.provider", "azure"));
        attributes.push(KeyValue::new("cloud.platform", "azure.container_apps"));
    }
    let ours = Resource::builder_empty()
        .with_attributes(attributes)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match &config.service_name {
        Some(name) => ours.with_service_name(name.clone()).build(),
        None => ours.build(),
    }
}

fn is_https(otlp: &Otlp) -> bool {
    let scheme = otlp.endpoint.split(':').next();
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
}

/// An HTTP client that runs on the runtime: the SDK's threads, which wait for the responses, have none.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

impl Client {
    fn new(otlp: &Otlp, roots: &Roots) -> Result<Self, Error> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(otlp.timeout)
            .redirect(reqwest::redirect::Policy::none()); // the headers may contain a key
        let builder = if is_https(otlp) {
            builder.tls_backend_preconfigured(tls::client_config(roots, None)?)
        } else {
            builder
        };
        Ok(Self {
            http: builder.build().map_err(Error::HttpClient)?,
            runtime: Handle::current(),
        })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        self.runtime
            .spawn(async move { http.send_bytes(request).await })
            .await?
    }
}
