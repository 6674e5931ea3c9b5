//! Builds frames byte by byte, independently of the code under test.

use alloc::vec;
use alloc::vec::Vec;

use super::{CLIENT_MAC, CLIENT_PORT, CLIENT_V4, CLIENT_V6, EDGE_MAC, EDGE_V4, EDGE_V6, NONCE};
use crate::wire::{ChunkId, Cookie, Get, Hello, SERVICE_PORT};

/// A packet builder, which starts as a well-formed request of the golden client.
#[derive(Clone)]
pub struct Build {
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
    /// Ethertype and control information.
    tags: Vec<(u16, u16)>,
    ethertype: Option<u16>,
    v6: bool,
    source: Vec<u8>,
    destination: Vec<u8>,
    protocol: u8,
    /// IPv4 options or IPv6 extension headers.
    extra: Vec<u8>,
    fragment: u16,
    ttl: u8,
    /// Whether UDP has a checksum.
    checksum: bool,
    source_port: u16,
    destination_port: u16,
    pub(super) payload: Vec<u8>,
    udp_bytes_off: i32,
    ip_bytes_off: i32,
    trailer_bytes: usize,
}

/// A request over IPv4.
pub fn v4(payload: Vec<u8>) -> Build {
    Build {
        destination_mac: EDGE_MAC,
        source_mac: CLIENT_MAC,
        tags: Vec::new(),
        ethertype: None,
        v6: false,
        source: CLIENT_V4.to_vec(),
        destination: EDGE_V4.to_vec(),
        protocol: 17,
        extra: Vec::new(),
        fragment: 0x4000,
        ttl: 61,
        checksum: true,
        source_port: CLIENT_PORT,
        destination_port: SERVICE_PORT,
        payload,
        udp_bytes_off: 0,
        ip_bytes_off: 0,
        trailer_bytes: 0,
    }
}

/// A request over IPv6.
pub fn v6(payload: Vec<u8>) -> Build {
    Build {
        v6: true,
        source: CLIENT_V6.to_vec(),
        destination: EDGE_V6.to_vec(),
        ..v4(payload)
    }
}

impl Build {
    #[must_use]
    pub fn source(mut self, address: &[u8], port: u16) -> Self {
        self.source = address.to_vec();
        self.source_port = port;
        self
    }

    #[must_use]
    pub fn destination(mut self, address: &[u8], port: u16) -> Self {
        self.destination = address.to_vec();
        self.destination_port = port;
        self
    }

    #[must_use]
    pub fn macs(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        self.source_mac = source;
        self.destination_mac = destination;
        self
    }

    /// Adds an inner tag of VLAN 5 and priority 1.
    #[must_use]
    pub fn tag(self, ethertype: u16) -> Self {
        self.vlan(ethertype, 0x2005)
    }

    #[must_use]
    pub fn vlan(mut self, ethertype: u16, control: u16) -> Self {
        self.tags.push((ethertype, control));
        self
    }

    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub(super) fn without_checksum(mut self) -> Self {
        self.checksum = false;
        self
    }

    pub(super) fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = Some(ethertype);
        self
    }

    pub(super) fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = protocol;
        self
    }

    /// IPv4 options, or one IPv6 extension header of this type.
    #[must_use]
    pub fn extra(mut self, kind: u8, bytes: &[u8]) -> Self {
        if self.v6 {
            self.extra = [&[17, 0], bytes].concat();
            self.protocol = kind;
        } else {
            self.extra = bytes.to_vec();
        }
        self
    }

    #[must_use]
    pub fn fragment(mut self, flags_and_offset: u16) -> Self {
        self.fragment = flags_and_offset;
        self
    }

    pub(super) fn lengths_off(mut self, ip: i32, udp: i32) -> Self {
        self.ip_bytes_off = ip;
        self.udp_bytes_off = udp;
        self
    }

    pub(super) fn trailer(mut self, bytes: usize) -> Self {
        self.trailer_bytes = bytes;
        self
    }

    /// The answer: source and destination swapped, another payload, no trailer.
    pub(super) fn answer(&self, payload: Vec<u8>) -> Self {
        Self {
            destination_mac: self.source_mac,
            source_mac: self.destination_mac,
            source: self.destination.clone(),
            destination: self.source.clone(),
            source_port: self.destination_port,
            destination_port: self.source_port,
            payload,
            fragment: 0x4000,
            ttl: 64,
            checksum: true,
            trailer_bytes: 0,
            ..self.clone()
        }
    }

    /// The frame, with correct checksums.
    pub fn frame(&self) -> Vec<u8> {
        let udp_bytes = self.payload.len().saturating_add(8);
        let mut udp = Vec::new();
        udp.extend(self.source_port.to_be_bytes());
        udp.extend(self.destination_port.to_be_bytes());
        udp.extend(shifted(udp_bytes, self.udp_bytes_off));
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let pseudo = [
            self.source.as_slice(),
            &self.destination,
            &shifted(udp_bytes, 0),
            &[0, 17],
            &udp,
        ]
        .concat();
        let sum = match checksum(&pseudo) {
            0 => 0xffff,
            sum => sum,
        };
        if self.checksum {
            splice(&mut udp, 6, &sum.to_be_bytes());
        }

        let mut frame = [self.destination_mac, self.source_mac].concat();
        for (ethertype, control) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        let ethertype = self
            .ethertype
            .unwrap_or(if self.v6 { 0x86dd } else { 0x0800 });
        frame.extend(ethertype.to_be_bytes());
        let behind = self.extra.len().saturating_add(udp.len());
        if self.v6 {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(shifted(behind, self.ip_bytes_off));
            frame.extend([self.protocol, self.ttl]);
            frame.extend(&self.source);
            frame.extend(&self.destination);
            frame.extend(&self.extra);
        } else {
            let words = self.extra.len() / 4;
            let mut ip = vec![0x45_u8.saturating_add(u8::try_from(words).unwrap_or(0)), 0];
            ip.extend(shifted(behind.saturating_add(20), self.ip_bytes_off));
            ip.extend([0, 0]);
            ip.extend(self.fragment.to_be_bytes());
            ip.extend([self.ttl, self.protocol, 0, 0]);
            ip.extend(&self.source);
            ip.extend(&self.destination);
            ip.extend(&self.extra);
            let sum = checksum(&ip);
            splice(&mut ip, 10, &sum.to_be_bytes());
            frame.extend(ip);
        }
        frame.extend(udp);
        frame.extend(vec![0; self.trailer_bytes]);
        frame
    }
}

pub(super) fn splice(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(at).zip(new) {
        *byte = *new;
    }
}

fn shifted(length: usize, off: i32) -> [u8; 2] {
    let length = i32::try_from(length).unwrap_or(0).saturating_add(off);
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// The Internet checksum, computed the simple way.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for word in bytes.chunks(2) {
        let high = u16::from(word.first().copied().unwrap_or(0)) << 8;
        let low = u16::from(word.get(1).copied().unwrap_or(0));
        sum = sum.saturating_add(u32::from(high | low));
        sum = (sum & 0xffff).saturating_add(sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// A HELLO of this length.
pub fn hello(len_bytes: usize) -> Vec<u8> {
    let mut payload = Hello { nonce: NONCE }.encode().to_vec();
    payload.resize(len_bytes, 0);
    payload
}

pub fn get(cookie: Cookie, id: ChunkId, want: u128) -> Vec<u8> {
    Get { cookie, id, want }.encode().to_vec()
}

/// The payload with one byte changed.
pub(super) fn changed(mut payload: Vec<u8>, at: usize, to: u8) -> Vec<u8> {
    splice(&mut payload, at, &[to]);
    payload
}
