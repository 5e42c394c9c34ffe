//! One scrape is one fresh look at every source, in bounded time, whatever the sources do.

// Outside of the tests' own functions, too, a value that is not there ends the test.
#![allow(clippy::unwrap_used)]

mod stage;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{io::Write, process::Stdio, time::Duration};

use stage::{Exporter, Manner, SNAPSHOT, Service, answer};
use support::RedisServer;
use tokio::{net::UnixListener, task::JoinSet, time::Instant};

/// The budget of 1 s, and what a machine with other work to do needs around it.
const LIMIT: Duration = Duration::from_millis(1300);

#[tokio::test(flavor = "multi_thread")]
async fn a_page_tells_of_the_service_of_redis_and_of_the_exporter() {
    let (redis, service) = (RedisServer::builder().maxclients(25).start(), Service::well());
    let exporter = Exporter::ready(&[&service.arg(), "--redis.url", &redis.url()]).await;
    let page = exporter.scrape().await;
    page.assert(r#"spool_up{service="picker"}"#, 1.0);
    page.assert(r#"spool_pool_connections_max{service="picker",pool="default"}"#, 20.0);
    page.assert(r#"spool_service_info{service="picker",version="0.1.0"}"#, 1.0);
    page.assert("spool_redis_up", 1.0);
    // The test's own connection, and the exporter's.
    page.assert("spool_redis_connected_clients", 2.0);
    page.assert("spool_redis_connections_limit", 25.0);
    page.assert(r#"spool_redis_connections_limit_info{source="info"}"#, 1.0);
    page.assert(r#"spool_redis_instance_info{role="master",redis_version="7.0.15"}"#, 1.0);
    page.assert(r#"spool_redis_maxmemory_policy_info{policy="noeviction"}"#, 1.0);
    for collector in ["redis", "service"] {
        page.assert(&format!("spool_exporter_collector_success{{collector=\"{collector}\"}}"), 1.0);
    }
    page.assert("spool_exporter_snapshot_schema_errors_total", 0.0);
    page.assert(&format!("spool_exporter_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0);
    for metric in spool_lock::metrics::catalogue() {
        assert!(page.has(metric.name), "{} is nowhere", metric.name);
    }
    assert!(page.text.len() <= 40_000, "{} bytes", page.text.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_watched_is_not_shown() {
    let service = Service::well();
    let page = Exporter::ready(&[&service.arg()]).await.scrape().await;
    assert!(page.has("spool_up") && !page.text.contains("redis"), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_scrape_takes_longer_than_1300_ms_whatever_is_frozen() {
    for (redis_frozen, service_frozen) in [(true, false), (false, true), (true, true)] {
        let redis = RedisServer::start();
        let service = if service_frozen { Service::silent() } else { Service::well() };
        let exporter = Exporter::ready(&[&service.arg(), "--redis.url", &redis.url()]).await;
        if redis_frozen {
            redis.stop();
        }
        // The first round finds the connection kept, the second finds it dropped.
        for round in ["kept", "dropped"] {
            let scrapes = (0..50).map(|_| exporter.scrape());
            for page in all(scrapes).await {
                assert!(page.took < LIMIT, "{:?} with redis {round}", page.took);
                page.assert(r#"spool_up{service="picker"}"#, f64::from(u8::from(!service_frozen)));
                assert_eq!(page.has("spool_pool_connections"), !service_frozen);
                match redis_frozen {
                    true => page.assert_redis_down("timeout"),
                    false => page.assert("spool_redis_up", 1.0),
                }
                let success =
                    |collector| format!("spool_exporter_collector_success{{collector=\"{collector}\"}}");
                page.assert(&success("redis"), f64::from(u8::from(!redis_frozen)));
                page.assert(&success("service"), f64::from(u8::from(!service_frozen)));
            }
        }
        redis.cont();
    }
}

/// Runs futures at the same time, on this task.
async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut is_done = true;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    futures.into_iter().map(|(_, output)| output.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_down_leaves_the_service_metrics() {
    let (redis, service) = (RedisServer::start(), Service::well());
    let exporter = Exporter::ready(&[&service.arg(), "--redis.url", &redis.url()]).await;
    exporter.scrape().await.assert("spool_redis_up", 1.0);
    redis.kill9();
    // First that the connection broke; that nobody listens is known from the next dial, a second after the last.
    for reason in ["io", "refused", "refused"] {
        let page = exporter.scrape().await;
        page.assert_redis_down(reason);
        page.assert(r#"spool_up{service="picker"}"#, 1.0);
        page.assert(r#"spool_pool_connections_limit{service="picker",pool="default"}"#, 20.0);
        assert!(page.took < Duration::from_millis(500), "{:?}", page.took);
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn service_down_says_up_0_and_drops_its_families() {
    let (redis, mut service) = (RedisServer::start(), Service::well());
    let exporter = Exporter::ready(&[&service.arg(), "--redis.url", &redis.url()]).await;
    assert!(exporter.scrape().await.has("spool_lock_operations_total"));
    service.kill().await;
    let page = exporter.scrape().await;
    page.assert(r#"spool_up{service="picker"}"#, 0.0);
    page.assert("spool_redis_up", 1.0);
    page.assert(r#"spool_exporter_collector_success{collector="service"}"#, 0.0);
    for family in ["spool_pool_connections", "spool_lock_operations_total", "spool_service_info"] {
        assert!(!page.has(family), "{family} is still there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_come_and_go_under_a_pattern() {
    let mut service = Service::well();
    let pattern = format!("--service=unix:{}/*.sock", service.folder().display());
    let exporter = Exporter::ready(&[&pattern]).await;
    exporter.scrape().await.assert(r#"spool_up{service="picker"}"#, 1.0);

    let second = service.folder().join("packer.sock");
    let listener = UnixListener::bind(&second).unwrap();
    let page = exporter.scrape().await;
    page.assert(r#"spool_up{service="picker"}"#, 1.0);
    page.assert(r#"spool_up{service="packer"}"#, 0.0);

    drop(listener);
    std::fs::remove_file(second).unwrap();
    service.kill().await;
    let page = exporter.scrape().await;
    page.assert(r#"spool_up{service="picker"}"#, 0.0);
    assert_eq!(page.value(r#"spool_up{service="packer"}"#), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_can_be_read_over_loopback() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
            let _ = stream.write_all(answer("200 OK", SNAPSHOT).as_bytes());
        }
    });
    let page = Exporter::ready(&[&format!("--service=http://{address}")]).await.scrape().await;
    page.assert(&format!("spool_up{{service=\"{address}\"}}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrapers_own_time_counts() {
    let service = Service::silent();
    let exporter = Exporter::ready(&[&service.arg()]).await;
    let scrape = |seconds: &str| {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\nX-Prometheus-Scrape-Timeout-Seconds: {seconds}\r\n\r\n"
        );
        let exporter = &exporter;
        async move { exporter.send(&request).await.took.as_millis() }
    };
    assert!((250..400).contains(&scrape("0.5").await));
    // Not even ten minutes are a reason to wait longer than we were told.
    assert!((900..1300).contains(&scrape("600").await));
    assert!((900..1300).contains(&scrape("soon").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_at_the_same_time_share_a_look_and_later_ones_get_their_own() {
    let late = Manner::AnswersLate(answer("200 OK", SNAPSHOT), Duration::from_millis(300));
    let service = Service::start(late);
    let exporter = Exporter::ready(&[&service.arg()]).await;
    let before = service.requests();
    for page in all((0..30).map(|_| exporter.scrape())).await {
        page.assert(r#"spool_up{service="picker"}"#, 1.0);
    }
    assert_eq!(service.requests() - before, 1);
    for _ in 0..3 {
        exporter.scrape().await;
    }
    assert_eq!(service.requests() - before, 4);
}

/// nbari/pg_exporter issue 34: a permit held by a scrape that had been given up answered 503 for an hour.
#[tokio::test(flavor = "multi_thread")]
async fn scrapes_that_are_given_up_block_nobody() {
    let service = Service::silent();
    let exporter = Exporter::ready(&[&service.arg()]).await;
    let mut given_up = JoinSet::new();
    for _ in 0..20 {
        let address = exporter.address;
        given_up.spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
    }
    while given_up.join_next().await.is_some() {}
    let started = Instant::now();
    exporter.scrape().await.assert(r#"spool_up{service="picker"}"#, 0.0);
    assert!(started.elapsed() < LIMIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_schema_is_counted() {
    let foreign_reason = SNAPSHOT.replacen("\"lost_total\": {", "\"lost_total\": {\"bad_luck\": 1", 1);
    let cases = [
        (answer("200 OK", &SNAPSHOT.replacen("\"schema\": 1", "\"schema\": 2", 1)), 0.0),
        (answer("200 OK", "{}"), 0.0),
        (answer("200 OK", "<html>hello</html>"), 0.0),
        (answer("200 OK", &"[".repeat(5_000)), 0.0),
        (answer("200 OK", &SNAPSHOT.replacen("\"pid\": 7", "\"pid\": \"x\"", 1)), 0.0),
        // One value that nobody foresaw does not cost the rest.
        (answer("200 OK", &foreign_reason), 1.0),
    ];
    for (text, up) in cases {
        let service = Service::start(Manner::Answers(text.clone()));
        let exporter = Exporter::ready(&[&service.arg()]).await;
        let first = exporter.scrape().await.value("spool_exporter_snapshot_schema_errors_total").unwrap();
        let page = exporter.scrape().await;
        page.assert("spool_exporter_snapshot_schema_errors_total", first + 1.0);
        page.assert(r#"spool_up{service="picker"}"#, up);
        page.assert(r#"spool_exporter_collector_success{collector="service"}"#, 0.0);
        assert!(!page.text.contains("bad_luck"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_page_is_a_service_that_is_down_and_no_schema_error() {
    for text in [answer("500 Internal Server Error", SNAPSHOT), "nonsense\r\n\r\n".to_owned()] {
        let service = Service::start(Manner::Answers(text));
        let page = Exporter::ready(&[&service.arg()]).await.scrape().await;
        page.assert(r#"spool_up{service="picker"}"#, 0.0);
        page.assert("spool_exporter_snapshot_schema_errors_total", 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_snapshot_is_refused() {
    let large =
        |bytes: usize| SNAPSHOT.replacen('{', &format!("{{\"padding\": \"{}\",", "x".repeat(bytes)), 1);
    let chunked = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    for (text, up) in [
        (answer("200 OK", &large(900_000)), 1.0),
        (answer("200 OK", &large(1_048_576)), 0.0),
        (chunked(&large(1_048_576)), 0.0),
    ] {
        let service = Service::start(Manner::Answers(text));
        let exporter = Exporter::ready(&[&service.arg()]).await;
        exporter.scrape().await.assert(r#"spool_up{service="picker"}"#, up);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_say() {
    let (redis, service) = (RedisServer::start(), Service::well());
    let exporter =
        Exporter::ready(&[&service.arg(), "--service=unix:/no/such.sock", "--redis.url", &redis.url()]).await;
    let up = exporter.scrape().await;
    redis.kill9();
    let down = exporter.scrape().await;
    for page in [up, down] {
        let promtool = std::process::Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut promtool = promtool.expect("promtool comes with prometheus; `scripts/test` installs it");
        promtool.stdin.take().unwrap().write_all(page.text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}
