//! Memory that is promised and not there.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::daemon::{Edged, Settings, command, command_beside, settings};
use crate::objects::Object;
use crate::testbed::{Testbed, tell_skip};
use crate::wait::{ANSWER_TIME_MAX, assert_refused, ended};

/// What a group can limit, with the files of both versions.
struct Controller {
    name: &'static str,
    version_2: &'static str,
    version_1: &'static str,
}

const HUGEPAGES: Controller = Controller {
    name: "hugetlb",
    version_2: "hugetlb.2MB.max",
    version_1: "hugetlb.2MB.limit_in_bytes",
};
const MEMORY: Controller = Controller {
    name: "memory",
    version_2: "memory.max",
    version_1: "memory.limit_in_bytes",
};

/// A control group with a limit, for programs that are started in it.
struct Group {
    folder: PathBuf,
    limit: PathBuf,
    /// The file and the word that undo what was switched on for it.
    enabled: Option<(PathBuf, String)>,
}

impl Group {
    /// Nothing where no group can be made, with the reason told.
    fn with(controller: &Controller) -> Option<Self> {
        let name = format!("sealedge-{}-{}", std::process::id(), controller.name);
        let made =
            Self::in_version_2(controller, &name).or_else(|| Self::in_version_1(controller, &name));
        if made.is_none() {
            tell_skip(&format!(
                "no {} control group can be made here",
                controller.name
            ));
        }
        made
    }

    fn in_version_2(controller: &Controller, name: &str) -> Option<Self> {
        let parent = mounted("cgroup2", None)?;
        let has = |file: &str| {
            let text = fs::read_to_string(parent.join(file)).unwrap_or_default();
            text.split_whitespace().any(|word| word == controller.name)
        };
        if !has("cgroup.controllers") {
            return None;
        }
        let control = parent.join("cgroup.subtree_control");
        let was_on = has("cgroup.subtree_control");
        fs::write(&control, format!("+{}", controller.name)).ok()?;
        let enabled = (!was_on).then(|| (control, format!("-{}", controller.name)));
        Self::new(parent.join(name), controller.version_2, enabled)
    }

    fn in_version_1(controller: &Controller, name: &str) -> Option<Self> {
        let parent = mounted("cgroup", Some(controller.name))?;
        Self::new(parent.join(name), controller.version_1, None)
    }

    fn new(folder: PathBuf, limit: &str, enabled: Option<(PathBuf, String)>) -> Option<Self> {
        fs::create_dir(&folder).ok()?;
        let limit = folder.join(limit);
        Some(Self {
            folder,
            limit,
            enabled,
        })
    }

    fn allow(&self, bytes: u64) {
        fs::write(&self.limit, bytes.to_string()).unwrap();
    }

    /// The same command, in this group.
    fn inside(&self, command: Command) -> Command {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", r#"echo $$ > "$0" && exec "$@""#])
            .arg(self.folder.join("cgroup.procs"))
            .arg(command.get_program())
            .args(command.get_args())
            .env_remove("NOTIFY_SOCKET");
        shell
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who was in it may take a moment to leave.
        let gone = crate::wait::until(ANSWER_TIME_MAX, || fs::remove_dir(&self.folder).ok());
        assert!(
            gone.is_some() || std::thread::panicking(),
            "the group stays"
        );
        if let Some((control, word)) = &self.enabled {
            // Another test's group may need it still.
            drop(fs::write(control, word));
        }
    }
}

/// Where groups of this kind are, with an option of version 1.
fn mounted(kind: &str, option: Option<&str>) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().find_map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let mut options = words[3].split(',');
        let fits = option.is_none_or(|option| options.any(|word| word == option));
        (words[2] == kind && fits).then(|| PathBuf::from(words[1]))
    })
}

#[test]
fn hugepages_that_a_control_group_forbids_are_found_out_at_the_start() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "squeezed", 300_000);
    let Some(group) = Group::with(&HUGEPAGES) else {
        return;
    };
    let setup = |xdp: &str, hugepages| Settings {
        xdp: xdp.to_owned(),
        hugepages,
        ..settings(&testbed, "gso")
    };
    let file = group.limit.display().to_string();
    // `ip netns exec` would hide the groups' files, see below.
    let start = |setup: &Settings| group.inside(command_beside(&testbed, setup));

    group.allow(32 << 20);
    let words = ["the arena", "allows 32 MiB", &file, "store.hugepages"];
    for xdp in ["off", "native"] {
        let output = ended(start(&setup(xdp, "require")), ANSWER_TIME_MAX);
        assert_refused(&output, 78, &words);
    }
    let hidden = group.inside(command(&testbed, &setup("off", "require")));
    let withheld = ["withholds them", "hugetlb limit", "/sealedge-"];
    assert_refused(&ended(hidden, ANSWER_TIME_MAX), 78, &withheld);
    // Enough for the arena, not for a umem.
    group.allow(64 << 20);
    let output = ended(start(&setup("native", "require")), ANSWER_TIME_MAX);
    let words = ["the umem of queue 0", "of which 64 MiB are in use", &file];
    assert_refused(&output, 75, &words);

    group.allow(32 << 20);
    for xdp in ["off", "native"] {
        let setup = setup(xdp, "prefer");
        let edged = Edged::start_command(&setup, start(&setup));
        object.fetch(&testbed, testbed.service_v4());
        assert!(!edged.stat().mode.hugepages);
        let log = edged.log();
        let told = "the arena is in normal pages, not in hugepages: 64 MiB are needed";
        assert!(log.contains(told) && log.contains(&file), "{log}");
        edged.stop();
    }
    assert!(!testbed.has_program());
}

#[test]
fn memory_that_a_control_group_forbids_is_an_error_and_not_the_end_of_the_process() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let Some(group) = Group::with(&MEMORY) else {
        return;
    };
    group.allow(48 << 20);
    let file = group.limit.display().to_string();
    for (hugepages, xdp) in [("off", "off"), ("off", "native")] {
        let setup = Settings {
            xdp: xdp.to_owned(),
            hugepages,
            ..settings(&testbed, "gso")
        };
        let command = group.inside(command_beside(&testbed, &setup));
        let words = ["no memory for the arena", "allows 48 MiB", &file];
        assert_refused(&ended(command, ANSWER_TIME_MAX), 78, &words);
    }
}
