//! The steps of connecting to Redis, one by one, for programs that explain why a connection fails.
//!
//! A [`Pool`](crate::pool::Pool) performs these steps in the background and keeps the latest error. A support command has
//! to show more: which step fails, and what the steps before it found. Each function here performs one step and returns
//! what it found, in this order: [`resolve`], [`connect`], [`tls_handshake`], [`authenticate`], [`reauthenticate`],
//! [`clustering`], [`unavailable_primaries`]. [`Claims`] and [`clock_skew`] read the token that is used meanwhile.
//!
//! ```no_run
//! use entra_redis::{
//!     env,
//!     diagnostics::{self, Fault},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = env::Redis::new("cache.westeurope.redis.azure.net:10000".parse()?);
//! let resolved = diagnostics::resolve(&config).await?;
//! println!("addresses: {:?}", resolved.addresses);
//! match diagnostics::connect(&config, &resolved.addresses).await {
//!     Ok(connected) => {
//!         println!("{} accepted after {:?}", connected.peer, connected.duration);
//!         let session = diagnostics::tls_handshake(&config, connected).await?;
//!         println!("{}, {} certificates", session.version, session.certificates.len());
//!     }
//!     Err(error) if error.fault() == Fault::ConnectionRefused => println!("wrong port? {error}"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//! - A step runs the code that the pool runs, so that a step that succeeds here succeeds there.
//! - Every step has a timeout; none is retried after it. Dropping a future closes what it opened.
//! - No result contains a token, an access key or an assertion.

mod authentication;
mod error;
mod network;
mod token;
mod topology;

pub use self::{
    authentication::{Authenticated, Authentication, authenticate, reauthenticate},
    error::{Error, Fault},
    network::{Connected, Resolved, TlsSession, TlsVersion, connect, resolve, tls_handshake},
    token::{Claims, ClockSkew, clock_skew},
    topology::{UnavailablePrimary, clustering, unavailable_primaries},
};
