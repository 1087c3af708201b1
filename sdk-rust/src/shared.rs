//! One client for a whole process.

use std::sync::{Mutex, PoisonError};

use crate::{client::Client, error::Error};

static SHARED: Mutex<Option<Client>> = Mutex::new(None);

/// The client that the whole process shares, made from the environment when it is first asked for. Nobody is asked for a
/// sign of life then: whether a coordinator is there shows at the first request, and [`Client::acquire_or_cpu`] goes on
/// without one.
///
/// The client lives in the tokio runtime in which it was made. Once that is gone, or the client was closed, the next
/// call makes another.
///
/// ```no_run
/// # async fn example() -> Result<(), gpulease::Error> {
/// let acquired = gpulease::shared()?.acquire_or_cpu(gpulease::LeaseRequest::slots(1)).await?;
/// # let _ = acquired;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`ClientBuilder::build`](crate::ClientBuilder::build).
pub fn shared() -> Result<Client, Error> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(client) = shared.as_ref().filter(|client| !client.is_closed()) {
        return Ok(client.clone());
    }
    let client = Client::builder().build()?;
    *shared = Some(client.clone());
    Ok(client)
}

/// Makes this client the one that [`shared`] gives, for a process that settles its own in code.
pub fn set_shared(client: Client) {
    *SHARED.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_a_runtime_of_its_own<T>(work: impl FnOnce() -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        work()
    }

    #[test]
    fn a_process_shares_one_client_until_its_runtime_is_gone() {
        let first = in_a_runtime_of_its_own(|| {
            let first = shared().unwrap();
            assert_eq!(shared().unwrap().holder(), first.holder());
            first.holder().to_owned()
        });
        in_a_runtime_of_its_own(|| {
            let second = shared().unwrap();
            assert_ne!(second.holder(), first, "the first one's tasks are gone");
            let own = Client::builder().holder("settled-in-code").build().unwrap();
            set_shared(own);
            assert_eq!(shared().unwrap().holder(), "settled-in-code");
        });
    }
}
