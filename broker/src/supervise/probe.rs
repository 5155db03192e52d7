//! A plain HTTP GET to a broker's own health port.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest answer that is read: a health document is a few KiB, a metrics page some hundred.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status code, for example 200.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

/// Asks `path` of a broker; the whole exchange takes at most `deadline`.
///
/// # Errors
/// The operating system's, `TimedOut`, or `InvalidData` where the answer is not HTTP.
pub async fn http_get(address: SocketAddr, path: &str, deadline: Duration) -> std::io::Result<HttpAnswer> {
    tokio::time::timeout(deadline, exchange(address, path))
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut)))
}

async fn exchange(address: SocketAddr, path: &str) -> std::io::Result<HttpAnswer> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
    parse(&bytes)
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(bytes: &[u8]) -> Option<HttpAnswer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(HttpAnswer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_and_a_body_are_parsed() {
        let answer = parse(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno").unwrap();
        assert_eq!(answer, HttpAnswer { status: 503, body: "no".into() });
    }

    #[test]
    fn garbage_is_not_an_answer() {
        assert_eq!(parse(b"\x00\x01garbage"), None);
        assert_eq!(parse(b"HTTP/1.1 \r\n\r\n"), None);
    }
}
