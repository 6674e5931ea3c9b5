//! `edged`, the edge daemon: reads its configuration, starts the data plane and the operator's
//! door, says `ready`, and waits for a signal. It stands on the main thread and serves nothing.

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

/// Threads for what is not the data plane: origin, admin socket, metrics.
const RUNTIME_THREAD_COUNT: usize = 2;
/// What is still under way there at the end gets this long: nobody waits for it any more.
const RUNTIME_END_MAX: Duration = Duration::from_millis(100);
/// How often the data plane is looked after; more often where the service manager's watchdog
/// wants to hear of it sooner.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(50);

/// Serves sealed chunks by UDP, from memory and past the kernel.
#[derive(Debug, Parser)]
#[command(name = "edged", version = edge_user::VERSION)]
struct Arguments {
    /// The configuration file; a variable `SEALEDGE_SECTION__KEY` goes before it
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Check the configuration and this machine against it, say what is wrong, and end
    #[arg(long)]
    check: bool,
}

/// Why there is no daemon. One line, and an exit code a supervisor can act upon.
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
        Err(answer) => return answer_command_line(&answer),
    };
    let config = match prepare(&arguments) {
        Ok(Some(config)) => config,
        Ok(None) => return ExitCode::SUCCESS,
        Err(failure) => return complain(&failure),
    };
    let code = match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Paths and names in it are an operator's, or a file's.
            error!(target: LIFE_TARGET, "{}", one_line(&failure.to_string()));
            ExitCode::from(failure.exit_code())
        }
    };
    log::flush();
    code
}

/// Help, version, or what is wrong with the command line.
fn answer_command_line(answer: &clap::Error) -> ExitCode {
    match printed(answer.print()) {
        Err(failure) if !answer.use_stderr() => complain(&failure),
        Ok(()) | Err(_) => {
            u8::try_from(answer.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// A pipe that was closed at the other end has been read enough, which is no failure.
fn printed(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// One line on standard error, where there is no log yet. That it cannot be written changes
/// nothing: the exit code says it too.
fn complain(failure: &Failure) -> ExitCode {
    let (Ok(()) | Err(_)) = writeln!(stderr(), "edged: {failure}");
    ExitCode::from(failure.exit_code())
}

/// Reads the configuration and starts the log, unless only a check was asked for.
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
    // A core dump would name clients, and nobody but root may look in.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)?;
    for variable in config.ignored_variables() {
        warn!("{variable} names no section of the configuration and is ignored");
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

/// From the first listener to the last: everything that needs the runtime.
fn serve(config: &Config, runtime: &Runtime) -> Result<(), Failure> {
    let signals = Signals::listen(runtime)?;
    // The door first: a second edged, or a taken port, is found out before the interface is touched.
    let front = Admin::open(config, runtime.handle())?;
    let mut edge = match Edge::start(config) {
        Ok(edge) => edge,
        Err(error) => {
            front.close(runtime.handle());
            return Err(error.into());
        }
    };
    let source = edge.snapshot_source();
    let modes = describe(&source());
    front.ready(source, edge.health());
    info!(target: LIFE_TARGET, "ready: {modes}");
    notify(NotifyState::Ready);

    let watchdog = sd_notify::watchdog_enabled();
    let health = edge.health();
    let look = || {
        edge.check_health()?;
        if watchdog.is_some() && health.is_alive() {
            notify(NotifyState::Watchdog);
        }
        Ok(())
    };
    let every = watchdog.map_or(LOOK_EVERY, |limit| {
        (limit / 2).clamp(LOOK_AGAIN_MIN, LOOK_EVERY)
    });
    let end = runtime.block_on(signals.wait(every, look));
    match &end {
        End::Signal(name) => {
            info!(target: LIFE_TARGET, "stopping: {name} came; a second one ends me at once");
        }
        End::Broken(_) => error!(target: LIFE_TARGET, "stopping: the data plane failed"),
    }
    notify(NotifyState::Stopping);
    front.closing();
    edge.stop();
    front.close(runtime.handle());
    match end {
        End::Signal(_) => Ok(()),
        End::Broken(broken) => Err(broken.into()),
    }
}

/// What runs, which need not be word for word what was asked (`auto`, `prefer`).
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

/// Tells systemd. Without one there is nobody to tell, and that is no error.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!("the service manager was not told: {error}");
    }
}

/// SIGTERM and SIGINT, listened to before anything starts, so that none takes us down half-way.
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
            // Without a listener it would end us, and take no program off the interface first.
            while hangup.recv().await.is_some() {
                warn!(
                    target: LIFE_TARGET,
                    "SIGHUP came: reloading is not built yet, nothing changed; restart edged instead"
                );
            }
        });
        let (tell, first) = oneshot::channel();
        runtime.spawn(async move {
            let name = either(&mut terminate, &mut interrupt).await;
            if tell.send(name).is_ok() {
                let name = either(&mut terminate, &mut interrupt).await;
                warn!(target: LIFE_TARGET, "a second signal, {name}: ending at once");
            }
            end_now();
        });
        Ok(Self { first })
    }

    /// Until a signal comes, or `look` finds that there is nothing left to wait for.
    async fn wait(mut self, every: Duration, mut look: impl FnMut() -> Result<(), Broken>) -> End {
        loop {
            if let Ok(name) = timeout(every, &mut self.first).await {
                return End::Signal(name.unwrap_or("the end of the listener"));
            }
            if let Err(broken) = look() {
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
    reason = "asked for twice; the kernel takes down what we hold"
)]
fn end_now() -> ! {
    log::flush();
    std::process::exit(1)
}
