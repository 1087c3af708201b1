//! One holder's session over the bare wire, for tests of what the SDK does by itself.

use anyhow::Context as _;
use gpulease_proto::v1::{
    self, session_request::Body as Request, session_response::Body as Response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    deadline::soon,
    wire::{SERVICE, Wire},
};

/// An open session. Dropping it breaks the stream, as a holder that dies does.
#[derive(Debug)]
pub struct Session {
    requests: mpsc::UnboundedSender<v1::SessionRequest>,
    answers: Streaming<v1::SessionResponse>,
    sequence: u64,
    welcome: v1::SessionWelcome,
}

impl Session {
    /// Opens one and waits for the welcome.
    ///
    /// # Errors
    /// The refusal, or another answer than a welcome.
    pub async fn open(wire: &Wire, holder: &str) -> anyhow::Result<Self> {
        let (requests, sent) = mpsc::unbounded_channel();
        let hello = v1::SessionHello {
            service: SERVICE.to_owned(),
            holder: holder.to_owned(),
            revision_seen: 0,
        };
        requests.send(v1::SessionRequest { sequence: 1, body: Some(Request::Hello(hello)) })?;
        let sent = UnboundedReceiverStream::new(sent);
        let mut answers = wire.leases().session(sent).await?.into_inner();
        match soon("the welcome", answers.message()).await?.and_then(|answer| answer.body) {
            Some(Response::Welcome(welcome)) => {
                Ok(Self { requests, answers, sequence: 1, welcome })
            }
            other => anyhow::bail!("a hello was answered with {other:?}"),
        }
    }

    /// What the hello was answered with.
    #[must_use]
    pub fn welcome(&self) -> &v1::SessionWelcome {
        &self.welcome
    }

    /// Sends a message; its sequence.
    ///
    /// # Errors
    /// The session is over.
    pub fn send(&mut self, body: Request) -> anyhow::Result<u64> {
        self.sequence += 1;
        let message = v1::SessionRequest { sequence: self.sequence, body: Some(body) };
        self.requests.send(message).context("the session is over")?;
        Ok(self.sequence)
    }

    /// The next answer of any kind.
    ///
    /// # Errors
    /// The status that the session ended with.
    ///
    /// # Panics
    /// When none comes soon, or the session ends without a status.
    pub async fn next(&mut self) -> Result<v1::SessionResponse, Status> {
        let next = soon("the session's next message", self.answers.message()).await?;
        Ok(next.expect("a session ends with a status or after its goodbye"))
    }

    /// The next answer that a test accepts; others are passed over.
    ///
    /// # Errors
    /// The status that the session ended with.
    pub async fn until<T>(
        &mut self,
        mut accepts: impl FnMut(Response) -> Option<T>,
    ) -> Result<T, Status> {
        loop {
            if let Some(found) = self.next().await?.body.and_then(&mut accepts) {
                return Ok(found);
            }
        }
    }

    /// Asks for a lease that has to wait; the lease as it waits.
    ///
    /// # Errors
    /// The session is over.
    pub async fn queue(&mut self, request: v1::AcquireRequest) -> anyhow::Result<v1::Lease> {
        self.send(Request::Acquire(request))?;
        let queued = self.until(|body| match body {
            Response::Queued(queued) => queued.lease,
            _ => None,
        });
        Ok(queued.await?)
    }

    /// Waits for a grant.
    ///
    /// # Errors
    /// The status that the session ended with.
    pub async fn granted(&mut self) -> Result<v1::Lease, Status> {
        self.until(|body| match body {
            Response::Granted(granted) => granted.lease,
            _ => None,
        })
        .await
    }
}
