//! The service and the library against a real redis-server and an emulated Entra ID.
//!
//! One binary for all of it. Faults are made for real: servers are stopped, connections killed, tokens withheld.

mod support;

mod bad_input;
mod cluster;
mod commands;
mod container_apps;
mod credentials;
mod doctor;
mod emulator;
mod examples;
mod faults;
mod help;
mod http_surface;
mod real_redis;
mod rotation;
mod sample;
mod secrets;
mod soak;
mod start_stop;
mod status;
mod telemetry;
