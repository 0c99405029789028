//! The service on the library [`entra_redis`]: `GET /sample`, probes, metrics, `doctor`; and a place for routes of your own.

pub mod app;
pub mod cli;
pub mod config;
pub mod doctor;
#[cfg(feature = "emulator")]
pub use entra_redis_emulator as emulator;
pub mod http;
pub mod lifecycle;
pub mod telemetry;

pub use entra_redis::{diagnostics, file, identity, pool as redis, report, secret, tls, trace};
