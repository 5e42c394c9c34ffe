//! [`Child`]: a process that has a log open and does as it is told, line by line.

use std::{
    io::{BufRead, BufReader, Read as _, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use spool_lock::{Deferred, DeferredLog as _, FileDeferredLog, Fsync, Settlement};

use super::support::process::Process;

/// Names the variable by which a process learns that it is a child, and the path of its log.
const VARIABLE: &str = "SPOOL_DEFERRED_LOG";

/// A part of other tests, which start it as a process of its own.
#[test]
fn child() {
    if let Ok(path) = std::env::var(VARIABLE) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(obey(path.into()));
    }
}

async fn obey(path: PathBuf) {
    let log = FileDeferredLog::open(path, Fsync::Always).expect("the log opens");
    say("ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("keep", text) => match log.keep(&text.parse().expect("a call")).await {
                Ok(()) => say("kept"),
                Err(error) => say(&format!("refused: {error}")),
            },
            ("settle", text) => {
                let settled = log.settle(&[(text.parse().expect("a call"), Settlement::Applied)]).await;
                say(if settled.is_ok() { "settled" } else { "not settled" });
            }
            ("limit", bytes) => {
                let maximum = getrlimit(Resource::Fsize).maximum;
                let current = bytes.parse().ok();
                setrlimit(Resource::Fsize, Rlimit { current, maximum }).expect("a limit can be set");
                say("limited");
            }
            ("count", _) => say(&format!("counted {}", log.load().await.expect("it loads").len())),
            ("flood", _) => flood(&log).await,
            _ => panic!("{line}?"),
        }
    }
}

/// Keeps and settles until it is killed, and says when each is acknowledged.
async fn flood(log: &FileDeferredLog) {
    let one = async || {
        for number in 0_u64.. {
            let call = super::release("FLOOD");
            log.keep(&call).await.expect("there is room");
            say(&format!("kept {call}"));
            if number % 8 != 0 {
                say(&format!("settling {call}"));
                log.settle(&[(call.clone(), Settlement::Applied)]).await.expect("there is room");
                say(&format!("settled {call}"));
            }
        }
    };
    futures_util::future::join_all((0..8).map(|_| one())).await;
}

/// On a line of its own, whatever a test harness has begun to write.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n{line}\n").and_then(|()| out.flush()).expect("somebody listens");
}

pub(crate) struct Child {
    pub(crate) process: Process,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this program again, as a child with a log at `path`, with words and variables before its own.
    pub(crate) fn start(path: &Path, before: &[&str], variables: &[(&str, &Path)]) -> Self {
        let program = std::env::current_exe().expect("a program knows where it is");
        let mut words = before.iter().map(AsRef::as_ref).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().expect("one at least"));
        command.args(words).args(["--exact", "child::child", "--nocapture", "--test-threads=1"]);
        command.env(VARIABLE, path).envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command).expect("a child");
        let (stdin, stdout) = process.pipes();
        let mut child = Self { process, stdin, stdout: BufReader::new(stdout) };
        assert_eq!(child.answer(), "ready");
        child
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the child listens");
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.answer()
    }

    /// Whether it was kept, or why not.
    pub(crate) fn keep(&mut self, call: &Deferred) -> Result<(), String> {
        match self.ask(&format!("keep {call}")) {
            kept if kept == "kept" => Ok(()),
            refused => Err(refused),
        }
    }

    fn answer(&mut self) -> String {
        for line in self.stdout.by_ref().lines() {
            let line = line.expect("text");
            if ["ready", "kept", "refused", "settled", "not settled", "limited", "counted"]
                .iter()
                .any(|word| line.starts_with(word))
            {
                return line;
            }
        }
        panic!("the child has ended");
    }

    /// Lets it live for a while, and says what it said until it was killed, but for a line that it did not finish.
    pub(crate) fn kill_after(mut self, life: Duration) -> Vec<String> {
        let listener = std::thread::spawn(move || {
            let mut said = String::new();
            self.stdout.read_to_string(&mut said).map(|_| said)
        });
        std::thread::sleep(life);
        self.process.kill();
        let said = listener.join().expect("it listens").expect("text");
        said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }
}
