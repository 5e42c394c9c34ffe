//! Any plan of workers in several processes, on the memory store under paused time: who holds, in which order, and that nobody
//! waits while the lock is free.

#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use proptest::prelude::*;
use spool_lock::{AcquireError, Config, Fence, Holder, SpoolLocks, Tag, Ttl};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Short, so that a lease that is never released ends within the run.
const TTL: Duration = Duration::from_millis(120);
/// Longer than all workers together can keep the lock, in ms: whoever waits so long gets it.
const LONG_WAIT: u64 = 60_000;
/// What may pass between the end of a lease and the next grant: tokio's timers are good for a millisecond, and a grant that nobody
/// fetched is handed on.
const AT_ONCE: Duration = Duration::from_millis(5);

/// What a worker does.
#[derive(Debug, Clone)]
struct Plan {
    process: usize,
    /// How long after the one before it comes.
    gap: u64,
    wait: u64,
    hold: u64,
    /// Gives up waiting after so long, without a word.
    gives_up: Option<u64>,
    /// Never releases.
    forgets: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    let gives_up = prop::option::weighted(0.2, 0_u64..60);
    let wait = prop_oneof![3 => Just(LONG_WAIT), 1 => 0_u64..100];
    (0_usize..3, 1_u64..8, wait, 0_u64..12, gives_up, prop::bool::weighted(0.1)).prop_map(
        |(process, gap, wait, hold, gives_up, forgets)| Plan { process, gap, wait, hold, gives_up, forgets },
    )
}

/// What became of a worker.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Held { fence: Fence, from: Instant, to: Instant },
    GaveUp,
    TimedOut,
}

#[derive(Debug)]
struct Story {
    worker: usize,
    came: Instant,
    ended: Instant,
    outcome: Outcome,
}

async fn work(locks: SpoolLocks, worker: usize, plan: Plan, stories: Arc<Mutex<Vec<Story>>>) {
    let tag = Tag::new("T").unwrap();
    let holder = Holder::new(worker.to_string(), "").unwrap();
    let came = Instant::now();
    let acquire = locks.acquire(&tag, &holder).ttl(Ttl::new(TTL).unwrap()).wait(millis(plan.wait));
    let patience = plan.gives_up.map_or(Duration::from_secs(3600), millis);
    let outcome = match timeout(patience, acquire).await {
        Err(_gave_up) => Outcome::GaveUp,
        Ok(Err(AcquireError::Contended { .. })) => Outcome::TimedOut,
        Ok(Err(error)) => panic!("{error}"),
        Ok(Ok(lease)) => {
            let from = Instant::now();
            if plan.forgets {
                Outcome::Held { fence: lease.fence, from, to: from + TTL }
            } else {
                sleep(millis(plan.hold)).await;
                let to = Instant::now();
                locks.release_lease(&lease).await.unwrap();
                Outcome::Held { fence: lease.fence, from, to }
            }
        }
    };
    stories.lock().unwrap().push(Story { worker, came, ended: Instant::now(), outcome });
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn run(plans: Vec<Plan>) -> Vec<Story> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let url = format!("memory://line-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(SpoolLocks::connect(Config::new(&url).unwrap()).await.unwrap());
    }
    let stories = Arc::default();
    let mut workers = JoinSet::new();
    for (worker, plan) in plans.into_iter().enumerate() {
        sleep(millis(plan.gap)).await;
        workers.spawn(work(processes[plan.process].clone(), worker, plan, Arc::clone(&stories)));
    }
    workers.join_all().await;
    Arc::try_unwrap(stories).unwrap().into_inner().unwrap()
}

fn check(plans: &[Plan], stories: &[Story]) -> Result<(), TestCaseError> {
    let mut held: Vec<(Instant, Instant, Fence, usize)> = Vec::new();
    for story in stories {
        let plan = &plans[story.worker];
        let took = story.ended - story.came;
        match story.outcome {
            Outcome::Held { fence, from, to } => held.push((from, to, fence, story.worker)),
            Outcome::TimedOut => {
                prop_assert!(plan.wait < LONG_WAIT, "{story:?} of {plan:?} was forgotten");
                prop_assert!(took >= millis(plan.wait), "{story:?} of {plan:?} was told too early");
                prop_assert!(took <= millis(plan.wait) + AT_ONCE, "{story:?} of {plan:?} was told too late");
            }
            Outcome::GaveUp => {}
        }
    }
    held.sort_by_key(|&(from, ..)| from);
    let came = |worker: usize| stories.iter().find(|story| story.worker == worker).unwrap().came;
    for pair in held.windows(2) {
        let ((_, to, fence, _), (from, _, next, worker)) = (pair[0], pair[1]);
        prop_assert!(to <= from, "two hold at once: {pair:?}");
        prop_assert!(fence < next, "fences do not rise: {pair:?}");
        let idle = from - to.max(came(worker)).min(from);
        prop_assert!(idle <= AT_ONCE, "{worker} waited {idle:?} for a lock that was free: {pair:?}");
    }
    for process in 0..3 {
        let order: Vec<usize> = held.iter().map(|&(.., worker)| worker).collect();
        let order: Vec<_> = order.into_iter().filter(|&worker| plans[worker].process == process).collect();
        prop_assert!(order.is_sorted(), "not in the order in which they came: {order:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn one_holds_fences_rise_and_nobody_waits_for_a_free_lock(plans in prop::collection::vec(plan(), 2..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let stories = runtime.block_on(run(plans.clone()));
        check(&plans, &stories)?;
    }
}
