//! Microsoft Entra ID and Azure Managed Redis on a laptop or in a test.
//!
//! Azure Managed Redis authenticates its clients with tokens of Entra ID, and neither has a local emulator. This crate
//! emulates what a client sees of both:
//!
//! - **Entra ID**: the token endpoints of managed identities (App Service, Container Apps, virtual machines) and of
//!   applications (secret, certificate, federated assertion), with the responses and errors of the real ones. Microsoft's
//!   SDKs use them unmodified.
//! - **Azure's proxy before Redis**: TLS, `AUTH` and `HELLO … AUTH` with a token, and a connection that is closed when its
//!   token expires. Behind it is a real Redis server, a whole cluster, or a small store in memory.
//! - **Faults**: tokens that come late or not at all, rejected authentication, lost connections; set by [`Controls`] while
//!   the emulator runs.
//!
//! An [`Emulator`] is bound, gives its clients their [`variables`](Emulator::variables) and runs until it is stopped:
//!
//! ```
//! use entra_redis_emulator::{Emulator, Options, RedisFault};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let emulator = Emulator::bind(Options::default()).await?;
//! let controls = emulator.controls();
//! // REDIS_ENDPOINT, AZURE_CLIENT_ID, IDENTITY_ENDPOINT, …: the environment of the client under test.
//! for (name, value) in emulator.variables() {
//!     println!("{name}={value}");
//! }
//! let stop = CancellationToken::new();
//! let running = tokio::spawn(emulator.run(stop.clone()));
//!
//! // From here on every authentication is rejected; connections that are authenticated stay so.
//! controls.set_redis(RedisFault::RefuseAuth);
//! assert_eq!(controls.counts().auth_refused, 0);
//!
//! stop.cancel();
//! running.await?;
//! # Ok(())
//! # }
//! ```
//!
//! Programs in other languages use the same emulator through the command `entra-redis emulate`, which prints the
//! variables.
//!
//! # Invariants
//!
//! - Nothing is served before [`run`](Emulator::run), and nothing is left after it: no task, no connection, no file.
//! - Keys, secrets and identities are new at each start and valid for that one only. The tokens are worthless at the real
//!   Azure.
//! - The process-wide crypto provider of rustls is neither read nor installed.

pub use control::{Controls, Counts, EntraFault, RedisFault};
pub use emulator::Emulator;
pub use entra::issuer::{FederatedCredential, KeySource};
pub use error::Error;
pub use options::{ClusteringPolicy, Options};

mod address;
mod certificate;
mod control;
mod emulator;
mod entra;
mod error;
mod files;
mod options;
mod redis_proxy;
mod resp;
mod server;
mod store;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
