//! Explains why memory is short, and suggests remedies.

use std::fmt;
use std::fs;
use std::io;

use rustix::process::{Resource as Rlimit, getrlimit};

use super::cgroup::{Limit, Resource, hugepages_group, tightest};
use crate::sys::mapping::HUGEPAGE_BYTES;

/// The kernel's pool of 2 MiB hugepages.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

#[derive(Debug)]
pub enum Shortage {
    /// A control group allows too little.
    Group { needed_bytes: u64, limit: Limit },
    /// Too few hugepages are reserved, or free.
    Pool { needed: u64, free: u64, total: u64 },
    /// A resource limit of the process.
    Process { limit: &'static str, bytes: u64 },
    /// The limit of a control group whose files are not mounted.
    Withheld { group: String },
    /// An error without a known cause.
    Kernel(io::Error),
}

impl Shortage {
    pub(super) fn of_hugepages(len_bytes: usize, error: io::Error) -> Self {
        let in_group = Self::in_group(Resource::Hugepages, len_bytes);
        let in_pool = || {
            let figure = |name: &str| -> Option<u64> {
                let text = fs::read_to_string(format!("{POOL}/{name}")).ok()?;
                text.trim().parse().ok()
            };
            let pool = Pool {
                total: figure("nr_hugepages")?,
                free: figure("free_hugepages")?,
                reserved: figure("resv_hugepages")?,
                surplus: figure("surplus_hugepages")?,
                overcommit: figure("nr_overcommit_hugepages")?,
            };
            pool.shortage(len_bytes.div_ceil(HUGEPAGE_BYTES) as u64)
        };
        let withheld = || {
            // EFAULT: access would raise SIGBUS. The pool has the pages, or mapping had failed.
            (error.raw_os_error() == Some(libc::EFAULT)).then_some(())?;
            let group = hugepages_group()?;
            Some(Self::Withheld { group })
        };
        let known = in_group.or_else(withheld).or_else(in_pool);
        known.unwrap_or(Self::Kernel(error))
    }

    pub(super) fn of_memory(len_bytes: usize, error: io::Error) -> Self {
        [("RLIMIT_AS", Rlimit::As), ("RLIMIT_DATA", Rlimit::Data)]
            .into_iter()
            .find_map(|(limit, resource)| {
                let bytes = getrlimit(resource).current?;
                // Memory in use counts too, so the limit may exceed the request.
                let small = bytes < 2 * len_bytes as u64;
                small.then_some(Self::Process { limit, bytes })
            })
            .unwrap_or(Self::Kernel(error))
    }

    pub(super) fn in_group(resource: Resource, len_bytes: usize) -> Option<Self> {
        let needed_bytes = len_bytes as u64;
        let limit = tightest(resource).filter(|limit| limit.room_bytes() < needed_bytes)?;
        Some(Self::Group {
            needed_bytes,
            limit,
        })
    }

    /// Whether waiting may help, as in docs/OPERATING.md, "Exit codes".
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Group {
                needed_bytes,
                limit,
            } if *needed_bytes > limit.limit_bytes => 78,
            Self::Pool { needed, total, .. } if needed > total => 78,
            Self::Process { .. } | Self::Withheld { .. } => 78,
            Self::Group { .. } | Self::Pool { .. } => 75,
            Self::Kernel(error) if error.kind() == io::ErrorKind::OutOfMemory => 75,
            Self::Kernel(_) => 1,
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        match self {
            Self::Group {
                needed_bytes,
                limit,
            } => write!(
                out,
                "{} MiB are needed, and the control group of this process allows {} MiB, of which \
                 {} MiB are in use; raise {}",
                mib(*needed_bytes),
                mib(limit.limit_bytes),
                mib(limit.used_bytes),
                limit.file.display()
            ),
            Self::Pool {
                needed,
                free,
                total,
            } => write!(
                out,
                "{needed} pages of 2 MiB are needed and {free} are free; reserve {} more with \
                 `sysctl -w vm.nr_hugepages={}`",
                needed - free,
                total + (needed - free)
            ),
            Self::Process { limit, bytes } => write!(
                out,
                "{limit} allows this process {} MiB in total; raise it (`ulimit`, or Limit…= of \
                 the systemd unit)",
                mib(*bytes)
            ),
            Self::Withheld { group } => write!(
                out,
                "there are enough, but the kernel withholds them; raise the hugetlb limit of the \
                 control group {group}, or of one above it"
            ),
            Self::Kernel(error) if error.raw_os_error() == Some(libc::EHWPOISON) => {
                write!(
                    out,
                    "{error}: the memory of this machine is faulty; see `dmesg`"
                )
            }
            Self::Kernel(error) => write!(
                out,
                "{error}; see cpuset.mems of the control group, vm.overcommit_memory and `dmesg`"
            ),
        }
    }
}

/// The kernel's pool of hugepages, in pages.
struct Pool {
    total: u64,
    free: u64,
    /// Free, but reserved for existing mappings.
    reserved: u64,
    /// Beyond the persistent pool, and their maximum.
    surplus: u64,
    overcommit: u64,
}

impl Pool {
    /// The shortage, if the pool has too few pages.
    fn shortage(&self, needed: u64) -> Option<Shortage> {
        let more = self.overcommit.saturating_sub(self.surplus);
        let free = self.free.saturating_sub(self.reserved) + more;
        (needed > free).then_some(Shortage::Pool {
            needed,
            free,
            total: self.total - self.surplus.min(self.total),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_states_how_many_pages_to_reserve() {
        let pool = Pool {
            total: 768,
            free: 640,
            reserved: 128,
            surplus: 0,
            overcommit: 0,
        };
        let shortage = pool.shortage(2048).unwrap();
        let message = shortage.to_string();
        let expected = "2048 pages of 2 MiB are needed and 512 are free; reserve 1536 more";
        assert!(message.starts_with(expected), "{message}");
        assert!(message.contains("vm.nr_hugepages=2304"), "{message}");
        assert_eq!(shortage.exit_code(), 78, "the pool is too small");
        assert_eq!(
            pool.shortage(600).unwrap().exit_code(),
            75,
            "others use them"
        );
        assert!(pool.shortage(512).is_none());
        let surplus = Pool {
            overcommit: 100,
            ..pool
        };
        assert!(
            surplus.shortage(612).is_none(),
            "the kernel allocates surplus pages"
        );
    }

    #[test]
    fn a_group_limit_below_the_need_is_a_configuration_error() {
        let shortage = |limit_bytes, used_bytes| Shortage::Group {
            needed_bytes: 64 << 20,
            limit: Limit {
                file: "/sys/fs/cgroup/a/hugetlb.2MB.max".into(),
                limit_bytes,
                used_bytes,
            },
        };
        assert_eq!(shortage(32 << 20, 0).exit_code(), 78);
        let used = shortage(64 << 20, 2 << 20);
        assert_eq!(used.exit_code(), 75);
        assert_eq!(
            used.to_string(),
            "64 MiB are needed, and the control group of this process allows 64 MiB, of which \
             2 MiB are in use; raise /sys/fs/cgroup/a/hugetlb.2MB.max"
        );
    }
}
