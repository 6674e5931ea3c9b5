//! A frame, judged by `decide` and by the model: verdict, reason and every byte of an answer must
//! agree. The socket path's `admit` must think the same of the datagram in it.
//!
//! Input: how to mend the frame, which world it meets, a length, and the frame's first bytes.

use edge_ebpf::frame::Address;
use edge_ebpf::golden;
use edge_ebpf::maps::{ABI_VERSION, COOKIE_KEYS, CookieKey, Cookies, Resident, Settings};
use edge_ebpf::rewrite;
use edge_ebpf::steer::{self, Admission, Datagram, Verdict, decide};
use edge_ebpf::wire::ChunkId;

use crate::input::Input;
use crate::model::{self, Fate, Tables};

/// Longer than any frame with a HELLO in it, and than an interface with the usual MTU gives.
const FRAME_BYTES_MAX: u16 = 1600;

struct World(Tables);

impl steer::Tables for World {
    fn settings(&self) -> Option<&Settings> {
        self.0.settings.as_ref()
    }

    fn cookies(&self) -> Option<&Cookies> {
        self.0.cookies.as_ref()
    }

    fn resident(&self, id: &ChunkId) -> Option<Resident> {
        (id.0 == self.0.id).then_some(self.0.resident)
    }

    fn is_local(&self, address: &Address) -> bool {
        self.0.locals.contains(&address.bytes())
    }
}

/// The golden world, and odd ones.
fn world(which: u8) -> World {
    let golden = golden::world();
    let mut settings = golden.settings;
    let mut cookies = golden.cookies;
    let (mut told, mut keyed) = (true, true);
    match which {
        1 => told = false,
        2 => keyed = false,
        3 => settings.abi_version = ABI_VERSION + 1,
        4 => cookies.keys = [CookieKey::default(); COOKIE_KEYS],
        // At the ends of the count of epochs.
        5 | 6 => {
            cookies.epoch = if which == 5 { 0 } else { u32::MAX };
            for step in [u32::MAX, 0, 1] {
                let epoch = cookies.epoch.wrapping_add(step);
                cookies.keys[(epoch % 4) as usize] = CookieKey {
                    epoch,
                    live: 1,
                    words: [u64::from(step), 7],
                };
            }
        }
        7 => (settings.segment_bytes, settings.max_burst) = (1440, 128),
        8 => settings.port = 0,
        9 => settings.coalesced = 1,
        _ => {}
    }
    World(Tables {
        settings: told.then_some(settings),
        cookies: keyed.then_some(cookies),
        locals: golden.locals.map(|local| local.bytes()).to_vec(),
        id: golden.id.0,
        resident: golden.resident,
    })
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (mend, which, length) = (input.byte(), input.byte(), input.u16());
    let world = world(which);
    let mut frame = input.rest().to_vec();
    frame.truncate(FRAME_BYTES_MAX.into());
    // Padding says nothing, so an input need not hold it.
    let length = usize::from(length.min(FRAME_BYTES_MAX));
    frame.resize(length.max(frame.len()), 0);
    self::mend(mend, &mut frame, &world.0);

    let expected = model::fate(&frame, &world.0);
    let verdict = decide(frame.as_slice(), &world);
    let fate = match verdict {
        Verdict::Pass(reason) => Fate::Pass(reason),
        Verdict::Drop(reason) => Fate::Drop(reason),
        Verdict::Steer(resident) => Fate::Steer(resident),
        Verdict::Reply(reason, parsed, reply) => {
            let mut answer = frame.clone();
            let resize = rewrite::reply(answer.as_mut_slice(), &parsed, &reply)
                .expect("the frame holds what its headers say");
            assert!(resize.keep_bytes <= resize.frame_bytes);
            assert!(resize.frame_bytes <= frame.len(), "I14: longer than asked");
            answer.truncate(resize.keep_bytes);
            answer.resize(resize.frame_bytes, 0);
            look_at(&frame, &answer);
            Fate::Reply(reason, answer)
        }
    };
    assert_eq!(fate, expected, "frame {frame:02x?}");
    if let Ok(udp) = model::udp_of(&frame) {
        same_by_socket(&frame, &udp, &world, &expected);
    }
}

/// Puts in what no mutation would guess.
fn mend(how: u8, frame: &mut [u8], tables: &Tables) {
    let Ok(udp) = model::udp_of(frame) else {
        return;
    };
    let behind_ip = frame.len() - udp.udp_at;
    let lengths = (u16::try_from(behind_ip), u16::try_from(behind_ip + 20));
    if how & 1 != 0
        && let (Ok(udp_bytes), Ok(v4_bytes)) = lengths
    {
        let (at, ip_bytes) = if udp.v6 {
            (4, udp_bytes)
        } else {
            (2, v4_bytes)
        };
        frame[udp.ip_at + at..][..2].copy_from_slice(&ip_bytes.to_be_bytes());
        frame[udp.udp_at + 4..][..2].copy_from_slice(&udp_bytes.to_be_bytes());
    }
    if how & 8 != 0 && !udp.v6 {
        let ip = &mut frame[udp.ip_at..udp.udp_at];
        ip[10..12].fill(0);
        let sum = !model::ones_sum(ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let payload = &mut frame[udp.udp_at + 8..];
    if how & 2 != 0
        && let (Some(cookies), Some(place)) = (&tables.cookies, payload.get_mut(4..16))
    {
        let epoch = cookies
            .epoch
            .wrapping_add(u32::from(how >> 6))
            .wrapping_sub(1);
        let value = model::cookie(cookies, epoch, udp.source, udp.source_port);
        place[..4].copy_from_slice(&epoch.to_be_bytes());
        place[4..].copy_from_slice(&value.unwrap_or_default());
    }
    if how & 4 != 0
        && let Some(place) = payload.get_mut(16..48)
    {
        place.copy_from_slice(&tables.id);
    }
}

/// What holds of every answer, whatever it says.
fn look_at(frame: &[u8], answer: &[u8]) {
    let udp = model::udp_of(answer).expect("an answer is UDP");
    if !udp.v6 {
        let sum = model::ones_sum(&answer[udp.ip_at..udp.udp_at]);
        assert_eq!(sum, 0xffff, "the checksum of IPv4");
    }
    let datagram = &answer[udp.udp_at..];
    assert_ne!(datagram[6..8], [0; 2], "no checksum of UDP");
    assert_eq!(
        model::pseudo_sum(&udp, datagram),
        0xffff,
        "the checksum of UDP"
    );
    let said = match datagram[9] {
        0x12 => 32,
        0x15 => 24,
        other => panic!("an answer of kind {other:02x}"),
    };
    let padding = &datagram[8 + said..];
    assert!(
        padding.iter().all(|byte| *byte == 0),
        "words in the padding"
    );
    assert_eq!((&answer[..6], &answer[6..12]), (&frame[6..12], &frame[..6]));
}

/// What came by socket gets the verdict it would have got in XDP.
fn same_by_socket(frame: &[u8], udp: &model::Headers, world: &World, expected: &Fate) {
    if frame[6] & 1 == 1 || world.0.locals.contains(&udp.source) {
        // From a group of stations, which a socket does not see, or from the host itself, whose
        // other addresses a socket answers.
        return;
    }
    let Tables {
        settings: Some(settings),
        cookies: Some(cookies),
        id,
        ..
    } = &world.0
    else {
        return;
    };
    let edge_ebpf::frame::Parsed::Udp(parsed) = edge_ebpf::frame::parse(frame) else {
        panic!("the model says that this is UDP");
    };
    let Some(payload_bytes) = parsed.payload_bytes(frame.len()) else {
        return;
    };
    let payload = &frame[udp.udp_at + 8..][..payload_bytes];
    let datagram = Datagram {
        source: parsed.source,
        family: parsed.family,
        payload_bytes,
        from_here: settings.serves(&parsed.source.address),
        loopback: false,
    };
    let reason = match steer::admit(payload, 0, &datagram, settings, cookies) {
        Admission::Refuse(reason) => reason,
        Admission::Reply(reason, reply) => {
            let bytes = match reply {
                steer::Reply::Welcome(_) => payload_bytes,
                steer::Reply::Nack(nack) => nack.encode().len(),
            };
            assert!(bytes <= payload_bytes, "I14: longer than asked");
            reason
        }
        Admission::Get(get) => {
            let value = model::cookie(cookies, get.cookie.epoch, udp.source, udp.source_port);
            assert_eq!(
                value,
                Some(get.cookie.value),
                "I14: admitted without a cookie"
            );
            match expected {
                Fate::Steer(_) => assert_eq!(get.id.0, *id),
                Fate::Pass(_) => {}
                Fate::Drop(_) | Fate::Reply(..) => panic!("{expected:?}, but admitted by socket"),
            }
            return;
        }
    };
    match expected {
        // Not for the service.
        Fate::Pass(_) => {}
        Fate::Drop(expected) | Fate::Reply(expected, _) => assert_eq!(reason, *expected),
        Fate::Steer(_) => panic!("{reason:?} by socket, but steered"),
    }
}
