//! Redis was down, and everybody comes back.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use spool_lock::{Config, SpoolLocks};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, interval_at, sleep, sleep_until},
};

use crate::{
    report::{self, Row},
    service::{holder, tag},
    support::{FaultProxy, RedisServer, eventually, process::Process},
};

const PROCESSES: usize = 4;
/// Of each process. Together 500.
const INSTANCES: usize = 125;
/// How often each instance takes a lock and gives it back.
const RHYTHM: Duration = Duration::from_secs(2);
const DOWN: Duration = Duration::from_secs(10);
/// For how long what is sent is counted.
const COUNTED: Duration = Duration::from_secs(9);
/// The longest interval that can be in force after ten seconds is 16 s. Nearly all have been back for long.
const ALL_BACK: Duration = Duration::from_secs(17);
/// The most in the first second, in shares of the normal rate.
const MOST: f64 = 2.0;

/// By which a process learns that it is a part of the herd: the address, and its number.
const URL: &str = "SPOOL_HERD_URL";
const NUMBER: &str = "SPOOL_HERD_NUMBER";
const READY: &str = "ready";

/// A part of the test below, which starts it as a process of its own and ends it.
#[test]
fn child() {
    let (Ok(url), Ok(number)) = (std::env::var(URL), std::env::var(NUMBER)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("threads can be started").block_on(async {
        let mut herd = JoinSet::new();
        let begin = Instant::now() + RHYTHM;
        for instance in 0..INSTANCES {
            let mut config = Config::new(&url).expect("an address");
            config.pool.max_connections = 1;
            let locks = SpoolLocks::connect(config).await.expect("healthy");
            let phase =
                RHYTHM * u32::try_from(instance).expect("few") / u32::try_from(INSTANCES).expect("few");
            herd.spawn(work(locks, format!("HERD-{number}-{instance}"), begin + phase));
        }
        println!("\n{READY}");
        herd.join_all().await;
    });
}

/// Takes a lock and gives it back in each period, whether the last time has come to an end or not.
async fn work(locks: SpoolLocks, name: String, begin: Instant) {
    let mut calls = JoinSet::new();
    let mut rhythm = interval_at(begin, RHYTHM);
    for turn in 0_u64.. {
        rhythm.tick().await;
        let (locks, tag) = (locks.clone(), tag(&format!("{name}-{turn}")));
        calls.spawn(async move {
            if let Ok(lease) = locks.acquire(&tag, &holder("93")).await {
                // Where Redis dies in between it lasts its ttl: nobody else wants it.
                let _ = locks.release_lease(&lease).await;
            }
        });
        while calls.try_join_next().is_some() {}
    }
}

/// Starts a process of the herd, and returns when all its instances are connected.
fn start(url: &str, number: usize) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("a program knows where it is"));
    command.args(["--exact", "herd::child", "--nocapture"]);
    command.env(URL, url).env(NUMBER, number.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::spawn(command).expect("a program can be started again");
    let (_stdin, stdout) = process.pipes();
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == READY), "a process of the herd ended");
    process
}

/// How many requests had been delivered when.
struct Samples(Vec<(Instant, u64)>);

impl Samples {
    async fn take(network: &FaultProxy, until: Instant) -> Self {
        let mut samples = Vec::new();
        while Instant::now() < until {
            samples.push((Instant::now(), network.frames_to_server()));
            sleep(Duration::from_millis(10)).await;
        }
        Self(samples)
    }

    fn at(&self, then: Instant) -> u64 {
        self.0.iter().rev().find(|(at, _)| *at <= then).or(self.0.first()).map_or(0, |(_, count)| *count)
    }

    /// When the first request was delivered.
    fn first(&self) -> Instant {
        let before = self.0.first().map_or(0, |(_, count)| *count);
        self.0.iter().find(|(_, count)| *count > before).expect("somebody came back").0
    }

    fn within_a_second_of(&self, from: Instant) -> u64 {
        self.at(from + Duration::from_secs(1)) - self.at(from)
    }

    /// The most in any second.
    fn peak(&self) -> u64 {
        self.0.iter().map(|(at, _)| self.within_a_second_of(*at)).max().unwrap_or(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_instances_come_back() {
    const NORMAL: Duration = Duration::from_secs(4);
    let server = RedisServer::start();
    let network = FaultProxy::before(&server);
    let mut herd = JoinSet::new();
    for number in 0..PROCESSES {
        let url = network.url();
        herd.spawn_blocking(move || start(&url, number));
    }
    let herd = herd.join_all().await;
    sleep(2 * RHYTHM).await;
    let before = network.frames_to_server();
    sleep(NORMAL).await;
    let normal = (network.frames_to_server() - before) as f64 / NORMAL.as_secs_f64();
    let connections = network.connections_open();
    assert_eq!(connections, PROCESSES * INSTANCES, "one for each instance");

    server.kill9();
    let down_until = Instant::now() + DOWN;
    sleep_until(down_until).await;
    let restarted = spawn_blocking(move || {
        server.restart();
        (server, Instant::now())
    });
    let samples = Samples::take(&network, down_until + COUNTED).await;
    let (server, answers) = restarted.await.expect("it comes back");

    // Whichever is earlier: that the herd found it, or that we did.
    let back = samples.first().min(answers);
    let first_second = samples.within_a_second_of(back);
    let peak = samples.peak();
    let (end, total) = *samples.0.last().expect("many were taken");
    let last_second = total - samples.at(end - Duration::from_secs(1));
    let connected = server.clients().len();
    report::row(Row {
        row: "herd::five_hundred_instances_come_back",
        fault: "500 instances of 4 processes come back after Redis was down for 10 s",
        must: "at most twice the normal rate of commands in the first second",
        timeouts: "the defaults, one connection for each instance",
        measured: &[
            ("normal", format!("{normal:.0} commands/s")),
            ("first second", format!("{first_second} ({:.2} of normal)", first_second as f64 / normal)),
            ("busiest second", format!("{peak} ({:.2} of normal)", peak as f64 / normal)),
            ("connected again", format!("{connected} after {:.1?}, {last_second} commands/s", end - back)),
        ],
    });
    assert!(first_second as f64 <= MOST * normal, "{first_second} commands, {normal:.0} are normal");
    let all_back = ALL_BACK.saturating_sub(back.elapsed());
    eventually(all_back, async || match server.clients().len() {
        all if all == PROCESSES * INSTANCES => Ok(()),
        some => Err(format!("{some} are back")),
    })
    .await;
    drop(herd);
}
