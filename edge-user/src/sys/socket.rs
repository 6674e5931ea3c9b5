//! The service's UDP sockets: for each address one that receives, and for each sender two that
//! only send, because a reply must come from the address of its request (docs/adr/0003).

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::getsockname;

use super::bind_retry::bind_when_free;

/// The UDP socket that receives datagrams to one service address.
#[derive(Debug)]
pub struct ServiceSocket {
    fd: OwnedFd,
    address: SocketAddr,
    /// The lower half is the kernel's counter.
    dropped: AtomicU64,
    /// Every [`SendSocket`] of the same address.
    send_sockets: Mutex<Vec<Arc<OwnedFd>>>,
}

#[expect(clippy::cast_possible_truncation, reason = "2 and 10")]
const AF_INET: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "2 and 10")]
const AF_INET6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;

pub(in crate::sys) const SEND_BUFFER_BYTES: libc::c_int = 16 << 20;
const RECEIVE_BUFFER_BYTES: libc::c_int = 4 << 20;
const TTL: libc::c_int = 64;

/// A UDP socket that sends from a service address and receives nothing.
///
/// It shares the address with the [`ServiceSocket`], but is connected to a port of the host itself,
/// so the kernel delivers only datagrams from there, and its filter drops those too. A send names
/// its own destination, which overrides that of the connection.
#[derive(Debug)]
pub(in crate::sys) struct SendSocket {
    fd: Arc<OwnedFd>,
    family: libc::c_int,
}

/// The control messages that [`SendSocket::passed`] receives: a timestamp and two addresses.
#[repr(C, align(8))]
struct ErrorControl([u8; 256]);

impl ServiceSocket {
    /// Retries for a while if the address is in use.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let fd = datagram_socket(&address)?;
        set_buffer(
            fd.as_raw_fd(),
            libc::SO_RCVBUFFORCE,
            libc::SO_RCVBUF,
            RECEIVE_BUFFER_BYTES,
        )?;
        set_unicast_filter(fd.as_raw_fd())?;
        bind_when_free(|| call_bind(&fd, &address))?;
        // With the port that the kernel chose for port 0.
        let address = SocketAddr::try_from(getsockname(&fd)?).map_err(io::Error::other)?;
        Ok(Self {
            fd,
            address,
            dropped: AtomicU64::new(0),
            send_sockets: Mutex::default(),
        })
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Datagrams to this socket that the kernel has dropped, because the buffer was full or the
    /// checksum wrong. Must be called at least once every 2^32 drops.
    pub fn dropped(&self) -> io::Result<u64> {
        let low = dropped(&self.fd)?;
        let advance = |before: u64| {
            #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
            let more = low.wrapping_sub(before as u32);
            before + u64::from(more)
        };
        let before = self
            .dropped
            .update(Ordering::Relaxed, Ordering::Relaxed, advance);
        Ok(advance(before))
    }

    pub(in crate::sys) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl SendSocket {
    /// A further socket for the service address. With `reports`, it reports the destination of each
    /// datagram that was passed to the device, see [`Self::passed`].
    pub(in crate::sys) fn new(service: &ServiceSocket, reports: bool) -> io::Result<Self> {
        let address = service.address();
        let fd = Arc::new(datagram_socket(&address)?);
        let raw = fd.as_raw_fd();
        set_buffer(
            raw,
            libc::SO_SNDBUFFORCE,
            libc::SO_SNDBUF,
            SEND_BUFFER_BYTES,
        )?;
        set_drop_filter(raw)?;
        let mut send_sockets = service
            .send_sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        send_sockets.push(Arc::clone(&fd));
        let set_shared = |on| {
            let raws = send_sockets
                .iter()
                .map(AsRawFd::as_raw_fd)
                .chain([service.raw()]);
            let mut set = raws.map(|raw| set_option(raw, libc::SOL_SOCKET, libc::SO_REUSEPORT, on));
            set.find(Result::is_err).unwrap_or(Ok(()))
        };
        // The address is shareable only during this bind, so that a second edge is refused.
        set_shared(1)?;
        let joined = join(&fd, &address);
        set_shared(0)?;
        joined?;
        let family = family(&address);
        if reports {
            let (level, name) = match family {
                libc::AF_INET => (libc::IPPROTO_IP, libc::IP_PKTINFO),
                _ => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            };
            set_option(raw, level, name, 1)?;
            let flags = libc::SOF_TIMESTAMPING_TX_SCHED
                | libc::SOF_TIMESTAMPING_SOFTWARE
                | libc::SOF_TIMESTAMPING_OPT_CMSG;
            let flags = flags.cast_signed();
            set_option(raw, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, flags)?;
        }
        Ok(Self { fd, family })
    }

    pub(in crate::sys) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The next unreported destination of a datagram that was passed to the device: its transmit
    /// timestamp shows that address resolution is complete.
    pub(in crate::sys) fn passed(&self) -> Option<IpAddr> {
        let mut control = ErrorControl([0; 256]);
        // SAFETY: plain data and null pointers, for which zeros are valid.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = control.0.len();
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        loop {
            header.msg_controllen = control.0.len();
            // SAFETY: the header points to the live control buffer and has its length; it has no
            // buffers for a name or a payload.
            let got = unsafe { libc::recvmsg(self.raw(), &raw mut header, flags) };
            if got < 0 {
                return None;
            }
            let filled = &control.0[..header.msg_controllen.min(control.0.len())];
            if let Some(destination) = destination(filled, self.family) {
                return Some(destination);
            }
        }
    }
}

/// The destination from the `IP_PKTINFO` or `IPV6_PKTINFO` of a timestamp.
fn destination(mut messages: &[u8], family: libc::c_int) -> Option<IpAddr> {
    const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
    while let Some(first) = messages.first_chunk::<HEADER_BYTES>() {
        let len = usize::from_ne_bytes(*first.first_chunk()?);
        let level = i32::from_ne_bytes(*first[8..].first_chunk()?);
        let kind = i32::from_ne_bytes(*first[12..].first_chunk()?);
        let data = messages.get(HEADER_BYTES..len)?;
        match (family, level, kind) {
            // Interface and local address come first.
            (libc::AF_INET, libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let octets: [u8; 4] = *data.get(8..)?.first_chunk()?;
                return Some(octets.into());
            }
            (libc::AF_INET6, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let octets: [u8; 16] = *data.first_chunk()?;
                return Some(octets.into());
            }
            _ => {}
        }
        messages = messages.get(len.next_multiple_of(8)..)?;
    }
    None
}

fn family(address: &SocketAddr) -> libc::c_int {
    if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }
}

/// A UDP socket with the options common to all of them.
fn datagram_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(family(address), kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: newly created and not owned elsewhere.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let raw = fd.as_raw_fd();
    // Never fragment, and ignore path MTU discovery: ICMP messages can be forged, and a smaller
    // route MTU makes segmentation offload fail.
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
    Ok(fd)
}

fn call_bind(fd: &OwnedFd, address: &SocketAddr) -> libc::c_int {
    let (name, len) = socket_address(address);
    // SAFETY: address and length describe one live value.
    unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), len) }
}

/// Binds to a shared address and connects at once: until then the socket could receive datagrams
/// meant for the service socket.
fn join(fd: &OwnedFd, address: &SocketAddr) -> io::Result<()> {
    if call_bind(fd, address) != 0 {
        return Err(io::Error::last_os_error());
    }
    // Random, because a forged ICMP error that names this port can make a send fail.
    let mut peer = *address;
    peer.set_port(rand::random_range(1024..=u16::MAX));
    let (name, len) = socket_address(&peer);
    // SAFETY: address and length describe one live value.
    let connected = unsafe { libc::connect(fd.as_raw_fd(), (&raw const name).cast(), len) };
    if connected == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Accepts only frames addressed to this host. Otherwise a request in a broadcast frame would be
/// answered by every edge on the link.
fn set_unicast_filter(fd: RawFd) -> io::Result<()> {
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
    set_filter(fd, &mut steps)
}

/// Drops everything that the socket would receive.
fn set_drop_filter(fd: RawFd) -> io::Result<()> {
    let mut drop_all = [step(libc::BPF_RET | libc::BPF_K, 0, 0)];
    set_filter(fd, &mut drop_all)
}

fn step(code: u32, k: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).expect("a classic BPF opcode"),
        jt: 0,
        jf: skip,
        k,
    }
}

fn set_filter(fd: RawFd, steps: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(steps.len()).expect("a short program"),
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: address and length describe one live value, which the kernel only reads and which
    // refers to `len` live instructions.
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

/// The kernel's count of dropped datagrams.
fn dropped(fd: &OwnedFd) -> io::Result<u32> {
    // `SO_MEMINFO`, and the index of `SK_MEMINFO_DROPS`.
    const SO_MEMINFO: libc::c_int = 55;
    const DROPS: usize = 8;
    let mut memory = [0_u32; 9];
    let mut len = socklen::<[u32; 9]>();
    // SAFETY: address and length describe one live value, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            (&raw mut memory).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(memory[DROPS])
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Exceeds the system's limit if privileged; otherwise the kernel caps the size.
pub(in crate::sys) fn set_buffer(
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

/// Converts an address to its kernel form.
pub(in crate::sys) fn socket_address(
    address: &SocketAddr,
) -> (libc::sockaddr_in6, libc::socklen_t) {
    // SAFETY: plain data, for which zeros are valid.
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
            // SAFETY: plain data, for which zeros are valid.
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

/// Parses an IPv4 or IPv6 address in its kernel form.
pub(in crate::sys) fn parse_socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    // `struct sockaddr_in` and `sockaddr_in6`: family in host order, then port and address in
    // network order; IPv6 has the flow label between the two and the scope at the end.
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

/// The size of a type, for socket calls.
pub(in crate::sys) const fn socklen<T>() -> libc::socklen_t {
    const { assert!(size_of::<T>() < 1 << 16) };
    #[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
    let len = size_of::<T>() as libc::socklen_t;
    len
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn loopbacks() -> [SocketAddr; 2] {
        ["127.0.0.1:0", "[::1]:0"].map(|at| at.parse().unwrap())
    }

    fn send(from: &SendSocket, bytes: &[u8], to: SocketAddr) {
        let (name, len) = socket_address(&to);
        // SAFETY: both pointers refer to live values of these lengths.
        let sent = unsafe {
            libc::sendto(
                from.raw(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const name).cast(),
                len,
            )
        };
        assert_eq!(
            sent,
            bytes.len().cast_signed(),
            "{}",
            io::Error::last_os_error()
        );
    }

    #[test]
    fn replies_leave_from_the_service_address_and_requests_all_reach_the_service_socket() {
        for loopback in loopbacks() {
            let service = ServiceSocket::bind(loopback).unwrap();
            let senders =
                [true, false, true].map(|reports| SendSocket::new(&service, reports).unwrap());
            let client = UdpSocket::bind(loopback).unwrap();
            for sender in &senders {
                send(sender, b"reply", client.local_addr().unwrap());
                let mut reply = [0; 16];
                let (len, from) = client.recv_from(&mut reply).unwrap();
                assert_eq!((&reply[..len], from), (&b"reply"[..], service.address()));
            }
            // From many sources, to cover many hash buckets of a shared port.
            for _ in 0..64 {
                let other = UdpSocket::bind(loopback).unwrap();
                other.send_to(b"request", service.address()).unwrap();
            }
            let mut received = 0;
            let mut request = [0_u8; 16];
            // SAFETY: the buffer is live and of the given length.
            while unsafe {
                libc::recv(
                    service.raw(),
                    request.as_mut_ptr().cast(),
                    request.len(),
                    libc::MSG_DONTWAIT,
                )
            } > 0
            {
                received += 1;
            }
            assert_eq!(received, 64);
            for sender in &senders {
                assert_eq!(dropped(&sender.fd).unwrap(), 0, "it receives nothing");
            }
        }
    }

    #[test]
    fn a_second_edge_cannot_take_the_address_while_the_first_has_sockets_to_send_from() {
        for loopback in loopbacks() {
            let service = ServiceSocket::bind(loopback).unwrap();
            let _sender = SendSocket::new(&service, false).unwrap();
            let second = datagram_socket(&service.address()).unwrap();
            let shared = (libc::SOL_SOCKET, libc::SO_REUSEPORT);
            set_option(second.as_raw_fd(), shared.0, shared.1, 1).unwrap();
            assert_eq!(call_bind(&second, &service.address()), -1);
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn the_destination_of_each_transmitted_datagram_is_reported_once() {
        for loopback in loopbacks() {
            let service = ServiceSocket::bind(loopback).unwrap();
            let client = UdpSocket::bind(loopback).unwrap();
            let to = client.local_addr().unwrap();
            let sender = SendSocket::new(&service, true).unwrap();
            assert_eq!(sender.passed(), None);
            send(&sender, b"reply", to);
            assert_eq!(sender.passed(), Some(to.ip()));
            assert_eq!(sender.passed(), None);
        }
    }

    #[test]
    fn datagrams_dropped_at_a_full_receive_buffer_are_counted() {
        let service = ServiceSocket::bind(loopbacks()[0]).unwrap();
        set_option(service.raw(), libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).unwrap();
        let client = UdpSocket::bind(loopbacks()[0]).unwrap();
        for _ in 0..100 {
            client.send_to(&[0; 1200], service.address()).unwrap();
        }
        let lost = service.dropped().unwrap();
        assert!(lost > 50, "{lost}");
        assert_eq!(service.dropped().unwrap(), lost);
    }
}
