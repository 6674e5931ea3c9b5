//! Whole chunks beside a flood.

use anyhow::Result;

use super::super::testbed::Testbed;
use super::growing::Growing;
use super::{Turn, sides};

pub(super) const DROPPED: &str = "an equal flood, dropped at once";
const FLOOD: &str = "hello,bad-cookie,junk,unknown";

pub(super) fn flood(row: &mut Growing, testbed: &Testbed<'_>, turn: Turn<'_>) -> Result<()> {
    if testbed.baseline.is_some() {
        for (side, programs, sender) in sides(testbed, turn, "gso") {
            let (edged, mode) = testbed.warm_edge_of(programs, sender, "native")?;
            row.keep_mode(side, mode);
            let (ran, _) = testbed.load_beside_flood(&["--of", FLOOD], &edged)?;
            row.push(side, turn.pair, &ran, ran.rate("bytes")?);
            edged.stop()?;
        }
        return Ok(());
    }
    let (edged, mode) = testbed.warm_edge(turn.sender.unwrap_or("gso"), "native")?;
    row.mode = mode;
    let (ran, rate) = testbed.load_beside_flood(&["--of", FLOOD], &edged)?;
    row.push("edge", turn.pair, &ran, ran.rate("bytes")?);
    // As many as the generator can make beside its load.
    let told = format!("pair {}: {rate:.0} datagrams/s of flood", turn.pair);
    row.notes.push(told);
    // Dropped at once it would be several times as fast, and no equal.
    let same = rate.to_string();
    let equal = ["--of", "group", "--rate", &same];
    let (ran, _) = testbed.load_beside_flood(&equal, &edged)?;
    row.push(DROPPED, turn.pair, &ran, ran.rate("bytes")?);
    edged.stop()?;
    Ok(())
}
