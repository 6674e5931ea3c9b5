//! Whole chunks beside a flood.

use anyhow::Result;
use serde_json::Value;

use super::super::field::Field;
use super::growing::{BYTES_A_SECOND, Growing};
use super::{NO_BUCKETS, Row};

const DROPPED: &str = "an equal flood, dropped at once";
const FLOOD: &str = "hello,bad-cookie,junk,unknown";

pub(super) fn flood(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let mut row = Growing::of(row, BYTES_A_SECOND, "higher");
    row.target(DROPPED, 0.8, None);
    row.notes.push(NO_BUCKETS.into());
    let (edged, mode) = field.warm_edge(sender.unwrap_or("gso"), "native")?;
    row.mode = mode;
    for pair in 1..=field.plan.pairs {
        for (side, of) in [("edge", FLOOD), (DROPPED, "group")] {
            let (ran, flooded) = field.load_beside_flood(of, &edged)?;
            let rate = flooded["requests"].as_f64().unwrap_or(0.0)
                / flooded["seconds"].as_f64().unwrap_or(1.0);
            row.notes.push(format!(
                "pair {pair}, {side}: {rate:.2e} of the flood a second"
            ));
            row.push(side, pair, &ran, ran.rate("bytes")?);
        }
    }
    edged.stop()?;
    Ok(row.finish())
}
