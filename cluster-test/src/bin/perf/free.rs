//! Ports on the loopback interface that nobody has.

use std::io;
use std::net::TcpListener;

/// So many different free ports. Another process may take one before it is used; the run then fails and says so.
///
/// # Errors
/// If there are none.
pub(super) fn ports(count: usize) -> io::Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<io::Result<_>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
