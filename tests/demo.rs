//! What a newcomer runs first: `scripts/demo`, on a machine on which it leaves nothing behind.

#![cfg(all(feature = "prometheus", feature = "snapshot"))]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "both tests share what they do"
)]

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// For the next line of the demo. Before the first ones it may have to build the exporter.
const PATIENCE: Duration = Duration::from_secs(600);

/// A demo wants the machine for itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A running demo; asked to end, and so to clean up, when the test panics.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        if let Ok(None) = self.0.try_wait() {
            // Not SIGKILL, after which nobody would end the servers.
            let _ = Command::new("sh").args(["-c", r#"kill -TERM "$1""#, "sh", &pid]).status();
        }
        let _ = self.0.wait();
    }
}

/// The processes that have `dir` in their environment or work in it; `None` where there is no `/proc`.
fn processes_of(dir: &Path) -> Option<Vec<String>> {
    let is_of = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        // redis-server writes its title over its environment.
        let works_in = fs::read_link(process.join("cwd")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&*dir.to_string_lossy()) || works_in.starts_with(dir)
    };
    let name_of = |process: PathBuf| fs::read_to_string(process.join("comm")).ok();
    let processes = fs::read_dir("/proc").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    Some(processes.filter(|process| is_of(process)).filter_map(name_of).collect())
}

/// Whether the demo was there in the middle and nothing of it is left: `seen` are its processes of then.
fn assert_gone(dir: &Path, seen: Option<Vec<String>>) {
    match seen {
        None => eprintln!("SKIPPED: no /proc to look for processes in"),
        Some(seen) => {
            for name in ["bash", "redis-server", "demo", "spool-lock-expo"] {
                assert!(seen.iter().any(|seen| seen.trim() == name), "{name} is not among {seen:?}");
            }
            assert_eq!(processes_of(dir), Some(Vec::new()), "processes are left");
        }
    }
    let left: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?} is left");
}

/// Starts `scripts/demo`; all that it does not build stands in `dir`. `None` where there is no bash.
fn start(arguments: &[&str], dir: &Path) -> Option<Demo> {
    let target =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is a folder of the target folder");
    let mut command = Command::new("bash");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo")).args(arguments);
    command.current_dir("/").env("TMPDIR", dir).env("CARGO_TARGET_DIR", target);
    // A build with other features would replace the exporter under the tests that come after this one.
    let features = [
        ("tls-ring", cfg!(feature = "tls-ring")),
        ("tls-aws-lc", cfg!(feature = "tls-aws-lc")),
        ("rate-limit", cfg!(feature = "rate-limit")),
    ];
    for (feature, _) in features.iter().filter(|(_, is_on)| *is_on) {
        command.args(["--features", feature]);
    }
    // Cargo sets them for tests. The build script of ring looks at them, and would run again in the demo's build.
    let set_by_cargo = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| set_by_cargo(name)) {
        command.env_remove(name);
    }
    match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIPPED: bash not installed");
            None
        }
        other => Some(Demo(other.unwrap())),
    }
}

/// Runs the demo for 20 s, in which Redis is killed, and asserts that it succeeds, says this and leaves nothing behind.
fn assert_demo(arguments: &[&str], texts: &[&str]) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = TempDir::with_prefix("demo-").unwrap();
    let Some(mut demo) = start(&[arguments, &["--seconds", "20"]].concat(), dir.path()) else { return };
    let (sender, lines) = mpsc::channel();
    let stdout = BufReader::new(demo.0.stdout.take().unwrap());
    thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut said = String::new();
    let mut seen = None;
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                println!("{line}");
                if line.starts_with("   1 s ") {
                    seen = processes_of(dir.path());
                }
                said += &(line + "\n");
            }
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the demo has said nothing for {PATIENCE:?}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    assert!(demo.0.wait().unwrap().success(), "it says so by its exit code");
    for text in EACH_TIME.iter().chain(texts) {
        assert!(said.contains(text), "{text:?} was not said");
    }
    assert!(!said.contains("(never)"), "calls were refused at once, and answered again");
    assert_gone(dir.path(), seen);
}

/// What the demo says of every outage.
const EACH_TIME: [&str; 19] = [
    "connection per request: ",
    "/metrics\n",
    " pairs, ",
    " 0 errors, ",
    " of 25 clients and rejected 0\n",
    " 100 of 100 event streams stayed up, ",
    "== redis is killed (kill -9), for 4 s\n",
    " unreachable | ",
    "== redis is started again",
    " recovery: another run of redis answers\n",
    " recovery: verify: ",
    " recovery: deferred: ",
    " recovery: restore: ",
    " recovery: admit: ",
    " redis was back after ",
    " stood when redis was back, 0 leases were lost\n",
    " releases were deferred, ",
    " 100 of 100 event streams have heard something since\n",
    "good: nothing was lost, and all is as before\n",
];

#[test]
fn demo_ends_by_itself_with_all_as_it_was_before_redis_was_killed() {
    assert_demo(&[], &[" applied, 0 ended), the last "]);
}

#[test]
fn demo_has_every_lease_of_its_ledger_back_from_a_redis_that_came_back_empty() {
    assert_demo(
        &["--restart"],
        &[
            "== redis is started again, empty\n",
            " recovery: redis has lost its data\n",
            " under their fences, 0 under others, 0 were missing\n",
            " 0 were granted what the ledger had open\n",
        ],
    );
}
