//! Accepted connections, counted: one over [`CONNECTIONS_MAX`] is closed at once, so that the others keep working.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::Connected;

use super::limits::CONNECTIONS_MAX;

/// Places for connections, shared by all listeners.
#[derive(Clone)]
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS_MAX)))
    }
}

impl Places {
    /// Lets connections in while there are places.
    pub(super) fn admit<C>(
        &self,
        incoming: impl Stream<Item = io::Result<C>>,
    ) -> impl Stream<Item = io::Result<Counted<C>>> {
        let places = Arc::clone(&self.0);
        incoming.filter_map(move |accepted| match accepted {
            Err(error) => Some(Err(error)),
            Ok(connection) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => Some(Ok(Counted { connection, _place: place })),
                Err(_) => {
                    tracing::warn!("closed a new connection: {CONNECTIONS_MAX} are open");
                    None
                }
            },
        })
    }
}

/// A connection and its place.
pub(super) struct Counted<C> {
    connection: C,
    _place: OwnedSemaphorePermit,
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
        Pin::new(&mut self.connection).poll_read(cx, into)
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
