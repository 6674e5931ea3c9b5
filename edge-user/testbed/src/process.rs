//! Child processes: printed before they run, quoted when they fail, ended by handle.
//!
//! Each child leads its own process group, so that Ctrl-C reaches this program only, which then
//! ends its children in the right order; a build ends with all its own children.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::clock;
use crate::stop::{self, Stop};

/// Time from SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// The command as a person would type it, with its variables.
pub fn line(command: &Command) -> String {
    let mut line = String::new();
    if let Some(folder) = command.get_current_dir() {
        write!(line, "(in {}) ", folder.display()).expect("a String grows");
    }
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            write!(line, "{}={} ", name.display(), quote(value)).expect("a String grows");
        }
    }
    line.push_str(&quote(command.get_program()));
    for word in command.get_args() {
        line.push(' ');
        line.push_str(&quote(word));
    }
    line
}

fn quote(word: &OsStr) -> String {
    // The unit separator of CARGO_ENCODED_RUSTFLAGS would be invisible.
    let word = word.to_string_lossy().replace('\u{1f}', " ");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=+,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Starts a child and returns it; for concurrent ones.
pub fn spawn(command: &mut Command) -> Result<Child> {
    eprintln!("+ {}", line(command));
    command
        .process_group(0)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start: {}", line(command)))
}

/// Runs to the end; a failure is an error. The child's standard output goes to our standard error:
/// standard output is for results.
pub fn run(command: &mut Command) -> Result<()> {
    command.stdout(std::io::stderr());
    let mut child = spawn(command)?;
    let status = wait(&mut child)?;
    succeeded(command, status, "")
}

/// Like `run`, but not interrupted by signals: for undoing changes.
pub fn run_to_the_end(command: &mut Command) -> Result<()> {
    command.stdout(std::io::stderr());
    let mut child = spawn(command)?;
    let status = child
        .wait()
        .with_context(|| format!("lost sight of: {}", line(command)))?;
    succeeded(command, status, "")
}

/// Runs to the end and returns the child's standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(&mut child)?;
    let stderr = stderr.join().unwrap_or_default();
    succeeded(command, status, stderr.trim_end())?;
    Ok(stdout.join().unwrap_or_default())
}

/// The end of a child that may fail.
pub struct Ended {
    pub code: Option<i32>,
    /// Its standard error.
    pub stderr: String,
}

/// Waits for the end of a child, whatever it is; none if it was ended because `enough`. Its
/// standard error is a pipe.
pub fn watch(mut child: Child, enough: impl FnMut() -> bool) -> Result<Option<Ended>> {
    let stderr = collect(child.stderr.take());
    let status = wait_unless(&mut child, enough)?;
    Ok(status.map(|status| Ended {
        code: status.code(),
        stderr: stderr.join().unwrap_or_default().trim_end().to_owned(),
    }))
}

/// Runs to the end and passes each line of output, including errors, to `each`.
pub fn all_lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = spawn(command)?;
    // The command also holds the pipe's other end, and would keep it open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let lines = line_by_line(Some(reader));
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => each(&line),
            // Orphans of the child may still hold the other end of the pipe.
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    return Ok(status);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return wait(&mut child),
        }
        if stop::came() {
            end(&mut child);
            return Err(Stop::interrupted());
        }
    }
}

/// Whether the program could be started and succeeded; to check that it exists.
pub fn says_yes(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    spawn(command)
        .and_then(|mut child| wait(&mut child))
        .is_ok_and(|status| status.success())
}

/// Sends a child's output line by line; the channel closes with the child's end of the pipe.
pub fn line_by_line(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let Some(stream) = stream else { return };
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while reader
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|count| count > 0)
        {
            let line = String::from_utf8_lossy(&bytes)
                .trim_end_matches(['\n', '\r'])
                .to_owned();
            if sender.send(line).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    receiver
}

/// Ends a child and its descendants, by SIGTERM, later by SIGKILL.
pub fn end(child: &mut Child) {
    signal_group(child, Signal::TERM);
    let ended = clock::poll(GRACE, || match child.try_wait() {
        Ok(None) => None,
        Ok(Some(_)) | Err(_) => Some(()),
    });
    if ended.is_none() {
        eprintln!("process {} does not end on SIGTERM: killing it", child.id());
        signal_group(child, Signal::KILL);
        if let Err(error) = child.wait() {
            eprintln!("process {} cannot be waited for: {error}", child.id());
        }
    }
}

/// Finds a program as a shell would.
pub fn find(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .map(|folder| folder.join(name))
        .find(|candidate: &std::path::PathBuf| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Waits for the end of a child; on interruption the child is ended.
pub fn wait(child: &mut Child) -> Result<ExitStatus> {
    wait_unless(child, || false)?.ok_or_else(Stop::interrupted)
}

fn wait_unless(child: &mut Child, mut enough: impl FnMut() -> bool) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("lost sight of a child process")? {
            return Ok(Some(status));
        }
        if enough() || stop::came() {
            end(child);
            return Ok(None);
        }
        clock::pause();
    }
}

/// For children that are to end in another way.
pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.context("a child has a number")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {}", child.id()))
}

fn signal_group(child: &Child, signal: Signal) {
    // Not yet waited for, so the id still belongs to this child.
    let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return;
    };
    if let Err(error) = kill_process_group(group, signal) {
        eprintln!("cannot signal process group {}: {error}", child.id());
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream
            && let Err(error) = stream.read_to_end(&mut bytes)
        {
            eprintln!("cannot read from a child: {error}");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn succeeded(command: &Command, status: ExitStatus, stderr: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let stderr = if stderr.is_empty() {
        String::new()
    } else {
        format!("\nstderr: {stderr}")
    };
    bail!("failed ({status}): {}{stderr}", line(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_whole_command_line() {
        let error = run(Command::new("false").arg("two words").env("A", "b")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed (exit status: 1): A=b false 'two words'"
        );
    }

    #[test]
    fn output_is_what_the_child_wrote() {
        assert_eq!(output(Command::new("echo").arg("a b")).unwrap(), "a b\n");
    }

    #[test]
    fn lines_come_one_by_one() {
        let mut seen = Vec::new();
        let status = all_lines(
            Command::new("sh").args(["-c", "echo a; echo b >&2"]),
            |line| {
                seen.push(line.to_owned());
            },
        );
        assert!(status.unwrap().success());
        assert_eq!(seen, ["a", "b"]);
    }
}
