//! Redis is asked over one connection that is kept, and seen from the server's side there is never another one.

// Outside of the tests' own functions, too, a value that is not there ends the test.
#![allow(clippy::unwrap_used)]

mod stage;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use stage::Exporter;
use support::{Answer, FaultProxy, RedisServer, ScriptedServer, eventually, free_port};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

#[tokio::test(flavor = "multi_thread")]
async fn one_kept_connection() {
    let redis = RedisServer::start();
    let exporter = Exporter::ready(&["--redis.url", &redis.url()]).await;
    let received = || redis.info("stats")["total_connections_received"].clone();
    let before = received();
    for _ in 0..200 {
        exporter.scrape().await.assert("spool_redis_up", 1.0);
    }
    let clients = redis.clients();
    assert_eq!(clients.len(), 1, "{clients:?}");
    assert_eq!(clients[0]["name"], "spool-lock-exporter");

    let exporter = std::sync::Arc::new(exporter);
    let mut scrapes = JoinSet::new();
    for _ in 0..50 {
        let exporter = exporter.clone();
        scrapes.spawn(async move { exporter.scrape().await.assert("spool_redis_up", 1.0) });
    }
    while let Some(scrape) = scrapes.join_next().await {
        scrape.unwrap();
    }
    assert_eq!(redis.clients().len(), 1);
    assert_eq!(received(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_filled_up_later_is_still_seen() {
    let redis = RedisServer::builder().maxclients(10).start();
    let exporter = Exporter::ready(&["--redis.url", &redis.url()]).await;
    // With the test's own and the exporter's this is ten, and the rest is turned away.
    let crowd = crowd(&redis, 8);
    for _ in 0..3 {
        assert!(redis::Client::open(redis.url()).unwrap().get_connection().is_err());
    }
    let page = exporter.scrape().await;
    page.assert("spool_redis_up", 1.0);
    page.assert("spool_redis_connected_clients", 10.0);
    page.assert("spool_redis_connections_limit", 10.0);
    page.assert("spool_redis_rejected_connections_total", 3.0);
    drop(crowd);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_full_before_says_max_clients_until_there_is_a_place() {
    let redis = RedisServer::builder().maxclients(10).start();
    let crowd = crowd(&redis, 9);
    let exporter = Exporter::ready(&["--redis.url", &redis.url()]).await;
    exporter.scrape().await.assert_redis_down("max_clients");
    drop(crowd);
    eventually(Duration::from_secs(5), async || exporter.scrape().await.value("spool_redis_up") == Some(1.0))
        .await;
    assert_eq!(redis.clients().len(), 1);
}

fn crowd(redis: &RedisServer, count: usize) -> Vec<redis::Connection> {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut crowd: Vec<_> = (0..count).map(|_| client.get_connection().unwrap()).collect();
    for connection in &mut crowd {
        redis::cmd("PING").exec(connection).unwrap();
    }
    crowd
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_freeze_there_is_one_connection_again() {
    let redis = RedisServer::start();
    let exporter = Exporter::ready(&["--redis.url", &redis.url()]).await;
    redis.stop();
    for _ in 0..3 {
        exporter.scrape().await.assert_redis_down("timeout");
    }
    redis.cont();
    eventually(Duration::from_secs(5), async || exporter.scrape().await.value("spool_redis_up") == Some(1.0))
        .await;
    eventually(Duration::from_secs(2), async || redis.clients().len() == 1).await;
    for _ in 0..20 {
        exporter.scrape().await.assert("spool_redis_up", 1.0);
        assert_eq!(redis.clients().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_got_no_answer_is_closed_before_the_next_is_opened() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::before(&redis);
    let exporter = Exporter::ready(&["--redis.url", &proxy.url(), "--scrape.timeout=200ms"]).await;
    proxy.blackhole();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        exporter.scrape().await.assert_redis_down("timeout");
        assert!(proxy.connections_open() <= 1, "{} are open", proxy.connections_open());
    }
    assert!(proxy.connections_opened() >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_or_a_kill_costs_no_scrape() {
    let redis = RedisServer::start();
    let exporter = Exporter::ready(&["--redis.url", &redis.url()]).await;
    let start = exporter.scrape().await.value("spool_redis_start_time_seconds").unwrap();
    sleep(Duration::from_millis(1100)).await;
    redis.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    exporter.scrape().await.assert("spool_redis_up", 1.0);
    sleep(Duration::from_millis(1100)).await;
    redis.restart();
    let page = exporter.scrape().await;
    page.assert("spool_redis_up", 1.0);
    assert!(page.value("spool_redis_start_time_seconds").unwrap() > start);
    assert_eq!(redis.clients().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dials_are_at_least_a_second_apart() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::before(&redis);
    proxy.blackhole();
    let exporter = Exporter::start(&["--redis.url", &proxy.url(), "--scrape.timeout=100ms"]).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        exporter.scrape().await.assert_redis_down("timeout");
    }
    let dials = proxy.dials();
    assert!((3..=5).contains(&dials.len()), "{dials:?}");
    for pair in dials.windows(2) {
        assert!(pair[1] - pair[0] > Duration::from_millis(950), "{dials:?}");
    }
    assert!(proxy.connections_open() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flag_overrules_the_servers_own_limit() {
    let redis = RedisServer::builder().maxclients(25).start();
    let exporter = Exporter::ready(&["--redis.url", &redis.url(), "--redis.connection-limit=20"]).await;
    let assert_limit = |page: stage::Page| {
        page.assert("spool_redis_connections_limit", 20.0);
        page.assert(r#"spool_redis_connections_limit_info{source="flag"}"#, 1.0);
        assert_eq!(page.value(r#"spool_redis_connections_limit_info{source="info"}"#), None);
    };
    assert_limit(exporter.scrape().await);
    redis.kill9();
    assert_limit(exporter.scrape().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_is_told_apart() {
    let protected = RedisServer::builder().password("right").start();
    let no_password = format!("redis://127.0.0.1:{}", protected.port());
    reason_is("auth", &no_password).await;
    reason_is("auth", &url_file("redis://:wrong@127.0.0.1", protected.port())).await;
    reason_is("refused", &format!("redis://127.0.0.1:{}", free_port())).await;
    reason_is("refused", "redis+unix:///no/such/redis.sock").await;

    let scripted = ScriptedServer::start();
    scripted.on("INFO", Answer::bulk("# Persistence\r\nloading:1\r\n"));
    reason_is("loading", &scripted.url()).await;
    scripted.on("INFO", Answer::close());
    reason_is("io", &scripted.url()).await;
    scripted.on("INFO", Answer::silence());
    reason_is("timeout", &scripted.url()).await;
    scripted.on("INFO", Answer::line("-NOPERM this user has no permissions to run the 'info' command"));
    reason_is("auth", &scripted.url()).await;
}

async fn reason_is(reason: &str, url: &str) {
    let exporter = match url.strip_prefix("file:") {
        Some(path) => Exporter::ready(&["--redis.url-file", path]).await,
        None => Exporter::ready(&["--redis.url", url]).await,
    };
    exporter.scrape().await.assert_redis_down(reason);
}

/// A file that holds a URL with a password; it stays until the machine forgets its temporary files.
fn url_file(url: &str, port: u16) -> String {
    let (_, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
    std::fs::write(&path, format!("{url}:{port}\n")).unwrap();
    format!("file:{}", path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_from_a_file_opens_the_door() {
    let redis = RedisServer::builder().password("s3cret").start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    std::fs::write(&file, redis.url()).unwrap();
    let exporter = Exporter::ready(&["--redis.url-file", file.to_str().unwrap()]).await;
    exporter.scrape().await.assert("spool_redis_up", 1.0);
}

/// An operator who may only ask still gets a page: the name of the connection is a courtesy.
#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_ask_info_is_enough() {
    let redis = RedisServer::start();
    redis.cmd(&["ACL", "SETUSER", "exporter", "on", ">pw", "+info"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    std::fs::write(&file, format!("redis://exporter:pw@127.0.0.1:{}", redis.port())).unwrap();
    let exporter = Exporter::ready(&["--redis.url-file", file.to_str().unwrap()]).await;
    exporter.scrape().await.assert("spool_redis_up", 1.0);
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_fails_is_told_apart_from_a_connection_that_breaks() {
    let files = support::TlsFiles::generate();
    let unknown = RedisServer::builder().tls(&files).start();
    reason_is("tls", &unknown.url()).await;
    let plain = RedisServer::start();
    // Redis takes the handshake for the beginning of a command and waits for the rest.
    reason_is("timeout", &format!("rediss://127.0.0.1:{}", plain.port())).await;
    reason_is("refused", &format!("rediss://127.0.0.1:{}", free_port())).await;
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
#[test]
fn a_build_without_tls_says_so() {
    use spool_lock_exporter::RedisUrl;
    let error = "rediss://127.0.0.1".parse::<RedisUrl>().expect_err("no TLS is built in");
    assert!(error.contains("tls-ring"), "{error}");
}
