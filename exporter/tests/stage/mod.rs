//! What the exporter's tests stand on: an exporter in this process, services that misbehave, and a scraper.

// Each test binary includes the whole module and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use spool_lock_exporter::{CommandLine, Config, serve};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// A snapshot as a service sends it; the library's own tests keep it in step with its types.
pub const SNAPSHOT: &str = include_str!("../../../tests/fixtures/snapshot.json");

/// What the command line makes of these arguments.
pub fn config(args: &[&str]) -> Config {
    let args = std::iter::once("exporter").chain(args.iter().copied()).map(OsString::from);
    match CommandLine::parse(args) {
        Ok(CommandLine::Run(config)) => config,
        other => panic!("{other:?}"),
    }
}

/// A running exporter; it ends with the value.
pub struct Exporter {
    pub address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    ended: JoinHandle<std::io::Result<()>>,
}

impl Exporter {
    pub async fn start(args: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ends) = oneshot::channel::<()>();
        let ended = tokio::spawn(serve(listener, config(args), async move {
            let _ = ends.await;
        }));
        Self { address, end: Some(end), ended }
    }

    /// As [`start`](Self::start), and waits until it is ready.
    pub async fn ready(args: &[&str]) -> Self {
        let exporter = Self::start(args).await;
        while exporter.get("/-/ready").await.status != 200 {
            sleep(Duration::from_millis(5)).await;
        }
        exporter
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    /// One scrape, and its page.
    pub async fn scrape(&self) -> Page {
        let reply = self.get("/metrics").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        Page { text: reply.body, took: reply.took }
    }

    pub async fn send(&self, request: &str) -> Reply {
        let started = Instant::now();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(Duration::from_secs(15), stream.read_to_string(&mut text)).await.unwrap().unwrap();
        Reply::parse(&text, started.elapsed())
    }

    /// Tells it to end and waits until it has.
    pub async fn end(mut self) {
        self.tell_to_end();
        (&mut self.ended).await.unwrap().unwrap();
    }

    pub fn tell_to_end(&mut self) {
        let _ = self.end.take().unwrap().send(());
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.ended.abort();
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub took: Duration,
}

impl Reply {
    pub fn parse(text: &str, took: Duration) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no header in {text:?}"));
        let (status, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.into(), value.into()));
        Self {
            status: status.split(' ').nth(1).unwrap().parse().unwrap(),
            headers: headers.lines().filter_map(header).collect(),
            body: body.to_owned(),
            took,
        }
    }
}

/// What a scrape brought.
#[derive(Debug)]
pub struct Page {
    pub text: String,
    pub took: Duration,
}

impl Page {
    /// The value of a series, written as on the page: `spool_up{service="a"}`.
    pub fn value(&self, series: &str) -> Option<f64> {
        let line = self.text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    #[track_caller]
    pub fn assert(&self, series: &str, value: f64) {
        assert_eq!(self.value(series), Some(value), "{series} on\n{}", self.outline());
    }

    /// The page without the many series of services.
    pub fn outline(&self) -> String {
        let is_short = |line: &&str| !line.starts_with(['#']) && !line.contains(",");
        self.text.lines().filter(is_short).collect::<Vec<_>>().join("\n")
    }

    /// Exactly this reason is shown for a Redis that is down.
    #[track_caller]
    pub fn assert_redis_down(&self, reason: &str) {
        self.assert("spool_redis_up", 0.0);
        for word in ["max_clients", "timeout", "refused", "auth", "tls", "io", "loading"] {
            let value = if word == reason { 1.0 } else { 0.0 };
            self.assert(&format!("spool_redis_probe_failure{{reason=\"{word}\"}}"), value);
        }
        assert!(!self.has("spool_redis_connected_clients"));
    }

    /// Whether any series of a family is there.
    pub fn has(&self, family: &str) -> bool {
        self.text.lines().any(|line| line.starts_with(&format!("# TYPE {family} ")))
    }
}

/// What a service does with a request.
#[derive(Clone)]
pub enum Manner {
    Answers(String),
    AnswersLate(String, Duration),
    /// Accepts and never says a word.
    Silent,
}

/// A service with a socket; both end with the value.
pub struct Service {
    dir: TempDir,
    path: PathBuf,
    served: JoinHandle<()>,
    requests: Arc<AtomicUsize>,
}

impl Service {
    pub fn start(manner: Manner) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("picker.sock");
        let requests = Arc::new(AtomicUsize::new(0));
        let served = tokio::spawn(accept(UnixListener::bind(&path).unwrap(), manner, Arc::clone(&requests)));
        Self { dir, path, served, requests }
    }

    /// One that does what it should.
    pub fn well() -> Self {
        Self::start(Manner::Answers(answer("200 OK", SNAPSHOT)))
    }

    pub fn silent() -> Self {
        Self::start(Manner::Silent)
    }

    /// The `--service` that reads it, called `picker`.
    pub fn arg(&self) -> String {
        format!("--service=unix:{}", self.path.display())
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Snapshots that were asked for.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// As a killed process: the socket file stays, nobody listens.
    pub async fn kill(&mut self) {
        self.served.abort();
        let _ = (&mut self.served).await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.served.abort();
    }
}

pub fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn accept(listener: UnixListener, manner: Manner, requests: Arc<AtomicUsize>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        tokio::spawn(converse(stream, manner.clone(), Arc::clone(&requests)));
    }
}

async fn converse(mut stream: UnixStream, manner: Manner, requests: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    assert!(request.starts_with(b"GET /v1/snapshot HTTP/1.1\r\n"));
    requests.fetch_add(1, Ordering::SeqCst);
    let text = match manner {
        Manner::Answers(text) => text,
        Manner::AnswersLate(text, delay) => {
            sleep(delay).await;
            text
        }
        Manner::Silent => std::future::pending().await,
    };
    let _ = stream.write_all(text.as_bytes()).await;
    // Until the other side closes, as a server with keep-alive does.
    let _ = stream.read_u8().await;
}
