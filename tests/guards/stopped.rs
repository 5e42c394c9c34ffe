//! A process that stands still for longer than its lock lasts. It is a child of the test, which stops it by SIGSTOP.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

use spool_lock::GuardState;
use tokio::{
    runtime::Builder,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::support::{FaultProxy, process::Process};

/// Names the variable by which a process learns that it is a child, and where its store is.
const VARIABLE: &str = "SPOOL_GUARD";
const LASTS: Duration = Duration::from_secs(2);
const LOST: GuardState = GuardState::Lost { reason: LostReason::Deadline };

/// A part of the tests below, which start it as a process of its own.
///
/// It holds a guard that is renewed by a thread of the runtime, and looks at it all the time by one that does nothing else. So it
/// knows the first look after it was stopped: the one that follows a gap.
#[test]
fn child() {
    let Ok(url) = std::env::var(VARIABLE) else { return };
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let locks = runtime.block_on(connect(&url));
    let (tag, robot) = (tag(), robot());
    let guard = locks.guard(&tag, &robot).ttl(ttl(2000)).renew_every(Duration::from_millis(50));
    let guard = runtime.block_on(guard.into_future()).expect("it is free");
    let (mut watch, cancellation) = (guard.watch(), guard.cancellation());
    say("held");

    let started = Instant::now();
    let mut before = started;
    let (gap, first) = loop {
        let begun = Instant::now();
        let safe_for = guard.safe_for();
        let gap = begun - before;
        if gap > LASTS {
            break (gap, safe_for);
        }
        // One that was begun before the stop may be ended by it.
        assert!(!safe_for.is_zero() || begun.elapsed() > LASTS, "lost before it was stopped");
        assert!(begun - started < 30 * LASTS, "nobody has stopped it");
        before = begun;
    };
    assert_eq!((first, guard.state()), (Duration::ZERO, LOST), "the first look, after {gap:?}");
    say("looked");

    let started = Instant::now();
    while started.elapsed() < LASTS / 2 {
        assert_eq!((guard.safe_for(), guard.state()), (Duration::ZERO, LOST));
        std::thread::sleep(Duration::from_millis(1));
    }
    runtime.block_on(async {
        let states = async { while watch.next().await.expect("it is not given back") != LOST {} };
        timeout(SOON, states).await.expect("who watches is told");
        timeout(SOON, cancellation.cancelled()).await.expect("it fires");
        guard.release().await.expect_err("it is lost");
        assert_eq!(lost_total(&locks), [(LostReason::Deadline, 1)].into());
    });
    say("done");
}

/// On a line of its own, whatever a test harness has begun to write.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).expect("somebody reads");
}

/// The child, killed on drop.
struct Robot {
    process: Process,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Robot {
    /// Starts it, and waits until it holds its guard and has renewed it often.
    async fn start(proxy: &FaultProxy) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a program knows where it is"));
        command.args(["--exact", "stopped::child", "--nocapture"]).env(VARIABLE, proxy.url());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command).expect("a program can be started again");
        let (_stdin, stdout) = process.pipes();
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut robot = Self { process, lines };
        robot.says("held").await;
        sleep(LASTS + LASTS / 4).await;
        robot
    }

    async fn says(&mut self, said: &str) {
        let said = async { while self.lines.recv().await.expect("a child that does not fail") != said {} };
        timeout(4 * SOON, said).await.expect("a child that does not hang");
    }
}

/// Must hold 4. Nothing can have reached the child between the moment it stood still and its first look.
#[tokio::test]
async fn a_stopped_process_knows_at_its_first_look_without_any_network() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut robot = Robot::start(&proxy).await;
    robot.process.stop();
    assert!(server.query::<bool>(&["EXISTS", &key(&tag())]), "it was renewed");
    proxy.blackhole();
    // What had passed the proxy is there.
    sleep(LASTS + LASTS / 4).await;
    let bytes = proxy.bytes();
    robot.process.cont();
    robot.says("looked").await;
    assert_eq!(proxy.bytes(), bytes);
    proxy.heal();
    robot.says("done").await;
    assert!(!server.query::<bool>(&["EXISTS", &key(&tag())]));
}

/// Must hold 4. The answer to a renewal waits for the child in its socket, and the network is well: neither brings the lock back.
#[tokio::test]
async fn a_stopped_process_is_not_consoled_by_an_answer_that_was_on_its_way() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut robot = Robot::start(&proxy).await;
    // Longer than the interval of its renewals: one is under way at any moment.
    proxy.delay(Duration::from_millis(200));
    sleep(Duration::from_millis(400)).await;
    let answers = proxy.frames_to_client();
    robot.process.stop();
    let other = connect(&server.url()).await;
    let theirs = other.guard(&tag(), &stranger()).wait(2 * LASTS).await.expect("it ends");
    assert!(proxy.frames_to_client() > answers, "an answer was on its way");
    sleep(LASTS / 4).await;
    robot.process.cont();
    robot.says("done").await;
    assert!(matches!(theirs.state(), GuardState::Held { .. }));
    theirs.release().await.expect("it is held");
    assert_eq!(lost_total(&other), [].into());
}
