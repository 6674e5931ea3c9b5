//! The files of the project as git lists them: tracked, or new and not ignored.

use std::fs;

use anyhow::Result;
use edge_testbed::{paths, process};

use crate::build;

/// A text file; others are skipped.
pub(super) struct File {
    /// Relative to the workspace, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    pub(super) fn is_rust(&self) -> bool {
        self.ends_in("rs")
    }

    pub(super) fn is_page(&self) -> bool {
        self.ends_in("md")
    }

    fn ends_in(&self, ending: &str) -> bool {
        self.path
            .rsplit_once('.')
            .is_some_and(|(_, found)| found == ending)
    }

    /// Whether it is in this folder, or is this file.
    pub(super) fn within(&self, place: &str) -> bool {
        self.path
            .strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || place.ends_with('/') || rest.starts_with('/'))
    }

    /// A file of tests only.
    pub(super) fn is_test(&self) -> bool {
        self.path
            .split('/')
            .any(|part| part == "tests" || part == "benches")
    }
}

pub(super) fn all() -> Result<Vec<File>> {
    let mut git = build::git();
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let list = process::output(&mut git)?;
    let read = |path: &str| {
        let text = fs::read_to_string(paths::root().join(path)).ok()?;
        Some(File {
            path: path.to_owned(),
            text,
        })
    };
    Ok(list.lines().filter_map(read).collect())
}
