//! [`RedisSource`]: asks Redis over one connection that is opened once and kept.
//!
//! The usual exporter dials anew for each scrape. When the server is at its client limit, that one is turned away and
//! goes blind in the very minute it was bought for, and adds a rejected connection with each scrape. A connection that
//! was there before keeps its place and sees the limit, the clients and the rejections. What it does not prove is that a
//! new client can connect.
//!
//! One task, the keeper, owns the connection, dials and asks, one thing after the other; so there is never a second
//! connection, however many scrapes there are and however long a dial takes. It dials at most once per second, and with
//! growing pauses while nobody scrapes.
//!
//! A scrape that gives up takes nothing with it: the keeper finishes what it began and knows the outcome for the next.

use std::{net::SocketAddr, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, FromRedisValue, RedisError, aio::MultiplexedConnection,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use super::{Info, Reason, RedisUrl};
use crate::task::Task;

/// The name in `CLIENT LIST`.
const CONNECTION_NAME: &str = "spool-lock-exporter";
/// The least time between two dials.
const DIAL_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between dials that no scrape asked for: about one scrape interval.
const MAX_DIAL_PAUSE: Duration = Duration::from_secs(15);
/// How long a new connection is listened to before anything is sent; see [`refused_with_words`].
const GREETING: Duration = Duration::from_millis(20);

/// Redis as the collector sees it: a question and an answer.
#[derive(Debug)]
pub(crate) struct RedisSource {
    questions: mpsc::Sender<Question>,
    _keeper: Task,
}

type Answer = Result<Info, Reason>;
type Question = oneshot::Sender<Answer>;

impl RedisSource {
    /// Starts the keeper, which dials at once: a place taken early is there when it is needed.
    pub(crate) fn start(url: RedisUrl, patience: Duration) -> Self {
        let (questions, asked) = mpsc::channel(4);
        let keeper = Keeper {
            url,
            patience,
            kept: None,
            next_dial: Instant::now(),
            pause: DIAL_PAUSE,
            last: Reason::Io,
        };
        Self { questions, _keeper: Task::spawn(keeper.run(asked)) }
    }

    /// One `INFO`. Waits for a dial that is under way; the caller brings the deadline.
    pub(crate) async fn read(&self) -> Answer {
        let (question, answer) = oneshot::channel();
        // The keeper ends only with this value; were it to panic, that is a source that failed.
        self.questions.send(question).await.map_err(|_| Reason::Io)?;
        answer.await.map_err(|_| Reason::Io)?
    }
}

/// The task that owns the connection.
struct Keeper {
    url: RedisUrl,
    /// For one dial, and for one `INFO`.
    patience: Duration,
    kept: Option<Kept>,
    /// The earliest time of a dial that a scrape asks for; the keeper's own come `pause` after the last.
    next_dial: Instant,
    pause: Duration,
    /// Why there is no connection.
    last: Reason,
}

/// The connection. Its socket is closed with this value, even with a reply outstanding.
struct Kept {
    connection: MultiplexedConnection,
    /// Set when we made the driver; otherwise the connection carries it.
    _driver: Option<Task>,
}

/// Why a dial or an `INFO` failed.
struct Failure {
    reason: Reason,
    text: String,
    /// Whether the connection can still be used: the server said no in good order.
    usable: bool,
}

impl Keeper {
    async fn run(mut self, mut asked: mpsc::Receiver<Question>) {
        self.dial().await;
        loop {
            let idle_until = self.next_dial + self.pause.saturating_sub(DIAL_PAUSE);
            tokio::select! {
                question = asked.recv() => match question {
                    None => return,
                    // Its scrape has given up while another question or a dial took its time.
                    Some(question) if question.is_closed() => {}
                    Some(question) => {
                        let answer = self.answer().await;
                        let _ = question.send(answer);
                    }
                },
                () = sleep_until(idle_until), if self.kept.is_none() => self.dial().await,
            }
        }
    }

    async fn answer(&mut self) -> Answer {
        let had_one = self.kept.is_some();
        match self.info().await {
            Ok(info) => return Ok(info),
            // That an old connection was closed (a restart, CLIENT KILL) shows only now: a new one may try again.
            Err(reason) if had_one && self.kept.is_none() && reason == Reason::Io => {}
            Err(reason) if had_one => return Err(reason),
            Err(_) => {}
        }
        if Instant::now() >= self.next_dial {
            self.dial().await;
        }
        self.info().await
    }

    /// Asks over the connection that is there, and drops it if it does not deserve to be kept.
    async fn info(&mut self) -> Answer {
        let Some(kept) = &mut self.kept else { return Err(self.last) };
        let mut info = redis::cmd("INFO");
        info.arg(&Info::SECTIONS);
        let answer = timeout(self.patience, info.query_async::<redis::Value>(&mut kept.connection)).await;
        let answer = answer.unwrap_or_else(|_| Err(timed_out()));
        // The reply is bytes of somebody else: lossy, because one strange byte must not hide the rest.
        let text = answer.and_then(|value| Ok(Vec::<u8>::from_redis_value(value)?));
        match text {
            Ok(text) => match Info::parse(&String::from_utf8_lossy(&text)) {
                // It answers this and nothing else: for everybody who needs a lock it is down.
                info if info.loading => Err(Reason::Loading),
                info => Ok(info),
            },
            Err(error) => {
                let failure = self.failure(&error);
                tracing::debug!(reason = failure.reason.as_str(), error = failure.text, "INFO failed");
                if !failure.usable {
                    self.kept = None;
                    self.last = failure.reason;
                }
                Err(failure.reason)
            }
        }
    }

    /// Opens the connection, and notes when the next dial may be.
    async fn dial(&mut self) {
        self.next_dial = Instant::now() + DIAL_PAUSE;
        let opened = timeout(self.patience, self.open()).await;
        match opened.unwrap_or_else(|_| Err(self.failure(&timed_out()))) {
            Ok(kept) => {
                tracing::debug!(url = %self.url, "connected to redis");
                self.kept = Some(kept);
                self.pause = DIAL_PAUSE;
            }
            Err(failure) => {
                tracing::debug!(url = %self.url, reason = failure.reason.as_str(), error = failure.text, "no connection");
                self.last = failure.reason;
                self.pause = (self.pause * 2).min(MAX_DIAL_PAUSE);
            }
        }
    }

    async fn open(&self) -> Result<Kept, Failure> {
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(Some(self.patience));
        let mut kept = match self.url.info().addr() {
            ConnectionAddr::Tcp(host, port) => self.open_tcp(host, *port, limits).await?,
            _ => {
                let client = Client::open(self.url.info().clone()).map_err(|error| self.failure(&error))?;
                let connection = client.get_multiplexed_async_connection_with_config(&limits).await;
                Kept { connection: connection.map_err(|error| self.failure(&error))?, _driver: None }
            }
        };
        let named =
            redis::cmd("CLIENT").arg("SETNAME").arg(CONNECTION_NAME).exec_async(&mut kept.connection).await;
        match named.map_err(|error| self.failure(&error)) {
            // A user who may not name the connection may still ask.
            Err(failure) if failure.reason == Reason::Auth && failure.usable => Ok(kept),
            Err(failure) => Err(failure),
            Ok(()) => Ok(kept),
        }
    }

    /// Tries the addresses of a host one after the other; the client library would dial them all at once, and each dial
    /// counts at a server that is short of connections.
    async fn open_tcp(&self, host: &str, port: u16, limits: AsyncConnectionConfig) -> Result<Kept, Failure> {
        let addresses =
            tokio::net::lookup_host((host, port)).await.map_err(|error| self.failure(&error.into()))?;
        let stream = connect_first(addresses).await.map_err(|error| self.failure(&error.into()))?;
        if let Some(words) = refused_with_words(&stream).await {
            let reason =
                if words.contains("max number of clients") { Reason::MaxClients } else { Reason::Io };
            return Err(Failure { reason, text: self.url.redact(&words), usable: false });
        }
        let settings = self.url.info().redis_settings();
        let opened = MultiplexedConnection::new_with_config(settings, stream, limits).await;
        let (connection, driver) = opened.map_err(|error| self.failure(&error))?;
        Ok(Kept { connection, _driver: Some(Task::spawn(driver)) })
    }

    fn failure(&self, error: &RedisError) -> Failure {
        let reason = Reason::of(error, self.url.is_tls());
        Failure { reason, text: self.url.redact(&error.to_string()), usable: error.code().is_some() }
    }
}

async fn connect_first(addresses: impl Iterator<Item = SocketAddr>) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What the server says before it was asked anything: Redis speaks first only to turn a client away.
///
/// Whoever sends at once hardly ever reads these words: the server has closed, the send is answered by a reset, and the
/// reset throws the words away. A moment of silence makes the difference between `max_clients` and `io`.
async fn refused_with_words(stream: &TcpStream) -> Option<String> {
    let mut words = [0; 128];
    match timeout(GREETING, stream.peek(&mut words)).await {
        Ok(Ok(0)) => Some("closed in the handshake".to_owned()),
        Ok(Ok(length)) => Some(String::from_utf8_lossy(words.get(..length)?).trim_end().to_owned()),
        // A socket that is already broken shows it again on the first send.
        Ok(Err(_)) | Err(_) => None,
    }
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
