//! What becomes of my locks when Redis is restarted without its data? Starts a Redis of its own (`redis-server` must be installed) that
//! keeps nothing on disk, kills it and starts it again, empty; ends after some 15 s:
//!
//! ```text
//! cargo run --example restart
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use spool_lock::{
    AcquireError, Config, Event, FileDeferredLog, Fsync, Holder, Lease, LeaseSource, LeaseSourceAnswer,
    ReleaseOutcome, SpoolLocks, Tag,
};
use tokio::time::{Instant, sleep};

/// How long a server that has just started grants nothing of which it knows nothing: the services come first with what they held.
const GRACE: Duration = Duration::from_secs(3);

/// The ledger of the service: which spools are being worked on. In a real service it is a table.
#[derive(Clone, Default)]
struct Ledger {
    open: Arc<Mutex<BTreeMap<Tag, Lease>>>,
}

impl Ledger {
    fn open(&self) -> MutexGuard<'_, BTreeMap<Tag, Lease>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaseSource for Ledger {
    fn leases(&self) -> LeaseSourceAnswer<'_> {
        Box::pin(async { Ok(self.open().values().cloned().collect()) })
    }
}

/// A Redis that keeps nothing on disk. It is gone when it is dropped.
struct Redis {
    port: u16,
    server: Option<Child>,
}

impl Redis {
    fn new() -> io::Result<Self> {
        Ok(Self { port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(), server: None })
    }

    /// Returns when it takes connections.
    fn start(&mut self) -> io::Result<()> {
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &self.port.to_string()])
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut redis = Redis::new()?;
    redis.start()?;
    let mut config = Config::new(&format!("redis://127.0.0.1:{}", redis.port))?;
    config.restart_grace = GRACE;
    let (ledger, directory) = (Ledger::default(), tempfile::tempdir()?);
    let log = FileDeferredLog::open(directory.path().join("deferred.log"), Fsync::Always)?;
    let locks = SpoolLocks::connect(config.clone()).lease_source(ledger.clone()).deferred_log(log).await?;

    // A hundred spools are being worked on, and a robot holds one for as long as its program runs.
    for number in 0..100 {
        let tag = Tag::new(format!("TEST-{number:02}"))?;
        let worker = Holder::new(number.to_string(), "")?;
        // The first one waits: this Redis has just been started, too.
        let lease = locks.acquire(&tag, &worker).note("weld").wait(2 * GRACE).await?;
        ledger.open().insert(tag, lease);
    }
    let robot = locks.guard(&Tag::new("ROBOT-1")?, &Holder::new("robot", "")?).await?;
    println!("100 spools are taken, the first under fence {}", ledger.open()[&Tag::new("TEST-00")?].fence);

    let began = Instant::now();
    let mut events = locks.watch().await?;
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let second = began.elapsed().as_secs_f32();
            match &*event {
                Event::ServerRestarted { .. } => println!("{second:>5.2} s  another run of redis answers"),
                Event::DataLost { .. } => println!("{second:>5.2} s  it has lost its data"),
                Event::Recovered { phase, done, left, took, .. } => {
                    println!("{second:>5.2} s  {}: {done} done, {left} left, in {took:.1?}", phase.as_str());
                }
                Event::Settled { tag, settlement, .. } => {
                    println!("{second:>5.2} s  the release of {tag} is settled: {}", settlement.as_str());
                }
                _ => {}
            }
        }
    });

    redis.kill()?;
    println!("{:>5.2} s  redis is killed", began.elapsed().as_secs_f32());
    // Rosa is done with hers now. The ledger closes the session, the log keeps the release.
    let tag = Tag::new("TEST-99")?;
    let done = ledger.open().remove(&tag).expect("it was taken");
    let outcome = locks.release_lease(&done).await?;
    assert!(matches!(outcome, ReleaseOutcome::Deferred { .. }));
    println!("{:>5.2} s  the release of {tag} is deferred", began.elapsed().as_secs_f32());
    redis.start()?;
    println!("{:>5.2} s  redis is back, and empty", began.elapsed().as_secs_f32());

    // A service that has just been started as well, and knows of nobody, wants a spool that is being worked on.
    let other = SpoolLocks::connect(config).await?;
    let (tag, stranger) = (Tag::new("TEST-00")?, Holder::new("stranger", "")?);
    let mut last = String::new();
    while began.elapsed() < GRACE + Duration::from_secs(3) {
        let answer = match other.acquire(&tag, &stranger).await {
            Ok(_) => return Err("a stranger was granted what somebody works on".into()),
            Err(AcquireError::Warming { .. }) => "wait, redis has just been restarted".to_owned(),
            Err(AcquireError::Contended { occupant, .. }) => {
                format!("it is held by {}, fence {}", occupant.holder.id(), occupant.fence)
            }
            Err(error) => error.to_string(),
        };
        if answer != last {
            println!("{:>5.2} s  a stranger is told: {answer}", began.elapsed().as_secs_f32());
            last = answer;
        }
        sleep(Duration::from_millis(50)).await;
    }

    // Every spool is held as before, under its old fence; only Rosa's is free.
    let held = locks.list().await?.value;
    for lease in ledger.open().values() {
        let occupant = held.iter().find(|occupant| occupant.tag == lease.tag).ok_or("a lease was lost")?;
        assert_eq!((occupant.fence, &occupant.holder), (lease.fence, &lease.holder));
    }
    assert_eq!(held.len(), 99 + 1);
    robot.release().await?;
    println!("99 spools and the robot's are held as before; TEST-99 was given back");
    Ok(())
}
