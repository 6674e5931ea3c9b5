//! Finds and undoes what killed runs left behind.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::bed;
use crate::hugepages;
use crate::undo_log::{self, Record};

/// Leftovers first: they hold addresses, names and memory that this run may need.
pub fn cleanup() -> Result<()> {
    for name in bed::leftovers() {
        eprintln!("found namespace {name} of a killed run: removing it");
        bed::end_inhabitants(&name);
        bed::remove_namespace(&name)?;
    }
    for (path, record) in undo_log::orphans() {
        eprintln!(
            "found the record of a killed run, {}: undoing its changes",
            path.display()
        );
        put_back(&record)?;
        fs::remove_file(&path)?;
    }
    Ok(())
}

fn put_back(record: &Record) -> Result<()> {
    if let Some(folder) = &record.folder {
        remove_folder(folder)?;
    }
    if record.netns_mounted && !undo_log::others_run() {
        bed::unmount_names()?;
    }
    hugepages::take_away(record.hugepages_added)
}

/// Removes a run's folder of temporary files, and refuses any other name.
pub fn remove_folder(folder: &Path) -> Result<()> {
    let ours = folder
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with("sealedge-"));
    if ours && folder.is_dir() {
        eprintln!("+ rm -r {}", folder.display());
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}
