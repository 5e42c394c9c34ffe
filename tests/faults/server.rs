//! A server that answers and takes no writes: as a replica, without disk, memory or replicas.
//!
//! All timeouts are the defaults: a call may take 5 s, a circuit opens after 3 faults, for 250 ms at first.

use std::path::Path;

use spool_lock::{
    AcquireError, CircuitState, Fault, FaultKind, HealthStatus, Mode, ReleaseOutcome, Source, SpoolLocks, Ttl,
};
use tokio::time::Instant;

use super::{
    outlook::*,
    report::{self, Row},
    support::{RedisServer, eventually},
};

/// A way to be read and not written to.
struct Refusal {
    row: &'static str,
    kind: FaultKind,
    begin: fn(&RedisServer),
    end: fn(&RedisServer),
    /// Whether releases and extends are let through.
    takes_releases: bool,
    /// Whether a PING is answered as if nothing were wrong.
    answers_ping: bool,
}

const MUST: &str = "mode ReadOnlyServer within 3 write faults, reads stay live, PING closes nothing; first success ≤ open interval + 1 s after the end";

impl Refusal {
    /// Goes through it: how it begins, what holds meanwhile, and how it ends.
    async fn is_survived(&self) {
        let server = RedisServer::start();
        let locks = connect(&server.url(), |_| {}).await;
        let [held, other] = [1, 2].map(tag);
        let lease = locks.acquire(&held, &worker()).await.expect("it is free");
        locks.acquire(&other, &worker()).await.expect("it is free");
        let modes = Modes::of(&locks);

        (self.begin)(&server);
        let calls = self.calls_until_refused(&locks).await;
        let refused = assert_refused(&locks, 3);
        assert_eq!((refused.mode, refused.fault.kind()), (Mode::ReadOnlyServer, FaultKind::CircuitOpen));
        assert_says(&chain(&refused.fault), &self.kind.to_string());

        let probes = self.stays_so(&server, &locks, &lease).await;
        let said = assert_ill(&locks.health().await, HealthStatus::Degraded, Mode::ReadOnlyServer);
        assert_says(&said, &self.kind.to_string());
        let released = locks.release(&other, &worker()).await;
        if self.takes_releases {
            released.expect("it needs no memory");
            locks.extend(&held, &worker(), Ttl::MAX).await.expect("it needs no memory");
        } else {
            assert!(matches!(released, Ok(ReleaseOutcome::Deferred { .. })), "{released:?}");
            let faults = &locks.stats().locks.operations["release"].failures_total;
            assert!(faults[self.kind.as_str()] >= 1, "tried, and refused by the server: {faults:?}");
        }
        assert_eq!(locks.mode(), Mode::ReadOnlyServer, "a release says nothing of acquires");
        assert_stayed_closed(locks.link_circuit());

        (self.end)(&server);
        let interval = locks.writes_circuit().retry_after();
        let (took, _) = first_success(&locks, 3).await;
        assert!(took <= interval + SECOND, "{took:?} after the end, the interval was {interval:?}");
        assert_eq!(modes.entered().await, [Mode::ReadOnlyServer, Mode::Normal], "and nothing in between");
        assert_well(&locks).await;
        assert_stayed_closed(locks.link_circuit());
        report::row(Row {
            row: self.row,
            fault: self.kind.as_str(),
            must: MUST,
            timeouts: "all defaults",
            measured: &[
                ("calls until refused", calls.to_string()),
                ("probes refused", probes.to_string()),
                ("open interval at the end", format!("{interval:.0?}")),
                ("first success after", format!("{took:.0?}")),
            ],
        });
    }

    /// How many acquires were told of the server's refusal before one was told that it is not asked.
    async fn calls_until_refused(&self, locks: &SpoolLocks) -> u32 {
        for calls in 0..=3 {
            match locks.acquire(&tag(3), &worker()).await {
                Err(AcquireError::Fault(fault)) => assert_eq!(fault.kind(), self.kind),
                Err(AcquireError::Unavailable { .. }) => return calls,
                other => panic!("{other:?}"),
            }
            if locks.mode() == Mode::ReadOnlyServer {
                return calls + 1;
            }
        }
        panic!("{:?} after four acquires", locks.mode());
    }

    /// Reads are live and acquires refused, while two probes and more are refused by a server that answers each PING. Says how many
    /// were.
    async fn stays_so(&self, server: &RedisServer, locks: &SpoolLocks, lease: &spool_lock::Lease) -> u64 {
        let opened = times(locks.writes_circuit(), CircuitState::Open);
        let began = Instant::now();
        while times(locks.writes_circuit(), CircuitState::Open) < opened + 2 {
            assert!(began.elapsed() < SOON, "it is probed: {:?}", locks.writes_circuit().stats());
            assert_eq!(server.try_query::<String>(&["PING"]).is_ok(), self.answers_ping);
            let seen = locks.inspect(&lease.tag).await.expect("it is read");
            assert_eq!((seen.source, seen.value.map(|it| it.fence)), (Source::Live, Some(lease.fence)));
            let listed = locks.list().await.expect("it is read");
            assert_eq!((listed.source, listed.value.len()), (Source::Live, 2));
            assert_eq!(locks.mode(), Mode::ReadOnlyServer);
            assert_eq!(assert_refused(locks, 3).mode, Mode::ReadOnlyServer);
        }
        times(locks.writes_circuit(), CircuitState::Open) - opened
    }
}

#[tokio::test]
async fn a_demoted_master_is_read_and_not_asked_for_locks() {
    let refusal = Refusal {
        row: "server::demoted",
        kind: FaultKind::ReadOnly,
        begin: |server| drop(server.cmd(&["REPLICAOF", "127.0.0.1", "1"])),
        end: |server| drop(server.cmd(&["REPLICAOF", "NO", "ONE"])),
        takes_releases: false,
        answers_ping: true,
    };
    refusal.is_survived().await;
}

/// Such a server says so to a PING as well.
#[tokio::test]
async fn a_server_that_cannot_save_is_read_and_not_asked_for_locks() {
    let refusal = Refusal {
        row: "server::disk",
        kind: FaultKind::Misconf,
        begin: stop_saving,
        end: |server| drop(server.cmd(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"])),
        takes_releases: false,
        answers_ping: false,
    };
    refusal.is_survived().await;
}

/// The dump cannot replace a directory; `save` must be on, or the server does not mind.
fn stop_saving(server: &RedisServer) {
    let dir: Vec<String> = server.query(&["CONFIG", "GET", "dir"]);
    std::fs::create_dir(Path::new(&dir[1]).join("dump.rdb")).expect("the directory is ours");
    server.cmd(&["CONFIG", "SET", "save", "3600 1"]);
    for _ in 0..400 {
        // Refused while another one is under way.
        let _ = server.try_query::<String>(&["BGSAVE"]);
        if server.info("persistence")["rdb_last_bgsave_status"] == "err" {
            return;
        }
        std::thread::sleep(millis(5));
    }
    panic!("it could save: {:?}", server.info("persistence"));
}

#[tokio::test]
async fn a_server_without_memory_is_read_and_takes_releases_and_is_not_asked_for_locks() {
    let refusal = Refusal {
        row: "server::memory",
        kind: FaultKind::OutOfMemory,
        begin: |server| drop(server.cmd(&["CONFIG", "SET", "maxmemory", "1"])),
        end: |server| drop(server.cmd(&["CONFIG", "SET", "maxmemory", "0"])),
        takes_releases: true,
        answers_ping: true,
    };
    refusal.is_survived().await;
}

#[tokio::test]
async fn a_server_without_its_replicas_is_read_and_not_asked_for_locks() {
    let refusal = Refusal {
        row: "server::replicas",
        kind: FaultKind::NoReplicas,
        begin: |server| drop(server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"])),
        end: |server| drop(server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"])),
        takes_releases: false,
        answers_ping: true,
    };
    refusal.is_survived().await;
}

/// Without any call a health check is how it is found out, and it counts.
#[tokio::test]
async fn health_checks_alone_find_a_server_that_takes_no_writes() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |_| {}).await;
    server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let first = locks.health().await;
    assert_says(&assert_ill(&first, HealthStatus::Degraded, Mode::ReadOnlyServer), "want of replicas");
    for _ in 0..2 {
        locks.health().await;
    }
    let fault: Fault = assert_refused(&locks, 1).fault;
    assert_says(&chain(&fault), "want of replicas");
    server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    assert_well(&locks).await;
    eventually(SOON, async || locks.acquire(&tag(1), &worker()).await).await;
}
