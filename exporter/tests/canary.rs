//! The canary takes a lock as a service would, and says at which stage that failed.

// Outside of the tests' own functions, too, a value that is not there ends the test.
#![allow(clippy::unwrap_used)]

mod hand;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use hand::Hand;
use serde_json::Value;
use spool_lock::{Holder, Tag, Ttl};
use support::{FaultProxy, RedisServer, free_port, proxy::containing};

const ONCE: [&str; 2] = ["canary", "--once"];
const ONCE_JSON: [&str; 3] = ["canary", "--once", "--json"];

/// The stages, with the kind of what went wrong.
fn stages(json: &Value) -> Vec<(&str, Option<&str>)> {
    let stages = json["stages"].as_array().unwrap().iter();
    stages.map(|stage| (stage["stage"].as_str().unwrap(), stage["error"]["kind"].as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_takes_a_lock_and_gives_it_back() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url()).with("SPOOL_LOCK_HISTORY", "on");
    let done = hand.does(&ONCE).await;
    done.assert(
        0,
        &["connect", "acquire", "verify", "release", "gone", " ms  done", "a lock could be acquired"],
    );
    assert_eq!(done.out.lines().count(), 6);
    let done = hand.does(&ONCE_JSON).await;
    let json = done.json();
    let all = ["connect", "acquire", "verify", "release", "gone"].map(|stage| (stage, None));
    assert_eq!((done.code, stages(&json)), (0, all.to_vec()));
    assert_eq!((&json["is_well"], &json["tag"]), (&true.into(), &"canary".into()));
    assert!(json["took_ms"].as_f64().unwrap() > 0.0);
    // What it says of the fence is what Redis remembers of the last grant.
    let locks = hand.service().await;
    let past = locks.history(&Tag::new("canary").unwrap()).await.unwrap().value;
    assert_eq!((past.len(), json["fence"].as_u64()), (2, Some(past[1].occupant.fence.get())));
    assert!(past.iter().all(|past| past.end.is_some()), "{past:?}");
    let ttl = past[0].occupant.expires_at.duration_since(past[0].occupant.since).unwrap();
    assert!(ttl <= Duration::from_secs(10), "{ttl:?}");
    let other = hand.does(&["canary", "--once", "--tag", "canary-hall-7", "--json"]).await;
    assert_eq!(other.json()["tag"], "canary-hall-7");
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_at_once_wait_for_each_other() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    let (one, other, third) =
        tokio::join!(hand.does(&ONCE_JSON), hand.does(&ONCE_JSON), hand.does(&ONCE_JSON));
    let mut fences = [one, other, third].map(|done| {
        assert_eq!(done.code, 0, "{done:?}");
        done.json()["fence"].as_u64().unwrap()
    });
    fences.sort_unstable();
    assert!(fences[0] < fences[1] && fences[1] < fences[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_waits_until_a_lock_that_somebody_has_is_free() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    let (locks, tag) = (hand.service().await, Tag::new("canary").unwrap());
    let somebody = Holder::new("93", "").unwrap();
    let lease = locks.acquire(&tag, &somebody).ttl(Ttl::HOUR).await.unwrap();
    let done = hand.does(&["canary", "--once", "--timeout", "600ms", "--json"]).await;
    let json = done.json();
    assert_eq!(
        (done.code, stages(&json)),
        (1, vec![("connect", None), ("acquire", Some("contended"))]),
        "{done:?}"
    );
    assert!(json["stages"][1]["error"]["message"].as_str().unwrap().contains("held by 93"), "{json}");
    assert!(done.took < Duration::from_secs(2), "{:?}", done.took);

    let (done, released) = tokio::join!(hand.does(&ONCE_JSON), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        locks.release_lease(&lease).await
    });
    released.unwrap();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.json()["stages"][1]["took_ms"].as_f64().unwrap() > 100.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_cannot_connect_or_is_refused_says_so() {
    let gone = Hand::at(&format!("redis://127.0.0.1:{}", free_port()));
    let done = gone.does(&ONCE).await;
    done.assert(1, &["failed at the stage connect", "Connection refused"]);
    assert_eq!(stages(&gone.does(&ONCE_JSON).await.json()), [("connect", Some("connect"))]);

    let full = RedisServer::start();
    full.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    let json = Hand::at(&full.url()).does(&ONCE_JSON).await.json();
    assert_eq!(stages(&json), [("connect", None), ("acquire", Some("out_of_memory"))]);
}

/// Redis is killed when the canary asks who holds the lock that it has just been granted.
#[tokio::test(flavor = "multi_thread")]
async fn a_canary_whose_server_dies_on_the_way_says_at_which_stage() {
    let server = RedisServer::start();
    // So that the server has learned the scripts, and each call is one request.
    Hand::at(&server.url()).does(&ONCE).await.assert(0, &[]);
    let proxy = FaultProxy::before(&server);
    let (about_canary, asked) = (containing("{canary}:lock"), AtomicUsize::new(0));
    let second = proxy
        .hold_requests(move |request| about_canary(request) && asked.fetch_add(1, Ordering::SeqCst) == 1);
    let hand = Hand::at(&proxy.url());
    let order = ["canary", "--once", "--json", "--timeout", "1s"];
    let (done, ()) = tokio::join!(hand.does(&order), async {
        second.caught(1).await;
        server.kill9();
    });
    let json = done.json();
    assert_eq!(done.code, 1);
    let stages = stages(&json);
    assert_eq!((stages[0], stages[1]), (("connect", None), ("acquire", None)), "{json}");
    assert!(stages[2].0 == "verify" && stages[2].1.is_some(), "{json}");
    assert_eq!((&json["is_well"], &json["fence"]), (&false.into(), &Value::Null));
    assert!(done.took < Duration::from_secs(3), "{:?}", done.took);
}

/// Somebody ends the canary's lock by force and takes it, before the canary looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_canary_whose_lock_somebody_else_has_by_then_is_not_well() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    hand.does(&ONCE).await.assert(0, &[]);
    let (locks, tag) = (hand.service().await, Tag::new("canary").unwrap());
    let proxy = FaultProxy::before(&server);
    let (about_canary, asked) = (containing("{canary}:lock"), AtomicUsize::new(0));
    let second = proxy
        .hold_requests(move |request| about_canary(request) && asked.fetch_add(1, Ordering::SeqCst) == 1);
    let through_proxy = Hand::at(&proxy.url());
    let (done, fence) = tokio::join!(through_proxy.does(&ONCE_JSON), async {
        second.caught(1).await;
        locks.force_release(&tag, "MR(7)", "test").await.unwrap();
        let lease = locks.acquire(&tag, &Holder::new("93", "").unwrap()).await.unwrap();
        second.release();
        lease.fence
    });
    let json = done.json();
    assert_eq!((done.code, stages(&json)[2]), (1, ("verify", Some("not_held"))), "{json}");
    assert!(json["stages"][2]["error"]["message"].as_str().unwrap().contains(&fence.to_string()), "{json}");
    // And it has not taken it from them.
    assert_eq!(locks.inspect(&tag).await.unwrap().value.unwrap().fence, fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_before_a_silent_server_ends_in_time() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    proxy.blackhole();
    let done = Hand::at(&proxy.url()).does(&["canary", "--once", "--timeout", "500ms", "--json"]).await;
    assert_eq!((done.code, stages(&done.json())), (1, vec![("connect", Some("timeout"))]));
    assert!(done.took < Duration::from_secs(2), "{:?}", done.took);
}
