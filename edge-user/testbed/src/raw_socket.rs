//! A raw socket on one end of the link: sends and receives whole frames.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::bed::Side;
use crate::process;

/// Buffer for packets that arrive while this process is not scheduled.
const BUFFER_BYTES: usize = 256 << 20;
const FRAME_BYTES_MAX: usize = 65_536;

/// It does not receive what it sends, but what others on this end send.
pub struct RawSocket {
    socket: OwnedFd,
    pub mac: [u8; 6],
}

impl RawSocket {
    pub fn on(side: &Side) -> Result<Self> {
        let name = side.link;
        side.enter(move || {
            let links = getifaddrs().context("cannot list the interfaces")?;
            let link: LinkAddr = links
                .filter(|there| there.interface_name == name)
                .find_map(|there| there.address?.as_link_addr().copied())
                .with_context(|| format!("{name} has no link address"))?;
            let mac = link.addr().context("the link has no station address")?;
            let (raw, all) = (SockType::Raw, SockProtocol::EthAll);
            let socket = socket(AddressFamily::Packet, raw, SockFlag::SOCK_CLOEXEC, all)
                .context("no raw socket")?;
            set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)?;
            bind(socket.as_raw_fd(), &link).with_context(|| format!("cannot bind to {name}"))?;
            Ok(Self { socket, mac })
        })?
    }

    /// Returns whether the link accepted it; a full queue does not.
    pub fn send(&self, frame: &[u8]) -> Result<bool> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(length) => Ok(length == frame.len()),
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(error) => Err(error).context("cannot send a frame"),
        }
    }

    /// Passes the first bytes of each received frame, at most `front`, and its length to a
    /// function.
    pub fn drain(
        &self,
        front: usize,
        mut each: impl FnMut(&[u8], usize) -> Result<()>,
    ) -> Result<()> {
        let mut bytes = vec![0; front];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        loop {
            match recv(self.socket.as_raw_fd(), &mut bytes, flags) {
                Ok(length) => each(&bytes[..length.min(front)], length)?,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot receive frames"),
            }
        }
    }

    /// The next frame to this MAC address, unless the time runs out. The kernel has removed an
    /// outer VLAN tag.
    pub fn receive(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        while self.wait(patience)? {
            let length = recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty())?;
            if frame[..6] == self.mac {
                frame.truncate(length);
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Waits until a frame arrives, or the time runs out.
    pub fn wait(&self, patience: Duration) -> Result<bool> {
        let patience = Timespec::try_from(patience)?;
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&patience)) {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error).context("cannot wait for the link"),
        }
    }
}

/// Frames that the raw sockets of a side dropped because their buffers were full.
pub fn lost(side: &Side) -> Result<u64> {
    let mut command = side.inside("ss");
    command.args(["--packet", "--memory", "--numeric", "--no-header"]);
    let text = process::output(&mut command)?;
    // `skmem:(r0,rb…,…,d0)`: the last field counts drops.
    let drops = |field: &str| field.strip_suffix(')')?.rsplit_once(",d")?.1.parse().ok();
    let found: Vec<u64> = text.split_whitespace().filter_map(drops).collect();
    if found.is_empty() {
        bail!("`ss` does not report the drops of raw sockets: {text}");
    }
    Ok(found.iter().sum())
}
