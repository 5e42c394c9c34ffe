//! A server that will be well again by itself: it loads its data, runs somebody's script, or is paused. All timeouts are the defaults.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use spool_lock::{AcquireError, HealthStatus, Mode, Source, SpoolLocks};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    outlook::*,
    report::{self, Row},
    support::{RedisServer, eventually},
};

const MUST: &str = "waits by retry_after, recovers by itself";

/// Callers who come each 20 ms, whatever they are told, and never know a fault that is none of `kinds`.
struct Callers(JoinSet<()>);

impl Callers {
    fn of(locks: &SpoolLocks, kinds: &'static [&'static str]) -> Self {
        let mut crew = JoinSet::new();
        for number in 10..14 {
            let locks = locks.clone();
            crew.spawn(async move {
                loop {
                    match locks.acquire(&tag(number), &worker()).await {
                        // What one of them was granted unheard is cleared up in the background.
                        Ok(_) | Err(AcquireError::AlreadyHeld(_)) => {
                            drop(locks.release(&tag(number), &worker()).await);
                        }
                        Err(AcquireError::Unavailable { retry_after, .. }) => assert!(!retry_after.is_zero()),
                        Err(AcquireError::Ambiguous { fault, .. } | AcquireError::Fault(fault)) => {
                            assert!(kinds.contains(&fault.kind().as_str()), "{}", chain(&fault));
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                    sleep(millis(20)).await;
                }
            });
        }
        Self(crew)
    }

    /// Sends them home, if none has heard what nobody should.
    async fn leave(mut self) {
        if let Some(ended) = self.0.try_join_next() {
            ended.expect("they go on until they are sent home");
        }
        self.0.shutdown().await;
    }
}

/// Waits until nobody is let through any more, and looks at what is told.
async fn is_refused(locks: &SpoolLocks, words: &str) {
    eventually(SOON, async || locks.mode() == Mode::Unreachable).await;
    let refused = assert_refused(locks, 3);
    assert_eq!(refused.mode, Mode::Unreachable);
    assert_says(&chain(&refused.fault), words);
    assert_eq!(locks.inspect(&tag(1)).await.expect("it is known").source, Source::Snapshot);
}

/// Asserts that all is well as soon as it may be.
async fn is_well_again(row: &str, fault: &str, locks: &SpoolLocks, modes: Modes, opened_after: Duration) {
    let interval = locks.link_circuit().retry_after();
    let (took, _) = first_success(locks, 4).await;
    assert!(took <= interval + SECOND, "{took:?} after the end, the interval was {interval:?}");
    assert_eq!(modes.entered().await, [Mode::Unreachable, Mode::Normal], "and nothing in between");
    assert_well(locks).await;
    report::row(Row {
        row,
        fault,
        must: MUST,
        timeouts: "all defaults",
        measured: &[
            ("refused after", format!("{opened_after:.1?}")),
            ("open interval at the end", format!("{interval:.1?}")),
            ("first success after", format!("{took:.1?}")),
        ],
    });
}

/// Sends a command that is not answered for long, over a connection of its own.
fn send(server: &RedisServer, command: &'static [&'static str]) -> JoinHandle<redis::RedisResult<()>> {
    let url = server.url();
    thread::spawn(move || {
        let mut connection = redis::Client::open(url)?.get_connection()?;
        redis::cmd(command[0]).arg(&command[1..]).exec(&mut connection)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loads_its_data_is_waited_for() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |_| {}).await;
    locks.acquire(&tag(1), &worker()).await.unwrap();
    // 3,000 keys of a millisecond each, and clients are answered after each kilobyte.
    server.cmd(&["DEBUG", "POPULATE", "3000"]);
    server.cmd(&["CONFIG", "SET", "key-load-delay", "1000"]);
    server.cmd(&["CONFIG", "SET", "loading-process-events-interval-bytes", "1024"]);
    let (modes, callers) = (Modes::of(&locks), Callers::of(&locks, &["loading"]));
    let began = Instant::now();
    let reload = send(&server, &["DEBUG", "RELOAD"]);
    is_refused(&locks, "loading its data").await;
    let opened_after = began.elapsed();
    let said = assert_ill(&locks.health().await, HealthStatus::Unhealthy, Mode::Unreachable);
    assert_says(&said, "loading its data");
    eventually(SOON, async || reload.is_finished()).await;
    reload.join().unwrap().unwrap();
    assert!(began.elapsed() > 2 * SECOND, "{:?}: it was a while", began.elapsed());
    is_well_again("states::loading", "LOADING for 3 s", &locks, modes, opened_after).await;
    callers.leave().await;
    assert!(locks.inspect(&tag(1)).await.unwrap().value.is_some(), "it is there again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_with_a_script_is_waited_for() {
    let server = RedisServer::builder().arg("busy-reply-threshold", "20").start();
    let locks = connect(&server.url(), |_| {}).await;
    locks.acquire(&tag(1), &worker()).await.unwrap();
    let (modes, callers) = (Modes::of(&locks), Callers::of(&locks, &["busy"]));
    let began = Instant::now();
    let somebody = send(&server, &["EVAL", "while true do end", "0"]);
    is_refused(&locks, "busy with a script").await;
    let opened_after = began.elapsed();
    let said = assert_ill(&locks.health().await, HealthStatus::Unhealthy, Mode::Unreachable);
    assert_says(&said, "busy with a script");
    sleep(2 * SECOND).await;
    assert_eq!(locks.mode(), Mode::Unreachable);
    server.cmd(&["SCRIPT", "KILL"]);
    is_well_again("states::busy", "BUSY for 2 s", &locks, modes, opened_after).await;
    assert!(somebody.join().unwrap().is_err(), "it was killed");
    callers.leave().await;
}

/// Nothing is answered, and no connection is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_paused_is_waited_for() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |_| {}).await;
    locks.acquire(&tag(1), &worker()).await.unwrap();
    let (modes, callers) = (Modes::of(&locks), Callers::of(&locks, &["timeout", "connect", "late"]));
    let began = Instant::now();
    server.cmd(&["CLIENT", "PAUSE", "3000", "ALL"]);
    is_refused(&locks, "did not answer in time").await;
    let opened_after = began.elapsed();
    assert!(opened_after < 2 * SECOND, "{opened_after:?}: it is asked over another connection");
    sleep((3 * SECOND).saturating_sub(began.elapsed())).await;
    is_well_again("states::paused", "CLIENT PAUSE for 3 s", &locks, modes, opened_after).await;
    callers.leave().await;
}

/// Reads and pings are answered, and no write is: as some hosts do it before a failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_are_paused_are_an_outage_although_pings_are_answered() {
    let server = RedisServer::start();
    // Between two timeouts there is time for pings.
    let locks = connect(&server.url(), |config| config.deadline = 4 * SECOND).await;
    // The lane that is kept for it would answer them all the time.
    let guard = locks.guard(&tag(1), &worker()).await.unwrap();
    let callers = Callers::of(&locks, &["timeout", "connect", "late", "checkout_timeout"]);
    let began = Instant::now();
    server.cmd(&["CLIENT", "PAUSE", "12000", "WRITE"]);
    eventually(10 * SECOND, async || locks.mode() == Mode::Unreachable).await;
    assert!(server.try_query::<String>(&["PING"]).is_ok());
    sleep((12 * SECOND).saturating_sub(began.elapsed())).await;
    eventually(20 * SECOND, async || locks.mode() == Mode::Normal).await;
    guard.release().await.expect("its renewals were not missed for long");
    callers.leave().await;
}
