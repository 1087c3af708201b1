//! The tasks themselves: each asks for its lease when it arrived, holds it for as long as it ran, gives it back, and
//! writes down what it was told.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gpulease::{Client, ErrorKind};
use gpulease_tests::checker::Receipts;
use tokio::{task::JoinSet, time::sleep_until};

use super::{
    clock::TraceClock,
    slice,
    trace::{Class, Task},
};

/// Longer than any replay: nobody waits in vain.
const WAIT: Duration = Duration::from_secs(3_600);

/// How long one task waited for its lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) class: Class,
    /// From its arrival to the answer, in seconds of replay.
    pub(super) replay_seconds: f64,
    /// The same on the trace's clock.
    pub(super) trace_seconds: f64,
}

/// What all tasks share.
pub(super) struct Run {
    pub(super) clock: TraceClock,
    pub(super) receipts: Receipts,
    pub(super) ttl: Duration,
    waits: Mutex<Vec<Wait>>,
    done: AtomicUsize,
}

impl Run {
    pub(super) fn new(clock: TraceClock, receipts: Receipts, ttl: Duration) -> Arc<Self> {
        Arc::new(Self { clock, receipts, ttl, waits: Mutex::default(), done: AtomicUsize::new(0) })
    }

    /// Tasks that are through, whatever became of them.
    pub(super) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn waits(&self) -> Vec<Wait> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn waited(&self, task: &Task, since: f64) {
        let wait = Wait {
            class: task.class,
            replay_seconds: (self.clock.elapsed() - since).max(0.0),
            trace_seconds: (self.clock.now() - task.arrival).max(0.0),
        };
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).push(wait);
    }
}

/// Starts all tasks; each sleeps until it arrives. Clients take turns.
pub(super) fn start(run: &Arc<Run>, clients: &[Client], tasks: &[Task]) -> JoinSet<()> {
    let mut running = JoinSet::new();
    for (task, client) in tasks.iter().zip(clients.iter().cycle()) {
        let (run, client, task) = (Arc::clone(run), client.clone(), task.clone());
        running.spawn(async move {
            live(&run, &client, &task).await;
            run.done.fetch_add(1, Ordering::Relaxed);
        });
    }
    running
}

/// A task from its arrival to its end.
async fn live(run: &Run, client: &Client, task: &Task) {
    sleep_until(run.clock.moment(task.arrival).into()).await;
    let since = run.clock.elapsed();
    run.receipts.asked(&task.name, slice::host(task));
    match client.acquire(slice::request(task, run.ttl, WAIT)).await {
        Ok(lease) => {
            run.waited(task, since);
            run.receipts.granted(&lease.info());
            hold(run, task, lease).await;
        }
        Err(error) if error.kind() == ErrorKind::Unsatisfiable => run.receipts.refused(&task.name),
        Err(error) => run.receipts.complain(format!("task {} got no lease: {error}", task.name)),
    }
}

/// Holds for as long as the task ran; losing the lease meanwhile is a fault.
async fn hold(run: &Run, task: &Task, lease: gpulease::Lease) {
    let id = lease.id();
    let end = run.clock.moment(run.clock.now() + task.run_seconds);
    tokio::select! {
        () = sleep_until(end.into()) => {}
        reason = lease.lost() => {
            run.receipts.complain(format!("task {}: lease {id} was lost while held: {reason}", task.name));
        }
    }
    run.receipts.releasing(id);
    match lease.release().await {
        Ok(_) => run.receipts.released(id),
        Err(error) => {
            run.receipts
                .complain(format!("task {}: lease {id} could not be released: {error}", task.name));
        }
    }
}
