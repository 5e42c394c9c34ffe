//! What a process has deferred is applied by the next one, however the first has ended.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    thread,
};

use spool_lock::{DeferredLog as _, Fence, FileDeferredLog, Fsync, Holder, ReleaseOutcome, SpoolLocks};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

use super::{
    setup::*,
    support::{RedisServer, eventually, process::Process},
};

/// Names the variable by which a process learns that it is a child, and what it is to do.
const VARIABLE: &str = "SPOOL_DEFERRED";

/// What a child is to do.
#[derive(Clone, Copy)]
enum Part {
    /// Holds as many leases, waits for the word, and releases them.
    Holds(usize),
    /// Applies what was left.
    Applies,
}

/// A running child; killed on drop.
struct Child {
    process: Process,
    stdin: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Child {
    fn start(url: &str, log: &Path, part: Part) -> Self {
        let count = if let Part::Holds(count) = part { count } else { 0 };
        let text = serde_json::json!((url, log, count)).to_string();
        let mut command = Command::new(std::env::current_exe().expect("a program knows where it is"));
        command.args(["--exact", "processes::child", "--nocapture"]).env(VARIABLE, text);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command).expect("a program can be started again");
        let (stdin, stdout) = process.pipes();
        let (sender, lines) = mpsc::unbounded_channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { process, stdin, lines }
    }

    /// Waits until it says so, and returns what follows on that line.
    async fn says(&mut self, word: &str) -> String {
        let search = async {
            loop {
                let line = self.lines.recv().await.expect("a child that does not fail");
                if let Some(rest) = line.strip_prefix(word) {
                    return rest.trim().to_owned();
                }
            }
        };
        timeout(2 * SOON, search).await.expect("a child that does not hang")
    }

    fn go(&mut self) {
        self.stdin.write_all(b"\n").expect("the child reads");
    }

    /// SIGKILL; returns when it is gone.
    fn kill(mut self) {
        self.process.kill();
    }
}

/// A part of the tests below, which start it as a process of its own.
#[test]
fn child() {
    let Ok(text) = std::env::var(VARIABLE) else { return };
    let (url, log, count): (String, PathBuf, usize) =
        serde_json::from_str(&text).expect("what `start` wrote");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let locks = connect_with(&url, &log).await;
        let mut leases = Vec::new();
        for number in 0..count {
            leases.push(locks.acquire(&tag(number), &worker()).await.expect("it is free"));
        }
        say("held");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        let mut requests = Vec::new();
        for (number, lease) in leases.iter().enumerate() {
            // Every other one as those do it who know no fence.
            let exact = locks.release_lease(lease);
            let release = if number % 2 == 0 { exact } else { locks.release(&lease.tag, &lease.holder) };
            match release.await {
                Ok(ReleaseOutcome::Deferred { request }) => requests.push(request.to_string()),
                other => panic!("{number}: {other:?}"),
            }
        }
        say(&format!("deferred {}", requests.join(" ")));
        std::io::stdin().read_line(&mut String::new()).unwrap();
    });
}

/// On a line of its own, whatever a test harness has begun to write.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).expect("somebody listens");
}

async fn connect_with(url: &str, path: &Path) -> SpoolLocks {
    let log = FileDeferredLog::open(path, Fsync::Always).expect("nobody else has it");
    SpoolLocks::connect(config(url)).deferred_log(log).await.expect("healthy")
}

/// A server that keeps what it has said that it keeps, and the log of a service.
struct Stand {
    server: RedisServer,
    folder: TempDir,
}

impl Stand {
    fn open() -> Self {
        let server = RedisServer::builder().arg("appendonly", "yes").arg("appendfsync", "always").start();
        Self { server, folder: TempDir::new().expect("a directory can be made") }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("deferred")
    }

    /// A process holds leases, Redis goes away, the process releases them, and is killed. Returns the fences by number, and how the
    /// calls were named; Redis is back.
    async fn left_by_a_process_that_was_killed(&self, count: usize) -> (Vec<Fence>, Vec<String>) {
        let mut child = Child::start(&self.server.url(), &self.log(), Part::Holds(count));
        child.says("held").await;
        self.server.kill9();
        child.go();
        let requests: Vec<_> = child.says("deferred").await.split(' ').map(str::to_owned).collect();
        child.kill();
        self.server.restart();
        let near = self.near().await;
        let mut fences = Vec::new();
        for number in 0..count {
            fences.push(standing(&near, &tag(number)).await.expect("the server has kept it"));
        }
        (fences, requests)
    }

    async fn near(&self) -> SpoolLocks {
        connect(&self.server.url(), |_| {}).await
    }

    async fn next(&self) -> SpoolLocks {
        connect_with(&self.server.url(), &self.log()).await
    }

    /// Waits until a tag is free, and sees it at once.
    fn is_free(&self, number: usize) {
        let lock = format!("spool:{{{}}}:lock", tag(number));
        let is_held = || self.server.query::<bool>(&["EXISTS", &lock]);
        assert!((0..1_000_000).any(|_| !is_held()), "{lock} stays");
    }

    /// Asserts that whoever opens the log next finds nothing to do.
    async fn assert_nothing_is_left(&self) {
        // It is closed when the last connection of its process is, or soon after.
        let log = eventually(SOON, async || FileDeferredLog::open(self.log(), Fsync::Always)).await;
        assert_eq!(log.load().await.expect("it can be read"), vec![]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_process_was_killed_is_applied_once_by_the_next_before_anybody_is_let_in() {
    let stand = Stand::open();
    let (fences, requests) = stand.left_by_a_process_that_was_killed(2).await;
    let text = std::fs::read_to_string(stand.log()).unwrap();
    assert!(requests.iter().all(|request| text.contains(request)), "{requests:?} {text}");

    let next = stand.next().await;
    // Without waiting for each other: each comes after what was left.
    for number in 0..2 {
        next.acquire(&tag(number), &stranger()).await.expect("it was released before");
    }
    assert_eq!(all_settled(&next).await, Counts { applied: 2, ..Counts::default() });
    let near = stand.near().await;
    for (number, fence) in fences.into_iter().enumerate() {
        let newer = standing(&near, &tag(number)).await.expect("the stranger's");
        assert_eq!(releases(&near, &tag(number)).await, [(fence, true), (newer, false)]);
    }
    drop(next);
    stand.assert_nothing_is_left().await;

    // And the one after that ends nothing.
    let last = stand.next().await;
    assert_eq!(last.acquire(&tag(2), &worker()).await.map(|_| counts(&last)).unwrap(), Counts::default());
    assert!(standing(&near, &tag(0)).await.is_some() && standing(&near, &tag(1)).await.is_some());
}

/// The lease that was meant is gone, and somebody has another one by the time at which the next process comes.
async fn a_newer_lease_of(holder: Holder) {
    let stand = Stand::open();
    let (fences, _) = stand.left_by_a_process_that_was_killed(2).await;
    let near = stand.near().await;
    let mut newer = Vec::new();
    for number in 0..2 {
        near.force_release(&tag(number), "operator", "its process has died").await.expect("it is held");
        newer.push(near.acquire(&tag(number), &holder).await.expect("it is free").fence);
    }
    let next = stand.next().await;
    assert_eq!(all_settled(&next).await, Counts { ended: 2, ..Counts::default() });
    for (number, (old, newer)) in fences.into_iter().zip(newer).enumerate() {
        assert_eq!(standing(&near, &tag(number)).await, Some(newer));
        assert_eq!(
            releases(&near, &tag(number)).await,
            [(old, false), (newer, false)],
            "nobody released any"
        );
    }
    drop(next);
    stand.assert_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_not_applied_to_a_newer_lease_of_the_same_holder() {
    a_newer_lease_of(worker()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_not_applied_to_a_newer_lease_of_another_holder() {
    a_newer_lease_of(stranger()).await;
}

/// Each process that comes to apply what was left is killed too, at whatever point it has reached; the last one finishes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_while_they_apply_release_each_lease_once() {
    const COUNT: usize = 1000;
    let stand = Stand::open();
    let (fences, _) = stand.left_by_a_process_that_was_killed(COUNT).await;
    let near = stand.near().await;
    for step in 1..=4 {
        let child = Child::start(&stand.server.url(), &stand.log(), Part::Applies);
        stand.is_free(200 * step);
        child.kill();
        println!("{} of {COUNT} leases stood when it was killed", near.list().await.unwrap().value.len());
    }
    let next = eventually(SOON, async || FileDeferredLog::open(stand.log(), Fsync::Always)).await;
    println!("{} entries are left for the last one", next.load().await.unwrap().len());
    drop(next);
    let next = stand.next().await;
    all_settled(&next).await;
    for (number, fence) in fences.into_iter().enumerate() {
        assert_eq!(releases(&near, &tag(number)).await, [(fence, true)], "{number}");
    }
    drop(next);
    stand.assert_nothing_is_left().await;
}
