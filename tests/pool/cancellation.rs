//! Calls that nobody waits for any more: dropped at whatever await they stand, on whatever kind of road, they leave the pool as
//! it was.

use std::{
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use spool_lock::{Holder, SpoolLocks, Tag, Ttl};
use tokio::task::JoinSet;

use crate::{
    support::{
        FaultProxy, RedisServer, eventually,
        proxy::{LostReply, containing},
    },
    workers::{SOON, assert_clean_round, at_rest, connect, holder, millis, open},
};

/// What becomes of a call's request, by a word in its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    Good,
    Slow,
    /// The reply is lost and the connection closed.
    Breaks,
    /// The reply never comes.
    Silent,
}

/// How often each mix is tried, with other calls and other moments.
const ROUNDS: usize = 3;

const ROADS: [Road; 4] = [Road::Good, Road::Slow, Road::Breaks, Road::Silent];

impl Road {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Slow => "slow",
            Self::Breaks => "breaks",
            Self::Silent => "silent",
        }
    }
}

/// When a caller gives up.
#[derive(Debug, Clone, Copy)]
enum Patience {
    Polls(u32),
    Time(Duration),
}

/// A sequence without a visible order, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One of the calls; what it answers does not matter.
fn call<'a>(
    locks: &'a SpoolLocks,
    which: u64,
    tag: &'a Tag,
    holder: &'a Holder,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    match which {
        0 | 1 => Box::pin(async { drop(locks.acquire(tag, holder).await) }),
        2 => Box::pin(async { drop(locks.extend(tag, holder, Ttl::HOUR).await) }),
        3 => Box::pin(async { drop(locks.release(tag, holder).await) }),
        4 => Box::pin(async { drop(locks.inspect(tag).await) }),
        _ => Box::pin(async { drop(locks.list().await) }),
    }
}

/// Polls `future` until it is ready or the patience ends, and drops it.
async fn give_up(future: Pin<Box<dyn Future<Output = ()> + Send + '_>>, patience: Patience) {
    match patience {
        Patience::Time(time) => drop(tokio::time::timeout(time, future).await),
        Patience::Polls(mut left) => {
            let mut future = pin!(future);
            std::future::poll_fn(move |cx| {
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                match future.as_mut().poll(cx) {
                    Poll::Pending if left > 0 => Poll::Pending,
                    _ => Poll::Ready(()),
                }
            })
            .await;
        }
    }
}

/// A narrow pool: two lanes of one operation each, so that most calls of a handful wait.
async fn narrow(server: &RedisServer) -> (FaultProxy, SpoolLocks) {
    let proxy = FaultProxy::before(server);
    let locks = connect(&proxy.url(), |config| {
        config.pool.max_connections = 2;
        config.pool.depth = 1;
        config.pool.idle_timeout = millis(20);
        config.pool.response_timeout = millis(150);
        config.pool.connect_timeout = millis(500);
        config.deadline = Duration::from_secs(2);
    })
    .await;
    (proxy, locks)
}

/// Five calls with the roads `mix`, the last two on a good one, each given up after its own patience.
async fn one_mix(locks: &SpoolLocks, proxy: &FaultProxy, mix: [Road; 3], dice: &mut Dice) {
    proxy.drop_replies(usize::MAX, LostReply::DropThenClose, containing(Road::Breaks.word()));
    proxy.drop_replies(usize::MAX, LostReply::Swallow, containing(Road::Silent.word()));
    let slow = proxy.hold_requests(containing(Road::Slow.word()));
    let mut crew = JoinSet::new();
    for (number, road) in mix.into_iter().chain([Road::Good; 2]).enumerate() {
        let (locks, which) = (locks.clone(), dice.roll(6));
        let patience = match dice.roll(3) {
            0 => Patience::Time(millis(dice.roll(20))),
            _ => Patience::Polls(u32::try_from(dice.roll(6)).expect("below six")),
        };
        crew.spawn(async move {
            let tag = Tag::new(format!("{}-{number}", road.word())).expect("a tag");
            let holder = holder(number);
            give_up(call(&locks, which, &tag, &holder), patience).await;
        });
    }
    tokio::time::sleep(millis(dice.roll(20))).await;
    slow.release();
    while let Some(outcome) = crew.join_next().await {
        outcome.expect("no call panics");
    }
    proxy.heal();
}

fn mixes() -> Vec<[Road; 3]> {
    let pairs = ROADS.iter().flat_map(|a| ROADS.iter().map(move |b| (*a, *b)));
    pairs.flat_map(|(a, b)| ROADS.iter().map(move |c| [a, b, *c])).collect()
}

/// Each eighth of the mixes with a server of its own; most of the time is spent waiting for silent connections.
async fn crew(number: usize, crews: usize) -> usize {
    let server = RedisServer::start();
    let (proxy, locks) = narrow(&server).await;
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 + number as u64);
    let mut done = 0;
    for mix in mixes().into_iter().skip(number).step_by(crews) {
        for _ in 0..ROUNDS {
            one_mix(&locks, &proxy, mix, &mut dice).await;
            let rest = at_rest(&locks).await;
            assert!(open(&rest) <= 2 && rest.slots <= 2, "{mix:?}: {rest:?}");
            assert_eq!(rest.report.active_connections, 0, "{mix:?}: {rest:?}");
            done += 1;
        }
        assert_as_after_connect(&locks, &server).await;
    }
    assert_clean_round(&locks, 10).await;
    done
}

/// One connection, in our count and in the server's.
async fn assert_as_after_connect(locks: &SpoolLocks, server: &RedisServer) {
    let tag = Tag::new("TEST-02").expect("a tag");
    eventually(SOON, async || locks.inspect(&tag).await).await;
    eventually(SOON, async || open(&at_rest(locks).await) == 1).await;
    eventually(SOON, async || server.clients().len() == 1).await;
}

#[test]
fn a_dropped_call_leaves_the_pool_as_it_was() {
    const CREWS: usize = 8;
    let crews: Vec<_> = (0..CREWS)
        .map(|number| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()
                    .expect("threads can be started");
                runtime.block_on(crew(number, CREWS))
            })
        })
        .collect();
    let done: usize = crews.into_iter().map(|crew| crew.join().expect("no crew panics")).sum();
    assert_eq!(done, ROUNDS * mixes().len());
}

/// One call alone, given up after each number of polls until it is through.
#[tokio::test]
async fn a_call_may_be_dropped_at_any_await() {
    let server = RedisServer::start();
    let (proxy, locks) = narrow(&server).await;
    for which in [0, 2, 3, 4, 5] {
        for road in ROADS {
            for polls in 0..5 {
                proxy.drop_replies(1, LostReply::DropThenClose, containing(Road::Breaks.word()));
                proxy.drop_replies(1, LostReply::Swallow, containing(Road::Silent.word()));
                proxy.delay(if road == Road::Slow { millis(5) } else { Duration::ZERO });
                let tag = Tag::new(road.word()).expect("a tag");
                let holder = holder(1);
                give_up(call(&locks, which, &tag, &holder), Patience::Polls(polls)).await;
                let rest = at_rest(&locks).await;
                assert_eq!(rest.report.active_connections, 0, "{which} {road:?} {polls}: {rest:?}");
                proxy.heal();
            }
        }
    }
    assert_as_after_connect(&locks, &server).await;
    assert_clean_round(&locks, 10).await;
}

/// Callers who leave in the moment in which they are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slot_that_nobody_takes_returns() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |config| {
        config.pool.max_connections = 1;
        config.pool.depth = 1;
    })
    .await;
    let mut crew = JoinSet::new();
    for number in 0..64 {
        let locks = locks.clone();
        crew.spawn(async move {
            let mut dice = Dice(0x9E37_79B9_7F4A_7C15 + number);
            let tag = Tag::new("TEST-02").expect("a tag");
            let start = tokio::time::Instant::now();
            let mut dropped = 0_u64;
            while start.elapsed() < Duration::from_secs(3) {
                let call = locks.inspect(&tag);
                let spell = Duration::from_micros(dice.roll(3000));
                if tokio::time::timeout(spell, call).await.is_err() {
                    dropped += 1;
                }
                // In the line, or with a slot that has just been granted.
                let mut call = Box::pin(locks.inspect(&tag));
                std::future::poll_fn(|cx| {
                    let _ = call.as_mut().poll(cx);
                    Poll::Ready(())
                })
                .await;
                tokio::task::yield_now().await;
            }
            dropped
        });
    }
    let mut dropped = 0;
    while let Some(outcome) = crew.join_next().await {
        dropped += outcome.expect("no panic");
    }
    println!("{dropped} dropped");
    let rest = at_rest(&locks).await;
    assert_eq!((rest.report.active_connections, open(&rest)), (0, 1), "{rest:?}");
    assert_clean_round(&locks, 10).await;
}
