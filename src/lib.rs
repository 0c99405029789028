//! A Redis pool that signs in with Microsoft Entra ID and keeps itself signed in, and the service built on it.
//!
//! ```no_run
//! use std::sync::Arc;
//! use entra_redis::{config::{Config, Environment}, identity::AzureCredential, redis::Pool};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::new(&Environment::from_process())?;
//! let credential = Arc::new(AzureCredential::new(config.identity)?);
//! let pool = Pool::builder("cache.westeurope.redis.azure.net".parse()?)
//!     .token_source(credential)
//!     .build()?;
//! let mut connection = pool.get().await?;
//! let visits: u64 = redis::cmd("INCR").arg("visits").query_async(&mut connection).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Data goes one way: environment → [`config`] → [`identity`] → [`redis`] → `http`. With `default-features = false` the
//! crate is the library alone: everything up to [`redis`].

#[cfg(feature = "service")]
pub mod app;
#[cfg(feature = "service")]
pub mod cli;
pub mod config;
pub mod diagnostics;
#[cfg(feature = "service")]
pub mod doctor;
#[cfg(feature = "emulator")]
pub mod emulator;
mod file;
#[cfg(feature = "service")]
pub mod http;
pub mod identity;
#[cfg(feature = "service")]
pub mod lifecycle;
pub mod redis;
mod report;
pub mod secret;
#[cfg(feature = "service")]
pub mod telemetry;
pub mod tls;
mod trace;
