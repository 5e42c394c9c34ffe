//! What an operator does by hand: look who holds what, and free it.

// Outside of the tests' own functions, too, a value that is not there ends the test.
#![allow(clippy::unwrap_used)]

mod hand;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use hand::{Done, Hand};
use spool_lock::{Event, Holder, SpoolLocks, Tag, Ttl};
use support::{
    ClockShim, FaultProxy, RedisServer, free_port,
    proxy::{LostReply, containing},
};

const README: &str = include_str!("../README.md");
const RUNBOOK: &str = include_str!("../../docs/runbooks/who-holds-it.md");
const SECRET: &str = "s3cr3t-W0rd";

fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

fn worker() -> Holder {
    Holder::new("93", "MR(93)").unwrap()
}

async fn hold(locks: &SpoolLocks, name: &str) -> spool_lock::Lease {
    locks.acquire(&tag(name), &worker()).note("ARM").ttl(Ttl::HOUR).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn list_says_who_holds_what_in_columns() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    let none = hand.does(&["list"]).await;
    assert_eq!(none.out, format!("nobody holds a tag of the prefix spool at {}\n", server.url()));
    assert_eq!(
        hand.does(&["list", "--json"]).await.json(),
        serde_json::json!({ "prefix": "spool", "locks": [] })
    );

    let locks = hand.service().await;
    let lease = hold(&locks, "TEST-02").await;
    let guard = locks.guard(&tag("A"), &Holder::new("robot-7", "").unwrap()).await.unwrap();
    let listed = hand.does(&["list"]).await;
    assert_eq!((listed.code, listed.err.as_str()), (0, ""));
    let lines: Vec<_> = listed.out.lines().collect();
    assert_eq!(lines.len(), 3, "{listed:?}");
    let column = lines[0].find("FENCE").unwrap();
    assert!(lines[1].starts_with("A        robot-7    guard"), "{listed:?}");
    assert!(lines[2].starts_with("TEST-02  93 MR(93)  identity") && lines[2].ends_with("ARM"), "{listed:?}");
    assert!(lines[2][column..].starts_with(&lease.fence.to_string()), "{listed:?}");
    assert!(
        lines[2].contains("Z (") && lines[2].contains(" ago)") && lines[2].contains("  59m "),
        "{listed:?}"
    );

    let json = hand.does(&["list", "--json"]).await.json();
    let occupants: Vec<spool_lock::Occupant> = serde_json::from_value(json["locks"].clone()).unwrap();
    assert_eq!(occupants[1].fence, lease.fence);
    assert_eq!((occupants[0].holder.id(), json["locks"][1]["note"].as_str()), ("robot-7", Some("ARM")));
    // Another prefix is another world.
    hand.clone().with("SPOOL_LOCK_PREFIX", "hall-7").does(&["list"]).await.assert(0, &["prefix hall-7"]);
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_says_who_holds_a_tag_or_that_nobody_does() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    let free = hand.does(&["inspect", "TEST-02"]).await;
    assert_eq!((free.code, free.out.as_str()), (0, "TEST-02 is free: nobody holds it\n"));
    let json = hand.does(&["inspect", "TEST-02", "--json"]).await.json();
    assert_eq!(json, serde_json::json!({ "tag": "TEST-02", "occupant": null }));

    let lease = hold(&hand.service().await, "TEST-02").await;
    let held = hand.does(&["inspect", "TEST-02"]).await;
    held.assert(0, &["TEST-02 is held\n", "93 MR(93)\n", "identity\n", "ARM\n", " ago)\n", "(in 59m "]);
    let json = hand.does(&["inspect", "--json", "TEST-02"]).await.json();
    assert_eq!(json["occupant"]["fence"], lease.fence.get());
    assert_eq!(json["occupant"]["holder"], serde_json::json!({ "id": "93", "name": "MR(93)" }));

    // By the clock of the server, which says when a lease ends.
    let shim = ClockShim::build().unwrap();
    shim.shift(-7200);
    let late = RedisServer::builder().clock(&shim).start();
    let hand_there = Hand::at(&late.url());
    hold(&hand_there.service().await, "TEST-02").await;
    hand_there.does(&["inspect", "TEST-02"]).await.assert(0, &["s ago)\n", "(in 59m "]);

    server.cmd(&["SET", "spool:{ODD}:lock", "somebody's"]);
    let odd = hand.does(&["inspect", "ODD"]).await;
    odd.assert(1, &["what stands at the key is not a lock", "force-release"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_says_how_each_grant_ended() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    let none = hand.does(&["history", "TEST-02"]).await;
    none.assert(0, &["nothing is remembered of TEST-02", "no history is kept", "SPOOL_LOCK_HISTORY=on"]);
    let json = hand.does(&["history", "TEST-02", "--json"]).await.json();
    assert_eq!(json, serde_json::json!({ "tag": "TEST-02", "is_kept": false, "grants": [] }));

    let hand = hand.with("SPOOL_LOCK_HISTORY", "on");
    hand.does(&["history", "TEST-02"]).await.assert(0, &["it was not granted in the last 7days"]);
    let locks = hand.service().await;
    let lease = hold(&locks, "TEST-02").await;
    locks.release_lease(&lease).await.unwrap();
    hold(&locks, "TEST-02").await;
    let order = ["force-release", "TEST-02", "--by", "MR(7)", "--why", "left for the day"];
    hand.does(&order).await.assert(0, &["in the history of the tag"]);
    hold(&locks, "TEST-02").await;
    let told = hand.does(&["history", "TEST-02"]).await;
    let ends = ["released 2", "released by force 2", "still held"];
    assert_eq!(told.code, 0);
    for (line, end) in told.out.lines().skip(1).zip(ends) {
        assert!(line.contains(end) && line.contains("93 MR(93)  identity"), "{told:?}");
    }
    told.assert(0, &["by MR(7): left for the day"]);
    let json = hand.does(&["history", "TEST-02", "--json"]).await.json();
    let grants: Vec<spool_lock::PastLease> = serde_json::from_value(json["grants"].clone()).unwrap();
    assert_eq!((grants.len(), &grants[2].end, &json["is_kept"]), (3, &None, &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn force_release_ends_the_lock_and_says_whose_it_was() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    let locks = hand.service().await;
    let mut watch = locks.watch_tag(&tag("TEST-02")).await.unwrap();
    let lease = hold(&locks, "TEST-02").await;
    let order = ["force-release", "TEST-02", "--by", "MR(7)", "--why", "left for the day"];
    let done = hand.does(&order).await;
    done.assert(
        0,
        &[
            "TEST-02 is released; it was held\n",
            "93 MR(93)",
            "done by MR(7) (left for the day)",
            "no history",
        ],
    );
    // The line of the log has who and why.
    assert!(
        done.err.contains("a lock was released by force") && done.err.contains("left for the day"),
        "{done:?}"
    );
    assert!(locks.inspect(&tag("TEST-02")).await.unwrap().value.is_none());
    let forced = async {
        loop {
            if let Event::Forced { occupant, by, why, .. } = &*watch.next().await.unwrap() {
                break (occupant.fence, by.clone(), why.clone());
            }
        }
    };
    let forced = tokio::time::timeout(Duration::from_secs(5), forced).await.unwrap();
    assert_eq!(forced, (lease.fence, "MR(7)".to_owned(), "left for the day".to_owned()));
    hold(&locks, "TEST-02").await;
    let json = hand.does(&[&order[..], &["--json"]].concat()).await.json();
    assert_eq!((&json["was"]["holder"]["id"], &json["by"]), (&"93".into(), &"MR(7)".into()));
    assert_eq!(json["is_in_history"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_released_by_force_without_a_name_and_a_reason() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    let locks = hand.service().await;
    hold(&locks, "TEST-02").await;
    for (args, said) in [
        (&["--by", "MR(7)"][..], "--why"),
        (&["--why", "left"], "--by"),
        (&["--by", " ", "--why", "left"], "--by is blank"),
        (&["--by", "MR(7)", "--why", "\t"], "--why is blank"),
    ] {
        let done = hand.does(&[&["force-release", "TEST-02"], args].concat()).await;
        done.assert(2, &[said]);
    }
    assert!(locks.inspect(&tag("TEST-02")).await.unwrap().value.is_some());
    let none = hand.does(&["force-release", "TEST-03", "--by", "MR(7)", "--why", "left"]).await;
    none.assert(1, &["nobody holds TEST-03", "spool-lock-exporter list"]);
    let none = hand.does(&["force-release", "TEST-03", "--by", "MR(7)", "--why", "left", "--json"]).await;
    assert_eq!((none.code, &none.json()["error"]["kind"]), (1, &"not_held".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_ends_with_two_and_says_what_would_be_right() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    for (args, said) in [
        (&["inspect", ""][..], "1 to 200 bytes"),
        (&["inspect", "a\nb"], "control character U+000A"),
        (&["inspect"], "<TAG>"),
        (&["history", &"x".repeat(201)], "at most 200"),
        (&["list", "TEST-02"], "unexpected argument"),
        (&["lsit"], "'lsit'"),
        (&["canary"], "--once"),
        (&["canary", "--once", "--timeout", "1h"], "100ms to 1m"),
        (&["canary", "--once", "--tag", ""], "1 to 200 bytes"),
        (&["--log.level=debug", "list"], "cannot be used"),
    ] {
        hand.does(args).await.assert(2, &[said]);
    }
    let json = hand.does(&["inspect", "", "--json"]).await;
    assert_eq!((json.code, &json.json()["error"]["kind"]), (2, &"usage".into()));
    for (variable, value, said) in [
        ("SPOOL_LOCK_URL", "memory://", "redis://"),
        ("SPOOL_LOCK_DEPTH", "0", "1 to 1024 can"),
        ("SPOOL_LOCK_TLS_CA_FILE", "/no/such/file", "it cannot be read"),
    ] {
        for order in [&["list"][..], &["doctor"], &["canary", "--once"]] {
            hand.clone().with(variable, value).does(order).await.assert(2, &[variable, said]);
        }
    }
}

/// The environment is that of a service; what only a service does with it is not done.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_environment_of_a_service_can_be_used() {
    let server = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("picker.sock");
    let hand = Hand::at(&server.url())
        .with("SPOOL_LOCK_SNAPSHOT", &format!("unix:{}", socket.display()))
        .with("SPOOL_LOCK_LIMIT_PER_TAG", "1/1h")
        .with("SPOOL_LOCK_WAIT", "10s")
        .with("SPOOL_EXPORTER_REDIS_URL", "redis://127.0.0.1:1");
    hand.does(&["list"]).await.assert(0, &[]);
    hand.does(&["canary", "--once"]).await.assert(0, &[]);
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_is_said_with_its_words_and_what_to_do() {
    let hand = Hand::at(&format!("redis://127.0.0.1:{}", free_port()));
    let orders: [&[&str]; 4] = [
        &["list"],
        &["inspect", "TEST-02"],
        &["history", "TEST-02"],
        &["force-release", "TEST-02", "--by", "MR(7)", "--why", "left"],
    ];
    for order in orders {
        let done = hand.does(order).await;
        done.assert(1, &["Connection refused", "start Redis"]);
        assert!(done.out.is_empty() && done.took < Duration::from_secs(4), "{done:?}");
        let done = hand.does(&[order, &["--json"]].concat()).await;
        assert_eq!((done.code, &done.json()["error"]["kind"]), (1, &"connect".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_that_was_not_finished_in_time_says_how_to_give_it_more() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    proxy.drop_replies(usize::MAX, LostReply::Swallow, containing("{*}:lock"));
    let hand =
        Hand::at(&proxy.url()).with("SPOOL_LOCK_DEADLINE", "300ms").with("SPOOL_LOCK_RETRY_ATTEMPTS", "1");
    let done = hand.does(&["list"]).await;
    done.assert(1, &["redis did not answer in time", "SPOOL_LOCK_DEADLINE=60s"]);
}

/// Nobody who looks on at a full server makes it fuller.
#[tokio::test(flavor = "multi_thread")]
async fn no_order_has_more_than_two_connections() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    hold(&hand.service().await, "TEST-02").await;
    let received = || server.info("stats")["total_connections_received"].parse::<u64>().unwrap();
    for order in
        [&["doctor"][..], &["list"], &["inspect", "TEST-02"], &["history", "TEST-02"], &["canary", "--once"]]
    {
        let before = received();
        hand.does(order).await;
        let opened = received() - before;
        assert!(opened <= 2, "{order:?} opened {opened}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_nothing_that_is_said() {
    let server = RedisServer::builder().password(SECRET).start();
    hold(&Hand::at(&server.url()).service().await, "TEST-02").await;
    let orders: [&[&str]; 6] = [
        &["doctor"],
        &["list"],
        &["inspect", "TEST-02"],
        &["history", "TEST-02"],
        &["canary", "--once"],
        &["force-release", "TEST-02", "--by", "MR(7)", "--why", "left"],
    ];
    let right = server.url();
    let wrong = format!("redis://:{SECRET}{SECRET}@127.0.0.1:{}", server.port());
    let unknown = format!("redis://{SECRET}:{SECRET}@127.0.0.1:{}", server.port());
    let nowhere = format!("redis://:{SECRET}@127.0.0.1:{}", free_port());
    let no_url = format!("http://:{SECRET}@127.0.0.1");
    for url in [&right, &wrong, &nowhere, &no_url, &unknown] {
        let hand = Hand::at(url);
        for order in orders {
            for form in [&[][..], &["--json"]] {
                let done = hand.does(&[order, form].concat()).await;
                assert!(!done.text().is_empty(), "{order:?}");
                // The name of a user is none.
                let said =
                    done.text().replace(&format!("user {SECRET}"), "").replace(&format!("\"{SECRET}\""), "");
                assert!(!said.contains(SECRET), "{url}, {order:?}: {done:?}");
            }
        }
        let help = hand.does(&["list", "--help"]).await;
        assert!(!help.text().contains(SECRET));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_in_the_help_and_in_the_readme_with_its_json_fields() {
    let server = RedisServer::start();
    let hand = Hand::at(&server.url());
    let help = hand.does(&["--help"]).await.out;
    hold(&hand.service().await, "TEST-02").await;
    let orders: [&[&str]; 6] = [
        &["doctor", "--json"],
        &["list", "--json"],
        &["inspect", "TEST-02", "--json"],
        &["history", "TEST-02", "--json"],
        &["force-release", "TEST-02", "--by", "MR(7)", "--why", "left", "--json"],
        &["canary", "--once", "--json"],
    ];
    for order in orders {
        let name = order[0];
        assert!(help.contains(&format!("\n  {name} ")), "{name} is not in the help");
        let row = README.lines().find(|line| line.starts_with(&format!("| `{name}")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the README"));
        let json = hand.does(order).await.json();
        for field in json.as_object().unwrap().keys() {
            assert!(row.contains(&format!("`{field}`")), "`{field}` of {name} is not in the README");
        }
        let help = hand.does(&[name, "--help"]).await;
        help.assert(0, &["SPOOL_LOCK_URL", "SPOOL_LOCK_PREFIX", "--json"]);
    }
}

/// An operator at night types what stands there.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_runbook_works_as_it_stands() {
    let server = RedisServer::builder().arg("appendonly", "yes").start();
    let hand = Hand::at(&server.url()).with("SPOOL_LOCK_HISTORY", "on");
    let locks = hand.service().await;
    let blocks = RUNBOOK.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines: Vec<_> = blocks.flat_map(str::lines).collect();
    assert!(lines.len() >= 5, "{lines:?}");
    let mut done = Vec::new();
    for line in lines {
        if locks.inspect(&tag("TEST-02")).await.unwrap().value.is_none() && !line.contains("history") {
            hold(&locks, "TEST-02").await;
        }
        let outcome: Done = hand.types(line).await;
        assert_eq!(outcome.code, 0, "{line}: {outcome:?}");
        done.push(
            line.split_whitespace()
                .find(|word| !word.contains('=') && *word != "spool-lock-exporter")
                .unwrap(),
        );
    }
    for command in ["list", "inspect", "history", "force-release", "doctor"] {
        assert!(done.contains(&command), "the page does not use {command}");
    }
}
