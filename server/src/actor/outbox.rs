//! The line from the actor to one session: bounded, handed over in bulk, one wake-up for each batch.
//!
//! Promises: sending never blocks, order is kept, and a session that does not read is ended (overrun) while nobody
//! else notices (P19). What was sent before the end can still be received.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::message::SessionMessage;

/// The most messages that wait for one session: 2 replies for each of 4,096 requests in flight, twice over.
/// At about 500 bytes each that is 8 MiB.
pub const OUTBOX_MESSAGES_MAX: usize = 16_384;

/// Makes a line.
#[must_use]
pub fn session_channel() -> (SessionOutbox, SessionInbox) {
    let line = Arc::new(Line::default());
    (SessionOutbox(Arc::clone(&line)), SessionInbox(line))
}

/// The actor's end.
#[derive(Clone, Debug)]
pub struct SessionOutbox(Arc<Line>);

/// The session's end.
#[derive(Debug)]
pub struct SessionInbox(Arc<Line>);

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboxEnd {
    /// The session did not read: more than [`OUTBOX_MESSAGES_MAX`] messages waited.
    Overrun,
    /// The actor said all it had to say: after [`SessionMessage::Replaced`] or [`SessionMessage::Goodbye`], or
    /// without either when the coordinator failed.
    Closed,
}

#[derive(Debug, Default)]
struct Line {
    state: Mutex<LineState>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct LineState {
    messages: Vec<SessionMessage>,
    end: Option<InboxEnd>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, LineState> {
        // Every change under the lock is whole, even after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionOutbox {
    /// Sends all of `messages`, leaving it empty; answers false where the session no longer listens.
    pub(super) fn send_all(&self, messages: &mut Vec<SessionMessage>) -> bool {
        let mut state = self.0.lock();
        if state.end.is_some() {
            messages.clear();
            return false;
        }
        if state.messages.len() + messages.len() > OUTBOX_MESSAGES_MAX {
            messages.clear();
            state.end = Some(InboxEnd::Overrun);
        } else if state.messages.is_empty() {
            // The two buffers change places, so that neither is allocated anew.
            std::mem::swap(&mut state.messages, messages);
        } else {
            state.messages.append(messages);
        }
        let listening = state.end.is_none();
        drop(state);
        self.0.arrived.notify_one();
        listening
    }

    /// Ends the line once everything sent is received.
    pub(super) fn close(&self) {
        self.0.lock().end.get_or_insert(InboxEnd::Closed);
        self.0.arrived.notify_one();
    }
}

impl SessionInbox {
    /// Waits for messages and takes all there are; `into` is cleared first and its buffer is used again.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// Why nothing more comes.
    pub async fn receive(&mut self, into: &mut Vec<SessionMessage>) -> Result<(), InboxEnd> {
        into.clear();
        loop {
            let arrived = self.0.arrived.notified();
            {
                let mut state = self.0.lock();
                if !state.messages.is_empty() {
                    std::mem::swap(&mut state.messages, into);
                    return Ok(());
                }
                if let Some(end) = state.end {
                    return Err(end);
                }
            }
            arrived.await;
        }
    }
}

impl Drop for SessionInbox {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.end.get_or_insert(InboxEnd::Closed);
        state.messages = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(count: usize) -> Vec<SessionMessage> {
        vec![SessionMessage::Replaced; count]
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_is_received_then_the_end() {
        let (outbox, mut inbox) = session_channel();
        assert!(outbox.send_all(&mut replaced(2)));
        assert!(outbox.send_all(&mut replaced(1)));
        outbox.close();
        let mut got = Vec::new();
        assert_eq!(inbox.receive(&mut got).await, Ok(()));
        assert_eq!(got.len(), 3);
        assert_eq!(inbox.receive(&mut got).await, Err(InboxEnd::Closed));
    }

    #[tokio::test]
    async fn a_session_that_does_not_read_is_overrun_and_keeps_what_it_had() {
        let (outbox, mut inbox) = session_channel();
        assert!(outbox.send_all(&mut replaced(OUTBOX_MESSAGES_MAX)));
        assert!(!outbox.send_all(&mut replaced(1)));
        let mut got = Vec::new();
        assert_eq!(inbox.receive(&mut got).await, Ok(()));
        assert_eq!(got.len(), OUTBOX_MESSAGES_MAX);
        assert_eq!(inbox.receive(&mut got).await, Err(InboxEnd::Overrun));
    }

    #[tokio::test]
    async fn an_inbox_that_is_gone_takes_nothing() {
        let (outbox, inbox) = session_channel();
        drop(inbox);
        assert!(!outbox.send_all(&mut replaced(1)));
    }
}
