//! Health and status over HTTP, for probes and people: `/livez`, `/readyz`, `/status`.
//!
//! Promises: `/livez` answers as long as the process does, `/readyz` as the actor's health says, and `/status` with
//! committed figures as JSON. What it says is what the gRPC services say.

use std::{io, net::SocketAddr};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get, serve::Listener};
use gpulease_core::view::Counts;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::Failure;
use crate::{
    actor::{Handle, SubmitError},
    api::{Counted, Places},
};

/// A listener that is bound and not yet served.
pub(super) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Binds the address, if there is one.
    pub(super) async fn bind(address: Option<SocketAddr>) -> Result<Option<Self>, Failure> {
        let Some(address) = address else { return Ok(None) };
        let failed = |source| Failure::Http { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Some(Self { listener, address }))
    }

    /// The address, with the port that was picked.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` completes.
    pub(super) async fn serve(
        self,
        handle: Handle,
        stop: impl Future<Output = ()> + Send + 'static,
    ) {
        let listener = Counting { listener: self.listener, places: Places::for_http() };
        let served = axum::serve(listener, router(handle)).with_graceful_shutdown(stop).await;
        if let Err(error) = served {
            tracing::error!(%error, address = %self.address, "HTTP is not served any more");
        }
    }
}

/// A listener whose connections are counted and do not stay.
struct Counting {
    listener: TcpListener,
    places: Places,
}

impl Listener for Counting {
    type Io = Counted<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (connection, address) = Listener::accept(&mut self.listener).await;
            if let Some(counted) = self.places.seat(connection) {
                return (counted, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

fn router(handle: Handle) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .with_state(handle)
}

async fn readyz(State(handle): State<Handle>) -> (StatusCode, String) {
    match handle.refusal() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")),
    }
}

async fn status(State(handle): State<Handle>) -> (StatusCode, Json<Value>) {
    match handle.query(|reading| reading.scheduler.counts()).await {
        Ok(counts) => (StatusCode::OK, Json(figures(&handle, &counts))),
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, Json(refused(&handle, &refusal))),
    }
}

fn figures(handle: &Handle, counts: &Counts) -> Value {
    let facts = handle.facts();
    let uptime = facts.started.elapsed().unwrap_or_default();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "serving": handle.refusal().is_none(),
        "uptime_seconds": uptime.as_secs(),
        "revision": facts.revision.0,
        "revision_oldest": facts.oldest_revision.0,
        "revision_snapshot": facts.snapshot_revision.0,
        "fencing_token": counts.token.0,
        "nodes": counts.nodes,
        "devices": counts.devices,
        "devices_available": counts.devices_available,
        "leases_queued": counts.queued,
        "leases_active": counts.active,
        "leases_reclaiming": counts.reclaiming,
        "leases_ended": counts.ended,
        "sessions": counts.sessions,
        "grants_total": facts.grants_total,
        "data_directory": facts.data_directory,
        "backend": facts.backend,
    })
}

fn refused(handle: &Handle, refusal: &SubmitError) -> Value {
    json!({ "serving": false, "reason": refusal.to_string(), "revision": handle.facts().revision.0 })
}
