//! Guards: locks that renew themselves, tell the truth about it, and clean up. Against a real server, and in memory where the
//! store makes no difference to the rule.

#![cfg(feature = "memory")]

#[path = "guards/clocks.rs"]
mod clocks;
#[path = "guards/cost.rs"]
mod cost;
mod crew;
#[path = "guards/crowd.rs"]
mod crowd;
#[path = "guards/drops.rs"]
mod drops;
#[path = "guards/life.rs"]
mod life;
#[path = "guards/loss.rs"]
mod loss;
#[path = "guards/news.rs"]
mod news;
#[path = "guards/outage.rs"]
mod outage;
#[path = "guards/places.rs"]
mod places;
#[path = "guards/race.rs"]
mod race;
#[path = "guards/stopped.rs"]
mod stopped;
mod support;

use std::{collections::HashMap, time::Duration};

use spool_lock::{Config, Holder, LockGuard, LostReason, SpoolLocks, Tag, Ttl};
use support::{RedisServer, eventually};

const SOON: Duration = Duration::from_secs(5);

/// How soon a loss is told.
const TOLD_WITHIN: Duration = Duration::from_millis(250);

fn tag() -> Tag {
    numbered(2)
}

fn numbered(number: usize) -> Tag {
    Tag::new(format!("TEST-{number:02}")).expect("a tag")
}

fn robot() -> Holder {
    Holder::new("robot-7", "").expect("a holder")
}

fn stranger() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

fn ttl(millis: u64) -> Ttl {
    Ttl::new(Duration::from_millis(millis)).expect("a ttl")
}

async fn connect(url: &str) -> SpoolLocks {
    SpoolLocks::connect(Config::new(url).expect("an address")).await.expect("healthy")
}

/// The locks of a store of its own, which lives as long as the server beside it.
async fn stores() -> Vec<(SpoolLocks, Option<RedisServer>)> {
    let server = RedisServer::start();
    vec![(connect("memory://").await, None), (connect(&server.url()).await, Some(server))]
}

/// Another process at the same store, where it can be shared.
async fn connect_beside(server: &Option<RedisServer>) -> Option<SpoolLocks> {
    match server {
        Some(server) => Some(connect(&server.url()).await),
        None => None,
    }
}

/// The losses that were counted.
fn lost_total(locks: &SpoolLocks) -> HashMap<LostReason, u64> {
    let counted = locks.stats().locks.lost_total;
    let counts = LostReason::ALL.map(|reason| (reason, counted[reason.as_str()]));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn renewals(locks: &SpoolLocks) -> u64 {
    locks.stats().locks.operations["extend"].total
}

/// The lock of a tag, as it is called in Redis.
fn key(tag: &Tag) -> String {
    format!("spool:{{{}}}:lock", tag.as_str())
}

async fn is_free(locks: &SpoolLocks, tag: &Tag) -> bool {
    locks.inspect(tag).await.expect("healthy").value.is_none()
}

async fn is_freed(locks: &SpoolLocks, tag: &Tag, bound: Duration) {
    eventually(bound, async || is_free(locks, tag).await).await;
}
