//! What only a real server can lose, and what it says of itself.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proptest::prelude::*;
use tokio::{
    sync::Barrier,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    Fence,
    store::{
        Acquired, Ask, NotYours, Queued, Rules, Store as _,
        pool::PoolConfig,
        redis::tests::{
            open, open_with,
            support::{RedisServer, eventually},
        },
        suite::{LIVING, ask, give, holder_id, stand, tag, take},
    },
};

const SOON: Duration = Duration::from_secs(10);

fn soon() -> Instant {
    Instant::now() + SOON
}

fn graceful(seconds: u64) -> Rules {
    Rules { restart_grace: Duration::from_secs(seconds), ..LIVING }
}

fn at(number: usize) -> Tag {
    Tag::new(format!("T{number}")).unwrap()
}

fn key(tag: &Tag, part: &str) -> String {
    format!("spool:{{{tag}}}:{part}")
}

/// How long whoever asks for a lock is to wait; `None` where it is granted.
async fn rest(store: &RedisStore, ask: &Ask) -> Option<Duration> {
    match store.acquire(ask, soon()).await.unwrap() {
        Acquired::Granted(_) => None,
        Acquired::Warming { rest } => Some(rest),
        other => panic!("nobody has it: {other:?}"),
    }
}

// --- the grace

#[tokio::test]
async fn a_stranger_waits_for_the_whole_grace_and_no_longer() {
    const GRACE: Duration = Duration::from_secs(2);
    let server = RedisServer::start();
    let store = open(&server.url(), graceful(GRACE.as_secs())).await;
    // Late in a second, of which the server counts the whole as soon as it is over.
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_millis();
    sleep(Duration::from_millis(u64::from(1_850 - second()) % 1_000)).await;
    let restarted = Instant::now();
    server.restart();
    eventually(SOON, async || store.run(soon()).await).await;

    let mut looks = 0;
    while let Some(rest) = rest(&store, &ask("stranger")).await {
        assert!(rest > Duration::ZERO && rest <= GRACE, "{rest:?}");
        looks += 1;
        assert!(looks <= 3, "each rest brings it to the end, or to its last second");
        sleep(rest).await;
    }
    let waited = restarted.elapsed();
    assert!(waited >= GRACE, "{waited:?}");
    assert!(waited < GRACE + Duration::from_millis(1_600), "{waited:?}");
    assert!(looks > 0);
}

#[tokio::test]
async fn who_is_told_to_wait_changes_nothing_and_has_no_place() {
    let server = RedisServer::start();
    let store = open(&server.url(), graceful(3600)).await;
    assert!(rest(&store, &ask("a")).await.is_some());
    let looked = store.queue(&ask("b"), None, soon()).await.unwrap();
    let Queued::Warming { rest } = looked else { panic!("nothing is known: {looked:?}") };
    assert!(rest > Duration::from_secs(3000) && rest <= Duration::from_secs(3600), "{rest:?}");
    assert_eq!(server.query::<Vec<String>>(&["KEYS", "*"]), [""; 0]);

    // Also where it has one still.
    let hasty = open(&server.url(), LIVING).await;
    take(&hasty, &ask("a")).await;
    stand(&store, &ask("b")).await;
    server.cmd(&["DEL", &key(&tag(), "lock"), &key(&tag(), "fence")]);
    assert!(matches!(store.queue(&ask("b"), None, soon()).await.unwrap(), Queued::Warming { .. }));
    assert_eq!(server.query::<Vec<String>>(&["KEYS", "*"]), [""; 0]);
}

#[tokio::test]
async fn what_the_server_knows_is_granted_within_the_grace() {
    let server = RedisServer::start();
    let (store, hasty) = (open(&server.url(), graceful(3600)).await, open(&server.url(), LIVING).await);
    give(&hasty, &take(&hasty, &ask("a")).await).await;
    give(&store, &take(&store, &ask("b")).await).await;

    // And what stands is told, also where somebody has deleted its counter.
    let lease = take(&hasty, &ask("a")).await;
    server.cmd(&["DEL", &key(&tag(), "fence")]);
    let asked = store.acquire(&ask("b"), soon()).await.unwrap();
    assert!(matches!(asked, Acquired::Contended { .. }), "{asked:?}");
    assert_eq!(stand(&store, &ask("b")).await.fence, lease.fence);
}

#[tokio::test]
async fn what_was_lost_is_put_back_within_the_grace() {
    let server = RedisServer::start();
    let (store, hasty) = (open(&server.url(), graceful(3600)).await, open(&server.url(), LIVING).await);
    let lease = take(&hasty, &ask("a")).await;
    server.cmd(&["FLUSHALL"]);
    assert!(rest(&store, &ask("stranger")).await.is_some());
    let restored = store.restore(&lease, Ttl::HOUR, soon()).await.unwrap();
    assert!(matches!(restored, Restored::Restored(_)), "{restored:?}");
    let next = ask("next");
    stand(&store, &next).await;
    give(&store, &lease).await;
    assert_eq!(holder_id(&store).await, "next", "who waits behind it is served");
}

#[tokio::test]
async fn nobody_asks_for_the_uptime_who_need_not_know_it() {
    let server = RedisServer::start();
    let (store, hasty) = (open(&server.url(), graceful(3600)).await, open(&server.url(), LIVING).await);
    // The look at the statistics is an INFO itself.
    let asked = async |store: &RedisStore, tag: Tag| {
        let before = server.calls("info");
        let ask = Ask { tag, ..ask("a") };
        drop(store.acquire(&ask, soon()).await.unwrap());
        drop(store.queue(&ask, None, soon()).await.unwrap());
        server.calls("info") - before - 1
    };
    assert_eq!(asked(&hasty, at(1)).await, 0, "there is no grace");
    assert_eq!(asked(&store, at(1)).await, 0, "it is held");
    assert_eq!(asked(&store, at(2)).await, 2);
}

#[tokio::test]
async fn a_grace_without_the_right_to_ask_for_the_uptime_is_told_and_grants_nothing() {
    let server = RedisServer::start();
    server.cmd(&["ACL", "SETUSER", "default", "-info"]);
    let store = open(&server.url(), graceful(3600)).await;
    let names: Vec<_> = store.report().warnings.iter().map(|warning| warning.name.as_str()).collect();
    assert!(names.contains(&"restart_grace") && names.contains(&"scripts_denied"), "{names:?}");
    let fault = store.acquire(&ask("a"), soon()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Permission);
    assert_eq!(store.probe(soon()).await.unwrap_err().kind(), FaultKind::Permission);
    let hasty = open(&server.url(), LIVING).await;
    hasty.probe(soon()).await.unwrap();
    take(&hasty, &ask("a")).await;
}

// --- what is put back

#[tokio::test]
async fn a_counter_that_is_none_of_ours_stops_nothing() {
    let server = RedisServer::start();
    let store = open(&server.url(), LIVING).await;
    let lease = take(&store, &ask("a")).await;
    let (lock, fence) = (key(&tag(), "lock"), key(&tag(), "fence"));
    for counter in
        ["rubbish", "", "7", "99999999999999999999", &format!("{}|AAAAAAAAA", lease.fence.get() - 1)]
    {
        server.cmd(&["DEL", &lock]);
        server.cmd(&["SET", &fence, counter]);
        let restored = store.restore(&lease, Ttl::HOUR, soon()).await.unwrap();
        assert!(matches!(restored, Restored::Restored(_)), "{counter}: {restored:?}");
        let kept: String = server.query(&["GET", &fence]);
        let requests = if counter.ends_with('A') { "|AAAAAAAAA" } else { "" };
        assert_eq!(kept, format!("{:016}{requests}", lease.fence.get()), "{counter}");
        let lasts: u64 = server.query(&["PTTL", &fence]);
        assert!(lasts > 3_600_000 && lasts <= 3_660_000, "the fence outlives its lock: {lasts} ms");
    }
    server.cmd(&["DEL", &lock, &fence]);
    server.cmd(&["RPUSH", &fence, "x"]);
    let fault = store.restore(&lease, Ttl::HOUR, soon()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::NotALock);
}

#[tokio::test]
async fn what_is_no_lock_is_not_written_over() {
    let server = RedisServer::start();
    let store = open(&server.url(), LIVING).await;
    let lease = take(&store, &ask("a")).await;
    server.cmd(&["FLUSHALL"]);
    for value in [["SET", "x"], ["RPUSH", "x"]] {
        let lock = key(&tag(), "lock");
        server.cmd(&["DEL", &lock]);
        server.cmd(&[value[0], &lock, value[1]]);
        let fault = store.restore(&lease, Ttl::HOUR, soon()).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::NotALock);
    }
}

#[tokio::test]
async fn a_restore_that_comes_too_late_does_nothing() {
    let server = RedisServer::start();
    let store = open(&server.url(), LIVING).await;
    let lease = take(&store, &ask("a")).await;
    // From here on the server knows the script.
    assert!(matches!(store.restore(&lease, Ttl::HOUR, soon()).await.unwrap(), Restored::Stands(_)));
    server.cmd(&["FLUSHALL"]);
    let before = server.calls("evalsha");
    server.stop();
    let hurried = Instant::now() + Duration::from_millis(300);
    let fault = store.restore(&lease, Ttl::HOUR, hurried).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Timeout);
    sleep(Duration::from_millis(100)).await;
    server.cont();
    eventually(SOON, async || server.calls("evalsha") > before).await;
    assert_eq!(server.query::<Vec<String>>(&["KEYS", "*"]), [""; 0]);
}

/// What is full must not be filled.
#[tokio::test]
async fn nothing_is_put_back_where_memory_is_full() {
    let server = RedisServer::start();
    let store = open(&server.url(), LIVING).await;
    let lease = take(&store, &ask("a")).await;
    server.cmd(&["FLUSHALL"]);
    server.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    let fault = store.restore(&lease, Ttl::HOUR, soon()).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::OutOfMemory);
}

// --- many tags

#[tokio::test]
async fn one_look_costs_a_command_for_each_hundred_tags() {
    let server = RedisServer::start();
    let store = open(&server.url(), LIVING).await;
    let look = async |count: usize| {
        let tags: Vec<_> = (0..count).map(at).collect();
        let before = server.calls("evalsha");
        assert_eq!(store.look(&tags, soon()).await.unwrap().len(), count);
        server.calls("evalsha") - before
    };
    // The script is sent with its text once.
    look(1).await;
    assert_eq!([look(0).await, look(1).await, look(100).await, look(101).await], [0, 1, 1, 2]);
}

#[tokio::test]
async fn what_is_no_lock_is_nothing_and_spoils_no_look() {
    let server = RedisServer::start();
    let store = open(&server.url(), LIVING).await;
    let held = take(&store, &Ask { tag: at(9), ..ask("a") }).await;
    let value: String = server.query(&["GET", &key(&at(9), "lock")]);
    server.cmd(&["SET", &key(&at(0), "lock"), "x", "PX", "1000000"]);
    server.cmd(&["SET", &key(&at(1), "lock"), "", "PX", "1000000"]);
    server.cmd(&["RPUSH", &key(&at(2), "lock"), "x"]);
    // A lease that lasts for ever is none.
    server.cmd(&["SET", &key(&at(3), "lock"), &value]);
    server.cmd(&["RPUSH", &key(&at(4), "fence"), "x"]);
    server.cmd(&["SET", &key(&at(5), "fence"), "rubbish"]);
    let seen = store.look(&[0, 1, 2, 3, 4, 5, 9].map(at), soon()).await.unwrap();
    let free = || Some(Seen::Free { last: None });
    let right = [None, None, None, None, free(), free(), Some(Seen::Held(held.into()))];
    let bare = |seen: &Option<Seen>| match seen {
        Some(Seen::Held(occupant)) => Some(Ok((occupant.tag.clone(), occupant.fence))),
        Some(Seen::Free { last }) => Some(Err(*last)),
        None => None,
    };
    assert_eq!(seen.iter().map(bare).collect::<Vec<_>>(), right.iter().map(bare).collect::<Vec<_>>());

    server.cmd(&["ACL", "SETUSER", "default", "-get"]);
    assert_eq!(store.look(&[at(0)], soon()).await.unwrap_err().kind(), FaultKind::Permission);
}

// --- what the server says of itself

#[tokio::test]
async fn each_start_of_the_server_is_another_run() {
    let server = RedisServer::start();
    let store = open(&server.url(), LIVING).await;
    let first = store.run(soon()).await.unwrap();
    assert_eq!(first, Some(server.info("server")["run_id"].clone()));
    assert_eq!(first.as_deref(), Some(store.report().run_id.as_str()));
    assert_eq!(store.run(soon()).await.unwrap(), first);
    server.restart();
    let second = eventually(SOON, async || store.run(soon()).await).await;
    assert!(second.is_some() && second != first, "{second:?}");
    server.cmd(&["ACL", "SETUSER", "default", "-info"]);
    assert_eq!(store.run(soon()).await.unwrap(), None);
}

#[tokio::test]
async fn a_witness_lives_as_long_as_the_data() {
    let server = RedisServer::start();
    let (store, other) = (open(&server.url(), LIVING).await, open(&server.url(), LIVING).await);
    let scripts = server.calls("evalsha");
    assert!(!store.has_witness(soon()).await.unwrap(), "nobody has written it");
    for _ in 0..2 {
        store.leave_witness(soon()).await.unwrap();
        assert!(store.has_witness(soon()).await.unwrap());
    }
    assert!(!other.has_witness(soon()).await.unwrap(), "each process has its own");
    let keys: Vec<String> = server.query(&["KEYS", "*"]);
    let [witness] = &keys[..] else { panic!("one key: {keys:?}") };
    assert!(witness.starts_with("spool:{}:witness:"), "{witness}");
    let lasts: u64 = server.query(&["TTL", witness]);
    assert!((86_000..=86_400).contains(&lasts), "{lasts} s");
    assert_eq!(store.list(soon()).await.unwrap(), [], "it is no lock");
    assert_eq!(server.calls("evalsha") - scripts, 1, "the list alone");

    server.cmd(&["FLUSHALL"]);
    assert!(!store.has_witness(soon()).await.unwrap());
    store.leave_witness(soon()).await.unwrap();
    server.restart();
    assert!(!eventually(SOON, async || store.has_witness(soon()).await).await);
    server.cmd(&["ACL", "SETUSER", "default", "-set"]);
    assert_eq!(store.leave_witness(soon()).await.unwrap_err().kind(), FaultKind::Permission);
}

// --- broken lanes

/// A call that nobody answers but the end of its connection.
async fn stuck(store: &RedisStore) -> Fault {
    let mut pop = redis::cmd("BLPOP");
    pop.arg("stuck").arg(0);
    store.plain(pop, Way::Ordinary, soon()).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_broken_lane_is_counted_before_any_of_its_calls_hears_of_it() {
    const CALLS: usize = 16;
    let server = RedisServer::start();
    let pool = PoolConfig { max_connections: 1, depth: 64, ..PoolConfig::default() };
    let store = Arc::new(open_with(&server.url(), LIVING, &pool).await);
    for round in 0..40 {
        eventually(SOON, async || store.run(soon()).await).await;
        let before = store.breaks();
        assert_eq!(before, round, "one lane was closed in each round");
        let together = Arc::new(Barrier::new(CALLS));
        let calls: Vec<_> = (0..CALLS)
            .map(|_| {
                let (store, together) = (store.clone(), together.clone());
                tokio::spawn(async move {
                    together.wait().await;
                    let fault = stuck(&store).await;
                    (fault.kind(), store.breaks())
                })
            })
            .collect();
        eventually(SOON, async || store.pool().in_flight as usize == CALLS).await;
        for client in server.clients() {
            server.cmd(&["CLIENT", "KILL", "ID", &client["id"]]);
        }
        for call in calls {
            assert_eq!(call.await.unwrap(), (FaultKind::Disconnected, before + 1));
        }
    }
}

/// Here each call gives the lane up by its own reply, and one of them is the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lane_of_a_replica_is_counted_before_any_of_its_calls_hears_of_it() {
    let server = RedisServer::start();
    let pool = PoolConfig { max_connections: 1, depth: 64, ..PoolConfig::default() };
    let store = Arc::new(open_with(&server.url(), LIVING, &pool).await);
    server.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
    for round in 0..3 {
        store.run(soon()).await.unwrap();
        // A younger one is spared: another would be to the same replica.
        sleep(Duration::from_millis(1_050)).await;
        let calls: Vec<_> = (0..pool.depth)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    let fault = store.leave_witness(soon()).await.unwrap_err();
                    (fault.kind(), store.breaks())
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), (FaultKind::ReadOnly, round + 1));
        }
    }
}

#[tokio::test]
async fn what_a_fault_ends_is_counted_and_what_is_closed_for_want_of_work_is_not() {
    let server = RedisServer::start();
    let pool = PoolConfig {
        depth: 1,
        idle_timeout: Duration::from_millis(20),
        response_timeout: Duration::from_millis(300),
        ..PoolConfig::default()
    };
    let store = open_with(&server.url(), LIVING, &pool).await;
    let (one, two, three) = tokio::join!(store.run(soon()), store.run(soon()), store.run(soon()));
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    eventually(SOON, async || server.clients().len() == 1).await;
    assert_eq!(store.breaks(), 0, "idle");

    server.stop();
    assert_eq!(store.run(soon()).await.unwrap_err().kind(), FaultKind::Timeout);
    assert_eq!(store.breaks(), 1, "silent");
    server.cont();

    eventually(SOON, async || store.run(soon()).await).await;
    // A lane younger than a second is spared: another would be to the same replica.
    sleep(Duration::from_millis(1_050)).await;
    server.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
    let before = store.breaks();
    assert_eq!(store.leave_witness(soon()).await.unwrap_err().kind(), FaultKind::ReadOnly);
    assert_eq!(store.breaks(), before + 1, "a replica's");
}

// --- any order

/// What may happen to one tag.
#[derive(Debug, Clone)]
enum Deed {
    Acquire,
    /// The lease that stands ends by its holder's word, or by itself.
    Release,
    Expire,
    /// The server forgets the tag, or what was done to it since it was last saved.
    Forget,
    Save,
    GoBack,
    /// One of the leases that were granted, the latest first.
    Restore(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        3 => Just(Deed::Acquire),
        2 => Just(Deed::Release),
        1 => Just(Deed::Expire),
        1 => Just(Deed::Forget),
        1 => Just(Deed::Save),
        1 => Just(Deed::GoBack),
        4 => (0_usize..4).prop_map(Deed::Restore),
    ];
    prop::collection::vec(deed, 1..24)
}

/// A tag at a server, and what is known of it from outside.
struct World<'a> {
    server: &'a RedisServer,
    store: &'a RedisStore,
    tag: Tag,
    /// In the order of their grants, each with whether the server may have lost it since.
    granted: Vec<(Lease, bool)>,
    /// The lock and the counter as they were saved, and how many leases had been granted by then.
    saved: ([Option<String>; 2], usize),
}

impl World<'_> {
    fn read(&self) -> [Option<String>; 2] {
        ["lock", "fence"].map(|part| self.server.query(&["GET", &key(&self.tag, part)]))
    }

    async fn standing(&self) -> Option<Fence> {
        match self.store.inspect(&self.tag, soon()).await.unwrap() {
            Seen::Held(occupant) => Some(occupant.fence),
            Seen::Free { .. } => None,
        }
    }

    fn counter(&self) -> u64 {
        self.read()[1].as_ref().map_or(0, |kept| kept[..16].parse().unwrap())
    }

    /// Everything that was granted since `kept` leases had been may be lost.
    fn lose(&mut self, kept: usize) {
        self.granted[kept..].iter_mut().for_each(|(_, is_lost)| *is_lost = true);
    }

    async fn does(&mut self, deed: &Deed) {
        let standing = self.standing().await;
        let lock = key(&self.tag, "lock");
        match *deed {
            Deed::Acquire => {
                let ask = Ask { tag: self.tag.clone(), ..ask("a") };
                if let Acquired::Granted(lease) = self.store.acquire(&ask, soon()).await.unwrap() {
                    assert_eq!(standing, None);
                    let highest = self.granted.iter().map(|(lease, _)| lease.fence).max();
                    assert!(highest.is_none_or(|highest| highest < lease.fence), "fences rise");
                    self.granted.push((lease, false));
                }
            }
            Deed::Release => {
                let lease = self.granted.iter().find(|(lease, _)| Some(lease.fence) == standing);
                if let Some((lease, _)) = lease {
                    give(self.store, lease).await;
                }
            }
            Deed::Expire => drop(self.server.cmd(&["DEL", &lock])),
            Deed::Forget => {
                self.server.cmd(&["DEL", &lock, &key(&self.tag, "fence")]);
                self.lose(0);
            }
            Deed::Save => self.saved = (self.read(), self.granted.len()),
            Deed::GoBack => {
                let (values, kept) = self.saved.clone();
                for (part, value) in ["lock", "fence"].iter().zip(values) {
                    let key = key(&self.tag, part);
                    match value {
                        Some(value) => self.server.cmd(&["SET", &key, &value, "PX", "3600000"]),
                        None => self.server.cmd(&["DEL", &key]),
                    };
                }
                self.lose(kept);
                if self.saved.0[1].is_none() {
                    self.lose(0);
                }
            }
            Deed::Restore(back) => {
                let Some(place) = self.granted.len().checked_sub(back + 1) else { return };
                let (lease, is_lost) = self.granted[place].clone();
                let before = self.counter();
                match self.store.restore(&lease, Ttl::HOUR, soon()).await.unwrap() {
                    Restored::Restored(restored) => {
                        assert_eq!((standing, restored.fence), (None, lease.fence));
                        assert!(is_lost, "it had ended, and the server knew");
                        assert!(before < lease.fence.get());
                        self.granted[place].1 = false;
                    }
                    Restored::Stands(occupant) => {
                        assert_eq!((standing, occupant.fence), (Some(lease.fence), lease.fence));
                    }
                    Restored::Not(NotYours::Occupied(occupant)) => {
                        assert_eq!(standing, Some(occupant.fence));
                        assert_ne!(occupant.fence, lease.fence);
                    }
                    Restored::Not(NotYours::Free { last }) => {
                        assert_eq!((standing, last.map(Fence::get)), (None, Some(before)));
                        assert!(before >= lease.fence.get());
                    }
                }
                assert!(self.counter() >= before, "fences never go back");
            }
        }
    }
}

#[test]
fn nothing_that_has_ended_is_put_back_in_any_order() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = RedisServer::start();
    let store = runtime.block_on(open(&server.url(), LIVING));
    let count = std::cell::Cell::new(0);
    proptest!(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() }, |(deeds in deeds())| {
        count.set(count.get() + 1);
        let tag = at(count.get());
        let world = World { server: &server, store: &store, tag, granted: Vec::new(), saved: ([None, None], 0) };
        runtime.block_on(async {
            let mut world = world;
            for deed in &deeds {
                world.does(deed).await;
            }
        });
    });
}
