//! Guards that are dropped, wherever that may be: nothing is said, nobody waits, nothing is left.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
};

use spool_lock::{GuardState, LostReason};
use tempfile::TempDir;
use tokio::{
    runtime::Builder,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    crew::{machine_clock, percentile},
    places::{GUARDS, MOMENT, Place, TTL, VARIABLE, take},
    support::{FaultProxy, process::Process, proxy::Close},
};

/// Within which a process has ended.
const END: Duration = Duration::from_secs(2);

/// A part of the tests below, which start it as a process of its own.
#[test]
fn child() {
    if let Some((place, url)) = Place::of_this_process() {
        place.visit(&url);
    }
}

/// Drops 1,000 guards at a place, and looks at how the process ended and at what it left.
async fn leaves_nothing(place: Place) {
    let server = RedisServer::start();
    let folder = TempDir::new().expect("a temporary directory");
    let [out, err] = ["out", "err"].map(|name| folder.path().join(name));
    let file = |path| File::create(path).expect("a file can be made");
    let mut command = Command::new(std::env::current_exe().expect("a program knows where it is"));
    command
        .args(["--exact", "drops::child", "--nocapture"])
        .env(VARIABLE, format!("{place:?} {}", server.url()))
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err));
    let mut process = Process::spawn(command).expect("a program can be started again");
    let status = eventually(6 * SOON, async || process.ended()).await;
    let (ended, left) = (machine_clock(), locks(&server));

    let [out, err] = [out, err].map(|path| fs::read_to_string(path).expect("text"));
    assert_eq!(err, "", "it says nothing; and\n{out}");
    assert_eq!(status.code(), Some(place.code()), "{out}");
    let moment = out.lines().find_map(|line| line.strip_prefix(MOMENT)).expect("it came to its end");
    let spent = ended.saturating_sub(Duration::from_nanos(moment.parse().expect("nanoseconds")));
    assert!(spent < END, "{place:?} ended in {spent:?}");
    assert!(left == 0 || !place.is_released(), "{left} are left");
    eventually(TTL, async || nobody_is_connected(&server)).await;
    eventually(TTL + Duration::from_millis(250) - (machine_clock() - ended), async || match locks(&server) {
        0 => Ok(()),
        left => Err(format!("{left} locks outlast their ttl")),
    })
    .await;
}

fn locks(server: &RedisServer) -> usize {
    server.query::<Vec<String>>(&["KEYS", "spool:{*}:lock"]).len()
}

/// No connection of ours is open.
fn nobody_is_connected(server: &RedisServer) -> Result<(), String> {
    let names: Vec<_> = server.clients().into_iter().map(|client| client["name"].clone()).collect();
    if names.is_empty() { Ok(()) } else { Err(format!("connected: {names:?}")) }
}

#[tokio::test]
async fn a_runtime_may_be_dropped_before_its_guards() {
    leaves_nothing(Place::DroppedRuntimes).await;
}

#[tokio::test]
async fn guards_are_released_by_what_unwinds() {
    leaves_nothing(Place::Unwinding).await;
}

#[tokio::test]
async fn guards_are_released_by_the_end_of_a_thread() {
    leaves_nothing(Place::ThreadLocal).await;
}

#[tokio::test]
async fn main_may_return_with_guards() {
    leaves_nothing(Place::Main).await;
    leaves_nothing(Place::Thread).await;
}

#[tokio::test]
async fn main_may_unwind_with_guards() {
    leaves_nothing(Place::UnwindingMain).await;
}

#[tokio::test]
async fn a_process_may_exit_with_guards() {
    leaves_nothing(Place::Exit).await;
}

#[tokio::test]
async fn a_runtime_may_be_shut_down_with_guards() {
    leaves_nothing(Place::ShutdownBackground).await;
    leaves_nothing(Place::ShutdownTimeout).await;
}

#[tokio::test]
async fn guards_may_never_be_dropped() {
    leaves_nothing(Place::Static).await;
    leaves_nothing(Place::Leaked).await;
}

#[test]
fn guards_dropped_in_a_runtime_are_released_at_once() {
    for mut builder in [Builder::new_multi_thread(), Builder::new_current_thread()] {
        let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let server = RedisServer::start();
            let here = connect(&server.url()).await;
            let guards = take(&here, 0..GUARDS, ttl(30_000)).await;
            let mut tasks = JoinSet::new();
            for guard in guards {
                tasks.spawn(async move {
                    let started = Instant::now();
                    drop(guard);
                    started.elapsed()
                });
            }
            nobody_waited(tasks.join_all().await);
            let dropped = Instant::now();
            eventually(SOON, async || locks(&server) == 0).await;
            println!("released in {:?}", dropped.elapsed());
            eventually(SOON, async || here.stats().locks.swept_total["released"] == GUARDS as u64).await;
            assert_eq!(here.stats().locks.lost_total.values().sum::<u64>(), 0);
            drop(here);
            eventually(SOON, async || nobody_is_connected(&server)).await;
        });
    }
}

/// A drop takes some µs. That of a thread that has to wait for a processor takes longer, that of one which waits for Redis
/// each time.
fn nobody_waited(mut drops: Vec<Duration>) {
    drops.sort_unstable();
    let (most, longest) = (percentile(&drops, 95), drops[drops.len() - 1]);
    assert!(most < Duration::from_millis(5), "{most:?}");
    assert!(longest < Duration::from_millis(500), "{longest:?}");
}

fn drop_each(guards: Vec<LockGuard>) -> Vec<Duration> {
    let drop_one = |guard| {
        let started = Instant::now();
        drop(guard);
        started.elapsed()
    };
    guards.into_iter().map(drop_one).collect()
}

#[tokio::test]
async fn guards_dropped_in_an_outage_are_released_after_it() {
    for is_silent in [false, true] {
        let server = RedisServer::start();
        let proxy = FaultProxy::before(&server);
        let here = connect(&proxy.url()).await;
        let mut guards = take(&here, 0..GUARDS, ttl(30_000)).await;
        if is_silent {
            proxy.blackhole();
        } else {
            proxy.refuse();
            proxy.close_all(Close::Rst);
        }
        let outside = guards.split_off(GUARDS / 2);
        nobody_waited(drop_each(guards));
        nobody_waited(std::thread::spawn(|| drop_each(outside)).join().expect("no panic"));
        sleep(Duration::from_millis(800)).await;
        assert_eq!(locks(&server), GUARDS, "Redis does not know yet");

        proxy.heal();
        let healed = Instant::now();
        eventually(2 * SOON, async || locks(&server) == 0).await;
        println!("released {:?} after the outage", healed.elapsed());
        eventually(SOON, async || here.stats().locks.swept_total["released"] == GUARDS as u64).await;
    }
}

#[tokio::test]
async fn a_leaked_guard_is_renewed_until_its_longest_hold_is_over() {
    for (here, _server) in stores().await {
        let taken = Instant::now();
        let (tag, longest) = (tag(), Duration::from_millis(1000));
        let guard = here.guard(&tag, &robot()).ttl(ttl(400)).max_hold(longest).await.expect("it is free");
        let watch = guard.watch();
        std::mem::forget(guard);
        sleep(Duration::from_millis(700)).await;
        assert!(!is_free(&here, &tag).await && !watch.state().is_final(), "it is renewed");
        is_freed(&here, &tag, Duration::from_millis(800)).await;
        let held = taken.elapsed();
        assert!(held > Duration::from_millis(900), "{held:?}");
        assert_eq!(watch.state(), GuardState::Lost { reason: LostReason::Deadline });
        let renewals = here.stats().locks.operations["extend"].total;
        sleep(Duration::from_millis(300)).await;
        assert_eq!(here.stats().locks.operations["extend"].total, renewals, "nobody renews it any more");
    }
}
