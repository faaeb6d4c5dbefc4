//! For the operator: `/live`, `/ready` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::grpc::Serving;

/// The content type of what `prometheus_client` writes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Admin {
    registry: Arc<Registry>,
    serving: watch::Receiver<Serving>,
}

/// Serves until dropped.
pub(super) async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    serving: watch::Receiver<Serving>,
) {
    let routes = Router::new()
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Admin { registry, serving });
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the admin listener failed");
    }
}

/// 200 while actions are taken and events are streamed, 503 otherwise.
async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    let serving = *admin.serving.borrow();
    let status = if serving.writes && serving.feed {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let word = |serves| if serves { "serving" } else { "not serving" };
    (status, format!("writes: {}\nfeed: {}\n", word(serving.writes), word(serving.feed)))
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
