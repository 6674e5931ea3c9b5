//! One end of the link, by whole frames: sends whatever it is given, hears everything that arrives.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{bed::Side, process};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

/// What arrives while the owner of a line is not let run.
const BUFFER_BYTES: usize = 256 << 20;
/// The front of a frame that is looked at: the longest headers and a GET.
const FRONT_BYTES: usize = 160;

pub(super) type Mac = [u8; 6];

/// A raw socket on one end of the link. It does not hear what it sent itself, but what others on
/// this end send.
pub(super) struct Line {
    socket: OwnedFd,
    pub(super) mac: Mac,
}

impl Line {
    pub(super) fn on(side: &Side) -> Result<Self> {
        let name = side.link;
        side.enter(move || {
            let links = getifaddrs().context("cannot list the interfaces")?;
            let link: LinkAddr = links
                .filter(|there| there.interface_name == name)
                .find_map(|there| there.address?.as_link_addr().copied())
                .with_context(|| format!("{name} has no link address"))?;
            let mac = link.addr().context("the link has no station address")?;
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .context("no raw socket")?;
            set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)?;
            bind(socket.as_raw_fd(), &link).with_context(|| format!("cannot bind to {name}"))?;
            Ok(Self { socket, mac })
        })?
    }

    /// Whether the link took it; when its queue is full it does not.
    pub(super) fn send(&self, frame: &[u8]) -> Result<bool> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(error) => Err(error).context("cannot send a frame"),
        }
    }

    /// Hands over the front of each frame that is there, and the length of the whole.
    pub(super) fn drain(&self, mut each: impl FnMut(&[u8], usize) -> Result<()>) -> Result<()> {
        let mut front = [0; FRONT_BYTES];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        loop {
            match recv(self.socket.as_raw_fd(), &mut front, flags) {
                Ok(length) => each(&front[..length.min(FRONT_BYTES)], length)?,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot hear the link"),
            }
        }
    }

    /// Until something is there, or the time is over.
    pub(super) fn wait(&self, patience: Duration) -> Result<bool> {
        let patience = Timespec::try_from(patience)?;
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&patience)) {
            Ok(count) => Ok(count > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error).context("cannot wait for the link"),
        }
    }
}

/// Frames that the raw sockets of a side did not hear because their buffers were full.
pub(super) fn unheard(side: &Side) -> Result<u64> {
    let mut command = side.inside("ss");
    command.args(["--packet", "--memory", "--numeric", "--no-header"]);
    let text = process::output(&mut command)?;
    // `skmem:(r0,rb…,…,d0)`: the last field counts drops.
    let drops = |field: &str| field.strip_suffix(')')?.rsplit_once(",d")?.1.parse().ok();
    let found: Vec<u64> = text.split_whitespace().filter_map(drops).collect();
    if found.is_empty() {
        bail!("`ss` does not tell what a raw socket lost: {text}");
    }
    Ok(found.iter().sum())
}
