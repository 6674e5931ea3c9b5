//! The admin API, for operators and monitoring systems.
//!
//! It runs on the tokio runtime and only reads counters. It starts before the data plane, so that a
//! port in use or a second `edged` is detected before the interface is changed, and reports "not
//! ready" until the data plane runs.

use std::fmt;
use std::net::SocketAddr;

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

use crate::config::Config;

/// Faults of a running edge.
pub mod health;
/// The state of the request handlers.
mod state;
/// Why the admin API cannot start.
mod error;
/// The unix socket: permissions and ownership.
mod socket;
/// Bounds the number and the duration of connections.
mod bounded;
/// The API of the unix socket, used by `edge stat`.
mod api;
/// The HTTP endpoints of the TCP port: metrics and health.
mod metrics;
/// Renders a snapshot for Prometheus.
mod exposition;
/// The result of a request, from its reason.
mod results;
/// Encodes single metrics.
mod page;

pub use self::error::AdminError;
pub use self::state::SnapshotSource;

use self::health::Health;
use self::socket::AdminSocket;
use self::state::State;

/// How long requests in progress may take at shutdown.
const CLOSE_WAIT_MAX: Duration = Duration::from_millis(250);

/// Both listeners.
#[derive(Debug)]
pub struct Admin {
    state: State,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    metrics_address: Option<SocketAddr>,
    // Dropped last: its file is removed once nothing answers on it.
    _socket: AdminSocket,
}

impl Admin {
    /// Opens both listeners, which answer "not ready" until [`Admin::ready`].
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

    /// Provides the counters and faults of the running data plane.
    pub fn ready(&self, source: SnapshotSource, health: Health) {
        let first = self.state.plane.set((source, health)).is_ok();
        assert!(first, "the data plane starts once");
    }

    /// Makes `/ready` fail; counters stay readable until [`Admin::close`].
    pub fn closing(&self) {
        let _already = self.state.closing.set(()).is_err();
    }

    /// The address of the metrics listener, with the port that the kernel chose for port 0.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Closes both listeners and removes the socket's file.
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
        // A dropped sender means stop, too.
        let _gone = stopped.wait_for(|stop| *stop).await.is_err();
    };
    if let Err(error) = axum::serve(listener, routes)
        .with_graceful_shutdown(stopped)
        .await
    {
        tracing::error!("an admin listener failed: {error}");
    }
}

/// One request per connection, so that the connection's deadline is that of the request and idle
/// connections take up no space.
async fn one_request(mut response: Response) -> Response {
    let close = header::HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

#[cfg(test)]
mod tests;
