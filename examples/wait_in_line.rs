//! How do I wait for a spool that somebody else has? First come, first served. Needs no server:
//!
//! ```text
//! cargo run --example wait_in_line
//! SPOOL_LOCK_URL=redis://127.0.0.1:6379 cargo run --example wait_in_line
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use spool_lock::{AcquireError, Config, Holder, SpoolLocks, Tag};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chosen = std::env::var_os("SPOOL_LOCK_URL").is_some();
    let config = if chosen { Config::from_env()? } else { Config::new("memory://")? };
    let locks = SpoolLocks::connect(config).await?;

    let tag = Tag::new("TEST-02")?;
    let names = ["MR(93)", "JP(94)", "AL(95)", "TS(96)"];
    let [rosa, juan, ana, tom] = names.map(|name| Holder::new(&name[3..5], name));
    let (rosa, juan, ana, tom) = (rosa?, juan?, ana?, tom?);
    let lease = locks.acquire(&tag, &rosa).await?;

    // Juan and then Ana stand in line. They hold no connection while they do.
    let wait = |holder: Holder, patience: Duration| {
        let (locks, tag) = (locks.clone(), tag.clone());
        tokio::spawn(async move { locks.acquire(&tag, &holder).wait(patience).await })
    };
    let juans = wait(juan, Duration::from_secs(10));
    sleep(Duration::from_millis(50)).await;
    let anas = wait(ana, Duration::from_secs(10));
    sleep(Duration::from_millis(50)).await;

    // Tom has no time. He is told who has it, and nothing is left of his wait: a call that is refused never takes the lock.
    match locks.acquire(&tag, &tom).wait(Duration::from_millis(100)).await {
        Err(AcquireError::Contended { occupant, .. }) => println!("{} still has it", occupant.holder.name()),
        other => return Err(format!("held, but {other:?}").into()),
    }

    // Each release hands the lock on to the next, under a higher fence.
    locks.release_lease(&lease).await?;
    let juans = juans.await??;
    println!("{} has waited, and holds {} under fence {}", juans.holder.name(), juans.tag, juans.fence);
    locks.release_lease(&juans).await?;
    let anas = anas.await??;
    println!("{} has waited, and holds {} under fence {}", anas.holder.name(), anas.tag, anas.fence);
    locks.release_lease(&anas).await?;
    assert!(lease.fence < juans.fence && juans.fence < anas.fence);
    assert!(locks.inspect(&tag).await?.value.is_none());
    Ok(())
}
