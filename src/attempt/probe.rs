use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::{
    Fault, FaultKind,
    fault::Blame,
    inner::Inner,
    node::Purpose,
    store::{Feed, Store as _},
};

/// How long a probe may take: nobody wants to take a lock of a server that needs longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Finds out whether an open circuit may be closed, if it is time for that.
pub(crate) async fn probe(inner: &Inner) {
    if let Some(probe) = inner.node.probe() {
        probe.settle(&ask(inner).await);
    }
}

/// Finds out whether locks can be taken now. Redis is asked also while a circuit is open, unless an operator has opened it or has to
/// act first.
pub(crate) async fn health(inner: &Inner) -> Result<(), Fault> {
    let node = &inner.node;
    if node.is_held_open() {
        return node.standing();
    }
    let check = node.check(Instant::now());
    let outcome = ask(inner).await;
    check.settle(&outcome);
    outcome?;
    // Somebody may have opened one by hand.
    node.standing()
}

/// Asks by a script that is refused wherever an acquire would be.
async fn ask(inner: &Inner) -> Result<(), Fault> {
    // Half of the time that a call has is for its first try.
    let asked = inner.store.probe(Instant::now() + 2 * PATIENCE);
    timeout(PATIENCE, asked).await.unwrap_or_else(|elapsed| Err(Fault::new(FaultKind::Timeout, elapsed)))
}

/// Asks whether the server is there at all, while others wait for its answers.
pub(crate) async fn ping(inner: &Inner, patience: Duration) {
    let until = Instant::now() + patience;
    // Each counts by itself, although they are side by side: who is not there misses them all.
    if let Ok(ticket) = inner.node.admit(Purpose::Read, until) {
        let outcome = inner.store.ping(until).await;
        // That it is there proves nothing: it may answer pings and hold back what the others wait for (`CLIENT PAUSE`), and says
        // other things than `PONG` where it cannot save, or this user may not ask.
        if outcome.as_ref().is_err_and(|fault| fault.kind().class().blame == Blame::Link) {
            ticket.settle(&outcome);
        }
    }
}

/// Opens the feed of this process. That one connection more cannot be had says nothing of the link where others are open: the calls
/// on those do.
pub(crate) async fn feed(inner: &Inner) -> Result<Feed, Fault> {
    let now = Instant::now();
    let ticket = inner.node.admit(Purpose::Read, now)?;
    let outcome = inner.store.feed(now + inner.config.deadline).await;
    if outcome.is_ok() || !inner.store.is_connected() {
        ticket.settle(&outcome);
    }
    outcome
}
