//! The service on the library [`entra_redis`]: `GET /sample`, probes, metrics, `doctor`; and a place for routes of your own.

pub mod app;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod http;
pub mod lifecycle;
pub mod telemetry;
