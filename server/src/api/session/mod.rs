//! The session: the lease service of one holder over one stream (P22).
//!
//! Promises: a hello first; every message answered under its own number, however many are in flight; the actor gets
//! them in the order they came; the end of the stream, however it comes, is told to the actor once.
//! A half-closed stream is answered to the end, then ends. It runs inside the task that writes the response, in turns:
//! read what came, hand it in, write what the actor answered. Where the reader does not read, nothing is read of it
//! either, and the actor's line to it is bounded.

mod desk;
mod inbound;
mod pending;

use std::sync::Arc;

use gpulease_core::{id::Caller, input::Input, time::Span};
use gpulease_proto::v1;
use tokio::sync::Semaphore;
use tonic::Streaming;

use self::{desk::Desk, inbound::Inbound};
use super::{
    convert,
    flow::{Flow, Flowing, flowing},
    limits::SESSIONS_MAX,
    peer::Peer,
    status::{Attempt, EdgeError, refuse},
};
use crate::{
    actor::{
        Handle, InboxEnd, ReplyTo, SessionInbox, SessionMessage, SubmitError, session_channel,
    },
    telemetry::operations::Operations,
};

/// What a session answers with.
pub(super) type SessionStream = Flowing<v1::SessionResponse>;

/// What sessions have in common.
#[derive(Debug)]
pub(super) struct Settings {
    /// How long a holder's place in the queue outlives its session.
    session_grace: Span,
    /// Where work told with renewals is added up.
    pub(super) operations: Operations,
    /// Room for so many sessions.
    places: Arc<Semaphore>,
}

impl Settings {
    pub(super) fn new(session_grace: Span, operations: Operations) -> Self {
        Self { session_grace, operations, places: Arc::new(Semaphore::new(SESSIONS_MAX)) }
    }
}

/// Opens a session; everything else happens as its stream is read.
pub(super) fn open(
    handle: Handle,
    settings: Arc<Settings>,
    peer: Peer,
    inbound: Streaming<v1::SessionRequest>,
) -> SessionStream {
    flowing(move |flow| async move {
        let ended = run(handle, settings, peer, Inbound::new(inbound), flow).await;
        ended.map_err(|error| refuse(Attempt::Session, error))
    })
}

/// Tells the actor that the session is over, however it ended.
struct Presence {
    handle: Handle,
    caller: Caller,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.handle.tell(Input::CallerGone { caller: self.caller });
    }
}

async fn run(
    handle: Handle,
    settings: Arc<Settings>,
    peer: Peer,
    mut inbound: Inbound,
    flow: Flow<v1::SessionResponse>,
) -> Result<(), EdgeError> {
    let place = Arc::clone(&settings.places).try_acquire_owned();
    let _place = place.map_err(|_| EdgeError::TooManyReaders { max: SESSIONS_MAX })?;
    let (sequence, hello) = inbound.hello().await?;
    let holder = convert::holder_named(&hello.service, &hello.holder)?;
    let (outbox, inbox) = session_channel();
    let caller = handle.caller_session(outbox);
    let presence = Presence { handle: handle.clone(), caller };
    let mut desk = Desk::new(handle.clone(), (caller, peer), holder.clone(), settings, flow);
    let tag = desk.expect(sequence);
    handle.submit(ReplyTo::Session { sequence: tag }, |ticket| Input::SessionOpened {
        caller,
        ticket,
        holder,
    })?;
    let ended = serve(&mut inbound, inbox, &mut desk).await;
    drop(presence);
    ended
}

/// Takes turns until either side is done.
async fn serve(
    inbound: &mut Inbound,
    mut inbox: SessionInbox,
    desk: &mut Desk,
) -> Result<(), EdgeError> {
    let (mut messages, mut requests) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            received = inbox.receive(&mut messages) => match received {
                Ok(()) => if deliver(&mut messages, desk).await? { return Ok(()) },
                Err(end) => return Err(ended(end, desk)),
            },
            read = inbound.read(&mut requests), if inbound.open() => {
                read?;
                requests.drain(..).for_each(|request| desk.take(request));
                desk.taken().await;
            }
        }
        if !inbound.open() && desk.idle() {
            return Ok(());
        }
    }
}

/// Writes what the actor said; answers whether that was the last.
async fn deliver(messages: &mut Vec<SessionMessage>, desk: &mut Desk) -> Result<bool, EdgeError> {
    for message in messages.drain(..) {
        match message {
            SessionMessage::Reply { sequence, reply } => desk.answer(sequence, reply),
            SessionMessage::Changed { revision, now, lease } => desk.changed(revision, now, &lease),
            SessionMessage::Replaced => return Err(EdgeError::SessionReplaced),
            SessionMessage::Goodbye { revision } => {
                desk.goodbye(revision);
                return Ok(true);
            }
        }
        if desk.written_enough() {
            desk.taken().await;
        }
    }
    desk.taken().await;
    Ok(false)
}

fn ended(end: InboxEnd, desk: &Desk) -> EdgeError {
    match end {
        InboxEnd::Overrun => EdgeError::SlowReader,
        InboxEnd::Closed => desk.handle().refusal().unwrap_or(SubmitError::Stopping).into(),
    }
}
