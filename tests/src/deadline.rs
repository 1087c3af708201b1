//! Waiting for things that must happen: with a deadline, and with a name for what did not.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

/// How long anything may take that happens at once on an idle machine: this one runs many coordinators beside it.
pub const SOON: Duration = Duration::from_secs(30);

/// The outcome of `happens`, which must not take longer than [`SOON`].
///
/// # Panics
/// When it does.
pub async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match timeout(SOON, happens).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("after {SOON:?} this had not happened: {what}"),
    }
}
