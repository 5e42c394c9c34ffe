//! A network that misbehaves on command, between a client and a server.
//!
//! A TCP proxy that knows where RESP frames begin and end, so faults hit whole requests and replies. What it does never
//! breaks the order inside a connection: TCP cannot, so a proxy that did would test a driver against the impossible.
//! Hence a held request holds all behind it, and after a swallowed reply its connection stays silent.
//!
//! It runs on a thread of its own, with a clock that is never paused. It does not understand `CLIENT REPLY OFF`, and
//! passes TLS as bytes: modes that need frames do nothing there.

mod counters;
mod relay;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;

pub use self::relay::Close;
use self::relay::Shared;
pub use self::rules::{Held, LostReply};
use super::frame::Request;
use super::server::RedisServer;

/// A proxy in front of one port of 127.0.0.1. Passes everything until told otherwise; drop closes everything.
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    url: String,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl FaultProxy {
    /// A proxy in front of `server`; its [`url`](Self::url) has the server's password.
    pub fn before(server: &RedisServer) -> Self {
        let mut proxy = Self::to_port(server.port());
        proxy.url = server.url_at(proxy.port);
        proxy
    }

    pub fn to_port(server_port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fault-proxy")
            .enable_all()
            .build()
            .expect("a thread can be started");
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port can be bound");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let shared = Arc::new(Shared::new(server_port));
        let accepting = relay::accept(shared.clone(), {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).expect("the runtime takes the listener")
        });
        runtime.spawn(accepting);
        Self { port, url: format!("redis://127.0.0.1:{port}"), shared, runtime: Some(runtime) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// From now on the way leads to another server; connections to the one before are closed.
    pub fn switch_to(&self, server: &RedisServer) {
        self.shared.server_port.store(server.port(), Relaxed);
        self.close_all(Close::Rst);
    }

    /// Replies arrive `delay` later, each on its own: a pipeline gets slower, not thinner.
    pub fn delay(&self, delay: Duration) {
        self.shared.rules().reply_delay = delay;
    }

    /// Requests arrive `delay` later, each on its own.
    pub fn delay_requests(&self, delay: Duration) {
        self.shared.rules().request_delay = delay;
    }

    /// Loses the next `n` replies to requests for which `matches` holds. The server has applied those requests.
    pub fn drop_replies(
        &self,
        n: usize,
        how: LostReply,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) {
        self.shared.rules().lose(n, how, matches);
    }

    /// Keeps back requests for which `matches` holds, and all that follow them on their connections.
    ///
    /// The connection to the server stays open for them, also when the client's side has been closed.
    pub fn hold_requests(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Held {
        self.shared.rules().hold(matches)
    }

    /// Nothing passes in either direction, no connection is closed, until [`heal`](Self::heal): then all of it does.
    ///
    /// New connections are accepted (a listener cannot help it) and reach the server when healed.
    pub fn blackhole(&self) {
        self.shared.blackhole.send_replace(true);
    }

    /// Closes new connections at once.
    pub fn refuse(&self) {
        self.shared.rules().refuse = true;
    }

    /// Closes all connections, on both sides.
    pub fn close_all(&self, how: Close) {
        self.shared.close.send_modify(|order| order.all_before = (self.shared.counters.dials(), how));
    }

    /// Bytes travel one at a time.
    pub fn split_bytes(&self, on: bool) {
        self.shared.rules().split_bytes = on;
    }

    /// Ends every fault. Requests that are held already still wait for their [`Held`].
    pub fn heal(&self) {
        self.shared.rules().clear();
        self.shared.blackhole.send_replace(false);
    }

    /// Connections accepted so far, refused ones included.
    pub fn connections_opened(&self) -> usize {
        self.shared.counters.dials()
    }

    /// Connections whose client has not closed them.
    pub fn connections_open(&self) -> usize {
        self.shared.counters.open.load(Relaxed)
    }

    /// When each connection was accepted, on the real clock.
    pub fn dials(&self) -> Vec<Instant> {
        self.shared.counters.dialled_at()
    }

    /// The most connections accepted within any stretch of `window`.
    pub fn peak_dials(&self, window: Duration) -> usize {
        let dials = self.dials();
        let within = |from: usize| dials[from..].iter().take_while(|at| **at - dials[from] < window).count();
        (0..dials.len()).map(within).max().unwrap_or(0)
    }

    /// Requests delivered to the server.
    pub fn frames_to_server(&self) -> u64 {
        self.shared.counters.frames_to_server.load(Relaxed)
    }

    /// Replies and pushes delivered to clients.
    pub fn frames_to_client(&self) -> u64 {
        self.shared.counters.frames_to_client.load(Relaxed)
    }

    /// Bytes delivered, both ways together.
    pub fn bytes(&self) -> u64 {
        self.shared.counters.bytes.load(Relaxed)
    }

    /// Replies lost by [`drop_replies`](Self::drop_replies).
    pub fn replies_dropped(&self) -> u64 {
        self.shared.counters.replies_dropped.load(Relaxed)
    }

    /// Requests received from clients, delivered or not, by name in upper case.
    pub fn commands(&self) -> BTreeMap<String, u64> {
        self.shared.counters.commands()
    }

    /// How many requests named `command` clients sent.
    pub fn requests(&self, command: &str) -> u64 {
        self.commands().get(&command.to_uppercase()).copied().unwrap_or(0)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for the thread is forbidden inside a runtime, and tests drop proxies there.
            runtime.shutdown_background();
        }
    }
}

/// Matches requests that contain `text`, such as a command's name or a script's hash.
pub fn containing(text: &str) -> impl Fn(&Request) -> bool + Send + Sync + 'static {
    let text = text.to_owned();
    move |request| request.contains(&text)
}

/// Matches requests by the name of their command.
pub fn named(command: &str) -> impl Fn(&Request) -> bool + Send + Sync + 'static {
    let command = command.to_uppercase();
    move |request| request.name() == command
}
