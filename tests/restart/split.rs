//! Redis has split in two: the old master goes on with some, a replica that was promoted by hand serves the others. Must hold 7.
//!
//! Both grant what the other has granted: no lock in one Redis can prevent that. It is noticed, counted and told, and a resource that
//! checks fences takes no older write.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use spool_lock::{
    AcquireError, Fence, GuardState, Holder, LockGuard, LostReason, SpoolLocks, Tag,
    fence::{AdmitError, Register},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    scene::*,
    support::{FaultProxy, RedisServer, eventually},
};

const TAGS: usize = 12;
const SPLIT: Duration = Duration::from_secs(2);
const GUARDS_LAST: Duration = Duration::from_millis(1200);
/// How soon after the switch the first holder is told.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// What both groups write to, each write checked against the fence.
#[derive(Default)]
struct Spools(Mutex<BTreeMap<Tag, (Register, Vec<Fence>)>>);

impl Spools {
    fn write(&self, guard: &LockGuard) -> Result<(), AdmitError> {
        let mut spools = self.0.lock().expect("nobody panicked");
        let (register, written) = spools.entry(guard.tag().clone()).or_default();
        register.admit(guard.fence(), guard.lease().token)?;
        written.push(guard.fence());
        Ok(())
    }
}

/// A time for which somebody believed to have a lock.
#[derive(Debug, Clone)]
struct Hold {
    group: char,
    from: Instant,
    until: Instant,
    lost: Option<LostReason>,
}

/// Those who reach Redis over one way.
struct Group {
    name: char,
    locks: SpoolLocks,
    spools: Arc<Spools>,
    holds: Arc<Mutex<BTreeMap<Tag, Vec<Hold>>>>,
    refused: Arc<Mutex<u64>>,
}

impl Group {
    /// Takes the lock whenever it can, and writes under it for as long as it has it.
    async fn work(self: Arc<Self>, tag: Tag, works: watch::Receiver<bool>, keeps: bool) {
        let holder = Holder::new(format!("{}", self.name), "").expect("a holder");
        while *works.borrow() {
            match self.locks.guard(&tag, &holder).ttl(ttl(GUARDS_LAST)).await {
                Ok(guard) => self.hold(guard, &works, keeps).await,
                Err(AcquireError::Contended { .. }) => {}
                Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    async fn hold(&self, guard: LockGuard, works: &watch::Receiver<bool>, keeps: bool) {
        let from = Instant::now();
        let is_held = || !matches!(guard.state(), GuardState::Lost { .. });
        while *works.borrow() && is_held() && (keeps || from.elapsed() < 10 * PAUSE) {
            if self.spools.write(&guard).is_err() {
                *self.refused.lock().expect("nobody panicked") += 1;
            }
            tokio::select! {
                _ = guard.lost() => {}
                () = sleep(PAUSE) => {}
            }
        }
        let lost = match guard.state() {
            GuardState::Lost { reason } => Some(reason),
            _ => None,
        };
        let hold = Hold { group: self.name, from, until: Instant::now(), lost };
        self.holds.lock().expect("nobody panicked").entry(guard.tag().clone()).or_default().push(hold);
        let _ = guard.release().await;
    }
}

/// How often two of a tag believed to have it at the same time, and for how long at most.
fn overlaps(holds: &BTreeMap<Tag, Vec<Hold>>) -> (usize, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    for of_tag in holds.values() {
        for (place, one) in of_tag.iter().enumerate() {
            for other in &of_tag[place + 1..] {
                let both = one.until.min(other.until).saturating_duration_since(one.from.max(other.from));
                if both > Duration::ZERO {
                    count += 1;
                    longest = longest.max(both);
                }
            }
        }
    }
    (count, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_of_two_seconds_is_counted_told_and_does_no_harm_where_fences_are_checked() {
    let old = RedisServer::start();
    let new = RedisServer::builder().replica_of(&old).start();
    eventually(SOON, async || {
        new.info("replication").get("master_link_status").is_some_and(|link| link == "up")
    })
    .await;
    let ways = [FaultProxy::before(&old), FaultProxy::before(&old)];
    let spools = Arc::new(Spools::default());
    let (works, mut tasks) = (watch::Sender::new(true), JoinSet::new());
    let mut groups = Vec::new();
    for (name, way) in ['A', 'B'].into_iter().zip(&ways) {
        let group = Arc::new(Group {
            name,
            locks: connect(&way.url()).await,
            spools: spools.clone(),
            holds: Arc::default(),
            refused: Arc::default(),
        });
        groups.push(group.clone());
    }
    let tags: Vec<_> = (0..TAGS).map(|number| numbered("SPLIT", number)).collect();
    // Half of them are held by A for all the time, and A and B take turns at the rest.
    for (number, tag) in tags.iter().enumerate() {
        let keeps = number % 2 == 0;
        tasks.spawn(groups[0].clone().work(tag.clone(), works.subscribe(), keeps));
        if keeps {
            eventually(SOON, async || {
                standing(&old, std::slice::from_ref(tag)).len() == 1
                    && groups[0].locks.stats().locks.guards > 0
            })
            .await;
        }
        tasks.spawn(groups[1].clone().work(tag.clone(), works.subscribe(), false));
    }
    sleep(2 * SECOND).await;
    let before = overlaps(&groups_holds(&groups));
    assert_eq!(before.0, 0, "one Redis, one holder");

    new.cmd(&["REPLICAOF", "NO", "ONE"]);
    ways[1].switch_to(&new);
    let split = Instant::now();
    sleep_until(split + SPLIT).await;
    ways[0].switch_to(&new);
    let switched = Instant::now();
    // The longest that a guard counts on what it was granted by the old one.
    sleep(TOLD_WITHIN + SECOND).await;
    works.send_replace(false);
    while tasks.join_next().await.transpose().expect("no panic").is_some() {}

    let holds = groups_holds(&groups);
    let (count, longest) = overlaps(&holds);
    let counted: Vec<_> = groups.iter().map(|group| group.locks.stats().recovery.overlaps_total).collect();
    let refused: Vec<_> = groups.iter().map(|group| *group.refused.lock().unwrap()).collect();
    // Those of A that had a lock when the ways met again.
    let first: Vec<_> = holds
        .values()
        .flatten()
        .filter(|hold| hold.group == 'A' && hold.from < switched && hold.until > switched)
        .collect();
    let told = first.iter().filter(|hold| hold.lost.is_some()).map(|hold| hold.until - switched).max();
    println!(
        "split: {count} overlapping holds (longest {longest:?}), counted {counted:?}, writes refused {refused:?}, \
         {} of A held at the switch, told within {told:?}",
        first.len()
    );
    assert!(count > 0, "both granted the same");
    assert!(counted[0] > 0, "and A has noticed");
    let lost: Vec<_> = first.iter().filter(|hold| hold.lost.is_some()).collect();
    assert!(counted[0] <= lost.len() as u64, "{counted:?}, {lost:?}");
    assert!(!lost.is_empty() && told <= Some(TOLD_WITHIN), "{told:?}");
    for hold in lost {
        assert!(
            matches!(hold.lost, Some(LostReason::Restarted | LostReason::Stolen | LostReason::Deadline)),
            "{hold:?}"
        );
    }
    assert!(refused[0] > 0, "an older write came");
    for (tag, (_, written)) in &*spools.0.lock().unwrap() {
        assert!(written.is_sorted(), "{tag}: {written:?}");
    }
    // Since the switch there is one again.
    let mut later = holds;
    later.values_mut().for_each(|holds| holds.retain(|hold| hold.from > switched + TOLD_WITHIN));
    assert_eq!(overlaps(&later).0, 0);
}

/// What all of them have held, by tag.
fn groups_holds(groups: &[Arc<Group>]) -> BTreeMap<Tag, Vec<Hold>> {
    let mut all: BTreeMap<Tag, Vec<Hold>> = BTreeMap::new();
    for group in groups {
        for (tag, holds) in &*group.holds.lock().expect("nobody panicked") {
            all.entry(tag.clone()).or_default().extend(holds.iter().cloned());
        }
    }
    all
}
