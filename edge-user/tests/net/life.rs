//! Start, idle, end.

use std::fs;
use std::time::Duration;

use edge_user::clock;
use rustix::process::Signal;

use crate::daemon::{Edged, Setup};
use crate::ground::{Ground, ip};
use crate::objects::Object;
use crate::wait::{self, ANSWER_TIME_MAX, pause};

with_each_sender!(
    an_idle_edged_uses_less_than_a_hundredth_of_a_core,
    a_stopped_edged_leaves_nothing_on_the_interface_and_a_killed_one_no_program,
    an_edged_that_is_told_to_stop_while_it_serves_stops,
    an_interface_that_changes_is_told_and_one_that_is_removed_ends_edged
);

fn an_idle_edged_uses_less_than_a_hundredth_of_a_core(sender: &'static str) {
    let Some(ground) = Ground::new() else { return };
    let object = Object::seal(&ground, "once", 3_000_000);
    let edged = Edged::start(&ground, &Setup::of(&ground, sender));
    object.fetch(&ground, ground.service_v4());
    edged.settled();
    pause(Duration::from_secs(1));
    let before = cpu_ticks(edged.pid());
    pause(Duration::from_secs(5));
    let ticks = cpu_ticks(edged.pid()) - before;
    assert!(ticks < 5, "{ticks} hundredths of a second in 5 seconds");
    edged.stop();
}

/// Time in user and in kernel mode, of all threads; 100 ticks are a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    [fields[11], fields[12]]
        .iter()
        .map(|field| field.parse::<u64>().unwrap())
        .sum()
}

fn a_stopped_edged_leaves_nothing_on_the_interface_and_a_killed_one_no_program(
    sender: &'static str,
) {
    let Some(ground) = Ground::new() else { return };
    let object = Object::seal(&ground, "again", 2_000_000);
    let setup = Setup::of(&ground, sender);
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let mut edged = Edged::start(&ground, &setup);
        assert!(ground.has_program());
        assert!(setup.socket.exists());
        object.fetch(&ground, ground.service_v4());
        edged.settled();
        edged.signal(signal);
        let status = edged.end(Duration::from_secs(2));
        if signal == Signal::KILL {
            assert_eq!(status.code(), None);
            // The kernel takes the program down when the last handle is gone, a moment later.
            let gone = wait::until(Duration::from_secs(2), || {
                (!ground.has_program()).then_some(())
            });
            assert!(gone.is_some());
        } else {
            assert_eq!(status.code(), Some(0), "{}", edged.log());
            assert!(!ground.has_program());
            assert!(!setup.socket.exists());
        }
    }
    let edged = Edged::start(&ground, &setup);
    // There is nothing to reload yet, and a terminal that closes is no reason to end.
    edged.signal(Signal::HUP);
    object.fetch(&ground, ground.service_v6());
    edged.stop();
}

fn an_edged_that_is_told_to_stop_while_it_serves_stops(sender: &'static str) {
    let Some(ground) = Ground::new() else { return };
    let object = Object::seal(&ground, "cut-short", 200_000_000);
    let mut edged = Edged::start(
        &ground,
        &Setup {
            size: "16MiB",
            ..Setup::of(&ground, sender)
        },
    );
    let mut get = object.get(&ground, ground.service_v4(), 0);
    let mut get = get
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let busy = wait::until(Duration::from_secs(5), || {
        (edged.stat().store.evicted_total > 100).then_some(())
    });
    let told = clock::now();
    edged.signal(Signal::TERM);
    let status = edged.end(Duration::from_secs(2));
    let took = told.elapsed();
    get.kill().unwrap();
    get.wait().unwrap();
    assert!(busy.is_some(), "the load never came");
    assert_eq!(status.code(), Some(0), "after {took:?}: {}", edged.log());
    assert!(!ground.has_program());
}

fn an_interface_that_changes_is_told_and_one_that_is_removed_ends_edged(sender: &'static str) {
    let Some(ground) = Ground::new() else { return };
    let object = Object::seal(&ground, "moved", 300_000);
    let mut edged = Edged::start(&ground, &Setup::of(&ground, sender));
    let link = |words: &[&str]| ip(&[&["-n", &ground.edge.namespace, "link"], words].concat());
    let told = |edged: &Edged, words: &str| {
        let told = wait::until(ANSWER_TIME_MAX, || {
            edged.log().contains(words).then_some(())
        });
        assert!(told.is_some(), "no {words:?} in:\n{}", edged.log());
    };
    link(&["set", "dev", "edge0", "name", "other0"]);
    told(&edged, "edge0 is now called other0");
    object.fetch(&ground, ground.service_v4());
    assert!(edged.settled().interface_up);

    link(&["set", "dev", "other0", "down"]);
    told(&edged, "other0 is down");
    assert!(!edged.stat().interface_up);
    link(&["set", "dev", "other0", "up"]);
    told(&edged, "other0 is up again");
    object.fetch(&ground, ground.service_v4());
    edged.settled();

    link(&["delete", "other0"]);
    let status = edged.end(ANSWER_TIME_MAX);
    assert_eq!(status.code(), Some(1), "{}", edged.log());
    told(&edged, "edge0 was removed while it was served");
}
