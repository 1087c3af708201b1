//! The event service: everything that happened, in order, from any revision that is still kept (P20).
//!
//! A watch runs only while its reader reads: a batch is fetched when the one before was taken, so a reader that never
//! reads holds one batch, and falls out of the history at worst. The first message is a bookmark: the watch stands.

use std::sync::Arc;

use gpulease_core::{
    id::{Name, Revision},
    request::InvalidField,
};
use gpulease_proto::v1::{self, event_service_server::EventService};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status};

use super::{
    convert,
    flow::{Flow, Flowing, flowing},
    limits::{BOOKMARK_AFTER, READERS_MAX},
    status::{Attempt, EdgeError, refuse},
};
use crate::actor::{Cursor, FeedEnd, Handle, HistoryGone, SubmitError};

/// The event service over a handle.
#[derive(Clone)]
pub(super) struct Events {
    handle: Handle,
    places: Arc<Semaphore>,
}

impl Events {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, places: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    fn follow(&self, wire: &v1::WatchRequest) -> Result<Flowing<v1::WatchResponse>, EdgeError> {
        let service = match wire.service.as_str() {
            "" => None,
            service => Some(convert::known_text("service", service)?),
        };
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| EdgeError::TooManyReaders { max: READERS_MAX })?;
        let after = wire.after_revision.map(Revision);
        let cursor = self.handle.feed().after(after).map_err(outside)?;
        let watch = Watch { handle: self.handle.clone(), cursor, service };
        Ok(flowing(|flow| async move {
            let _place = place;
            watch.run(flow).await.map_err(|error| refuse(Attempt::Watch, error))
        }))
    }
}

/// A revision outside of the kept history: too old, or still to come.
fn outside(gone: HistoryGone) -> EdgeError {
    if gone.asked <= gone.last {
        return EdgeError::HistoryGone { asked: gone.asked, oldest: gone.oldest };
    }
    let bound = format!("at most {}, the last revision there is", gone.last);
    InvalidField::new("after_revision", gone.asked, bound).into()
}

struct Watch {
    handle: Handle,
    cursor: Cursor,
    service: Option<Name>,
}

impl Watch {
    async fn run(mut self, flow: Flow<v1::WatchResponse>) -> Result<(), EdgeError> {
        loop {
            flow.put(self.bookmark());
            flow.taken().await;
            let mut quiet_until = Instant::now() + BOOKMARK_AFTER;
            // A batch that this watch does not show leaves it quiet, so the clock is asked besides the timer.
            while Instant::now() < quiet_until {
                let Ok(next) = timeout_at(quiet_until, self.cursor.next()).await else { break };
                let published = next.map_err(|end| self.ended(end))?;
                let shown = convert::watch_response(&published, self.service.as_ref());
                let shown = shown.map_err(|convert::Forgotten| self.forgotten())?;
                if let Some(batch) = shown {
                    flow.put(batch);
                    flow.taken().await;
                    quiet_until = Instant::now() + BOOKMARK_AFTER;
                }
            }
        }
    }

    fn bookmark(&self) -> v1::WatchResponse {
        let time = Some(convert::timestamp(self.handle.wall(self.handle.now())));
        v1::WatchResponse { revision: self.cursor.position().0, time, events: Vec::new() }
    }

    /// Whose leases the batch at hand was about is forgotten: for the watch of one service the history ends here.
    fn forgotten(&self) -> EdgeError {
        let oldest = self.handle.facts().revision;
        EdgeError::HistoryGone { asked: self.cursor.position(), oldest }
    }

    fn ended(&self, end: FeedEnd) -> EdgeError {
        match (end, self.handle.refusal()) {
            (FeedEnd::HistoryGone(gone), _) => outside(gone),
            (FeedEnd::Unreadable(cause), _) => EdgeError::HistoryUnreadable(cause),
            (FeedEnd::Stopped { .. }, Some(failed @ SubmitError::Failed(_))) => failed.into(),
            (FeedEnd::Stopped { resume_from }, _) => EdgeError::Stopping(resume_from),
        }
    }
}

#[tonic::async_trait]
impl EventService for Events {
    type WatchStream = Flowing<v1::WatchResponse>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let stream = self.follow(request.get_ref());
        stream.map(Response::new).map_err(|error| refuse(Attempt::Watch, error))
    }
}
