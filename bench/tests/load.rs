//! What `edge-bench load` refuses before it asks anybody for anything.

use std::process::Command;

/// The exit code, and what was said.
fn load(more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-bench"));
    // Nobody listens there.
    command.args(["load", "--edge", "127.0.0.1:9"]).args(more);
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_value_that_measures_nothing_or_never_ends_is_a_wrong_command_line() {
    for (option, value) in [
        ("--seconds", "nan"),
        ("--seconds", "1e19"),
        ("--ramp-seconds", "inf"),
        ("--clients", "0"),
        ("--chunks-per-client", "0"),
        ("--chunks-per-client", "18446744073709551615"),
    ] {
        let (code, said) = load(&["--numbered", "4", option, value]);
        assert_eq!(code, Some(2), "{option} {value}: {said}");
        assert!(said.contains(option), "{said}");
    }
    let (code, said) = load(&["--tickets", "x", "--rate", "1e-300"]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = load(&["--numbered", "4", "--chunks-per-client", "3"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("raise --chunks-per-client"), "{said}");
}

#[test]
fn tickets_are_read_before_anybody_is_greeted() {
    let (code, said) = load(&["--tickets", "/nowhere/tickets"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot read /nowhere/tickets"), "{said}");
}
