//! A reader like any other: what an attack is to it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use edge_testbed::{
    bed::Side,
    clock,
    objects::{self, Sealed, files},
    process,
    stop::{self, Stop},
};
use serde_json::{Value, json};

/// A reader that has not ended by then hangs. Its own longest patience is 30 s.
const PATIENCE: Duration = Duration::from_mins(1);
/// Exit codes with which `edge` says that it failed, and that trying again may help.
const FAILED: [i32; 2] = [1, 75];

/// How a fetch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// It said why.
    Failed(String),
    Altered,
    Hung,
    /// It ended otherwise: a panic, a signal, or without a word.
    Broken(String),
}

impl End {
    /// Whether the promise to readers was kept.
    pub(super) fn is_fair(&self) -> bool {
        matches!(self, Self::Whole | Self::Failed(_))
    }

    pub(super) fn told(&self) -> String {
        match self {
            Self::Whole => String::from("came back whole"),
            Self::Failed(why) => format!("said: {}", short(why)),
            Self::Altered => String::from("CAME BACK ALTERED"),
            Self::Hung => format!("DID NOT END within {} s", PATIENCE.as_secs()),
            Self::Broken(how) => format!("BROKE: {how}"),
        }
    }
}

/// Without the edge's address and the ids of chunks, so that one failure has one sentence.
fn short(why: &str) -> String {
    let why = match why.split_once(": ") {
        Some((address, rest)) if address.parse::<SocketAddr>().is_ok() => rest,
        _ => why,
    };
    let is_id = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let word = |word: &str| {
        let (bare, end) = word.split_at(word.len() - usize::from(word.ends_with(':')));
        if is_id(bare) {
            format!("…{end}")
        } else {
            word.to_owned()
        }
    };
    let words: Vec<String> = why.split(' ').map(word).collect();
    words.join(" ")
}

pub(super) struct Fetch {
    /// Not yet at the edge.
    pub(super) cold: bool,
    /// Begun during the attack.
    pub(super) attacked: bool,
    pub(super) seconds: f64,
    pub(super) end: End,
}

impl Fetch {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "cold": self.cold,
            "attacked": self.attacked,
            "seconds": self.seconds,
            "whole": self.end == End::Whole,
            "said": self.end.told(),
        })
    }
}

/// Fetches an object and compares it; calls `meanwhile` again and again. An error is an interruption, or none of the reader's doing.
pub(super) fn fetch(
    reader: &Side,
    sealed: &Sealed,
    edge: SocketAddr,
    out: &Path,
    meanwhile: &mut dyn FnMut(),
) -> Result<(f64, End)> {
    let mut get = objects::get(reader, &sealed.ticket, edge, out);
    let begin = clock::now();
    let mut child = process::spawn(get.stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let said = process::line_by_line(child.stderr.take());
    let status = clock::poll(PATIENCE, || {
        meanwhile();
        match child.try_wait() {
            Ok(None) if !stop::came() => None,
            ended => Some(ended),
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    let Some(status) = status.transpose()?.flatten() else {
        process::end(&mut child);
        return if stop::came() {
            Err(Stop::interrupted())
        } else {
            Ok((seconds, End::Hung))
        };
    };
    let said: Vec<String> = said.iter().collect();
    let said = said.join(" / ");
    let end = if status.success() {
        let end = if files::sha256(out)? == sealed.object.sha256 {
            End::Whole
        } else {
            End::Altered
        };
        std::fs::remove_file(out)?;
        end
    } else {
        let whose = said.strip_prefix("edge: ");
        match (status.code(), whose) {
            (Some(code), Some(why)) if FAILED.contains(&code) && !out.exists() => {
                End::Failed(why.to_owned())
            }
            _ => End::Broken(format!("{status}: {said}")),
        }
    };
    Ok((seconds, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_has_one_sentence() {
        let id = "b948fb2cac1daefe341ed8c7d0738bebb13489af48bc22b871e24ea98700b60c";
        let why = format!("[fd71::1]:7347: chunk {id} came altered, chunk {id}: no");
        assert_eq!(short(&why), "chunk … came altered, chunk …: no");
        assert_eq!(short("cannot write: disk full"), "cannot write: disk full");
    }
}
