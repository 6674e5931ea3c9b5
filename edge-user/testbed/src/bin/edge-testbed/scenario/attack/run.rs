//! One attack on an edge of its own, with quiet times between, and a reader in both.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use edge_testbed::{
    clock,
    daemon::{Counts, Daemon},
};

use super::flood::{Attack, Flood};
use super::life::{Life, Measured};
use super::line::{self, Mac};
use super::reader::{End, Fetch};
use super::report::{Promise, Row, rate};
use super::scene::Scene;
use super::tally::Amount;
use super::{LARGE_BYTES, Play};

/// Frames between two looks at what came.
const BATCH: usize = 32;
/// The same where there is a rate to be kept: what a thread that was not let run makes up for at
/// once. Half of what a veth's ring holds.
const BATCH_DUE: usize = 128;
/// When nothing came for so long, nothing more will.
const SILENCE: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Of a slow attack's rate, so much must have been sent.
const RATE_KEPT: f64 = 0.9;
/// Of its goodput in quiet times, a reader keeps so much under a slow attack.
const GOODPUT_KEPT: f64 = 0.8;
/// Chunks that can be on their way from the origin (`edge-user/src/limits.rs`, FLIGHTS).
const FLIGHTS: u64 = 1024;
/// An edge that is told to stop does so in this time.
const STOPPED_WITHIN: Duration = Duration::from_secs(2);

/// What goes on now.
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

/// The same, as told to the attacker's thread.
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

/// Ends the attack when let go of, on every way out.
struct Leash<'a>(&'a Phase);

impl Drop for Leash<'_> {
    fn drop(&mut self) {
        self.0.set(Now::End);
    }
}

pub(super) fn run(play: &Play<'_>, attack: &Attack) -> Result<Row> {
    let mut edged = play.start_edge()?;
    play.warm()?;
    let mut scene = Scene::new(play)?;
    let mut flood = (attack.make)(&mut scene)?;
    let before = Counts::read(&play.stage.settings.socket)?;
    let steadily = flood.per_second.is_some();
    let mut sent = 0;
    let measured = fight(play, &mut edged, steadily, |phase| {
        sent = strike(&mut scene, &mut flood, phase)?;
        Ok(())
    })?;
    let unheard = line::unheard(&play.stage.bed.reader)?;
    let (counts, mut promises) = audit(play, edged)?;

    let reasons = counts
        .map(|counts| risen(&before, &counts))
        .unwrap_or_default();
    let rose = |label: &str| {
        let of = reasons.iter();
        of.filter(|(stage, _)| stage.ends_with(&format!(" {label}")))
            .count()
            > 0
    };
    let missing: Vec<&str> = attack
        .reasons
        .iter()
        .map(|reason| reason.label())
        .filter(|label| !rose(label))
        .collect();
    promises.push((
        missing.is_empty(),
        format!("its frames were counted for what they are{}", but(&missing)),
    ));
    let amplified = scene.tally.amplified(&flood.proved);
    promises.push((
        amplified.is_empty() && unheard == 0,
        match (amplified.first(), unheard) {
            (Some(first), _) => format!("I14 IS BROKEN: {first}"),
            (None, 0) => String::from("I14: without a good cookie nobody got more than he sent"),
            (None, lost) => format!("I14 is not shown: the tap missed {lost} frames"),
        },
    ));
    promises.push((
        measured.in_flight_max <= FLIGHTS,
        format!(
            "at most {} chunks under way, of {FLIGHTS}",
            measured.in_flight_max
        ),
    ));
    promises.extend(fair(&measured.fetches));
    let mut told = told(&scene, &flood);
    if let Some(per_second) = flood.per_second {
        let rate = rate(sent, measured.seconds) / f64::from(per_second);
        promises.push((
            rate >= RATE_KEPT,
            format!("{rate:.2} of the attack's rate was sent"),
        ));
        let goodput = goodput(&measured.fetches);
        told.push(goodput.1.clone());
        promises.push(goodput);
    }
    let head = (attack.name, attack.does);
    Ok(Row::fought(
        head,
        &scene.tally,
        reasons,
        told,
        measured,
        promises,
    ))
}

/// What the legitimate reader was promised.
pub(super) fn fair(fetches: &[Fetch]) -> Vec<Promise> {
    let unfair = fetches.iter().find(|fetch| !fetch.end.is_fair());
    let last = fetches.iter().rev().find(|fetch| !fetch.attacked);
    vec![
        (
            unfair.is_none(),
            match unfair {
                None => String::from("each fetch came back whole or said why not"),
                Some(fetch) => format!("a reader's file {}", fetch.end.told()),
            },
        ),
        (
            last.is_none_or(|last| last.end == End::Whole),
            String::from("afterwards the edge serves as before"),
        ),
    ]
}

/// What a slow attack leaves of a reader's goodput, by the medians of quiet times and of times of
/// attack: a file that stands still counts for as long as it does. A fetch that failed brought
/// nothing.
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
            "a reader keeps {kept:.2} of its goodput: {quiet:.0} MB/s in quiet, {attacked:.0} \
             under attack ({before} and {under} fetches); {GOODPUT_KEPT} is promised"
        ),
    )
}

/// Quiet and attack in turn; the legitimate reader fetches all the while.
pub(super) fn fight(
    play: &Play<'_>,
    edged: &mut Daemon,
    steadily: bool,
    attacker: impl FnOnce(&Phase) -> Result<()> + Send,
) -> Result<Measured> {
    let phase = Phase::default();
    thread::scope(|scope| {
        let attacker = scope.spawn(|| attacker(&phase));
        let leash = Leash(&phase);
        let life = Life::new(play, &phase, edged);
        let measured = if steadily {
            life.live_steadily()
        } else {
            life.live()
        };
        drop(leash);
        let struck = attacker.join();
        let measured = measured?;
        struck.map_err(|_panic| anyhow!("the attacker panicked"))??;
        Ok(measured)
    })
}

/// The attacker's thread: sends when told to, and hears whatever the edge's end emits. Returns how
/// many frames were sent.
fn strike(scene: &mut Scene<'_>, flood: &mut Flood, phase: &Phase) -> Result<u64> {
    let mut times = vec![0; flood.frames.len()];
    let mut at = 0;
    let mut pace = Pace::new(flood.per_second);
    loop {
        let now = phase.now();
        if now == Now::Attack {
            for _ in 0..pace.due() {
                let frame = &mut flood.frames[at];
                if let Some(vary) = flood.vary {
                    frame.vary(vary, &mut scene.dice);
                }
                times[at] += u64::from(scene.line.send(&frame.bytes)?);
                at = (at + 1) % flood.frames.len();
            }
        }
        if now != Now::Attack {
            pace.rest();
        }
        let patience = now.patience().max(pace.patience());
        let heard = scene.line.wait(patience)?;
        let Scene { line, tally, .. } = scene;
        line.drain(|front, length| {
            tally.hear(front, length);
            Ok(())
        })?;
        if now == Now::End && !heard {
            break;
        }
    }
    let sent = times.iter().sum();
    for (frame, times) in flood.frames.iter().zip(times) {
        scene.tally.sent(frame, times);
    }
    Ok(sent)
}

/// How many frames are to be sent when.
struct Pace {
    per_second: Option<u32>,
    /// When this time of attack began, and what it has sent.
    begun: Option<Instant>,
    sent: usize,
}

impl Pace {
    const fn new(per_second: Option<u32>) -> Self {
        Self {
            per_second,
            begun: None,
            sent: 0,
        }
    }

    fn rest(&mut self) {
        self.begun = None;
        self.sent = 0;
    }

    /// How many to send now.
    fn due(&mut self) -> usize {
        let Some(per_second) = self.per_second else {
            return BATCH;
        };
        let passed = self.begun.get_or_insert_with(clock::now).elapsed();
        let all = passed.as_micros() * u128::from(per_second) / 1_000_000;
        let all = usize::try_from(all).unwrap_or(usize::MAX);
        let due = (all - self.sent).min(BATCH_DUE);
        self.sent += due;
        due
    }

    /// How long to wait for the link between two batches.
    const fn patience(&self) -> Duration {
        match self.per_second {
            Some(_) => LOOK_AGAIN,
            None => Duration::ZERO,
        }
    }
}

/// The end of an edge: its counts, its log and its stop.
pub(super) fn audit(play: &Play<'_>, edged: Daemon) -> Result<(Option<Counts>, Vec<Promise>)> {
    let audited = Counts::audited(&play.stage.settings.socket);
    let begin = clock::now();
    let said = edged.stop()?;
    let took = begin.elapsed();
    let bad = said
        .iter()
        .find(|line| line.contains("panicked") || line.contains("ERROR"));
    let promises = vec![
        (
            audited.is_ok(),
            match &audited {
                Ok(_) => String::from("all sums hold, and no frame or slot is lost"),
                Err(error) => format!("{error:#}"),
            },
        ),
        (
            took <= STOPPED_WITHIN && bad.is_none(),
            match bad {
                None => format!("it stopped in good order, in {:.1} s", took.as_secs_f64()),
                Some(line) => format!("it says: {line}"),
            },
        ),
    ];
    Ok((audited.ok(), promises))
}

/// Reasons that rose, by stage.
pub(super) fn risen(before: &Counts, after: &Counts) -> BTreeMap<String, u64> {
    let (before, after) = (by_stage(before), by_stage(after));
    let rise = after.into_iter().filter_map(|(name, now)| {
        let rise = now.saturating_sub(before.get(&name).copied().unwrap_or(0));
        (rise > 0).then_some((name, rise))
    });
    rise.collect()
}

fn by_stage(counts: &Counts) -> BTreeMap<String, u64> {
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

fn told(scene: &Scene<'_>, flood: &Flood) -> Vec<String> {
    let tell = |(address, what): &(std::net::IpAddr, &str)| {
        let heard = scene.tally.heard_at(*address);
        let own = |(mac, amount): &(Mac, Amount)| {
            let whom = if *mac == scene.line.mac {
                "the station that asked"
            } else {
                "the new holder"
            };
            format!(
                "{} packets, {} bytes to {whom}",
                amount.packets, amount.bytes
            )
        };
        let heard: Vec<String> = heard.iter().map(own).collect();
        format!(
            "{what}: {}",
            if heard.is_empty() {
                "nothing".into()
            } else {
                heard.join("; ")
            }
        )
    };
    flood.told.iter().map(tell).collect()
}

fn but(missing: &[&str]) -> String {
    if missing.is_empty() {
        String::new()
    } else {
        format!(", BUT NONE as {}", missing.join(", "))
    }
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
        assert!(!rounds([(0.5, End::Whole), (0.2, End::Hung)]));
    }
}
