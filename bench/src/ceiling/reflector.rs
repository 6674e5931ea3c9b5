//! AF_XDP alone: each packet is answered with a payload that is already in the frame it leaves in.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use edge_ebpf::frame::{Parsed, UDP_BYTES, parse};
use edge_ebpf::rewrite::{headers, payload_sum};
use edge_user::clock;
use edge_user::limits::{BATCH, SPIN, XSK_SENDING};
use edge_user::sys::xsk::Xsk;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Reflector, say_ready};
use crate::memory::memory;
use crate::program::{Action, Program, Rule};

/// Ethernet, IPv4, UDP.
const HEADERS_BYTES: usize = 42;
/// Interval of checks for a stop signal.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

pub(super) fn serve(options: &Reflector, stop: &AtomicBool) -> Result<()> {
    if options.reply_bytes + HEADERS_BYTES > XSK_SENDING.frame_bytes as usize {
        bail!(
            "a reply of {} bytes does not fit a frame",
            options.reply_bytes
        );
    }
    let mut xsk = Xsk::new(memory(XSK_SENDING.umem_bytes())?, XSK_SENDING)?;
    let rule = Rule::Port(options.port);
    let mut program = Program::attach(
        &options.programs,
        &options.interface,
        Action::Redirect,
        rule,
    )?;
    xsk.bind(&options.interface, 0)
        .with_context(|| format!("cannot bind queue 0 of {}", options.interface))?;
    program.set_socket(0, xsk.share_fd())?;
    say_ready(&format!("port {} on {}", options.port, options.interface));

    // Frames start as zeros, and only their headers are written.
    let sum = payload_sum(&vec![0; options.reply_bytes]);
    let udp_bytes = u16::try_from(options.reply_bytes + UDP_BYTES)?;
    let mut batch = Vec::with_capacity(BATCH as usize);
    let mut idle_since = None;
    while !stop.load(Ordering::Relaxed) {
        xsk.receive(BATCH, &mut batch);
        if batch.is_empty() {
            // As an edge's worker does: a CPU that never sleeps has another latency distribution
            // than one that is woken.
            let now = clock::now();
            if now.saturating_duration_since(*idle_since.get_or_insert(now)) >= SPIN {
                let mut fds = [PollFd::new(&xsk, PollFlags::IN)];
                let (Ok(_) | Err(_)) = poll(&mut fds, Some(&LOOK));
                idle_since = None;
            }
            continue;
        }
        idle_since = None;
        for frame in batch.drain(..) {
            let Ok(frame) = frame else {
                bail!("the kernel returned an invalid frame address");
            };
            let mut begin = [0; HEADERS_BYTES];
            if let Some(bytes) = xsk.bytes(&frame).get(..HEADERS_BYTES) {
                begin.copy_from_slice(bytes);
            }
            let parsed = parse(xsk.bytes(&frame));
            xsk.recycle(frame);
            let Parsed::Udp(parsed) = parsed else {
                continue;
            };
            let Some(mut sending) = xsk.take_tx() else {
                continue;
            };
            let room = xsk.tx_bytes(&mut sending);
            room[..HEADERS_BYTES].copy_from_slice(&begin);
            let written = headers(room, &parsed, udp_bytes, sum);
            debug_assert!(written.is_some(), "a frame holds its headers");
            xsk.send(sending, HEADERS_BYTES + options.reply_bytes);
        }
        xsk.refill();
        xsk.kick();
    }
    Ok(())
}
