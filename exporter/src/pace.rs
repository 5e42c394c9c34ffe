//! [`Pace`]: how long a connection may take for what it does now.
//!
//! hyper has one limit for a header and starts it when the previous response is out, so that a scraper which comes each
//! 15 s could not keep its connection unless a slow header were let live as long. Here a header's time begins with its
//! first byte.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Instant, sleep_until},
};

/// From its first byte to its last, and from connecting to the first.
const HEADER: Duration = Duration::from_secs(5);
/// From the end of the header to the last byte of the response being taken.
const REQUEST: Duration = Duration::from_secs(10);
/// Between two requests.
const IDLE: Duration = Duration::from_secs(30);

/// What one connection does, and until when. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Pace(Arc<watch::Sender<Step>>);

#[derive(Debug, Clone, Copy)]
struct Step {
    doing: Doing,
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Header,
    Request,
    /// The response is made and goes out.
    Response,
    Idle,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Step { doing: Doing::Header, until: Instant::now() + HEADER })))
    }

    /// A header has come in whole.
    pub(crate) fn request_began(&self) {
        self.0.send_replace(Step { doing: Doing::Request, until: Instant::now() + REQUEST });
    }

    /// The response is made. Its way out is still on the request's time.
    pub(crate) fn response_made(&self) {
        self.0.send_modify(|step| step.doing = Doing::Response);
    }

    fn bytes_came(&self) {
        self.step_on(Doing::Idle, Doing::Header, HEADER);
    }

    fn bytes_are_out(&self) {
        self.step_on(Doing::Response, Doing::Idle, IDLE);
    }

    fn step_on(&self, from: Doing, to: Doing, limit: Duration) {
        self.0.send_if_modified(|step| {
            let is_due = step.doing == from;
            if is_due {
                *step = Step { doing: to, until: Instant::now() + limit };
            }
            is_due
        });
    }

    /// Returns when the connection has taken too long.
    pub(crate) async fn lost(&self) {
        let mut steps = self.0.subscribe();
        loop {
            let until = steps.borrow_and_update().until;
            tokio::select! {
                () = sleep_until(until) => return,
                // `self` holds the sender, so this is always a new step.
                _ = steps.changed() => {}
            }
        }
    }
}

/// A stream whose bytes move its [`Pace`] on.
#[derive(Debug)]
pub(crate) struct Paced<S> {
    stream: S,
    pace: Pace,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, pace: Pace) -> Self {
        Self { stream, pace }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.pace.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

// Without `poll_write_vectored`: hyper then puts header and body into one buffer, and they leave in one write.
impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    /// hyper flushes when it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.pace.bytes_are_out();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lost_after(pace: &Pace) -> Duration {
        let before = Instant::now();
        pace.lost().await;
        // tokio's timers have a millisecond; so have these limits nothing below a second.
        Duration::from_secs(before.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn each_step_has_its_own_limit() {
        let pace = Pace::new();
        assert_eq!(lost_after(&pace).await, HEADER);
        pace.request_began();
        tokio::time::advance(Duration::from_secs(4)).await;
        pace.response_made();
        assert_eq!(lost_after(&pace).await, REQUEST - Duration::from_secs(4));
        pace.bytes_are_out();
        assert_eq!(lost_after(&pace).await, IDLE);
        pace.bytes_came();
        tokio::time::advance(Duration::from_secs(3)).await;
        // More bytes of the same header buy no more time.
        pace.bytes_came();
        assert_eq!(lost_after(&pace).await, HEADER - Duration::from_secs(3));
    }
}
