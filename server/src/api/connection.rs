//! Accepted connections, counted: one over the bound is closed at once, so that the others keep working.
//!
//! A place is for those who speak: who connects and says nothing loses it after [`GREETING_WAIT_MAX`]. The bounds stay
//! within what the system lets the process open, for beyond that the journal could not open its files either.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::Connected;

use super::limits::{
    CONNECTIONS_MAX, GREETING_BYTES, GREETING_WAIT_MAX, HTTP_CONNECTION_AGE_MAX,
    HTTP_CONNECTIONS_MAX, OWN_FILES,
};

/// Places for connections; clones share them.
#[derive(Clone)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    max: usize,
    /// A connection may stay so long, unless it has sent so many bytes by then.
    stay: (Duration, usize),
}

impl Places {
    /// For gRPC, which greets first and then answers pings.
    pub(super) fn for_grpc() -> Self {
        Self::new(CONNECTIONS_MAX.min(files() / 4 * 3), (GREETING_WAIT_MAX, GREETING_BYTES))
    }

    /// For HTTP: probes, each over in no time.
    pub(crate) fn for_http() -> Self {
        Self::new(HTTP_CONNECTIONS_MAX.min(files() / 4), (HTTP_CONNECTION_AGE_MAX, usize::MAX))
    }

    fn new(max: usize, stay: (Duration, usize)) -> Self {
        let max = max.max(1);
        Self { free: Arc::new(Semaphore::new(max)), max, stay }
    }

    /// Lets connections in while there are places.
    pub(super) fn admit<C>(
        &self,
        incoming: impl Stream<Item = io::Result<C>>,
    ) -> impl Stream<Item = io::Result<Counted<C>>> {
        let places = self.clone();
        incoming.filter_map(move |accepted| match accepted {
            Err(error) => Some(Err(error)),
            Ok(connection) => places.seat(connection).map(Ok),
        })
    }

    /// A place for one connection, which is closed where there is none.
    pub(crate) fn seat<C>(&self, connection: C) -> Option<Counted<C>> {
        let Ok(place) = Arc::clone(&self.free).try_acquire_owned() else {
            tracing::warn!("closed a new connection: {} are open", self.max);
            return None;
        };
        let (wait, bytes) = self.stay;
        let patience = Patience { left: bytes, until: Some(Box::pin(sleep(wait))) };
        Some(Counted { connection, patience, _place: place })
    }
}

/// How many files are left for connections.
fn files() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    limit.saturating_sub(OWN_FILES)
}

/// A connection and its place.
pub(crate) struct Counted<C> {
    connection: C,
    patience: Patience,
    _place: OwnedSemaphorePermit,
}

/// Until when a connection is listened to; for good, once it has sent enough.
struct Patience {
    left: usize,
    until: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.until.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready())
    }

    fn heard(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        if self.left == 0 {
            self.until = None;
        }
    }
}

impl<C: Connected> Connected for Counted<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.patience.is_over(cx) {
            // Nothing read is the end of what the peer sends.
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(cx, into);
        self.patience.heard(into.filled().len() - before);
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const WAIT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn who_says_nothing_loses_the_place_and_who_greets_keeps_it() {
        let places = Places::new(2, (WAIT, GREETING_BYTES));
        let (mut greeting_peer, greeting) = duplex(64);
        let mut greeting = places.seat(greeting).unwrap();
        greeting_peer.write_all(&[b'P'; GREETING_BYTES]).await.unwrap();
        greeting.read_exact(&mut [0; GREETING_BYTES]).await.unwrap();
        let (_silent_peer, silent) = duplex(64);
        let mut silent = places.seat(silent).unwrap();
        assert!(places.seat(duplex(64).1).is_none(), "both places are taken");
        assert_eq!(silent.read(&mut [0; 9]).await.unwrap(), 0, "cut off");
        drop(silent);
        // The wait of the one that greeted would be over too.
        greeting_peer.write_all(b"more").await.unwrap();
        assert_eq!(greeting.read(&mut [0; 9]).await.unwrap(), 4);
        assert!(places.seat(duplex(64).1).is_some());
    }

    #[tokio::test]
    async fn bytes_that_trickle_in_keep_no_place() {
        let places = Places::new(1, (WAIT, GREETING_BYTES));
        let (mut peer, trickle) = duplex(64);
        let mut trickle = places.seat(trickle).unwrap();
        peer.write_all(b"PRI").await.unwrap();
        assert_eq!(trickle.read(&mut [0; 9]).await.unwrap(), 3);
        assert_eq!(trickle.read(&mut [0; 9]).await.unwrap(), 0, "cut off");
    }
}
