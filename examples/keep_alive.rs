//! How do I hold a lock while long work runs, and stop when it is lost? Needs no server:
//!
//! ```text
//! cargo run --example keep_alive
//! SPOOL_LOCK_URL=redis://127.0.0.1:6379 cargo run --example keep_alive
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use spool_lock::{Config, GuardReleaseError, Holder, LostReason, SpoolLocks, Tag, Ttl};
use tokio::time::sleep;

/// Work that takes its time, one weld after the other.
async fn weld(welds: u32) -> u32 {
    for weld in 1..=welds {
        sleep(Duration::from_millis(150)).await;
        println!("weld {weld} is done");
    }
    welds
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chosen = std::env::var_os("SPOOL_LOCK_URL").is_some();
    let config = if chosen { Config::from_env()? } else { Config::new("memory://")? };
    let locks = SpoolLocks::connect(config).await?;
    let (tag, robot) = (Tag::new("TEST-02")?, Holder::new("robot-7", "")?);

    // So short only that you need not wait; take seconds. It is renewed in the background every 100 ms, and others wait no longer than
    // this should the process die.
    let ttl = Ttl::new(Duration::from_millis(300))?;
    let guard = locks.guard(&tag, &robot).ttl(ttl).note("weld").await?;

    // Whoever is to know hears how it stands; a screen, for instance.
    let mut watch = guard.watch();
    let screen = tokio::spawn(async move {
        while let Some(state) = watch.next().await {
            println!("the lock: {state:?}");
        }
    });

    // The work takes twice the ttl, and the lock is held all the time.
    let welds = guard.protect(weld(4)).await?;
    println!("{welds} welds under fence {}; safe for another {:?}", guard.fence(), guard.safe_for());

    // An operator takes the lock away while the robot is at work: the work is stopped at its next await.
    let (stopped, taken_away) = tokio::join!(guard.protect(weld(100)), async {
        sleep(Duration::from_millis(400)).await;
        locks.force_release(&tag, "operator", "the robot has lost its arm").await
    });
    taken_away?;
    let lost = stopped.expect_err("there are many welds left");
    println!("stopped: {lost}");
    assert_eq!(lost.reason, LostReason::Forced);

    // Nothing is left to release, and it says so. A guard that still holds its lock releases it here, or when it is dropped.
    assert!(matches!(guard.release().await, Err(GuardReleaseError::Lost(_))));
    screen.await?;
    Ok(())
}
