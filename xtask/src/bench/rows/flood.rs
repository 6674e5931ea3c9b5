//! Whole chunks during a flood.

use anyhow::Result;

use super::super::testbed::Testbed;
use super::growing::Growing;
use super::{Turn, sides};

pub(super) const DROPPED: &str = "an equal flood, dropped at once";
const FLOOD: &str = "hello,bad-cookie,junk,unknown";

pub(super) fn flood(row: &mut Growing, testbed: &Testbed<'_>, turn: Turn<'_>) -> Result<()> {
    // Only the row's own sender, or the selected one.
    let sender = turn.sender.unwrap_or("gso");
    let turn = Turn {
        sender: Some(sender),
        ..turn
    };
    for (side, programs, sender) in sides(testbed, turn, sender) {
        let (edged, mode) = testbed.warm_edge_of(programs, sender, "native")?;
        row.keep_mode(side, mode);
        let (ran, rate) = testbed.load_beside_flood(&["--of", FLOOD], &edged)?;
        row.push(side, turn.pair, &ran, ran.rate("bytes")?);
        if testbed.baseline.is_none() {
            // As many as the generator can send beside its load.
            let note = format!("pair {}: {rate:.0} datagrams/s of flood", turn.pair);
            row.notes.push(note);
            // A flood that is dropped at once could be several times as fast, and would not be
            // equal.
            let same = rate.to_string();
            let equal = ["--of", "group", "--rate", &same];
            let (ran, _) = testbed.load_beside_flood(&equal, &edged)?;
            row.push(DROPPED, turn.pair, &ran, ran.rate("bytes")?);
        }
        edged.stop()?;
    }
    Ok(())
}
