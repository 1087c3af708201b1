//! The stream of a lease's changes, and plain functions called for each.
//!
//! A reader that is slow skips the oldest changes, never the newest, and slows nobody: neither renewals nor other
//! readers. A function runs on a thread for blocking work, one call at a time.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{runtime::Handle, task};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{BroadcastStream, errors::BroadcastStreamRecvError},
};

use crate::{held::Held, standing::Change};

/// Every change of how a lease stands, in order, beginning with how it stands if it is not plainly active. It ends behind
/// [`Change::Lost`] or [`Change::Ended`], or with a detached lease. The newest 32 are kept for a slow reader.
#[derive(Debug)]
pub struct LeaseChanges {
    first: Option<Change>,
    inner: BroadcastStream<Change>,
    skipped: u64,
    over: bool,
}

impl LeaseChanges {
    pub(crate) fn new(held: &Arc<Held>, now: Duration) -> Self {
        let (first, changes) = held.subscribe(now);
        Self { first, inner: BroadcastStream::new(changes), skipped: 0, over: false }
    }

    /// The next change; `None`: there are no more.
    pub async fn next(&mut self) -> Option<Change> {
        StreamExt::next(self).await
    }

    /// How many changes were skipped so far because this reader was slow.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn last(&mut self, change: Change) -> Change {
        self.over = matches!(change, Change::Lost(_) | Change::Ended { .. });
        change
    }
}

impl Stream for LeaseChanges {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(this.last(first)));
        }
        loop {
            match ready!(Pin::new(&mut this.inner).poll_next(context)) {
                Some(Ok(change)) => return Poll::Ready(Some(this.last(change))),
                Some(Err(BroadcastStreamRecvError::Lagged(skipped))) => this.skipped += skipped,
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Calls a function for every change, on a thread where it may block. One that panics is not called again.
pub(crate) fn call_for_each(
    runtime: &Handle,
    mut changes: LeaseChanges,
    mut function: impl FnMut(Change) + Send + 'static,
) {
    runtime.spawn(async move {
        while let Some(change) = changes.next().await {
            let call = task::spawn_blocking(move || {
                function(change);
                function
            });
            match call.await {
                Ok(returned) => function = returned,
                Err(error) => {
                    tracing::error!(%error, "a function that was told of a lease's changes panicked");
                    return;
                }
            }
        }
    });
}
