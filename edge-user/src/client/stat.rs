//! Reads the counters of a running `edged`: HTTP over its admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::counters::Snapshot;

/// More than any snapshot.
const BODY_BYTES_MAX: usize = 16 << 20;
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum StatError {
    #[error("{socket}: {source}; is edged running? Set --socket to its admin.socket")]
    Missing { socket: PathBuf, source: io::Error },
    #[error("{socket}: permission denied; run as root or as the user of edged")]
    NotAllowed { socket: PathBuf },
    #[error("{socket}: too many connections; try again in a few seconds")]
    Busy { socket: PathBuf },
    #[error("{socket}: edged is starting; try again in a few seconds")]
    Starting { socket: PathBuf },
    #[error("{socket}: no answer in {} seconds; is edged stuck?", TIMEOUT.as_secs())]
    Timeout { socket: PathBuf },
    #[error("{socket}: {source}; is this edged's admin socket?")]
    Http {
        socket: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{socket}: edged answered {status}; are edge and edged of the same version?")]
    Status { socket: PathBuf, status: StatusCode },
    #[error("{socket}: {source}; are edge and edged of the same version?")]
    Content {
        socket: PathBuf,
        source: serde_json::Error,
    },
}

/// The counters of the `edged` behind this admin socket.
pub async fn snapshot(socket: &Path) -> Result<Snapshot, StatError> {
    let socket = socket.to_owned();
    match timeout(TIMEOUT, ask(&socket)).await {
        Ok(answer) => answer,
        Err(_) => Err(StatError::Timeout { socket }),
    }
}

async fn ask(socket: &Path) -> Result<Snapshot, StatError> {
    let name = || socket.to_owned();
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let socket = name();
        let kind = source.kind();
        if kind == io::ErrorKind::PermissionDenied {
            StatError::NotAllowed { socket }
        } else if kind == io::ErrorKind::WouldBlock {
            // The listen backlog is full.
            StatError::Busy { socket }
        } else {
            StatError::Missing { socket, source }
        }
    })?;
    let http = |source: hyper::Error| StatError::Http {
        socket: name(),
        source: source.into(),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    // Ends with the sender; errors reach the request.
    drop(tokio::spawn(connection));
    let request = Request::get("/v1/stat")
        .header(header::HOST, "edged")
        .body(Empty::<Bytes>::new())
        .expect("a constant request");
    let answer = sender.send_request(request).await.map_err(http)?;
    let status = answer.status();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(StatError::Starting { socket: name() });
    }
    if status != StatusCode::OK {
        return Err(StatError::Status {
            socket: name(),
            status,
        });
    }
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX)
        .collect()
        .await;
    let body = body
        .map_err(|source| StatError::Http {
            socket: name(),
            source,
        })?
        .to_bytes();
    serde_json::from_slice(&body).map_err(|source| StatError::Content {
        socket: name(),
        source,
    })
}
