//! One connection through the proxy: two readers that cut frames, two writers that deliver them in order.
//!
//! All four are parts of one future, so closing a connection is dropping that future. The queue between a reader and
//! its writer is where time passes: a frame is due at a moment, may stand before a gate, and waits out a blackhole.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::super::frame::{self, Request};
use super::counters::Counters;
use super::rules::{Gate, LostReply, Rules};

/// How a connection is closed towards the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    Fin,
    Rst,
}

/// What all connections of a proxy share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) counters: Counters,
    pub(super) blackhole: watch::Sender<bool>,
    pub(super) close: watch::Sender<CloseOrder>,
    rules: Mutex<Rules>,
    pub(super) server_port: AtomicU16,
}

/// Connections up to and including this number are to be closed.
#[derive(Debug)]
pub(super) struct CloseOrder {
    pub(super) all_before: (usize, Close),
}

impl Shared {
    pub(super) fn new(server_port: u16) -> Self {
        Self {
            counters: Counters::default(),
            blackhole: watch::Sender::new(false),
            close: watch::Sender::new(CloseOrder { all_before: (0, Close::Fin) }),
            rules: Mutex::default(),
            server_port: server_port.into(),
        }
    }

    pub(super) fn rules(&self) -> MutexGuard<'_, Rules> {
        // A test's predicate that panicked leaves the rules as they were.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn passable(&self) {
        let _ = self.blackhole.subscribe().wait_for(|blackhole| !*blackhole).await;
    }

    async fn told_to_close(&self, dial: usize) -> Close {
        let mut order = self.close.subscribe();
        match order.wait_for(|order| dial <= order.all_before.0).await {
            Ok(order) => order.all_before.1,
            Err(_) => Close::Fin,
        }
    }
}

pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    while let Ok((client, _)) = listener.accept().await {
        let dial = shared.counters.dialled();
        if shared.rules().refuse {
            close(client, Close::Rst);
            continue;
        }
        shared.counters.open.fetch_add(1, Relaxed);
        tokio::spawn(serve(shared.clone(), client, dial));
    }
}

async fn serve(shared: Arc<Shared>, mut client: TcpStream, dial: usize) {
    let _ = client.set_nodelay(true);
    let open = OpenConnection(&shared);
    let how = tokio::select! {
        how = shared.told_to_close(dial) => how,
        how = relay(&shared, &mut client, open) => how,
    };
    close(client, how);
}

/// Counts as open until the client has left.
struct OpenConnection<'a>(&'a Shared);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.counters.open.fetch_sub(1, Relaxed);
    }
}

fn close(client: TcpStream, how: Close) {
    if how == Close::Rst {
        let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
    }
}

async fn relay(shared: &Shared, client: &mut TcpStream, open: OpenConnection<'_>) -> Close {
    let (from_client, to_client) = client.split();
    let (up_in, up_out) = mpsc::unbounded_channel();
    let (down_in, down_out) = mpsc::unbounded_channel();
    let unanswered = Mutex::new(VecDeque::new());

    let requests = async {
        read_requests(shared, from_client, up_in, &unanswered, open).await;
        // The client has left, but what it sent may still be on its way; the server's side ends the connection.
        std::future::pending().await
    };
    let server = async {
        shared.passable().await;
        if up_out.is_closed() {
            // Given up while the network was dark: the server never hears of it.
            return Close::Fin;
        }
        let server = TcpStream::connect(("127.0.0.1", shared.server_port.load(Relaxed))).await;
        // As near as a proxy gets to a connection that is refused.
        let Ok(mut server) = server else { return Close::Rst };
        let _ = server.set_nodelay(true);
        let (from_server, to_server) = server.split();
        let up = async {
            if let Ended::Drained = write(shared, to_server, up_out, Way::ToServer).await {
                std::future::pending().await
            }
        };
        let down = async {
            let replies = read_replies(shared, from_server, down_in, &unanswered);
            tokio::join!(replies, write(shared, to_client, down_out, Way::ToClient))
        };
        tokio::select! {
            () = up => {}
            _ = down => {}
        }
        Close::Fin
    };
    tokio::select! {
        how = requests => how,
        how = server => how,
    }
}

/// A frame on its way.
struct Parcel {
    bytes: Vec<u8>,
    due: Instant,
    gate: Option<Gate>,
}

/// Requests that the server has not answered yet, oldest first.
type Unanswered = Mutex<VecDeque<Request>>;

fn queue(unanswered: &Unanswered) -> MutexGuard<'_, VecDeque<Request>> {
    unanswered.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_requests(
    shared: &Shared,
    mut client: ReadHalf<'_>,
    out: mpsc::UnboundedSender<Parcel>,
    unanswered: &Unanswered,
    _open: OpenConnection<'_>,
) {
    let mut frames = Frames::default();
    while frames.fill(&mut client).await {
        while let Some(bytes) = frames.next() {
            if frames.opaque {
                let due = Instant::now() + shared.rules().request_delay;
                let _ = out.send(Parcel { bytes, due, gate: None });
                continue;
            }
            let request = Request::new(bytes);
            let name = request.name();
            let parcel = {
                let mut rules = shared.rules();
                let gate = rules.holds(&request);
                Parcel { bytes: request.frame().to_vec(), due: Instant::now() + rules.request_delay, gate }
            };
            if !frame::is_answered_by_push(&name) {
                queue(unanswered).push_back(request);
            }
            shared.counters.requested(name);
            let _ = out.send(parcel);
        }
    }
}

async fn read_replies(
    shared: &Shared,
    mut server: ReadHalf<'_>,
    out: mpsc::UnboundedSender<Parcel>,
    unanswered: &Unanswered,
) {
    let mut frames = Frames::default();
    let mut silent = false;
    while frames.fill(&mut server).await {
        while let Some(bytes) = frames.next() {
            let request = if frame::is_push(&bytes) { None } else { queue(unanswered).pop_front() };
            let parcel = {
                let mut rules = shared.rules();
                if !silent && let Some(how) = request.and_then(|request| rules.loses_reply_to(&request)) {
                    shared.counters.replies_dropped.fetch_add(1, Relaxed);
                    match how {
                        // Replies before this one are still delivered, each when it is due.
                        LostReply::DropThenClose => return,
                        LostReply::Swallow => silent = true,
                    }
                }
                Parcel { bytes, due: Instant::now() + rules.reply_delay, gate: None }
            };
            if !silent {
                let _ = out.send(parcel);
            }
        }
    }
}

/// The bytes of one direction, cut into frames as far as they are complete.
#[derive(Default)]
struct Frames {
    buffer: Vec<u8>,
    /// The stream turned out not to be RESP.
    opaque: bool,
}

impl Frames {
    /// Reads what is there; false at the end of the stream.
    async fn fill(&mut self, from: &mut ReadHalf<'_>) -> bool {
        from.read_buf(&mut self.buffer).await.is_ok_and(|read| read > 0)
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        if !self.opaque {
            match frame::take_frame(&mut self.buffer) {
                Ok(frame) => return frame,
                Err(frame::NotResp) => self.opaque = true,
            }
        }
        (!self.buffer.is_empty()).then(|| std::mem::take(&mut self.buffer))
    }
}

#[derive(Clone, Copy)]
enum Way {
    ToServer,
    ToClient,
}

/// Why a writer stopped.
enum Ended {
    /// All was delivered, or nobody is there to receive it.
    Drained,
    /// A held request was given up.
    Lost,
}

async fn write(
    shared: &Shared,
    mut to: WriteHalf<'_>,
    mut parcels: mpsc::UnboundedReceiver<Parcel>,
    way: Way,
) -> Ended {
    let mut gone = false;
    while let Some(parcel) = parcels.recv().await {
        sleep_until(parcel.due).await;
        if let Some(gate) = parcel.gate
            && !gate.opened().await
        {
            return Ended::Lost;
        }
        shared.passable().await;
        // Draining goes on when the other side has left: a reply that nobody reads must not stop later requests.
        gone = gone || deliver(shared, &mut to, &parcel.bytes, way).await.is_err();
    }
    shared.passable().await;
    let _ = to.shutdown().await;
    Ended::Drained
}

async fn deliver(shared: &Shared, to: &mut WriteHalf<'_>, bytes: &[u8], way: Way) -> io::Result<()> {
    // Counted before it is written: whoever has seen a reply also finds it counted.
    match way {
        Way::ToServer => &shared.counters.frames_to_server,
        Way::ToClient => &shared.counters.frames_to_client,
    }
    .fetch_add(1, Relaxed);
    shared.counters.bytes.fetch_add(bytes.len() as u64, Relaxed);
    let step = if shared.rules().split_bytes { 1 } else { bytes.len().max(1) };
    for piece in bytes.chunks(step) {
        to.write_all(piece).await?;
        if step == 1 {
            // Lets the other side wake up with the one byte that it has.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
