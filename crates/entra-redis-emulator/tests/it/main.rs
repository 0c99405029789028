//! The emulator through its public API: over sockets, before a real `redis-server`, a real cluster and the store.

mod support;

mod certificate;
mod cluster;
mod entra;
mod federation;
mod lifecycle;
mod python;
mod redis_proxy;
mod signing;
mod store;
