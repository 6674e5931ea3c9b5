//! The operator's door: who comes in here is an operator or a monitoring system, never a client.
//!
//! It runs on the tokio runtime beside the data plane and only ever reads counters. It is opened
//! before the data plane starts, so that a taken port or a second `edged` is found out before the
//! interface is touched, and says "not ready" until then.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::middleware;
use axum::response::Response;
use axum::serve::Listener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::admin::health::Health;
use crate::clock;
use crate::config::Config;
use crate::counters::Snapshot;

/// What keeps a running edge from serving as it should.
pub mod health;
/// The unix socket: who may use it, and whose it is.
mod socket;
/// As many connections at once as we can spare, each for a short time.
mod bounded;
/// What the unix socket answers: `edge stat`.
mod api;
/// What the TCP port answers: metrics and health.
mod metrics;
/// A snapshot in Prometheus' words.
mod exposition;
/// What a request came to.
mod results;
/// The form of a metrics page.
mod page;

use self::socket::AdminSocket;

/// Where a snapshot of all counters comes from, each time anew.
pub type SnapshotSource = Arc<dyn Fn() -> Snapshot + Send + Sync>;

/// How long all requests under way at the end may take, before they are cut off.
const CLOSE_WAIT_MAX: Duration = Duration::from_millis(250);

/// Why the door does not open.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("another edged answers on {0}; stop it, or set admin.socket to another path")]
    AnotherEdged(PathBuf),
    #[error("another edged is just starting: it holds {0}; try again")]
    Starting(PathBuf),
    #[error(
        "{0} is not a file that this user alone can open; remove it, and let nobody else write \
         to its folder"
    )]
    NotOurLock(PathBuf),
    #[error("{path}: {cause}; {}", socket_remedy(cause), path = path.display())]
    Lock { path: PathBuf, cause: io::Error },
    #[error("{0} is there and is no socket; remove it, or set admin.socket to another path")]
    NotASocket(PathBuf),
    #[error("admin.socket: {path}: {cause}; {}", socket_remedy(cause), path = path.display())]
    Socket { path: PathBuf, cause: io::Error },
    #[error(
        "admin.metrics: cannot listen on {address}: {cause}; {}",
        metrics_remedy(cause)
    )]
    Metrics {
        address: SocketAddr,
        cause: io::Error,
    },
}

fn socket_remedy(cause: &io::Error) -> &'static str {
    if cause.kind() == io::ErrorKind::PermissionDenied {
        "run as root, or set admin.socket to a path you may write"
    } else {
        "set admin.socket to another path"
    }
}

fn metrics_remedy(cause: &io::Error) -> &'static str {
    if cause.kind() == io::ErrorKind::AddrInUse {
        "stop what listens there (ss -ltnp), or choose another port, or \"\" for off"
    } else {
        "use an address of this machine, or \"\" for off"
    }
}

impl AdminError {
    /// As in docs/OPERATING.md: 75 try again, 77 missing right, 78 bad configuration, 1 the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::AnotherEdged(_) | Self::Starting(_) => 75,
            Self::NotASocket(_) | Self::NotOurLock(_) => 78,
            Self::Socket { cause, .. } | Self::Lock { cause, .. } | Self::Metrics { cause, .. } => {
                let kind = cause.kind();
                match () {
                    () if kind == io::ErrorKind::AddrInUse => 75,
                    () if kind == io::ErrorKind::PermissionDenied => 77,
                    () if kind == io::ErrorKind::AddrNotAvailable => 78,
                    () => 1,
                }
            }
        }
    }
}

/// What the handlers know: nothing, until the data plane runs.
#[derive(Clone, Default)]
struct State {
    plane: Arc<OnceLock<(SnapshotSource, Health)>>,
    closing: Arc<OnceLock<()>>,
}

impl State {
    fn snapshot(&self) -> Option<Snapshot> {
        self.plane.get().map(|(source, _)| source())
    }

    /// Why not, a line each; none when it is ready.
    fn not_ready(&self) -> Vec<String> {
        match self.plane.get() {
            None => vec!["starting".to_owned()],
            Some(_) if self.closing.get().is_some() => vec!["stopping".to_owned()],
            Some((_, health)) => health.not_ready(clock::now()),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("State")
            .field("not_ready", &self.not_ready())
            .finish_non_exhaustive()
    }
}

/// Both listeners, open.
#[derive(Debug)]
pub struct Admin {
    state: State,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    metrics_address: Option<SocketAddr>,
    // Dropped last: its file goes when nobody answers on it any more.
    _socket: AdminSocket,
}

impl Admin {
    /// Opens both; what is asked of them is answered "not ready" until [`Admin::ready`].
    pub fn open(config: &Config, runtime: &Handle) -> Result<Self, AdminError> {
        let _inside = runtime.enter();
        let state = State::default();
        let (stop, stopped) = watch::channel(false);
        let (socket, admin_listener) = AdminSocket::open(&config.admin.socket)?;
        let mut servers = vec![runtime.spawn(serve(
            bounded::Bounded::new(admin_listener),
            api::routes(state.clone()),
            stopped.clone(),
        ))];
        let mut metrics_address = None;
        if let Some(address) = config.admin.metrics {
            let listener =
                metrics::listen(address).map_err(|cause| AdminError::Metrics { address, cause })?;
            metrics_address = listener.local_addr().ok();
            servers.push(runtime.spawn(serve(
                bounded::Bounded::new(listener),
                metrics::routes(state.clone()),
                stopped,
            )));
        }
        Ok(Self {
            state,
            stop,
            servers,
            metrics_address,
            _socket: socket,
        })
    }

    /// The data plane runs, and this is where its counters and its faults are.
    pub fn ready(&self, source: SnapshotSource, health: Health) {
        let first = self.state.plane.set((source, health)).is_ok();
        assert!(first, "the data plane starts once");
    }

    /// From here on `/ready` says no; the counters can be read until [`Admin::close`].
    pub fn closing(&self) {
        // Said twice it is as true.
        let _said_before = self.state.closing.set(()).is_err();
    }

    /// Where metrics are, with the port the kernel chose if the configuration says 0.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Ends both listeners, and removes the socket's file.
    pub fn close(self, runtime: &Handle) {
        self.closing();
        self.stop.send_replace(true);
        let deadline = Instant::now() + CLOSE_WAIT_MAX;
        runtime.block_on(async {
            for mut server in self.servers {
                if timeout_at(deadline, &mut server).await.is_err() {
                    server.abort();
                }
            }
        });
    }
}

async fn serve<L>(listener: L, routes: Router, mut stopped: watch::Receiver<bool>)
where
    L: Listener,
    L::Addr: fmt::Debug,
{
    let routes = routes.layer(middleware::map_response(one_request));
    let stopped = async move {
        // The sender gone means the same as its word.
        let _gone = stopped.wait_for(|stop| *stop).await.is_err();
    };
    if let Err(error) = axum::serve(listener, routes)
        .with_graceful_shutdown(stopped)
        .await
    {
        tracing::error!("the operator's door closed: {error}");
    }
}

/// A connection is good for one request: then its deadline is that of the request, and an idle one
/// does not hold a place.
async fn one_request(mut response: Response) -> Response {
    let close = header::HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

#[cfg(test)]
mod tests;
