//! The side of the snapshot that speaks HTTP: accept, answer one request, close.
//!
//! A connection carries one request and lives for two seconds at most: a poller comes every few seconds, so keeping
//! connections open would save nothing and let sixteen idle ones lock everybody else out.

use std::{
    convert::Infallible,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc::SyncSender},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, oneshot},
    time::{sleep, timeout},
};

use super::TakeSnapshot;

const PATH: &str = "/v1/snapshot";
const MAX_CONNECTIONS: usize = 16;
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failed accept: without it, a process that has run out of files would spin here.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket, not yet of any runtime.
pub(super) enum Listener {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

/// Serves until `stopped`; `ready` is told whether it began to.
pub(super) async fn serve(
    listener: Listener,
    snapshot: TakeSnapshot,
    ready: SyncSender<io::Result<()>>,
    stopped: oneshot::Receiver<()>,
) {
    // Ends with the other side's drop, which is an error in the channel's eyes and the normal end in ours.
    let stopped = async { drop(stopped.await) };
    let room = Room { snapshot, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) };
    match listener {
        Listener::Tcp(listener) => {
            let Some(listener) = tell(&ready, tokio::net::TcpListener::from_std(listener)) else { return };
            tokio::select! {
                () = stopped => {}
                () = accept_tcp(&listener, &room) => {}
            }
        }
        #[cfg(unix)]
        Listener::Unix(listener) => {
            let Some(listener) = tell(&ready, tokio::net::UnixListener::from_std(listener)) else { return };
            tokio::select! {
                () = stopped => {}
                () = accept_unix(&listener, &room) => {}
            }
        }
    }
}

fn tell<T>(ready: &SyncSender<io::Result<()>>, listener: io::Result<T>) -> Option<T> {
    let (told, listener) = match listener {
        Ok(listener) => (Ok(()), Some(listener)),
        Err(error) => (Err(error), None),
    };
    // A caller who no longer waits has dropped the other half of `stopped` too.
    let _ = ready.send(told);
    listener
}

async fn accept_tcp(listener: &tokio::net::TcpListener, room: &Room) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Otherwise a reply in two segments can wait 40 ms for the other side's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                room.admit(stream);
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

#[cfg(unix)]
async fn accept_unix(listener: &tokio::net::UnixListener, room: &Room) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => room.admit(stream),
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// What the connections share.
struct Room {
    snapshot: TakeSnapshot,
    places: Arc<Semaphore>,
}

impl Room {
    /// Answers on `stream` in a task of its own, or closes it at once if there is no place.
    fn admit(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        let snapshot = self.snapshot.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let response = respond(&request, &snapshot);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                // Header and body leave in one call of the system.
                .writev(true)
                .serve_connection(TokioIo::new(stream), answer);
            // How a client fails is its own affair.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
}

/// The answer to one request. Its body, if it has one, is not read.
fn respond(request: &Request<Incoming>, snapshot: &TakeSnapshot) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return text(StatusCode::NOT_FOUND, "there is only /v1/snapshot here\n");
    }
    if request.method() != Method::GET {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "this can only be read\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    // Nothing of ours is left half done by a panic in there: we only read what it returns.
    match catch_unwind(AssertUnwindSafe(|| snapshot())).map(|snapshot| serde_json::to_vec(&snapshot)) {
        Ok(Ok(json)) => response(StatusCode::OK, "application/json", json.into()),
        Ok(Err(error)) => {
            tracing::error!(%error, "a snapshot could not be written as JSON");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the snapshot could not be written\n")
        }
        Err(_) => {
            tracing::error!("taking a snapshot panicked");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the snapshot could not be taken\n")
        }
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
