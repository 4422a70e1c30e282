//! The smallest HTTP client: enough to play with a server on this machine.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// What a server answered.
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// Sends one request and reads the whole response. `headers` are lines without their end.
pub fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> io::Result<Response> {
    let mut stream = TcpStream::connect(server)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP response");
    let (head, body) = response.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    Ok(Response { status, body: body.to_owned() })
}
