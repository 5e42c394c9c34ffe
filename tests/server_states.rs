//! What is wrong with a server is said, each thing by its own name, and what still works goes on working.

mod support;

use std::{
    error::Error as _,
    path::{Path, PathBuf},
    time::Duration,
};

use spool_lock::{
    AcquireError, Config, ConnectError, ExtendError, Fault, FaultKind, ForceReleaseError, HealthStatus,
    Holder, Mode, ReadError, ReleaseError, SpoolLocks, Tag, Ttl,
};
use support::{Answer, ClockShim, RedisServer, ScriptedServer, TlsFiles, eventually};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(10);

async fn connect(url: &str) -> SpoolLocks {
    try_connect(url).await.expect("the server can be connected to")
}

async fn try_connect(url: &str) -> Result<SpoolLocks, ConnectError> {
    let mut config = Config::new(url).expect("the address is right");
    // Each call is one try, and is told what the server says to it.
    (config.retry.attempts, config.circuit.faults, config.deferred) = (1, 1000, 0);
    SpoolLocks::connect(config).await
}

fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a tag")
}

fn worker() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

/// The kinds of fault that each operation on one tag meets; `None` where it was answered.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Faults {
    acquire: Option<FaultKind>,
    extend: Option<FaultKind>,
    release: Option<FaultKind>,
    force_release: Option<FaultKind>,
    inspect: Option<FaultKind>,
    list: Option<FaultKind>,
}

impl Faults {
    fn writes(kind: FaultKind) -> Self {
        Self { inspect: None, list: None, ..Self::all(kind) }
    }

    fn all(kind: FaultKind) -> Self {
        let kind = Some(kind);
        Self { acquire: kind, extend: kind, release: kind, force_release: kind, inspect: kind, list: kind }
    }

    async fn of(locks: &SpoolLocks, tag: &Tag) -> Self {
        let (worker, ttl) = (worker(), Ttl::HOUR);
        Self {
            acquire: match locks.acquire(tag, &worker).ttl(ttl).await {
                Err(AcquireError::Fault(fault) | AcquireError::Ambiguous { fault, .. }) => Some(fault.kind()),
                Err(error @ (AcquireError::InvalidNote(_) | AcquireError::Saturated)) => panic!("{error:?}"),
                _ => None,
            },
            extend: match locks.extend(tag, &worker, ttl).await {
                Err(ExtendError::Fault(fault)) => Some(fault.kind()),
                _ => None,
            },
            inspect: match locks.inspect(tag).await {
                Err(ReadError::Fault(fault)) => Some(fault.kind()),
                _ => None,
            },
            list: match locks.list().await {
                Err(ReadError::Fault(fault)) => Some(fault.kind()),
                _ => None,
            },
            release: match locks.release(tag, &worker).await {
                Err(ReleaseError::Fault(fault) | ReleaseError::Ambiguous { fault, .. }) => Some(fault.kind()),
                _ => None,
            },
            force_release: match locks.force_release(tag, "operator", "test").await {
                Err(ForceReleaseError::Fault(fault)) => Some(fault.kind()),
                _ => None,
            },
        }
    }
}

/// The health check says what is wrong, in the words of the fault.
async fn assert_not_operational(locks: &SpoolLocks, kind: FaultKind) {
    let health = locks.health().await;
    // What takes no writes can be read.
    let is_read = matches!(
        kind,
        FaultKind::ReadOnly | FaultKind::Misconf | FaultKind::OutOfMemory | FaultKind::NoReplicas
    );
    // And so can what lacks the right to a command of a write.
    let is_read = is_read || health.details.mode == Mode::ReadOnlyServer;
    let verdict = if is_read { HealthStatus::Degraded } else { HealthStatus::Unhealthy };
    assert_eq!((health.status, health.operational), (verdict, false), "{health:?}");
    let error = health.details.redis_error.expect("something is wrong");
    assert!(error.contains(&kind.to_string()), "{error}");
}

async fn assert_operational(locks: &SpoolLocks) {
    let health = locks.health().await;
    assert!(health.operational && health.details.redis_error.is_none(), "{health:?}");
}

#[track_caller]
fn assert_connect_fault(outcome: Result<SpoolLocks, ConnectError>, kinds: &[FaultKind]) -> Fault {
    match outcome {
        Err(ConnectError::Fault(fault)) if kinds.contains(&fault.kind()) => fault,
        other => panic!("{kinds:?} was expected: {other:?}"),
    }
}

fn warnings(locks: &SpoolLocks) -> Vec<String> {
    let warnings = locks.stats().server.warnings;
    assert!(warnings.iter().all(|warning| !warning.message.is_empty()));
    warnings.into_iter().map(|warning| warning.name).collect()
}

#[tokio::test]
async fn with_full_memory_leases_end_and_go_on_and_none_begins() {
    let server = RedisServer::start();
    let (locks, worker) = (connect(&server.url()).await, worker());
    let held = ["TEST-02", "TEST-03", "TEST-04"].map(tag);
    for tag in &held {
        locks.acquire(tag, &worker).await.unwrap();
    }
    // Release, extend and force_release have not run yet: the server has to learn them while it is full.
    server.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    let free = tag("TEST-05");
    match locks.acquire(&free, &worker).await {
        Err(AcquireError::Fault(fault)) => assert_eq!(fault.kind(), FaultKind::OutOfMemory),
        other => panic!("the memory is full: {other:?}"),
    }
    locks.extend(&held[0], &worker, Ttl::MAX).await.unwrap();
    let request = spool_lock::RequestId::random();
    for _ in 0..2 {
        locks.release(&held[0], &worker).request(request).await.unwrap();
    }
    locks.extend(&held[1], &worker, Ttl::MIN).shorten().await.unwrap();
    assert!(locks.force_release(&held[2], "operator", "test").await.unwrap().is_some());
    eventually(SOON, async || locks.list().await.unwrap().value.is_empty()).await;
    assert_not_operational(&locks, FaultKind::OutOfMemory).await;
    assert_eq!(locks.inspect(&free).await.unwrap().value, None);

    server.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_operational(&locks).await;
    locks.acquire(&free, &worker).await.unwrap();
}

#[tokio::test]
async fn a_replica_is_read_and_refuses_every_write_as_such() {
    let primary = RedisServer::start();
    let replica = RedisServer::builder().replica_of(&primary).start();
    let (locks, tag) = (connect(&primary.url()).await, tag("TEST-02"));
    let lease = locks.acquire(&tag, &worker()).await.unwrap();
    let reader = connect(&replica.url()).await;
    assert!(warnings(&reader).contains(&"replica".to_owned()));
    assert_eq!(reader.stats().server.role, "slave");
    let seen = eventually(SOON, async || reader.inspect(&tag).await.ok().and_then(|it| it.value)).await;
    assert_eq!(seen.fence, lease.fence);
    assert_eq!(reader.list().await.unwrap().value.len(), 1);

    let free = self::tag("TEST-03");
    for tag in [&tag, &free] {
        assert_eq!(Faults::of(&reader, tag).await, Faults::writes(FaultKind::ReadOnly));
    }
    assert_not_operational(&reader, FaultKind::ReadOnly).await;
    assert_eq!(locks.inspect(&tag).await.unwrap().value.map(|it| it.fence), Some(lease.fence));
}

/// The connection stays open when a master is demoted; a release over it must not be answered "not held".
#[tokio::test]
async fn a_demoted_master_refuses_what_it_is_asked_on_old_connections() {
    let server = RedisServer::start();
    let (locks, tag) = (connect(&server.url()).await, tag("TEST-02"));
    let lease = locks.acquire(&tag, &worker()).await.unwrap();
    server.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(Faults::of(&locks, &tag).await, Faults::writes(FaultKind::ReadOnly));
    assert_eq!(Faults::of(&locks, &self::tag("TEST-03")).await, Faults::writes(FaultKind::ReadOnly));
    assert_not_operational(&locks, FaultKind::ReadOnly).await;
    server.cmd(&["REPLICAOF", "NO", "ONE"]);
    assert_operational(&locks).await;
    locks.release_lease(&lease).await.unwrap();
}

#[tokio::test]
async fn what_is_not_a_lock_is_said_to_be_none_and_not_waited_for() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let no_lease: [(&str, &[&str]); 12] = [
        ("hash", &["HSET", "KEY", "holder", "93"]),
        ("list", &["RPUSH", "KEY", "93"]),
        ("set", &["SADD", "KEY", "93"]),
        ("stream", &["XADD", "KEY", "*", "a", "b"]),
        ("garbage", &["SET", "KEY", "garbage", "PX", "60000"]),
        ("garbage-for-ever", &["SET", "KEY", "garbage"]),
        ("empty", &["SET", "KEY", "", "PX", "60000"]),
        ("other-version", &["SET", "KEY", "2|AAAAAAAAAAAAAAAAAAAAAA|17|17|i|93||", "PX", "60000"]),
        ("no-fence", &["SET", "KEY", "1|AAAAAAAAAAAAAAAAAAAAAA||17|i|93||", "PX", "60000"]),
        ("no-holder", &["SET", "KEY", "1|AAAAAAAAAAAAAAAAAAAAAA|17|17|i|||", "PX", "60000"]),
        ("more-fields", &["SET", "KEY", "1|AAAAAAAAAAAAAAAAAAAAAA|17|17|i|93|||", "PX", "60000"]),
        ("worker-id", &["SET", "KEY", "93:0f8c", "PX", "60000"]),
    ];
    let sound = locks.acquire(&tag("sound"), &worker()).await.unwrap();
    for (name, command) in no_lease {
        let (tag, key) = (tag(name), format!("spool:{{{name}}}:lock"));
        let command: Vec<_> =
            command.iter().map(|word| if *word == "KEY" { key.as_str() } else { *word }).collect();
        server.cmd(&command);
        assert_eq!(locks.list().await.unwrap().value.len(), 1, "{name}: only locks are listed");
        let asked = Instant::now();
        let faults = Faults::of(&locks, &tag).await;
        assert!(asked.elapsed() < SOON / 2, "nothing waits for it");
        let expected = Faults { list: None, force_release: None, ..Faults::all(FaultKind::NotALock) };
        assert_eq!(faults, expected, "{name}");

        // The operator's call above has freed the place.
        let lease = locks.acquire(&tag, &worker()).await.unwrap();
        server.cmd(&["DEL", &key]);
        server.cmd(&command);
        assert_eq!(locks.force_release(&tag, "operator", "test").await.unwrap(), None, "{name}: nobody's");
        let next = locks.acquire(&tag, &worker()).await.unwrap();
        assert!(next.fence > lease.fence);
        locks.release_lease(&next).await.unwrap();
    }
    locks.release_lease(&sound).await.unwrap();
}

#[tokio::test]
async fn a_lease_whose_ttl_was_taken_away_is_said_and_its_holder_may_still_end_it() {
    let server = RedisServer::start();
    let (locks, tag) = (connect(&server.url()).await, tag("TEST-02"));
    let lease = locks.acquire(&tag, &worker()).await.unwrap();
    server.cmd(&["PERSIST", "spool:{TEST-02}:lock"]);
    match locks.acquire(&tag, &worker()).await {
        Err(AcquireError::Fault(fault)) => assert_eq!(fault.kind(), FaultKind::NotALock),
        other => panic!("{other:?}"),
    }
    match locks.extend(&tag, &worker(), Ttl::HOUR).await {
        Err(ExtendError::Fault(fault)) => assert_eq!(fault.kind(), FaultKind::NotALock),
        other => panic!("{other:?}"),
    }
    locks.release_lease(&lease).await.unwrap();
    assert!(locks.acquire(&tag, &worker()).await.unwrap().fence > lease.fence);
}

#[tokio::test]
async fn a_counter_of_another_type_is_said_and_freed_by_an_operator() {
    let server = RedisServer::start();
    let (locks, tag) = (connect(&server.url()).await, tag("TEST-02"));
    let fence_key = "spool:{TEST-02}:fence";
    let lease = locks.acquire(&tag, &worker()).await.unwrap();
    for is_held in [true, false] {
        server.cmd(&["DEL", fence_key]);
        server.cmd(&["HSET", fence_key, "a", "b"]);
        let released = locks.release(&tag, &worker()).await;
        match released {
            Err(ReleaseError::Fault(fault)) => assert_eq!(fault.kind(), FaultKind::NotALock),
            other => panic!("held: {is_held}: {other:?}"),
        }
        let ended = locks.force_release(&tag, "operator", "test").await.unwrap();
        assert_eq!(ended.map(|it| it.fence), is_held.then_some(lease.fence));
    }
    assert!(locks.acquire(&tag, &worker()).await.unwrap().fence > lease.fence);
}

#[tokio::test]
async fn a_server_that_cannot_save_refuses_writes_as_such() {
    let server = RedisServer::start();
    let (locks, held) = (connect(&server.url()).await, tag("TEST-02"));
    let lease = locks.acquire(&held, &worker()).await.unwrap();
    // The dump cannot replace a directory; `save` must be on, or the server does not mind.
    let dir: Vec<String> = server.query(&["CONFIG", "GET", "dir"]);
    let dump = Path::new(&dir[1]).join("dump.rdb");
    std::fs::create_dir(&dump).unwrap();
    server.cmd(&["CONFIG", "SET", "save", "1 1"]);
    eventually(SOON, async || {
        // Refused while another one is under way.
        let _ = server.try_query::<String>(&["BGSAVE"]);
        server.info("persistence")["rdb_last_bgsave_status"] == "err"
    })
    .await;
    for tag in [&held, &tag("TEST-03")] {
        assert_eq!(Faults::of(&locks, tag).await, Faults::writes(FaultKind::Misconf));
    }
    assert_eq!(locks.list().await.unwrap().value.len(), 1);
    assert_not_operational(&locks, FaultKind::Misconf).await;

    server.cmd(&["CONFIG", "SET", "save", ""]);
    assert_operational(&locks).await;
    locks.release_lease(&lease).await.unwrap();
}

#[tokio::test]
async fn a_server_without_its_replicas_refuses_writes_as_such() {
    let server = RedisServer::start();
    let (locks, tag) = (connect(&server.url()).await, tag("TEST-02"));
    let lease = locks.acquire(&tag, &worker()).await.unwrap();
    server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert_eq!(Faults::of(&locks, &tag).await, Faults::writes(FaultKind::NoReplicas));
    assert_not_operational(&locks, FaultKind::NoReplicas).await;
    server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    locks.release_lease(&lease).await.unwrap();
}

#[tokio::test]
async fn a_server_in_somebodys_endless_script_is_busy() {
    let server = RedisServer::builder().arg("busy-reply-threshold", "20").start();
    let (locks, tag) = (connect(&server.url()).await, tag("TEST-02"));
    let lease = locks.acquire(&tag, &worker()).await.unwrap();
    let url = server.url();
    let somebody = std::thread::spawn(move || {
        let mut connection = redis::Client::open(url)?.get_connection()?;
        redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut connection)
    });
    eventually(SOON, async || {
        server.try_query::<String>(&["PING"]).is_err_and(|error| error.code() == Some("BUSY"))
    })
    .await;
    let faults = Faults::of(&locks, &tag).await;
    // What was seen of the tag is remembered.
    assert_eq!(faults, Faults { inspect: None, ..Faults::all(FaultKind::Busy) });
    assert_not_operational(&locks, FaultKind::Busy).await;
    server.cmd(&["SCRIPT", "KILL"]);
    assert!(somebody.join().unwrap().is_err());
    assert_operational(&locks).await;
    locks.release_lease(&lease).await.unwrap();
}

/// A scripted server that has let us connect.
async fn scripted() -> (ScriptedServer, SpoolLocks) {
    let server = ScriptedServer::start();
    let well = Answer::array([Answer::line(":1"), Answer::line(":1700000000000000")]);
    server.once("EVALSHA", well);
    let mut config = Config::new(&server.url()).expect("the address is right");
    config.deadline = Duration::from_millis(500);
    (config.retry.attempts, config.circuit.faults, config.deferred) = (1, 1000, 0);
    let locks = SpoolLocks::connect(config).await.expect("it answers like a healthy one");
    (server, locks)
}

/// The server may have granted or released before it said something that nobody understands.
#[tokio::test]
async fn an_answer_that_is_not_understood_leaves_the_outcome_open() {
    let (server, locks) = scripted().await;
    let (tag, worker) = (tag("TEST-02"), worker());
    for answer in [Answer::line("+OK"), Answer::line("*0"), Answer::raw("?what\r\n")] {
        server.on("EVALSHA", answer.clone());
        let acquired = locks.acquire(&tag, &worker).await;
        assert!(matches!(acquired, Err(AcquireError::Ambiguous { .. })), "{answer:?}: {acquired:?}");
        let released = locks.release(&tag, &worker).await;
        assert!(matches!(released, Err(ReleaseError::Ambiguous { .. })), "{answer:?}: {released:?}");
    }
    // An error is an answer: the script did not run, or ended before it wrote.
    server.on("EVALSHA", Answer::line("-ERR something else"));
    let acquired = locks.acquire(&tag, &worker).await;
    assert!(matches!(acquired, Err(AcquireError::Fault(_))), "{acquired:?}");
}

#[tokio::test]
async fn a_silent_server_is_a_timeout_within_the_deadline() {
    let (server, locks) = scripted().await;
    // Nor to what the process finds out by itself: that answer would be taken for the one before.
    for command in ["EVALSHA", "INFO", "GET"] {
        server.on(command, Answer::silence());
    }
    let asked = Instant::now();
    let faults = Faults::of(&locks, &tag("TEST-02")).await;
    let took = asked.elapsed();
    assert_eq!(faults, Faults::all(FaultKind::Timeout));
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6), "six calls of 500 ms: {took:?}");
}

/// The scripts may be run by whom the commands within them are refused.
#[tokio::test]
async fn a_right_that_is_missing_within_a_script_is_told_and_is_not_healthy() {
    let server = RedisServer::start();
    let enough = "+eval +evalsha +time +get +set +del +exists +pttl +pexpire +type +scan \
                  +zadd +zrem +zrange +hset +hget +hdel";
    for missing in [
        "get", "set", "del", "exists", "pttl", "pexpire", "type", "zadd", "zrem", "zrange", "hset", "hget",
        "hdel",
    ] {
        let rights: Vec<_> = enough.split(' ').filter(|right| *right != format!("+{missing}")).collect();
        let rights = rights.join(" ");
        let rules = format!("ACL SETUSER no-{missing} on >sesame ~spool:* {rights} +info");
        server.cmd(&rules.split_whitespace().collect::<Vec<_>>());
        let locks = connect(&format!("redis://no-{missing}:sesame@127.0.0.1:{}", server.port())).await;
        let warning =
            locks.stats().server.warnings.into_iter().find(|warning| warning.name == "scripts_denied");
        let message = warning.expect(missing).message;
        assert!(message.contains(&format!("may not run {missing} ")), "{message}");
        assert_not_operational(&locks, FaultKind::Permission).await;
    }
    // And what the message says is enough is enough.
    let rules = format!("ACL SETUSER enough on >sesame ~spool:* {enough} +info");
    server.cmd(&rules.split_whitespace().collect::<Vec<_>>());
    let locks = connect(&format!("redis://enough:sesame@127.0.0.1:{}", server.port())).await;
    assert_operational(&locks).await;
    let lease = locks.acquire(&tag("TEST-02"), &worker()).await.unwrap();
    locks.extend(&tag("TEST-02"), &worker(), Ttl::HOUR).await.unwrap();
    assert_eq!(locks.list().await.unwrap().value.len(), 1);
    locks.force_release(&tag("TEST-02"), "operator", "test").await.unwrap();
    assert!(locks.release_lease(&lease).await.is_err());
}

#[tokio::test]
async fn a_user_without_rights_is_told_which() {
    let server = RedisServer::start();
    for (user, rights, warning) in [
        ("no-evalsha", "~* +@all -evalsha", "scripts_denied"),
        ("no-eval", "~* +@all -eval", "scripts_denied"),
        ("other-keys", "~other:* +@all", "scripts_denied"),
        ("no-info", "~* +@all -info", "info_denied"),
    ] {
        let rules = format!("ACL SETUSER {user} on >sesame &* {rights}");
        server.cmd(&rules.split(' ').collect::<Vec<_>>());
        // Whether a user may run the text of a script shows only where the server does not know it.
        server.cmd(&["SCRIPT", "FLUSH"]);
        let locks = connect(&format!("redis://{user}:sesame@127.0.0.1:{}", server.port())).await;
        assert!(warnings(&locks).contains(&warning.to_owned()), "{user}: {:?}", warnings(&locks));
        let acquired = locks.acquire(&tag("TEST-02"), &worker()).await;
        if warning == "info_denied" {
            let lease = acquired.unwrap();
            assert_eq!(locks.stats().server.version, "", "unknown");
            locks.release_lease(&lease).await.unwrap();
            continue;
        }
        match acquired {
            Err(AcquireError::Misconfigured(fault)) => {
                assert_eq!(fault.kind(), FaultKind::Permission, "{user}")
            }
            other => panic!("{user}: {other:?}"),
        }
        assert_not_operational(&locks, FaultKind::Permission).await;
    }
}

/// By whoever set up the server, so that nobody has them.
#[tokio::test]
async fn a_command_that_was_renamed_is_a_right_that_is_missing() {
    for command in ["EVALSHA", "GET"] {
        let server = RedisServer::builder().arg("rename-command", &format!("{command} GONE")).start();
        let locks = connect(&server.url()).await;
        assert!(warnings(&locks).contains(&"scripts_denied".to_owned()), "{command}: {:?}", warnings(&locks));
        match locks.acquire(&tag("TEST-02"), &worker()).await {
            Err(AcquireError::Misconfigured(fault)) => assert_eq!(fault.kind(), FaultKind::Permission),
            other => panic!("{command}: {other:?}"),
        }
        assert_not_operational(&locks, FaultKind::Permission).await;
    }
}

/// Without the channels locks work, and nobody hears of them.
#[tokio::test]
async fn a_user_without_rights_on_the_channels_is_told_which() {
    let server = RedisServer::start();
    let enough = "+publish +subscribe +psubscribe +unsubscribe +punsubscribe &spool:events:* &spool:grants:*";
    for (user, rights, refused) in [
        ("mute", "+@all -publish &*", Some("PUBLISH")),
        ("deaf", "+@all -subscribe &*", Some("SUBSCRIBE")),
        ("no-channels", "+@all", Some("PUBLISH")),
        ("no-grants", "+@all &spool:events:*", Some("PUBLISH")),
        // The server takes a pattern for allowed only where it is granted to the letter.
        ("no-pattern", "+@all &spool:*", Some("PSUBSCRIBE")),
        ("enough", &format!("+@all -@pubsub {enough}"), None),
        ("all", "+@all &*", None),
        // Whoever may run no script may not ask either.
        ("unknown", "+@all -eval -evalsha", None),
    ] {
        let rules = format!("ACL SETUSER {user} on >sesame ~* resetchannels {rights}");
        server.cmd(&rules.split(' ').collect::<Vec<_>>());
        let said = || server.calls("publish") + server.calls("subscribe") + server.calls("psubscribe");
        let before = said();
        let locks = connect(&format!("redis://{user}:sesame@127.0.0.1:{}", server.port())).await;
        assert_eq!(said(), before, "it is found out without doing it");
        let warnings = locks.stats().server.warnings;
        let warning = warnings.into_iter().find(|warning| warning.name == "events_permission");
        let message = warning.map(|warning| warning.message);
        match refused {
            None => assert_eq!(message, None, "{user}"),
            Some(refused) => {
                let message = message.expect(user);
                assert!(message.contains(&format!("may not run {refused} on")), "{user}: {message}");
                assert!(message.contains(enough), "{message}");
                let lease = locks.acquire(&tag("TEST-02"), &worker()).await.unwrap();
                locks.release_lease(&lease).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn wrong_credentials_are_a_fault_of_their_own() {
    let server = RedisServer::builder().password("sesame").start();
    let port = server.port();
    for url in [
        format!("redis://127.0.0.1:{port}"),
        format!("redis://:wrong@127.0.0.1:{port}"),
        format!("redis://nobody:sesame@127.0.0.1:{port}"),
    ] {
        assert_connect_fault(try_connect(&url).await, &[FaultKind::Auth]);
    }
    let locks = connect(&server.url()).await;
    server.cmd(&["CONFIG", "SET", "requirepass", "changed"]);
    server.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let faults = eventually(SOON, async || match locks.inspect(&tag("TEST-02")).await {
        Err(ReadError::Misconfigured(fault)) if fault.kind() == FaultKind::Auth => Ok(()),
        other => Err(other),
    });
    faults.await;
}

#[tokio::test]
async fn no_server_and_a_full_server_are_told_apart() {
    let port = support::free_port();
    assert_connect_fault(try_connect(&format!("redis://127.0.0.1:{port}")).await, &[FaultKind::Connect]);
    // The test's own connection is the one client that it has room for.
    let full = RedisServer::builder().maxclients(1).start();
    let turned_away = [FaultKind::ClosedInHandshake, FaultKind::MaxClients];
    assert_connect_fault(try_connect(&full.url()).await, &turned_away);
}

#[tokio::test]
async fn a_server_that_is_set_up_well_gets_no_warning() {
    let server = RedisServer::builder().arg("appendonly", "yes").start();
    let locks = connect(&server.url()).await;
    assert_eq!(warnings(&locks), <[String; 0]>::default());
    let report = locks.stats().server;
    let info = server.info("server");
    assert_eq!((&report.version, &report.run_id), (&info["redis_version"], &info["run_id"]));
    assert_eq!((report.role.as_str(), report.maxmemory_policy.as_str()), ("master", "noeviction"));
    assert!(report.aof_enabled && report.clock_offset_seconds.abs() < 5.0);
    assert_eq!(report.maxclients.map(|limit| limit.to_string()), Some(info_maxclients(&server)));
}

fn info_maxclients(server: &RedisServer) -> String {
    server.info("clients")["maxclients"].clone()
}

#[tokio::test]
async fn what_endangers_locks_is_warned_of_at_connect() {
    let shim = ClockShim::build().unwrap();
    let clean = || RedisServer::builder().arg("appendonly", "yes");
    let late = ClockShim::build().unwrap();
    shim.shift(3600);
    late.shift(-120);
    for (server, expected) in [
        (clean().arg("maxmemory-policy", "allkeys-lru"), "eviction_policy"),
        (clean().arg("maxmemory-policy", "volatile-ttl"), "eviction_policy"),
        (RedisServer::builder(), "no_append_only_file"),
        (clean().maxclients(19), "client_limit"),
        (clean().clock(&shim), "clock_offset"),
        (clean().clock(&late), "clock_offset"),
    ] {
        let server = server.start();
        let locks = connect(&server.url()).await;
        assert_eq!(warnings(&locks), [expected]);
        // A warning is no refusal.
        let lease = locks.acquire(&tag("TEST-02"), &worker()).await.unwrap();
        locks.release_lease(&lease).await.unwrap();
    }
    let exact = clean().maxclients(20).start();
    assert_eq!(warnings(&connect(&exact.url()).await), <[String; 0]>::default());
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_by_its_version() {
    for version in ["6.2.0", "6.0.16", "2.8.24"] {
        let server = ScriptedServer::start();
        server.on("INFO", Answer::bulk(&format!("# Server\r\nredis_version:{version}\r\nrole:master\r\n")));
        match try_connect(&server.url()).await {
            Err(ConnectError::TooOld { found }) => assert_eq!(found, version),
            other => panic!("{version} is too old: {other:?}"),
        }
        assert_eq!(server.requests("EVALSHA"), 0);
    }
}

/// Its address says nothing of it.
#[tokio::test]
async fn a_node_of_a_cluster_is_refused_by_what_it_says() {
    let server = RedisServer::builder().arg("cluster-enabled", "yes").start();
    assert_refused_with(&server, "ClusterDown").await;
    server.cmd(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    eventually(SOON, async || server.query::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        .await;
    assert_refused_with(&server, "CrossSlot").await;
}

async fn assert_refused_with(server: &RedisServer, word: &str) {
    let fault = assert_connect_fault(try_connect(&server.url()).await, &[FaultKind::Other]);
    let said = fault.source().expect("what the server said").to_string();
    assert!(said.contains(word), "{said}");
}

#[test]
fn sentinel_and_cluster_are_refused_by_name() {
    for scheme in
        ["redis-sentinel", "rediss-sentinel", "redis+sentinel", "redis-cluster", "rediss+cluster", "sentinel"]
    {
        let error = Config::new(&format!("{scheme}://:sesame@127.0.0.1:26379/mymaster")).unwrap_err();
        assert_eq!(error.variable, "SPOOL_LOCK_URL");
        assert!(error.right.contains(scheme) && error.right.contains("standalone"), "{error}");
        assert!(!error.to_string().contains("sesame"), "{error}");
    }
}

async fn connect_tls(url: &str, ca: PathBuf) -> Result<SpoolLocks, ConnectError> {
    let mut config = Config::new(url).expect("the address is right");
    config.tls_ca_file = Some(ca);
    SpoolLocks::connect(config).await
}

#[cfg(feature = "tls-ring")]
#[tokio::test]
async fn tls_with_the_right_authority_works() {
    let files = TlsFiles::generate();
    let server = RedisServer::builder().password("sesame").tls(&files).start();
    let (tag, worker) = (tag("TEST-02"), worker());
    for url in [server.url(), server.url().replace("127.0.0.1", "localhost")] {
        let locks = connect_tls(&url, files.ca()).await.unwrap();
        let lease = locks.acquire(&tag, &worker).await.unwrap();
        assert_eq!(locks.inspect(&tag).await.unwrap().value.map(|it| it.fence), Some(lease.fence));
        locks.release_lease(&lease).await.unwrap();
        assert_operational(&locks).await;
    }
}

#[cfg(feature = "tls-ring")]
#[tokio::test]
async fn tls_with_another_authority_is_a_fault_of_its_own() {
    let files = TlsFiles::generate();
    let server = RedisServer::builder().tls(&files).start();
    let other = TlsFiles::generate();
    assert_connect_fault(connect_tls(&server.url(), other.ca()).await, &[FaultKind::Tls]);
    assert_connect_fault(try_connect(&server.url()).await, &[FaultKind::Tls]);
    // A certificate is for a name: this one has 127.0.0.1 and localhost.
    let elsewhere = server.url().replace("127.0.0.1", "127.0.0.2");
    let outcome = connect_tls(&elsewhere, files.ca()).await;
    assert_connect_fault(outcome, &[FaultKind::Tls, FaultKind::Connect]);

    let missing = files.ca().with_file_name("nowhere.pem");
    match connect_tls(&server.url(), missing).await {
        Err(ConnectError::Config(error)) => assert_eq!(error.variable, "SPOOL_LOCK_TLS_CA_FILE"),
        other => panic!("there is no such file: {other:?}"),
    }
}

#[cfg(not(feature = "tls-ring"))]
#[tokio::test]
async fn tls_without_its_feature_is_refused_at_connect() {
    let files = TlsFiles::generate();
    let outcome = connect_tls("rediss://127.0.0.1:1", files.ca()).await;
    assert!(outcome.is_err(), "{outcome:?}");
}
