//! Acquiring for `acquire` and `run`: asks, says how the waiting goes, and leaves the queue when a signal
//! asks to stop.
//!
//! Promises: once a signal came, no lease is left behind: the request is cancelled, or the lease released.
//! Leaves to others: what to do with the lease.

use std::time::Duration;

use gpulease::{Client, Lease, LeaseInfo, LeaseRequest, LeaseState};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::output::Output;
use crate::progress::{Place, Progress};
use crate::signals::Stop;

/// How often the place in the queue is asked for: a person's patience, and one small call.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The longest that saying good-bye may take: a coordinator that is away is not waited for; its session
/// grace cancels the request then.
pub(crate) const CLOSE_MAX: Duration = Duration::from_secs(3);

/// Acquires what is asked for, and waits no longer than `wait`, which the request says as well.
pub(crate) async fn acquire(
    client: &Client,
    (request, wait): (LeaseRequest, Duration),
    output: &Output,
    stop: &mut Stop,
) -> Result<Lease, Failure> {
    let (queued, seen) = watch::channel(None::<LeaseInfo>);
    // Dropping the set ends the task, whichever way this returns.
    let mut follower = JoinSet::new();
    follower.spawn(follow(client.clone(), seen, *output, wait));
    let acquiring = client.acquire_with(request, move |lease| {
        queued.send_replace(Some(lease.clone()));
    });
    let outcome = tokio::select! {
        acquired = acquiring => acquired.map_err(Failure::from),
        signal = stop.next() => Err(Failure::interrupted(signal)),
    };
    follower.shutdown().await;
    outcome
}

/// Ends the client's session, which carries what is still to be said.
pub(crate) async fn close(client: Client) {
    let _ = tokio::time::timeout(CLOSE_MAX, client.close()).await;
}

/// Shows the place of a queued request until it has left the queue.
async fn follow(
    client: Client,
    mut seen: watch::Receiver<Option<LeaseInfo>>,
    output: Output,
    wait: Duration,
) {
    let mut progress = Progress::new(output);
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = seen.changed() => {
                let lease = seen.borrow_and_update().clone();
                match (changed, lease) {
                    (Ok(()), Some(lease)) => progress.show(place(&lease, wait)),
                    (Ok(()), None) => {}
                    // The request is answered.
                    (Err(_), _) => return,
                }
            }
            _ = looks.tick() => {
                let Some(id) = seen.borrow().as_ref().map(|lease| lease.id) else { continue };
                match client.lease(id).await {
                    Ok(detail) if detail.lease.state == LeaseState::Queued => {
                        progress.show(place(&detail.lease, wait));
                    }
                    // Granted or ended: the answer is on its way. Away: the client reconnects.
                    _ => {}
                }
            }
        }
    }
}

fn place(lease: &LeaseInfo, wait: Duration) -> Place {
    Place {
        event: "queued",
        id: lease.id.to_string(),
        queue_position: lease.queue_position,
        kept_devices: lease.kept_devices.clone(),
        waited_seconds: lease.waited.as_secs_f64(),
        wait_max_seconds: wait.as_secs_f64(),
    }
}
