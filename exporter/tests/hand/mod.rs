//! An operator's hand: the built program, run with one order and nothing else in its environment.

// Each test binary includes the whole module and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::{
    ffi::OsString,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use spool_lock::{Config, SpoolLocks};
use tokio::time::Instant;

/// An operator who knows one server.
#[derive(Debug, Clone)]
pub struct Hand {
    variables: Vec<(String, String)>,
}

/// What became of an order.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

impl Hand {
    pub fn at(url: &str) -> Self {
        Self { variables: Vec::new() }.with("SPOOL_LOCK_URL", url)
    }

    #[must_use]
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// The settings of the operator, for a service of the same prefix.
    pub async fn service(&self) -> SpoolLocks {
        let config = Config::from_vars(self.variables.iter().cloned()).expect("settings that can be used");
        SpoolLocks::connect(config).await.expect("the server can be connected to")
    }

    /// The program with these arguments, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.env_clear().envs(self.variables.iter().cloned()).args(args);
        command
    }

    /// Runs one order to its end, off the runtime.
    pub async fn does(&self, args: &[&str]) -> Done {
        run(self.command(args)).await
    }

    /// A line of a shell in which the program is on the path.
    pub async fn types(&self, line: &str) -> Done {
        let mut shell = Command::new("sh");
        let folder = Path::new(program()).parent().expect("a folder").as_os_str();
        let path = [folder, ":/usr/bin:/bin".as_ref()].into_iter().collect::<OsString>();
        shell.env_clear().envs(self.variables.iter().cloned()).env("PATH", path).args(["-c", line]);
        run(shell).await
    }
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_spool-lock-exporter")
}

async fn run(mut command: Command) -> Done {
    let started = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stdout, stderr } = output.await.expect("no panic").expect("the program is there");
    let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
    let code = status.code().expect("it ends by itself");
    Done { code, out: text(stdout), err: text(stderr), took: started.elapsed() }
}

impl Done {
    /// What standard output has: one JSON value, in one line.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.out.matches('\n').count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// All that was said.
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    #[track_caller]
    pub fn assert(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.text().contains(word), "{word:?} is not in {self:?}");
        }
    }
}
