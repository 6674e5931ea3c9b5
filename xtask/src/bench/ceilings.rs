//! Servers that do no more than what they are named for, at the place of the edge.

use anyhow::{Context as _, Result};
use edge_testbed::daemon::Daemon;

use super::testbed::{CEILING_PORT, Testbed, programs};

/// Bytes of a full segment's datagram.
const REPLY_BYTES: &str = "1232";

impl Testbed<'_> {
    /// Each packet answered with a ready one, by AF_XDP.
    pub(super) fn reflector(&self) -> Result<Daemon> {
        self.by_program("reflector", ["--reply-bytes", REPLY_BYTES])
    }

    /// Each packet sent back, or dropped, in the driver.
    pub(super) fn driver(&self, action: &str) -> Result<Daemon> {
        self.by_program("driver", ["--action", action])
    }

    fn by_program(&self, which: &str, how: [&str; 2]) -> Result<Daemon> {
        let programs = programs();
        let programs = programs.to_str().context("a path that is text")?;
        let port = CEILING_PORT.to_string();
        let link = self.bed.edge.link;
        let words = [which, "--interface", link, "--port", &port];
        self.ceiling(&[&words[..], &how, &["--programs", programs]].concat())
    }
}
