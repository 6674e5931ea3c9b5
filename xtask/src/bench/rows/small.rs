//! Single segments, as fast as they come.

use anyhow::Result;

use super::super::field::Field;
use super::super::peers::{KNOT, NGINX};
use super::growing::Growing;
use super::{REFLECTOR, Turn, WINDOW, senders};

const XDP_TX: &str = "XDP_TX of the request";
const XDP_DROP: &str = "XDP_DROP: requests offered";
/// Files for nginx; all of them fit its cache of open files.
const FILES: u32 = 16_000;
const FILE_BYTES: usize = 1216;

pub(super) fn small(row: &mut Growing, field: &Field<'_>, turn: Turn<'_>) -> Result<()> {
    for (side, sender) in senders(turn.sender, "xsk") {
        let (edged, mode) = field.warm_edge(sender, "native")?;
        row.keep_mode(side, mode);
        let ran = field.singles(&field.edge(), &["--window", WINDOW], &edged)?;
        row.push(side, turn.pair, &ran, ran.rate("answers")?);
        edged.stop()?;
    }

    let to = field.ceiling_address();
    let bare = ["--window", WINDOW, "--any"];
    let reflector = field.reflector()?;
    let ran = field.singles(&to, &bare, &reflector)?;
    row.push(REFLECTOR, turn.pair, &ran, ran.rate("answers")?);
    reflector.stop()?;

    let driver = field.driver("reflect")?;
    let ran = field.singles(&to, &bare, &driver)?;
    row.push(XDP_TX, turn.pair, &ran, ran.rate("answers")?);
    driver.stop()?;

    let driver = field.driver("drop")?;
    let ran = field.offered(&to, &driver)?;
    row.push(XDP_DROP, turn.pair, &ran, ran.rate("requests")?);
    driver.stop()?;

    field.pass(false)?;
    let ran = peers(row, field, turn.pair);
    field.pass(true)?;
    ran
}

fn peers(row: &mut Growing, field: &Field<'_>, pair: u32) -> Result<()> {
    if row.has(KNOT) {
        let knot = field.knot()?;
        let ran = field.kxdpgun(&knot)?;
        row.push(KNOT, pair, &ran, ran.rate("answers")?);
        drop(knot);
        field.bed.edge.detach()?;
    }
    if row.has(NGINX) {
        let (root, paths) = field.small_files(FILES, FILE_BYTES)?;
        let nginx = field.nginx(&root)?;
        let ran = field.wrk(&paths, &nginx)?;
        row.push(NGINX, pair, &ran, ran.rate("answers")?);
    }
    Ok(())
}
