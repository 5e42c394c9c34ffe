//! [`Crew`]: waiters in a process of their own, which the one that starts it can kill.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Command, Stdio},
    time::Duration,
};

use spool_lock::{Config, SpoolLocks};
use tokio::{sync::mpsc, time::timeout};

use super::{Failure, PATIENCE, Turn, Worker, crowd};
use crate::support::process::Process;

/// Names the variable by which a process learns that it is a child, and what it is to do.
const VARIABLE: &str = "SPOOL_CREW";
const READY: &str = "ready";

/// What one process does.
#[derive(Debug, Clone)]
pub struct Crew {
    pub url: String,
    /// The number of its first waiter. No two waiters at a server have the same.
    pub first: usize,
    /// Each is a process of its own as the store sees it.
    pub connects: usize,
    /// For each connect.
    pub waiters: usize,
    /// Waiter n works at tag n modulo `tags`.
    pub tags: usize,
    pub hold: Duration,
    pub ttl: Duration,
    /// For how long they take turns; each has one at least.
    pub length: Duration,
}

/// A running child; killed on drop.
#[derive(Debug)]
pub struct Child {
    process: Process,
    stdin: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Crew {
    /// One connect and one waiter at one tag, for one turn.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            first: 0,
            connects: 1,
            waiters: 1,
            tags: 1,
            hold: Duration::ZERO,
            ttl: Duration::from_secs(3600),
            length: Duration::ZERO,
        }
    }

    /// The tag with this number.
    pub fn tag(number: usize) -> String {
        format!("CREW-{number:03}")
    }

    /// What this process is to do, if it is a child.
    pub fn of_this_process() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        let (url, [first, connects, waiters, tags], [hold, ttl, length]): (_, [usize; 4], [u64; 3]) =
            serde_json::from_str(&text).expect("what `start` wrote");
        let millis = Duration::from_millis;
        let (hold, ttl, length) = (millis(hold), millis(ttl), millis(length));
        Some(Self { url, first, connects, waiters, tags, hold, ttl, length })
    }

    /// Starts this program again, so that it finds out by [`of_this_process`](Self::of_this_process) that it is a child.
    fn start(&self, arguments: &[&str]) -> Child {
        let Self { url, first, connects, waiters, tags, hold, ttl, length } = self;
        let millis = [hold, ttl, length].map(Duration::as_millis);
        let text = serde_json::json!((url, [first, connects, waiters, tags], millis)).to_string();
        let mut command = Command::new(std::env::current_exe().expect("a program knows where it is"));
        command.args(arguments).env(VARIABLE, text).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command).expect("a program can be started again");
        let (stdin, stdout) = process.pipes();
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Child { process, stdin, lines }
    }

    /// The whole life of a child: connects, waits for the word, takes turns, says which.
    pub fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut workers = Vec::new();
        for connect in 0..self.connects {
            let mut config = Config::new(&self.url)?;
            config.ttl = spool_lock::Ttl::new(self.ttl)?;
            let locks = runtime.block_on(SpoolLocks::connect(config).into_future())?;
            let first = self.first + connect * self.waiters;
            workers.extend(
                (first..first + self.waiters)
                    .map(|number| Worker::new(&locks, &Self::tag(number % self.tags), number)),
            );
        }
        say(READY)?;
        std::io::stdin().read_line(&mut String::new())?;
        let turns = runtime.block_on(crowd(workers, self.hold, Duration::ZERO, self.length))?;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let row = |turn: &Turn| (turn.fence, nanos(turn.asked), nanos(turn.entered), nanos(turn.left));
        say(&serde_json::to_string(&turns.groups.concat().iter().map(row).collect::<Vec<_>>())?)
    }
}

/// Starts a child for each crew, and waits until all have connected.
pub async fn start(crews: impl IntoIterator<Item = Crew>, arguments: &[&str]) -> Vec<Child> {
    let mut children: Vec<_> = crews.into_iter().map(|crew| crew.start(arguments)).collect();
    for child in &mut children {
        child.ready().await;
    }
    children
}

/// Waits until all have had their turns, a group for each.
pub async fn collect(children: &mut [Child]) -> Vec<Vec<Turn>> {
    let mut groups = Vec::with_capacity(children.len());
    for child in children {
        groups.push(child.turns().await);
    }
    groups
}

/// On a line of its own, whatever a test harness has begun to write.
fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}")?;
    Ok(out.flush()?)
}

impl Child {
    /// Waits until it has connected.
    async fn ready(&mut self) {
        self.line_with(READY).await;
    }

    /// Gives the word.
    pub fn go(&mut self) {
        self.stdin.write_all(b"\n").expect("the child reads");
    }

    /// Waits until it has had its turns.
    async fn turns(&mut self) -> Vec<Turn> {
        let line = self.line_with("[").await;
        let rows: Vec<(Option<u64>, u64, u64, u64)> =
            serde_json::from_str(&line).expect("what the child wrote");
        let nanos = Duration::from_nanos;
        let turn = |(fence, asked, entered, left)| Turn {
            fence,
            asked: nanos(asked),
            entered: nanos(entered),
            left: nanos(left),
        };
        rows.into_iter().map(turn).collect()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.process.kill();
    }

    async fn line_with(&mut self, start: &str) -> String {
        let search = async {
            loop {
                let line = self.lines.recv().await.expect("a child that does not fail");
                if line.starts_with(start) {
                    return line;
                }
            }
        };
        timeout(2 * PATIENCE, search).await.expect("a child that does not hang")
    }
}
