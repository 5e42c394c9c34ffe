//! The HTTP server: four pages, each with one promise.
//!
//! | page | promise |
//! | --- | --- |
//! | `/` | says what runs here and where to look next; no scripts, nothing loaded from elsewhere |
//! | `/metrics` | always 200, within the scrape's own time: one fresh look at every source, in the text format 0.0.4 |
//! | `/-/healthy` | 200 while the process lives; says nothing about Redis or the services, those are samples |
//! | `/-/ready` | 200 once the first look at every source has ended, well or not; 503 before, with what is waited for |
//!
//! GET and HEAD only. A connection has 5 s for a header, 10 s from there to the end of the response and 30 s between
//! requests. 64 connections are served; the next one is told 503 and closed. Nothing here changes anything: there is no
//! page to reload or to stop the exporter.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    budget,
    collect::Collector,
    config::Config,
    pace::{Pace, Paced},
    readiness::Readiness,
    task::Task,
};

const MAX_CONNECTIONS: usize = 64;
/// How long requests under way may take once the exporter was told to end.
const DRAIN: Duration = Duration::from_secs(5);
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// The pages. The list above says the same in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/`
    Landing,
    /// `/metrics`
    Metrics,
    /// `/-/healthy`
    Healthy,
    /// `/-/ready`
    Ready,
}

impl Endpoint {
    /// Every page there is.
    pub const ALL: [Self; 4] = [Self::Landing, Self::Metrics, Self::Healthy, Self::Ready];

    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Landing => "/",
            Self::Metrics => "/metrics",
            Self::Healthy => "/-/healthy",
            Self::Ready => "/-/ready",
        }
    }

    fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }
}

/// What the pages are made of.
#[derive(Debug)]
struct Site {
    collector: Collector,
    readiness: Readiness,
}

/// Serves until `shutdown` is ready, then lets requests under way finish for up to 5 s.
///
/// Needs a tokio runtime with time and I/O.
///
/// # Errors
/// None after the start: an accept that fails is tried again, because what makes it fail (no file descriptor left) passes.
/// The result has room for a listener that has no address.
///
/// # Cancel safety
/// Dropped, it closes the listener and all connections at once, the one to Redis too.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    warn_if_open_to_others(listener.local_addr()?);
    let mut readiness = Readiness::default();
    let (redis, services) =
        (readiness.latch("a first look at redis"), readiness.latch("a first look at the services"));
    let site = Arc::new(Site { collector: Collector::new(config), readiness });
    // Not left to the first scrape: whoever waits for ready before scraping would wait for ever.
    let watcher = Arc::clone(&site);
    let _first_look = Task::spawn(async move { watcher.collector.first_look(redis, services).await });

    let (ending, ends) = watch::channel(());
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
            // Takes the ended ones out; `None` only while there are none.
            Some(_) = connections.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Without a pause, a process that has no file descriptor left would spend all its time here.
                tracing::warn!(%error, "accept failed");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let connection = connection(stream, Arc::clone(&site), ends.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(_) => turn_away(&stream),
        }
    }
    drop(listener);
    drop(ending);
    let drained = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(connections = connections.len(), "requests did not finish in time and are cut off");
    }
    Ok(())
}

fn warn_if_open_to_others(address: SocketAddr) {
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the pages can be read from other machines, without TLS or a password");
    }
}

/// Serves one connection until it ends, takes too long, or the exporter ends.
async fn connection(stream: TcpStream, site: Arc<Site>, mut ends: watch::Receiver<()>) {
    // Best effort: without it, a page is 40 ms late.
    let _ = stream.set_nodelay(true);
    let pace = Pace::new();
    let service = service_fn(|request| {
        pace.request_began();
        let (site, pace) = (Arc::clone(&site), pace.clone());
        async move {
            let response = answer(&site, &request).await;
            pace.response_made();
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(Paced::new(stream, pace.clone()));
    let mut http = http1::Builder::new();
    // Its own limit for headers needs a timer and is ours to keep; see `pace`.
    http.header_read_timeout(None).max_buf_size(MAX_HEADER_BYTES).half_close(false);
    let serving = http.serve_connection(io, service);
    tokio::pin!(serving);
    tokio::select! {
        // What a client does to its connection is no news.
        _ = &mut serving => return,
        () = pace.lost() => return,
        _ = ends.changed() => serving.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = &mut serving => {}
        () = pace.lost() => {}
    }
}

/// Best effort, without waiting for anybody.
fn turn_away(stream: &TcpStream) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    tracing::debug!("a connection was turned away, {MAX_CONNECTIONS} are open");
    let _ = stream.try_write(FULL);
}

async fn answer(site: &Site, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let Some(endpoint) = Endpoint::at(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, "no such page\n");
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match endpoint {
        Endpoint::Landing => landing(),
        Endpoint::Metrics => {
            let budget = budget::of(request.headers(), site.collector.config().scrape_timeout);
            let page = site.collector.scrape(budget).await;
            response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
        }
        Endpoint::Healthy => text(StatusCode::OK, "alive\n"),
        Endpoint::Ready => match site.readiness.missing() {
            missing if missing.is_empty() => text(StatusCode::OK, "ready\n"),
            missing => text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", missing.join(", "))),
        },
    }
}

fn landing() -> Response<Full<Bytes>> {
    const PAGE: &str = concat!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>spool-lock-exporter</title></head>\n",
        "<body><h1>spool-lock-exporter ",
        env!("CARGO_PKG_VERSION"),
        "</h1>\n<p>Shows Prometheus what happens inside services that use spool-lock, and in their Redis.</p>\n",
        "<ul><li><a href=\"/metrics\">/metrics</a>: one fresh look at every source</li>\n",
        "<li><a href=\"/-/healthy\">/-/healthy</a>: this process lives</li>\n",
        "<li><a href=\"/-/ready\">/-/ready</a>: the first look has ended</li></ul></body></html>\n",
    );
    let mut page = response(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, nothing);
    page
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
