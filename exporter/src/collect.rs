//! [`Collector`]: one bounded look at all sources, shared by the scrapes that come while it lasts.
//!
//! The sources are asked at the same time and each has the whole budget, so a frozen one costs the others nothing.
//! Scrapes that come during a look wait for that look; none gets the result of one that had ended before it came.
//!
//! # Why the look cannot get stuck
//! The look is a task, owned by those who wait for it: with the last of them it is aborted, and the next scrape starts a
//! new one. There is no permit that a task could take to its grave, and the time in which a scrape waits is its own.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use spool_lock::{Snapshot, metrics::Page};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    collection::Collection,
    config::Config,
    journal::Journal,
    readiness::Latch,
    source::{Listing, Reason, RedisSource, Service, SnapshotError, list, read_snapshot},
    task::Task,
};

/// Looks at the sources when a scrape asks for it.
#[derive(Debug)]
pub(crate) struct Collector {
    sources: Arc<Sources>,
    current: Mutex<Weak<Look>>,
}

/// What a look needs.
#[derive(Debug)]
struct Sources {
    config: Config,
    redis: Option<RedisSource>,
    journal: Journal,
    schema_errors: AtomicU64,
}

/// A look that is under way, or was.
#[derive(Debug)]
struct Look {
    collection: watch::Receiver<Collection>,
    _task: Task,
}

impl Collector {
    /// Needs a runtime: the connection to Redis is opened from now on.
    pub(crate) fn new(config: Config) -> Self {
        let redis = config.redis.as_ref();
        let redis = redis.map(|redis| RedisSource::start(redis.url.clone(), config.scrape_timeout));
        let (journal, schema_errors) = (Journal::default(), AtomicU64::new(0));
        let sources = Arc::new(Sources { config, redis, journal, schema_errors });
        Self { sources, current: Mutex::default() }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.sources.config
    }

    /// The page of one scrape, after `budget` at the latest.
    pub(crate) async fn scrape(&self, budget: Duration) -> String {
        let started = Instant::now();
        let look = self.join();
        let mut collection = look.collection.clone();
        // Complete, or out of time, or the look has ended without being complete: what is there is what we show.
        let _ = timeout_at(started + budget, collection.wait_for(Collection::is_complete)).await;
        let mut page = Page::new();
        collection.borrow().write(&mut page, &self.sources.config);
        page.set("spool_exporter_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let schema_errors = self.sources.schema_errors.load(Ordering::Relaxed);
        page.set("spool_exporter_snapshot_schema_errors_total", &[], schema_errors as f64);
        page.set("spool_exporter_scrape_duration_seconds", &[], started.elapsed().as_secs_f64());
        page.render()
    }

    /// The first look of this process: drops each latch when its kind of source has answered, or failed to.
    pub(crate) async fn first_look(&self, redis: Latch, services: Latch) {
        let look = self.join();
        let mut collection = look.collection.clone();
        let _ = collection.wait_for(Collection::has_redis).await;
        drop(redis);
        let _ = collection.wait_for(Collection::has_services).await;
        drop(services);
    }

    /// The look that is under way, or a new one.
    fn join(&self) -> Arc<Look> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = current.upgrade().filter(|look| look.is_under_way()) {
            return look;
        }
        let (sender, collection) = watch::channel(Collection::new(&self.sources.config));
        let task = Task::spawn(Arc::clone(&self.sources).look(sender));
        let look = Arc::new(Look { collection, _task: task });
        *current = Arc::downgrade(&look);
        look
    }
}

impl Look {
    fn is_under_way(&self) -> bool {
        // The sender goes with the task, however it ends.
        self.collection.has_changed().is_ok() && !self.collection.borrow().is_complete()
    }
}

impl Sources {
    async fn look(self: Arc<Self>, collection: watch::Sender<Collection>) {
        tokio::join!(self.look_at_redis(&collection), self.look_at_services(&collection));
        self.journal.note(collection.borrow().faults());
    }

    async fn look_at_redis(&self, collection: &watch::Sender<Collection>) {
        let Some(redis) = &self.redis else { return };
        let answer = timeout(self.config.scrape_timeout, redis.read()).await.unwrap_or(Err(Reason::Timeout));
        collection.send_modify(|collection| collection.redis_answered(answer));
    }

    async fn look_at_services(&self, collection: &watch::Sender<Collection>) {
        if self.config.services.is_empty() {
            return;
        }
        let deadline = Instant::now() + self.config.scrape_timeout;
        let specs = self.config.services.clone();
        let listing = timeout_at(deadline, tokio::task::spawn_blocking(move || list(&specs))).await;
        // Folders that cannot be read in time have no services: the collector shows that it failed.
        let listing =
            listing.ok().and_then(Result::ok).unwrap_or(Listing { services: Vec::new(), left_out: 1 });
        collection.send_modify(|collection| collection.services_listed(&listing));
        let mut answers = JoinSet::new();
        for (place, service) in listing.services.into_iter().enumerate() {
            answers.spawn(async move { (place, snapshot_of(&service, deadline).await) });
        }
        while let Some(answer) = answers.join_next().await {
            // A task that panicked leaves its place empty, which is written as failed.
            let Ok((place, snapshot)) = answer else { continue };
            self.count_schema_errors(&snapshot);
            collection.send_modify(|collection| collection.service_answered(place, snapshot));
        }
    }

    fn count_schema_errors(&self, snapshot: &Result<Snapshot, SnapshotError>) {
        let is_wrong = match snapshot {
            // Values that the catalogue does not foresee: the page leaves them out each time it is written.
            Ok(snapshot) => Page::new().add_snapshot(snapshot, None) > 0,
            Err(error) => matches!(error, SnapshotError::Schema(_) | SnapshotError::TooLarge),
        };
        self.schema_errors.fetch_add(is_wrong.into(), Ordering::Relaxed);
    }
}

async fn snapshot_of(service: &Service, deadline: Instant) -> Result<Snapshot, SnapshotError> {
    timeout_at(deadline, read_snapshot(&service.address)).await.unwrap_or(Err(SnapshotError::Timeout))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::CommandLine;

    /// A scrape that still writes its page holds a look that has ended; nobody else may get its result.
    #[tokio::test]
    async fn a_look_that_has_ended_is_not_joined() {
        let args = ["exporter", "--service=unix:/no/such.sock"].map(OsString::from);
        let Ok(CommandLine::Run(config)) = CommandLine::parse(args) else {
            panic!("that is a configuration")
        };
        let collector = Collector::new(config);
        let first = collector.join();
        assert!(Arc::ptr_eq(&first, &collector.join()));
        first.collection.clone().wait_for(Collection::is_complete).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &collector.join()));
    }
}
