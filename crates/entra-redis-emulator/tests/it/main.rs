//! The emulator through its public API: over sockets, before a real `redis-server`, a real cluster and the store.

mod support;

mod certificate;
mod cluster;
mod federation;
mod python;
mod signing;
