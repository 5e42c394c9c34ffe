//! Uncontended acquire and release pairs, against a floor and against what others would use.
//!
//! ```text
//! cargo bench --bench pairs
//! cargo bench --bench pairs -- --depth 8,16,32,64
//! cargo bench --bench pairs -- --memory
//! ```
//!
//! Every contender runs for a short window in each round, in an order that rotates; a ratio is the median over rounds of
//! (contender ÷ reference in the same round). Absolute figures of different runs cannot be compared, ratios can, if the
//! floor against itself came out at 0.95 to 1.05. docs/benchmarks.md says what each column means.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

mod race;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{process::ExitCode, time::Duration};

use race::{
    Contender as _, Failure,
    checked_out::CheckedOut,
    floor::Floor,
    options::{Options, USAGE},
    rounds::{Rounds, ramp},
    rslock::Rslock,
    spool::{Spool, Worker},
    table,
    window::{Entry, Span, Window},
};
use spool_lock::PoolStats;
use support::RedisServer;

const FULL: Span = Span { warm_up: Duration::from_millis(60), length: Duration::from_millis(350) };
const QUICK: Span = Span { warm_up: Duration::from_millis(30), length: Duration::from_millis(150) };

/// The names of the rows.
const FLOOR: &str = "floor";
const FLOOR_AGAIN: &str = "floor2";
const DEADPOOL: &str = "deadpool";
const RSLOCK: &str = "rslock";
const SPOOL: &str = "spool-lock";

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) if !options.allocations => options,
        other => {
            eprintln!("{}\n{USAGE}", other.err().unwrap_or_default());
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.map_err(Failure::from).and_then(|runtime| {
        let server = RedisServer::start();
        println!("redis {}, tokio with 2 workers", server.info("server")["redis_version"]);
        runtime.block_on(async {
            match &options {
                Options { memory: true, .. } => memory(&server).await,
                Options { depth: Some(depths), .. } => sweep(&options, depths, &server).await,
                _ => race(&options, &server).await,
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn span(options: &Options) -> Span {
    if options.quick { QUICK } else { FULL }
}

/// All contenders, a table for each number of tasks.
async fn race(options: &Options, server: &RedisServer) -> Result<(), Failure> {
    let url = |database: u32| format!("{}/{database}", server.url());
    let entries = [
        Entry::new(FLOOR, 1, Floor::connect(&url(1)).await?),
        Entry::new(FLOOR_AGAIN, 2, Floor::connect(&url(2)).await?),
        Entry::new(DEADPOOL, 3, CheckedOut::connect(&url(3)).await?),
        Entry::new(RSLOCK, 4, Rslock::new(&url(4))).that_sets(),
        Entry::new(SPOOL, 5, Spool::connect(&url(5)).await?),
    ];
    for &tasks in options.tasks.as_deref().unwrap_or(&[1, 50, 200]) {
        ramp(&entries, server, tasks).await;
        let rounds = Rounds::run(&entries, server, tasks, options.rounds, span(options)).await;
        print_heading(options, tasks, &rounds);
        print_race(&rounds);
        refuse_errors(&rounds)?;
    }
    Ok(())
}

fn print_race(rounds: &Rounds) {
    let speed = |window: &Window| window.pairs_per_second;
    let row = |name: &String| {
        let against = |reference| rounds.ratio(name, reference, speed);
        let median = |of: fn(&Window) -> f64| rounds.spread(name, of).median;
        vec![
            name.clone(),
            format!("{:.0}", median(speed)),
            against(FLOOR).to_string(),
            against(RSLOCK).to_string(),
            against(DEADPOOL).to_string(),
            format!("{:.0}", median(|window| window.p50_micros)),
            format!("{:.0}", median(|window| window.p99_micros)),
            rounds.ratio(name, FLOOR, |window| window.p99_micros).to_string(),
            format!("{:.3}", rounds.per_pair(name, |window| window.commands as f64)),
            format!("{:.3}", rounds.per_pair(name, |window| window.server_reads as f64)),
            connections_used(rounds, name),
            format!("{:.1}", cpu_micros(rounds, name)),
            format!("{:.2}", cpu_micros(rounds, name) / cpu_micros(rounds, FLOOR)),
            format!("{:.1}", rounds.per_pair(name, |window| window.server_cpu.as_secs_f64() * 1e6)),
        ]
    };
    let head = [
        "contender",
        "pairs/s",
        "/ floor",
        "/ rslock",
        "/ deadpool",
        "p50 us",
        "p99 us",
        "p99 / floor",
        "commands",
        "reads",
        "conns",
        "cpu us",
        "cpu / floor",
        "server us",
    ];
    table::print(&head, &rounds.names().iter().map(row).collect::<Vec<_>>());
}

/// The same work with lanes of several depths.
async fn sweep(options: &Options, depths: &[u32], server: &RedisServer) -> Result<(), Failure> {
    let url = |database: u32| format!("{}/{database}", server.url());
    for &tasks in options.tasks.as_deref().unwrap_or(&[50, 200]) {
        // Anew for each number of tasks: lanes that more tasks opened stay open for a minute.
        let mut entries = vec![
            Entry::new(FLOOR, 1, Floor::connect(&url(1)).await?),
            Entry::new(FLOOR_AGAIN, 2, Floor::connect(&url(2)).await?),
        ];
        let mut handles = Vec::new();
        for (&depth, database) in depths.iter().zip(3..) {
            let spool = Spool::with_depth(&url(database), depth).await?;
            handles.push(spool.locks.clone());
            entries.push(Entry::new(format!("depth {depth}"), database, spool));
        }
        ramp(&entries, server, tasks).await;
        let before: Vec<_> = handles.iter().map(|locks| locks.stats().pool).collect();
        let rounds = Rounds::run(&entries, server, tasks, options.rounds, span(options)).await;
        print_heading(options, tasks, &rounds);
        let row = |place: usize, name: &String| {
            let [mut peak, mut utilization, mut saturated] = ["-"; 3].map(str::to_owned);
            // The floor has no pool to ask.
            if let Some(pool) = place.checked_sub(entries.len() - handles.len()) {
                let (before, after) = (&before[pool], handles[pool].stats().pool);
                // Integrals over time, so that no spike between two looks is missed.
                let busy: f64 = rounds.windows(name).iter().map(|window| window.busy.as_secs_f64()).sum();
                let share = |of: fn(&PoolStats) -> f64, all: f64| {
                    format!("{:.1}", 100.0 * (of(&after) - of(before)) / (busy * all))
                };
                let limit = f64::from(after.limit);
                utilization = share(|pool| pool.active_connection_seconds_total, limit);
                saturated = share(|pool| pool.saturated_seconds_total, 1.0);
                peak = after.peak_active_connections.to_string();
            }
            vec![
                name.clone(),
                format!("{:.0}", rounds.spread(name, |window| window.pairs_per_second).median),
                rounds.ratio(name, FLOOR, |window| window.pairs_per_second).to_string(),
                rounds.ratio(name, FLOOR, |window| window.p99_micros).to_string(),
                format!("{:.3}", rounds.per_pair(name, |window| window.server_reads as f64)),
                connections_used(&rounds, name),
                peak,
                utilization,
                saturated,
                format!("{:.2}", cpu_micros(&rounds, name) / cpu_micros(&rounds, FLOOR)),
            ]
        };
        let head = [
            "contender",
            "pairs/s",
            "/ floor",
            "p99 / floor",
            "reads",
            "conns",
            "peak active",
            "utilization %",
            "saturated %",
            "cpu / floor",
        ];
        let rows = rounds.names().iter().enumerate().map(|(place, name)| row(place, name));
        table::print(&head, &rows.collect::<Vec<_>>());
        refuse_errors(&rounds)?;
    }
    Ok(())
}

fn print_heading(options: &Options, tasks: usize, rounds: &Rounds) {
    let again = rounds.ratio(FLOOR_AGAIN, FLOOR, |window| window.pairs_per_second);
    let verdict = match again.median {
        ratio if (0.95..=1.05).contains(&ratio) => "usable",
        _ => "REJECTED: outside 0.95..1.05, run it again on a quieter machine",
    };
    let quick = if options.quick { ", quick: not for figures" } else { "" };
    println!("\ntasks {tasks}, rounds {}{quick}; A/A {again}: {verdict}\n", options.rounds);
}

fn connections_used(rounds: &Rounds, name: &str) -> String {
    let most = rounds.windows(name).iter().map(|window| window.connections).max();
    most.unwrap_or(0).to_string()
}

fn cpu_micros(rounds: &Rounds, name: &str) -> f64 {
    rounds.per_pair(name, |window| window.client_cpu.as_secs_f64() * 1e6)
}

/// A pair that failed was no pair: figures with errors are none.
fn refuse_errors(rounds: &Rounds) -> Result<(), Failure> {
    for name in rounds.names() {
        let windows = rounds.windows(name);
        let errors: u64 = windows.iter().map(|window| window.errors).sum();
        if errors > 0 {
            let first = windows.iter().find_map(|window| window.first_error.as_deref());
            return Err(format!("{name}: {errors} errors, the first: {}", first.unwrap_or_default()).into());
        }
    }
    println!("\nno errors");
    Ok(())
}

/// How many locks are held at once to weigh them.
const HELD: usize = 5_000;

/// What a lock weighs on the server: held and released, for a new tag and for one that has been used before.
async fn memory(server: &RedisServer) -> Result<(), Failure> {
    let spool = Spool::connect(&format!("{}/5", server.url())).await?;
    let rslock = Rslock::new(&format!("{}/4", server.url()));
    // The scripts, the buffers and the tables of an empty database are not a lock's.
    spool.pair(&mut spool.task(HELD)).await?;
    rslock.pair(&mut rslock.task(HELD)).await?;
    let mut scale = Scale { server, empty: settled_memory(server).await, rows: Vec::new() };

    // A factory's day: many tags are known, few are held at a time.
    for number in 0..HELD {
        let lease = Worker::of(number).acquire(&spool.locks).await?;
        spool.locks.release_lease(&lease).await?;
    }
    scale.weigh(SPOOL, "after release, held one at a time").await;
    server.cmd(&["SELECT", "5"]);
    server.cmd(&["FLUSHDB"]);
    scale.empty = settled_memory(server).await;

    // All at once: the tables of the key space grow for locks and fences together, and stay that large.
    let mut leases = Vec::new();
    for lease in 1..=5 {
        for number in 0..HELD {
            leases.push(Worker::of(number).acquire(&spool.locks).await?);
        }
        if [1, 5].contains(&lease) {
            scale.weigh(SPOOL, &format!("held, lease {lease} of its tag")).await;
        }
        for lease in leases.drain(..) {
            spool.locks.release_lease(&lease).await?;
        }
        scale.weigh(SPOOL, &format!("after release {lease}")).await;
    }
    // What the end of the fences' ttl would do; its shortest setting is a minute.
    server.cmd(&["SELECT", "5"]);
    let keys: Vec<String> = server.query(&["KEYS", "*:fence"]);
    for key in &keys {
        server.cmd(&["PEXPIRE", key, "1"]);
    }
    scale.weigh(SPOOL, "after the fence's ttl (by PEXPIRE)").await;
    println!("\nkeys of ours that are left: {}", server.query::<u64>(&["DBSIZE"]));

    scale.empty = settled_memory(server).await;
    let mut taken = Vec::new();
    for number in 0..HELD {
        taken.push(rslock.lock(&rslock.task(number)).await?);
    }
    scale.weigh(RSLOCK, "held").await;
    for lock in &taken {
        rslock.unlock(lock).await;
    }
    scale.weigh(RSLOCK, "after release").await;

    println!("{HELD} tags of 12 bytes, id 93, name MR(93), note ARM\n");
    table::print(&["contender", "state", "bytes / tag"], &scale.rows);
    Ok(())
}

/// Weighs what the server keeps for the tags.
struct Scale<'a> {
    server: &'a RedisServer,
    empty: i64,
    rows: Vec<Vec<String>>,
}

impl Scale<'_> {
    async fn weigh(&mut self, name: &str, state: &str) {
        let each = (settled_memory(self.server).await - self.empty) as f64 / HELD as f64;
        self.rows.push(vec![name.to_owned(), state.to_owned(), format!("{each:.0}")]);
    }
}

/// Memory of the server without its clients' buffers, when it has stopped moving its tables.
async fn settled_memory(server: &RedisServer) -> i64 {
    let mut last = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let info = server.info("memory");
        let number = |field: &str| info[field].parse::<i64>().unwrap_or(0);
        let used = number("used_memory") - number("mem_clients_normal");
        if (used - last).abs() < 1024 {
            return used;
        }
        last = used;
    }
    last
}
