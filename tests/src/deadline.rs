//! Waiting for things that must happen: with a deadline, and with a name for what did not.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

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

/// How often [`until`] asks.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Asks again and again, until the answer is `Ok` inside; an `Err` inside says how it was instead.
///
/// # Errors
/// That of the asking.
///
/// # Panics
/// When the answer does not come within [`SOON`], with how it was last.
pub async fn until<T>(
    what: &str,
    ask: impl AsyncFn() -> anyhow::Result<Result<T, String>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + SOON;
    loop {
        match ask().await? {
            Ok(found) => return Ok(found),
            Err(was) if Instant::now() > deadline => {
                panic!("after {SOON:?} this had not happened: {what}; it was: {was}")
            }
            Err(_) => sleep(ASK_EVERY).await,
        }
    }
}
