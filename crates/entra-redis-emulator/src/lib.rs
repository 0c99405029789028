//! What would Azure say? Entra ID and Azure's front before Redis, on a laptop or in a test.
//!
//! `dev`, `emulate` and the tests bind an [`Emulator`], hand its [`variables`](Emulator::variables) to a client (this
//! service or any Azure SDK) and run it. `entra` issues tokens, `front` lets in whoever brings one, before a real Redis
//! server or the small `store`; [`Controls`] makes things go wrong. What always holds: nothing is served before
//! [`run`](Emulator::run), nothing is left of it after; keys, secrets and identities are new at each start and good for
//! no other; the tokens are worthless at the real Azure.
//!
//! It knows nothing of the service it serves, and is no part of a production build.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use certificate::Certificates;
use entra::Tenant;
use entra::client_certificate::ClientCertificate;
use entra::issuer::TrustedIssuer;
use entra::token::Signer;
use files::Files;
use redis_proxy::RedisProxy;
use redis_proxy::nodes::{NodeProxy, Nodes};

pub use control::{Controls, Counts, EntraFault, RedisFault};
pub use entra::issuer::{FederatedCredential, KeySource};
pub use error::Error;

mod certificate;
mod control;
mod entra;
mod error;
mod files;
mod redis_proxy;
mod resp;
mod store;

/// A client gets this long for its TLS handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// Connections get this long to close when the emulator stops.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Pause after a failed `accept`: out of file descriptors, mostly, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the endpoint is to the clients of Redis, in Azure's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusteringPolicy {
    /// What the server behind it is: `OSSCluster` if it is a node of a cluster, else `NoCluster`.
    #[default]
    OfServer,
    /// `EnterpriseCluster`: one endpoint that tells nothing of its shards. The server behind it is to be no cluster, for
    /// nothing is routed.
    EnterpriseCluster,
}

/// What an emulator is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address all listeners are bound to.
    pub host: IpAddr,
    /// The name by which clients on other machines reach it, such as a Kubernetes Service's; else this machine's own.
    pub host_name: Option<String>,
    /// Port of the managed identity endpoints, http; 0 for any that is free.
    pub identity_port: u16,
    /// Port of the tenant's token endpoint, https; 0 for any that is free.
    pub authority_port: u16,
    /// Port of the front before Redis, TLS; 0 for any that is free.
    pub redis_port: u16,
    /// Life of the tokens issued; whole seconds, at least one.
    pub token_lifetime: Duration,
    /// A real Redis server behind the front, `host:port`, plain and without a password; else a small store in memory.
    /// If it is a node of a cluster, each node gets a front of its own, on port 8500 and those after it where they are
    /// free, and clients are told of no other address.
    pub redis: Option<String>,
    /// What the endpoint is to the clients of Redis.
    pub clustering_policy: ClusteringPolicy,
    /// Whose assertions are exchanged for a token; the emulator's own where there is none.
    pub federated_credential: Option<FederatedCredential>,
    /// The certificate (PEM, RSA) with which the application may sign in.
    pub client_certificate: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            host_name: None,
            identity_port: 0,
            authority_port: 0,
            redis_port: 0,
            token_lifetime: Duration::from_secs(60),
            redis: None,
            clustering_policy: ClusteringPolicy::default(),
            federated_credential: None,
            client_certificate: None,
        }
    }
}

/// Entra ID and Azure's front before Redis, bound and ready to run.
pub struct Emulator {
    tenant: Arc<Tenant>,
    proxy: Arc<RedisProxy>,
    https: TlsAcceptor,
    identity: TcpListener,
    authority: TcpListener,
    redis: TcpListener,
    nodes: UnboundedReceiver<NodeProxy>,
    identity_endpoint: String,
    redis_endpoint: String,
    certificate_authority: String,
    files: Files,
    /// Whether the assertions are the emulator's to write.
    own_issuer: bool,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Emulator")
            .field("identity_endpoint", &self.identity_endpoint)
            .field("authority", &self.tenant.authority)
            .field("redis_endpoint", &self.redis_endpoint)
            .finish_non_exhaustive()
    }
}

impl Emulator {
    /// Makes keys, certificates and files and binds the three listeners. Nothing is served before [`Emulator::run`].
    ///
    /// # Errors
    ///
    /// When a port is taken or a file cannot be written. Nothing is left behind then, nor when the future is dropped.
    pub async fn bind(options: Options) -> Result<Self, Error> {
        let (identity, identity_port) = listen(options.host, options.identity_port).await?;
        let (authority, authority_port) = listen(options.host, options.authority_port).await?;
        let (redis, redis_port) = listen(options.host, options.redis_port).await?;
        let (address, name) = match options.host_name {
            Some(name) => (name.clone(), name),
            None => names(options.host),
        };

        let certificates = Certificates::make(options.host, name.trim_matches(['[', ']']))?;
        let files = Files::write(&certificates)?;
        let signer = Arc::new(Signer::new());
        let controls = Controls::new(options.token_lifetime);
        let authority_url = format!("https://{name}:{authority_port}/");
        let own_issuer = options.federated_credential.is_none();
        let tenant = Tenant {
            controls: controls.clone(),
            application: signer.identity("entra-redis"),
            system: signer.identity("system"),
            client_secret: signer.secret(),
            identity_header: signer.secret(),
            issuer: match options.federated_credential {
                Some(credential) => TrustedIssuer::of(credential)?,
                None => TrustedIssuer::own(&signer, &authority_url),
            },
            certificate: options
                .client_certificate
                .map(ClientCertificate::read)
                .transpose()?,
            authority: authority_url,
            last: Mutex::new(HashMap::new()),
            signer: Arc::clone(&signer),
        };
        if own_issuer {
            files.write_assertion(&tenant)?;
        }
        let (nodes, opened_nodes) = Nodes::new(options.host);
        let proxy = RedisProxy {
            signer,
            controls,
            tls: Arc::clone(&certificates.redis),
            redis: options.redis,
            nodes,
            store: Arc::default(),
            clustering_policy: options.clustering_policy,
        };
        Ok(Self {
            tenant: Arc::new(tenant),
            proxy: Arc::new(proxy),
            https: TlsAcceptor::from(certificates.https),
            identity,
            authority,
            redis,
            nodes: opened_nodes,
            identity_endpoint: format!("http://{address}:{identity_port}/msi/token"),
            redis_endpoint: format!("{name}:{redis_port}"),
            certificate_authority: certificates.authority_pem,
            files,
            own_issuer,
        })
    }

    /// The environment with which a client finds the emulator and is known to it. An assertion is
    /// among it only where the emulator is the trusted issuer.
    ///
    /// It holds secrets, though they are good for nothing but this emulator. The files named live as long as it does.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let tenant = &self.tenant;
        let file = |name| self.files.path(name).display().to_string();
        let mut variables = vec![
            ("IDENTITY_ENDPOINT", self.identity_endpoint.clone()),
            ("IDENTITY_HEADER", tenant.identity_header.clone()),
            ("AZURE_AUTHORITY_HOST", tenant.authority.clone()),
            ("AZURE_TENANT_ID", tenant.signer.tenant.clone()),
            ("AZURE_CLIENT_ID", tenant.application.client_id.clone()),
            ("AZURE_CLIENT_SECRET", tenant.client_secret.clone()),
            ("REDIS_ENDPOINT", self.redis_endpoint.clone()),
            ("REDIS_CA_FILE", file(files::CA)),
            ("SSL_CERT_FILE", file(files::BUNDLE)),
            ("REQUESTS_CA_BUNDLE", file(files::BUNDLE)),
            ("NODE_EXTRA_CA_CERTS", file(files::CA)),
        ];
        if self.own_issuer {
            variables.push(("AZURE_FEDERATED_TOKEN_FILE", file(files::ASSERTION)));
        }
        variables
    }

    /// A handle to make things go wrong, and to count what happened.
    pub fn controls(&self) -> Controls {
        self.tenant.controls.clone()
    }

    /// Serves until `shutdown` is cancelled; then closes every connection and removes the files.
    ///
    /// A dropped future ends everything too, without TLS' farewells.
    pub async fn run(self, shutdown: CancellationToken) {
        // Over http, for clients on other machines: there is nothing to trust before it is known.
        let authority_pem = self.certificate_authority;
        let identities = entra::identities(Arc::clone(&self.tenant))
            .route("/ca.pem", get(async move || authority_pem));
        let authority = entra::authority(Arc::clone(&self.tenant));
        tokio::join!(
            accept(self.identity, &shutdown, |socket| {
                http(socket, identities.clone(), shutdown.clone())
            }),
            accept(self.authority, &shutdown, |socket| {
                https(
                    self.https.clone(),
                    socket,
                    authority.clone(),
                    shutdown.clone(),
                )
            }),
            accept(self.redis, &shutdown, |socket| {
                redis_proxy::connection(Arc::clone(&self.proxy), socket, None, shutdown.clone())
            }),
            accept_nodes(&self.proxy, self.nodes, &shutdown),
            async {
                if self.own_issuer {
                    self.files.renew_assertion(&self.tenant, &shutdown).await;
                }
            },
        );
    }
}

async fn listen(host: IpAddr, port: u16) -> Result<(TcpListener, u16), Error> {
    let address = SocketAddr::new(host, port);
    let refused = |source| Error::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let port = listener.local_addr().map_err(refused)?.port();
    Ok((listener, port))
}

/// The address and the name under which a client on this machine reaches `host`.
fn names(host: IpAddr) -> (String, String) {
    let localhost = "localhost".to_owned();
    match host {
        IpAddr::V4(host) if host.is_unspecified() || host == Ipv4Addr::LOCALHOST => {
            ("127.0.0.1".into(), localhost)
        }
        IpAddr::V4(host) => (host.to_string(), host.to_string()),
        IpAddr::V6(host) if host.is_unspecified() => ("[::1]".into(), localhost),
        IpAddr::V6(host) => (format!("[{host}]"), format!("[{host}]")),
    }
}

/// Accepts connections and owns them until `shutdown`; then waits for their end, within a limit.
async fn accept<C>(
    listener: TcpListener,
    shutdown: &CancellationToken,
    serve: impl Fn(TcpStream) -> C,
) where
    C: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => _ = connections.spawn(serve(socket)),
                Err(error) => {
                    tracing::warn!(%error, "the emulator cannot accept a connection; it goes on");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_LIMIT, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Accepts connections at the front of each node of a cluster, from when it is opened until `shutdown`.
async fn accept_nodes(
    proxy: &Arc<RedisProxy>,
    mut opened: UnboundedReceiver<NodeProxy>,
    shutdown: &CancellationToken,
) {
    let mut accepting = JoinSet::new();
    while let Some(Some(opened)) = shutdown.run_until_cancelled(opened.recv()).await {
        let (proxy, shutdown) = (Arc::clone(proxy), shutdown.clone());
        accepting.spawn(async move {
            let serve = |socket| {
                let node = Some(opened.node.clone());
                redis_proxy::connection(Arc::clone(&proxy), socket, node, shutdown.clone())
            };
            accept(opened.listener, &shutdown, serve).await;
        });
    }
    // Each ends by itself, within its own limit.
    while accepting.join_next().await.is_some() {}
}

/// Serves HTTP/1.1 on one connection. HTTP/2 would spawn a task a request, which nobody here would own.
async fn http<S>(socket: S, router: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let server = auto::Builder::new(TokioExecutor::new()).http1_only();
    let service = TowerToHyperService::new(router);
    let connection = server.serve_connection(TokioIo::new(socket), service);
    if let Some(Err(error)) = shutdown.run_until_cancelled(connection).await {
        tracing::debug!(error, "a connection to the emulated Entra ID broke");
    }
}

async fn https(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    router: Router,
    shutdown: CancellationToken,
) {
    let handshake = timeout(HANDSHAKE_LIMIT, acceptor.accept(socket));
    match shutdown.run_until_cancelled(handshake).await {
        Some(Ok(Ok(socket))) => http(socket, router, shutdown).await,
        Some(Ok(Err(error))) => {
            tracing::debug!(%error, "a TLS handshake with the emulated Entra ID failed");
        }
        Some(Err(_)) | None => {}
    }
}
