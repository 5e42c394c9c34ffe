//! [`SnapshotServer`]: the numbers of this process for whoever watches it, also on its worst day.
//!
//! One resource, `GET /v1/snapshot`, answers the [`Snapshot`] as JSON. Every other path is 404, every other method on it 405.
//!
//! # What it promises
//! It answers when every worker of the service's runtime is blocked, when its pool is exhausted and when Redis is down: it
//! shares none of them. It is for this machine alone, a unix socket that only its own user can open or a loopback port.
//!
//! # Why a thread of its own and not a task
//! A status page that needs a worker of the saturated pool is blind exactly when somebody looks. The thread has a
//! current-thread runtime and nothing to do but this. So the function that takes the snapshot must only read numbers: while it
//! runs, nobody else is answered and no time limit is looked at.
//!
//! # How it fails
//! A function that panics is a 500 and the next request is a new try. A client that is slow loses its connection, and a
//! seventeenth one at a time is turned away: whoever polls too much hurts only the pollers.

mod serve;
#[cfg(unix)]
mod socket;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    thread,
};

use tokio::sync::oneshot;

use crate::{endpoint::SnapshotEndpoint, stats::Snapshot};
use serve::Listener;

/// Takes the snapshot of this process.
type TakeSnapshot = Arc<dyn Fn() -> Snapshot + Send + Sync>;

/// Serves the snapshot of this process until it is dropped.
///
/// Dropping it removes the socket file, if it is still the one that was made here, and tells the thread to end, which it does
/// at once, or after the snapshot that it is taking. The drop does not wait for that.
pub(crate) struct SnapshotServer {
    endpoint: SnapshotEndpoint,
    /// Above the signal, so that it goes first: while we listen, the file's inode cannot become that of another file.
    #[cfg(unix)]
    _socket: Option<socket::SocketFile>,
    /// Its drop is the signal to stop.
    _running: oneshot::Sender<()>,
}

impl SnapshotServer {
    /// Starts to serve on `endpoint` what `snapshot` returns, and returns when it can be reached.
    ///
    /// # Errors
    /// `AddrInUse` if somebody answers there already, `AlreadyExists` if the path is that of a file that is no socket,
    /// `InvalidInput` for an address that is not of the loopback interface, and whatever the system says to a new socket, file
    /// or thread.
    pub(crate) fn start(
        endpoint: &SnapshotEndpoint,
        snapshot: impl Fn() -> Snapshot + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (running, stopped) = oneshot::channel();
        match endpoint {
            SnapshotEndpoint::Http(address) => {
                let listener = bind_loopback(*address)?;
                let endpoint = SnapshotEndpoint::Http(listener.local_addr()?);
                start_thread(Listener::Tcp(listener), Arc::new(snapshot), stopped)?;
                Ok(Self {
                    endpoint,
                    _running: running,
                    #[cfg(unix)]
                    _socket: None,
                })
            }
            #[cfg(unix)]
            SnapshotEndpoint::Unix(path) => {
                let (listener, socket) = socket::bind(path)?;
                start_thread(Listener::Unix(listener), Arc::new(snapshot), stopped)?;
                Ok(Self { endpoint: endpoint.clone(), _running: running, _socket: Some(socket) })
            }
            #[cfg(not(unix))]
            SnapshotEndpoint::Unix(_) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no unix sockets"))
            }
        }
    }

    /// Where the snapshot is served; a port 0 has become the port that was free.
    pub(crate) fn local_endpoint(&self) -> &SnapshotEndpoint {
        &self.endpoint
    }
}

impl fmt::Debug for SnapshotServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotServer").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn bind_loopback(address: SocketAddr) -> io::Result<TcpListener> {
    // The text form of an endpoint refuses this too, but its enum can be written by hand.
    if !address.ip().is_loopback() {
        let text = format!("{address} is not an address of the loopback interface");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Starts the thread and waits until its runtime listens.
///
/// The runtime is made inside the thread, because one must not be dropped in an async context, where the caller may well be.
fn start_thread(
    listener: Listener,
    snapshot: TakeSnapshot,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let (ready, started) = mpsc::sync_channel(1);
    let body = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve::serve(listener, snapshot, ready, stopped)),
        // Nobody waits for it only if the caller is gone, who needs no error then.
        Err(error) => drop(ready.send(Err(error))),
    };
    // Fifteen characters are what Linux shows of a thread's name.
    thread::Builder::new().name("spool-snapshot".to_owned()).spawn(body)?;
    started.recv().unwrap_or_else(|_| Err(io::Error::other("the snapshot thread ended at once")))
}

#[cfg(test)]
mod tests;
