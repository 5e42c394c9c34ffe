//! [`Strangers`]: those who want what others hold, and a record of all that they were granted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use spool_lock::{AcquireError, Config, Fence, Holder, Lease, SpoolLocks, Tag};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::scene::{SOON, millis, numbered};

/// How long each waits until it asks again.
const PAUSE: Duration = millis(5);
/// The tags that nobody holds for long.
const OTHERS: usize = 50;

/// Each has connections of its own. Every other one asks for tags that are held and keeps what it gets; the rest take turns at tags of
/// their own.
pub(crate) struct Strangers {
    record: Arc<Mutex<Record>>,
    asks: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What they were told.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) grants: Vec<Grant>,
    pub(crate) asked: u64,
    pub(crate) contended: u64,
    pub(crate) warming: u64,
    pub(crate) longest_warming: Duration,
    pub(crate) unavailable: u64,
    pub(crate) faults: BTreeMap<String, u64>,
    /// Answers that are not true.
    pub(crate) wrong: Vec<String>,
}

/// A lock that somebody was granted: in the order of `granted`.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) tag: Tag,
    pub(crate) fence: Fence,
    pub(crate) asked: Instant,
    pub(crate) granted: Instant,
}

impl Strangers {
    pub(crate) async fn gather(count: usize, config: &Config, held: &BTreeMap<Tag, Fence>) -> Self {
        let (record, asks) = (Arc::new(Mutex::new(Record::default())), watch::Sender::new(true));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let mut config = config.clone();
            config.pool.max_connections = 2;
            let locks = SpoolLocks::connect(config).await.expect("healthy");
            let others = (0..OTHERS).map(|other| numbered("OTHER", other)).collect();
            let is_hunter = number % 2 == 0;
            let one = Stranger {
                locks,
                holder: Holder::new(format!("stranger-{number}"), "").expect("a holder"),
                tags: if is_hunter { held.keys().cloned().collect() } else { others },
                held: held.clone(),
                keeps: is_hunter,
                record: record.clone(),
            };
            tasks.spawn(one.ask_on(number, asks.subscribe()));
        }
        Self { record, asks, tasks }
    }

    /// Each comes to the end of its call, and asks no more.
    pub(crate) async fn stop(&mut self) {
        self.asks.send_replace(false);
        let all = async { while self.tasks.join_next().await.transpose().expect("no panic").is_some() {} };
        timeout(SOON, all).await.expect("every call has an end");
    }

    /// What was told to them so far.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.record.lock().expect("nobody panicked"))
    }
}

impl Record {
    /// The tags of `held` that somebody was granted.
    pub(crate) fn taken(&self, held: &BTreeMap<Tag, Fence>) -> BTreeSet<Tag> {
        self.grants.iter().map(|grant| grant.tag.clone()).filter(|tag| held.contains_key(tag)).collect()
    }

    /// Of two grants of a tag of which one was asked for when the other was there, the later has the higher fence.
    pub(crate) fn assert_fences_rise(&self) {
        let mut of_tag: BTreeMap<&Tag, Vec<&Grant>> = BTreeMap::new();
        self.grants.iter().for_each(|grant| of_tag.entry(&grant.tag).or_default().push(grant));
        for grants in of_tag.values() {
            for (place, later) in grants.iter().enumerate() {
                let before = grants[..place].iter().filter(|before| before.granted < later.asked);
                if let Some(highest) = before.max_by_key(|before| before.fence) {
                    assert!(highest.fence < later.fence, "{later:?} after {highest:?}");
                }
            }
        }
    }

    pub(crate) fn figures(&self) -> String {
        let Self { grants, asked, contended, warming, longest_warming, unavailable, faults, .. } = self;
        format!(
            "{asked} asked, {} granted, {contended} contended, {warming} warming (longest {longest_warming:?}), \
             {unavailable} unavailable, faults {faults:?}",
            grants.len()
        )
    }
}

struct Stranger {
    locks: SpoolLocks,
    holder: Holder,
    tags: Vec<Tag>,
    /// What the factory held before.
    held: BTreeMap<Tag, Fence>,
    /// Whether it keeps what it gets.
    keeps: bool,
    record: Arc<Mutex<Record>>,
}

impl Stranger {
    async fn ask_on(self, number: usize, asks: watch::Receiver<bool>) {
        // Over all tags, each in an order of its own.
        let steps =
            (number..).map(|turn| turn.wrapping_mul(7919).wrapping_add(number * 31) % self.tags.len());
        for place in steps {
            if !*asks.borrow() {
                return;
            }
            self.ask(&self.tags[place]).await;
            sleep(PAUSE).await;
        }
    }

    async fn ask(&self, tag: &Tag) {
        let asked = Instant::now();
        let answer = self.locks.acquire(tag, &self.holder).await;
        let answer = match answer {
            Err(AcquireError::Ambiguous { claim, fault }) => match claim.settled().await {
                Ok(Some(lease)) => Ok(lease),
                Ok(None) | Err(_) => Err(AcquireError::Fault(fault)),
            },
            answer => answer,
        };
        let granted = self.note(asked, tag, answer);
        if let Some(lease) = granted.filter(|_| !self.keeps) {
            // Where Redis is away it is deferred, and where its data has gone it is not held.
            let _ = self.locks.release_lease(&lease).await;
        }
    }

    fn note(&self, asked: Instant, tag: &Tag, answer: Result<Lease, AcquireError>) -> Option<Lease> {
        let mut record = self.record.lock().expect("nobody panicked");
        record.asked += 1;
        match answer {
            Ok(lease) => {
                if self.held.get(tag).is_some_and(|fence| lease.fence <= *fence) {
                    record.wrong.push(format!("{tag} was granted under an old fence: {lease:?}"));
                }
                let grant = Grant { tag: tag.clone(), fence: lease.fence, asked, granted: Instant::now() };
                record.grants.push(grant);
                return Some(lease);
            }
            Err(AcquireError::Contended { occupant, .. }) => {
                record.contended += 1;
                let is_strangers = occupant.holder.id().starts_with("stranger-");
                if !is_strangers && self.held.get(tag) != Some(&occupant.fence) {
                    record.wrong.push(format!("{tag} is held by {occupant:?}"));
                }
            }
            // It has it since before, or from a call of which it heard late.
            Err(AcquireError::AlreadyHeld(lease)) => {
                record.contended += 1;
                if !record.grants.iter().any(|grant| grant.tag == *tag && grant.fence == lease.fence) {
                    record.grants.push(Grant {
                        tag: tag.clone(),
                        fence: lease.fence,
                        asked,
                        granted: Instant::now(),
                    });
                }
            }
            Err(AcquireError::Warming { retry_after }) => {
                record.warming += 1;
                record.longest_warming = record.longest_warming.max(retry_after);
            }
            Err(AcquireError::Unavailable { .. } | AcquireError::Saturated) => record.unavailable += 1,
            Err(AcquireError::Fault(fault)) => {
                *record.faults.entry(fault.kind().as_str().to_owned()).or_default() += 1;
            }
            Err(other) => record.wrong.push(format!("{tag}: {other:?}")),
        }
        None
    }
}
