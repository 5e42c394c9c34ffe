//! The keeper of the recovery: what a process does when Redis is back, so that nothing is lost and nobody comes too early.
//!
//! In this order ([`RecoveryPhase`]): what this process holds is looked at; deferred calls are applied; what Redis has lost is put back;
//! and only then acquires are let in, slowly. Each phase is bounded in time, counted, and told to those who watch.
//!
//! # When
//! - A connection has broken. Most often nothing else has happened, and a look at which run of the server answers lets acquires in
//!   again. Where it is another run, what this process holds may be gone.
//! - The circuit of the link was open: leases may have ended meanwhile.
//! - Our witness is gone (a key of this process, see [`Server`](crate::server::Server)): somebody has flushed the server, or it was
//!   restarted without its data. It is looked for each second while anything is at stake.
//! - The process has just connected, and an earlier one has left something to be done, or a source has yet to be asked.
//!
//! # How it fails
//! Until Redis answers nothing is done and no acquire passes. A phase that meets a fault, or whose time is over, is left to those who
//! see to the same by themselves: the renewals put guards back, deferred calls are applied in the background, and the source is asked
//! again. So what is bounded is how long acquires wait, and not whether it is done.

mod backlog;
mod restore;
mod verify;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::restore::Restore;
use crate::{CircuitState, Event, RecoveryPhase, attempt, inner::Inner, node::Purpose, store::Store as _};

/// How often our witness is looked for.
const RHYTHM: Duration = Duration::from_secs(1);
/// How soon a recovery that failed is begun anew.
const SOON: Duration = Duration::from_millis(100);

/// How long acquires come in slowly at most.
const LONGEST_ADMIT: Duration = Duration::from_secs(5);

/// The pause before deferred calls, or the source, are tried again; it doubles.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keeps a process until it is gone. Nobody makes calls once every clone of the locks is `gone`.
pub(crate) async fn keep(inner: Arc<Inner>, gone: CancellationToken) {
    let bell = inner.admission.bell();
    let [mut link, mut writes] = inner.node.watch();
    let (mut keeper, mut may_defer) = (Keeper::new(&inner), true);
    let (inner, mut _keeps) = (Arc::downgrade(&inner), Some(inner));
    loop {
        let next = {
            let Some(inner) = inner.upgrade() else { return };
            // What no log keeps lasts as long as its process does, and may be deferred in the last moment.
            let is_wanted = may_defer || (!inner.backlog.is_empty() && !inner.backlog.has_log());
            // Others may have it for a while, and are not to be kept company for ever.
            if !is_wanted && inner.roster.next().is_none() {
                return;
            }
            let next = keeper.do_what_is_due(&inner, &bell).await;
            _keeps = is_wanted.then_some(inner);
            next
        };
        tokio::select! {
            () = sleep_until(next) => {}
            () = bell.notified() => {}
            () = gone.cancelled(), if may_defer => may_defer = false,
            _ = link.changed() => {}
            // What is refused as a write is over, or has just begun.
            _ = writes.changed() => keeper.backlog.hurry(),
        }
    }
}

#[derive(Debug)]
struct Keeper {
    /// How things stood when all was last seen to; none at first, where there is something to be done.
    seen_to: Option<SeenTo>,
    /// When a recovery that has failed is begun anew.
    again: Option<Instant>,
    /// When our witness is looked for next.
    witness: Instant,
    /// Since when acquires come in slowly.
    slow: Option<Instant>,
    backlog: backlog::Pace,
    restore: Restore,
}

/// What has changed where there may be something to be seen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SeenTo {
    /// How often the states of link and writes have changed.
    link: u64,
    writes: u64,
    /// How often connections have broken.
    breaks: u64,
    /// How often data of the server may have gone.
    doubts: u64,
}

impl SeenTo {
    fn now(inner: &Inner) -> Self {
        let Inner { node, store, server, .. } = inner;
        Self {
            link: node.link.epoch(),
            writes: node.writes.epoch(),
            breaks: store.breaks(),
            doubts: server.doubts(),
        }
    }

    /// Whether nothing has happened between the two but that connections broke.
    fn is_a_break(self, before: Self) -> bool {
        Self { breaks: before.breaks, ..self } == before
    }
}

impl Keeper {
    fn new(inner: &Inner) -> Self {
        let now = Instant::now();
        let seen_to = inner.admission.is_open(inner.store.breaks()).then(|| SeenTo::now(inner));
        Self {
            seen_to,
            again: None,
            witness: now + RHYTHM,
            slow: None,
            backlog: backlog::Pace::default(),
            restore: Restore::default(),
        }
    }

    /// Does what is due, and says when to come back.
    async fn do_what_is_due(&mut self, inner: &Arc<Inner>, bell: &Notify) -> Instant {
        let node = &inner.node;
        let now = Instant::now();
        let is_link_closed = node.link.state() == CircuitState::Closed;
        if node.is_closed_for(Purpose::Acquire) {
            self.recover_if_due(inner).await;
        } else {
            // Also where no connection has broken: once all is well again nobody comes before what is to be seen to.
            inner.admission.shut();
            self.again = None;
        }
        // What happens after that is seen to at once; where it could not be, what happens from here on.
        let is_seen_to = node.is_closed_for(Purpose::Acquire) && self.again.is_none();
        let since = self.seen_to.filter(|_| is_seen_to).unwrap_or_else(|| SeenTo::now(inner));
        if is_link_closed {
            self.look_for_witness_if_due(inner).await;
        } else {
            self.witness = self.witness.max(now);
        }
        tokio::select! {
            biased;
            // It comes first, and what is done beside it is taken up again.
            () = something_happens(inner, bell, since) => return Instant::now(),
            () = self.do_beside(inner, is_link_closed) => {}
        }
        self.admit_all_if_due(inner);
        let slow = self.slow.map(|since| since + LONGEST_ADMIT);
        let times = [self.again, slow, self.backlog.due(inner), self.restore.due()];
        // What is due now may have to wait for the link.
        let earliest = Instant::now() + SOON;
        times.into_iter().flatten().min().map_or(self.witness, |due| due.min(self.witness)).max(earliest)
    }

    /// What is left of a recovery.
    async fn do_beside(&mut self, inner: &Inner, is_link_closed: bool) {
        if is_link_closed {
            self.restore.ask_if_due(inner).await;
        }
        // By hand: releases pass, and so do those that were deferred.
        if is_link_closed || inner.node.link.is_forced() {
            self.backlog.apply_if_due(inner).await;
        }
    }

    async fn look_for_witness_if_due(&mut self, inner: &Arc<Inner>) {
        if Instant::now() >= self.witness {
            self.witness = Instant::now() + RHYTHM;
            if is_anything_at_stake(inner) {
                // Where it cannot be asked, the circuit knows.
                let _ = attempt::look_for_witness(inner).await;
            }
        }
    }

    async fn recover_if_due(&mut self, inner: &Arc<Inner>) {
        let now = SeenTo::now(inner);
        if self.seen_to == Some(now) {
            return;
        }
        let is_seen_to = match attempt::look_at_server(inner).await {
            Ok(()) => self.recover(inner, SeenTo { doubts: inner.server.doubts(), ..now }).await,
            Err(fault) => {
                tracing::debug!(%fault, "the recovery is begun anew");
                false
            }
        };
        self.again = (!is_seen_to).then(|| Instant::now() + SOON);
    }

    /// Says whether it came to its end before Redis, or its data, went away again.
    async fn recover(&mut self, inner: &Arc<Inner>, now: SeenTo) -> bool {
        match self.seen_to {
            Some(before) if now.is_a_break(before) && inner.admission.is_slow() => {
                inner.admission.open_slowly(now.breaks);
            }
            Some(before) if now.is_a_break(before) => inner.admission.open(now.breaks),
            before => {
                let has_lost_data = before.is_some_and(|before| before.doubts != now.doubts);
                inner.admission.shut();
                let missing = verify::verify(inner, has_lost_data).await;
                self.backlog.apply_all(inner).await;
                if has_lost_data || before.is_none() {
                    self.restore.go_through(inner, missing, has_lost_data).await;
                }
                let SeenTo { link, doubts, .. } = SeenTo::now(inner);
                if (link, doubts) != (now.link, now.doubts) {
                    return false;
                }
                inner.admission.open_slowly(now.breaks);
                self.slow = Some(Instant::now());
            }
        }
        self.seen_to = Some(now);
        true
    }

    fn admit_all_if_due(&mut self, inner: &Inner) {
        let Some(since) = self.slow else { return };
        let is_over = since.elapsed() >= LONGEST_ADMIT;
        if inner.admission.is_slow() && !is_over {
            return;
        }
        if let Some(SeenTo { breaks, .. }) = self.seen_to.filter(|_| inner.admission.is_slow()) {
            inner.admission.open(breaks);
        }
        self.slow = None;
        let tally = Tally::default();
        tally.done(inner.admission.answered());
        tell(inner, RecoveryPhase::Admit, since, &tally, true);
    }
}

/// Waits until there may be something to be seen to.
async fn something_happens(inner: &Inner, bell: &Notify, since: SeenTo) {
    while since == SeenTo::now(inner) {
        bell.notified().await;
    }
}

/// Whether this process would lose anything with the data of the server.
fn is_anything_at_stake(inner: &Inner) -> bool {
    inner.roster.next().is_some()
        || inner.doors.source.is_some()
        || inner.known.has_identities(inner.server.vouched())
}

/// What a phase has done, and what it has not.
#[derive(Debug, Default)]
struct Tally {
    done: AtomicU64,
    left: AtomicU64,
}

impl Tally {
    fn done(&self, count: u64) {
        self.done.fetch_add(count, Relaxed);
    }

    fn left(&self, count: u64) {
        self.left.fetch_add(count, Relaxed);
    }
}

/// A phase that began then is over: that is counted, and told.
fn tell(inner: &Inner, phase: RecoveryPhase, began: Instant, tally: &Tally, is_complete: bool) {
    let took = began.elapsed();
    let (done, left) = (tally.done.load(Relaxed), tally.left.load(Relaxed));
    tracing::info!(phase = phase.as_str(), done, left, ?took, is_complete, "a phase of the recovery is over");
    inner.recovery.phase(phase, took, is_complete);
    let at = inner.server_now();
    inner.hearing.tell(Event::Recovered { phase, done, left, took, at });
}
