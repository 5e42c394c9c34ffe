//! How often a pair asks the allocator, and what a waiter and a guard keep of it, by a counting allocator: counts, not times.
//!
//! ```text
//! cargo bench --bench allocations
//! ```

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

mod race;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{alloc::System, time::Duration};

use race::{Contender, Failure, floor::Floor, rslock::Rslock, spool::Spool, table, tag};
use spool_lock::{GuardState, Holder, Tag, Ttl};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::{RedisServer, eventually};
use tokio::{task::JoinSet, time::sleep};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PAIRS: usize = 2_000;
const WAITERS: usize = 1_000;
const GUARDS: usize = 10_000;

fn main() -> Result<(), Failure> {
    let server = RedisServer::start();
    let url = server.url();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(async {
        Ok::<_, Failure>(vec![
            count("floor", Floor::connect(&url).await?).await?,
            count("rslock", Rslock::new(&url)).await?,
            count("spool-lock", Spool::connect(&url).await?).await?,
        ])
    })?;
    println!("1 task, {PAIRS} pairs\n");
    table::print(&["contender", "allocations / pair", "reallocations / pair", "bytes / pair"], &rows);
    let bytes = runtime.block_on(weigh_waiters(&server))?;
    println!(
        "\nwaiter: {bytes:.0} bytes each of {WAITERS} on one tag, task included; {}",
        verdict(bytes, 4096.0)
    );
    for (bytes, when) in runtime.block_on(weigh_guards(&server))?.into_iter().zip(["just taken", "renewed"]) {
        println!("guard: {bytes:.0} bytes each of {GUARDS}, {when}; {}", verdict(bytes, 1024.0));
    }
    Ok(())
}

fn verdict(bytes: f64, wanted: f64) -> String {
    format!("≤ {wanted} wanted: {}", if bytes <= wanted { "met" } else { "MISSED" })
}

/// The whole process is counted: the driver's task as well as ours.
async fn count<C: Contender>(name: &str, contender: C) -> Result<Vec<String>, Failure> {
    let mut task = contender.task(0);
    for _ in 0..PAIRS {
        contender.pair(&mut task).await?;
    }
    let region = Region::new(COUNTING);
    for _ in 0..PAIRS {
        contender.pair(&mut task).await?;
    }
    let change = region.change();
    let each = |count: usize| format!("{:.2}", count as f64 / PAIRS as f64);
    Ok(vec![
        name.to_owned(),
        each(change.allocations),
        each(change.reallocations),
        each(change.bytes_allocated),
    ])
}

/// What is allocated for each task that waits, the task included. The first one is not weighed: the process has its place in the
/// store and hears of grants for all.
async fn weigh_waiters(server: &RedisServer) -> Result<f64, Failure> {
    let (holding, spool) = (Spool::connect(&server.url()).await?, Spool::connect(&server.url()).await?);
    let holder = Holder::new("holder", "MR")?;
    holding.locks.acquire(&Tag::new(tag(0))?, &holder).await?;
    let mut waiters = JoinSet::new();
    let mut begin = |number: usize| {
        let locks = spool.locks.clone();
        waiters.spawn(async move {
            let (tag, holder) = (Tag::new(tag(0))?, Holder::new(number.to_string(), "MR")?);
            locks.acquire(&tag, &holder).note("ARM").wait(Duration::from_secs(60)).await?;
            Ok::<_, Failure>(())
        });
    };
    begin(0);
    let is_queued = async || server.query::<Vec<String>>(&["KEYS", "*:queue"]).len() == 1;
    eventually(Duration::from_secs(5), is_queued).await;
    // Until what was opened for all has settled.
    sleep(Duration::from_millis(500)).await;
    let region = Region::new(COUNTING);
    (1..WAITERS).for_each(begin);
    sleep(Duration::from_millis(500)).await;
    let change = region.change();
    if let Some(ended) = waiters.try_join_next() {
        return Err(format!("a waiter does not wait: {ended:?}").into());
    }
    Ok((change.bytes_allocated as f64 - change.bytes_deallocated as f64) / (WAITERS - 1) as f64)
}

/// What is allocated for each guard that is held, each of its own holder: just after they were taken, and when each has been renewed. The
/// first one is not weighed, nor what the process has made ready for all tags that it will know.
async fn weigh_guards(server: &RedisServer) -> Result<[f64; 2], Failure> {
    let spool = Spool::connect(&format!("{}/6", server.url())).await?;
    // Short, so that all have been renewed soon.
    let ttl = Ttl::new(Duration::from_secs(15))?;
    let take = async |number: usize| {
        let (tag, holder) =
            (Tag::new(tag(number))?, Holder::new(number.to_string(), format!("MR({number})"))?);
        Ok::<_, Failure>(spool.locks.guard(&tag, &holder).ttl(ttl).note("ARM").await?)
    };
    let _first = take(GUARDS).await?;
    let region = Region::new(COUNTING);
    let each = || {
        let change = region.change();
        (change.bytes_allocated as f64 - change.bytes_deallocated as f64) / GUARDS as f64
    };
    let mut guards = Vec::with_capacity(GUARDS);
    for number in 0..GUARDS {
        guards.push(take(number).await?);
    }
    let taken = each();
    sleep(ttl.duration() / 3).await;
    let renewed = each();
    if !guards.iter().all(|guard| matches!(guard.state(), GuardState::Held { .. })) {
        return Err("a guard was lost".into());
    }
    Ok([taken, renewed])
}
