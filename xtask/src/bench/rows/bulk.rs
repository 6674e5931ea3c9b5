//! Whole chunks, as fast as they come.

use anyhow::Result;
use serde_json::Value;

use super::super::field::Field;
use super::super::peers::{self, NGINX};
use super::growing::{BYTES_A_SECOND, Growing};
use super::{Row, senders};

const GSO_CEILING: &str = "bare GSO sender";

pub(super) fn bulk(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let absent = peers::installed(peers::NGINX_PROGRAMS).err();
    let mut row = Growing::of(row, BYTES_A_SECOND, "higher");
    row.target(GSO_CEILING, 0.90, None);
    row.target(NGINX, 1.5, absent.as_ref());
    for pair in 1..=field.plan.pairs {
        for (side, sender) in senders(sender, "gso") {
            let (edged, mode) = field.warm_edge(sender, "native")?;
            row.keep_mode(side, mode);
            let ran = field.load(
                &field.edge(),
                &["--tickets".into(), field.tickets.clone()],
                &edged,
            )?;
            row.push(side, pair, &ran, ran.rate("bytes")?);
            edged.stop()?;
        }

        let count = field.chunk_count().to_string();
        let listen = field.ceiling_address();
        let ceiling = field.ceiling(&["gso", "--listen", &listen, "--chunks", &count])?;
        let ran = field.load(&listen, &["--numbered".into(), count.into()], &ceiling)?;
        row.push(GSO_CEILING, pair, &ran, ran.rate("bytes")?);
        ceiling.stop()?;

        if absent.is_none() {
            let paths = field.drawn_paths()?;
            let nginx = field.nginx(&field.folder.join("origin/chunks"))?;
            field.pass(false)?;
            let ran = field.wrk(&paths, &nginx);
            field.pass(true)?;
            let ran = ran?;
            row.push(NGINX, pair, &ran, ran.rate("bytes")?);
        }
    }
    Ok(row.finish())
}
