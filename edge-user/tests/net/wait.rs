//! Waits, with an end.

use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

pub(crate) use edge_testbed::clock::poll as until;

/// The promise: whatever is wrong is said within this time.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

#[expect(
    clippy::disallowed_methods,
    reason = "what is waited for is in another process"
)]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// Runs a program that is to end by itself within this time. What it says must fit a pipe.
pub(crate) fn ended(mut command: Command, limit: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let over = until(limit, || child.try_wait().unwrap()).is_none();
    if over {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(
        !over,
        "{command:?} does not end within {limit:?}: {}",
        said(&output)
    );
    output
}

/// Everything a program wrote.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// One line of error, with these words, and this exit code. Lines about the start may precede.
pub(crate) fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = said(output);
    let errors: Vec<_> = said
        .lines()
        .filter(|line| !line.contains(" INFO "))
        .collect();
    assert_eq!(errors.len(), 1, "not one line of error:\n{said}");
    for word in words {
        assert!(errors[0].contains(word), "no {word:?} in: {said}");
    }
    assert_eq!(output.status.code(), Some(code), "{said}");
}
