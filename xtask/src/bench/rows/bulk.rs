//! Whole chunks in a closed loop.

use anyhow::Result;

use super::super::peers::NGINX;
use super::super::testbed::Testbed;
use super::growing::Growing;
use super::{Turn, sides};

pub(super) const GSO_CEILING: &str = "bare GSO sender";

pub(super) fn bulk(row: &mut Growing, testbed: &Testbed<'_>, turn: Turn<'_>) -> Result<()> {
    for (side, programs, sender) in sides(testbed, turn, "gso") {
        let (edged, mode) = testbed.warm_edge_of(programs, sender, "native")?;
        row.keep_mode(side, mode);
        let ran = testbed.load(
            &testbed.edge(),
            &["--tickets".into(), testbed.tickets.clone()],
            &edged,
        )?;
        row.push(side, turn.pair, &ran, ran.rate("bytes")?);
        edged.stop()?;
    }
    if testbed.baseline.is_some() {
        return Ok(());
    }

    let count = testbed.chunk_count().to_string();
    let listen = testbed.ceiling_address();
    let ceiling = testbed.ceiling(&["gso", "--listen", &listen, "--chunks", &count])?;
    let ran = testbed.load(&listen, &["--numbered".into(), count.into()], &ceiling)?;
    row.push(GSO_CEILING, turn.pair, &ran, ran.rate("bytes")?);
    ceiling.stop()?;

    if row.has(NGINX) {
        let paths = testbed.drawn_paths()?;
        let nginx = testbed.nginx(&testbed.folder.join("origin/chunks"))?;
        testbed.pass(false)?;
        let ran = testbed.wrk(&paths, &nginx);
        testbed.pass(true)?;
        let ran = ran?;
        row.push(NGINX, turn.pair, &ran, ran.rate("bytes")?);
    }
    Ok(())
}
