//! Errors of `edge-bench seed`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn seed(origin: &Path, bytes: &str, tickets: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-bench"));
    command.args(["seed", "--object-bytes", "1000", "--bytes", bytes]);
    command.arg("--origin").arg(origin);
    command.arg("--tickets").arg(tickets);
    command.output().expect("it runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_object_has_its_ticket_and_the_last_one_has_the_rest() {
    let origin = TempDir::new().expect("a folder");
    let tickets = origin.path().join("tickets");
    let output = seed(origin.path(), "2001", &tickets);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let tickets = fs::read_to_string(tickets).expect("the tickets");
    assert_eq!(tickets.lines().count(), 3, "{tickets}");
}

#[test]
fn nothing_is_sealed_whose_ticket_cannot_be_kept() {
    let origin = TempDir::new().expect("a folder");
    let output = seed(origin.path(), "2001", Path::new("/nowhere/tickets"));
    assert_eq!(output.status.code(), Some(1));
    let message = errors(&output);
    assert!(
        message.contains("cannot write /nowhere/tickets"),
        "{message}"
    );
    assert!(!origin.path().join("chunks").exists());
}

#[test]
fn no_bytes_at_all_are_a_wrong_command_line() {
    let origin = TempDir::new().expect("a folder");
    let output = seed(origin.path(), "0", &origin.path().join("tickets"));
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("--bytes"), "{}", errors(&output));
}
