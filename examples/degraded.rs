//! What does my service see while Redis is away, and when it is back? Starts a Redis of its own (`redis-server` must be installed),
//! kills it, lets it be away for 10 s and starts it again; ends after 30 s:
//!
//! ```text
//! cargo run --example degraded
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    io::{self, BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use spool_lock::{AcquireError, Config, Holder, Mode, Occupant, ReadError, Reading, Source, SpoolLocks, Tag};
use tokio::time::{Instant, interval};

const LOOK_EACH: Duration = Duration::from_secs(2);
const GOES_AT: Duration = Duration::from_secs(6);
const COMES_BACK_AT: Duration = Duration::from_secs(16);
const ENDS_AT: Duration = Duration::from_secs(30);

/// A Redis that keeps its data on disk, in a directory of its own. Both are gone when it is dropped.
struct Redis {
    port: u16,
    directory: tempfile::TempDir,
    server: Option<Child>,
}

impl Redis {
    fn new() -> io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { port, directory: tempfile::tempdir()?, server: None })
    }

    /// Returns when it takes connections.
    fn start(&mut self) -> io::Result<()> {
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .args(["--port", &self.port.to_string()])
            .current_dir(&self.directory)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("redis-server: {error}")))?;
        let log = self.server.insert(server).stdout.take().map(BufReader::new);
        let is_ready = |line: io::Result<String>| line.is_ok_and(|line| line.contains("Ready to accept"));
        match log.is_some_and(|log| log.lines().any(is_ready)) {
            true => Ok(()),
            false => Err(io::Error::other("redis-server does not start")),
        }
    }

    /// As `kill -9`: without a word to anybody.
    fn kill(&mut self) -> io::Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        server.kill()?;
        server.wait().map(drop)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What all workers have met since somebody looked.
#[derive(Default)]
struct Seen {
    granted: u32,
    /// Redis was not asked: it is known to be away, so nobody waits for it.
    refused: u32,
    /// Redis was asked and did not answer.
    unanswered: u32,
    longest: Duration,
}

/// A worker who takes a spool and gives it back, ten times a second.
async fn work(locks: SpoolLocks, tag: Tag, worker: Holder, seen: Arc<Mutex<Seen>>) {
    let mut rhythm = interval(Duration::from_millis(100));
    loop {
        rhythm.tick().await;
        let began = Instant::now();
        let answer = locks.acquire(&tag, &worker).await;
        let took = began.elapsed();
        // After an acquire without an answer the spool may be the worker's own: the next one says so.
        let is_held = matches!(answer, Ok(_) | Err(AcquireError::AlreadyHeld(_)));
        if is_held {
            let _ = locks.release(&tag, &worker).await;
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.longest = seen.longest.max(took).max(began.elapsed() - took);
        match answer {
            _ if is_held => seen.granted += 1,
            Err(AcquireError::Unavailable { .. }) => seen.refused += 1,
            _ => seen.unanswered += 1,
        }
    }
}

/// What a screen shows of a spool.
fn shown(reading: Result<Reading<Option<Occupant>>, ReadError>) -> String {
    match reading {
        Ok(Reading { value, source, age, .. }) => {
            let state =
                value.map_or("free".to_owned(), |occupant| format!("held by {}", occupant.holder.name()));
            let is_live = source == Source::Live;
            if is_live { state } else { format!("{state} as of {} s ago", age.as_secs()) }
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut redis = Redis::new()?;
    redis.start()?;
    let locks = SpoolLocks::connect(Config::new(&format!("redis://127.0.0.1:{}", redis.port))?).await?;

    // Rosa welds all the while.
    let (tag, rosa) = (Tag::new("TEST-99")?, Holder::new("93", "MR(93)")?);
    let lease = locks.acquire(&tag, &rosa).note("weld").await?;
    let seen = Arc::new(Mutex::new(Seen::default()));
    for number in 1..=10 {
        let (tag, worker) = (Tag::new(format!("TEST-{number:02}"))?, Holder::new(number.to_string(), "")?);
        tokio::spawn(work(locks.clone(), tag, worker, seen.clone()));
    }

    // A service shows it to its users as it happens.
    let began = Instant::now();
    let mut modes = locks.watch_mode();
    tokio::spawn(async move {
        while let Some(mode) = modes.changed().await {
            println!("{:>6.2} s  the mode is {}", began.elapsed().as_secs_f32(), mode.as_str());
        }
    });

    let mut looks = interval(LOOK_EACH);
    looks.tick().await;
    for at in (1..).map(|look| look * LOOK_EACH).take_while(|at| *at <= ENDS_AT) {
        looks.tick().await;
        let (screen, health) = tokio::join!(locks.inspect(&tag), locks.health());
        let Seen { granted, refused, unanswered, longest } =
            std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        println!(
            "{:>6.2} s  {granted:>3} granted, {refused:>3} refused, {unanswered:>2} no answer; {:>3} ms; {:?}; {}",
            began.elapsed().as_secs_f32(),
            longest.as_millis(),
            health.status,
            shown(screen),
        );
        if at == GOES_AT {
            println!("{:>6.2} s  redis is killed", began.elapsed().as_secs_f32());
            redis.kill()?;
        } else if at == COMES_BACK_AT {
            redis.start()?;
            println!("{:>6.2} s  redis is back", began.elapsed().as_secs_f32());
        }
    }

    // It is as if nothing had been, and Rosa gives back the very lease that she was granted before.
    assert_eq!(locks.mode(), Mode::Normal);
    locks.release_lease(&lease).await?;
    println!("Rosa has held TEST-99 all the while, and has given it back");
    Ok(())
}
