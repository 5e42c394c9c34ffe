//! How often a pair asks the allocator, by a counting allocator: a count, not a time.
//!
//! ```text
//! cargo bench --bench allocations
//! ```

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

mod race;
#[path = "../tests/support/mod.rs"]
mod support;

use std::alloc::System;

use race::{Contender, Failure, floor::Floor, rslock::Rslock, spool::Spool, table};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::RedisServer;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PAIRS: usize = 2_000;

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
    Ok(())
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
