//! Ports nobody else uses.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

/// A listener on a free loopback port, and its address. Prefer this to [`free_port`]: nobody can take it.
pub async fn bound_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free loopback port");
    let addr = listener
        .local_addr()
        .expect("a bound listener has an address");
    (listener, addr)
}

/// A loopback port that was free a moment ago, for programs that cannot be given port 0.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free loopback port")
        .port()
}
