//! The snapshot on the worst day of the process that serves it.

#![cfg(all(feature = "snapshot", unix))]

mod support;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Barrier},
    time::Duration,
};

use spool_lock::{Config, Holder, PoolAlert, Snapshot, SnapshotEndpoint, SpoolLocks, Tag};
use tokio::time::Instant;

use support::{FaultProxy, RedisServer, eventually};

const WORKERS: usize = 2;
const LOOKS: usize = 20;

/// Asks as the exporter does.
fn look(socket: &Path) -> (Duration, Snapshot) {
    let asked = Instant::now();
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
    let request = "GET /v1/snapshot HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    let spent = asked.elapsed();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    (spent, serde_json::from_str(body).expect("a snapshot"))
}

#[test]
fn snapshot_answers_while_the_pool_is_exhausted_and_the_runtime_blocked() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let dir = tempfile::TempDir::with_prefix("snapshot-").expect("a temporary directory can be made");
    let socket = dir.path().join("snapshot.sock");
    let mut config = Config::new(&proxy.url()).expect("a URL of the tests");
    config.snapshot = Some(SnapshotEndpoint::Unix(socket.clone()));
    config.deadline = Duration::from_secs(60);
    config.pool.max_connections = 2;
    config.pool.depth = 1;
    config.pool.response_timeout = Duration::from_secs(60);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .expect("threads can be started");
    let locks = runtime.block_on(SpoolLocks::connect(config).into_future()).expect("a server of the tests");
    // Both connections are open and taken, and everybody else waits.
    let tag = Tag::new("TEST-02").expect("a tag");
    runtime.block_on(async {
        let held = proxy.hold_requests(support::proxy::named("EVALSHA"));
        for number in 0..100 {
            let (locks, tag) = (locks.clone(), tag.clone());
            tokio::spawn(async move {
                let holder = Holder::new(number.to_string(), "").expect("a holder");
                drop(locks.acquire(&tag, &holder).await);
            });
        }
        held.caught(2).await;
        proxy.blackhole();
        eventually(Duration::from_secs(5), async || locks.stats().pool.waiting == 98).await;
        // Dropping it would close the connections.
        std::mem::forget(held);
    });

    let (all_blocked, free) = (Arc::new(Barrier::new(WORKERS + 1)), Arc::new(Barrier::new(WORKERS + 1)));
    for _ in 0..WORKERS {
        let (all_blocked, free) = (all_blocked.clone(), free.clone());
        runtime.spawn(async move {
            // Not one await: the worker's thread stands still.
            all_blocked.wait();
            free.wait();
        });
    }
    all_blocked.wait();
    let (mut spent, snapshots): (Vec<_>, Vec<_>) = (0..LOOKS).map(|_| look(&socket)).unzip();
    free.wait();

    spent.sort_unstable();
    let (median, longest) = (spent[LOOKS / 2], spent[LOOKS - 1]);
    println!("median {median:?}, longest {longest:?}");
    assert!(median < Duration::from_millis(50), "{spent:?}");
    assert!(longest < Duration::from_secs(1), "{spent:?}");
    for (number, snapshot) in snapshots.iter().enumerate() {
        let pool = &snapshot.pools[0];
        assert_eq!((pool.waiting, pool.in_flight, pool.report.active_connections), (98, 2, 2));
        assert_eq!((pool.limit, pool.report.available_connections), (2, 0));
        assert_eq!(pool.report.utilization_percent, 100.0);
        assert_eq!(pool.report.alert, Some(PoolAlert::HighUtilization));
        assert_eq!(snapshot.seq, snapshots[0].seq + number as u64);
    }
    assert!(
        snapshots[LOOKS - 1].pools[0].oldest_waiting_seconds >= snapshots[0].pools[0].oldest_waiting_seconds
    );
    runtime.shutdown_background();
}
