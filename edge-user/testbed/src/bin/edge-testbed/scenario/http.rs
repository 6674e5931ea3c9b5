//! A minimal HTTP client for metrics and the admin socket.

use std::io::{Read, Write};

use anyhow::{Context as _, Result, bail};

/// The whole reply, head and body; a status other than 200 is an error.
pub(super) fn get(stream: impl Read + Write, path: &str) -> Result<Vec<u8>> {
    let answer = ask(stream, path)?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        let said = String::from_utf8_lossy(&answer);
        bail!(
            "GET {path} failed: {}",
            said.lines().next().unwrap_or("no answer")
        );
    }
    Ok(answer)
}

/// The same with any status.
pub(super) fn ask(mut stream: impl Read + Write, path: &str) -> Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("no complete answer to GET {path}"))?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn got(answer: &'static [u8]) -> Result<Vec<u8>> {
        let (near, mut far) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut request = [0; 13];
            far.read_exact(&mut request).unwrap();
            far.write_all(answer).unwrap();
            far.shutdown(std::net::Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).unwrap();
        });
        let got = get(near, "/metrics");
        server.join().unwrap();
        got
    }

    #[test]
    fn a_good_answer_is_handed_over_whole() {
        let answer = b"HTTP/1.1 200 OK\r\n\r\nx 1\n";
        assert_eq!(got(answer).unwrap(), answer);
    }

    #[test]
    fn another_status_is_an_error() {
        let error = got(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
    }
}
