//! [`Backlog`]: the deferred calls of this process, in the order in which they are applied.
//!
//! Those of one tag are applied one after the other, in the order in which they were made; those of different tags side by side.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    DeferError, Deferred, DeferredLog, Holder, Settlement, Tag, meter::Counter, stats::RecoveryStats,
};

/// How long a log is waited for that is to forget something.
const LONGEST_FORGET: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
pub(crate) struct Backlog {
    most: usize,
    log: Option<Arc<dyn DeferredLog>>,
    waiting: Mutex<Waiting>,
    /// Rings for those who wait until there are fewer: a call is done with.
    fewer: Notify,
    /// Rings for the keeper of the recovery: there is a call more.
    bell: Arc<Notify>,
    deferred: Counter,
    refused: Counter,
    settled: [Counter; Settlement::ALL.len()],
}

#[derive(Debug, Default)]
struct Waiting {
    by_tag: HashMap<Tag, VecDeque<Arc<Deferred>>>,
    /// Tags of which nothing is being applied, in their order.
    ready: VecDeque<Tag>,
    /// All calls, and those that are being kept.
    len: usize,
}

impl Backlog {
    pub(crate) fn new(most: u32, log: Option<Arc<dyn DeferredLog>>, bell: Arc<Notify>) -> Self {
        Self {
            most: most as usize,
            log,
            waiting: Mutex::default(),
            fewer: Notify::new(),
            bell,
            deferred: Counter::default(),
            refused: Counter::default(),
            settled: Default::default(),
        }
    }

    /// Takes up what an earlier process has left, also where that is more than this one may defer.
    pub(crate) async fn load(&self, patience: Duration) -> Result<(), BoxError> {
        let Some(log) = self.log.clone() else { return Ok(()) };
        let left = timeout(patience, tokio::spawn(async move { log.load().await })).await???;
        let mut waiting = self.waiting();
        waiting.len += left.len();
        left.into_iter().for_each(|deferred| waiting.push(deferred.into()));
        Ok(())
    }

    /// Whether calls are deferred at all.
    pub(crate) fn is_on(&self) -> bool {
        self.most > 0
    }

    pub(crate) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Keeps a call until Redis is back. Once begun it goes on to its end, also where its caller has gone away; but one that was not kept
    /// by `until` is not kept at all.
    pub(crate) async fn defer(
        self: &Arc<Self>,
        deferred: Deferred,
        until: Instant,
    ) -> Result<(), DeferError> {
        let place = self.place()?;
        let Some(log) = self.log.clone() else {
            place.fill(deferred.into());
            return Ok(());
        };
        let fate = Arc::new(Fate::default());
        let mut keeping = tokio::spawn(place.keep(log, deferred.into(), fate.clone()));
        let kept = match timeout_at(until, &mut keeping).await {
            Err(elapsed) if fate.is_withdrawn() => return Err(DeferError::Log(elapsed.into())),
            // It was kept in this moment.
            Err(_elapsed) => keeping.await,
            Ok(kept) => kept,
        };
        kept.unwrap_or_else(|panicked| Err(DeferError::Log(panicked.into())))
    }

    /// A caller was told that nobody keeps its call.
    pub(crate) fn refused(&self) {
        self.refused.add_one();
    }

    fn place(self: &Arc<Self>) -> Result<Place, DeferError> {
        let mut waiting = self.waiting();
        if waiting.len >= self.most {
            return Err(DeferError::Full { most: self.most });
        }
        waiting.len += 1;
        Ok(Place { backlog: self.clone(), is_filled: false })
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting().len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a call waits that was made before for this tag on behalf of this holder.
    pub(crate) fn has_of(&self, tag: &Tag, holder: &Holder) -> bool {
        let waiting = self.waiting();
        waiting.by_tag.get(tag).is_some_and(|of_tag| of_tag.iter().any(|deferred| deferred.holder == *holder))
    }

    /// Waits until there is no such call.
    pub(crate) async fn wait_until_none_of(&self, tag: &Tag, holder: &Holder) {
        loop {
            // Made before the look: it hears what changes between the two.
            let fewer = self.fewer.notified();
            if !self.has_of(tag, holder) {
                return;
            }
            fewer.await;
        }
    }

    /// Whether a call waits that was made before for this tag.
    pub(crate) fn has(&self, tag: &Tag) -> bool {
        self.waiting().by_tag.contains_key(tag)
    }

    /// The next call to be applied; no other of its tag comes until this one is settled or dropped.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Taken> {
        let mut waiting = self.waiting();
        let tag = waiting.ready.pop_front()?;
        let deferred = waiting.by_tag.get(&tag)?.front()?.clone();
        Some(Taken { backlog: self.clone(), deferred, is_settled: false })
    }

    /// Has the log forget what is done with. To apply it again has no effect, so that this fails does no harm; nor is a log that hangs
    /// waited for.
    pub(crate) async fn forget(&self, settled: Vec<(Deferred, Settlement)>) {
        let Some(log) = self.log.clone().filter(|_| !settled.is_empty()) else { return };
        let settling = tokio::spawn(async move { log.settle(&settled).await });
        let outcome: Result<(), BoxError> = match timeout(LONGEST_FORGET, settling).await {
            Ok(Ok(settled)) => settled,
            Ok(Err(panicked)) => Err(panicked.into()),
            Err(elapsed) => Err(elapsed.into()),
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "the log keeps deferred calls that were applied: they will be applied again, without effect");
        }
    }

    /// Adds what is counted here.
    pub(crate) fn read(&self, stats: &mut RecoveryStats) {
        let settled =
            |(settlement, count): (&Settlement, &Counter)| (settlement.as_str().to_owned(), count.get());
        stats.deferred = self.len() as u64;
        stats.deferred_total = self.deferred.get();
        stats.deferred_refused_total = self.refused.get();
        stats.settled_total = Settlement::ALL.iter().zip(&self.settled).map(settled).collect();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn push(&mut self, deferred: Arc<Deferred>) {
        let of_tag = self.by_tag.entry(deferred.tag.clone()).or_default();
        if of_tag.is_empty() {
            self.ready.push_back(deferred.tag.clone());
        }
        of_tag.push_back(deferred);
    }
}

/// A call that is being applied. Dropped, it is the first of its tag again.
#[derive(Debug)]
pub(crate) struct Taken {
    backlog: Arc<Backlog>,
    pub(crate) deferred: Arc<Deferred>,
    is_settled: bool,
}

impl Taken {
    /// It is done with.
    pub(crate) fn settle(mut self, settlement: Settlement) -> Arc<Deferred> {
        self.is_settled = true;
        self.backlog.settled[settlement as usize].add_one();
        let mut waiting = self.backlog.waiting();
        waiting.len -= 1;
        let tag = &self.deferred.tag;
        if let Some(of_tag) = waiting.by_tag.get_mut(tag) {
            of_tag.pop_front();
            if of_tag.is_empty() {
                waiting.by_tag.remove(tag);
            } else {
                waiting.ready.push_back(tag.clone());
            }
        }
        drop(waiting);
        self.backlog.fewer.notify_waiters();
        self.deferred.clone()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.is_settled {
            self.backlog.waiting().ready.push_back(self.deferred.tag.clone());
        }
    }
}

/// Whether a call is kept, or its caller was told that it is not: who says so first.
#[derive(Debug, Default)]
struct Fate(OnceLock<bool>);

impl Fate {
    fn is_kept(&self) -> bool {
        *self.0.get_or_init(|| true)
    }

    fn is_withdrawn(&self) -> bool {
        !*self.0.get_or_init(|| false)
    }
}

/// A place in the backlog, for one call. Dropped, it is free for another.
#[derive(Debug)]
struct Place {
    backlog: Arc<Backlog>,
    is_filled: bool,
}

impl Place {
    async fn keep(
        self,
        log: Arc<dyn DeferredLog>,
        deferred: Arc<Deferred>,
        fate: Arc<Fate>,
    ) -> Result<(), DeferError> {
        log.keep(&deferred).await.map_err(DeferError::Log)?;
        if fate.is_kept() {
            self.fill(deferred);
        } else {
            // Its caller was told that it is not.
            self.backlog.forget(vec![((*deferred).clone(), Settlement::Ended)]).await;
        }
        Ok(())
    }

    fn fill(mut self, deferred: Arc<Deferred>) {
        self.is_filled = true;
        self.backlog.deferred.add_one();
        self.backlog.waiting().push(deferred);
        self.backlog.bell.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_filled {
            self.backlog.waiting().len -= 1;
        }
    }
}
