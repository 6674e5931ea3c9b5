//! What a run borrows from the host, and returns in any case.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::bed::{self, Bed, Plan};
use crate::cleanup;
use crate::hugepages;
use crate::undo_log::UndoLog;

/// Borrowed resources. `give_back` returns them and checks; drop returns them too, so that an error
/// or Ctrl-C leaves nothing behind.
pub struct HostGuard {
    /// Taken once all is returned.
    undo_log: Option<UndoLog>,
    bed: Option<Bed>,
    before: Before,
}

/// What must be the same afterwards.
struct Before {
    hugepages: u64,
    netns_mounted: bool,
}

impl HostGuard {
    /// Cleans up first, so that the state noted as "before" is the host's own.
    pub fn borrow() -> Result<Self> {
        cleanup::cleanup()?;
        let before = Before {
            hugepages: hugepages::count()?,
            netns_mounted: bed::netns_mounted()?,
        };
        Ok(Self {
            undo_log: Some(UndoLog::open()?),
            bed: None,
            before,
        })
    }

    pub fn hugepages(&mut self, bytes: u64) -> Result<()> {
        hugepages::reserve(self.undo_log()?, bytes)
    }

    /// A folder of temporary files that only root can read: it holds tickets, which contain keys.
    pub fn folder(&mut self) -> Result<PathBuf> {
        let folder = std::env::temp_dir().join(format!("sealedge-{}", std::process::id()));
        let folder = std::path::absolute(folder)?;
        self.undo_log()?
            .note(|record| record.folder = Some(folder.clone()))?;
        // `create` fails on an existing folder: a foreign one is neither used nor removed.
        if let Err(error) = fs::DirBuilder::new().mode(0o700).create(&folder) {
            self.undo_log()?.note(|record| record.folder = None)?;
            return Err(error).with_context(|| format!("cannot make {}", folder.display()));
        }
        Ok(folder)
    }

    /// Creates namespaces and the link between them.
    pub fn bed(&mut self) -> Result<&Bed> {
        self.expect_namespaces()?;
        let bed = self.bed.insert(Bed::new(0, Plan::default()));
        bed.make()?;
        Ok(bed)
    }

    /// For commands that create namespaces themselves (tests), which may leave the mount of `ip
    /// netns`.
    pub fn expect_namespaces(&mut self) -> Result<()> {
        if !self.before.netns_mounted {
            self.undo_log()?
                .note(|record| record.netns_mounted = true)?;
        }
        Ok(())
    }

    /// Returns everything, and checks that.
    pub fn give_back(mut self) -> Result<()> {
        self.undo()?;
        let ours = bed::ours();
        if !ours.is_empty() {
            bail!("namespaces {} are left", ours.join(", "));
        }
        // What we added is gone, or `undo` would have failed: a difference is not ours.
        let now = hugepages::count()?;
        if now != self.before.hugepages {
            let before = self.before.hugepages;
            eprintln!("another process changed vm.nr_hugepages meanwhile: {now}, was {before}");
        }
        if bed::netns_mounted()? && !self.before.netns_mounted {
            eprintln!("another process created namespaces meanwhile: /run/netns stays mounted");
        }
        eprintln!("links, namespaces, programs, mounts and hugepages were restored");
        Ok(())
    }

    fn undo(&mut self) -> Result<()> {
        let Some(mut undo_log) = self.undo_log.take() else {
            return Ok(());
        };
        let mut problems = Vec::new();
        let mut step = |result: Result<()>| {
            if let Err(error) = result {
                problems.push(format!("{error:#}"));
            }
        };
        if let Some(bed) = self.bed.take() {
            step(bed.remove());
        }
        // Also those of test processes that were killed before they could clean up.
        for name in bed::ours().into_iter().chain(bed::leftovers()) {
            bed::end_inhabitants(&name);
            step(bed::remove_namespace(&name));
        }
        if undo_log.record.netns_mounted {
            step(bed::unmount_names());
        }
        if let Some(folder) = undo_log.record.folder.clone() {
            step(cleanup::remove_folder(&folder));
        }
        step(hugepages::give_back(&mut undo_log));
        if problems.is_empty() {
            return undo_log.close();
        }
        // The record stays: the next run tries again.
        bail!("could not restore everything: {}", problems.join("; "))
    }

    fn undo_log(&mut self) -> Result<&mut UndoLog> {
        self.undo_log
            .as_mut()
            .context("everything was returned already")
    }
}

impl Drop for HostGuard {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            eprintln!("{error:#}");
        }
    }
}
