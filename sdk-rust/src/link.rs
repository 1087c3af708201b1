//! The session's stream: opened when it is needed, opened again after every break, ended when nobody is left.
//!
//! | event | then |
//! |---|---|
//! | something is asked or held, no stream | open: hello with the last revision seen, wait for the welcome |
//! | welcome | send everything again that has no answer, renew everything held, read |
//! | open failed, or the stream broke | pause (`retry.rs`), open again; requests give up after their tries |
//! | ABORTED, SESSION_REPLACED | all leases are lost, every request fails, no new stream ever |
//! | no handle left, nothing pending | end |

use std::{sync::Arc, time::Duration};

use gpulease_proto::v1::{
    self, lease_service_client::LeaseServiceClient, session_request, session_response,
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use crate::{
    error::{Error, ErrorKind},
    facts::Told,
    retry::Backoff,
    session::Shared,
    standing::LostReason,
    state::{LINK_CAPACITY, Link},
    unary::TRACE_PARENT,
};

/// How long a coordinator may take for its welcome, twice what a restart with 100,000 leases needs and more.
const WELCOME_MAX: Duration = Duration::from_secs(10);
/// How long the last releases may take when nobody is left.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// The longest message taken: a welcome of 10,000 leases of 6 KiB each, or one batch of events: some 16,000 of 4 KiB.
pub(crate) const MESSAGE_MAX_BYTES: usize = 64 << 20;

/// Why reading from a stream came to its end.
enum End {
    /// Nobody needs it any more.
    Finished,
    /// It broke, or could not be opened.
    Broken(Error),
}

/// The task: keeps the stream for as long as somebody needs it.
pub(crate) async fn run(shared: Arc<Shared>, keepalive: JoinHandle<()>) {
    let closing_for_too_long = async {
        shared.closing.notified().await;
        tokio::time::sleep(CLOSE_MAX).await;
    };
    tokio::select! {
        () = keep_stream(&shared) => {}
        () = closing_for_too_long => {}
    }
    keepalive.abort();
    shared.end(&Error::closed(), &LostReason::ClientClosed);
    shared.done.send_replace(true);
}

async fn keep_stream(shared: &Shared) {
    let mut backoff = Backoff::default();
    while shared.until_needed().await {
        let error = match open_and_read(shared, &mut backoff).await {
            End::Finished => return,
            End::Broken(error) => error,
        };
        if error.kind() == ErrorKind::SessionReplaced {
            shared.end(&error, &LostReason::SessionReplaced);
            continue;
        }
        // A coordinator that returns gives each lease its full TTL: whoever comes back later than that has lost it.
        let pause = backoff.pause(error.retry_after()).min(shared.state().interval_min());
        tracing::debug!(%error, ?pause, "no session, trying again");
        if !shared.sleep_unless_finished(pause).await {
            return;
        }
    }
}

/// One stream, from its opening to its end.
async fn open_and_read(shared: &Shared, backoff: &mut Backoff) -> End {
    let asked_at = shared.clock.now();
    let opened = timeout(WELCOME_MAX, open(shared)).await.unwrap_or_else(|_| {
        let message = format!("the coordinator sent no welcome within {WELCOME_MAX:?}");
        Err(Error::new(ErrorKind::Unavailable, "UNREACHABLE", message))
    });
    let (link, welcome, mut messages) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            shared.open_failed(&error, asked_at);
            return End::Broken(error);
        }
    };
    backoff.reset();
    shared.resume(link, welcome, asked_at);
    let end = read(shared, &mut messages).await;
    shared.state().unlink();
    end
}

/// Opens a stream and exchanges hello and welcome.
async fn open(
    shared: &Shared,
) -> Result<(Link, v1::SessionWelcome, Streaming<v1::SessionResponse>), Error> {
    let (link, outgoing) = mpsc::channel(LINK_CAPACITY);
    let hello = session_request::Body::Hello(v1::SessionHello {
        service: shared.identity.service.clone(),
        holder: shared.identity.holder.clone(),
        revision_seen: shared.state().revision_seen,
    });
    let sequence = shared.state().next_sequence();
    let first = v1::SessionRequest { sequence, body: Some(hello) };
    link.try_send(first).map_err(|_| Error::protocol("the stream has no room for a hello"))?;
    let mut client = LeaseServiceClient::new(shared.channel.clone())
        .max_decoding_message_size(MESSAGE_MAX_BYTES);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    if let Some(trace_parent) = shared.trace.current().and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert(TRACE_PARENT, trace_parent);
    }
    let mut messages = client.session(request).await?.into_inner();
    let answer = messages.message().await?.and_then(|message| message.body);
    match answer {
        Some(session_response::Body::Welcome(welcome)) => Ok((link, welcome, messages)),
        Some(session_response::Body::Error(error)) => Err(error.into()),
        Some(_) => Err(Error::protocol("the first answer of a session is no welcome")),
        None => Err(stream_ended()),
    }
}

/// Hands every message on until the stream ends or nobody needs it.
async fn read(shared: &Shared, messages: &mut Streaming<v1::SessionResponse>) -> End {
    loop {
        tokio::select! {
            biased;
            message = messages.message() => match message {
                Ok(Some(message)) => shared.receive(message),
                Ok(None) => return End::Broken(stream_ended()),
                Err(status) => return End::Broken(status.into()),
            },
            () = shared.wanted.notified() => {}
        }
        if shared.is_finished() {
            return End::Finished;
        }
    }
}

fn stream_ended() -> Error {
    let message = "the coordinator ended the session's stream";
    Error::new(ErrorKind::Unavailable, "UNREACHABLE", message)
}

impl Shared {
    /// Nobody is left, and nothing is left to be answered.
    fn is_finished(&self) -> bool {
        let state = self.state();
        state.closing && state.pending.is_empty()
    }

    /// Waits until there is a reason for a stream; `false`: there never will be one again.
    async fn until_needed(&self) -> bool {
        loop {
            if self.is_finished() {
                return false;
            }
            if self.state().is_needed() {
                return true;
            }
            self.wanted.notified().await;
        }
    }

    async fn sleep_unless_finished(&self, pause: Duration) -> bool {
        let sleep = tokio::time::sleep(pause);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return true,
                () = self.wanted.notified() => {}
            }
            if self.is_finished() {
                return false;
            }
        }
    }

    fn resume(&self, link: Link, welcome: v1::SessionWelcome, asked_at: Duration) {
        tracing::debug!(version = %welcome.version, leases = welcome.leases.len(), "session open");
        self.breaker.reached();
        let now = self.clock.now();
        let told = Told { after: asked_at, before: now };
        self.state().resume(link, welcome.leases, told, now);
        self.attention.notify_one();
    }

    fn open_failed(&self, error: &Error, tried_at: Duration) {
        let now = self.clock.now();
        self.breaker.failed(error, now);
        let mut state = self.state();
        let deliveries = state.open_failed(error, tried_at, now);
        self.call_keepalive(&state);
        drop(state);
        self.deliver(deliveries);
    }

    fn end(&self, error: &Error, reason: &LostReason) {
        let deliveries = self.state().end(error, reason);
        self.deliver(deliveries);
    }
}
