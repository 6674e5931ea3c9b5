//! The operator's door: who comes in here is an operator or a monitoring system, never a client.
//!
//! It runs on the tokio runtime beside the data plane and only ever reads counters. It is opened
//! before the data plane starts, so that a taken port or a second `edged` is found out before the
//! interface is touched, and says "not ready" until then.

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

/// What keeps a running edge from serving as it should.
pub mod health;
/// What the handlers of requests know.
mod state;
/// Why the admin API cannot be opened.
mod error;
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

pub use self::error::AdminError;
pub use self::state::SnapshotSource;

use self::health::Health;
use self::socket::AdminSocket;
use self::state::State;

/// How long all requests under way at the end may take, before they are cut off.
const CLOSE_WAIT_MAX: Duration = Duration::from_millis(250);

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
