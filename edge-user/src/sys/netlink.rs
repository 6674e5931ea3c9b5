//! Queries about interfaces through sockets. A socket belongs to the network namespace of the
//! thread that created it; files under `/sys` may show another one.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::socket::set_option;

/// The kernel answers synchronously; this only bounds the effect of a kernel bug.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// `linux/ethtool.h`
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// A `NETLINK_ROUTE` socket with strict checking, so that dumps can be filtered by interface. It
/// joins these multicast groups of `linux/rtnetlink.h`.
pub fn route_socket(groups: u32) -> io::Result<OwnedFd> {
    let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
    // No protocol: NETLINK_ROUTE is 0.
    let socket = socket_with(family, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(RECEIVE_TIMEOUT))?;
    set_option(
        socket.as_raw_fd(),
        libc::SOL_NETLINK,
        libc::NETLINK_GET_STRICT_CHK,
        1,
    )?;
    Ok(socket)
}

/// `struct ethtool_channels`
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    maxima: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ifreq`, as this request uses it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut c_void,
    /// The rest of the kernel's union.
    rest: [u8; 16],
}
const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// The number of RX queues in use, or `None` if the driver does not report it.
pub fn receive_queues(socket: &OwnedFd, interface: &str) -> io::Result<Option<u32>> {
    let mut channels = Channels {
        command: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        data: (&raw mut channels).cast(),
        rest: [0; 16],
    };
    let name = interface.as_bytes();
    // The last byte stays zero.
    let place = request.name[..libc::IFNAMSIZ - 1].get_mut(..name.len());
    place
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(name);
    // SAFETY: the request has the kernel's size, its name ends in a zero, and it points to a live
    // `struct ethtool_channels`, which is all that this command reads and writes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result == 0 {
        return Ok(Some(channels.rx + channels.combined));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => Ok(None),
        _ => Err(error),
    }
}
