//! Whole chunks, as fast as they come.

use anyhow::Result;

use super::super::field::Field;
use super::super::peers::NGINX;
use super::growing::Growing;
use super::{Turn, senders};

pub(super) const GSO_CEILING: &str = "bare GSO sender";

pub(super) fn bulk(row: &mut Growing, field: &Field<'_>, turn: Turn<'_>) -> Result<()> {
    for (side, sender) in senders(turn.sender, "gso") {
        let (edged, mode) = field.warm_edge(sender, "native")?;
        row.keep_mode(side, mode);
        let ran = field.load(
            &field.edge(),
            &["--tickets".into(), field.tickets.clone()],
            &edged,
        )?;
        row.push(side, turn.pair, &ran, ran.rate("bytes")?);
        edged.stop()?;
    }

    let count = field.chunk_count().to_string();
    let listen = field.ceiling_address();
    let ceiling = field.ceiling(&["gso", "--listen", &listen, "--chunks", &count])?;
    let ran = field.load(&listen, &["--numbered".into(), count.into()], &ceiling)?;
    row.push(GSO_CEILING, turn.pair, &ran, ran.rate("bytes")?);
    ceiling.stop()?;

    if row.has(NGINX) {
        let paths = field.drawn_paths()?;
        let nginx = field.nginx(&field.folder.join("origin/chunks"))?;
        field.pass(false)?;
        let ran = field.wrk(&paths, &nginx);
        field.pass(true)?;
        let ran = ran?;
        row.push(NGINX, turn.pair, &ran, ran.rate("bytes")?);
    }
    Ok(())
}
