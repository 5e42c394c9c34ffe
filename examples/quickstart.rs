//! The first five minutes: take, inspect, extend and release a spool. Needs no server:
//!
//! ```text
//! cargo run --example quickstart
//! SPOOL_LOCK_URL=redis://127.0.0.1:6379 cargo run --example quickstart
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use spool_lock::{AcquireError, Config, Holder, SpoolLocks, Tag, Ttl};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chosen = std::env::var_os("SPOOL_LOCK_URL").is_some();
    let config = if chosen { Config::from_env()? } else { Config::new("memory://")? };
    let locks = SpoolLocks::connect(config).await?;

    let tag = Tag::new("TEST-02")?;
    let rosa = Holder::new("93", "MR(93)")?;
    let juan = Holder::new("94", "JP(94)")?;

    // TOMAR: Rosa takes the spool. The fence orders her grant among all of this tag.
    let lease = locks.acquire(&tag, &rosa).note("ARM").await?;
    println!("{} holds {} under fence {}", lease.holder.name(), lease.tag, lease.fence);

    // Juan is told who has it, and for how long yet: an answer, not an error of Redis.
    match locks.acquire(&tag, &juan).await {
        Err(AcquireError::Contended { occupant, expires_in }) => {
            println!("{} has it for another {} s", occupant.holder.name(), expires_in.as_secs());
        }
        other => return Err(format!("held, but {other:?}").into()),
    }

    // She needs it for two hours; another request, perhaps in another process, releases it: PAUSAR.
    locks.extend(&tag, &rosa, Ttl::new(Duration::from_secs(7200))?).await?;
    locks.release(&tag, &rosa).fence(lease.fence).await?;

    // Now it is Juan's, under a higher fence: whoever checks fences refuses late writes of Rosa's grant.
    let next = locks.acquire(&tag, &juan).await?;
    println!("{} holds {} under fence {}", next.holder.name(), next.tag, next.fence);
    assert!(next.fence > lease.fence);
    locks.release_lease(&next).await?;
    Ok(())
}
