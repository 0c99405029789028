//! A Redis pool that authenticates with Microsoft Entra ID and re-authenticates its connections in place.
//!
//! ```no_run
//! use std::sync::Arc;
//! use entra_redis::{AzureCredential, Pool, env::{Environment, Settings}};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::new(&Environment::from_process())?;
//! let credential = Arc::new(AzureCredential::new(settings.identity)?);
//! let pool = Pool::builder("cache.westeurope.redis.azure.net".parse()?)
//!     .token_source(credential)
//!     .build()?;
//! let mut connection = pool.get().await?;
//! let visits: u64 = redis::cmd("INCR").arg("visits").query_async(&mut connection).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Data goes one way: environment → [`env`](mod@env) → [`identity`] → [`pool`].

pub mod diagnostics;
mod endpoint;
pub mod env;
pub mod error_chain;
mod file;
pub mod identity;
pub mod pool;
pub mod secret;
pub mod tls;
pub mod trace;

pub use self::{
    endpoint::{Endpoint, InvalidEndpoint},
    identity::AzureCredential,
    pool::{Connection, Error, Pool},
    secret::Secret,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
