//! Held by another: an answer, and no fault. All timeouts are the defaults.

use std::sync::Arc;

use spool_lock::{AcquireError, Config, ExtendError, Holder, ReleaseError, SpoolLocks, Ttl};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    outlook::*,
    report::{self, Row},
    support::RedisServer,
};

const CALLS: usize = 1000;
const SIDE_BY_SIDE: usize = 50;

fn stranger() -> Holder {
    Holder::new("94", "MR(94)").expect("a holder")
}

/// Makes a thousand calls, fifty side by side.
async fn a_thousand<F: Future<Output = ()> + Send + 'static>(call: impl Fn() -> F) {
    let (mut crew, places) = (JoinSet::new(), Arc::new(Semaphore::new(SIDE_BY_SIDE)));
    for _ in 0..CALLS {
        let place = places.clone().acquire_owned().await.expect("open");
        let call = call();
        crew.spawn(async move {
            call.await;
            drop(place);
        });
    }
    crew.join_all().await;
}

fn assert_no_fault(locks: &SpoolLocks) {
    assert_stayed_closed(locks.link_circuit());
    assert_stayed_closed(locks.writes_circuit());
    for (operation, counts) in locks.stats().locks.operations {
        assert!(counts.failures_total.values().all(|count| *count == 0), "{operation}: {counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_refused_acquires_are_no_fault() {
    let server = RedisServer::start();
    // One fault would be enough.
    let locks = connect(&server.url(), |config: &mut Config| config.circuit.faults = 1).await;
    locks.acquire(&tag(1), &stranger()).await.unwrap();
    a_thousand(|| {
        let locks = locks.clone();
        async move {
            let refused = locks.acquire(&tag(1), &worker()).await;
            assert!(matches!(refused, Err(AcquireError::Contended { .. })), "{refused:?}");
        }
    })
    .await;
    assert_eq!(locks.stats().locks.contended_total, CALLS as u64);
    assert_no_fault(&locks);
    assert_well(&locks).await;
    report::row(Row {
        row: "contention::refused",
        fault: "another holds it",
        must: "both circuits stay closed",
        timeouts: "all defaults; one fault would open a circuit",
        measured: &[("refused acquires", CALLS.to_string()), ("faults", "0".to_owned())],
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_releases_and_extends_of_what_another_holds_are_no_fault() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |config: &mut Config| config.circuit.faults = 1).await;
    locks.acquire(&tag(1), &stranger()).await.unwrap();
    a_thousand(|| {
        let locks = locks.clone();
        async move {
            let released = locks.release(&tag(1), &worker()).await;
            assert!(matches!(released, Err(ReleaseError::NotHolder(_))), "{released:?}");
            let extended = locks.extend(&tag(1), &worker(), Ttl::HOUR).await;
            assert!(matches!(extended, Err(ExtendError::NotHolder(_))), "{extended:?}");
        }
    })
    .await;
    assert_no_fault(&locks);
    assert_well(&locks).await;
}
