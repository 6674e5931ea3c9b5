//! Asks for chunks without waiting for them. Written from docs/WIRE.md.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{bed::Side, clock};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGsoSegment;

const HELLO_BYTES: usize = 1232;
const GET_BYTES: usize = 64;
/// A veth's ring has 256 places, and what does not fit is lost before anybody counts it.
const BURST: u64 = 100;
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A socket on the reader's side with a cookie the edge accepts.
pub(super) struct Flood {
    socket: UdpSocket,
    cookie: [u8; 12],
}

impl Flood {
    pub(super) fn greet(reader: &Side, edge: SocketAddr) -> Result<Self> {
        Self::greet_from(reader, Ipv4Addr::UNSPECIFIED, edge)
    }

    /// From an address of the reader's side.
    pub(super) fn greet_from(reader: &Side, from: Ipv4Addr, edge: SocketAddr) -> Result<Self> {
        reader.enter(move || {
            let socket = UdpSocket::bind((from, 0))?;
            socket.connect(edge)?;
            socket.set_read_timeout(Some(ANSWER_WITHIN))?;
            let mut hello = [0; HELLO_BYTES];
            hello[..2].copy_from_slice(&[0xed, 0x11]);
            hello[8..16].copy_from_slice(b"faults!!");
            socket.send(&hello)?;
            let mut welcome = [0; HELLO_BYTES];
            let length = socket.recv(&mut welcome).context("no answer to a HELLO")?;
            if length != HELLO_BYTES || welcome[..2] != [0xed, 0x12] {
                bail!("the edge does not say WELCOME");
            }
            let mut cookie = [0; 12];
            let (epoch, value) = cookie.split_at_mut(4);
            epoch.copy_from_slice(&welcome[16..20]);
            value.copy_from_slice(&welcome[24..32]);
            Ok(Self { socket, cookie })
        })?
    }

    /// So many GETs for these segments of a chunk.
    pub(super) fn pour(&self, chunk: &Path, want: u128, count: u64) -> Result<()> {
        let id = id(chunk)?;
        self.pour_each(want, (0..count).map(|_| id))
    }

    /// GETs for this many chunks that nobody has; no two of these numbers name the same one.
    pub(super) fn pour_absent(&self, numbers: Range<u64>) -> Result<()> {
        let absent = numbers.map(|number| {
            let mut id = [0xee; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            id
        });
        self.pour_each(1, absent)
    }

    /// Two GETs in one frame, as a kernel on the way joins them (UDP GRO); returns the indexes of
    /// the segments that come, in order.
    pub(super) fn ask_as_one(&self, chunk: &Path, wants: [u128; 2]) -> Result<[u8; 2]> {
        let id = id(chunk)?;
        let gets = wants.map(|want| self.get(&id, want));
        // Cut to datagrams again where the link cannot carry it whole.
        setsockopt(&self.socket, UdpGsoSegment, &i32::try_from(GET_BYTES)?)?;
        self.socket.send(gets.as_flattened())?;
        let mut indexes = [0; 2];
        for index in &mut indexes {
            let mut data = [0; 2048];
            let length = self.socket.recv(&mut data).context("no answer to a GET")?;
            if length < 16 || data[..2] != [0xed, 0x14] {
                bail!("the edge answers a GET with {:?}", &data[..length.min(16)]);
            }
            *index = data[2];
        }
        indexes.sort_unstable();
        Ok(indexes)
    }

    fn get(&self, id: &[u8; 32], want: u128) -> [u8; GET_BYTES] {
        let mut get = [0; GET_BYTES];
        get[..2].copy_from_slice(&[0xed, 0x13]);
        get[4..16].copy_from_slice(&self.cookie);
        get[16..48].copy_from_slice(id);
        get[48..].copy_from_slice(&want.to_be_bytes());
        get
    }

    fn pour_each(&self, want: u128, ids: impl Iterator<Item = [u8; 32]>) -> Result<()> {
        for (id, number) in ids.zip(1_u64..) {
            self.socket.send(&self.get(&id, want))?;
            if number % BURST == 0 {
                clock::pause();
            }
        }
        Ok(())
    }
}

/// A chunk's file is called by the hex of its id.
fn id(chunk: &Path) -> Result<[u8; 32]> {
    let name = chunk.file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| name.len() == 64 && name.is_ascii());
    let name = name.context("a chunk is called by its id")?;
    let mut id = [0; 32];
    for (byte, at) in id.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&name[at..at + 2], 16)?;
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_from_the_name_of_its_file() {
        let name = format!("a/0f{}", "10".repeat(31));
        let read = id(Path::new(&name)).unwrap();
        assert_eq!((read[0], read[31]), (15, 16));
        assert!(id(Path::new("a/0f")).is_err());
    }
}
