//! The doctor finds what keeps a server from keeping locks, says what mends it, and has nothing to say of a healthy one.

// Outside of the tests' own functions, too, a value that is not there ends the test.
#![allow(clippy::unwrap_used)]

mod hand;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use hand::Hand;
use serde_json::Value;
use spool_lock::Config;
use support::{
    Answer, ClockShim, FaultProxy, RedisServer, ScriptedServer, eventually, free_port,
    proxy::{LostReply, named},
    server::ServerBuilder,
};

/// A server of which nothing is wrong.
fn clean() -> ServerBuilder {
    RedisServer::builder().arg("appendonly", "yes")
}

fn names(json: &Value) -> Vec<&str> {
    json["findings"].as_array().unwrap().iter().map(|finding| finding["name"].as_str().unwrap()).collect()
}

/// Exactly this is found, in both forms, with what mends it.
async fn assert_finds(hand: &Hand, name: &str, said: &str, mend: &str) {
    let done = hand.does(&["doctor", "--json"]).await;
    let json = done.json();
    assert_eq!((done.code, names(&json)), (1, vec![name]), "{done:?}");
    assert_eq!(json["is_well"], false);
    let finding = &json["findings"][0];
    assert!(finding["message"].as_str().unwrap().contains(said), "{said:?} is not in {finding}");
    assert!(finding["mend"].as_str().unwrap().contains(mend), "{mend:?} is not in {finding}");

    let done = hand.does(&["doctor"]).await;
    done.assert(1, &[]);
    let line = done.out.lines().find(|line| line.starts_with(&format!("{name}: ")));
    let line = line.unwrap_or_else(|| panic!("a line for {name}: {done:?}"));
    assert!(
        line.contains(said) && line.contains(&format!(" -> {}", finding["mend"].as_str().unwrap())),
        "{line}"
    );
    assert!(!done.out.contains("all is well"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_server_is_said_to_be_well_within_a_second() {
    let server = clean().start();
    let hand = Hand::at(&server.url());
    let done = hand.does(&["doctor"]).await;
    done.assert(0, &["all is well", "noeviction", "append-only file on", "all 27 are granted", "master"]);
    assert!(done.took < Duration::from_secs(1), "{:?}", done.took);
    let done = hand.does(&["doctor", "--json"]).await;
    assert!(done.took < Duration::from_secs(1), "{:?}", done.took);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let json = done.json();
    assert_eq!((&json["is_well"], names(&json).len()), (&true.into(), 0));
    assert_eq!((&json["role"], &json["user"]), (&"master".into(), &"default".into()));
    assert!(json["clock_offset_seconds"].as_f64().unwrap().abs() < 5.0);
    assert_eq!(json["persistence"]["append_only_file"], true);
    // Two connections, one after the other, were all it took, and nothing was written.
    assert_eq!(server.query::<u64>(&["DBSIZE"]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_may_evict_locks_is_found() {
    let server = clean().arg("maxmemory-policy", "volatile-lru").start();
    let mend = "CONFIG SET maxmemory-policy noeviction";
    assert_finds(&Hand::at(&server.url()), "eviction_policy", "volatile-lru", mend).await;
    server.cmd(&mend.split(' ').collect::<Vec<_>>());
    Hand::at(&server.url()).does(&["doctor"]).await.assert(0, &["all is well"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_the_pool_is_found() {
    let server = clean().maxclients(15).start();
    let hand = Hand::at(&server.url());
    assert_finds(
        &hand,
        "client_limit",
        "maxclients is 15, below our max_connections of 20",
        "CONFIG SET maxclients",
    )
    .await;
    hand.with("SPOOL_LOCK_MAX_CONNECTIONS", "10").does(&["doctor"]).await.assert(0, &["all is well"]);
}

/// The pool of a service that runs has its connections already; they are not counted as somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_the_pool_and_what_others_use_is_found() {
    let server = clean().maxclients(25).start();
    let hand = Hand::at(&server.url());
    let service = hand.service().await;
    let others = || redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    // The test's own is one of them.
    let mut five: Vec<_> = (0..4).map(|_| others()).collect();
    hand.does(&["doctor"])
        .await
        .assert(0, &["all is well", "4 from 127.0.0.1", "1 spool-lock:spool", "1 test-admin"]);
    five.push(others());
    let said = "others use 6 of them, which leaves 19 for a pool of 20";
    assert_finds(&hand, "client_room", said, "CONFIG SET maxclients 26 or more").await;
    let json = hand.does(&["doctor", "--json"]).await.json();
    let clients = json["connections"]["clients"].as_array().unwrap();
    assert!(
        clients.contains(&serde_json::json!({ "name": null, "address": "127.0.0.1", "count": 5 })),
        "{json}"
    );
    assert!(
        clients.contains(&serde_json::json!({ "name": "spool-lock:spool", "address": null, "count": 1 }))
    );
    assert_eq!((&json["connections"]["limit"], &json["connections"]["wanted"]), (&25.into(), &20.into()));
    drop((service, five));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_to_evalsha_is_found() {
    let server = clean().start();
    server.cmd(&["ACL", "SETUSER", "picker", "on", ">sesame", "~*", "&*", "+@all", "-evalsha"]);
    let hand = Hand::at(&format!("redis://picker:sesame@127.0.0.1:{}", server.port()));
    assert_finds(&hand, "scripts_denied", "evalsha", "ACL SETUSER picker +evalsha").await;
    hand.does(&["doctor"]).await.assert(1, &["not granted: +evalsha\n"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_without_the_right_to_see_the_servers_age_is_found() {
    let server = clean().start();
    server.cmd(&["ACL", "SETUSER", "picker", "on", ">sesame", "~*", "&*", "+@all", "-info"]);
    let hand = Hand::at(&format!("redis://picker:sesame@127.0.0.1:{}", server.port()));
    let done = hand.with("SPOOL_LOCK_RESTART_GRACE", "1m").does(&["doctor", "--json"]).await;
    let json = done.json();
    assert_eq!(
        (done.code, names(&json)),
        (1, vec!["info_denied", "restart_grace", "scripts_denied"]),
        "{done:?}"
    );
    for finding in json["findings"].as_array().unwrap() {
        assert_eq!(finding["mend"], "ACL SETUSER picker +info");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_found_and_its_master_named() {
    let primary = clean().start();
    let replica = clean().replica_of(&primary).start();
    let mend = format!("127.0.0.1:{}", primary.port());
    assert_finds(&Hand::at(&replica.url()), "replica", "every write is refused", &mend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_an_hour_off_is_found() {
    for seconds in [3600, -3600] {
        let shim = ClockShim::build().unwrap();
        shim.shift(seconds);
        let server = clean().clock(&shim).start();
        let said = format!("{seconds:+} s off ours");
        assert_finds(&Hand::at(&server.url()), "clock_offset", &said, "timedatectl").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_persistence_is_found() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    assert_finds(&hand, "no_append_only_file", "appendonly is off", "CONFIG SET appendonly yes").await;
    hand.does(&["doctor"]).await.assert(1, &["append-only file off; never saved as a whole"]);
    server.cmd(&["CONFIG", "SET", "save", "3600 1"]);
    hand.does(&["doctor"]).await.assert(1, &["saved as a whole at 3600 1 (seconds, changes)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_failed_is_found() {
    let server = clean().start();
    // The dump cannot replace a directory.
    let dir: Vec<String> = server.query(&["CONFIG", "GET", "dir"]);
    std::fs::create_dir(format!("{}/dump.rdb", dir[1])).unwrap();
    eventually(Duration::from_secs(10), async || {
        let _ = server.try_query::<String>(&["BGSAVE"]);
        server.info("persistence")["rdb_last_bgsave_status"] == "err"
    })
    .await;
    assert_finds(&Hand::at(&server.url()), "save_failed", "could not save its data", "INFO persistence")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_findings_are_told_one_a_line() {
    let server = RedisServer::builder().maxclients(15).arg("maxmemory-policy", "allkeys-lru").start();
    let done = Hand::at(&server.url()).does(&["doctor"]).await;
    done.assert(1, &["CONFIG REWRITE"]);
    let found = done.out.lines().filter(|line| line.contains(" -> ")).count();
    assert_eq!(found, 3, "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_cannot_be_reached_is_one_clear_finding() {
    let gone = Hand::at(&format!("redis://127.0.0.1:{}", free_port()));
    assert_finds(&gone, "connect", "no connection to redis could be opened", "SPOOL_LOCK_URL").await;
    let done = gone.does(&["doctor"]).await;
    assert!(done.out.lines().count() <= 5 && !done.out.contains("unknown"), "{done:?}");

    let server = clean().password("sesame").start();
    let stranger = Hand::at(&format!("redis://:wrong@127.0.0.1:{}", server.port()));
    assert_finds(&stranger, "auth", "redis refused the credentials", "password into SPOOL_LOCK_URL").await;

    let loading = ScriptedServer::start();
    for command in ["TIME", "EVAL", "EVALSHA"] {
        loading.on(command, Answer::line("-LOADING Redis is loading the dataset in memory"));
    }
    assert_finds(&Hand::at(&loading.url()), "loading", "redis is loading its data", "wait until").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_silent_is_told_within_seconds() {
    let server = clean().start();
    let proxy = FaultProxy::before(&server);
    proxy.blackhole();
    let done = Hand::at(&proxy.url()).does(&["doctor", "--json"]).await;
    assert_eq!((done.code, names(&done.json())), (1, vec!["timeout"]), "{done:?}");
    assert!(done.took < Duration::from_secs(6), "{:?}", done.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_looked_at_is_not_called_well() {
    let server = clean().start();
    let proxy = FaultProxy::before(&server);
    // The doctor's own connection is the first that asks.
    proxy.drop_replies(1, LostReply::Swallow, named("INFO"));
    let done = Hand::at(&proxy.url()).does(&["doctor", "--json"]).await;
    let json = done.json();
    assert_eq!(
        (done.code, names(&json), &json["version"]),
        (1, vec!["look_failed"], &Value::Null),
        "{done:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_is_told() {
    let server = clean().maxclients(10).start();
    let client = redis::Client::open(server.url()).unwrap();
    let crowd: Vec<_> = (0..9).map(|_| client.get_connection().unwrap()).collect();
    let done = Hand::at(&server.url()).does(&["doctor", "--json"]).await;
    let json = done.json();
    assert_eq!(done.code, 1);
    assert!(["closed_in_handshake", "max_clients"].contains(&names(&json)[0]), "{json}");
    assert!(json["findings"][0]["mend"].as_str().unwrap().contains("CONFIG SET maxclients"), "{json}");
    drop(crowd);
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_tls_is_looked_at_by_its_own_authority() {
    let files = support::TlsFiles::generate();
    let server = clean().tls(&files).start();
    let hand = Hand::at(&server.url());
    let trusting = hand.clone().with("SPOOL_LOCK_TLS_CA_FILE", files.ca().to_str().unwrap());
    trusting.does(&["doctor"]).await.assert(0, &["all is well", "1 spool-lock-exporter:doctor"]);
    assert_finds(&hand, "tls", "the TLS handshake with redis failed", "SPOOL_LOCK_TLS_CA_FILE").await;
}

/// Whoever is granted what the line says can lock, and the doctor finds nothing; with one word less it finds that.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_acl_line_grants_is_enough_and_each_word_that_is_missing_is_found() {
    let server = clean().start();
    let hand = Hand::at(&server.url()).with("SPOOL_LOCK_HISTORY", "on").with("SPOOL_LOCK_PREFIX", "hall-7");
    let json = hand.does(&["doctor", "--json"]).await.json();
    let line = json["acl"]["line"].as_str().unwrap().replace("NAME", "picker").replace("PASSWORD", "sesame");
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(words[..4], ["user", "picker", "on", ">sesame"], "{line}");
    let url = format!("redis://picker:sesame@127.0.0.1:{}", server.port());
    let picker = Hand::at(&url).with("SPOOL_LOCK_HISTORY", "on").with("SPOOL_LOCK_PREFIX", "hall-7");
    let grant = |rules: &[&str]| {
        server.cmd(&[&["ACL", "SETUSER", "picker", "reset", "on", ">sesame"], rules].concat());
    };
    let rules = &words[4..];
    grant(rules);
    let done = picker.does(&["doctor"]).await;
    done.assert(
        0,
        &["all is well", "all 30 are granted", "lacks +config|get +client|list", "by whom is unknown"],
    );
    picker.does(&["canary", "--once"]).await.assert(0, &[]);

    for missing in rules {
        grant(&rules.iter().copied().filter(|rule| rule != missing).collect::<Vec<_>>());
        let done = picker.does(&["doctor", "--json"]).await;
        let json = done.json();
        assert_eq!(done.code, 1, "{missing}: {done:?}");
        let found = json["findings"].as_array().unwrap();
        let mend = found.iter().map(|finding| finding["mend"].as_str().unwrap());
        let mend = mend.filter(|mend| mend.starts_with("ACL SETUSER picker ")).collect::<Vec<_>>();
        let mend = mend.into_iter().find(|mend| mend.split(' ').any(|rule| rule == *missing));
        let mend = mend.unwrap_or_else(|| panic!("nothing grants {missing}: {json}"));
        server.cmd(&mend.split(' ').collect::<Vec<_>>());
        let done = picker.does(&["doctor"]).await;
        assert_eq!(done.code, 0, "{missing} was mended by {mend}: {done:?}");
    }
}

/// What cannot be known without the keys is granted with them: one round of commands is enough.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_lacks_nearly_everything_is_granted_it_at_once() {
    let server = clean().start();
    let hand = Hand::at(&format!("redis://picker:sesame@127.0.0.1:{}", server.port()));
    for rules in [&["+eval", "+evalsha", "+time", "+scan"][..], &["+time"], &[]] {
        server.cmd(&[&["ACL", "SETUSER", "picker", "reset", "on", ">sesame"], rules].concat());
        let json = hand.does(&["doctor", "--json"]).await.json();
        for finding in json["findings"].as_array().unwrap() {
            let mend = finding["mend"].as_str().unwrap();
            assert!(mend.starts_with("ACL SETUSER picker "), "{finding}");
            server.cmd(&mend.split(' ').collect::<Vec<_>>());
        }
        hand.does(&["doctor"]).await.assert(0, &["all is well"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_is_said_to_be_granted_missing_or_not_known() {
    let server = clean().start();
    let hand = Hand::at(&format!("redis://picker:sesame@127.0.0.1:{}", server.port()));
    let granted = async |rules: &[&str], rule: &str| {
        server.cmd(&[&["ACL", "SETUSER", "picker", "reset", "on", ">sesame"], rules].concat());
        let json = hand.does(&["doctor", "--json"]).await.json();
        let rights = json["acl"]["rights"].as_array().unwrap().clone();
        rights.into_iter().find(|right| right["rule"] == rule).unwrap()["is_granted"].clone()
    };
    let all = Config::default().rights();
    let all: Vec<_> = all.iter().map(|right| right.rule.as_str()).collect();
    let without = |missing: &str| all.iter().copied().filter(|rule| *rule != missing).collect::<Vec<_>>();
    assert_eq!(granted(&all, "+get").await, true);
    assert_eq!(granted(&without("+get"), "+get").await, false);
    // Who may touch no key is refused every command on one.
    let keyless = without("~spool:*");
    assert_eq!(granted(&keyless, "~spool:*").await, false);
    assert_eq!(granted(&keyless, "+get").await, Value::Null);
    assert_eq!(granted(&keyless, "+time").await, true);
    // Without scripts the rest cannot be asked.
    let mute = without("+eval");
    assert_eq!(granted(&mute, "+eval").await, false);
    assert_eq!(granted(&mute, "+evalsha").await, true);
    assert_eq!(granted(&mute, "+get").await, Value::Null);
    // A wider pattern is not enough for PSUBSCRIBE.
    let wide: Vec<_> = without("&spool:events:*").into_iter().chain(["&spool:*"]).collect();
    assert_eq!(granted(&wide, "&spool:events:*").await, false);
}
