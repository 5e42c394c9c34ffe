//! The subscription at a real server: the test says what the scripts would say, and looks at the server's list of clients.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use super::*;
use crate::{
    Event, FaultKind, Tag,
    meter::LockMeter,
    store::{
        Rules, Settings, Store as _,
        pool::PoolConfig,
        redis::{
            RedisStore,
            tests::support::{FaultProxy, RedisServer, eventually},
            wire::micros_of,
        },
        suite::LIVING,
    },
};

const SOON: Duration = Duration::from_secs(5);

fn deadline() -> Instant {
    Instant::now() + SOON
}

fn tag(name: &str) -> Tag {
    Tag::new(name).unwrap()
}

async fn open(url: &str, tune: impl FnOnce(&mut PoolConfig)) -> RedisStore {
    let mut pool = PoolConfig::default();
    tune(&mut pool);
    let settings = Settings {
        rules: Rules { place: Duration::from_secs(3), ..LIVING },
        url,
        ca: None,
        prefix: "spool",
        fence_kept: Duration::from_secs(60),
        deadline: SOON,
        pool: &pool,
    };
    RedisStore::connect(settings, Arc::new(LockMeter::default())).await.unwrap()
}

fn record(number: u64) -> String {
    format!("t17637000000000005000|{number:016}|1763700000000|i|93|MR(93)|ARM")
}

/// Says that `tag` was taken under the fence `number`; how many heard it.
fn say(server: &RedisServer, tag: &str, number: u64) -> u64 {
    server.query(&["PUBLISH", &format!("spool:events:{{{tag}}}"), &record(number)])
}

/// The next news in few words: `+topic`, the tag of a grant, tag and fence of an event; `None` at the end.
async fn next(feed: &mut Feed) -> Option<String> {
    let news = tokio::time::timeout(SOON, feed.news.recv()).await.expect("something comes")?;
    Some(match news {
        News::Follows(Topic::Grants) => "+grants".to_owned(),
        News::Follows(Topic::Tag(tag)) => format!("+{tag}"),
        News::Follows(Topic::All) => "+*".to_owned(),
        News::Granted(tag) => format!("{tag} granted"),
        News::Said(event) => {
            let occupant = event.occupant().unwrap();
            format!("{} {}", occupant.tag, occupant.fence.get())
        }
    })
}

/// The clients of the server that hear something.
fn subscribers(server: &RedisServer) -> usize {
    let mut clients = server.clients();
    clients.retain(|client| client["sub"] != "0" || client["psub"] != "0");
    clients.len()
}

fn closed(store: &RedisStore, reason: &str) -> u64 {
    store.pool().connections_closed_total[reason]
}

async fn at_rest(store: &RedisStore, active: u32) {
    eventually(SOON, async || {
        let pool = store.pool();
        let others = pool.connecting_connections + pool.draining_connections;
        if (pool.report.active_connections, others) == (active, 0) { Ok(()) } else { Err(pool) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_come_in_the_order_of_the_server() {
    let server = RedisServer::start();
    let store = open(&server.url(), |_| {}).await;
    let mut feed = store.feed(deadline()).await.unwrap();
    assert_eq!(say(&server, "A", 1), 0, "nothing is followed yet");
    feed.topics.follow(&Topic::Tag(tag("A"))).await.unwrap();
    say(&server, "A", 2);
    say(&server, "B", 3);
    feed.topics.follow(&Topic::Grants).await.unwrap();
    assert!(store.grants.starts_with("spool:grants:") && store.grants.len() == "spool:grants:".len() + 11);
    server.cmd(&["PUBLISH", &store.grants, "spool:{a%7Bb}:lock"]);
    feed.topics.follow(&Topic::All).await.unwrap();
    say(&server, "B", 4);
    let channel = "spool:events:{A}";
    server.cmd(&["PUBLISH", channel, &format!("{}\nnews of a later version\n{}", record(5), record(6))]);
    feed.topics.unfollow(&Topic::All).await.unwrap();
    say(&server, "B", 7);
    say(&server, "A", 8);
    feed.topics.unfollow(&Topic::Tag(tag("A"))).await.unwrap();
    say(&server, "A", 9);
    server.cmd(&["PUBLISH", &store.grants, "spool:{C}:lock"]);
    let wanted = ["+A", "A 2", "+grants", "a{b granted", "+*", "B 4", "A 5", "A 6", "A 8", "C granted"];
    for wanted in wanted {
        assert_eq!(next(&mut feed).await.as_deref(), Some(wanted));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_comes_once_while_all_tags_come_and_go() {
    let server = Arc::new(RedisServer::start());
    let store = open(&server.url(), |_| {}).await;
    let mut feed = store.feed(deadline()).await.unwrap();
    feed.topics.follow(&Topic::Tag(tag("A"))).await.unwrap();
    let speaker = thread::spawn({
        let server = server.clone();
        move || (1..=1000).map(|number| say(&server, "A", number)).collect::<BTreeSet<_>>()
    });
    while !speaker.is_finished() {
        feed.topics.follow(&Topic::All).await.unwrap();
        feed.topics.unfollow(&Topic::All).await.unwrap();
    }
    assert_eq!(speaker.join().unwrap(), [1, 2].into(), "heard by the channel, and by both");
    // A reply comes after all that was said before.
    feed.topics.follow(&Topic::Grants).await.unwrap();
    drop(feed.topics);
    let mut heard = Vec::new();
    while let Some(news) = feed.news.recv().await {
        if let News::Said(event) = news {
            heard.push(event.occupant().unwrap().fence.get());
        }
    }
    assert_eq!(heard, (1..=1000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_too_slow_is_at_its_end() {
    let server = RedisServer::start();
    let store = open(&server.url(), |_| {}).await;
    let mut feed = store.feed(deadline()).await.unwrap();
    feed.topics.follow(&Topic::All).await.unwrap();
    for number in 1..=FEED_CAPACITY as u64 + 1 {
        assert_eq!(say(&server, "A", number), 1);
    }
    // As above.
    feed.topics.follow(&Topic::Grants).await.unwrap();
    assert_eq!(next(&mut feed).await.as_deref(), Some("+*"));
    for number in 1..FEED_CAPACITY {
        assert_eq!(next(&mut feed).await, Some(format!("A {number}")));
    }
    assert_eq!(next(&mut feed).await, None);
    // Another takes its place.
    let mut other = store.feed(deadline()).await.unwrap();
    drop(feed);
    other.topics.follow(&Topic::All).await.unwrap();
    say(&server, "A", 1);
    assert_eq!(next(&mut other).await.as_deref(), Some("+*"));
    assert_eq!(next(&mut other).await.as_deref(), Some("A 1"));
    eventually(SOON, async || subscribers(&server) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_ends_its_feed_and_frees_its_place() {
    let server = RedisServer::start();
    let store = open(&server.url(), |pool| pool.max_connections = 2).await;
    let mut feed = store.feed(deadline()).await.unwrap();
    feed.topics.follow(&Topic::Grants).await.unwrap();
    assert_eq!(store.feed(deadline()).await.unwrap_err().kind(), FaultKind::Saturated);
    assert_eq!(next(&mut feed).await.as_deref(), Some("+grants"));
    assert_eq!(server.query::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]), 1);
    assert_eq!(next(&mut feed).await, None);
    // Whoever reads the end finds the place free, also while it still has the topics.
    assert_eq!(store.pool().report.active_connections, 0);
    let fault = feed.topics.follow(&Topic::All).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Disconnected);
    let again = store.feed(deadline()).await.unwrap();
    again.topics.follow(&Topic::Grants).await.unwrap();
    assert_eq!((closed(&store, "disconnected"), closed(&store, "unsubscribed")), (1, 0));
    store.probe(deadline()).await.unwrap();
}

/// It stayed with the old master, where nothing was said any more, while the lanes went on to the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_of_a_server_that_became_a_replica_ends() {
    let server = RedisServer::start();
    let store = open(&server.url(), |_| {}).await;
    let mut feed = store.feed(deadline()).await.unwrap();
    feed.topics.follow(&Topic::Grants).await.unwrap();
    server.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
    // A young lane is spared.
    eventually(SOON, async || {
        let kind = store.probe(deadline()).await.unwrap_err().kind();
        if closed(&store, "read_only") > 0 { Ok(()) } else { Err(kind) }
    })
    .await;
    assert_eq!(next(&mut feed).await.as_deref(), Some("+grants"));
    assert_eq!(next(&mut feed).await, None);
    drop(feed);
    eventually(SOON, async || closed(&store, "read_only") >= 2).await;
    assert_eq!(closed(&store, "unsubscribed"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_not_allowed_is_a_fault_of_permission() {
    let server = RedisServer::start();
    let rules = "ACL SETUSER deaf on >sesame ~spool:* +@all resetchannels &spool:events:*";
    server.cmd(&rules.split(' ').collect::<Vec<_>>());
    let store = open(&format!("redis://deaf:sesame@127.0.0.1:{}", server.port()), |_| {}).await;
    let mut feed = store.feed(deadline()).await.unwrap();
    let fault = feed.topics.follow(&Topic::Grants).await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Permission);
    feed.topics.follow(&Topic::All).await.unwrap();
    assert_eq!(next(&mut feed).await.as_deref(), Some("+*"), "the rest goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_is_dropped_is_closed_and_its_place_comes_back() {
    let server = RedisServer::start();
    let store = open(&server.url(), |_| {}).await;
    let feed = store.feed(deadline()).await.unwrap();
    let topics = feed.topics.clone();
    topics.follow(&Topic::All).await.unwrap();
    drop(feed);
    assert_eq!((subscribers(&server), server.clients().len()), (1, 2), "somebody may still choose topics");
    drop(topics);
    eventually(SOON, async || server.clients().len() == 1).await;
    at_rest(&store, 0).await;
    assert_eq!((closed(&store, "disconnected"), closed(&store, "unsubscribed")), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_nobody_waits_for_any_more_is_closed() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let store = open(&proxy.url(), |_| {}).await;
    proxy.delay(Duration::from_millis(200));
    let given_up = store.feed(Instant::now() + Duration::from_millis(50)).await;
    assert_eq!(given_up.unwrap_err().kind(), FaultKind::Timeout);
    assert_eq!(store.pool().connecting_connections, 1, "it has its place");
    proxy.heal();
    eventually(SOON, async || closed(&store, "unsubscribed") == 1).await;
    at_rest(&store, 0).await;
}

/// It was begun in an outage, and waited for alone until its five seconds were over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_whose_dial_hangs_is_opened_by_another() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let store = Arc::new(open(&proxy.url(), |_| {}).await);
    let lost = proxy.hold_requests(|_| true);
    let before = proxy.connections_opened();
    let feed = tokio::spawn({
        let store = store.clone();
        async move { store.feed(deadline()).await }
    });
    eventually(SOON, async || proxy.connections_opened() == before + 3).await;
    assert_eq!(store.pool().connecting_connections, 2, "one at a time beside the first");
    proxy.heal();
    let healed = Instant::now();
    let mut feed = feed.await.unwrap().unwrap();
    assert!(healed.elapsed() < Duration::from_millis(1300), "{:?}", healed.elapsed());
    feed.topics.follow(&Topic::All).await.unwrap();
    assert_eq!(next(&mut feed).await.as_deref(), Some("+*"));
    drop(lost);
    at_rest(&store, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_feed_is_an_active_connection() {
    let server = RedisServer::start();
    let store = open(&server.url(), |pool| pool.max_connections = 4).await;
    let feed = store.feed(deadline()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let pool = store.pool();
    assert_eq!((pool.report.active_connections, pool.report.available_connections), (1, 3));
    assert!((pool.report.utilization_percent - 25.0).abs() < 0.1);
    assert_eq!((pool.idle_connections, pool.slots / pool.depth, pool.in_flight), (1, 1, 0), "it is no lane");
    assert_eq!((pool.peak_active_connections, pool.draining_connections), (1, 0));
    assert!(pool.active_connection_seconds_total >= 0.1);
    let opened: u64 = pool.connection_create_seconds.counts.iter().sum();
    assert_eq!(opened, 2);
    drop(feed);
    at_rest(&store, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_one_has_no_feed() {
    let server = RedisServer::start();
    let store = open(&server.url(), |pool| pool.max_connections = 1).await;
    for _ in 0..3 {
        assert_eq!(store.feed(deadline()).await.unwrap_err().kind(), FaultKind::Saturated);
    }
    assert_eq!(server.clients().len(), 1);
    assert_eq!(closed(&store, "made_room"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_is_turned_away_is_counted_and_keeps_the_pace() {
    let server = RedisServer::builder().maxclients(2).start();
    let store = open(&server.url(), |_| {}).await;
    let fault = store.feed(deadline()).await.unwrap_err();
    assert!(matches!(fault.kind(), FaultKind::ClosedInHandshake | FaultKind::MaxClients), "{fault}");
    let pool = store.pool();
    assert_eq!(pool.connection_create_failures_total.values().sum::<u64>(), 1);
    assert_eq!(pool.limit, 1);
    assert_eq!(store.feed(deadline()).await.unwrap_err().kind(), FaultKind::Saturated);
    assert_eq!(store.pool().connection_create_failures_total.values().sum::<u64>(), 1);
}

/// The sockets to a port of 127.0.0.1 that are open or being opened, by inode, as the kernel knows them (proc(5), /proc/net/tcp).
/// The server would also name those that we have closed, until it gets round to reading so.
fn sockets_to(port: u16) -> BTreeSet<String> {
    const ESTABLISHED: &str = "01";
    const SYN_SENT: &str = "02";
    let remote = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let open = fields.filter(|line| line[2] == remote && [ESTABLISHED, SYN_SENT].contains(&line[3]));
    open.map(|line| line[9].to_owned()).collect()
}

/// Lanes and feeds come and go, and are killed, where there are three places.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lanes_and_feeds_together_stay_within_the_maximum() {
    const MAX: usize = 3;
    let server = Arc::new(RedisServer::start());
    let tune = |pool: &mut PoolConfig| {
        (pool.max_connections, pool.depth) = (3, 1);
    };
    let store = Arc::new(open(&server.url(), tune).await);
    let going = Arc::new(AtomicBool::new(true));
    let sampler = thread::spawn({
        let (port, going) = (server.port(), going.clone());
        move || {
            let mut peak = 0;
            while going.load(SeqCst) {
                // Those in both lists were open together between the two; one list is not written in one moment.
                peak = peak.max(sockets_to(port).intersection(&sockets_to(port)).count());
                thread::sleep(Duration::from_millis(1));
            }
            peak
        }
    });
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (store, going) = (store.clone(), going.clone());
            tokio::spawn(async move {
                while going.load(SeqCst) {
                    drop(store.probe(deadline()).await);
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            })
        })
        .collect();
    let (mut opened, mut saturated) = (0, 0);
    for round in 0..400 {
        match store.feed(deadline()).await {
            Ok(mut feed) => {
                opened += 1;
                if feed.topics.follow(&Topic::Grants).await.is_ok() && round % 2 == 0 {
                    server.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                    while next(&mut feed).await.is_some() {}
                }
            }
            Err(fault) if fault.kind() == FaultKind::Saturated => saturated += 1,
            Err(fault) => panic!("{fault}"),
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    going.store(false, SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    let peak = sampler.join().unwrap();
    println!("{opened} feeds, {saturated} times no place, at most {peak} connections");
    assert!(peak <= MAX, "{peak} connections");
    assert!(opened > 50, "{opened} feeds");
    at_rest(&store, 0).await;
    let pool = store.pool();
    let opened: u64 = pool.connection_create_seconds.counts.iter().sum();
    let closed: u64 = pool.connections_closed_total.values().sum();
    assert_eq!(opened - closed, u64::from(pool.slots / pool.depth), "each was counted when it was closed");
}

/// An event is read as the scripts write it, in the server's time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_has_the_time_of_the_server() {
    let server = RedisServer::start();
    let store = open(&server.url(), |_| {}).await;
    let mut feed = store.feed(deadline()).await.unwrap();
    feed.topics.follow(&Topic::All).await.unwrap();
    say(&server, "A", 1);
    assert_eq!(next(&mut feed).await.as_deref(), Some("+*"));
    let Some(News::Said(Event::Taken { occupant, at })) = feed.news.recv().await else { panic!("an event") };
    assert_eq!(micros_of(at), 1_763_700_000_000_000);
    assert_eq!(occupant.expires_at, at + Duration::from_secs(5));
}
