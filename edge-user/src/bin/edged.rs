//! `edged`, the edge daemon: reads its configuration, starts the data plane and the admin API, and waits
//! for a signal on the main thread.

use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use edge_user::admin::{Admin, AdminError};
use edge_user::config::{self, Config, ConfigError};
use edge_user::counters::Snapshot;
use edge_user::daemon::{Broken, Edge, StartError};
use edge_user::log::{self, LIFE_TARGET};
use edge_user::terminal::one_line;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use sd_notify::NotifyState;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, info, warn};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for the admin socket and metrics.
const RUNTIME_THREAD_COUNT: usize = 2;
/// How long pending requests may take at exit.
const RUNTIME_END_MAX: Duration = Duration::from_millis(100);
/// Interval of health checks, unless the watchdog of the service manager requires a shorter one.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Serve encrypted chunks over UDP, from memory, with XDP.
#[derive(Debug, Parser)]
#[command(name = "edged", version = edge_user::VERSION)]
struct Arguments {
    /// Configuration file. Environment variables `SEALEDGE_SECTION__KEY` override it.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Check the configuration against this host, and exit.
    #[arg(long)]
    check: bool,
}

/// Why the daemon failed: one line, and an exit code for the supervisor.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the runtime does not start: {0}")]
    Runtime(#[from] io::Error),
    #[error("the log does not start: {0}")]
    Log(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => ConfigError::EXIT_CODE,
            Self::Admin(error) => error.exit_code(),
            Self::Start(error) => error.exit_code(),
            Self::Runtime(_) | Self::Log(_) | Self::Output(_) | Self::Broken(_) => 1,
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(message) => return print_clap(&message),
    };
    let config = match prepare(&arguments) {
        Ok(Some(config)) => config,
        Ok(None) => return ExitCode::SUCCESS,
        Err(failure) => return print_error(&failure),
    };
    let code = match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // May contain untrusted paths and names.
            error!(target: LIFE_TARGET, "{}", one_line(&failure.to_string()));
            ExitCode::from(failure.exit_code())
        }
    };
    log::flush();
    code
}

/// Prints help, version or a usage error.
fn print_clap(message: &clap::Error) -> ExitCode {
    match printed(message.print()) {
        Err(failure) if !message.use_stderr() => print_error(&failure),
        Ok(()) | Err(_) => {
            u8::try_from(message.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// Ignores a closed pipe.
fn printed(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints to standard error while there is no log. Errors are ignored, as the exit code suffices.
fn print_error(failure: &Failure) -> ExitCode {
    let (Ok(()) | Err(_)) = writeln!(stderr(), "edged: {failure}");
    ExitCode::from(failure.exit_code())
}

/// Reads the configuration, and starts the log unless this is a check.
fn prepare(arguments: &Arguments) -> Result<Option<Config>, Failure> {
    let config = read(arguments)?;
    if arguments.check {
        printed(writeln!(stdout(), "ok: {}", config.summary()))?;
        return Ok(None);
    }
    log::start(&config.log.filter, config.log.format).map_err(Failure::Log)?;
    Ok(Some(config))
}

fn read(arguments: &Arguments) -> Result<Config, Failure> {
    let config = Config::load(&arguments.config)?;
    config.check_environment()?;
    Ok(config)
}

fn run(config: &Config) -> Result<(), Failure> {
    // A core dump would contain client addresses.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)?;
    for variable in config.ignored_variables() {
        warn!("{variable} is ignored: the configuration has no such section");
    }
    info!("edged {} starts: {}", edge_user::VERSION, config.summary());
    let runtime = Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREAD_COUNT)
        .thread_name("tokio")
        .enable_all()
        .build()?;
    let ended = serve(config, &runtime);
    runtime.shutdown_timeout(RUNTIME_END_MAX);
    ended?;
    info!(target: LIFE_TARGET, "stopped");
    Ok(())
}

fn serve(config: &Config, runtime: &Runtime) -> Result<(), Failure> {
    let signals = Signals::listen(runtime)?;
    // First, to detect a second edged or a port in use before any change to the interface.
    let admin = Admin::open(config, runtime.handle())?;
    let mut edge = match Edge::start(config) {
        Ok(edge) => edge,
        Err(error) => {
            admin.close(runtime.handle());
            return Err(error.into());
        }
    };
    let source = edge.snapshot_source();
    let modes = describe(&source());
    admin.ready(source, edge.health());
    info!(target: LIFE_TARGET, "ready: {modes}");
    notify(NotifyState::Ready);

    let watchdog = sd_notify::watchdog_enabled();
    let health = edge.health();
    let check = || {
        edge.check_health()?;
        if watchdog.is_some() && health.is_alive() {
            notify(NotifyState::Watchdog);
        }
        Ok(())
    };
    let every = watchdog.map_or(CHECK_INTERVAL, |limit| {
        (limit / 2).clamp(CHECK_INTERVAL_MIN, CHECK_INTERVAL)
    });
    let end = runtime.block_on(signals.wait(every, check));
    match &end {
        End::Signal(name) => {
            info!(target: LIFE_TARGET, "stopping on {name}; a second signal exits at once");
        }
        End::Broken(_) => error!(target: LIFE_TARGET, "stopping: the data plane failed"),
    }
    notify(NotifyState::Stopping);
    admin.closing();
    edge.stop();
    admin.close(runtime.handle());
    match end {
        End::Signal(_) => Ok(()),
        End::Broken(broken) => Err(broken.into()),
    }
}

/// The modes in use, which may differ from the configuration (`auto`, `prefer`).
fn describe(snapshot: &Snapshot) -> String {
    let mode = &snapshot.mode;
    let interfaces = snapshot.interfaces.iter();
    let interfaces: Vec<_> = interfaces
        .map(|found| format!("{} ({} queues)", found.name, found.queues))
        .collect();
    format!(
        "{} on {}, xdp {}, bind {}, sender {}, hugepages {}",
        snapshot.listen.join(" "),
        interfaces.join(" "),
        mode.xdp,
        mode.bind,
        mode.sender,
        if mode.hugepages { "yes" } else { "no" },
    )
}

/// Notifies systemd, if it started this process.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!("cannot notify the service manager: {error}");
    }
}

/// SIGTERM and SIGINT, handled before anything starts, so that the start is never cut short.
struct Signals {
    first: oneshot::Receiver<&'static str>,
}

impl Signals {
    fn listen(runtime: &Runtime) -> io::Result<Self> {
        let _inside = runtime.enter();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        runtime.spawn(async move {
            // Unhandled, it would end the process with the program still attached.
            while hangup.recv().await.is_some() {
                warn!(
                    target: LIFE_TARGET,
                    "SIGHUP: reloading is not supported; restart edged instead"
                );
            }
        });
        let (tell, first) = oneshot::channel();
        runtime.spawn(async move {
            let name = either(&mut terminate, &mut interrupt).await;
            if tell.send(name).is_ok() {
                let name = either(&mut terminate, &mut interrupt).await;
                warn!(target: LIFE_TARGET, "second signal ({name}): exiting at once");
            }
            end_now();
        });
        Ok(Self { first })
    }

    /// Waits for a signal, or for an error from `check`.
    async fn wait(mut self, every: Duration, mut check: impl FnMut() -> Result<(), Broken>) -> End {
        loop {
            if let Ok(name) = timeout(every, &mut self.first).await {
                return End::Signal(name.unwrap_or("the end of the signal handler"));
            }
            if let Err(broken) = check() {
                return End::Broken(broken);
            }
        }
    }
}

/// Why the daemon stops.
#[derive(Debug)]
enum End {
    Signal(&'static str),
    Broken(Broken),
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[expect(
    clippy::exit,
    reason = "the second signal; the kernel releases all resources"
)]
fn end_now() -> ! {
    log::flush();
    std::process::exit(1)
}
