//! The HTTP endpoints of the TCP port: `/metrics` for Prometheus, `/live` and `/ready` for
//! supervisors.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State as From;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::exposition;
use super::health::Readiness;
use super::state::State;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds immediately, so that a port in use is a startup error.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

pub(super) fn routes(state: State) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .with_state(state)
}

async fn metrics(From(state): From<State>) -> Response {
    let Some(snapshot) = state.snapshot() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response();
    };
    match exposition::text(snapshot) {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(From(state): From<State>) -> (StatusCode, String) {
    let Readiness { ready, reasons } = state.readiness();
    let (status, first, prefix) = if ready {
        (StatusCode::OK, "ready\n", "degraded")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "", "not ready")
    };
    let lines = reasons.iter().map(|reason| format!("{prefix}: {reason}\n"));
    (status, first.to_owned() + &lines.collect::<String>())
}
