//! A client of the edge that sends arbitrary requests and need not read the replies.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_ebpf::golden::build;
use edge_ebpf::wire::{ChunkId, Cookie, GET_BYTES, Get, Welcome};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGsoSegment;

use crate::bed::Side;
use crate::clock;

/// Length of DATA with a segment of the default size.
pub const HELLO_BYTES: usize = 1232;
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A veth's ring has 256 entries; beyond that, packets are lost and not counted.
const BURST: u64 = 100;

/// A connected socket, and a cookie that the edge accepts from it.
pub struct Client {
    pub socket: UdpSocket,
    pub cookie: Cookie,
}

impl Client {
    /// Gets a cookie from an edge, with an address of this side.
    pub fn greet(side: &Side, from: impl Into<IpAddr>, edge: SocketAddr) -> Result<Self> {
        let from = SocketAddr::new(from.into(), 0);
        let socket = side.enter(|| UdpSocket::bind(from))??;
        socket.connect(edge)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        let cookie = Cookie::default();
        let mut client = Self { socket, cookie };
        let hello = build::hello(HELLO_BYTES);
        client.socket.send(&hello)?;
        let answer = client.receive()?;
        let header = answer.first_chunk().context("no WELCOME from the edge")?;
        let welcome = Welcome::decode(header);
        let welcome = welcome.ok().context("no WELCOME from the edge")?;
        ensure!(
            answer.len() == hello.len(),
            "a WELCOME of {} bytes",
            answer.len()
        );
        ensure!(
            hello[8..16] == welcome.nonce,
            "the WELCOME is for another client"
        );
        client.cookie = welcome.cookie;
        Ok(client)
    }

    pub fn get(&self, id: ChunkId, want: u128) -> [u8; GET_BYTES] {
        let cookie = self.cookie;
        Get { cookie, id, want }.encode()
    }

    /// Sends a GET for each of these, no faster than the link allows.
    pub fn ask(&self, want: u128, ids: impl IntoIterator<Item = ChunkId>) -> Result<()> {
        for (id, number) in ids.into_iter().zip(1_u64..) {
            self.socket.send(&self.get(id, want))?;
            if number.is_multiple_of(BURST) {
                clock::pause();
            }
        }
        Ok(())
    }

    /// Sends two datagrams in one frame, as a kernel on the path may join them (UDP GRO). The first
    /// has this length; a link that cannot carry both cuts them again.
    pub fn send_as_one(&self, first_bytes: usize, both: &[u8]) -> Result<()> {
        setsockopt(&self.socket, UdpGsoSegment, &i32::try_from(first_bytes)?)?;
        ensure!(self.socket.send(both)? == both.len(), "a datagram was cut");
        Ok(setsockopt(&self.socket, UdpGsoSegment, &0)?)
    }

    pub fn receive(&self) -> Result<Vec<u8>> {
        let mut datagram = vec![0; 2048];
        let length = self.socket.recv(&mut datagram).context("no answer")?;
        datagram.truncate(length);
        Ok(datagram)
    }
}

/// Ids of nonexistent chunks, a different one for each number.
pub fn absent(numbers: Range<u64>) -> impl Iterator<Item = ChunkId> {
    numbers.map(|number| {
        let mut id = [0xee; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        ChunkId(id)
    })
}

/// The id of a chunk, from its path at an origin.
pub fn chunk_id(file: &Path) -> Result<ChunkId> {
    let read = || {
        let (digits, rest) = file.file_name()?.as_encoded_bytes().as_chunks::<2>();
        let byte = |digits: &[u8; 2]| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.iter().map(byte).collect();
        rest.is_empty().then_some(())?;
        bytes?.try_into().ok().map(ChunkId)
    };
    read().with_context(|| format!("{} is not a chunk", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_from_the_name_of_its_file() {
        let name = format!("a/0f{}", "10".repeat(31));
        let ChunkId(id) = chunk_id(Path::new(&name)).unwrap();
        assert_eq!((id[0], id[31]), (15, 16));
        for wrong in [
            "a/0f",
            "a",
            "",
            &format!("{name}0"),
            &name.replace('f', "g"),
        ] {
            assert!(chunk_id(Path::new(wrong)).is_err(), "{wrong}");
        }
    }
}
