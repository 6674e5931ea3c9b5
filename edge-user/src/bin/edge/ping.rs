//! `edge ping`: measures round-trip times.

use std::time::Duration;

use clap::Args;
use edge_user::client::ping::{Pong, ping};
use serde_json::json;

use crate::error::CommandError;
use crate::print::{outln, print_json};
use crate::{address, interrupt};

/// Measure round-trip time to an edge.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Address of the edge: ADDR or ADDR:PORT.
    edge: String,
    /// Number of handshakes.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let edge = address::resolve(&arguments.edge)?;
    let mut answered = None;
    let stop = interrupt::stop_on_signal()?;
    let mut rtts = Vec::new();
    let mut last = None;
    for number in 1..=arguments.count {
        let pong =
            ping(&edge.all, &stop).map_err(|failure| CommandError::with_edge(&failure, &edge))?;
        let Pong {
            edge: from,
            rtt,
            session,
        } = pong;
        answered = Some(from);
        if !arguments.json {
            outln!("{from}: seq={number} time={:.3} ms", milliseconds(rtt))?;
        }
        rtts.push(rtt);
        last = Some(session);
    }
    let session = last.expect("at least one was asked for");
    let (shortest, longest) = (rtts.iter().min(), rtts.iter().max());
    let (shortest, longest) = shortest.zip(longest).expect("at least one was asked for");
    let average = rtts.iter().sum::<Duration>() / arguments.count;
    if arguments.json {
        return print_json(&json!({
            "edge": answered.map(|from| from.to_string()),
            "count": arguments.count,
            "rtt_ms": rtts.iter().copied().map(milliseconds).collect::<Vec<_>>(),
            "min_ms": milliseconds(*shortest),
            "avg_ms": milliseconds(average),
            "max_ms": milliseconds(*longest),
            "segment_bytes": session.segment_bytes,
            "max_burst": session.max_burst,
        }));
    }
    outln!(
        "segment size {} bytes, max burst {}",
        session.segment_bytes,
        session.max_burst
    )?;
    outln!(
        "rtt min/avg/max {:.3}/{:.3}/{:.3} ms",
        milliseconds(*shortest),
        milliseconds(average),
        milliseconds(*longest),
    )?;
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
