//! The API of the unix socket, used by `edge stat`.

use axum::extract::State as From;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::state::State;

pub(super) fn routes(state: State) -> Router {
    Router::new().route("/v1/stat", get(stat)).with_state(state)
}

async fn stat(From(state): From<State>) -> Response {
    match state.snapshot() {
        Some(snapshot) => Json(snapshot).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}
