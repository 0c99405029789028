//! One emulator, from binding its listeners to its shutdown.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::certificate::Certificates;
use crate::control::Controls;
use crate::entra::client_certificate::ClientCertificate;
use crate::entra::issuer::TrustedIssuer;
use crate::entra::token::Signer;
use crate::entra::{self, Tenant};
use crate::files::{self, Files};
use crate::redis_proxy::nodes::{NodeProxy, Nodes};
use crate::redis_proxy::{self, RedisProxy};
use crate::server::{accept, accept_nodes, http, https};
use crate::{Error, Options, address};

/// Entra ID and Azure's proxy before Redis, bound and ready to run.
///
/// Dropping it closes its ports and removes its files.
pub struct Emulator {
    tenant: Arc<Tenant>,
    proxy: Arc<RedisProxy>,
    https: TlsAcceptor,
    identity: TcpListener,
    authority: TcpListener,
    redis: TcpListener,
    opened_nodes: UnboundedReceiver<NodeProxy>,
    identity_endpoint: String,
    redis_endpoint: String,
    certificate_authority: String,
    files: Files,
    /// The assertions that are exchanged are the emulator's own.
    is_issuer: bool,
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
    /// If a port is in use, a file of the options cannot be read, or a temporary file cannot be written. Nothing is left
    /// behind.
    ///
    /// # Cancellation
    ///
    /// Nothing is left behind if the future is dropped.
    pub async fn bind(options: Options) -> Result<Self, Error> {
        let (identity, identity_port) = listen(options.host, options.identity_port).await?;
        let (authority, authority_port) = listen(options.host, options.authority_port).await?;
        let (redis, redis_port) = listen(options.host, options.redis_port).await?;
        let reachable = address::in_url(address::reachable(options.host));
        let (address, name) = match options.host_name.clone() {
            Some(name) => (name.clone(), name),
            None => (reachable, address::name(options.host)),
        };

        let certificates = Certificates::make(options.host, name.trim_matches(['[', ']']))?;
        let files = Files::write(&certificates)?;
        let signer = Arc::new(Signer::new());
        let controls = Controls::new(options.token_lifetime);
        let is_issuer = options.federated_credential.is_none();
        let authority_url = format!("https://{name}:{authority_port}/");
        let tenant = tenant(&options, &signer, &controls, authority_url)?;
        if is_issuer {
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
            opened_nodes,
            identity_endpoint: format!("http://{address}:{identity_port}/msi/token"),
            redis_endpoint: format!("{name}:{redis_port}"),
            certificate_authority: certificates.authority_pem,
            files,
            is_issuer,
        })
    }

    /// Returns the environment with which a client finds the emulator and authenticates there.
    ///
    /// There are secrets among the values, valid for this emulator alone. The files named exist as long as it does. An
    /// assertion is among them unless another issuer is trusted ([`Options::federated_credential`]).
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
        if self.is_issuer {
            variables.push(("AZURE_FEDERATED_TOKEN_FILE", file(files::ASSERTION)));
        }
        variables
    }

    /// Returns a handle that injects faults and reads counters, also while the emulator runs.
    pub fn controls(&self) -> Controls {
        self.tenant.controls.clone()
    }

    /// Serves until `shutdown` is cancelled; then closes every connection, within a second, and removes the files.
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends everything too, but connections are closed without TLS' `close_notify`.
    pub async fn run(self, shutdown: CancellationToken) {
        // Over HTTP, for clients on other machines: they trust nothing before they have it.
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
            accept_nodes(&self.proxy, self.opened_nodes, &shutdown),
            async {
                if self.is_issuer {
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

fn tenant(
    options: &Options,
    signer: &Arc<Signer>,
    controls: &Controls,
    authority: String,
) -> Result<Tenant, Error> {
    let certificate = options.client_certificate.clone();
    Ok(Tenant {
        controls: controls.clone(),
        application: signer.identity("entra-redis"),
        system: signer.identity("system"),
        client_secret: signer.secret(),
        identity_header: signer.secret(),
        issuer: match options.federated_credential.clone() {
            Some(credential) => TrustedIssuer::of(credential)?,
            None => TrustedIssuer::own(signer, &authority),
        },
        certificate: certificate.map(ClientCertificate::read).transpose()?,
        authority,
        last: Mutex::new(HashMap::new()),
        signer: Arc::clone(signer),
    })
}
