//! Reads the stream of events from its first revision, across kills, into a [`Ledger`].
//!
//! At the end it reads the whole history a second time: what was once published must be there again, the same.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use gpulease::{Client, EventBatch};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_stream::StreamExt as _;

use super::{
    ledger::Ledger,
    verdict::{Fault, Verdict, judge},
};

/// Without a batch for so long, the stream is taken to be stuck: bookmarks come every 10 s.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// The reading task and what it fills.
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    after: u64,
    ledger: Arc<Mutex<Ledger>>,
    digests: Arc<Mutex<BTreeMap<u64, u64>>>,
    revision: watch::Receiver<u64>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Watcher {
    /// Watches from the first revision. `on_batch` sees the ledger after every batch.
    ///
    /// # Errors
    /// No coordinator, or one whose history no longer has its beginning.
    pub async fn start(
        endpoint: &str,
        ledger: Ledger,
        on_batch: impl FnMut(&Ledger) + Send + 'static,
    ) -> anyhow::Result<Self> {
        Self::start_after(endpoint, 0, ledger, on_batch).await
    }

    /// Watches behind a revision at which no lease lived.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_after(
        endpoint: &str,
        after: u64,
        ledger: Ledger,
        on_batch: impl FnMut(&Ledger) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let client = Client::builder().endpoint(endpoint).service("checker").connect().await?;
        let (send, revision) = watch::channel(0);
        let ledger = Arc::new(Mutex::new(ledger));
        let digests = Arc::default();
        let stream = client.watch(Some(after)).await.context("watch the events")?;
        let reading = read(stream, Arc::clone(&ledger), Arc::clone(&digests), send, on_batch);
        Ok(Self { client, after, ledger, digests, revision, task: tokio::spawn(reading) })
    }

    /// The ledger as it is now.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has seen all that the coordinator has made durable by now.
    ///
    /// # Errors
    /// No coordinator, or the stream is over or stuck.
    pub async fn catch_up(&mut self) -> anyhow::Result<()> {
        let goal = self.client.status().await.context("ask for the last revision")?.revision;
        let mut revision = self.revision.clone();
        let reached = timeout(QUIET_MAX, revision.wait_for(|seen| *seen >= goal)).await;
        match reached.map(|reached| reached.map(|seen| *seen)) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => match (&mut self.task).await {
                Ok(Err(error)) => Err(error.context("the stream of events ended")),
                other => bail!("the stream of events ended: {other:?}"),
            },
            Err(_) => bail!(
                "the stream of events stands at revision {}, {QUIET_MAX:?} after {goal} was durable",
                *self.revision.borrow()
            ),
        }
    }

    /// Reads the rest, reads the history again, and judges.
    ///
    /// # Errors
    /// As [`Self::catch_up`].
    pub async fn finish(mut self) -> anyhow::Result<Verdict> {
        self.catch_up().await?;
        self.task.abort();
        self.read_again().await?;
        Ok(judge(&self.ledger()))
    }

    /// The history must be what it was when it was first told.
    async fn read_again(&mut self) -> anyhow::Result<()> {
        let first = std::mem::take(&mut *lock(&self.digests));
        let Some(last) = first.keys().next_back().copied() else { return Ok(()) };
        let mut stream =
            self.client.watch(Some(self.after)).await.context("read the history again")?;
        let mut again = BTreeMap::new();
        while again.keys().next_back().is_none_or(|revision| *revision < last) {
            let batch = timeout(QUIET_MAX, stream.next()).await.context("the history is stuck")?;
            let batch = batch.context("the history ended early")??;
            if !batch.events.is_empty() {
                again.insert(batch.revision, digest(&batch));
            }
        }
        let mut ledger = self.ledger();
        for (revision, digest) in &first {
            if again.get(revision) != Some(digest) {
                let text = format!("revision {revision} was told and is not the same, or gone");
                ledger.faults.add(Fault::Invariant, text);
            }
        }
        Ok(())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(
    mut stream: gpulease::EventStream,
    ledger: Arc<Mutex<Ledger>>,
    digests: Arc<Mutex<BTreeMap<u64, u64>>>,
    revision: watch::Sender<u64>,
    mut on_batch: impl FnMut(&Ledger) + Send,
) -> anyhow::Result<()> {
    while let Some(item) = stream.next().await {
        match item {
            Ok(batch) => {
                if !batch.events.is_empty() {
                    lock(&digests).insert(batch.revision, digest(&batch));
                }
                let mut ledger = lock(&ledger);
                ledger.apply(&batch);
                on_batch(&ledger);
                drop(ledger);
                revision.send_replace(batch.revision);
            }
            // Ten tries in a row did not reach it: a long outage. Reading on tries again.
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error).context("read the stream of events"),
        }
    }
    bail!("the stream of events is over")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of the events alone: the time is for display.
fn digest(batch: &EventBatch) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{:?}", batch.events).hash(&mut hasher);
    hasher.finish()
}
