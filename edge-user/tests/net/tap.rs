//! Whole frames, in and out of the reader's end of the link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::ground::Side;

/// Everything of a whole trace fits, however late it is read.
const BUFFER_BYTES: usize = 32 << 20;

pub(crate) struct Tap {
    socket: OwnedFd,
    link: LinkAddr,
    mac: [u8; 6],
}

impl Tap {
    pub(crate) fn on(side: &Side) -> Self {
        let (socket, link) = side
            .enter(|| {
                let mut links = getifaddrs()
                    .unwrap()
                    .filter(|there| there.interface_name == side.link);
                let link = links
                    .find_map(|there| there.address?.as_link_addr().copied())
                    .unwrap();
                let all = SockProtocol::EthAll;
                let socket = socket(
                    AddressFamily::Packet,
                    SockType::Raw,
                    SockFlag::SOCK_CLOEXEC,
                    all,
                )
                .unwrap();
                (socket, link)
            })
            .unwrap();
        set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).unwrap();
        Self {
            socket,
            link,
            mac: side.mac,
        }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = sendto(
            self.socket.as_raw_fd(),
            frame,
            &self.link,
            MsgFlags::empty(),
        )
        .unwrap();
        assert_eq!(sent, frame.len());
    }

    /// The next frame for this station, if one comes in time. An outer VLAN tag has been taken
    /// off by the kernel.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        let patience = Timespec::try_from(patience).unwrap();
        let mut frame = vec![0; 65_536];
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            if poll(&mut fds, Some(&patience)).unwrap() == 0 {
                return None;
            }
            let length = recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()).unwrap();
            if frame[..6] == self.mac {
                frame.truncate(length);
                return Some(frame);
            }
        }
    }
}

/// An IP packet, seen from its receiver.
pub(crate) struct Heard {
    pub(crate) to: IpAddr,
    /// With the IP header.
    pub(crate) ip_bytes: usize,
    /// Behind the UDP header, if it is an unbroken UDP datagram.
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) checksum_is_right: bool,
}

/// Reads an untagged frame that carries IP; nothing for another one.
pub(crate) fn read(frame: &[u8]) -> Option<Heard> {
    let ip = frame.get(14..)?;
    let (to, from, ip_bytes, header_bytes, protocol) = match frame[12..14] {
        [0x08, 0x00] => {
            let address = |at: usize| Ipv4Addr::from(*ip[at..].first_chunk::<4>().unwrap());
            let header_bytes = usize::from(ip[0] & 0x0f) * 4;
            (
                address(16).into(),
                address(12).into(),
                word(ip, 2),
                header_bytes,
                ip[9],
            )
        }
        [0x86, 0xdd] => {
            let address = |at: usize| Ipv6Addr::from(*ip[at..].first_chunk::<16>().unwrap());
            (
                address(24).into(),
                address(8).into(),
                word(ip, 4) + 40,
                40,
                ip[6],
            )
        }
        _ => return None,
    };
    let udp = ip.get(header_bytes..ip_bytes)?;
    let payload = (protocol == 17 && udp.len() >= 8).then(|| udp[8..].to_vec());
    let checksum_is_right = payload.is_some() && udp_sum(from, to, udp) == 0xffff;
    Some(Heard {
        to,
        ip_bytes,
        payload,
        checksum_is_right,
    })
}

/// Length of the IP packet in a frame that we made.
pub(crate) fn ip_bytes(frame: &[u8]) -> usize {
    frame.len() - 14
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn udp_sum(from: IpAddr, to: IpAddr, udp: &[u8]) -> u16 {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u16::try_from(udp.len()).unwrap().to_be_bytes();
    sum(&[&bytes(from), &bytes(to), &length[..], &[0, 17], udp].concat())
}

/// Sum in one's complement; over bytes with a right checksum it is all ones.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let add = |sum: u32, pair: &[u8]| {
        let sum = sum + (u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
        (sum & 0xffff) + (sum >> 16)
    };
    u16::try_from(bytes.chunks(2).fold(0, add)).unwrap()
}
