//! Errors that `edge-bench load` reports before it sends anything.

use std::process::Command;

/// Returns exit code and standard error.
fn load(more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-bench"));
    // Nobody listens there.
    command.args(["load", "--edge", "127.0.0.1:9"]).args(more);
    let output = command.output().expect("it runs");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), message)
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
        let (code, message) = load(&["--numbered", "4", option, value]);
        assert_eq!(code, Some(2), "{option} {value}: {message}");
        assert!(message.contains(option), "{message}");
    }
    let (code, message) = load(&["--tickets", "x", "--rate", "1e-300"]);
    assert_eq!(code, Some(2), "{message}");
    let (code, message) = load(&["--numbered", "4", "--chunks-per-client", "3"]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("raise --chunks-per-client"), "{message}");
}

#[test]
fn tickets_are_read_before_a_hello_is_sent() {
    let (code, message) = load(&["--tickets", "/nowhere/tickets"]);
    assert_eq!(code, Some(1));
    assert!(
        message.contains("cannot read /nowhere/tickets"),
        "{message}"
    );
}
