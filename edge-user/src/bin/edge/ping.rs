//! `edge ping`: how far away an edge is, and what it says of itself.

use std::time::Duration;

use clap::Args;
use edge_user::client::ping::{Pong, ping};
use serde_json::json;

use crate::failed::Failed;
use crate::said::{print_json, say};
use crate::{address, interrupt};

/// Greet an edge and measure how long its answer takes.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The edge: ADDR or ADDR:PORT.
    edge: String,
    /// How many times.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let edge = address::resolve(&arguments.edge)?;
    let mut answered = None;
    let stop = interrupt::stop_on_signal()?;
    let mut trips = Vec::new();
    let mut last = None;
    for number in 1..=arguments.count {
        let pong = ping(&edge.all, &stop).map_err(|failure| Failed::with_edge(&failure, &edge))?;
        let Pong {
            edge: from,
            rtt,
            session,
        } = pong;
        answered = Some(from);
        if !arguments.json {
            say!(
                "{from}: {number} of {}: {:.3} ms, segments of {} bytes, at most {} a request",
                arguments.count,
                milliseconds(rtt),
                session.segment_bytes,
                session.max_burst,
            )?;
        }
        trips.push(rtt);
        last = Some(session);
    }
    let session = last.expect("at least one was asked for");
    let (shortest, longest) = (trips.iter().min(), trips.iter().max());
    let (shortest, longest) = shortest.zip(longest).expect("at least one was asked for");
    let average = trips.iter().sum::<Duration>() / arguments.count;
    if arguments.json {
        return print_json(&json!({
            "edge": answered.map(|from| from.to_string()),
            "count": arguments.count,
            "rtt_ms": trips.iter().copied().map(milliseconds).collect::<Vec<_>>(),
            "min_ms": milliseconds(*shortest),
            "avg_ms": milliseconds(average),
            "max_ms": milliseconds(*longest),
            "segment_bytes": session.segment_bytes,
            "max_burst": session.max_burst,
        }));
    }
    say!(
        "shortest {:.3} ms, average {:.3} ms, longest {:.3} ms",
        milliseconds(*shortest),
        milliseconds(average),
        milliseconds(*longest),
    )?;
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
