//! Single segments, as fast as they come.

use anyhow::Result;
use serde_json::Value;

use super::super::field::{Field, without_program};
use super::super::peers::{self, KNOT, NGINX};
use super::growing::{ANSWERS_A_SECOND, Growing};
use super::{REFLECTOR, Row, WINDOW, senders};

const XDP_TX: &str = "XDP_TX of the request";
const XDP_DROP: &str = "XDP_DROP: requests offered";
/// Files for nginx; all of them fit its cache of open files.
const FILES: u32 = 16_000;
const FILE_BYTES: usize = 1216;

pub(super) fn small(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let knot_absent = peers::installed(peers::KNOT_PROGRAMS).err();
    let nginx_absent = peers::installed(peers::NGINX_PROGRAMS).err();
    let mut row = Growing::of(row, ANSWERS_A_SECOND, "higher");
    row.target(REFLECTOR, 0.85, None);
    row.target(KNOT, 2.0, knot_absent.as_ref());
    row.target(NGINX, 15.0, nginx_absent.as_ref());
    let to = field.ceiling_address();
    let bare = ["--window", WINDOW, "--any"];
    for pair in 1..=field.plan.pairs {
        for (side, sender) in senders(sender, "xsk") {
            let (edged, mode) = field.warm_edge(sender, "native")?;
            row.keep_mode(side, mode);
            let ran = field.singles(&field.edge(), &["--window", WINDOW], &edged)?;
            row.push(side, pair, &ran, ran.rate("answers")?);
            edged.stop()?;
        }

        let reflector = field.reflector()?;
        let ran = field.singles(&to, &bare, &reflector)?;
        row.push(REFLECTOR, pair, &ran, ran.rate("answers")?);
        reflector.stop()?;

        let driver = field.driver("reflect")?;
        let ran = field.singles(&to, &bare, &driver)?;
        row.push(XDP_TX, pair, &ran, ran.rate("answers")?);
        driver.stop()?;

        let driver = field.driver("drop")?;
        let ran = field.offered(&to, &driver)?;
        row.push(XDP_DROP, pair, &ran, ran.rate("requests")?);
        driver.stop()?;

        field.pass(false)?;
        let peers = small_peers(
            field,
            &mut row,
            pair,
            knot_absent.is_none(),
            nginx_absent.is_none(),
        );
        field.pass(true)?;
        peers?;
    }
    Ok(row.finish())
}

fn small_peers(
    field: &Field<'_>,
    row: &mut Growing,
    pair: u32,
    knot: bool,
    nginx: bool,
) -> Result<()> {
    if knot {
        let knot = field.knot()?;
        let ran = field.kxdpgun(&knot)?;
        row.push(KNOT, pair, &ran, ran.rate("answers")?);
        drop(knot);
        without_program(&field.ground.edge)?;
    }
    if nginx {
        let (root, paths) = field.small_files(FILES, FILE_BYTES)?;
        let nginx = field.nginx(&root)?;
        let ran = field.wrk(&paths, &nginx)?;
        row.push(NGINX, pair, &ran, ran.rate("answers")?);
    }
    Ok(())
}
