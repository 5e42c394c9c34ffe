//! [`Window`]: what one contender did in one stretch of time.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use super::{Contender, Failure, lock_key, tag};
use crate::support::RedisServer;

/// How long a window is, and what runs before it uncounted.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub warm_up: Duration,
    pub length: Duration,
}

/// What was counted. Rate and latency are of the window; counts and CPU are of the warm-up too, over `all_pairs`.
#[derive(Debug, Clone, Default)]
pub struct Window {
    pub pairs_per_second: f64,
    pub p50_micros: f64,
    pub p99_micros: f64,
    pub all_pairs: u64,
    pub commands: u64,
    pub server_reads: u64,
    pub client_cpu: Duration,
    pub server_cpu: Duration,
    /// Warm-up, window and the end of the last pairs.
    pub busy: Duration,
    pub connections: usize,
    pub errors: u64,
    pub first_error: Option<String>,
}

/// Runs so many tasks for so long.
type Run = Box<dyn Fn(usize, Span) -> Pin<Box<dyn Future<Output = Tally>>>>;

/// A contender that can be run without knowing its type.
pub struct Entry {
    pub name: String,
    database: u32,
    run: Run,
    /// Whether `SET` comes from the client; elsewhere it is a script that calls it.
    sets: bool,
}

impl Entry {
    pub fn new<C: Contender>(name: impl Into<String>, database: u32, contender: C) -> Self {
        let contender = Arc::new(contender);
        let run: Run = Box::new(move |tasks, span| Box::pin(run(contender.clone(), tasks, span)));
        Self { name: name.into(), database, run, sets: false }
    }

    pub fn that_sets(mut self) -> Self {
        self.sets = true;
        self
    }

    /// Runs `tasks` tasks for one window and asks the server what that cost it.
    pub async fn window(&self, server: &RedisServer, tasks: usize, span: Span) -> Window {
        let (before, cpu) = (Counts::ask(server, self.sets), cpu_time());
        let began = Instant::now();
        let mut tally = (self.run)(tasks, span).await;
        let busy = began.elapsed();
        let (after, cpu) = (Counts::ask(server, self.sets), cpu_time().saturating_sub(cpu));
        let left = self.left_behind(server, tasks);
        if left > 0 {
            tally.errors += left;
            tally.first_error.get_or_insert_with(|| format!("{left} locks were left behind"));
        }
        tally.nanos.sort_unstable();
        Window {
            pairs_per_second: tally.nanos.len() as f64 / tally.elapsed.as_secs_f64(),
            p50_micros: percentile(&tally.nanos, 50),
            p99_micros: percentile(&tally.nanos, 99),
            all_pairs: tally.all_pairs,
            commands: after.commands - before.commands,
            // Each look reads three times, the last time before it has its answer.
            server_reads: (after.reads - before.reads).saturating_sub(3),
            client_cpu: cpu,
            server_cpu: after.cpu.saturating_sub(before.cpu),
            busy,
            connections: connections(server, self.database),
            errors: tally.errors,
            first_error: tally.first_error,
        }
    }

    fn left_behind(&self, server: &RedisServer, tasks: usize) -> u64 {
        let keys: Vec<_> = (0..tasks).map(|number| lock_key(&tag(number))).collect();
        let mut exists = vec!["EXISTS"];
        exists.extend(keys.iter().map(String::as_str));
        server.cmd(&["SELECT", &self.database.to_string()]);
        server.query(&exists)
    }
}

/// How many connections use this database.
fn connections(server: &RedisServer, database: u32) -> usize {
    let database = database.to_string();
    server.clients().iter().filter(|client| client["db"] == database).count()
}

/// CPU time of this process so far, all threads.
pub fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

fn percentile(sorted: &[u32], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(f64::NAN, |&nanos| f64::from(nanos) / 1000.0)
}

/// What a server has done so far.
pub struct Counts {
    pub commands: u64,
    pub reads: u64,
    pub cpu: Duration,
}

impl Counts {
    /// `sets` says that `SET` comes from the client; elsewhere it is a script that calls it.
    pub fn ask(server: &RedisServer, sets: bool) -> Self {
        let commands = server.sent() + if sets { server.calls("set") } else { 0 };
        let cpu = server.info("cpu");
        let seconds = |field: &str| cpu[field].parse().map_or(Duration::ZERO, Duration::from_secs_f64);
        let cpu = seconds("used_cpu_user") + seconds("used_cpu_sys");
        let reads = server.info("stats")["total_reads_processed"].parse().unwrap_or(0);
        Self { commands, reads, cpu }
    }
}

const WARMING_UP: u8 = 0;
const COUNTING: u8 = 1;
const OVER: u8 = 2;

#[derive(Default)]
struct Tally {
    elapsed: Duration,
    /// Time of each pair of the window.
    nanos: Vec<u32>,
    all_pairs: u64,
    errors: u64,
    first_error: Option<String>,
}

async fn run<C: Contender>(contender: Arc<C>, tasks: usize, span: Span) -> Tally {
    let phase = Arc::new(AtomicU8::new(WARMING_UP));
    let running: Vec<_> =
        (0..tasks).map(|number| tokio::spawn(run_task(contender.clone(), number, phase.clone()))).collect();
    tokio::time::sleep(span.warm_up).await;
    phase.store(COUNTING, Relaxed);
    let began = Instant::now();
    tokio::time::sleep(span.length).await;
    phase.store(OVER, Relaxed);
    let mut tally = Tally { elapsed: began.elapsed(), ..Tally::default() };
    for task in running {
        match task.await {
            Ok(part) => {
                tally.nanos.extend(part.nanos);
                tally.all_pairs += part.all_pairs;
                tally.errors += part.errors;
                tally.first_error = tally.first_error.or(part.first_error);
            }
            Err(panicked) => {
                tally.errors += 1;
                tally.first_error = Some(panicked.to_string());
            }
        }
    }
    tally
}

async fn run_task<C: Contender>(contender: Arc<C>, number: usize, phase: Arc<AtomicU8>) -> Tally {
    let mut task = contender.task(number);
    let mut tally = Tally { nanos: Vec::with_capacity(1 << 14), ..Tally::default() };
    loop {
        let began = Instant::now();
        let outcome = contender.pair(&mut task).await;
        let took = began.elapsed();
        tally.all_pairs += 1;
        if let Err(error) = outcome {
            tally.count(error);
            // A refusal can come without a wait: to ask again at once would keep the runtime from everything else.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match phase.load(Relaxed) {
            WARMING_UP => {}
            COUNTING => tally.nanos.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX)),
            _ => return tally,
        }
    }
}

impl Tally {
    fn count(&mut self, error: Failure) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}
