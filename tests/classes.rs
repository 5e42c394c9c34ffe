//! What the server says, and all that can go wrong on the way to it: which kind of fault that is, and what follows from it.
//!
//! [`ROWS`] is the table of `docs/faults.md`. The kind, what the caller is told and what becomes of the connection are seen here,
//! from outside; that the other columns are what the crate goes by is checked beside the code, in `src/fault/class.rs`.

mod support;

use std::{env, fs, pin::Pin, time::Duration};

use spool_lock::{
    AcquireError, Config, ConnectError, ExtendError, Fault, FaultKind, ForceReleaseError, Holder, ReadError,
    ReleaseError, SpoolLocks, Tag, Ttl,
};
use support::{Answer, RedisServer, ScriptedServer, TlsFiles, eventually, free_port};

use self::{
    Against::{Link, Nobody, SetUp, Writes},
    Case::{Greeting, Handshake, Scene, Script},
    Connection::{Evicted, Kept, Never},
};

/// A time of the scripted server's clock, in µs.
const NOW: i64 = 1_700_000_000_000_000;

struct Row {
    case: Case,
    kind: FaultKind,
    against: Against,
    is_retried: bool,
    connection: Connection,
}

/// What goes wrong.
enum Case {
    /// A script is answered with this line.
    Script(&'static str),
    /// A new connection hears this line before it has asked anything.
    Greeting(&'static str),
    /// This command of a new connection is answered with this line.
    Handshake(&'static str, &'static str),
    /// Anything else, in words, and how it is brought about.
    Scene(&'static str, fn() -> Pin<Box<dyn Future<Output = Seen>>>),
}

/// What a fault counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Against {
    Nobody,
    Link,
    Writes,
    SetUp,
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    Kept,
    /// It is given up, for this reason.
    Evicted(&'static str),
    /// There was none, or it did not come to be.
    Never,
}

const fn row(case: Case, kind: FaultKind, against: Against, is_retried: bool, connection: Connection) -> Row {
    Row { case, kind, against, is_retried, connection }
}

/// Whether the call is tried again.
const AGAIN: bool = true;
const ONCE: bool = false;

const LOST: Connection = Evicted("disconnected");

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(Script("-LOADING Redis is loading the dataset in memory"), FaultKind::Loading, Link, AGAIN, Kept),
    row(Script("-BUSY Redis is busy running a script."), FaultKind::Busy, Link, AGAIN, Kept),
    row(Script("-ERR max number of clients reached"), FaultKind::MaxClients, Link, AGAIN, Kept),
    row(Script("-READONLY You can't write against a read only replica."), FaultKind::ReadOnly, Writes, AGAIN, Evicted("read_only")),
    row(Script("-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."), FaultKind::ReadOnly, Writes, AGAIN, Evicted("read_only")),
    row(Script("-MISCONF Redis is configured to save RDB snapshots"), FaultKind::Misconf, Writes, ONCE, Kept),
    row(Script("-OOM command not allowed when used memory > 'maxmemory'."), FaultKind::OutOfMemory, Writes, ONCE, Kept),
    row(Script("-NOREPLICAS Not enough good replicas to write."), FaultKind::NoReplicas, Writes, ONCE, Kept),
    row(Script("-NOAUTH Authentication required."), FaultKind::Auth, SetUp, ONCE, LOST),
    row(Script("-WRONGPASS invalid username-password pair or user is disabled."), FaultKind::Auth, SetUp, ONCE, LOST),
    row(Script("-NOPERM this user has no permissions to run the 'evalsha' command"), FaultKind::Permission, SetUp, ONCE, Kept),
    row(Script("-ERR The user executing the script can't run this command or subcommand"), FaultKind::Permission, SetUp, ONCE, Kept),
    row(Script("-ERR unknown command 'EVALSHA', with args beginning with: 'b1946ac9'"), FaultKind::Permission, SetUp, ONCE, Kept),
    row(Script("-ERR Unknown Redis command called from script"), FaultKind::Permission, SetUp, ONCE, Kept),
    row(Script("-ERR Invalid command passed to redis.acl_check_cmd()"), FaultKind::Permission, SetUp, ONCE, Kept),
    row(Script("-WRONGTYPE Operation against a key holding the wrong kind of value"), FaultKind::NotALock, Nobody, ONCE, Kept),
    row(Script("-NOSCRIPT No matching script."), FaultKind::Other, Nobody, ONCE, Kept),
    row(Script("-CLUSTERDOWN Hash slot not served"), FaultKind::Other, Nobody, ONCE, Kept),
    row(Script("-TRYAGAIN Multiple keys request during rehashing of slot"), FaultKind::Other, Nobody, ONCE, Kept),
    row(Script("-MOVED 3999 127.0.0.1:6381"), FaultKind::Other, Nobody, ONCE, Kept),
    row(Script("-ASK 3999 127.0.0.1:6381"), FaultKind::Other, Nobody, ONCE, Kept),
    row(Script("-CROSSSLOT Keys in request don't hash to the same slot"), FaultKind::Other, Nobody, ONCE, Kept),
    row(Script("-EXECABORT Transaction discarded because of previous errors."), FaultKind::Other, Nobody, ONCE, Kept),
    row(Script("-UNBLOCKED client unblocked via CLIENT UNBLOCK"), FaultKind::Other, Nobody, ONCE, Kept),
    row(Script("-ERR user_script:1: attempt to index a nil value"), FaultKind::Other, Nobody, ONCE, Kept),
    row(Script("-FLOODED a word that nobody knows"), FaultKind::Other, Nobody, ONCE, Kept),
    row(Script("+OK"), FaultKind::Protocol, Nobody, ONCE, Kept),
    row(Script("?what"), FaultKind::Protocol, Nobody, ONCE, LOST),
    row(Scene("no reply in time", || Box::pin(no_reply())), FaultKind::Timeout, Link, AGAIN, Evicted("timeout")),
    row(Scene("the connection is closed instead of a reply", || Box::pin(closed_instead_of_a_reply())), FaultKind::Disconnected, Link, AGAIN, LOST),
    row(Scene("the value at the key is not a lease", || Box::pin(no_lease())), FaultKind::NotALock, Nobody, ONCE, Kept),
    row(Scene("the script finds the call late, twice", || Box::pin(late_twice())), FaultKind::Late, Nobody, ONCE, Kept),
    row(Scene("a grant below a fence that was seen", || Box::pin(fence_goes_backwards())), FaultKind::FenceRegression, Nobody, ONCE, Kept),
    row(Scene("every connection is full until the deadline", || Box::pin(no_slot_in_time())), FaultKind::CheckoutTimeout, Nobody, ONCE, Kept),
    row(Scene("too many calls wait for a connection", || Box::pin(too_many_wait())), FaultKind::Saturated, Nobody, ONCE, Kept),
    row(Scene("nobody listens at the address", || Box::pin(nobody_listens())), FaultKind::Connect, Link, AGAIN, Never),
    row(Scene("a new connection hears nothing", || Box::pin(silence_at_connect())), FaultKind::Timeout, Link, AGAIN, Never),
    row(Scene("a new connection is closed unheard", || Box::pin(closed_at_connect())), FaultKind::ClosedInHandshake, Link, AGAIN, Never),
    row(Greeting("-ERR max number of clients reached"), FaultKind::MaxClients, Link, AGAIN, Never),
    row(Greeting("-DENIED Redis is running in protected mode"), FaultKind::Permission, SetUp, ONCE, Never),
    row(Greeting("HTTP/1.1 400 Bad Request"), FaultKind::Protocol, Nobody, ONCE, Never),
    row(Handshake("HELLO", "-NOAUTH HELLO must be called with the client already authenticated"), FaultKind::Auth, SetUp, ONCE, Never),
    row(Handshake("HELLO", "-WRONGPASS invalid username-password pair or user is disabled."), FaultKind::Auth, SetUp, ONCE, Never),
    row(Handshake("HELLO", "-FLOODED a word that nobody knows"), FaultKind::Connect, Link, AGAIN, Never),
    row(Handshake("SELECT", "-ERR DB index is out of range"), FaultKind::Permission, SetUp, ONCE, Never),
    row(Handshake("CLIENT SETNAME", "-BUSY Redis is busy running a script."), FaultKind::Busy, Link, AGAIN, Never),
    row(Scene("no password, and the server wants one", || Box::pin(password_given(""))), FaultKind::Auth, SetUp, ONCE, Never),
    row(Scene("another password than the server's", || Box::pin(password_given(":wrong@"))), FaultKind::Auth, SetUp, ONCE, Never),
    row(Scene("a certificate of an authority that is not trusted", || Box::pin(strange_authority())), FaultKind::Tls, SetUp, ONCE, Never),
    row(Scene("no TLS, and the server wants it", || Box::pin(no_tls())), FaultKind::ClosedInHandshake, Link, AGAIN, Never),
    row(Scene("TLS, and the server answers without", || Box::pin(tls_without_an_answer_in_tls())), FaultKind::Tls, SetUp, ONCE, Never),
];

/// Replies that are well-formed, and not what a script of ours says; beside `+OK`, which has a row.
const SHAPES: [&str; 8] = [
    ":1",
    "$-1",
    "*0",
    "*-1",
    "*2\r\n:99\r\n:1700000000000000",
    "*2\r\n:3\r\n:1700000000000000",
    "*4\r\n:3\r\n:-1\r\n:5\r\n$1\r\nx",
    "*2\r\n$1\r\nx\r\n$1\r\ny",
];

/// What a call that failed has told, and what became of the connection.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: FaultKind,
    /// Whether the caller is told that an operator has to act.
    is_misconfigured: bool,
    connection: Connection,
}

impl Row {
    fn expected(&self) -> Seen {
        let (kind, connection) = (self.kind, self.connection);
        Seen { kind, is_misconfigured: self.against == SetUp, connection }
    }
}

impl Case {
    /// As the page says it.
    fn text(&self) -> String {
        match self {
            Script(line) => format!("`{line}`"),
            Greeting(line) => format!("to a new connection: `{line}`"),
            Handshake(command, line) => format!("to `{command}` of a new connection: `{line}`"),
            Scene(text, _) => (*text).to_owned(),
        }
    }
}

/// The rows in whose case a script is answered with a line.
fn script_rows() -> impl Iterator<Item = (&'static str, &'static Row)> {
    ROWS.iter().filter_map(|row| match row.case {
        Script(line) => Some((line, row)),
        _ => None,
    })
}

/// The rows in whose case a new connection is refused by a line, and how a server comes to say it.
fn handshake_rows() -> impl Iterator<Item = (&'static str, &'static Row, impl Fn(&ScriptedServer, Answer))> {
    ROWS.iter().filter_map(|row| {
        let (command, line) = match row.case {
            Greeting(line) => (None, line),
            Handshake(command, line) => (Some(command), line),
            _ => return None,
        };
        let tell = move |server: &ScriptedServer, answer| {
            match command {
                Some(command) => server.on(command, answer),
                None => server.greet(answer),
            };
        };
        Some((line, row, tell))
    })
}

/// Of anything else half is nonsense already, and the driver skips single bytes of it.
fn is_of_the_protocol(line: &str) -> bool {
    line.starts_with(['-', '+', ':', '$', '*'])
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Acquire,
    Extend,
    Release,
    ForceRelease,
    Inspect,
    List,
}

use Operation::{Acquire, Extend, ForceRelease, Inspect, List, Release};

const OPERATIONS: [Operation; 6] = [Acquire, Extend, Release, ForceRelease, Inspect, List];

/// What an error says of the fault, and whether it says that an operator has to act.
macro_rules! told {
    ($outcome:expr, $error:ident $(, $ambiguous:pat => $fault:expr)?) => {
        match $outcome.expect_err("the server does not do it") {
            $error::Misconfigured(fault) => (fault.kind(), true),
            $error::Fault(fault) => (fault.kind(), false),
            $error::Saturated => (FaultKind::Saturated, false),
            $($ambiguous => ($fault.kind(), false),)?
            error => panic!("not the answer to a fault: {error:?}"),
        }
    };
}

impl Operation {
    /// Does it, and looks at what the caller is told and how many connections were given up.
    async fn fails(self, locks: &SpoolLocks) -> Seen {
        let (tag, worker) = (tag(), worker());
        let (kind, is_misconfigured) = match self {
            Acquire => {
                told!(locks.acquire(&tag, &worker).await, AcquireError, AcquireError::Ambiguous { claim, fault } => {
                    // Nobody is to find out in the background.
                    claim.into_token();
                    fault
                })
            }
            Extend => told!(locks.extend(&tag, &worker, Ttl::HOUR).await, ExtendError),
            Release => {
                told!(locks.release(&tag, &worker).await, ReleaseError, ReleaseError::Ambiguous { fault, .. } => fault)
            }
            ForceRelease => told!(locks.force_release(&tag, "operator", "test").await, ForceReleaseError),
            Inspect => told!(locks.inspect(&tag).await, ReadError),
            List => told!(locks.list().await, ReadError),
        };
        Seen { kind, is_misconfigured, connection: given_up(locks) }
    }
}

/// What became of the one connection.
fn given_up(locks: &SpoolLocks) -> Connection {
    let closed = locks.stats().pool.connections_closed_total;
    let reasons: Vec<_> = closed.into_iter().filter(|(_, closed)| *closed > 0).collect();
    match &reasons[..] {
        [] => Kept,
        [(reason, 1)] => {
            let known = ["disconnected", "read_only", "timeout"];
            Evicted(
                known.into_iter().find(|known| known == reason).expect("a reason to give up a connection"),
            )
        }
        _ => panic!("there was one connection: {reasons:?}"),
    }
}

fn tag() -> Tag {
    Tag::new("TEST-02").expect("a tag")
}

fn worker() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

fn number(number: i64) -> Answer {
    Answer::line(&format!(":{number}"))
}

/// A script's reply: a code, the time, and a number.
fn reply(code: i64, last: i64) -> Answer {
    Answer::array([number(code), number(NOW), number(last)])
}

/// "Nobody holds it", in answer to `inspect`.
fn free() -> Answer {
    reply(2, -1)
}

/// A scripted server that lets us connect.
fn server() -> ScriptedServer {
    let server = ScriptedServer::start();
    server.once("EVALSHA", Answer::array([number(1), number(NOW)]));
    server
}

/// Each call is one try, and is told what is said to it.
fn config(url: &str) -> Config {
    let mut config = Config::new(url).expect("the address is right");
    (config.retry.attempts, config.circuit.faults) = (1, 1000);
    // Nor is anything kept for later.
    config.deferred = 0;
    config
}

async fn connected(config: Config) -> SpoolLocks {
    SpoolLocks::connect(config).await.expect("it answers like a healthy one")
}

async fn scripted() -> (ScriptedServer, SpoolLocks) {
    let server = server();
    let locks = connected(config(&server.url())).await;
    (server, locks)
}

/// What a connect that fails has told.
async fn connect_fails(config: Config) -> Seen {
    match SpoolLocks::connect(config).await {
        Err(ConnectError::Fault(fault)) => refused_at_connect(&fault),
        Err(other) => panic!("another error than a fault: {other:?}"),
        Ok(_) => panic!("it cannot be connected to"),
    }
}

fn refused_at_connect(fault: &Fault) -> Seen {
    Seen { kind: fault.kind(), is_misconfigured: fault.is_misconfigured(), connection: Never }
}

/// A young connection to a replica is kept: the next one would lead to the same.
async fn grow_old() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(1_100)).await;
    tokio::time::resume();
}

/// `operation` meets `answer`; afterwards the server is well, and the next call takes the connection that was kept, or a new one.
async fn assert_script_is_answered(answer: Answer, operation: Operation, expected: &Seen, line: &str) {
    let (server, locks) = scripted().await;
    grow_old().await;
    server.on("EVALSHA", answer.clone()).on("EVAL", answer);
    assert_eq!(operation.fails(&locks).await, *expected, "{operation:?}: {line}");
    // Where an operator has to act, the next call need not be sent.
    if !expected.is_misconfigured {
        server.on("EVALSHA", free());
        let next = locks.inspect(&tag()).await.unwrap_or_else(|error| panic!("after {line}: {error:?}"));
        assert_eq!(next.value, None);
        let opened = 1 + usize::from(expected.connection != Kept);
        assert_eq!(server.connections_opened(), opened, "{operation:?}: {line}");
    }
}

#[tokio::test]
async fn each_word_of_the_server_is_one_kind_of_fault() {
    for (line, row) in script_rows() {
        for operation in OPERATIONS {
            assert_script_is_answered(Answer::line(line), operation, &row.expected(), line).await;
        }
    }
}

#[tokio::test]
async fn a_word_that_comes_byte_by_byte_is_the_same_word() {
    for (line, row) in script_rows().filter(|(line, _)| is_of_the_protocol(line)) {
        for operation in [Acquire, Inspect] {
            let answer = Answer::line(line).byte_by_byte();
            assert_script_is_answered(answer, operation, &row.expected(), line).await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_in_the_middle_of_a_word_is_lost_whatever_the_word() {
    let lost = Seen { kind: FaultKind::Disconnected, is_misconfigured: false, connection: LOST };
    for (line, _) in script_rows().filter(|(line, _)| is_of_the_protocol(line)) {
        for operation in [Acquire, Inspect] {
            assert_script_is_answered(Answer::line(line).cut(), operation, &lost, line).await;
        }
    }
}

#[tokio::test]
async fn a_reply_that_can_be_read_and_not_understood_breaks_no_connection() {
    let not_understood = Seen { kind: FaultKind::Protocol, is_misconfigured: false, connection: Kept };
    for line in SHAPES {
        for operation in OPERATIONS {
            assert_script_is_answered(Answer::line(line), operation, &not_understood, line).await;
        }
    }
}

/// The address of a database of its own: the handshake selects it.
fn with_database(server: &ScriptedServer) -> Config {
    config(&format!("{}/9", server.url()))
}

#[tokio::test]
async fn each_word_that_refuses_a_new_connection_is_one_kind_of_fault() {
    for (line, row, tell) in handshake_rows() {
        let server = server();
        tell(&server, Answer::line(line));
        assert_eq!(connect_fails(with_database(&server)).await, row.expected(), "{line}");
    }
}

#[tokio::test]
async fn a_refusal_that_comes_byte_by_byte_is_the_same_refusal() {
    for (line, row, tell) in handshake_rows().filter(|(line, ..)| is_of_the_protocol(line)) {
        let server = server();
        tell(&server, Answer::line(line).byte_by_byte());
        assert_eq!(connect_fails(with_database(&server)).await, row.expected(), "{line}");
    }
}

#[tokio::test]
async fn a_new_connection_that_ends_in_the_middle_of_a_word_was_turned_away() {
    let turned_away = Seen { kind: FaultKind::ClosedInHandshake, is_misconfigured: false, connection: Never };
    for (line, _, tell) in handshake_rows().filter(|(line, ..)| is_of_the_protocol(line)) {
        let server = server();
        tell(&server, Answer::line(line).cut());
        assert_eq!(connect_fails(with_database(&server)).await, turned_away, "{line}");
    }
}

/// The caller whose call needs a new connection is told why there is none.
#[tokio::test]
async fn a_call_is_told_why_its_connection_was_refused() {
    for (line, row, tell) in handshake_rows() {
        let server = server();
        let locks = connected(with_database(&server)).await;
        server.once("EVALSHA", Answer::close());
        tell(&server, Answer::line(line));
        assert_eq!(Inspect.fails(&locks).await.kind, FaultKind::Disconnected);
        let seen = Inspect.fails(&locks).await;
        // Nothing of the call was sent: never a kind that leaves open what the server did.
        let kind = if row.kind.is_ambiguous() { FaultKind::Connect } else { row.kind };
        assert_eq!((seen.kind, seen.is_misconfigured), (kind, row.against == SetUp), "{line}");
    }
}

#[tokio::test]
async fn each_thing_that_happens_is_one_kind_of_fault() {
    for row in ROWS.iter().filter(|row| cfg!(feature = "tls-ring") || row.kind != FaultKind::Tls) {
        if let Scene(text, scene) = row.case {
            assert_eq!(scene().await, row.expected(), "{text}");
        }
    }
}

async fn no_reply() -> Seen {
    let server = server();
    let mut config = config(&server.url());
    config.deadline = Duration::from_millis(400);
    let locks = connected(config).await;
    server.on("EVALSHA", Answer::silence());
    Inspect.fails(&locks).await
}

async fn closed_instead_of_a_reply() -> Seen {
    let (server, locks) = scripted().await;
    server.on("EVALSHA", Answer::close());
    Acquire.fails(&locks).await
}

async fn no_lease() -> Seen {
    let (server, locks) = scripted().await;
    server.on("EVALSHA", Answer::array([number(3), number(NOW), number(5_000), Answer::bulk("garbage")]));
    Inspect.fails(&locks).await
}

async fn late_twice() -> Seen {
    let (server, locks) = scripted().await;
    server.on("EVALSHA", Answer::array([number(0), number(NOW)]));
    Acquire.fails(&locks).await
}

async fn fence_goes_backwards() -> Seen {
    let (server, locks) = scripted().await;
    server.once("EVALSHA", reply(1, NOW)).once("EVALSHA", reply(1, NOW - 1));
    locks.acquire(&tag(), &worker()).await.expect("the first is granted");
    Acquire.fails(&locks).await
}

/// One connection for one call at a time, and a call on it that is not answered.
async fn full(max_waiters: u32) -> (ScriptedServer, SpoolLocks, tokio::task::JoinHandle<()>) {
    let server = server();
    let mut config = config(&server.url());
    (config.pool.max_connections, config.pool.depth, config.pool.max_waiters) = (1, 1, max_waiters);
    config.deadline = Duration::from_millis(100);
    let locks = connected(config).await;
    server.on("EVALSHA", Answer::silence());
    let unanswered = locks.clone();
    let unanswered = tokio::spawn(async move {
        let _ = unanswered.acquire(&tag(), &worker()).deadline(Duration::from_secs(60)).await;
    });
    eventually(Duration::from_secs(10), async || locks.stats().pool.in_flight == 1).await;
    (server, locks, unanswered)
}

async fn no_slot_in_time() -> Seen {
    let (_server, locks, unanswered) = full(1).await;
    let seen = Inspect.fails(&locks).await;
    unanswered.abort();
    seen
}

async fn too_many_wait() -> Seen {
    let (_server, locks, unanswered) = full(0).await;
    let seen = Inspect.fails(&locks).await;
    unanswered.abort();
    seen
}

async fn nobody_listens() -> Seen {
    connect_fails(config(&format!("redis://127.0.0.1:{}", free_port()))).await
}

async fn silence_at_connect() -> Seen {
    let server = server();
    server.on("HELLO", Answer::silence());
    let mut config = config(&server.url());
    config.pool.connect_timeout = Duration::from_millis(50);
    connect_fails(config).await
}

async fn closed_at_connect() -> Seen {
    let server = server();
    server.greet(Answer::close());
    connect_fails(config(&server.url())).await
}

async fn password_given(credentials: &str) -> Seen {
    let server = RedisServer::builder().password("sesame").start();
    connect_fails(config(&format!("redis://{credentials}127.0.0.1:{}", server.port()))).await
}

async fn strange_authority() -> Seen {
    let (files, strange) = (TlsFiles::generate(), TlsFiles::generate());
    let server = RedisServer::builder().tls(&files).start();
    let mut config = config(&server.url());
    config.tls_ca_file = Some(strange.ca());
    connect_fails(config).await
}

async fn tls_without_an_answer_in_tls() -> Seen {
    let (files, server) = (TlsFiles::generate(), server());
    server.greet(Answer::line("-ERR Protocol error"));
    let mut config = config(&server.url().replace("redis://", "rediss://"));
    config.tls_ca_file = Some(files.ca());
    connect_fails(config).await
}

async fn no_tls() -> Seen {
    let files = TlsFiles::generate();
    let server = RedisServer::builder().tls(&files).start();
    connect_fails(config(&server.url().replace("rediss://", "redis://"))).await
}

#[test]
fn every_kind_has_a_row() {
    // No server says it: Redis was not asked.
    for kind in FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::CircuitOpen) {
        assert!(ROWS.iter().any(|row| row.kind == kind), "{kind:?}");
    }
}

/// The table between the marks of `docs/faults.md`; `UPDATE_DOCS=1 cargo test --test classes` rewrites it.
#[test]
fn the_table_of_the_documentation_is_this_one() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
    const BEGIN: &str = "<!-- classes -->\n";
    const END: &str = "<!-- /classes -->\n";
    let page = fs::read_to_string(FILE).expect("the page");
    let (head, rest) = page.split_once(BEGIN).expect("the table begins with its mark");
    let (_, tail) = rest.split_once(END).expect("the table ends with its mark");
    let wanted = [head, BEGIN, &table(), END, tail].concat();
    if env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        fs::write(FILE, wanted).expect("the page can be written");
    } else {
        assert!(
            page == wanted,
            "docs/faults.md is not the table: run UPDATE_DOCS=1 cargo test --test classes"
        );
    }
}

fn table() -> String {
    let head = "| what is said, or happens | kind | counts against | tried again | connection |\n\
                | --- | --- | --- | --- | --- |\n";
    let lines = ROWS.iter().map(|row| {
        let against = match row.against {
            Nobody => "nobody",
            Link => "link",
            Writes => "writes",
            SetUp => "set-up",
        };
        let again = if row.is_retried { "yes" } else { "no" };
        let connection = match row.connection {
            Kept => "kept".to_owned(),
            Evicted(reason) => format!("evicted, `{reason}`"),
            Never => "none".to_owned(),
        };
        let (text, kind) = (row.case.text(), row.kind.as_str());
        format!("| {text} | `{kind}` | {against} | {again} | {connection} |\n")
    });
    [head.to_owned()].into_iter().chain(lines).collect()
}
