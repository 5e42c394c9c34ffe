//! Waiting in line, against a real server: who is next, what is left behind, and what happens when messages, connections or
//! processes are lost.

mod crew;
#[path = "waiting/incident.rs"]
mod incident;
#[path = "waiting/limits.rs"]
mod limits;
#[path = "waiting/nets.rs"]
mod nets;
#[path = "waiting/orphans.rs"]
mod orphans;
#[path = "waiting/processes.rs"]
mod processes;
mod support;
#[path = "waiting/turns.rs"]
mod turns;
#[path = "pool/workers.rs"]
#[allow(dead_code, reason = "the tests of the pool use the rest")]
mod workers;

use std::time::Duration;

use support::{RedisServer, eventually};

/// Waits until so many processes stand in the queue of a tag.
async fn queued(server: &RedisServer, tag: &str, processes: u64) {
    let queue = format!("spool:{{{tag}}}:queue");
    eventually(Duration::from_secs(10), async || match server.query::<u64>(&["ZCARD", &queue]) {
        seen if seen == processes => Ok(()),
        seen => Err(format!("{seen} of {processes} are queued")),
    })
    .await;
}

/// Waits until no lock and no queue is left, only fences, and what tells a process that the server has its data.
async fn nothing_left(server: &RedisServer, bound: Duration) {
    eventually(bound, async || {
        let mut keys: Vec<String> = server.query(&["KEYS", "spool:*"]);
        keys.retain(|key| !key.ends_with(":fence") && !key.starts_with("spool:{}:witness:"));
        if keys.is_empty() { Ok(()) } else { Err(format!("{keys:?}")) }
    })
    .await;
}
