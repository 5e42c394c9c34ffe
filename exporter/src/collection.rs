//! [`Collection`]: what one look at all sources has found so far, and the page that it makes.
//!
//! It is filled while scrapes wait for it. A scrape whose time is up takes what is there: for it, a source that has not
//! answered by then has failed.

use std::{collections::BTreeMap, time::Duration};

use spool_lock::{Snapshot, metrics::Page};
use tokio::time::Instant;

use crate::{
    config::Config,
    journal::Wrong,
    source::{Info, Listing, Reason, SnapshotError},
};

/// What was found, and what is still awaited.
#[derive(Debug)]
pub(crate) struct Collection {
    started: Instant,
    redis: Sought<Result<Info, Reason>>,
    /// The services that there are now; they are looked up first, and then asked.
    services: Sought<Vec<Found>>,
    left_out: usize,
}

/// One source, or one kind of it.
#[derive(Debug)]
enum Sought<T> {
    /// It is not watched.
    Unwanted,
    Awaited,
    Taken(T, Duration),
}

#[derive(Debug)]
struct Found {
    name: String,
    snapshot: Option<Result<Snapshot, SnapshotError>>,
}

impl Collection {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            started: Instant::now(),
            redis: if config.redis.is_some() { Sought::Awaited } else { Sought::Unwanted },
            services: if config.services.is_empty() { Sought::Unwanted } else { Sought::Awaited },
            left_out: 0,
        }
    }

    pub(crate) fn redis_answered(&mut self, answer: Result<Info, Reason>) {
        self.redis = Sought::Taken(answer, self.started.elapsed());
    }

    pub(crate) fn services_listed(&mut self, listing: &Listing) {
        let found = |name: &String| Found { name: name.clone(), snapshot: None };
        let services = listing.services.iter().map(|service| found(&service.name)).collect();
        self.services = Sought::Taken(services, self.started.elapsed());
        self.left_out = listing.left_out;
    }

    /// The answer of the service at this place of the listing.
    pub(crate) fn service_answered(&mut self, place: usize, answer: Result<Snapshot, SnapshotError>) {
        let elapsed = self.started.elapsed();
        if let Sought::Taken(services, took) = &mut self.services
            && let Some(found) = services.get_mut(place)
        {
            found.snapshot = Some(answer);
            *took = elapsed;
        }
    }

    pub(crate) fn has_redis(&self) -> bool {
        !matches!(self.redis, Sought::Awaited)
    }

    pub(crate) fn has_services(&self) -> bool {
        match &self.services {
            Sought::Unwanted => true,
            Sought::Awaited => false,
            Sought::Taken(services, _) => services.iter().all(|found| found.snapshot.is_some()),
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.has_redis() && self.has_services()
    }

    /// What is wrong with each source, for the journal.
    pub(crate) fn faults(&self) -> BTreeMap<String, Option<Wrong>> {
        let mut faults = BTreeMap::new();
        if let Sought::Taken(answer, _) = &self.redis {
            let wrong =
                |reason: &Reason| Wrong { kind: reason.as_str(), text: "no answer to INFO".to_owned() };
            faults.insert("redis".to_owned(), answer.as_ref().err().map(wrong));
        }
        if let Sought::Taken(services, _) = &self.services {
            let wrong = |error: &SnapshotError| Wrong { kind: error.kind(), text: error.to_string() };
            for found in services {
                let snapshot = found.snapshot.as_ref().unwrap_or(&Err(SnapshotError::Timeout));
                faults.insert(format!("service {}", found.name), snapshot.as_ref().err().map(wrong));
            }
            if self.left_out > 0 {
                let text = format!("{} found beyond the limit, or with a name that is taken", self.left_out);
                faults.insert("services".to_owned(), Some(Wrong { kind: "left_out", text }));
            }
        }
        faults
    }

    /// Writes what there is; what is still awaited is written as failed.
    pub(crate) fn write(&self, page: &mut Page, config: &Config) {
        if let Some(redis) = &config.redis {
            let (answer, took) = match &self.redis {
                Sought::Taken(answer, took) => (answer.as_ref().map_err(|reason| *reason), *took),
                Sought::Unwanted | Sought::Awaited => (Err(Reason::Timeout), self.started.elapsed()),
            };
            write_redis(page, answer, redis.connection_limit.map(|limit| limit.get().into()));
            write_collector(page, "redis", answer.is_ok(), took);
        }
        if !config.services.is_empty() {
            self.write_services(page);
        }
    }

    fn write_services(&self, page: &mut Page) {
        // One collector for all of them, which shows the worst: one each would be a label without bounds.
        let mut all_good = self.left_out == 0 && self.has_services();
        if let Sought::Taken(services, _) = &self.services {
            for found in services {
                let snapshot = found.snapshot.as_ref().and_then(|snapshot| snapshot.as_ref().ok());
                page.set("spool_up", &[("service", &found.name)], snapshot.is_some().into());
                let dropped = snapshot.map(|snapshot| page.add_snapshot(snapshot, Some(&found.name)));
                all_good &= dropped == Some(0);
            }
        }
        let took = match &self.services {
            Sought::Taken(_, took) if self.has_services() => *took,
            _ => self.started.elapsed(),
        };
        write_collector(page, "service", all_good, took);
    }
}

fn write_collector(page: &mut Page, collector: &str, success: bool, took: Duration) {
    let labels = [("collector", collector)];
    page.set("spool_exporter_collector_success", &labels, success.into());
    page.set("spool_exporter_collector_duration_seconds", &labels, took.as_secs_f64());
}

fn write_redis(page: &mut Page, answer: Result<&Info, Reason>, limit: Option<u64>) {
    page.set("spool_redis_up", &[], answer.is_ok().into());
    for reason in Reason::ALL {
        let is_it = answer.is_err_and(|why| why == reason);
        page.set("spool_redis_probe_failure", &[("reason", reason.as_str())], is_it.into());
    }
    // Ours is known whatever Redis does; its own goes with its answer.
    let theirs = answer.ok().and_then(|info| info.maxclients);
    if let Some((limit, source)) = limit.map(|limit| (limit, "flag")).or(theirs.map(|limit| (limit, "info")))
    {
        page.set("spool_redis_connections_limit", &[], limit as f64);
        page.set("spool_redis_connections_limit_info", &[("source", source)], 1.0);
    }
    let Ok(info) = answer else { return };
    for (name, value) in [
        ("spool_redis_connected_clients", info.connected_clients),
        ("spool_redis_rejected_connections_total", info.rejected_connections),
        ("spool_redis_connections_received_total", info.connections_received),
        ("spool_redis_start_time_seconds", info.started_at),
    ] {
        if let Some(value) = value {
            page.set(name, &[], value as f64);
        }
    }
    if let (Some(role), Some(version)) = (&info.role, &info.redis_version) {
        page.set("spool_redis_instance_info", &[("role", role), ("redis_version", version)], 1.0);
    }
    if let Some(policy) = &info.maxmemory_policy {
        page.set("spool_redis_maxmemory_policy_info", &[("policy", policy)], 1.0);
    }
}
