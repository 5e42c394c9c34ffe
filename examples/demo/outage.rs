//! [`Outage`]: when the server went away and came back, and what the workers noticed of it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

/// How often a server that is away is looked for.
const LOOK_EACH: Duration = Duration::from_millis(10);

/// The first outage of a run; what comes first is set first.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    gone: OnceLock<Instant>,
    /// The first call that was refused without asking the server.
    refused: OnceLock<Instant>,
    back: OnceLock<Instant>,
    /// The first acquire that was answered again.
    answered: OnceLock<Instant>,
    /// The last deferred release that is done with.
    settled: Mutex<Option<Instant>>,
}

impl Outage {
    /// An outage that is yet to come, and that is noted as it does for as long as the runtime lives.
    pub(crate) fn witnessed(server: SocketAddr) -> Arc<Self> {
        let outage = Arc::new(Self::default());
        let witness = outage.clone();
        tokio::spawn(async move { witness.watch(server).await });
        outage
    }

    /// Over a connection that carries nothing: its end is the server's.
    async fn watch(&self, server: SocketAddr) {
        loop {
            if let Ok(mut connection) = greet(server).await {
                once_after(&self.gone, &self.back);
                let _ended = connection.read(&mut [0]).await;
                self.gone.get_or_init(Instant::now);
            }
            sleep(LOOK_EACH).await;
        }
    }

    pub(crate) fn refused(&self) {
        once_after(&self.gone, &self.refused);
    }

    pub(crate) fn answered(&self) {
        once_after(&self.back, &self.answered);
    }

    pub(crate) fn settled(&self) {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.gone.get().is_some()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.back.get().is_some()
    }

    /// Whether it has begun and no acquire has been answered since.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.has_begun() && self.answered.get().is_none()
    }

    /// How long it took until calls were refused.
    pub(crate) fn noticed_after(&self) -> Option<Duration> {
        Some(self.refused.get()?.duration_since(*self.gone.get()?))
    }

    /// How long the server was away.
    pub(crate) fn length(&self) -> Option<Duration> {
        Some(self.back.get()?.duration_since(*self.gone.get()?))
    }

    /// How long after the server's return the first acquire was answered.
    pub(crate) fn recovered_after(&self) -> Option<Duration> {
        Some(self.answered.get()?.duration_since(*self.back.get()?))
    }

    /// How long after the server's return the last deferred release was done with.
    pub(crate) fn settled_after(&self) -> Option<Duration> {
        let settled = *self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        Some(settled?.duration_since(*self.back.get()?))
    }
}

fn once_after(earlier: &OnceLock<Instant>, moment: &OnceLock<Instant>) {
    if earlier.get().is_some() {
        moment.get_or_init(Instant::now);
    }
}

/// A connection to a server that answers: while it loads its data it does not.
async fn greet(server: SocketAddr) -> std::io::Result<TcpStream> {
    let mut connection = TcpStream::connect(server).await?;
    connection.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    connection.read_exact(&mut answer).await?;
    match &answer {
        b"+PONG\r\n" => Ok(connection),
        _ => Err(std::io::Error::other("the server is not ready")),
    }
}
