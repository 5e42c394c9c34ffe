//! How does a screen hear what happens to the spools? Any number of watchers share one connection. Needs no server:
//!
//! ```text
//! cargo run --example watch
//! SPOOL_LOCK_URL=redis://127.0.0.1:6379 cargo run --example watch
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use spool_lock::{Config, Event, Holder, SpoolLocks, Tag, Ttl, Watch};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chosen = std::env::var_os("SPOOL_LOCK_URL").is_some();
    let config = if chosen { Config::from_env()? } else { Config::new("memory://")? };
    let locks = SpoolLocks::connect(config).await?;

    // Two screens: one for a spool, one for all. Nothing is missed from here on.
    let (tag, other) = (Tag::new("TEST-02")?, Tag::new("TEST-03")?);
    let one = tokio::spawn(show("one spool", locks.watch_tag(&tag).await?, 3));
    let all = tokio::spawn(show("all spools", locks.watch().await?, 5));

    // Rosa takes the spool, needs it for longer, and an operator takes it from her.
    let rosa = Holder::new("93", "MR(93)")?;
    locks.acquire(&tag, &rosa).note("ARM").await?;
    locks.extend(&tag, &rosa, Ttl::new(Duration::from_secs(7200))?).await?;
    locks.force_release(&tag, "TS(96)", "shift is over").await?;

    // Another one is taken, and nobody gives it back: its end is heard as well.
    locks.acquire(&other, &rosa).ttl(Ttl::new(Duration::from_millis(200))?).await?;

    assert_eq!(one.await?, ["taken", "extended", "forced"]);
    assert_eq!(all.await?, ["taken", "extended", "forced", "taken", "expired"]);
    Ok(())
}

/// Shows so many events and returns their names, but for `lost`: the process that had acquired a lease hears twice of its end.
async fn show(screen: &str, mut watch: Watch, events: usize) -> Vec<&'static str> {
    let mut names = Vec::new();
    while names.len() < events {
        let Some(event) = watch.next().await else { break };
        match &*event {
            Event::Lost { .. } => continue,
            // A screen that was too slow looks again: `locks.list()`.
            Event::Missed { events } => println!("{screen}: {events} events are gone"),
            event => println!("{screen}: {} {}", event.name(), event.tag().map_or("", Tag::as_str)),
        }
        names.push(event.name());
    }
    names
}
