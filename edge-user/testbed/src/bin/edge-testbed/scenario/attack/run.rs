//! Runs an attack on an edge of its own, with quiet periods between, and a reader throughout.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use edge_testbed::{
    clock,
    daemon::{Counts, Daemon},
    pace::{Pace, Schedule},
    packet::Mac,
    raw_socket,
};

use super::attacker::Attacker;
use super::flood::{Attack, Flood};
use super::frames::FRONT_BYTES;
use super::report::{Fetch, Row, rate};
use super::tally::Amount;
use super::victim::{Measured, Victim};
use super::{LARGE_BYTES, Session};
use crate::reader::End;
use crate::scenario::StopGuard;
use crate::testbed::Promise;

/// Frames sent between reads of what was received.
const BATCH: usize = 32;
/// The same at a fixed rate, to catch up after the thread was not scheduled. Half of what a veth's
/// ring holds.
const BATCH_DUE: usize = 128;
/// Time without a packet after which no more are expected.
const SILENCE: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Minimum share of a slow attack's rate that must have been sent.
const RATE_KEPT: f64 = 0.9;
/// Minimum share of its quiet goodput that a reader keeps under a slow attack.
const GOODPUT_KEPT: f64 = 0.8;
/// Maximum number of chunks in flight from the origin (`edge-user/src/limits.rs`, FLIGHTS).
const FLIGHTS: u64 = 1024;
/// Limit for an edge's stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(2);

/// The current period.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Now {
    Rest,
    Attack,
    End,
}

impl Now {
    /// How long to wait for the link.
    pub(super) fn patience(self) -> Duration {
        match self {
            Self::Attack => Duration::ZERO,
            Self::Rest => LOOK_AGAIN,
            Self::End => SILENCE,
        }
    }
}

/// The same, for the attacker's thread.
#[derive(Default)]
pub(super) struct Phase(AtomicU8);

impl Phase {
    pub(super) fn set(&self, now: Now) {
        self.0.store(now as u8, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Now {
        match self.0.load(Ordering::Relaxed) {
            0 => Now::Rest,
            1 => Now::Attack,
            _ => Now::End,
        }
    }
}

pub(super) fn run(session: &Session<'_>, attack: &Attack) -> Result<Row> {
    let mut edged = session.start_edge()?;
    session.warm()?;
    let mut attacker = Attacker::new(session)?;
    let mut flood = (attack.make)(&mut attacker)?;
    let before = Counts::read(&session.testbed.settings.socket)?;
    let steadily = flood.per_second.is_some();
    let mut sent = 0;
    let measured = fight(session, &mut edged, steadily, |phase| {
        sent = strike(&mut attacker, &mut flood, phase)?;
        Ok(())
    })?;
    let lost = raw_socket::lost(&session.testbed.bed.reader)?;
    let (reasons, mut promises) = audit(session, &before, edged)?;

    let rose = |label: &str| {
        reasons
            .keys()
            .any(|stage| stage.ends_with(&format!(" {label}")))
    };
    let labels = attack.reasons.iter().map(|reason| reason.label());
    let missing: Vec<&str> = labels.filter(|label| !rose(label)).collect();
    let but = if missing.is_empty() {
        String::new()
    } else {
        format!(", BUT NONE as {}", missing.join(", "))
    };
    promises.push((
        missing.is_empty(),
        format!("its frames were counted with the expected reasons{but}"),
    ));
    let amplified = attacker.tally.amplified(&flood.proved);
    promises.push((
        amplified.is_empty() && lost == 0,
        match (amplified.first(), lost) {
            (Some(first), _) => format!("I14 IS BROKEN: {first}"),
            (None, 0) => {
                String::from("I14: no source without a valid cookie received more than it sent")
            }
            (None, lost) => format!("I14 is unproven: the tap missed {lost} frames"),
        },
    ));
    let in_flight = measured.in_flight_max;
    promises.push((
        in_flight <= FLIGHTS,
        format!("at most {in_flight} chunks in flight, of {FLIGHTS}"),
    ));
    promises.extend(fair(&measured.fetches));
    let mut notes = notes(&attacker, &flood);
    if let Some(per_second) = flood.per_second {
        let rate = rate(sent, measured.seconds) / f64::from(per_second);
        promises.push((
            rate >= RATE_KEPT,
            format!("{rate:.2} of the attack's rate was sent"),
        ));
        let goodput = goodput(&measured.fetches);
        notes.push(goodput.1.clone());
        promises.push(goodput);
    }
    let head = (attack.name, attack.does);
    Ok(Row::fought(
        head,
        &attacker.tally,
        reasons,
        notes,
        measured,
        promises,
    ))
}

/// What the legitimate reader is promised.
pub(super) fn fair(fetches: &[Fetch]) -> Vec<Promise> {
    let unfair = fetches.iter().find(|fetch| !fetch.end.is_fair());
    let last = fetches.iter().rev().find(|fetch| !fetch.attacked);
    vec![
        (
            unfair.is_none(),
            match unfair {
                None => String::from("each fetch succeeded or failed with a message"),
                Some(fetch) => format!("a reader {}", fetch.end),
            },
        ),
        (
            last.is_none_or(|last| last.end == End::Whole),
            String::from("the edge serves as before afterwards"),
        ),
    ]
}

/// A reader's goodput under a slow attack, by the medians of quiet periods and attacks: a stalled
/// file counts for its whole duration, a failed fetch as 0 bytes.
fn goodput(fetches: &[Fetch]) -> Promise {
    let rounds = fetches.chunk_by(|one, next| one.attacked == next.attacked);
    let rounds: Vec<(bool, f64)> = rounds
        .filter_map(|round| {
            let whole = round.iter().filter(|fetch| fetch.end == End::Whole).count();
            let seconds = round.iter().map(|fetch| fetch.seconds).sum();
            let bytes = (whole * LARGE_BYTES) as u64;
            Some((round.first()?.attacked, rate(bytes, seconds) / 1e6))
        })
        .collect();
    let median = |attacked| {
        let of = rounds.iter().filter(|round| round.0 == attacked);
        let mut rates: Vec<f64> = of.map(|round| round.1).collect();
        rates.sort_by(f64::total_cmp);
        let number = fetches.iter().filter(|fetch| fetch.attacked == attacked);
        (
            rates.get(rates.len() / 2).copied().unwrap_or(0.0),
            number.count(),
        )
    };
    let ((quiet, before), (attacked, under)) = (median(false), median(true));
    let kept = attacked / quiet;
    (
        kept >= GOODPUT_KEPT,
        format!(
            "a reader keeps {kept:.2} of its goodput: {quiet:.0} MB/s when quiet, {attacked:.0} \
             under attack ({before} and {under} fetches); {GOODPUT_KEPT} is promised"
        ),
    )
}

/// Quiet periods and attacks in turn; the legitimate reader fetches throughout.
pub(super) fn fight(
    session: &Session<'_>,
    edged: &mut Daemon,
    steadily: bool,
    attacker: impl FnOnce(&Phase) -> Result<()> + Send,
) -> Result<Measured> {
    let phase = Phase::default();
    thread::scope(|scope| {
        let attacker = scope.spawn(|| attacker(&phase));
        let stop = StopGuard(|| phase.set(Now::End));
        let victim = Victim::new(session, &phase, edged);
        let measured = if steadily {
            victim.run_steadily()
        } else {
            victim.run()
        };
        drop(stop);
        let struck = attacker.join();
        let measured = measured?;
        struck.map_err(|_panic| anyhow!("the attacker panicked"))??;
        Ok(measured)
    })
}

/// The attacker's thread: sends during attacks, and receives all that the edge's end emits. Returns
/// the number of frames sent.
fn strike(attacker: &mut Attacker<'_>, flood: &mut Flood, phase: &Phase) -> Result<u64> {
    let mut times = vec![0; flood.frames.len()];
    let mut at = 0;
    let pace = (flood.per_second).map_or(Pace::Closed, |rate| Pace::Open(rate.into()));
    let (batch, gap) = match pace {
        Pace::Closed => (BATCH, Duration::ZERO),
        Pace::Open(_) => (BATCH_DUE, LOOK_AGAIN),
    };
    // Of this attack period.
    let mut schedule = None;
    loop {
        let now = phase.now();
        if now == Now::Attack {
            let schedule = schedule.get_or_insert_with(|| Schedule::new(pace, clock::now()));
            let due = clock::now();
            for _ in 0..batch {
                if schedule.next_due(due) > due {
                    break;
                }
                schedule.take();
                let frame = &mut flood.frames[at];
                if let Some(vary) = flood.vary {
                    frame.vary(vary, &mut attacker.rng);
                }
                times[at] += u64::from(attacker.socket.send(&frame.bytes)?);
                at = (at + 1) % flood.frames.len();
            }
        } else {
            schedule = None;
        }
        let patience = now.patience().max(gap);
        let arrived = attacker.socket.wait(patience)?;
        let Attacker { socket, tally, .. } = attacker;
        socket.drain(FRONT_BYTES, |front, length| {
            tally.record(front, length);
            Ok(())
        })?;
        if now == Now::End && !arrived {
            break;
        }
    }
    let sent = times.iter().sum();
    for (frame, times) in flood.frames.iter().zip(times) {
        attacker.tally.sent(frame, times);
    }
    Ok(sent)
}

/// The reasons that increased, by stage.
pub(super) type Reasons = BTreeMap<String, u64>;

/// Ends an edge: its counts since `before`, its log and its stop.
pub(super) fn audit(
    session: &Session<'_>,
    before: &Counts,
    edged: Daemon,
) -> Result<(Reasons, Vec<Promise>)> {
    let audited = Counts::audited(&session.testbed.settings.socket);
    let begin = clock::now();
    let said = edged.stop()?;
    let took = begin.elapsed();
    let mut bad = said.iter();
    let bad = bad.find(|line| line.contains("panicked") || line.contains("ERROR"));
    let promises = vec![
        (
            audited.is_ok(),
            match &audited {
                Ok(_) => String::from("all sums match, and no frame or slot is lost"),
                Err(error) => format!("{error:#}"),
            },
        ),
        (
            took <= STOPPED_WITHIN && bad.is_none(),
            match bad {
                None => format!("it stopped cleanly in {:.1} s", took.as_secs_f64()),
                Some(line) => format!("it logged: {line}"),
            },
        ),
    ];
    let before = by_stage(before);
    let after = audited.map(|after| by_stage(&after)).unwrap_or_default();
    let rise = after.into_iter().filter_map(|(name, now)| {
        let rise = now.saturating_sub(before.get(&name).copied().unwrap_or(0));
        (rise > 0).then_some((name, rise))
    });
    Ok((rise.collect(), promises))
}

fn by_stage(counts: &Counts) -> Reasons {
    let all = counts.all();
    let interface = &all["interfaces"][0];
    let queues = interface["xdp"].as_object().into_iter().flatten();
    let workers = interface["workers"].as_array().into_iter().flatten();
    let stages = queues
        .map(|(_, reasons)| ("xdp", reasons))
        .chain(workers.map(|worker| ("worker", &worker["reasons"])))
        .chain([
            ("socket", &all["socket"]["reasons"]),
            ("bounce", &all["socket"]["bounce_reasons"]),
        ]);
    let mut sums = BTreeMap::new();
    for (stage, reasons) in stages {
        for (reason, count) in reasons.as_object().into_iter().flatten() {
            let packets = count["packets"].as_u64().unwrap_or(0);
            *sums.entry(format!("{stage} {reason}")).or_insert(0) += packets;
        }
    }
    let workers = interface["workers"].as_array().into_iter().flatten();
    let lost = workers.flat_map(|worker| {
        let lost = ["rx_dropped", "rx_ring_full"].map(|cause| worker["xsk"][cause].as_u64());
        lost.into_iter().flatten()
    });
    sums.insert("lost before a worker".into(), lost.sum());
    sums.insert("origin fetches".into(), counts.origin_fetches());
    sums
}

fn notes(attacker: &Attacker<'_>, flood: &Flood) -> Vec<String> {
    let own = |(mac, amount): &(Mac, Amount)| {
        let whom = if *mac == attacker.socket.mac {
            "the requesting MAC address"
        } else {
            "the new holder"
        };
        format!(
            "{} packets, {} bytes to {whom}",
            amount.packets, amount.bytes
        )
    };
    let note = |(address, what): &(IpAddr, &str)| {
        let received = attacker.tally.received_by(*address);
        let received: Vec<String> = received.iter().map(own).collect();
        let received = if received.is_empty() {
            "nothing".into()
        } else {
            received.join("; ")
        };
        format!("{what}: {received}")
    };
    flood.described.iter().map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_stands_still_costs_goodput_for_as_long_as_it_does() {
        let fetch = |attacked, seconds, end| Fetch {
            cold: false,
            attacked,
            seconds,
            end,
        };
        let rounds = |attacked: [(f64, End); 2]| {
            let quiet = [0.5; 3].map(|seconds| fetch(false, seconds, End::Whole));
            let attacked = attacked.map(|(seconds, end)| fetch(true, seconds, end));
            goodput(&quiet.into_iter().chain(attacked).collect::<Vec<_>>()).0
        };
        assert!(rounds([(0.5, End::Whole), (0.7, End::Whole)]));
        assert!(!rounds([(0.4, End::Whole), (4.0, End::Whole)]));
        assert!(!rounds([(0.5, End::Whole), (0.2, End::Hung(60))]));
    }
}
