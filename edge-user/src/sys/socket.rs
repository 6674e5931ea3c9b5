//! The service's UDP sockets: one for each address, because a reply must leave from the address
//! that was asked.

use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::taken::bind_when_free;

/// A UDP socket bound to one service address.
///
/// The miss path receives on it, and every thread sends from it: UDP sends take no lock, so one
/// socket an address serves all workers (docs/adr/0003).
#[derive(Debug)]
pub struct ServiceSocket {
    fd: OwnedFd,
    address: SocketAddr,
}

#[expect(clippy::cast_possible_truncation, reason = "2 and 10")]
const AF_INET: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "2 and 10")]
const AF_INET6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;

const SEND_BUFFER_BYTES: libc::c_int = 16 << 20;
const RECEIVE_BUFFER_BYTES: libc::c_int = 4 << 20;
const TTL: libc::c_int = 64;

impl ServiceSocket {
    /// Waits a while for an address that is taken.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let raw = fd.as_raw_fd();
        // Never fragment, and never believe a path MTU from the network: an ICMP message is
        // forgeable, and a smaller route MTU makes segmentation offload fail.
        if address.is_ipv4() {
            set_option(
                raw,
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_PROBE,
            )?;
            set_option(raw, libc::IPPROTO_IP, libc::IP_TTL, TTL)?;
        } else {
            set_option(raw, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            set_option(
                raw,
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_PROBE,
            )?;
            set_option(raw, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, TTL)?;
        }
        set_buffer(
            raw,
            libc::SO_SNDBUFFORCE,
            libc::SO_SNDBUF,
            SEND_BUFFER_BYTES,
        )?;
        set_buffer(
            raw,
            libc::SO_RCVBUFFORCE,
            libc::SO_RCVBUF,
            RECEIVE_BUFFER_BYTES,
        )?;

        only_to_this_station(raw)?;

        let (name, len) = socket_address(&address);
        // SAFETY: address and length describe one live value.
        bind_when_free(|| unsafe { libc::bind(raw, (&raw const name).cast(), len) })?;
        Ok(Self { fd, address })
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(in crate::sys) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Takes only what was sent to this station. The kernel would also deliver what names the address in
/// a frame to everybody, and one such frame would be answered by every edge on the link.
fn only_to_this_station(fd: RawFd) -> io::Result<()> {
    let step = |code: u32, k: u32, skip: u8| libc::sock_filter {
        code: u16::try_from(code).expect("a code of classic BPF"),
        jt: 0,
        jf: skip,
        k,
    };
    let kind = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, kind, 0),
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            u32::from(libc::PACKET_HOST),
            1,
        ),
        step(libc::BPF_RET | libc::BPF_K, u32::MAX, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: address and length describe one live value, which the kernel only reads, and which
    // leads to as many live steps as it says.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            socklen::<libc::sock_fprog>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Without the right to exceed the system's limit, as much as it allows.
fn set_buffer(
    fd: RawFd,
    forced: libc::c_int,
    limited: libc::c_int,
    bytes: libc::c_int,
) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, forced, bytes)
        .or_else(|_| set_option(fd, libc::SOL_SOCKET, limited, bytes))
}

pub(in crate::sys) fn set_option(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: address and length describe one live value, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            socklen::<libc::c_int>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An address as the kernel takes it.
pub(in crate::sys) fn socket_address(
    address: &SocketAddr,
) -> (libc::sockaddr_in6, libc::socklen_t) {
    // SAFETY: plain data, for which zeros are a value.
    let mut six: libc::sockaddr_in6 = unsafe { zeroed() };
    match address {
        SocketAddr::V6(address) => {
            six.sin6_family = AF_INET6;
            six.sin6_port = address.port().to_be();
            six.sin6_addr.s6_addr = address.ip().octets();
            six.sin6_scope_id = address.scope_id();
            (six, socklen::<libc::sockaddr_in6>())
        }
        SocketAddr::V4(address) => {
            // SAFETY: plain data, for which zeros are a value.
            let mut four: libc::sockaddr_in = unsafe { zeroed() };
            four.sin_family = AF_INET;
            four.sin_port = address.port().to_be();
            four.sin_addr.s_addr = u32::from(*address.ip()).to_be();
            const { assert!(size_of::<libc::sockaddr_in>() <= size_of::<libc::sockaddr_in6>()) };
            let place = (&raw mut six).cast::<libc::sockaddr_in>();
            // SAFETY: the larger of the two has room for the smaller, and its alignment suffices.
            unsafe { place.write(four) };
            (six, socklen::<libc::sockaddr_in>())
        }
    }
}

/// An address as the kernel gives it, if it is one of the Internet's.
pub(in crate::sys) fn parse_socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    // `struct sockaddr_in` and `sockaddr_in6`: family in host order, then port and address in
    // network order; IPv6 has its flow label between the two and the scope behind.
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    if family == AF_INET {
        let octets: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
        Some(SocketAddr::from((octets, port)))
    } else if family == AF_INET6 {
        let octets: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
        let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
        Some(std::net::SocketAddrV6::new(octets.into(), port, 0, scope).into())
    } else {
        None
    }
}

/// Size of a type, as socket calls take it.
pub(in crate::sys) const fn socklen<T>() -> libc::socklen_t {
    const { assert!(size_of::<T>() < 1 << 16) };
    #[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
    let len = size_of::<T>() as libc::socklen_t;
    len
}
