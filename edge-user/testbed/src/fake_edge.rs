//! Replies of a simulated edge: correct ones, or as a test needs them.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use edge_ebpf::wire::{
    ChunkId, Cookie, DataHeader, GET_BYTES, Geometry, Get, HELLO_HEADER_BYTES, Hello, Kind, Nack,
    NackCode, SEGMENT_BYTES_DEFAULT, Welcome, opening,
};

use crate::client::chunk_id;
use crate::objects::files;

/// A datagram of a reader.
pub enum Asked {
    /// With its length.
    Hello(Hello, usize),
    Get(Get),
}

impl Asked {
    pub fn read(datagram: &[u8]) -> Option<Self> {
        if datagram.starts_with(&opening(Kind::Hello)) {
            let header = datagram.first_chunk::<HELLO_HEADER_BYTES>()?;
            return Some(Self::Hello(Hello::decode(header).ok()?, datagram.len()));
        }
        let get: &[u8; GET_BYTES] = datagram.try_into().ok()?;
        let is_get = get.starts_with(&opening(Kind::Get));
        is_get.then(|| Get::decode(get).ok().map(Self::Get))?
    }
}

/// Passes readers' datagrams to `each` until stopped; the socket has a timeout.
pub fn listen(socket: &UdpSocket, stop: &AtomicBool, mut each: impl FnMut(Asked, SocketAddr)) {
    let mut datagram = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        // A timeout, or an earlier reply reached a closed port.
        let Ok((length, from)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        if let Some(asked) = Asked::read(&datagram[..length]) {
            each(asked, from);
        }
    }
}

/// A correct reply to a HELLO, with a cookie of this byte.
pub fn welcome(hello: &Hello, cookie: u8) -> Welcome {
    Welcome {
        segment_bytes: SEGMENT_BYTES_DEFAULT,
        max_burst: 53,
        lifetime_seconds: 120,
        nonce: hello.nonce,
        cookie: Cookie {
            epoch: 1,
            value: [cookie; 8],
        },
    }
}

/// The datagram, padded to this length.
pub fn padded(welcome: &Welcome, len_bytes: usize) -> Vec<u8> {
    let mut datagram = welcome.encode().to_vec();
    datagram.resize(len_bytes, 0);
    datagram
}

/// DATA for the wanted segments of a chunk, lowest first.
pub fn data(get: &Get, chunk: &[u8], segment_bytes: u16) -> Vec<Vec<u8>> {
    let chunk_bytes = u32::try_from(chunk.len()).unwrap_or(0);
    let Some(geometry) = Geometry::new(chunk_bytes, segment_bytes) else {
        return Vec::new();
    };
    let wanted = (0..=geometry.last).filter(|index| get.want >> index & 1 == 1);
    let segment = |index| {
        let (start, len) = geometry.segment(index)?;
        let header = DataHeader {
            index,
            last: geometry.last,
            chunk_bytes,
            tag: get.id.tag(),
        };
        Some([&header.encode(), &chunk[start..start + len]].concat())
    };
    wanted.filter_map(segment).collect()
}

/// A refusal of a GET.
pub fn nack(get: &Get, code: NackCode, retry_ms: u32, echo: [u8; 8]) -> Vec<u8> {
    let tag = get.id.tag();
    let nack = Nack {
        code,
        retry_ms,
        tag,
        echo,
    };
    nack.encode().to_vec()
}

/// Every chunk at an origin.
pub fn chunks(origin: &Path) -> Result<HashMap<ChunkId, Vec<u8>>> {
    let files = files::under(&origin.join("chunks"))?;
    let read = |file: &PathBuf| Ok((chunk_id(file)?, fs::read(file)?));
    files.iter().map(read).collect()
}
