//! One reader as users run it, and how that ends.

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

/// A reader that has not ended by then hangs. Its own longest patience is 30 s.
pub(crate) const HANGS_AFTER: Duration = Duration::from_mins(1);
/// Exit codes with which `edge` says that it failed, and that trying again may help.
const FAILED: [i32; 2] = [1, 75];

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum End {
    /// With the very bytes that were published.
    Whole,
    /// With this exit code and these words, and no file.
    Failed(i32, String),
    Altered,
    /// Not by itself, for so many seconds.
    Hung(u64),
    /// Otherwise: a panic, a signal, without a word, or with a file all the same.
    Broken(String),
}

impl End {
    /// Whether the promise to readers was kept.
    pub(crate) fn is_fair(&self) -> bool {
        matches!(self, Self::Whole | Self::Failed(..))
    }

    pub(crate) fn told(&self) -> String {
        match self {
            Self::Whole => String::from("came back whole"),
            Self::Failed(_, why) => format!("said: {}", short(why)),
            Self::Altered => String::from("CAME BACK ALTERED"),
            Self::Hung(seconds) => format!("DID NOT END within {seconds} s"),
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

/// Fetches an object and compares it; none when `enough` says so before the end. An error is an
/// interruption, or none of the reader's doing.
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
    let Some(process::Ended { code, said }) = ended else {
        return if stop::came() {
            Err(Stop::interrupted())
        } else {
            Ok(hung.then_some((took, End::Hung(limit.as_secs()))))
        };
    };
    let said = said.replace('\n', " / ");
    let end = match (code, said.strip_prefix("edge: ")) {
        (Some(0), _) => {
            let same = files::sha256(out)? == sealed.object.sha256;
            std::fs::remove_file(out)?;
            if same { End::Whole } else { End::Altered }
        }
        (Some(code), Some(why)) if FAILED.contains(&code) && !out.exists() => {
            End::Failed(code, why.to_owned())
        }
        (code, _) => End::Broken(format!("exit code {code:?}: {said}")),
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
