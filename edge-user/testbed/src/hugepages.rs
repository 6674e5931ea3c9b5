//! Reserves hugepages for some time.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use procfs::Current as _;

use crate::clock;
use crate::undo_log::{self, UndoLog};

const COUNT: &str = "/proc/sys/vm/nr_hugepages";
/// Writing to these has the kernel drop clean file pages, and compact free memory.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
const COMPACT: &str = "/proc/sys/vm/compact_memory";
/// Attempts to get pages that the kernel did not provide at once.
const ATTEMPTS: u32 = 5;

/// From `/proc/meminfo`.
#[derive(Clone, Copy, Debug)]
pub struct Meminfo {
    /// Zero in a kernel without hugepages.
    pub page_bytes: u64,
    pub total: u64,
    pub free: u64,
    pub available_bytes: u64,
}

pub fn meminfo() -> Result<Meminfo> {
    let memory = procfs::Meminfo::current().context("cannot read /proc/meminfo")?;
    Ok(Meminfo {
        page_bytes: memory.hugepagesize.unwrap_or(0),
        total: memory.hugepages_total.unwrap_or(0),
        free: memory.hugepages_free.unwrap_or(0),
        available_bytes: memory.mem_available.unwrap_or(0),
    })
}

/// Reserves this many bytes, after recording that.
pub fn reserve(undo_log: &mut UndoLog, bytes: u64) -> Result<()> {
    let before = meminfo()?;
    if before.page_bytes == 0 {
        bail!("this kernel has no hugepages (CONFIG_HUGETLBFS)");
    }
    let pages = bytes.div_ceil(before.page_bytes);
    if pages * before.page_bytes > before.available_bytes {
        bail!(
            "{} MiB of hugepages are needed and only {} MiB of memory are available",
            bytes >> 20,
            before.available_bytes >> 20
        );
    }
    let _lock = undo_log::lock()?;
    let old = count()?;
    undo_log.note(|record| record.hugepages_added += pages)?;
    let mut got = old;
    for _ in 0..ATTEMPTS {
        set(old + pages)?;
        got = count()?;
        if got >= old + pages {
            break;
        }
        for path in [DROP_CACHES, COMPACT] {
            fs::write(path, "1").with_context(|| format!("cannot write {path}"))?;
        }
    }
    if got < old + pages {
        undo_log.note(|record| record.hugepages_added -= (old + pages).saturating_sub(got))?;
        bail!(
            "requested {pages} more hugepages and got {}: memory is fragmented; \
             end other programs, or restart the machine",
            got.saturating_sub(old)
        );
    }
    Ok(())
}

/// Releases what `reserve` added. The kernel gets the pages of an ended process back a little
/// later.
pub fn give_back(undo_log: &mut UndoLog) -> Result<()> {
    take_away(undo_log.record.hugepages_added)?;
    undo_log.note(|record| record.hugepages_added = 0)
}

/// Releases pages that an earlier run added.
pub fn take_away(pages: u64) -> Result<()> {
    if pages == 0 {
        return Ok(());
    }
    let _lock = undo_log::lock()?;
    let wanted = count()?.saturating_sub(pages);
    set(wanted)?;
    let gone = clock::poll(Duration::from_secs(5), || {
        meminfo().is_ok_and(|now| now.total <= wanted).then_some(())
    });
    if gone.is_none() {
        bail!("hugepages that are no longer reserved are still in use (see {COUNT})");
    }
    Ok(())
}

pub fn count() -> Result<u64> {
    let text = fs::read_to_string(COUNT).with_context(|| format!("cannot read {COUNT}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{COUNT} is not a number"))
}

fn set(pages: u64) -> Result<()> {
    eprintln!("+ sysctl vm.nr_hugepages={pages}");
    fs::write(COUNT, pages.to_string()).with_context(|| format!("cannot write {COUNT}"))
}
