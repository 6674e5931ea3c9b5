//! What is left of a key in the memory of `edge` when it has used it.

use std::fs::{self, File};
use std::io::{Write, pipe};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::io::ioctl_fionbio;
use rustix::process::geteuid;

use crate::edge::Faults;
use crate::program::{Place, until_it_listens};
use crate::sockets::Serving;

/// Where the key begins in the bytes of a ticket.
const KEY_AT: usize = 42;

/// The round keys of AES-256, of which any two in a row give the key; the first two are its halves.
fn round_keys(key: &[u8; 32]) -> Vec<[u8; 16]> {
    let times = |mut a: u8, mut b: u8| {
        let mut product = 0;
        while b > 0 {
            product ^= a * (b & 1);
            a = (a << 1) ^ ((a >> 7) * 0x1b);
            b >>= 1;
        }
        product
    };
    let substitute = |byte: u8| {
        let inverse = (0..=255)
            .find(|other| times(byte, *other) == 1)
            .unwrap_or(0);
        (0..5).fold(0x63, |out, turn| out ^ inverse.rotate_left(turn))
    };
    let mut words: Vec<[u8; 4]> = key.as_chunks().0.to_vec();
    let mut round = 1;
    for at in 8..60 {
        let mut word = words[at - 1];
        if at % 8 == 0 {
            word.rotate_left(1);
            word = word.map(substitute);
            word[0] ^= round;
            round = times(round, 2);
        } else if at % 8 == 4 {
            word = word.map(substitute);
        }
        let before = words[at - 8];
        words.push(std::array::from_fn(|byte| word[byte] ^ before[byte]));
    }
    words.as_flattened().as_chunks().0.to_vec()
}

#[test]
fn the_round_keys_are_those_of_the_standard() {
    // FIPS 197, appendix A.3.
    let key: [u8; 32] = [
        0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77,
        0x81, 0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14,
        0xdf, 0xf4,
    ];
    let keys = round_keys(&key);
    assert_eq!(keys.len(), 15);
    assert_eq!(keys[14][12..], [0x70, 0x6c, 0x63, 0x1e]);
}

/// What gives a key away, each under its name.
fn traces(ticket: &str) -> Vec<(String, Vec<u8>)> {
    let ticket = ticket.trim();
    let body = ticket.strip_prefix("edge1:").unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(body).unwrap();
    let key = bytes[KEY_AT..][..32].try_into().unwrap();
    let round_keys = round_keys(key).into_iter().enumerate();
    let mut traces: Vec<_> = round_keys
        .map(|(round, bytes)| (format!("round key {round}"), bytes.to_vec()))
        .collect();
    for at in [56, 76] {
        let piece = body.as_bytes()[at..at + 20].to_vec();
        traces.push((format!("the ticket from character {at}"), piece));
    }
    traces
}

/// Read at once; most of what an allocator has reserved is zero and quickly passed over.
const PIECE: usize = 1 << 16;
const TRACE_MAX: usize = 20;

/// Which of them lie where in what a process can write to.
fn found(child: &Child, traces: &[(String, Vec<u8>)]) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
    let memory = File::open(format!("/proc/{}/mem", child.id())).unwrap();
    let zero = vec![0; PIECE];
    let mut found = Vec::new();
    for mapping in maps.lines() {
        let (range, rest) = mapping.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
        if !rest.starts_with("rw") {
            continue;
        }
        // A trace that lies across two pieces is whole in the one before.
        let mut bytes = vec![0; PIECE + TRACE_MAX];
        for at in (start..end).step_by(PIECE) {
            let len = bytes.len().min(usize::try_from(end - at).unwrap());
            // Some pages are only the kernel's.
            let Ok(read) = memory.read_at(&mut bytes[..len], at) else {
                continue;
            };
            if bytes[..read.min(PIECE)] == zero[..read.min(PIECE)] {
                continue;
            }
            for (name, trace) in traces {
                let mut windows = bytes[..read].windows(trace.len());
                if let Some(offset) = windows.position(|window| window == trace) {
                    found.push(format!("{name} at {:#x} of {mapping}", at + offset as u64));
                }
            }
        }
    }
    found
}

fn get(place: &Place, serving: &Serving) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge"));
    command
        .args(["get", "@t", "--json", "-o", "out", "--edge"])
        .arg(serving.address.to_string())
        .current_dir(place.path())
        .stdin(Stdio::null());
    command
}

/// Only root can look into a process that holds a key.
#[test]
fn no_key_remains_in_memory_when_the_object_is_complete() {
    if !geteuid().is_root() {
        return;
    }
    let place = Place::new(3_000_000);
    place.seal();
    let traces = traces(&fs::read_to_string(place.path().join("t")).unwrap());
    let deaf = place.serve(Faults {
        dropped_gets: u32::MAX,
        ..Faults::default()
    });
    let mut child = get(&place, &deaf).spawn().unwrap();
    until_it_listens(&child);
    // In use it is there, or the search would be worth nothing.
    assert!(!found(&child, &traces).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();

    // Where its last line cannot be written, a command stands when everything is done.
    let serving = place.serve(Faults::default());
    let (_stuck, full) = pipe().unwrap();
    ioctl_fionbio(&full, true).unwrap();
    while (&full).write(&[b'x'; 4096]).is_ok() {}
    ioctl_fionbio(&full, false).unwrap();
    let mut child = get(&place, &serving).stdout(full).spawn().unwrap();
    let waits = |child: &Child| {
        let call = fs::read_to_string(format!("/proc/{}/syscall", child.id())).unwrap();
        call.starts_with("1 0x1 ")
    };
    while !place.path().join("out").exists() || !waits(&child) {
        assert!(child.try_wait().unwrap().is_none());
        thread::yield_now();
    }
    let left = found(&child, &traces);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(left.is_empty(), "{left:#?}");
}
