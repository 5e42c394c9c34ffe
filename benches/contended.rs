//! Locks that many want: what a hand-over costs, how long the waiters wait, and what it takes to hear of it.
//!
//! ```text
//! cargo bench --bench contended
//! cargo bench --bench contended -- --handover
//! ```
//!
//! Contenders run in turn for a window in each round; ratios are medians over rounds; for commands,
//! fairness and the longest wait the worst round counts. `--processes` and the idle waiters have one window. That never two had the lock and that fences rose is checked for every turn; if not, the bench fails.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

#[path = "contended/contest.rs"]
mod contest;
#[path = "../tests/crew/mod.rs"]
mod crew;
#[path = "contended/events.rs"]
mod events;
#[path = "contended/handover.rs"]
mod handover;
#[path = "contended/processes.rs"]
mod processes;
mod race;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "contended/waiters.rs"]
mod waiters;

use std::process::ExitCode;

use crew::Crew;
use race::{Failure, goals::Goals};
use support::RedisServer;

const USAGE: &str = "\
cargo bench --bench contended -- [--quick] [--handover] [--processes] [--waiters] [--events]
  --quick      short windows: shows that it works, not how fast
  --handover   50 tasks on one tag that hold it for 1 ms, beside rslock and beside one task alone
  --processes  five processes of 10 tasks, and of 1, with a hold of 1 ms and with none
  --waiters    1, 50 and 500 tasks that hold it for no time; and what waiters cost while nothing happens
  --events     1,000 watchers of 100 tags: a channel for each tag, against everyone filtering a common one
Without a section, all of them.";

const SECTIONS: [&str; 4] = ["--handover", "--processes", "--waiters", "--events"];

fn main() -> ExitCode {
    let outcome = match (Crew::of_this_process(), Options::read(std::env::args().skip(1))) {
        (Some(crew), _) => crew.run(),
        (None, Some(options)) => run(&options),
        (None, None) => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be done.
struct Options {
    quick: bool,
    sections: Vec<String>,
}

impl Options {
    /// Reads the arguments; none where one of them is not known.
    fn read(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self { quick: false, sections: Vec::new() };
        for argument in arguments {
            match argument.as_str() {
                "--quick" => options.quick = true,
                // cargo adds it.
                "--bench" => {}
                section if SECTIONS.contains(&section) => options.sections.push(argument),
                _ => return None,
            }
        }
        Some(options)
    }

    fn want(&self, section: &str) -> bool {
        self.sections.is_empty() || self.sections.iter().any(|wanted| wanted == section)
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let quick = options.quick;
    let server = RedisServer::start();
    println!("redis {}, tokio with 2 workers", server.info("server")["redis_version"]);
    if quick {
        println!("quick: not for figures");
    }
    let mut goals = Goals::default();
    runtime.block_on(async {
        if options.want("--handover") {
            handover::race(&server, quick, &mut goals).await?;
        }
        if options.want("--processes") {
            processes::race(&server, quick, &mut goals).await?;
        }
        if options.want("--waiters") {
            waiters::race(&server, quick, &mut goals).await?;
            waiters::idle(&server, quick, &mut goals).await?;
        }
        if options.want("--events") {
            events::race(&server, quick, &mut goals).await?;
        }
        Ok::<_, Failure>(())
    })?;
    goals.print();
    Ok(())
}
