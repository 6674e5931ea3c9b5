//! The daemon's log, which never blocks or ends the daemon: lines go into a bounded queue, and a
//! separate thread writes them to standard error. Lines that do not fit or cannot be written are
//! dropped and counted.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write, stderr};
use std::panic;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing_subscriber::EnvFilter;

use crate::clock;
use crate::config::LogFormat;
use crate::limits::{LOG_LINES, LOG_LINES_PER_WINDOW, LOG_WINDOW};

/// The target of lines that supervisors wait for, which pass any filter.
pub const LIFE_TARGET: &str = "edged::life";

/// Dropped lines of the process's log.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How long the process waits for queued lines before it exits.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Lines dropped since startup.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

fn drop_line() {
    DROPPED.fetch_add(1, Ordering::Relaxed);
}

enum Message {
    Line(Vec<u8>),
    /// Answered when all lines before it have been written or dropped.
    Flush(Sender<()>),
}

/// The process's log.
static LOG: OnceLock<Log> = OnceLock::new();

/// Starts logging to standard error, including panics.
pub fn start(filter: &str, format: LogFormat) -> io::Result<()> {
    let log = Log::writing_to(LOG_LINES, write_stderr)?;
    let log = LOG.get_or_init(|| log);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("{filter},{LIFE_TARGET}=info")))
        .with_ansi(stderr().is_terminal())
        // The subscriber would print these to standard error, and panic if that fails.
        .log_internal_errors(false)
        .with_writer(|| log.clone());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    panic::set_hook(Box::new(|panicked| {
        let backtrace = Backtrace::capture();
        tracing::error!(target: LIFE_TARGET, "this is a bug: {panicked}");
        if backtrace.status() == BacktraceStatus::Captured {
            tracing::error!(target: LIFE_TARGET, "{backtrace}");
        }
        flush();
    }));
    Ok(())
}

/// Waits, for a bounded time, until all lines so far are written. To be called last.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush();
    }
}

/// The sending end of the queue.
#[derive(Clone)]
struct Log(Sender<Message>);

impl Log {
    fn writing_to(
        lines: usize,
        mut write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = bounded(lines);
        let run = move || {
            for message in receiver {
                match message {
                    Message::Line(line) if write(&line).is_err() => drop_line(),
                    Message::Line(_) => {}
                    // The caller of `flush` may have stopped waiting.
                    Message::Flush(done) => drop(done.try_send(())),
                }
            }
        };
        thread::Builder::new().name("log".to_owned()).spawn(run)?;
        Ok(Self(sender))
    }

    fn flush(&self) {
        let deadline = clock::now() + FLUSH_MAX;
        let (done, wait) = bounded(1);
        if self.0.send_deadline(Message::Flush(done), deadline).is_ok() {
            // A timeout is not an error: an unread log must not keep the process from exiting.
            let (Ok(()) | Err(_)) = wait.recv_deadline(deadline);
        }
    }
}

impl Write for Log {
    /// Never fails: the subscriber would print the error, which can fail too.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::Line(line.to_vec())).is_err() {
            drop_line();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the whole line, without holding the standard library's lock, which could block other
/// threads.
fn write_stderr(mut line: &[u8]) -> io::Result<()> {
    let stderr = stderr();
    while !line.is_empty() {
        match rustix::io::write(&stderr, line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(Errno::INTR) => {}
            // Another process that shares the pipe may have made it non-blocking.
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
                let (Ok(_) | Err(_)) = poll(&mut fds, None);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Rate limit of log lines that clients can cause.
#[derive(Debug, Default)]
pub struct LogLimiter {
    window_ends: Option<Instant>,
    count: u64,
}

impl LogLimiter {
    /// If a line may be written now, how many were suppressed before it.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        let mut suppressed = 0;
        if self.window_ends.is_none_or(|ends| ends <= now) {
            suppressed = self.count.saturating_sub(LOG_LINES_PER_WINDOW);
            self.window_ends = Some(now + LOG_WINDOW);
            self.count = 0;
        }
        self.count += 1;
        (self.count <= LOG_LINES_PER_WINDOW).then_some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Serialises tests, because the count is shared by the process.
    static COUNT: Mutex<()> = Mutex::new(());

    fn lines_dropped_by(log: impl FnOnce()) -> u64 {
        let before = dropped_lines();
        log();
        dropped_lines() - before
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_not_an_error() {
        let _alone = COUNT.lock().unwrap();
        let dropped = lines_dropped_by(|| {
            let fails = |_: &[u8]| Err(io::ErrorKind::StorageFull.into());
            let mut log = Log::writing_to(4, fails).unwrap();
            log.write_all(b"one\n").unwrap();
            log.write_all(b"two\n").unwrap();
            Log::flush(&log);
        });
        assert_eq!(dropped, 2);
    }

    #[test]
    fn an_unread_log_does_not_block() {
        let _alone = COUNT.lock().unwrap();
        let (release, held) = bounded::<()>(0);
        let (begun, has_begun) = bounded(1);
        let started = clock::now();
        let dropped = lines_dropped_by(|| {
            let blocks = move |_: &[u8]| {
                let (Ok(()) | Err(_)) = begun.try_send(());
                let (Ok(()) | Err(_)) = held.recv();
                Ok(())
            };
            let mut log = Log::writing_to(2, blocks).unwrap();
            log.write_all(b"this one is being written\n").unwrap();
            has_begun.recv().unwrap();
            for _ in 0..10 {
                log.write_all(b"two of these wait\n").unwrap();
            }
            Log::flush(&log);
        });
        assert_eq!(dropped, 8);
        assert!(clock::now() - started < 3 * FLUSH_MAX);
        drop(release);
    }

    #[test]
    fn the_number_of_lines_is_limited_and_suppressed_ones_are_counted() {
        // I9
        let mut log_limiter = LogLimiter::default();
        let now = clock::now();
        let admitted = (0..1000).filter_map(|_| log_limiter.admit(now)).count() as u64;
        assert_eq!(admitted, LOG_LINES_PER_WINDOW);
        let later = now + LOG_WINDOW;
        assert_eq!(log_limiter.admit(later), Some(1000 - LOG_LINES_PER_WINDOW));
        assert_eq!(log_limiter.admit(later), Some(0));
    }
}
