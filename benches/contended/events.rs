//! 1,000 watchers of 100 tags: what an event costs that is heard by those who want it, and by nobody else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use spool_lock::{Event, SpoolLocks, Tag};
use tokio::task::JoinSet;

use crate::{
    crew::{Child, Crew, Failure, collect, start},
    race::{goals::Goals, rounds::Rounds, spool::Spool, table, window::cpu_time},
    support::{RedisServer, eventually},
};

const WATCHERS: usize = 1_000;
const TAGS: usize = 100;
const BY_TAG: &str = "watch_tag";
const FILTERED: &str = "watch, filtered";
/// How long a tag is held: with as many workers as tags, some 2,000 events a second.
const HOLD: Duration = Duration::from_millis(100);

/// What all watchers together have heard.
#[derive(Default)]
struct Heard {
    useful: AtomicU64,
    missed: AtomicU64,
}

/// One window.
struct Hearing {
    useful: u64,
    missed: u64,
    cpu: Duration,
}

impl Hearing {
    fn micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.useful as f64
    }
}

pub(crate) async fn race(server: &RedisServer, quick: bool, goals: &mut Goals) -> Result<(), Failure> {
    let (rounds, length) = if quick { (1, Duration::from_millis(500)) } else { (5, Duration::from_secs(2)) };
    let url = format!("{}/9", server.url());
    let spool = Spool::connect(&url).await?;
    let rounds = Rounds::rotate([BY_TAG, FILTERED].map(str::to_owned), rounds, async |place| {
        hear(&spool.locks, &url, place == 1, length).await
    })
    .await?;

    println!("\n{WATCHERS} watchers of {TAGS} tags, windows of {length:?}\n");
    let row = |name: &String| {
        let sum = |of: fn(&Hearing) -> u64| rounds.windows(name).iter().map(of).sum::<u64>().to_string();
        vec![
            name.clone(),
            sum(|hearing| hearing.useful),
            sum(|hearing| hearing.missed),
            format!("{:.2}", rounds.spread(name, Hearing::micros).median),
            rounds.ratio(name, FILTERED, Hearing::micros).to_string(),
        ]
    };
    let head = ["", "useful events", "missed", "cpu us / useful event", "/ filtered"];
    table::print(&head, &rounds.names().iter().map(row).collect::<Vec<_>>());
    let ratio = rounds.ratio(BY_TAG, FILTERED, Hearing::micros).median;
    goals.at_most("7 CPU per useful event / filtered", 0.35, ratio);
    Ok(())
}

/// Lets another process take and release the tags, and measures the CPU of this one, which only hears of it.
async fn hear(
    locks: &SpoolLocks,
    url: &str,
    is_filtered: bool,
    length: Duration,
) -> Result<Hearing, Failure> {
    let heard = Arc::new(Heard::default());
    let mut watchers = JoinSet::new();
    for number in 0..WATCHERS {
        let (heard, tag) = (heard.clone(), Tag::new(Crew::tag(number % TAGS))?);
        let mut watch = if is_filtered { locks.watch().await? } else { locks.watch_tag(&tag).await? };
        watchers.spawn(async move {
            while let Some(event) = watch.next().await {
                match &*event {
                    Event::Missed { events } => heard.missed.fetch_add(*events, Relaxed),
                    event if event.tag() == Some(&tag) => heard.useful.fetch_add(1, Relaxed),
                    _ => 0,
                };
            }
        });
    }
    let crew = Crew { waiters: TAGS, tags: TAGS, hold: HOLD, length, ..Crew::new(url) };
    let mut children = start([crew], &[]).await;
    let cpu = cpu_time();
    children.iter_mut().for_each(Child::go);
    let pairs = collect(&mut children).await.concat().len() as u64;
    // Two events for each pair, to each watcher of its tag.
    let expected = pairs * 2 * (WATCHERS / TAGS) as u64;
    let all = async || match heard.useful.load(Relaxed) + heard.missed.load(Relaxed) {
        sum if sum >= expected => Ok(()),
        sum => Err(format!("{sum} of {expected} events")),
    };
    eventually(Duration::from_secs(5), all).await;
    let (useful, missed) = (heard.useful.load(Relaxed), heard.missed.load(Relaxed));
    Ok(Hearing { useful, missed, cpu: cpu_time().saturating_sub(cpu) })
}
