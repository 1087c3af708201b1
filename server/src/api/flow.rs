//! A stream written as straight-line code: a future that puts messages into a [`Flow`] as it runs.
//!
//! It runs only while its reader asks for more and everything made so far was taken, inside the task that writes the
//! response: no task, no channel and no wake-up of its own, and a reader that never reads costs what it never took.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio_stream::Stream;
use tonic::Status;

/// Where the future puts what it makes.
#[derive(Debug)]
pub(super) struct Flow<T>(Arc<Mutex<VecDeque<T>>>);

impl<T> Flow<T> {
    /// Adds a message. Call [`Self::taken`] from time to time.
    pub(super) fn put(&self, message: T) {
        self.lock().push_back(message);
    }

    /// Waits until the reader took everything. No waker is kept: the reader polls when it wants more.
    pub(super) async fn taken(&self) {
        std::future::poll_fn(
            |_| if self.lock().is_empty() { Poll::Ready(()) } else { Poll::Pending },
        )
        .await;
    }

    /// Every change is whole, even after a panic; nobody ever waits, for one task uses it.
    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Run = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// The stream.
pub(super) struct Flowing<T> {
    made: Flow<T>,
    run: Option<Run>,
}

/// Makes a stream of what `run` puts into its flow; an error of `run` ends it.
pub(super) fn flowing<T, F>(run: impl FnOnce(Flow<T>) -> F) -> Flowing<T>
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let made = Flow(Arc::default());
    let run = run(Flow(Arc::clone(&made.0)));
    Flowing { made, run: Some(Box::pin(run)) }
}

impl<T> Stream for Flowing<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.made.lock().pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            let Some(run) = self.run.as_mut() else { return Poll::Ready(None) };
            match run.as_mut().poll(cx) {
                Poll::Pending if self.made.lock().is_empty() => return Poll::Pending,
                Poll::Pending => {}
                Poll::Ready(outcome) => {
                    self.run = None;
                    if let Err(status) = outcome {
                        return self.end_with(status);
                    }
                }
            }
        }
    }
}

impl<T> Flowing<T> {
    /// What was made before the error still goes out first.
    fn end_with(&mut self, status: Status) -> Poll<Option<Result<T, Status>>> {
        let first = self.made.lock().pop_front();
        let Some(message) = first else { return Poll::Ready(Some(Err(status))) };
        self.run = Some(Box::pin(std::future::ready(Err(status))));
        Poll::Ready(Some(Ok(message)))
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_put_goes_out_in_order_and_before_the_error() {
        let mut stream = flowing(|flow: Flow<u32>| async move {
            flow.put(1);
            flow.put(2);
            flow.taken().await;
            flow.put(3);
            Err(Status::aborted("over"))
        });
        let mut got = Vec::new();
        while let Some(Ok(number)) = stream.next().await {
            got.push(number);
        }
        assert_eq!(got, [1, 2, 3]);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_has_nothing_more_made_for_it() {
        let made = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&made);
        let mut stream = flowing(|flow: Flow<u32>| async move {
            loop {
                *counter.lock().unwrap() += 1;
                flow.put(7);
                flow.taken().await;
            }
        });
        assert!(stream.next().await.unwrap().is_ok());
        assert!(stream.next().await.unwrap().is_ok());
        assert_eq!(*made.lock().unwrap(), 2);
    }
}
