//! The prober: finds out whether Redis is ill before its users have to, and well again without asking them.
//!
//! - While a circuit is open, one script at a time is tried in the background, and not with a user's call.
//! - While something waits for its answer for long, Redis is asked over another connection whether it is there at all. So a silent
//!   server opens the circuit within 2 s, however long its users wait for their answers.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::{attempt, inner::Inner, store::Store as _};

/// Nobody waits that long for the answer of a healthy server, nor for that to a ping.
const SILENCE: Duration = Duration::from_millis(500);
/// How often silence is looked for while something is under way.
const RHYTHM: Duration = Duration::from_millis(250);

/// Probes and pings for a process until it is gone.
pub(crate) async fn keep(inner: Weak<Inner>) {
    let Some([mut link, mut writes]) = inner.upgrade().map(|inner| inner.node.watch()) else { return };
    loop {
        let next = {
            let Some(inner) = inner.upgrade() else { return };
            inner.node.note_mode(Instant::now());
            let next = look(&inner).await;
            inner.node.note_mode(Instant::now());
            next
        };
        tokio::select! {
            () = sleep_until(next) => {}
            _ = link.changed() => {}
            _ = writes.changed() => {}
        }
    }
}

/// Does what is due, and says when to come back.
async fn look(inner: &Arc<Inner>) -> Instant {
    let due = inner.node.probe_at();
    if due.is_some_and(|due| due <= Instant::now()) {
        attempt::probe(inner).await;
        // The next one is due when the circuit says so.
        return Instant::now();
    }
    let silence = inner.store.silence();
    if silence >= SILENCE {
        let inner = inner.clone();
        // Side by side: the next one does not wait for this one's patience.
        tokio::spawn(async move { attempt::ping(&inner, SILENCE).await });
    }
    let again = Instant::now() + if silence.is_zero() { SILENCE } else { RHYTHM };
    due.map_or(again, |due| due.min(again))
}
