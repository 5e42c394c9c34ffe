//! What a proxy has been told to do to frames.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::super::frame::Request;

type Matches = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// What becomes of a connection whose reply was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReply {
    /// It is closed.
    DropThenClose,
    /// It stays open and silent: this reply and all later ones are swallowed.
    Swallow,
}

/// Requests kept back by a proxy. Drop without [`release`](Self::release) loses them and closes their connections.
#[derive(Debug)]
pub struct Held {
    gate: watch::Sender<bool>,
    count: watch::Receiver<usize>,
}

impl Held {
    /// Requests caught so far that matched; those queued behind them are not counted.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until `n` requests have been caught.
    ///
    /// # Panics
    /// After 10 s, or when the proxy is gone.
    pub async fn caught(&self, n: usize) {
        super::super::eventually(Duration::from_secs(10), async || self.count() >= n).await;
    }

    /// Delivers what is held, and holds nothing from here on.
    pub fn release(self) {
        self.gate.send_replace(true);
    }
}

/// The way through for one held request.
#[derive(Debug)]
pub(super) struct Gate(watch::Receiver<bool>);

impl Gate {
    /// Waits for the release; false when there will be none.
    pub(super) async fn opened(mut self) -> bool {
        self.0.wait_for(|open| *open).await.is_ok()
    }
}

#[derive(Default)]
pub(super) struct Rules {
    pub(super) reply_delay: Duration,
    pub(super) request_delay: Duration,
    pub(super) split_bytes: bool,
    pub(super) refuse: bool,
    losing: Vec<Losing>,
    holding: Vec<Holding>,
}

struct Losing {
    matches: Matches,
    left: usize,
    how: LostReply,
}

struct Holding {
    matches: Matches,
    gate: watch::Receiver<bool>,
    count: watch::Sender<usize>,
}

impl Rules {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn lose(
        &mut self,
        n: usize,
        how: LostReply,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) {
        self.losing.push(Losing { matches: Arc::new(matches), left: n, how });
    }

    pub(super) fn hold(&mut self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Held {
        let (open, gate) = watch::channel(false);
        let (count, counted) = watch::channel(0);
        self.holding.push(Holding { matches: Arc::new(matches), gate, count });
        Held { gate: open, count: counted }
    }

    /// Whether the reply to `request` is lost, by the first rule that has some left.
    pub(super) fn loses_reply_to(&mut self, request: &Request) -> Option<LostReply> {
        let rule = self.losing.iter_mut().find(|rule| rule.left > 0 && (rule.matches)(request))?;
        rule.left -= 1;
        Some(rule.how)
    }

    /// The gate before `request`, if it is held.
    pub(super) fn holds(&mut self, request: &Request) -> Option<Gate> {
        // A rule whose `Held` was released or dropped has ended.
        self.holding.retain(|rule| !*rule.gate.borrow() && rule.gate.has_changed().is_ok());
        let rule = self.holding.iter().find(|rule| (rule.matches)(request))?;
        rule.count.send_modify(|count| *count += 1);
        Some(Gate(rule.gate.clone()))
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("reply_delay", &self.reply_delay)
            .field("request_delay", &self.request_delay)
            .field("split_bytes", &self.split_bytes)
            .field("refuse", &self.refuse)
            .field("losing", &self.losing.len())
            .field("holding", &self.holding.len())
            .finish()
    }
}
