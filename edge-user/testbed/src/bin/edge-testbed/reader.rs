//! Runs one reader as users do, and classifies how it ends.

use std::fmt;
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
use serde::Serialize;

/// A reader that runs longer hangs. Its own longest timeout is 30 s.
pub(crate) const HANGS_AFTER: Duration = Duration::from_mins(1);
/// Exit codes of `edge` for a failure, and for one that a retry may fix.
const FAILED: [i32; 2] = [1, 75];

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum End {
    /// With the published bytes.
    Whole,
    /// With this exit code and message, and no file.
    Failed(i32, String),
    Altered,
    /// Not by itself, within these seconds.
    Hung(u64),
    /// Otherwise: a panic, a signal, no message, or a file in spite of the failure.
    Broken(String),
}

impl End {
    /// Whether the promise to readers was kept.
    pub(crate) fn is_fair(&self) -> bool {
        matches!(self, Self::Whole | Self::Failed(..))
    }
}

impl fmt::Display for End {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => write!(to, "succeeded"),
            Self::Failed(_, why) => write!(to, "failed: {}", short(why)),
            Self::Altered => write!(to, "RECEIVED CORRUPT DATA"),
            Self::Hung(seconds) => write!(to, "DID NOT END within {seconds} s"),
            Self::Broken(how) => write!(to, "BROKE: {how}"),
        }
    }
}

/// Without the edge's address and the ids of chunks, to group equal failures.
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

/// Fetches an object and compares it; none if `enough` says so before the end. An error is an
/// interruption, or not the reader's fault.
pub(crate) fn fetch(
    reader: &Side,
    sealed: &Sealed,
    edge: SocketAddr,
    out: &Path,
    limit: Duration,
    mut enough: impl FnMut() -> bool,
) -> Result<Option<(Duration, End)>> {
    let mut get = objects::get(reader, &sealed.ticket, edge, out);
    let begin = clock::now();
    let child = process::spawn(get.stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let mut hung = false;
    let ended = process::watch(child, || {
        hung = begin.elapsed() > limit;
        hung || enough()
    })?;
    let took = begin.elapsed();
    let Some(process::Ended { code, stderr }) = ended else {
        return if stop::came() {
            Err(Stop::interrupted())
        } else {
            Ok(hung.then_some((took, End::Hung(limit.as_secs()))))
        };
    };
    let message = stderr.replace('\n', " / ");
    let end = match (code, message.strip_prefix("edge: ")) {
        (Some(0), _) => {
            let same = files::sha256(out)? == sealed.object.sha256;
            std::fs::remove_file(out)?;
            if same { End::Whole } else { End::Altered }
        }
        (Some(code), Some(why)) if FAILED.contains(&code) && !out.exists() => {
            End::Failed(code, why.to_owned())
        }
        (code, _) => End::Broken(format!("exit code {code:?}: {message}")),
    };
    Ok(Some((took, end)))
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
