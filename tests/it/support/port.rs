//! Ports that a test must know before anything listens on them.

use std::{
    fmt,
    net::{TcpListener, UdpSocket},
};

/// A TCP port of 127.0.0.1 that no other test uses until this is dropped, and the port 10000 above it, which a node of a
/// cluster needs for its bus.
///
/// It lies below the ports that the system hands out for port 0 and for outgoing connections, and nothing listens on it.
/// The UDP port of the same number, which nothing else here uses, is the mark that other tests see, in this process and
/// in others.
pub(crate) struct Port {
    pub(crate) number: u16,
    _mark: UdpSocket,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        loop {
            let number = fastrand::u16(20_000..22_768);
            if let Ok(mark) = UdpSocket::bind(("127.0.0.1", number))
                && is_free(number)
                && is_free(number + 10_000)
            {
                return Self {
                    number,
                    _mark: mark,
                };
            }
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(formatter)
    }
}
