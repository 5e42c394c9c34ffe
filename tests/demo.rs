//! What a newcomer runs first: `scripts/demo`, on a machine on which it leaves nothing behind.

#![cfg(all(feature = "prometheus", feature = "snapshot"))]

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// For the next line of the demo. Before the first ones it may have to build the exporter.
const PATIENCE: Duration = Duration::from_secs(600);

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

#[test]
fn demo_ends_by_itself_with_all_as_it_was_before_redis_was_killed() {
    let dir = TempDir::with_prefix("demo-").unwrap();
    let target =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is a folder of the target folder");
    let mut command = Command::new("bash");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo")).args(["--seconds", "20"]);
    command.current_dir("/").env("TMPDIR", dir.path()).env("CARGO_TARGET_DIR", target);
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
    let mut demo = match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIPPED: bash not installed");
            return;
        }
        other => Demo(other.unwrap()),
    };

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
    for text in [
        "connection per request: ",
        "/metrics\n",
        " pairs, ",
        " 0 errors, ",
        " of 25 clients and rejected 0\n",
        " 100 of 100 event streams stayed up, ",
        "== redis is killed (kill -9), for 4 s\n",
        " unreachable | ",
        "== redis is started again\n",
        " redis was back after ",
        " could not be given back stood when redis was back, 0 leases were lost\n",
        " 100 of 100 event streams have heard something since\n",
        "good: nothing was lost, and all is as before\n",
    ] {
        assert!(said.contains(text), "{text:?} was not said");
    }
    assert!(!said.contains("(never)"), "calls were refused at once, and answered again");
    match seen {
        None => eprintln!("SKIPPED: no /proc to look for processes in"),
        Some(seen) => {
            for name in ["bash", "redis-server", "demo", "spool-lock-expo"] {
                assert!(seen.iter().any(|seen| seen.trim() == name), "{name} is not among {seen:?}");
            }
            assert_eq!(processes_of(dir.path()), Some(Vec::new()), "processes are left");
        }
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?} is left");
}
