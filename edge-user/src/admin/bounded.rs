//! Bounds the number and the duration of connections. When the limit is reached, the oldest
//! connection is evicted, so that idle ones do not delay a health check. Evictions are
//! rate-limited, so that a flood of connections does not load the server.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

/// Concurrent connections of one listener.
pub(super) const CONNECTION_COUNT_MAX: usize = 64;
/// From accept to the first byte of the response.
pub(super) const REQUEST_TIME_MAX: Duration = Duration::from_secs(1);
/// From accept to close.
pub(super) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);
/// The interval between evictions; new connections wait in the kernel's backlog.
const EVICT_EVERY: Duration = Duration::from_millis(1);

/// A listener with a bounded number of connections of bounded duration.
#[derive(Debug)]
pub(super) struct Bounded<L> {
    listener: L,
    /// Open connections, oldest first. Dropping a sender ends its connection.
    places: VecDeque<oneshot::Sender<()>>,
}

impl<L> Bounded<L> {
    pub(super) const fn new(listener: L) -> Self {
        Self {
            listener,
            places: VecDeque::new(),
        }
    }

    async fn make_room(&mut self) {
        self.places.retain(|place| !place.is_closed());
        if self.places.len() >= CONNECTION_COUNT_MAX {
            sleep(EVICT_EVERY).await;
            self.places.pop_front();
        }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Brief<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (connection, address) = self.listener.accept().await;
        self.make_room().await;
        let (place, evicted) = oneshot::channel();
        self.places.push_back(place);
        let connection = Brief {
            connection,
            accepted: Instant::now(),
            deadline: Box::pin(sleep(REQUEST_TIME_MAX)),
            answered: false,
            evicted: Some(evicted),
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that fails at its deadline or when it is evicted.
#[derive(Debug)]
pub(super) struct Brief<C> {
    connection: C,
    accepted: Instant,
    deadline: Pin<Box<Sleep>>,
    answered: bool,
    /// `None` once it was evicted.
    evicted: Option<oneshot::Receiver<()>>,
}

impl<C> Brief<C> {
    /// Also registers the task to be woken by the timer and by eviction.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let evicted = self
            .evicted
            .as_mut()
            .is_none_or(|evicted| Pin::new(evicted).poll(context).is_ready());
        if evicted {
            self.evicted = None;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Brief<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Brief<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.answered {
            self.answered = true;
            let ends = self.accepted + CONNECTION_TIME_MAX;
            self.deadline.as_mut().reset(ends);
        }
        self.check(context)?;
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
