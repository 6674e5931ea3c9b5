//! The changes of this run to the host, recorded before they are made, so that the next run can
//! undo them if this one is killed.
//!
//! One record per running command in `/run/sealedge-xtask`, named by process id. A record whose
//! process has ended belongs to a killed run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::paths;

/// Changes of a run that outlive its process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Pages added to `vm.nr_hugepages`. A difference, as runs may overlap.
    pub hugepages_added: u64,
    /// Folder of temporary files.
    pub folder: Option<PathBuf>,
    /// Whether `ip netns` created its mount for this run.
    pub netns_mounted: bool,
}

/// This run's record; removed by `close` when nothing is left to undo.
#[derive(Debug)]
pub struct UndoLog {
    path: PathBuf,
    pub record: Record,
}

impl UndoLog {
    pub fn open() -> Result<Self> {
        let folder = Path::new(paths::RECORDS);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{}.json", std::process::id()));
        let undo_log = Self {
            path,
            record: Record::default(),
        };
        undo_log.write()?;
        Ok(undo_log)
    }

    /// Records a change that is about to be made, or that was undone.
    pub fn note(&mut self, change: impl FnOnce(&mut Record)) -> Result<()> {
        change(&mut self.record);
        self.write()
    }

    fn write(&self) -> Result<()> {
        let half = self.path.with_extension("new");
        fs::write(&half, serde_json::to_vec(&self.record)?)
            .and_then(|()| fs::rename(&half, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    pub fn close(self) -> Result<()> {
        fs::remove_file(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

/// Held while the host's settings are read and changed, so that concurrent runs do not count a page
/// twice.
pub fn lock() -> Result<File> {
    fs::create_dir_all(paths::RECORDS)?;
    let path = Path::new(paths::RECORDS).join("lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Records of killed runs.
pub fn orphans() -> Vec<(PathBuf, Record)> {
    records()
        .into_iter()
        .filter(|(pid, _, _)| !alive(*pid))
        .map(|(_, path, r)| (path, r))
        .collect()
}

/// Whether another run is active.
pub fn others_run() -> bool {
    records()
        .iter()
        .any(|(pid, _, _)| *pid != std::process::id() && alive(*pid))
}

pub fn alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn records() -> Vec<(u32, PathBuf, Record)> {
    let Ok(entries) = fs::read_dir(paths::RECORDS) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let pid = path
                .file_name()?
                .to_str()?
                .strip_suffix(".json")?
                .parse()
                .ok()?;
            let text = fs::read_to_string(&path).ok()?;
            Some((pid, path, serde_json::from_str(&text).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_disk() {
        let record = Record {
            hugepages_added: 7,
            folder: Some("/tmp/sealedge-1".into()),
            netns_mounted: true,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[test]
    fn this_process_is_alive() {
        assert!(alive(std::process::id()));
    }
}
