//! The stream of events: complete and in order, across breaks of its connection (P20).

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use gpulease_proto::v1;
use tokio_stream::Stream;
use tonic::Streaming;

use crate::{
    error::{Error, ErrorKind},
    event::EventBatch,
    retry::Backoff,
    unary::Unary,
};

type Opening = Pin<Box<dyn Future<Output = Result<Streaming<v1::WatchResponse>, Error>> + Send>>;

/// Every batch of events behind a revision, each once and in order.
///
/// It resumes after its last revision by itself when its connection breaks. An error item says that ten tries in a
/// row failed: reading on tries again. After any other error, such as
/// [`HistoryGone`](crate::ErrorKind::HistoryGone), the stream is over.
pub struct EventStream {
    unary: Unary,
    revision: u64,
    phase: Phase,
    backoff: Backoff,
}

enum Phase {
    Reading(Box<Streaming<v1::WatchResponse>>),
    Opening(Opening),
    Over,
}

impl EventStream {
    pub(crate) async fn open(unary: Unary, after_revision: Option<u64>) -> Result<Self, Error> {
        // "From now on" is made a number, so that a break before the first batch loses nothing.
        let revision = match after_revision {
            Some(revision) => revision,
            None => unary.status().await?.revision,
        };
        let messages = crate::retry::repeat(|| unary.watch(revision)).await?;
        let phase = Phase::Reading(Box::new(messages));
        Ok(Self { unary, revision, phase, backoff: Backoff::default() })
    }

    /// The last revision that was read: watching after it continues here.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Opens again after a pause, or, when ten tries are used up, says why not and begins anew.
    fn reopen(&mut self, error: Error) -> Option<Error> {
        if !error.is_retryable() {
            self.phase = Phase::Over;
            return Some(error);
        }
        let tries_left = self.backoff.next(error.retry_after());
        let pause = tries_left.unwrap_or_else(|| {
            self.backoff.reset();
            self.backoff.pause(error.retry_after())
        });
        let (unary, revision) = (self.unary.clone(), self.revision);
        self.phase = Phase::Opening(Box::pin(async move {
            tokio::time::sleep(pause).await;
            unary.watch(revision).await
        }));
        tries_left.is_none().then_some(error)
    }
}

impl Stream for EventStream {
    type Item = Result<EventBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let failure = match &mut this.phase {
                Phase::Over => return Poll::Ready(None),
                Phase::Opening(opening) => match ready!(opening.as_mut().poll(context)) {
                    Ok(messages) => {
                        this.phase = Phase::Reading(Box::new(messages));
                        continue;
                    }
                    Err(error) => error,
                },
                Phase::Reading(messages) => {
                    match ready!(Pin::new(&mut **messages).poll_next(context)) {
                        Some(Ok(batch)) => {
                            this.backoff.reset();
                            this.revision = this.revision.max(batch.revision);
                            return Poll::Ready(Some(Ok(batch.into())));
                        }
                        Some(Err(status)) => status.into(),
                        None => ended(),
                    }
                }
            };
            if let Some(error) = this.reopen(failure) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EventStream")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "UNREACHABLE", "the coordinator ended the stream of events")
}
