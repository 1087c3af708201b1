//! What the holder sends, in bursts.

use std::{future::poll_fn, pin::Pin, task::Poll};

use gpulease_proto::v1::{self, session_request::Body};
use tokio_stream::Stream as _;
use tonic::{Code, Status, Streaming};

use crate::api::{
    limits::{HELLO_WAIT_MAX, READ_BURST_MAX},
    status::{EdgeError, undecodable},
};

/// The reading side of a session.
pub(super) struct Inbound {
    stream: Streaming<v1::SessionRequest>,
    open: bool,
}

impl Inbound {
    pub(super) fn new(stream: Streaming<v1::SessionRequest>) -> Self {
        Self { stream, open: true }
    }

    /// More may come.
    pub(super) fn open(&self) -> bool {
        self.open
    }

    /// The first message, which must be a hello, with its number.
    pub(super) async fn hello(&mut self) -> Result<(u64, v1::SessionHello), EdgeError> {
        let first = tokio::time::timeout(HELLO_WAIT_MAX, self.stream.message()).await;
        let first = first.map_err(|_| EdgeError::NoHello)?;
        match first.map_err(|status| broken(&status))? {
            Some(v1::SessionRequest { sequence, body: Some(Body::Hello(hello)) }) => {
                Ok((sequence, hello))
            }
            _ => Err(EdgeError::NoHello),
        }
    }

    /// Waits for messages and takes what is there, at most [`READ_BURST_MAX`]. Given up while waiting, it loses none.
    pub(super) async fn read(
        &mut self,
        into: &mut Vec<v1::SessionRequest>,
    ) -> Result<(), EdgeError> {
        poll_fn(|cx| {
            while into.len() < READ_BURST_MAX {
                match Pin::new(&mut self.stream).poll_next(cx) {
                    Poll::Ready(Some(Ok(request))) => into.push(request),
                    Poll::Ready(Some(Err(status))) => return Poll::Ready(Err(broken(&status))),
                    Poll::Ready(None) => {
                        self.open = false;
                        break;
                    }
                    Poll::Pending if into.is_empty() => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

/// A stream that broke: too long, no message, or cut off; nobody is left to read the answer to the last.
fn broken(status: &Status) -> EdgeError {
    let other = || match status.code() {
        Code::OutOfRange => EdgeError::MessageTooLarge,
        _ => EdgeError::MalformedMessage,
    };
    undecodable(status).unwrap_or_else(other)
}
