//! Guards: what it costs to keep 10,000 of them, and what a guard and its release cost beside an acquire and its release.
//!
//! ```text
//! cargo bench --bench guards
//! cargo bench --bench guards -- --keeper
//! ```
//!
//! While the keeper's CPU is measured, this process does nothing else and the server is not asked. Who was renewed when, and over which
//! connection, is heard in the interval after that, because `MONITOR` costs. What a guard keeps allocated is weighed by
//! `cargo bench --bench allocations`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

#[path = "guards/keeper.rs"]
mod keeper;
#[path = "guards/pairs.rs"]
mod pairs;
mod race;
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;

use race::{Failure, goals::Goals};
use support::RedisServer;

const USAGE: &str = "\
cargo bench --bench guards -- [--quick] [--keeper] [--pairs]
  --quick   fewer guards for less time: shows that it works, not what it costs
  --keeper  10,000 guards of ttl 30 s, kept for 30 s
  --pairs   guard and release, beside acquire and release
Without a section, both.";

const SECTIONS: [&str; 2] = ["--keeper", "--pairs"];

fn main() -> ExitCode {
    match Options::read(std::env::args().skip(1))
        .ok_or_else(|| USAGE.into())
        .and_then(|options| run(&options))
    {
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
    let server = RedisServer::start();
    println!("redis {}, tokio with 2 workers", server.info("server")["redis_version"]);
    if options.quick {
        println!("quick: not for figures");
    }
    let mut goals = Goals::default();
    runtime.block_on(async {
        if options.want("--keeper") {
            keeper::measure(&server, options.quick, &mut goals).await?;
        }
        if options.want("--pairs") {
            pairs::race(&server, options.quick).await?;
        }
        Ok::<_, Failure>(())
    })?;
    goals.print();
    Ok(())
}
