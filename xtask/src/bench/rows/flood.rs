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
    let mut rates = Vec::new();
    for pair in 1..=field.plan.pairs {
        let (ran, rate) = field.load_beside_flood(&["--of", FLOOD], &edged)?;
        row.push("edge", pair, &ran, ran.rate("bytes")?);
        rates.push(rate);
        // Dropped at once it would be several times as fast, and no equal.
        let same = rate.to_string();
        let equal = ["--of", "group", "--rate", &same];
        let (ran, _) = field.load_beside_flood(&equal, &edged)?;
        row.push(DROPPED, pair, &ran, ran.rate("bytes")?);
    }
    let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = rates.iter().copied().fold(0.0, f64::max);
    row.notes.push(format!(
        "the flood: {least:.0} to {greatest:.0} datagrams a second, as many as the generator can \
         make beside its load"
    ));
    edged.stop()?;
    Ok(row.finish())
}
