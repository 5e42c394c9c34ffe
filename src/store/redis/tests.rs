//! The suite of both stores, at a real server.

use super::*;
use crate::store::{pool::PoolConfig, suite};

#[path = "../../../tests/support/mod.rs"]
pub(super) mod support;

use suite::{LIVING, ask, assert_short, give, holder_id, occupant, stand as wait, tag, take};
use support::{RedisServer, eventually};

suite::behaviours!(stand);

const SOON: Duration = Duration::from_secs(5);

/// A server of its own, and processes on it.
fn stand() -> impl AsyncFn(Rules) -> RedisStore {
    let server = RedisServer::start();
    async move |rules| open(&server.url(), rules).await
}

pub(super) async fn open(url: &str, rules: Rules) -> RedisStore {
    open_with(url, rules, &PoolConfig::default()).await
}

pub(super) async fn open_with(url: &str, rules: Rules, pool: &PoolConfig) -> RedisStore {
    let settings = Settings {
        rules,
        url,
        ca: None,
        prefix: "spool",
        fence_kept: Duration::from_secs(60),
        deadline: Duration::from_secs(5),
        pool,
    };
    RedisStore::connect(settings, Arc::new(LockMeter::default())).await.unwrap()
}

/// A key of the tag of the suite.
fn name(part: &str) -> String {
    format!("spool:{{{}}}:{part}", tag())
}

#[tokio::test]
async fn a_strange_key_in_place_of_the_queue_stops_nobody() {
    let server = RedisServer::start();
    let (a, b) = (open(&server.url(), LIVING).await, open(&server.url(), LIVING).await);
    let [queue, asks] = ["queue", "asks"].map(name);
    for spoil in
        [["SET", &queue, "x"].as_slice(), &["SET", &asks, "x"], &["HSET", &asks, b.grants.as_str(), "x"]]
    {
        let lease = take(&a, &ask("a")).await;
        wait(&b, &ask("b")).await;
        if spoil[0] == "SET" {
            server.cmd(&["DEL", spoil[1]]);
        }
        server.cmd(spoil);
        give(&a, &lease).await;
        assert_eq!(holder_id(&a).await, "", "{spoil:?}");
        take(&a, &ask("a")).await;
        a.force_release(&tag(), "ops", "stuck", Instant::now() + Duration::from_secs(5)).await.unwrap();
        assert_eq!(holder_id(&a).await, "", "{spoil:?}");
        server.cmd(&["DEL", &queue, &asks]);
    }
}

/// As a clock that was set back leaves them: an hour ahead.
#[tokio::test]
async fn no_grant_outlasts_the_time_for_which_its_process_ever_counted_as_living() {
    let server = RedisServer::start();
    let a = open(&server.url(), LIVING).await;
    let lease = take(&a, &ask("a")).await;
    wait(&a, &ask("b")).await;
    let ahead = a.now_micros() + 3_600_000_000;
    let entry: String = server.query(&["HGET", &name("asks"), &a.grants]);
    let entry = format!("{ahead}{}{}", ahead + 30_000_000, &entry[32..]);
    server.cmd(&["HSET", &name("asks"), &a.grants, &entry]);
    give(&a, &lease).await;
    assert_short(&occupant(&a, &tag()).await.unwrap());
}

#[tokio::test]
async fn a_release_that_is_expected_waits_behind_nothing_else() {
    let server = RedisServer::start();
    let pool = PoolConfig { max_connections: 3, depth: 1, ..PoolConfig::default() };
    let store = Arc::new(open_with(&server.url(), LIVING, &pool).await);
    let seen = async |wanted: [u32; 3]| {
        eventually(SOON, async || {
            let pool = store.pool();
            let open = pool.report.active_connections + pool.idle_connections;
            if [open, pool.in_flight, pool.waiting] == wanted { Ok(()) } else { Err(pool) }
        })
        .await;
    };
    let lease = take(&*store, &ask("a")).await;
    store.keep_lane(true);
    seen([2, 0, 0]).await;
    // The server answers each of them when there is something to pop.
    let mut pop = redis::cmd("BLPOP");
    pop.arg("stuck").arg(0);
    let stuck = [(); 3].map(|()| {
        let (store, pop) = (store.clone(), pop.clone());
        tokio::spawn(async move { store.pool.call(|_| pop, Way::Ordinary, Instant::now() + SOON).await })
    });
    seen([3, 2, 1]).await;
    give(&*store, &lease).await;
    seen([3, 2, 1]).await;
    assert_eq!(server.clients().len(), 3);
    store.keep_lane(false);
    seen([3, 3, 0]).await;
    server.cmd(&["RPUSH", "stuck", "1", "2", "3"]);
    for call in stuck {
        call.await.unwrap().unwrap();
    }
}

/// Takes a lane until there is something to pop.
fn stick(store: &Arc<RedisStore>, list: &'static str) -> tokio::task::JoinHandle<()> {
    let store = store.clone();
    tokio::spawn(async move {
        let mut pop = redis::cmd("BLPOP");
        pop.arg(list).arg(0);
        store.pool.call(|_| pop, Way::Ordinary, Instant::now() + SOON).await.unwrap();
    })
}

/// The kind of fault that a ping of `patience` meets, and how long it took.
async fn ping(store: &RedisStore, patience: Duration) -> (Option<FaultKind>, Duration) {
    let asked = Instant::now();
    let answer = store.ping(asked + patience).await;
    (answer.err().map(|fault| fault.kind()), asked.elapsed())
}

#[tokio::test]
async fn a_silent_server_misses_its_ping_at_the_deadline() {
    let patience = Duration::from_millis(300);
    let server = RedisServer::start();
    let store = open(&server.url(), LIVING).await;
    assert_eq!(ping(&store, patience).await.0, None);
    server.stop();
    let (kind, spent) = ping(&store, patience).await;
    assert_eq!(kind, Some(FaultKind::Timeout));
    assert!((patience..patience + Duration::from_millis(100)).contains(&spent), "{spent:?}");
    server.cont();
    assert_eq!(ping(&store, SOON).await.0, None);
    let pool = store.pool();
    assert!(pool.connections_closed_total.values().all(|closed| *closed == 0), "it evicts nothing: {pool:?}");
    assert_eq!(server.clients().len(), 1, "and opens nothing");
}

#[tokio::test]
async fn a_ping_goes_over_another_connection_than_the_silent_one() {
    let server = RedisServer::start();
    let pool = PoolConfig { max_connections: 2, depth: 1, ..PoolConfig::default() };
    let store = Arc::new(open_with(&server.url(), LIVING, &pool).await);
    assert_eq!(store.silence(), Duration::ZERO);
    let first = stick(&store, "first");
    eventually(SOON, async || store.pool().in_flight == 1).await;
    let began = Instant::now();
    let short = Duration::from_millis(200);
    assert_eq!(ping(&store, short).await.0, Some(FaultKind::Timeout), "it is behind the silent call");
    assert!(store.silence() >= began.elapsed(), "{:?}", store.silence());

    let second = stick(&store, "second");
    eventually(SOON, async || store.pool().in_flight == 2).await;
    server.cmd(&["RPUSH", "second", "1"]);
    second.await.unwrap();
    assert_eq!(ping(&store, short).await.0, None);
    assert!(store.silence() >= began.elapsed() - short, "that of the first goes on");
    server.cmd(&["RPUSH", "first", "1"]);
    first.await.unwrap();
    assert_eq!(store.silence(), Duration::ZERO);
}

#[tokio::test]
async fn a_ping_says_what_the_server_answers_and_whether_there_is_a_connection() {
    let server = RedisServer::start();
    let store = open(&server.url(), LIVING).await;
    server.cmd(&["ACL", "SETUSER", "default", "-ping"]);
    assert_eq!(ping(&store, SOON).await.0, Some(FaultKind::Permission));
    server.stop();
    let ((kind, _), ()) = tokio::join!(ping(&store, SOON), async { server.kill9() });
    assert_eq!(kind, Some(FaultKind::Disconnected));
    eventually(SOON, async || store.pool().slots == 0).await;
    assert_eq!(ping(&store, SOON).await.0, Some(FaultKind::Connect));
}
