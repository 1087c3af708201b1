//! The signals that ask for a stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Completes with the name of the first of SIGTERM and SIGINT to arrive, which from now on end nothing by themselves.
///
/// # Errors
/// The system refuses the handlers.
pub(super) fn stop() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
