//! Every reason that a packet can end with is produced by code and occurs in a test.

use super::Fault;
use super::files::File;
use super::rust;

const LIST: &str = "edge-ebpf/src/reason.rs";
const GOLDEN: &str = "edge-ebpf/src/golden/rows.rs";
/// Reasons that no test can provoke on the supported kernels and devices, and why.
const UNPROVOKED: &[(&str, &str)] = &[
    (
        "ResizeFailed",
        "the kernel refuses to shorten a packet only below its Ethernet header",
    ),
    (
        "SendQueueFull",
        "sends do not wait, so they stay under way only while the kernel has no memory",
    ),
];
/// Names every reason, and ends no packet.
const RESULTS: &str = "edge-user/src/admin/results.rs";
/// Where packets end.
const CODE: &[&str] = &["edge-ebpf/src", "edge-user/src"];

pub(super) fn check(files: &[File]) -> Vec<Fault> {
    let Some(list) = files.iter().find(|file| file.path == LIST) else {
        return vec![Fault::new(LIST, "is missing: it lists the reasons")];
    };
    let mut produced = String::new();
    let mut tested = String::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        if file.path == GOLDEN || file.is_test() {
            tested.push_str(&file.text);
        } else if ![LIST, RESULTS].contains(&file.path.as_str())
            && CODE.iter().any(|place| file.within(place))
        {
            let (always, tests) = rust::split_tests(&file.text);
            produced.push_str(&rust::code(&always));
            tested.push_str(&tests);
        }
    }
    let mut faults = Vec::new();
    for (name, label) in reasons(&list.text) {
        let path = format!("Reason::{name}");
        if rust::words(&produced, &path).next().is_none() {
            let advice = format!("nothing ends a packet with {path}: count it, or remove it");
            faults.push(Fault::new(LIST, advice));
        }
        if UNPROVOKED.iter().any(|(unprovoked, _)| *unprovoked == name) {
            continue;
        }
        // Tests of a running daemon use labels.
        let seen = rust::words(&tested, &path).next().is_some()
            || tested.contains(&format!("\"{label}\""));
        if !seen {
            let advice = format!("no test has {path}: add a golden packet or a test with it");
            faults.push(Fault::new(LIST, advice));
        }
    }
    faults
}

/// Lines `Name = "label",` of the list.
fn reasons(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let (name, label) = line.trim().split_once(" = \"")?;
            let label = label.strip_suffix("\",")?;
            let good =
                name.starts_with(char::is_uppercase) && name.chars().all(char::is_alphanumeric);
            good.then(|| (name.to_owned(), label.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_produced_and_tested() {
        let file = |path: &str, text: &str| File {
            path: path.into(),
            text: text.into(),
        };
        let list = "    /// Not UDP.\n    NotUdp = \"not_udp\",\n    Miss = \"miss\",\n";
        let files = [
            file(LIST, list),
            file(
                "edge-ebpf/src/steer.rs",
                "fn f() -> R { Reason::NotUdp } // Reason::Miss",
            ),
            file(RESULTS, "fn g() { Reason::Miss => None }"),
            file(GOLDEN, "Pass(Reason::Miss)"),
            file("edge-user/tests/net.rs", "stat[\"not_udp\"]"),
        ];
        let faults = check(&files);
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0]
                .advice
                .contains("nothing ends a packet with Reason::Miss")
        );
    }
}
