//! What happens to the interface.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::play::{Play, WITHIN, sentence, wait};
use super::{Fault, NOTHING, UNREACHABLE};
use crate::clock;
use crate::ground;
use crate::place;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "link-down",
        done: "the interface down for two seconds and up again, with its IPv6 address put back",
        expected: "edged says so and counts it (interface_up); readers wait or say so; up again \
                   it serves without a restart",
        excuses: UNREACHABLE,
        play: link_down,
    },
    Fault {
        name: "link-renamed",
        done: "the interface renamed while it is up, and back",
        expected: "edged says so and serves on; nobody's reader notices",
        excuses: NOTHING,
        play: link_renamed,
    },
    Fault {
        name: "link-removed",
        done: "the interface removed; then made anew, and edged started",
        expected: "edged says so and ends with exit code 1; the restart serves",
        excuses: UNREACHABLE,
        play: link_removed,
    },
];

const DOWN_FOR: Duration = Duration::from_secs(2);

fn link_down(play: &mut Play<'_>) -> Result<String> {
    let edge = &play.stage.ground.edge;
    let from = play.lines()?;
    play.ip(&["link", "set", "dev", edge.link, "down"])?;
    let heard = play.hear(from, "is down")?;
    if play.count("/interface_up")? != 0 {
        bail!("`edge stat` does not tell that the interface is down");
    }
    wait(DOWN_FOR);
    let over = clock::now();
    play.ip(&["link", "set", "dev", edge.link, "up"])?;
    // The kernel takes IPv6 addresses away with the link, and whoever set them sets them again.
    let ipv6 = format!("{}/64", edge.ipv6);
    play.ip(&["address", "replace", &ipv6, "dev", edge.link, "nodad"])?;
    ground::link_is_up(edge)?;
    play.good_again(over)?;
    play.hear(from, "over: the interface")?;
    Ok(format!("log: {heard}"))
}

fn link_renamed(play: &mut Play<'_>) -> Result<String> {
    let edge = play.stage.ground.edge.link;
    let from = play.lines()?;
    play.ip(&["link", "set", "dev", edge, "name", "other0"])?;
    let heard = play.hear(from, "is now called other0")?;
    play.good_again(clock::now())?;
    play.ip(&["link", "set", "dev", "other0", "name", edge])?;
    play.hear(from, "is now called edge0")?;
    play.good_again(clock::now())?;
    Ok(format!("log: {heard}"))
}

fn link_removed(play: &mut Play<'_>) -> Result<String> {
    let ground = play.stage.ground;
    play.ip(&["link", "delete", ground.edge.link])?;
    let (status, said) = play.take_edged()?.ended(WITHIN)?;
    let last = said.last().context("edged said nothing")?;
    if status.code() != Some(1) || !last.contains("was removed while it was served") {
        bail!("edged ended with {status} and said: {last}");
    }
    let missing = play.refused(&["no interface \"edge0\""], &[], &[], 78)?;
    let over = clock::now();
    ground.link(&place::xdp().join("edge-pass"))?;
    play.start(&[])?;
    play.good_again(over)?;
    Ok(format!("{}; a start without it: {missing}", sentence(last)))
}
