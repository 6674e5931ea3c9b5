//! Single segments in a closed loop.

use anyhow::Result;

use super::super::peers::{KNOT, NGINX};
use super::super::testbed::Testbed;
use super::growing::Growing;
use super::{REFLECTOR, Turn, WINDOW, sides};

const XDP_TX: &str = "XDP_TX of the request";
const XDP_DROP: &str = "XDP_DROP: requests offered";
/// Files for nginx; all fit its cache of open files.
const FILES: u32 = 16_000;
const FILE_BYTES: usize = 1216;

pub(super) fn small(row: &mut Growing, testbed: &Testbed<'_>, turn: Turn<'_>) -> Result<()> {
    for (side, programs, sender) in sides(testbed, turn, "xsk") {
        let (edged, mode) = testbed.warm_edge_of(programs, sender, "native")?;
        row.keep_mode(side, mode);
        let ran = testbed.singles(&testbed.edge(), &["--window", WINDOW], &edged)?;
        row.push(side, turn.pair, &ran, ran.rate("answers")?);
        edged.stop()?;
    }
    if testbed.baseline.is_some() {
        return Ok(());
    }

    let to = testbed.ceiling_address();
    let bare = ["--window", WINDOW, "--any"];
    let reflector = testbed.reflector()?;
    let ran = testbed.singles(&to, &bare, &reflector)?;
    row.push(REFLECTOR, turn.pair, &ran, ran.rate("answers")?);
    reflector.stop()?;

    let driver = testbed.driver("reflect")?;
    let ran = testbed.singles(&to, &bare, &driver)?;
    row.push(XDP_TX, turn.pair, &ran, ran.rate("answers")?);
    driver.stop()?;

    let driver = testbed.driver("drop")?;
    let ran = testbed.offered(&to, &driver)?;
    row.push(XDP_DROP, turn.pair, &ran, ran.rate("requests")?);
    driver.stop()?;

    testbed.pass(false)?;
    let ran = peers(row, testbed, turn.pair);
    testbed.pass(true)?;
    ran
}

fn peers(row: &mut Growing, testbed: &Testbed<'_>, pair: u32) -> Result<()> {
    if row.has(KNOT) {
        let knot = testbed.knot()?;
        let ran = testbed.kxdpgun(&knot)?;
        row.push(KNOT, pair, &ran, ran.rate("answers")?);
        drop(knot);
        testbed.bed.edge.detach()?;
    }
    if row.has(NGINX) {
        let (root, paths) = testbed.small_files(FILES, FILE_BYTES)?;
        let nginx = testbed.nginx(&root)?;
        let ran = testbed.wrk(&paths, &nginx)?;
        row.push(NGINX, pair, &ran, ran.rate("answers")?);
    }
    Ok(())
}
