//! What `scripts/demo` shows: 50 workers and 100 event streams on a Redis that accepts 25 clients, dies and comes back.
//!
//! The script starts what each part needs, and ends it; a part can also be run alone:
//!
//! ```text
//! scripts/demo --seconds 10
//! cargo run --example demo -- per-request --redis 127.0.0.1:6379
//! cargo run --example demo -- pooled      --redis 127.0.0.1:6379 --seconds 10
//! ```
//!
//! `per-request` opens a connection for each request, as before the incident. `pooled` lets the same workers share the pool
//! of the crate, with 100 event streams beside them over one more connection, and fails when anything failed or the server turned
//! anybody away; the server may be killed and started again meanwhile, as the script does: then it fails when anything was lost, or
//! is not as it was before. `restart` is the same where the server comes back without its data: what the ledger of the service
//! names is put back, while strangers who know of no ledger ask for just that; it fails, too, when one of them gets it. `saturated`
//! makes a pool too small on purpose and succeeds when Prometheus fires `SpoolPoolUtilizationHigh`.

mod arguments;
mod dice;
mod ledger;
mod meter;
mod outage;
mod per_request;
mod pooled;
mod prometheus;
mod recovery;
mod relay;
mod server;
mod strangers;
mod streams;
mod tally;
mod total;
mod worker;

use std::{
    error::Error,
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use spool_lock::{Config, SpoolLocks};

use crate::{
    arguments::{Arguments, Part},
    ledger::Ledger,
    pooled::Run,
    server::Server,
};

/// How many workers there are: those of the factory, on a busy day.
const WORKERS: usize = 50;
/// How many event streams are open beside them: a screen for each, all day.
const STREAMS: usize = 100;
/// What a worker does between two questions to Redis, such as writing to the ledger.
const WORK: Duration = Duration::from_millis(10);
/// How long `per-request` goes on unless it is told.
const CONTRAST: Duration = Duration::from_millis(2_500);
/// For how long, in `restart`, a server that has just been started grants nothing of which it knows nothing; `scripts/demo` waits for
/// that in the beginning.
const GRACE: Duration = Duration::from_secs(5);
/// Connections, of those that the demo may have, for the strangers.
const STRANGERS_CONNECTIONS: u32 = 2;
/// How much later each reply arrives in `saturated`.
const SLOW: Duration = Duration::from_millis(30);
/// How long `saturated` waits for the alert unless it is told.
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "demo: {error}{}", causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Runs the part that was asked for, and says whether all went well.
async fn run() -> Result<bool, Box<dyn Error>> {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1))? else {
        say(arguments::USAGE)?;
        return Ok(true);
    };
    let mut server = Server::connect(arguments.redis).await?;
    let mut config = Config::new(&format!("redis://{}", arguments.redis))?;
    config.snapshot = arguments.snapshot;
    let (mut strangers, mut awaited, mut longest) = (None, None, arguments.seconds);
    match arguments.part {
        Part::PerRequest => {
            per_request::show(&mut server, longest.unwrap_or(CONTRAST)).await?;
            return Ok(true);
        }
        Part::Pooled => {}
        Part::Restart => {
            config.restart_grace = GRACE;
            let mut theirs = config.clone();
            theirs.snapshot = None;
            theirs.pool.max_connections = STRANGERS_CONNECTIONS;
            config.pool.max_connections -= STRANGERS_CONNECTIONS;
            strangers = Some(theirs);
        }
        Part::Saturated => {
            config.url = format!("redis://{}", relay::start(arguments.redis, SLOW).await?).parse()?;
            config.pool.depth = 1;
            awaited = Some("SpoolPoolUtilizationHigh");
            longest.get_or_insert(PATIENCE);
        }
    }
    let ledger = Ledger::default();
    let locks = SpoolLocks::connect(config).lease_source(ledger.clone()).await?;
    let run = Run { locks, ledger, strangers, prometheus: arguments.prometheus, awaited, longest };
    run.show(&mut server).await
}

/// A line for whoever looks on. That nobody does any more ends the demo, without a panic.
fn say(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// What stands behind an error: ours do not repeat their source.
fn causes(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(error.source(), |&cause| cause.source()).map(|cause| format!(": {cause}")).collect()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
