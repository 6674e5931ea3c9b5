//! Memory limits of this process's control groups, in versions 1 and 2.

use std::fs;
use std::path::{Path, PathBuf};

use procfs_core::process::{MountInfo, MountInfos};
use procfs_core::{FromRead as _, ProcessCGroup, ProcessCGroups};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resource {
    /// Hugepages of 2 MiB.
    Hugepages,
    Memory,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// The file that sets the limit.
    pub file: PathBuf,
    pub limit_bytes: u64,
    pub used_bytes: u64,
}

impl Limit {
    pub(super) const fn room_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes)
    }
}

/// The names of the files with a limit and the usage that counts against it.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// The key of the value in the second file, if that has several.
    line: Option<&'static str>,
}

const fn files(limit: &'static str, used: &'static str, line: Option<&'static str>) -> Files {
    Files { limit, used, line }
}

/// Usage, then reservation. Reclaimable memory, such as page cache, does not count as used.
const HUGEPAGES_V1: &[Files] = &[
    files(
        "hugetlb.2MB.limit_in_bytes",
        "hugetlb.2MB.usage_in_bytes",
        None,
    ),
    files(
        "hugetlb.2MB.rsvd.limit_in_bytes",
        "hugetlb.2MB.rsvd.usage_in_bytes",
        None,
    ),
];
const HUGEPAGES_V2: &[Files] = &[
    files("hugetlb.2MB.max", "hugetlb.2MB.current", None),
    files("hugetlb.2MB.rsvd.max", "hugetlb.2MB.rsvd.current", None),
];
const MEMORY_V1: &[Files] = &[files(
    "memory.limit_in_bytes",
    "memory.stat",
    Some("total_rss"),
)];
const MEMORY_V2: &[Files] = &[files("memory.max", "memory.stat", Some("anon"))];

/// The limit that leaves this process the least room.
pub(super) fn tightest(resource: Resource) -> Option<Limit> {
    tightest_by(Path::new("/proc/self"), resource)
}

/// The kernel's name of the group that limits this process's hugepages, for hosts where its files
/// are not mounted.
pub(super) fn hugepages_group() -> Option<String> {
    let groups = ProcessCGroups::from_file("/proc/self/cgroup").ok()?;
    let in_version_1 =
        |group: &ProcessCGroup| group.controllers.iter().any(|name| name == "hugetlb");
    let mut groups = groups.0;
    groups.retain(|group| group.hierarchy == 0 || in_version_1(group));
    groups.sort_by_key(|group| !in_version_1(group));
    Some(groups.into_iter().next()?.pathname)
}

fn tightest_by(process: &Path, resource: Resource) -> Option<Limit> {
    let groups = ProcessCGroups::from_file(process.join("cgroup")).ok()?;
    let mounts = MountInfos::from_file(process.join("mountinfo")).ok()?;
    let (controller, v1, v2) = match resource {
        Resource::Hugepages => ("hugetlb", HUGEPAGES_V1, HUGEPAGES_V2),
        Resource::Memory => ("memory", MEMORY_V1, MEMORY_V2),
    };
    let mut limits = Vec::new();
    for group in &groups {
        let (kind, files) = if group.hierarchy == 0 {
            ("cgroup2", v2)
        } else if group.controllers.iter().any(|name| name == controller) {
            ("cgroup", v1)
        } else {
            continue;
        };
        let mount = mounts.0.iter().find(|mount| {
            mount.fs_type == kind
                && (kind == "cgroup2" || mount.super_options.contains_key(controller))
        });
        let Some(mount) = mount else { continue };
        for folder in folders(mount, group) {
            limits.extend(files.iter().filter_map(|files| read(&folder, files)));
        }
    }
    limits.into_iter().min_by_key(Limit::room_bytes)
}

/// The folder of a group and those above it, as far as they are mounted.
fn folders(mount: &MountInfo, group: &ProcessCGroup) -> Vec<PathBuf> {
    let seen = Path::new(&group.pathname).strip_prefix(&mount.root);
    // For a group outside the mount, the limits at the mount's root still apply.
    let below = seen.unwrap_or(Path::new(""));
    let own = mount
        .mount_point
        .join(below.strip_prefix("/").unwrap_or(below));
    own.ancestors()
        .take_while(|folder| folder.starts_with(&mount.mount_point))
        .map(Path::to_path_buf)
        .collect()
}

fn read(folder: &Path, files: &Files) -> Option<Limit> {
    let file = folder.join(files.limit);
    // In version 2, "max" means no limit.
    let limit_bytes = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
    // In version 1, the largest whole number of pages means no limit.
    if limit_bytes > i64::MAX as u64 / 2 {
        return None;
    }
    let used = fs::read_to_string(folder.join(files.used)).ok()?;
    let figure = match files.line {
        None => Some(used.trim()),
        Some(name) => used
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')),
    };
    Some(Limit {
        file,
        limit_bytes,
        used_bytes: figure?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups as files, with their mounts.
    fn host(
        cgroup: &str,
        mounts: &[(&str, &str, &str)],
        files: &[(&str, &str)],
    ) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let mountinfo: Vec<_> = mounts
            .iter()
            .map(|(root, point, kind)| {
                let point = at(point).display().to_string();
                let (kind, options) = kind.split_once(' ').unwrap_or((kind, ""));
                format!("30 24 0:27 {root} {point} rw - {kind} cgroup rw,{options}\n")
            })
            .collect();
        fs::write(at("mountinfo"), mountinfo.concat()).unwrap();
        fs::write(at("cgroup"), cgroup).unwrap();
        for (path, text) in files {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        }
        folder
    }

    fn tightest(host: &tempfile::TempDir, resource: Resource) -> Option<(String, u64, u64)> {
        let limit = tightest_by(host.path(), resource)?;
        let file = limit.file.strip_prefix(host.path()).unwrap();
        Some((
            file.display().to_string(),
            limit.limit_bytes,
            limit.used_bytes,
        ))
    }

    #[test]
    fn the_tightest_limit_of_a_group_and_its_ancestors_applies_in_both_versions() {
        let two = host(
            "0::/a/b\n",
            &[("/", "all", "cgroup2")],
            &[
                ("all/a/b/hugetlb.2MB.max", "max\n"),
                ("all/a/b/hugetlb.2MB.current", "0\n"),
                ("all/a/hugetlb.2MB.max", "8388608\n"),
                ("all/a/hugetlb.2MB.current", "2097152\n"),
                ("all/a/hugetlb.2MB.rsvd.max", "16777216\n"),
                ("all/a/hugetlb.2MB.rsvd.current", "0\n"),
                ("all/a/b/memory.max", "1000000\n"),
                ("all/a/b/memory.stat", "anon 4096\nfile 900000\n"),
            ],
        );
        let hugepages = ("all/a/hugetlb.2MB.max".to_owned(), 8 << 20, 2 << 20);
        assert_eq!(tightest(&two, Resource::Hugepages), Some(hugepages));
        let memory = ("all/a/b/memory.max".to_owned(), 1_000_000, 4096);
        assert_eq!(tightest(&two, Resource::Memory), Some(memory));

        // In a container, its own group is the root of the mount.
        let one = host(
            "7:hugetlb,misc:/pod/box\n4:memory:/elsewhere\n0::/\n",
            &[
                ("/pod", "huge", "cgroup hugetlb"),
                ("/pod", "mem", "cgroup memory"),
            ],
            &[
                ("huge/box/hugetlb.2MB.limit_in_bytes", "4194304\n"),
                ("huge/box/hugetlb.2MB.usage_in_bytes", "0\n"),
                ("mem/memory.limit_in_bytes", "9223372036854771712\n"),
                ("mem/memory.stat", "rss 1\ntotal_rss 5\n"),
            ],
        );
        let hugepages = ("huge/box/hugetlb.2MB.limit_in_bytes".to_owned(), 4 << 20, 0);
        assert_eq!(tightest(&one, Resource::Hugepages), Some(hugepages));
        assert_eq!(tightest(&one, Resource::Memory), None, "unlimited");
        fs::write(one.path().join("mem/memory.limit_in_bytes"), "6\n").unwrap();
        let memory = ("mem/memory.limit_in_bytes".to_owned(), 6, 5);
        assert_eq!(tightest(&one, Resource::Memory), Some(memory));
    }

    #[test]
    fn without_groups_there_is_no_limit() {
        let bare = host("", &[], &[]);
        assert_eq!(tightest(&bare, Resource::Hugepages), None);
    }
}
