//! Attacks on a reader by an attacker on the path, who sees its requests and forges replies of the
//! edge. The edge itself is honest and serves meanwhile.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::Result;
use edge_ebpf::wire::{ChunkId, Geometry, Get, Kind, NackCode, SEGMENT_BYTES_DEFAULT, Welcome};
use edge_testbed::{
    client::HELLO_BYTES,
    daemon::Counts,
    fake_edge::{Asked, nack, padded, welcome},
    packet::{self, Mac},
    raw_socket::RawSocket,
};

use super::Session;
use super::attacker::{Attacker, unused};
use super::frames::{self, FRONT_BYTES, Frame, data, lying};
use super::report::Row;
use super::run::{self, Now, Phase};
use super::victim::Measured;
use crate::reader::End;
use crate::testbed::Promise;

/// The attacker's MAC address.
const STRANGER: Mac = [2, 0, 0, 0, 0x66, 6];
/// Noise datagrams per GET.
const NOISE: u8 = 200;

/// A forgery; a row of the table defines it.
pub(super) struct Forgery {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    /// What the attacker sends for a datagram of the reader.
    forge: fn(&Seen<'_>) -> Vec<Forged>,
    /// Whether it must have no effect: every file is received intact.
    in_vain: bool,
}

#[rustfmt::skip] // one attack a line, as far as it goes
pub(super) const ATTACKS: &[Forgery] = &[
    Forgery { name: "side-data", does: "forged DATA for every segment the reader requests", forge: wrong_data, in_vain: false },
    Forgery { name: "side-data-once", does: "forged DATA for the first GET only", forge: wrong_data_once, in_vain: true },
    Forgery { name: "side-nack", does: "forged NACKs that echo the reader's cookie", forge: nacks, in_vain: false },
    Forgery { name: "side-pending", does: "forged PENDING for each GET", forge: pending, in_vain: true },
    Forgery { name: "side-nack-guess", does: "forged NACKs of every code, with a guessed cookie", forge: guessed_nacks, in_vain: true },
    Forgery { name: "side-lengths", does: "forged DATA with false lengths", forge: lengths, in_vain: true },
    Forgery { name: "side-port", does: "forged DATA from another port, and another address", forge: elsewhere, in_vain: true },
    Forgery { name: "side-welcome", does: "forged WELCOMEs with wild values and a guessed nonce", forge: welcomes, in_vain: true },
    Forgery { name: "side-noise", does: "200 unrequested DATA datagrams per GET", forge: noise, in_vain: true },
];

/// A datagram of the reader's, on its way to the edge.
struct Seen<'a> {
    service: SocketAddr,
    payload: &'a [u8],
    /// Number of GETs since the attack began.
    gets: u64,
    /// All chunks: with the public ticket their lengths are known.
    chunks: &'a HashMap<ChunkId, Vec<u8>>,
}

/// A datagram, and its forged source.
type Forged = (SocketAddr, Vec<u8>);

impl Seen<'_> {
    fn get(&self) -> Option<(Get, Geometry, u32)> {
        let Some(Asked::Get(get)) = Asked::read(self.payload) else {
            return None;
        };
        let chunk_bytes = u32::try_from(self.chunks.get(&get.id)?.len()).ok()?;
        let geometry = Geometry::new(chunk_bytes, SEGMENT_BYTES_DEFAULT)?;
        Some((get, geometry, chunk_bytes))
    }

    /// Forgeries from the edge's address and port.
    fn as_edge(&self, datagrams: impl IntoIterator<Item = Vec<u8>>) -> Vec<Forged> {
        let forged = datagrams.into_iter().map(|bytes| (self.service, bytes));
        forged.collect()
    }
}

/// Headers and lengths are correct, the payload is not.
fn altered(seen: &Seen<'_>) -> Vec<Vec<u8>> {
    let Some((get, geometry, chunk_bytes)) = seen.get() else {
        return Vec::new();
    };
    let wanted = (0..=geometry.last).filter(|index| get.want >> index & 1 == 1);
    let forge = |index| {
        let (_, len) = geometry.segment(index)?;
        Some(data(index, geometry.last, chunk_bytes, get.id.tag(), len))
    };
    wanted.filter_map(forge).collect()
}

fn wrong_data(seen: &Seen<'_>) -> Vec<Forged> {
    seen.as_edge(altered(seen))
}

fn wrong_data_once(seen: &Seen<'_>) -> Vec<Forged> {
    if seen.gets > 1 {
        return Vec::new();
    }
    wrong_data(seen)
}

fn elsewhere(seen: &Seen<'_>) -> Vec<Forged> {
    let mut port = seen.service;
    port.set_port(port.port() + 1);
    let mut address = seen.service;
    address.set_ip(unused(7, address.is_ipv6(), 0).ip());
    let from = [port, address];
    let forged = altered(seen).into_iter();
    forged
        .flat_map(|bytes| from.map(|from| (from, bytes.clone())))
        .collect()
}

fn refusals(
    seen: &Seen<'_>,
    codes: &[NackCode],
    retry_ms: u32,
    echo: Option<[u8; 8]>,
) -> Vec<Forged> {
    let Some((get, ..)) = seen.get() else {
        return Vec::new();
    };
    let echo = echo.unwrap_or(get.cookie.value);
    seen.as_edge(codes.iter().map(|code| nack(&get, *code, retry_ms, echo)))
}

fn nacks(seen: &Seen<'_>) -> Vec<Forged> {
    refusals(seen, &[NackCode::Absent], 0, None)
}

fn pending(seen: &Seen<'_>) -> Vec<Forged> {
    refusals(seen, &[NackCode::Pending], 250, None)
}

fn guessed_nacks(seen: &Seen<'_>) -> Vec<Forged> {
    let codes = [
        NackCode::Absent,
        NackCode::Pending,
        NackCode::Busy,
        NackCode::Cookie,
        NackCode::Origin,
        NackCode::Range,
    ];
    refusals(seen, &codes, 0, Some(*b"guessed!"))
}

fn lengths(seen: &Seen<'_>) -> Vec<Forged> {
    let Some((get, geometry, chunk_bytes)) = seen.get() else {
        return Vec::new();
    };
    let mut forged = lying(
        geometry.last,
        chunk_bytes,
        get.id.tag(),
        SEGMENT_BYTES_DEFAULT.into(),
    );
    forged.extend([Vec::new(), vec![0xed]]);
    seen.as_edge(forged)
}

fn welcomes(seen: &Seen<'_>) -> Vec<Forged> {
    let Some(Asked::Hello(hello, _)) = Asked::read(seen.payload) else {
        return Vec::new();
    };
    let wild = [
        (0, 0, 0),
        (u16::MAX, 255, 1),
        (1024, 1, 2),
        (1440, 128, u16::MAX),
    ];
    let forged = wild.map(|(segment_bytes, max_burst, lifetime_seconds)| {
        let mut wrong = Welcome {
            segment_bytes,
            max_burst,
            lifetime_seconds,
            ..welcome(&hello, 7)
        };
        wrong.nonce[7] ^= 1;
        padded(&wrong, HELLO_BYTES)
    });
    seen.as_edge(forged)
}

fn noise(seen: &Seen<'_>) -> Vec<Forged> {
    if seen.get().is_none() {
        return Vec::new();
    }
    let full = usize::from(SEGMENT_BYTES_DEFAULT);
    seen.as_edge((0..NOISE).map(|tag| data(0, 107, 131_072, [tag; 8], full)))
}

pub(super) fn run(session: &Session<'_>, attack: &Forgery) -> Result<Row> {
    let mut edged = session.start_edge()?;
    session.warm()?;
    let mut attacker = Attacker::new(session)?;
    let beside = RawSocket::on(&session.testbed.bed.edge)?;
    let before = Counts::read(&session.testbed.settings.socket)?;
    let forger = |phase: &Phase| forge(&mut attacker, &beside, attack, phase);
    let measured = run::fight(session, &mut edged, false, forger)?;
    let (reasons, mut promises) = run::audit(session, &before, edged)?;
    promises.extend(run::fair(&measured.fetches));
    promises.extend(in_vain(attack, &measured));
    let head = (attack.name, attack.does);
    let notes = Vec::new();
    Ok(Row::fought(
        head,
        &attacker.tally,
        reasons,
        notes,
        measured,
        promises,
    ))
}

fn in_vain(attack: &Forgery, measured: &Measured) -> Option<Promise> {
    let harmed = measured
        .fetches
        .iter()
        .find(|fetch| fetch.end != End::Whole);
    attack.in_vain.then(|| match harmed {
        None => (
            true,
            String::from("it had no effect: every file was received intact"),
        ),
        Some(fetch) => (false, format!("it had an effect: a reader {}", fetch.end)),
    })
}

/// The attacker's thread: watches what the reader sends, and replies in the edge's name.
fn forge(
    attacker: &mut Attacker<'_>,
    beside: &RawSocket,
    attack: &Forgery,
    phase: &Phase,
) -> Result<()> {
    let chunks = &attacker.session.chunks;
    let reader_mac = attacker.socket.mac;
    let mut gets = 0;
    let mut was = Now::Rest;
    loop {
        let now = phase.now();
        if now != was {
            gets = 0;
            was = now;
        }
        let mut forged: Vec<(SocketAddr, Forged)> = Vec::new();
        // Even during an attack there is nothing to do before the reader sends.
        let arrived = attacker
            .socket
            .wait(now.patience().max(Now::Rest.patience()))?;
        let Attacker {
            socket,
            tally,
            session,
            ..
        } = &mut *attacker;
        socket.drain(FRONT_BYTES, |front, length| {
            tally.record(front, length);
            let packet = packet::read(front).filter(|packet| {
                packet.from_mac == reader_mac && session.edges.contains(&packet.to)
            });
            if now == Now::Attack
                && let Some(packet) = packet
                && let Some(payload) = packet.payload()
            {
                gets += u64::from(frames::is(payload, Kind::Get));
                let seen = Seen {
                    service: packet.to,
                    payload,
                    gets,
                    chunks,
                };
                let all = (attack.forge)(&seen).into_iter();
                forged.extend(all.map(|one| (packet.from, one)));
            }
            Ok(())
        })?;
        for (to, (from, payload)) in forged {
            let frame = Frame::new(from, to, (STRANGER, reader_mac), payload);
            tally.sent(&frame, u64::from(beside.send(&frame.bytes)?));
        }
        if now == Now::End && !arrived {
            return Ok(());
        }
    }
}
