//! Must hold 7. What a wall clock that is set does to guards: the holder's does nothing, the server's is told.
//!
//! A holder counts by its monotonic clock. A server keeps the end of a lease by its wall clock, so that one set forward ends all
//! leases at once, and one set back makes them last longer, until a renewal.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use spool_lock::{AcquireError, Event, GuardState, LockGuard, LostReason, ReadError};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::*;
use crate::support::{ClockShim, FaultProxy, process::Process};

const HOUR: i64 = 3600;

const TTL: u64 = 900;
/// A guard is renewed each third of that.
const RENEWED: Duration = Duration::from_millis(TTL / 3);

fn key(tag: &Tag, part: &str) -> String {
    format!("spool:{{{tag}}}:{part}")
}

/// For how many ms the lease stands by the server's clock.
fn left(server: &RedisServer) -> i64 {
    server.query(&["PTTL", &key(&tag(), "lock")])
}

fn unix_millis(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).expect("after 1970").as_millis())
        .expect("before the year 3000")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("a test does not take that long")
}

fn extends(locks: &SpoolLocks) -> u64 {
    locks.stats().locks.operations["extend"].total
}

fn lost(locks: &SpoolLocks) -> u64 {
    locks.stats().locks.lost_total.values().sum()
}

// --- the holder's clock

/// Names the variable by which a process learns that it is a child, and where the server is: directly, and by a proxy.
const VARIABLE: &str = "SPOOL_CLOCKS";
const BEGUN: &str = "begun";
const REPORT: &str = "report ";

/// For how long a child waits for a lock in each round, lets a call that gets no answer take, and lets the round last.
const WAITS: Duration = Duration::from_millis(500);
const ASKS: Duration = Duration::from_millis(400);
const ROUND: Duration = Duration::from_millis(1500);

/// What a child says after each round. Times are in ms.
#[derive(Debug)]
struct Report {
    /// What its wall clock showed, since 1970.
    wall: i64,
    fence: u64,
    is_held: bool,
    safe_for: u64,
    waited: u64,
    asked: u64,
    lasted: u64,
    extends: u64,
    lost: u64,
}

impl Report {
    fn into_text(self) -> String {
        let Self { wall, fence, is_held, safe_for, waited, asked, lasted, extends, lost } = self;
        serde_json::json!((wall, fence, is_held, safe_for, waited, asked, lasted, extends, lost)).to_string()
    }

    fn read(text: &str) -> Self {
        let row = serde_json::from_str(text).expect("what the child wrote");
        let (wall, fence, is_held, safe_for, waited, asked, lasted, extends, lost) = row;
        Self { wall, fence, is_held, safe_for, waited, asked, lasted, extends, lost }
    }
}

/// A part of the test below, which starts it as a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(urls) = std::env::var(VARIABLE) else { return };
    let (direct, by_proxy) = urls.split_once(' ').expect("two addresses");
    let locks = connect(direct).await;
    let mut config = Config::new(by_proxy).expect("an address");
    config.deadline = ASKS;
    // It asks in vain on purpose, each time.
    (config.retry.attempts, config.circuit.faults) = (1, 1000);
    let unanswered = SpoolLocks::connect(config).await.expect("it answers so far");

    let guard = locks.guard(&tag(), &robot()).ttl(ttl(TTL)).await.expect("it is free");
    let mut watch = guard.watch();
    let told = tokio::spawn(async move {
        let mut told = Vec::new();
        while let Some(state) = watch.next().await {
            told.push(state);
        }
        told
    });
    say(BEGUN);
    while next_line().await {
        say(BEGUN);
        let begun = Instant::now();
        let ((waited, asked), ()) =
            tokio::join!(wait_and_ask(&locks, &unanswered), sleep_until(begun + ROUND));
        let report = Report {
            wall: unix_millis(SystemTime::now()),
            fence: guard.fence().get(),
            is_held: matches!(guard.state(), GuardState::Held { .. }),
            safe_for: millis(guard.safe_for()),
            waited: millis(waited),
            asked: millis(asked),
            lasted: millis(begun.elapsed()),
            extends: extends(&locks),
            lost: lost(&locks),
        };
        say(&format!("{REPORT}{}", report.into_text()));
    }
    guard.release().await.expect("it is held");
    let told = told.await.expect("it heard of the release");
    assert!(matches!(told[..], [GuardState::Held { .. }, GuardState::Released]), "{told:?}");
    say("released");
}

/// How long it took to wait in vain for a lock, and to ask in vain for an answer.
async fn wait_and_ask(locks: &SpoolLocks, unanswered: &SpoolLocks) -> (Duration, Duration) {
    let (other, robot) = (numbered(1), robot());
    let wait = async {
        let begun = Instant::now();
        let refused = locks.acquire(&other, &robot).wait(WAITS).await.expect_err("it is held");
        assert!(matches!(refused, AcquireError::Contended { .. }), "{refused:?}");
        begun.elapsed()
    };
    let ask = async {
        let begun = Instant::now();
        let fault = unanswered.inspect(&other).await.expect_err("no answer passes");
        assert!(matches!(fault, ReadError::Fault(_)), "{fault:?}");
        begun.elapsed()
    };
    tokio::join!(wait, ask)
}

/// On a line of its own, whatever a test harness has begun to write.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).expect("somebody reads");
}

/// Whether there is one more round.
async fn next_line() -> bool {
    let read = || std::io::stdin().read_line(&mut String::new()).expect("a pipe") > 0;
    tokio::task::spawn_blocking(read).await.expect("it does not panic")
}

/// A running child; killed on drop.
struct Child {
    _process: Process,
    /// It ends with this.
    stdin: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Child {
    fn start(server: &RedisServer, proxy: &FaultProxy, shim: &ClockShim) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a program knows where it is"));
        command.args(["--exact", "clocks::child", "--nocapture"]).envs(shim.variables());
        command.env(VARIABLE, format!("{} {}", server.url(), proxy.url()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command).expect("a program can be started again");
        let (stdin, stdout) = process.pipes();
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { _process: process, stdin: Some(stdin), lines }
    }

    /// Waits for a line that begins so, and says how it goes on.
    async fn says(&mut self, start: &str) -> String {
        let search = async {
            loop {
                let line = self.lines.recv().await.expect("a child that does not fail");
                if let Some(rest) = line.strip_prefix(start) {
                    return rest.to_owned();
                }
            }
        };
        timeout(4 * SOON, search).await.expect("a child that does not hang")
    }

    /// One round, in the midst of which its clock is set.
    async fn round(&mut self, set: impl FnOnce()) -> Report {
        self.stdin.as_mut().expect("it has not ended").write_all(b"\n").expect("the child reads");
        self.says(BEGUN).await;
        sleep(ASKS / 2).await;
        set();
        Report::read(&self.says(REPORT).await)
    }
}

/// Its deadlines, its waits and its renewals are those of the monotonic clock.
#[tokio::test]
async fn a_wall_clock_of_the_holder_that_is_set_changes_nothing() {
    let shim = ClockShim::build().expect("a C compiler");
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&server.url()).await;
    let _other = locks.acquire(&numbered(1), &stranger()).await.expect("it is free");
    let mut child = Child::start(&server, &proxy, &shim);
    child.says(BEGUN).await;
    proxy.blackhole();

    let mut before: Option<Report> = None;
    for seconds in [0, HOUR, -HOUR, 0] {
        let report = child.round(|| shim.shift(seconds)).await;
        println!("{seconds} s: {report:?}, {} ms left", left(&server));
        let shifted = report.wall - unix_millis(SystemTime::now());
        assert!((shifted - 1000 * seconds).abs() < 5_000, "the clock of the child is set: {shifted} ms");
        assert!(report.is_held && report.lost == 0, "after {seconds} s: {report:?}");
        assert!(report.safe_for <= TTL);
        assert!((1..=TTL.cast_signed()).contains(&left(&server)), "{} ms left", left(&server));
        assert!((500..1500).contains(&report.waited), "{report:?}");
        assert!((400..1400).contains(&report.asked), "{report:?}");
        if let Some(before) = before {
            assert_eq!(report.fence, before.fence);
            let (renewals, lasted) = (report.extends - before.extends, report.lasted);
            let right = lasted / millis(RENEWED);
            assert!((right - 2..=right + 2).contains(&renewals), "{renewals} renewals in {lasted} ms");
        }
        before = Some(report);
    }
    child.stdin = None;
    child.says("released").await;
    assert!(is_free(&locks, &tag()).await);
    let next = locks.guard(&tag(), &robot()).await.expect("it is free");
    assert!(Some(next.fence().get()) > before.map(|before| before.fence));
}

// --- the server's clock

/// A server whose clock can be set.
fn clocked() -> (ClockShim, RedisServer) {
    let shim = ClockShim::build().expect("a C compiler");
    let server = RedisServer::builder().clock(&shim).start();
    (shim, server)
}

async fn guard(locks: &SpoolLocks) -> LockGuard {
    locks.guard(&tag(), &robot()).ttl(ttl(TTL)).await.expect("it is free")
}

/// It is held, and renewed all the while.
async fn assert_is_renewed(locks: &SpoolLocks, guard: &LockGuard) {
    for _ in 0..4 {
        let before = extends(locks);
        eventually(SOON, async || extends(locks) > before).await;
        assert!(matches!(guard.state(), GuardState::Held { .. }), "{:?}", guard.state());
    }
}

/// Nothing but calls that came too late by a clock that was set, and were sent once more.
#[track_caller]
fn assert_no_failures(locks: &SpoolLocks, late: u64) {
    let stats = locks.stats().locks;
    assert_eq!(stats.operations.values().flat_map(|it| it.failures_total.values()).sum::<u64>(), 0);
    assert!(stats.late_total <= late, "{} calls were late", stats.late_total);
}

#[tokio::test]
async fn a_server_clock_set_forward_ends_a_guard_which_the_next_renewal_tells() {
    let (shim, server) = clocked();
    let (locks, other) = (connect(&server.url()).await, connect(&server.url()).await);
    let mut last = None;
    for hours in 1..=3 {
        let guard = guard(&locks).await;
        assert!(Some(guard.fence()) > last, "{} after {last:?}", guard.fence());
        assert_is_renewed(&locks, &guard).await;
        let cancellation = guard.cancellation();
        let sent = extends(&locks);
        shim.shift(hours * HOUR);
        let set = Instant::now();
        let lost = timeout(SOON, guard.lost()).await.expect("it is told");
        println!("told after {:?}", set.elapsed());
        // By the first renewal that is sent then, and not because time ran out.
        assert_eq!((lost.reason, extends(&locks)), (LostReason::Expired, sent + 1));
        assert!(cancellation.is_cancelled());
        assert_eq!(locks.stats().locks.lost_total["expired"], hours.unsigned_abs());

        // Whoever comes next has a higher fence, and is renewed as ever: nothing is taken for late any more.
        let next = other.guard(&tag(), &stranger()).ttl(ttl(TTL)).await.expect("it has ended");
        assert!(next.fence() > guard.fence(), "{} after {}", next.fence(), guard.fence());
        assert_is_renewed(&other, &next).await;
        assert!(guard.release().await.is_err(), "it was lost");
        next.release().await.expect("it is held");
        last = Some(lost.fence);
    }
    assert_no_failures(&locks, 3);
    assert_no_failures(&other, 3);
    assert_eq!((lost(&locks), lost(&other)), (3, 0));
}

/// A call of any kind shows the clock; the watch looks within a second then, long before the guard would be renewed.
#[tokio::test]
async fn a_watch_finds_a_guard_that_a_server_clock_has_ended() {
    let (shim, server) = clocked();
    let locks = connect(&server.url()).await;
    let mut watch = locks.watch_tag(&tag()).await.expect("healthy");
    // Longer than it may be held: it is never renewed.
    let guard = locks.guard(&tag(), &robot()).ttl(Ttl::HOUR).await.expect("it is free");
    let heard = timeout(SOON, watch.next()).await.expect("it is told");
    assert!(matches!(heard.as_deref(), Some(Event::Taken { .. })), "{heard:?}");
    shim.shift(2 * HOUR);
    let set = Instant::now();
    locks.inspect(&numbered(3)).await.expect("healthy");
    let lost = timeout(SOON, guard.lost()).await.expect("it is told");
    println!("told after {:?}", set.elapsed());
    assert_eq!((lost.reason, extends(&locks)), (LostReason::Expired, 0), "not by a renewal");
    assert!(set.elapsed() < Duration::from_millis(2500), "{:?}", set.elapsed());
    assert_eq!(locks.stats().locks.lost_total["expired"], 1);
    let next = locks.guard(&tag(), &stranger()).await.expect("it has ended");
    assert!(next.fence() > guard.fence());
}

#[tokio::test]
async fn a_server_clock_set_back_leaves_a_guard_held_and_fences_rising() {
    let (shim, server) = clocked();
    let (locks, other) = (connect(&server.url()).await, connect(&server.url()).await);
    let guard = guard(&locks).await;
    assert_is_renewed(&locks, &guard).await;
    shim.shift(-HOUR);
    println!("{} ms left at once", left(&server));
    assert_is_renewed(&locks, &guard).await;
    assert!(
        left(&server) <= TTL.cast_signed(),
        "{} ms: nobody waits for an hour after a crash",
        left(&server)
    );

    // Asked from anywhere, the lease is told as it is.
    for locks in [&locks, &other, &connect(&server.url()).await] {
        let (before, seen) = (left(&server), locks.inspect(&tag()).await.expect("healthy").value);
        let seen = seen.expect("it is held");
        assert_eq!((seen.fence, &seen.holder), (guard.fence(), &robot()));
        let (seconds, _): (i64, i64) = server.query(&["TIME"]);
        let lasts = unix_millis(seen.expires_at) - 1000 * seconds;
        println!("{before} ms left, told: {lasts} ms after second {seconds}");
        assert!((lasts - before).abs() < 2_000, "{lasts} ms, not {before}");
        assert!(seen.since > seen.expires_at, "it began an hour later than it ends");
    }
    assert!(guard.safe_for() <= Duration::from_millis(TTL), "it claims no more than it asked for");
    let mut last = guard.fence();
    guard.release().await.expect("it is held");
    assert!(is_free(&other, &tag()).await);

    // By the counter, and where that is gone too, by what this process has seen.
    for (is_counted, locks) in [(true, &other), (true, &locks), (false, &locks), (false, &locks)] {
        if !is_counted {
            server.cmd(&["DEL", &key(&tag(), "fence")]);
        }
        let guard = self::guard(locks).await;
        assert!(guard.fence() > last, "{} after {last}", guard.fence());
        assert_is_renewed(locks, &guard).await;
        last = guard.fence();
        guard.release().await.expect("it is held");
    }
    assert_eq!((lost(&locks), lost(&other)), (0, 0));
    assert_no_failures(&locks, 0);
    assert_no_failures(&other, 0);
}

/// Whatever the clock does, the guards of a tag have rising fences, and one that was lost is told so.
#[tokio::test]
async fn a_server_clock_that_goes_to_and_fro_keeps_fences_rising() {
    let (shim, server) = clocked();
    let locks = connect(&server.url()).await;
    let (mut last, mut before) = (None, 0);
    for hours in [-1, 0, 1, -1, 1, 0] {
        let guard = guard(&locks).await;
        assert!(Some(guard.fence()) > last, "{} after {last:?}", guard.fence());
        last = Some(guard.fence());
        shim.shift(hours * HOUR);
        if hours < before {
            assert_is_renewed(&locks, &guard).await;
            guard.release().await.expect("it is held");
        } else {
            let lost = timeout(SOON, guard.lost()).await.expect("it is told");
            assert_eq!(lost.reason, LostReason::Expired);
        }
        assert!(is_free(&locks, &tag()).await);
        before = hours;
    }
    assert_eq!(lost(&locks), 3);
    assert_no_failures(&locks, 3);
}
