//! The server keeps its promises and its patience has an end.

// Outside of the tests' own functions, too, a value that is not there ends the test.
#![allow(clippy::unwrap_used)]

mod stage;

use std::time::Duration;

use spool_lock_exporter::server::Endpoint;
use stage::{Exporter, Manner, Reply, SNAPSHOT, Service, answer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const SERVER: &str = include_str!("../src/server.rs");

/// The first column of the tables in a text, as far as it is a path.
fn paths_of_tables(text: &str) -> Vec<&str> {
    let row = |line| str::strip_prefix(line, "//! ").unwrap_or(line).strip_prefix("| `");
    let cell = |row: &'_ str| row.find('`');
    let cells = text.lines().filter_map(row).filter_map(|row| row.get(..cell(row)?));
    cells.filter(|cell| cell.starts_with('/')).collect()
}

#[tokio::test]
async fn endpoints_match_the_docs() {
    let service = Service::well();
    let exporter = Exporter::ready(&[&service.arg()]).await;
    let paths: Vec<_> = Endpoint::ALL.into_iter().map(Endpoint::path).collect();
    assert_eq!(paths_of_tables(SERVER), paths);
    for path in paths {
        assert_eq!(exporter.get(path).await.status, 200, "{path}");
    }
    for path in ["/metrics/", "/-/reload", "/-/quit", "/debug", "/v1/snapshot", "//", "/../metrics"] {
        assert_eq!(exporter.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn only_get_and_head() {
    let service = Service::well();
    let exporter = Exporter::ready(&[&service.arg()]).await;
    let send = async |method: &str, path: &str| {
        exporter.send(&format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    };
    for path in Endpoint::ALL.map(Endpoint::path) {
        let head = send("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            let reply = send(method, path).await;
            assert_eq!(
                (reply.status, reply.headers["allow"].as_str()),
                (405, "GET, HEAD"),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn the_landing_page_loads_and_runs_nothing() {
    let service = Service::well();
    let page = Exporter::ready(&[&service.arg()]).await.get("/").await;
    assert!(page.headers["content-security-policy"].starts_with("default-src 'none'"));
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    for word in ["<script", "<style", "src=", "http:", "https:"] {
        assert!(!page.body.contains(word), "{word}");
    }
    for path in Endpoint::ALL.map(Endpoint::path).into_iter().skip(1) {
        assert!(page.body.contains(&format!("href=\"{path}\"")), "no link to {path}");
    }
}

#[tokio::test]
async fn ready_waits_for_the_first_look_and_healthy_does_not() {
    let late = Manner::AnswersLate(answer("200 OK", SNAPSHOT), Duration::from_millis(400));
    let service = Service::start(late);
    let exporter = Exporter::start(&[&service.arg()]).await;
    let ready = exporter.get("/-/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body, "waiting for a first look at the services\n");
    assert_eq!(exporter.get("/-/healthy").await.status, 200);
    sleep(Duration::from_millis(700)).await;
    assert_eq!(exporter.get("/-/ready").await.status, 200);
}

#[tokio::test]
async fn ready_does_not_need_sources_that_are_well() {
    let exporter =
        Exporter::start(&["--service=unix:/no/such.sock", "--redis.url=redis+unix:///no/such.sock"]).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(exporter.get("/-/ready").await.status, 200);
}

/// blackbox_exporter issue 1626: most exporters let a half-open request live for ever.
#[tokio::test]
async fn slowloris_is_closed() {
    let service = Service::well();
    let exporter = Exporter::ready(&[&service.arg()]).await;
    let mut dribbling = TcpStream::connect(exporter.address).await.unwrap();
    let mut silent = TcpStream::connect(exporter.address).await.unwrap();
    let started = Instant::now();
    dribbling.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    let dribble = async {
        while dribbling.write_all(b"x-a: b\r\n").await.is_ok() && !is_closed(&dribbling) {
            sleep(Duration::from_millis(100)).await;
        }
        started.elapsed()
    };
    let silence = async {
        let _ = silent.read(&mut [0]).await;
        started.elapsed()
    };
    let (dribbled, kept_silent) =
        timeout(Duration::from_secs(9), async { tokio::join!(dribble, silence) }).await.unwrap();
    for took in [dribbled, kept_silent] {
        assert!((4_900..7_000).contains(&took.as_millis()), "{took:?}");
    }
    assert_eq!(exporter.get("/-/healthy").await.status, 200);
}

fn is_closed(stream: &TcpStream) -> bool {
    !matches!(stream.try_read(&mut [0; 64]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// A scraper that comes each 15 s keeps its connection: an idle one lives longer than a slow request.
#[tokio::test]
async fn an_idle_connection_outlives_the_limits_of_a_request() {
    let service = Service::well();
    let exporter = Exporter::ready(&[&service.arg()]).await;
    let mut stream = TcpStream::connect(exporter.address).await.unwrap();
    // Longer than a request may take, too.
    for pause in [11, 0, 0] {
        let started = Instant::now();
        stream.write_all(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut reply = [0; 512];
        // One read: header and body leave in one write.
        let length = timeout(Duration::from_secs(1), stream.read(&mut reply)).await.unwrap().unwrap();
        let reply = Reply::parse(std::str::from_utf8(&reply[..length]).unwrap(), started.elapsed());
        assert_eq!((reply.status, reply.body.as_str()), (200, "alive\n"));
        assert!(reply.took < Duration::from_millis(35), "{:?}", reply.took);
        sleep(Duration::from_secs(pause)).await;
    }
}

#[tokio::test]
async fn a_large_header_is_refused() {
    let service = Service::well();
    let exporter = Exporter::ready(&[&service.arg()]).await;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(7_000));
    let fits = request.replacen("host: x", "host: x\r\nconnection: close", 1);
    assert_eq!(exporter.send(&fits).await.status, 200);
    let mut stream = TcpStream::connect(exporter.address).await.unwrap();
    let too_large = request.replacen("x-large: ", &format!("x-large: {}", "x".repeat(8_000)), 1);
    let _ = stream.write_all(too_large.as_bytes()).await;
    let mut reply = String::new();
    let _ = timeout(Duration::from_secs(2), stream.read_to_string(&mut reply)).await.unwrap();
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 431"), "{reply}");
}

#[tokio::test]
async fn beyond_64_connections_it_says_503_at_once() {
    let service = Service::well();
    let exporter = Exporter::ready(&[&service.arg()]).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(TcpStream::connect(exporter.address).await.unwrap());
    }
    let mut stream = TcpStream::connect(exporter.address).await.unwrap();
    let mut reply = String::new();
    timeout(Duration::from_secs(1), stream.read_to_string(&mut reply)).await.unwrap().unwrap();
    assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
    held.pop();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(exporter.get("/-/healthy").await.status, 200);
}

#[tokio::test]
async fn the_end_waits_for_requests_under_way_and_for_nobody_else() {
    let late = Manner::AnswersLate(answer("200 OK", SNAPSHOT), Duration::from_millis(500));
    let service = Service::start(late);
    let mut exporter = Exporter::ready(&[&service.arg()]).await;
    let _idle = TcpStream::connect(exporter.address).await.unwrap();
    let address = exporter.address;
    let scrape = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    });
    sleep(Duration::from_millis(100)).await;
    exporter.tell_to_end();
    let page = timeout(Duration::from_secs(2), scrape).await.unwrap().unwrap();
    assert!(page.contains("spool_up{service=\"picker\"} 1\n"));
    assert!(TcpStream::connect(address).await.is_err());
}
