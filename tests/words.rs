//! Tags, ttls and the words of the JSON: what is written is what was meant, and what cannot be meant is not sent.

#![cfg(all(feature = "memory", feature = "serde"))]

mod support;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config as Runs, TestRunner},
};
use serde_json::Value;
use spool_lock::{
    Acquire, AcquireAll, AcquireAllError, AcquireError, AcquireGuard, Circuit, CircuitWatch, Claim, Config,
    ConfigError, Connect, ConnectError, ConnectionState, Event, Extend, ExtendError, Fault, Fence,
    ForceReleaseError, GuardReleaseError, GuardState, GuardWatch, Health, HealthStatus, Holder, Lease,
    LockGuard, LockLost, Mode, Occupant, PastLease, PoolReport, ReadError, Reading, Release, ReleaseError,
    RequestId, Snapshot, SpoolLocks, Stats, Tag, Token, Ttl, Watch,
};
use support::RedisServer;

async fn connect(url: &str) -> SpoolLocks {
    let config = Config::new(url).expect("the address is right");
    SpoolLocks::connect(config).await.expect("the server is healthy")
}

fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a tag")
}

fn worker() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

/// Text made of what could confuse keys, and of anything that may be in a tag.
fn nasty() -> impl Strategy<Value = String> {
    prop_oneof![
        "[{}%:|0-9A-F]{1,12}",
        "(lock|fence|queue|\\}:lock|:\\{|%7B|%7D|%25|%|[a-c]|spool){1,6}",
        "\\PC{1,40}",
        "[*?\\[\\]\\\\^ '\"]{1,6}",
    ]
}

#[tokio::test]
async fn two_tags_never_share_a_key_on_the_server() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let mut runner = TestRunner::deterministic();
    let mut tags = BTreeSet::from(
        ["a", "A", "a ", "a:lock", "a}:lock", "%", "%25", "%2525", "{", "%7B", "{a}", "é", "e\u{301}"]
            .map(tag),
    );
    while tags.len() < 400 {
        let text = nasty().new_tree(&mut runner).expect("the strategy makes a tag").current();
        tags.extend(Tag::new(&text));
    }
    let mut released = BTreeSet::new();
    for tag in &tags {
        let lease = locks.acquire(tag, &worker()).note(tag.as_str().get(..20).unwrap_or("")).await.unwrap();
        assert_eq!(locks.inspect(tag).await.unwrap().value.map(|it| it.fence), Some(lease.fence), "{tag:?}");
    }
    let mut keys: BTreeSet<Vec<u8>> = server.query::<Vec<Vec<u8>>>(&["KEYS", "*"]).into_iter().collect();
    // It is nobody's tag, and there if this has taken a second.
    keys.retain(|key| !key.starts_with(b"spool:{}:witness:"));
    assert_eq!(keys.len(), 2 * tags.len(), "a lock and a fence each");

    // One hash slot for all keys of a tag, and no tag that ends its hash tag early.
    let mut slots: HashMap<Vec<u8>, u32> = HashMap::new();
    for key in &keys {
        let key = std::str::from_utf8(key).expect("tags are text");
        let (prefix, rest) = key.split_once(":{").expect("a hash tag begins");
        assert_eq!((prefix, rest.matches('{').count(), rest.matches('}').count()), ("spool", 0, 1), "{key}");
        let hash_tag = rest.split('}').next().unwrap_or_default();
        *slots.entry(hash_tag.into()).or_default() += 1;
    }
    assert!(slots.len() == tags.len() && slots.values().all(|keys| *keys == 2));

    // One tag's end is no other's.
    let listed: Vec<_> = locks.list().await.unwrap().value.into_iter().map(|it| it.tag).collect();
    assert_eq!(listed, tags.iter().cloned().collect::<Vec<_>>());
    for tag in tags.iter().step_by(2) {
        locks.release(tag, &worker()).await.unwrap();
        released.insert(tag.clone());
    }
    let left: BTreeSet<_> = locks.list().await.unwrap().value.into_iter().map(|it| it.tag).collect();
    assert_eq!(left, tags.difference(&released).cloned().collect());
}

#[tokio::test]
async fn prefixes_do_not_see_each_other() {
    let server = RedisServer::start();
    let prefixes = ["spool", "spoo", "spool:", "spool:a", "s", "S.pool_-", "spool:{"];
    let mut fronts = Vec::new();
    for prefix in prefixes {
        let mut config = Config::new(&server.url()).unwrap();
        config.prefix = prefix.to_owned();
        match SpoolLocks::connect(config).await {
            Ok(locks) => fronts.push(locks),
            Err(error) => assert!(prefix.contains('{'), "{error}"),
        }
    }
    assert_eq!(fronts.len(), prefixes.len() - 1);
    for locks in &fronts {
        assert_eq!(locks.list().await.unwrap().value, [], "others' locks are not listed");
        locks.acquire(&tag("TEST-02"), &worker()).await.unwrap();
        assert_eq!(locks.list().await.unwrap().value.len(), 1);
        locks.acquire(&tag("a:{TEST-02}"), &worker()).await.unwrap();
        locks.release(&tag("a:{TEST-02}"), &worker()).await.unwrap();
        locks.release(&tag("TEST-02"), &worker()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_tag_is_refused_before_the_network() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let commands = || -> u64 {
        let stats = server.commandstats();
        stats
            .iter()
            .filter(|(name, _)| *name != "info")
            .map(|(_, stat)| stat.calls + stat.rejected_calls)
            .sum()
    };
    let before = commands();
    let long = |bytes: usize| "x".repeat(bytes);
    let bad = [
        String::new(),
        "a\nb".into(),
        "\n".into(),
        "a\0b".into(),
        "\r".into(),
        "\t".into(),
        "\u{7f}".into(),
        "\u{80}".into(),
        "\u{9f}".into(),
        "\u{1b}[2J".into(),
        long(201),
        long(64 * 1024),
        "ü".repeat(101),
    ];
    for text in &bad {
        let why = Tag::new(text).unwrap_err().to_string();
        assert!(why.starts_with("tag ") && why.len() < 100, "{why}");
        assert!(text.parse::<Tag>().is_err() && Tag::try_from(text.clone()).is_err());
        assert!(serde_json::from_value::<Tag>(Value::String(text.clone())).is_err());
        assert!(Holder::new(text, "").is_err());
        assert!(text.is_empty() || Holder::new("93", text).is_err());
        let holder = serde_json::json!({ "id": text, "name": "" });
        assert!(serde_json::from_value::<Holder>(holder).is_err());
        if !text.is_empty() {
            let acquired = locks.acquire(&tag("TEST-02"), &worker()).note(text).await;
            assert!(matches!(acquired, Err(AcquireError::InvalidNote(_))), "{acquired:?}");
        }
    }
    assert_eq!(commands(), before, "the server heard of none of it");
    for text in [long(1), long(200), "ü".repeat(100)] {
        let lease = locks.acquire(&tag(&text), &worker()).note(&text).await.unwrap();
        locks.release_lease(&lease).await.unwrap();
    }
    assert!(commands() > before, "the counting counts");
}

#[tokio::test]
async fn a_ttl_is_exact_or_refused() {
    for bad in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_micros(999),
        Duration::from_micros(1_001),
        Ttl::MAX.duration() + Duration::from_millis(1),
        Duration::from_millis(1 << 32),
        Duration::from_millis(1 << 53),
        Duration::from_secs(1 << 53),
        Duration::MAX,
    ] {
        assert!(Ttl::new(bad).is_err(), "{bad:?}");
        assert!(Ttl::try_from(bad).is_err(), "{bad:?}");
    }
    for text in ["0s", "0ms", "31days", "1us", "1500us", "292years", "-1s", "1", ""] {
        assert!(text.parse::<Ttl>().is_err(), "{text:?}");
    }
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    for (place, millis) in
        [2_u64, 999, 1_000, 1_001, 60_000, 3_600_000, (1 << 31) - 1, 1 << 31, 2_592_000_000]
            .into_iter()
            .enumerate()
    {
        let ttl = Ttl::new(Duration::from_millis(millis)).unwrap();
        let tag = tag(&format!("ttl-{place}"));
        let lease = locks.acquire(&tag, &worker()).ttl(ttl).await.unwrap();
        assert_eq!(lease.expires_at.duration_since(lease.since).unwrap(), Duration::from_millis(millis));
        if millis > 60_000 {
            let ends: u64 = server.query(&["PEXPIRETIME", &format!("spool:{{{tag}}}:lock")]);
            let since = lease.since.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
            let late = u128::from(ends - millis) - since;
            assert!(late <= 20, "{millis} ms became {late} ms more");
        }
    }
    assert_eq!((Ttl::MIN.to_string(), Ttl::MAX.to_string()), ("1ms".into(), "30days".into()));
    assert_eq!("30days".parse::<Ttl>().unwrap(), Ttl::MAX);
}

/// A service moves these between its tasks and threads.
#[test]
fn futures_are_send_and_types_are_shared() {
    fn send<T: Send>(_: T) {}
    fn shared<T: Send + Sync + 'static>() {}
    shared::<SpoolLocks>();
    shared::<(Config, Claim, Watch, Event)>();
    shared::<(LockGuard, GuardWatch, GuardState, LockLost, GuardReleaseError)>();
    shared::<(Tag, Holder, Lease, Occupant, PastLease, Ttl, Token, RequestId, Fence)>();
    shared::<(Stats, Snapshot, Health, PoolReport, Reading<Option<Occupant>>)>();
    shared::<(Fault, AcquireError, AcquireAllError, ExtendError, ReleaseError)>();
    shared::<(Circuit, CircuitWatch)>();
    shared::<(ForceReleaseError, ReadError, ConnectError, ConfigError)>();

    // Never run: the compiler is what is asked.
    let _ = |locks: &'static SpoolLocks, lease: &'static Lease, claim: Claim, watch: &'static mut Watch| {
        let (tag, holder) = (&lease.tag, &lease.holder);
        let acquire: Acquire<'_> = locks.acquire(tag, holder);
        let acquire_all: AcquireAll<'_> = locks.acquire_all(&[], holder);
        let extend: Extend<'_> = locks.extend(tag, holder, Ttl::HOUR);
        let release: Release<'_> = locks.release_lease(lease);
        send(acquire.into_future());
        send(acquire_all.into_future());
        send(extend.into_future());
        send(release.into_future());
        // The builders too, before they are awaited.
        send(locks.acquire(tag, holder));
        send(locks.acquire_all(&[], holder));
        send(locks.extend(tag, holder, Ttl::HOUR));
        send(locks.release(tag, holder));
        send(locks.release_lease(lease));
        let connect: Connect = SpoolLocks::connect(Config::default());
        send(connect.into_future());
        send(SpoolLocks::connect(Config::default()));
        send(locks.restore(&[]));
        send(locks.extend(tag, holder, Ttl::HOUR).shorten().into_future());
        send(locks.force_release(tag, "", ""));
        send(locks.inspect(tag));
        send(locks.list());
        send(locks.history(tag));
        send(locks.watch());
        send(locks.watch_tag(tag));
        send(locks.health());
        send(claim.settled());
        send(watch.next());
    };
    let _ = |locks: &'static SpoolLocks, lease: &'static Lease, guard: &'static LockGuard| {
        let one: AcquireGuard<'_> = locks.guard(&lease.tag, &lease.holder);
        let all: AcquireGuard<'_, &[Tag]> = locks.guard_all(&[], &lease.holder);
        send(one.into_future());
        send(all.into_future());
        send(locks.guard(&lease.tag, &lease.holder));
        send(locks.guard_all(&[], &lease.holder));
        send(guard.lost());
        send(guard.protect(std::future::ready(())));
    };
    let _ = |guard: LockGuard, watch: &'static mut GuardWatch| {
        send(guard.release());
        send(watch.next());
    };
    let _ = |watch: &'static mut CircuitWatch| {
        send(watch.changed());
    };
}

#[tokio::test]
async fn calls_run_in_spawned_tasks() {
    let locks = connect("memory://").await;
    let task = tokio::spawn(async move {
        let (tag, worker) = (tag("TEST-02"), worker());
        let lease = locks.acquire(&tag, &worker).await?;
        locks.extend(&tag, &worker, Ttl::HOUR).await.expect("it is held");
        locks.release_lease(&lease).await.expect("it is held");
        locks.health().await;
        Ok::<_, AcquireError>(locks.list().await.expect("memory answers").value.len())
    });
    assert_eq!(task.await.unwrap().unwrap(), 0);
}

/// The pool as operators know it from the incident: the first document of the incident report, 2026-02-02.
const POOL: &str = r#"
{ "max_connections": 20, "active_connections": 8, "available_connections": 12,
  "utilization_percent": 40.0, "status": "healthy", "alert": null, "timestamp": "2026-02-02T11:05:00Z" }
"#;

/// The health report that tells the truth: the second document, with the first one in its place.
const HEALTH: &str = r#"
{ "status": "degraded", "operational": false, "sheets_connection": "ok", "redis_connection": "error",
  "timestamp": "2026-02-02T11:05:00Z",
  "details": { "redis_error": "max number of clients reached", "redis_pool_stats": { "...": "as above" } } }
"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("the document is JSON")
}

fn health_document() -> Value {
    let mut document = json(HEALTH);
    document["details"]["redis_pool_stats"] = json(POOL);
    document
}

/// Every key of `document` with its value is in `ours`; `ours` may have more.
#[track_caller]
fn assert_says_all_of(ours: &Value, document: &Value) {
    match document {
        Value::Object(fields) => {
            for (name, value) in fields {
                let Some(our_value) = ours.get(name) else { panic!("{name} is missing in {ours}") };
                assert_says_all_of(our_value, value);
            }
        }
        _ => assert_eq!(ours, document),
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn the_pool_report_is_the_document_of_the_incident() {
    let document = json(POOL);
    let report: PoolReport = serde_json::from_value(document.clone()).unwrap();
    assert_eq!((report.max_connections, report.utilization_percent), (20, 40.0));
    let ours = serde_json::to_value(&report).unwrap();
    assert_says_all_of(&ours, &document);
    assert_eq!(keys(&ours), keys(&document), "and nothing else");

    let mut alarmed = document;
    alarmed["status"] = "unhealthy".into();
    alarmed["alert"] = "HIGH_UTILIZATION".into();
    let report: PoolReport = serde_json::from_value(alarmed.clone()).unwrap();
    assert_says_all_of(&serde_json::to_value(&report).unwrap(), &alarmed);
}

#[test]
fn the_health_report_is_the_document_of_the_incident() {
    let document = health_document();
    let health: Health = serde_json::from_value(document.clone()).unwrap();
    assert_eq!((health.status, health.operational), (HealthStatus::Degraded, false));
    assert_eq!(health.connections["sheets_connection"], ConnectionState::Ok);
    let ours = serde_json::to_value(&health).unwrap();
    assert_says_all_of(&ours, &document);
    assert_eq!(keys(&ours), keys(&document), "and nothing else");
    // The incident's own words are the words of the fault.
    assert_eq!(spool_lock::FaultKind::MaxClients.to_string(), "max number of clients reached");
    assert_eq!(health.details.mode, Mode::Normal, "a report of before there were modes");
    let healed = health.with_connection("redis", ConnectionState::Ok);
    assert_eq!(healed.status, HealthStatus::Healthy, "judged by what is known now");
}

#[tokio::test]
async fn live_stats_and_health_have_the_form_of_the_documents() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let stats = serde_json::to_value(locks.stats()).unwrap();
    assert!(keys(&stats).is_superset(&keys(&json(POOL))), "{stats}");
    assert_eq!((&stats["max_connections"], &stats["alert"]), (&20.into(), &Value::Null));
    assert_eq!(stats["utilization_percent"], 0.0);

    let all_well = locks.health().await.with_connection("sheets", ConnectionState::Ok);
    let ours = serde_json::to_value(&all_well).unwrap();
    assert_says_all_of(
        &ours,
        &serde_json::json!({ "status": "healthy", "operational": true, "redis_connection": "ok",
            "sheets_connection": "ok", "details": { "redis_pool_stats": { "status": "healthy" } } }),
    );
    assert!(ours["details"].get("redis_error").is_none(), "nothing is wrong");
    assert_eq!(serde_json::from_value::<Health>(ours).unwrap().status, HealthStatus::Healthy);

    server.kill9();
    let degraded = locks.health().await.with_connection("sheets", ConnectionState::Ok);
    let ours = serde_json::to_value(&degraded).unwrap();
    let mut document = health_document();
    assert_eq!(keys(&ours), keys(&document));
    document["details"]["mode"] = "unreachable".into();
    assert_eq!(keys(&ours["details"]), keys(&document["details"]));
    let pool = &ours["details"]["redis_pool_stats"];
    assert_eq!(keys(pool), keys(&document["details"]["redis_pool_stats"]));
    for volatile in ["timestamp", "details"] {
        document.as_object_mut().unwrap().remove(volatile);
    }
    assert_says_all_of(&ours, &document);
    let both_down = degraded.with_connection("sheets", ConnectionState::Error);
    assert_eq!(both_down.status, HealthStatus::Unhealthy);
}

proptest! {
    #![proptest_config(Runs::with_cases(200))]

    #[test]
    fn a_tag_survives_json(text in nasty()) {
        if let Ok(tag) = Tag::new(&text) {
            let json = serde_json::to_string(&tag).unwrap();
            prop_assert_eq!(serde_json::from_str::<Tag>(&json).unwrap(), tag.clone());
            prop_assert_eq!(tag.as_str(), text);
        }
    }

    #[test]
    fn any_text_is_a_tag_or_refused_by_the_rule(text in "\\PC{0,60}|.{0,210}") {
        let fits = (1..=200).contains(&text.len()) && !text.chars().any(char::is_control);
        prop_assert_eq!(Tag::new(&text).is_ok(), fits);
    }

    #[test]
    fn any_duration_is_a_ttl_or_refused_by_the_rule(nanos in prop_oneof![0..5_000_000_u64, any::<u64>()]) {
        let duration = Duration::from_nanos(nanos);
        let fits = nanos % 1_000_000 == 0 && duration >= Ttl::MIN.duration() && duration <= Ttl::MAX.duration();
        prop_assert_eq!(Ttl::new(duration).ok().map(Ttl::duration), fits.then_some(duration));
        let whole = Duration::from_millis(nanos % 2_592_000_000 + 1);
        prop_assert_eq!(Ttl::new(whole).unwrap().duration(), whole);
    }
}
