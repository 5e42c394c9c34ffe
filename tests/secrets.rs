//! A password and a token are told to the server and to nobody else: not to a log, an error, a metric, or a debugger's print.
//!
//! Each test has a secret of its own. One subscriber hears every log line of this process at every level; a test looks for its
//! secret in all of them.

#![cfg(feature = "serde")]

mod support;

use std::{
    error::Error,
    fmt::{self, Debug, Display, Write as _},
    sync::{Mutex, Once, PoisonError},
    time::Duration,
};

use spool_lock::{
    AcquireError, Config, ConnectError, ExtendError, Holder, ReleaseError, SpoolLocks, StoreUrl, Tag, Token,
    Ttl,
};
use support::{
    Answer, FaultProxy, RedisServer, ScriptedServer, eventually,
    proxy::{LostReply, named},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Hears everything, of every crate that speaks `tracing`.
struct Ear;

impl Ear {
    fn open() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Self).expect("there is no other one"));
    }

    fn note(line: String) {
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Subscriber for Ear {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut line = Line(format!("span {}", span.metadata().name()));
        span.record(&mut line);
        Self::note(line.0);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut line = Line("record".to_owned());
        values.record(&mut line);
        Self::note(line.0);
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        Self::note(line.0);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").expect("a string takes everything");
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        write!(self.0, " {field}={}", all_words(value)).expect("a string takes everything");
    }
}

/// What an error says, and everything that it says on.
fn all_words(error: &dyn Error) -> String {
    let mut words = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        write!(words, "{error} | {error:?} | {error:#?} | ").expect("a string takes everything");
        next = error.source();
    }
    words
}

/// Looks for secrets wherever a text of this crate may go.
struct Watch {
    secrets: Vec<String>,
}

impl Watch {
    fn for_secrets<const N: usize>(secrets: [&str; N]) -> Self {
        Ear::open();
        Self { secrets: secrets.map(str::to_owned).into() }
    }

    #[track_caller]
    fn text(&self, what: &str, text: &str) {
        assert!(!text.is_empty(), "{what} says nothing");
        for secret in &self.secrets {
            assert!(!text.contains(secret.as_str()), "{what} tells the secret: {text}");
        }
    }

    #[track_caller]
    fn debug(&self, value: &impl Debug) {
        self.text("Debug", &format!("{value:?} {value:#?}"));
    }

    #[track_caller]
    fn both(&self, value: &(impl Debug + Display)) {
        self.text("Debug and Display", &format!("{value:?} {value:#?} {value} {value:#}"));
    }

    #[track_caller]
    fn error(&self, error: &dyn Error) {
        self.text("an error", &all_words(error));
    }

    /// No log line has a secret, and there was one with `heard`: somebody listened.
    #[track_caller]
    fn log(&self, heard: &str) {
        let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(lines.iter().any(|line| line.contains(heard)), "no log line with {heard:?}");
        for line in lines.iter() {
            self.text("a log line", line);
        }
    }
}

impl Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

fn config(url: &str) -> Config {
    let mut config = Config::new(url).expect("the address is right");
    config.pool.connect_timeout = Duration::from_secs(2);
    // A release that fails is to say why.
    config.deferred = 0;
    config
}

async fn refused(url: &str) -> ConnectError {
    SpoolLocks::connect(config(url)).await.expect_err("nobody lets us in there")
}

fn tag() -> Tag {
    Tag::new("TEST-02").expect("a tag")
}

fn worker() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

fn stranger() -> Holder {
    Holder::new("7", "AB(7)").expect("a holder")
}

/// The token of the lease that stands, as the server has it.
fn token_on(server: &RedisServer) -> String {
    let lock: String = server.query(&["GET", "spool:{TEST-02}:lock"]);
    let token = lock.split('|').nth(1).expect("a token").to_owned();
    assert_eq!(token.len(), 22);
    token
}

#[test]
fn a_config_hides_its_password() {
    let watch = Watch::for_secrets(["hunter2a"]);
    for url in [
        "redis://:hunter2a@127.0.0.1:6379",
        "redis://worker:hunter2a@127.0.0.1:6379/3",
        "rediss://worker:x%40hunter2a%2Fy@redis.example:6380",
        "redis+unix:///run/redis.sock?pass=hunter2a",
        "redis://worker:p@hunter2a@127.0.0.1",
    ] {
        let Ok(config) = Config::new(url) else { continue };
        watch.debug(&config);
        watch.both(&config.url);
    }
    assert!(Config::new("redis://:hunter2a@127.0.0.1:6379").is_ok());
}

#[test]
fn a_bad_address_is_refused_without_its_password() {
    let watch = Watch::for_secrets(["hunter2b"]);
    for url in [
        "redis://:hunter2b@",
        "redis://:hunter2b@:6379",
        "redis://worker:hunter2b@127.0.0.1:port",
        "redis://worker:hunter2b@127.0.0.1:99999",
        "redis://worker:hunter2b@127.0.0.1/database",
        "redis://worker:hunter2b@ho st",
        "redis:/worker:hunter2b@127.0.0.1",
        "//worker:hunter2b@127.0.0.1",
        "worker:hunter2b@127.0.0.1",
        "hunter2b@127.0.0.1",
        "http://worker:hunter2b@127.0.0.1",
        "redis-sentinel://worker:hunter2b@127.0.0.1/mymaster",
        "redis+cluster://worker:hunter2b@127.0.0.1",
        "redis://worker:p#hunter2b@127.0.0.1",
        "redis://worker:p?hunter2b@127.0.0.1",
        "redis://worker:p/hunter2b@127.0.0.1",
        "redis://worker:[hunter2b]@[::1",
    ] {
        for variable in ["SPOOL_LOCK_URL", "REDIS_URL"] {
            let vars = [(variable.to_owned(), url.to_owned())];
            match Config::from_vars(vars) {
                Err(error) => watch.error(&error),
                Ok(config) => watch.debug(&config),
            }
        }
        if let Err(why) = url.parse::<StoreUrl>() {
            watch.text("the parser", &why);
        }
    }
}

#[tokio::test]
async fn a_wrong_password_is_not_repeated() {
    let watch = Watch::for_secrets(["hunter2c", "sesame2c"]);
    let server = RedisServer::builder().password("sesame2c").start();
    for user in ["", "default", "nobody"] {
        let url = format!("redis://{user}:hunter2c@127.0.0.1:{}", server.port());
        watch.error(&refused(&url).await);
    }
    let none = format!("redis://127.0.0.1:{}", server.port());
    watch.error(&refused(&none).await);
    watch.log("a connection to redis could not be opened");
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_named_without_the_password() {
    let watch = Watch::for_secrets(["hunter2d"]);
    let port = support::free_port();
    for url in [
        format!("redis://:hunter2d@127.0.0.1:{port}"),
        format!("redis://worker:hunter2d@localhost:{port}/1"),
        "redis://worker:hunter2d@nowhere.invalid".to_owned(),
        "redis+unix:///nowhere/redis.sock?pass=hunter2d".to_owned(),
    ] {
        watch.error(&refused(&url).await);
    }
    watch.log("a connection to redis could not be opened");
}

#[cfg(feature = "tls-ring")]
#[tokio::test]
async fn a_tls_handshake_that_fails_does_not_tell_the_password() {
    let watch = Watch::for_secrets(["hunter2e"]);
    let files = support::TlsFiles::generate();
    let server = RedisServer::builder().password("hunter2e").tls(&files).start();
    watch.error(&refused(&server.url()).await);
    let mut config = config(&server.url());
    config.tls_ca_file = Some(files.ca());
    let locks = SpoolLocks::connect(config).await.unwrap();
    watch.debug(&locks);
    watch.log("a connection to redis could not be opened");
}

/// An unknown command is repeated by the server with the words that followed it, and the handshake has the password.
#[tokio::test]
async fn a_server_that_repeats_the_handshake_is_not_quoted() {
    let watch = Watch::for_secrets(["hunter2f"]);
    let server = RedisServer::builder().password("hunter2f").arg("rename-command", "HELLO GOODBYE").start();
    let said = server.try_query::<()>(&["HELLO", "3", "AUTH", "default", "hunter2f"]).unwrap_err();
    assert!(said.to_string().contains("hunter2f"), "the server does repeat it: {said}");
    let error = refused(&server.url()).await;
    watch.error(&error);
    assert!(all_words(&error).contains("unknown command"), "what it said is still told: {error:?}");
    watch.log("a connection to redis could not be opened");
}

#[tokio::test]
async fn a_server_that_repeats_a_call_is_not_quoted() {
    let watch = Watch::for_secrets(["hunter2gAAAAAAAAAAAAAA"]);
    let server = ScriptedServer::start();
    let well = Answer::array([Answer::line(":1"), Answer::line(":1700000000000000")]);
    server.once("EVALSHA", well);
    let locks = SpoolLocks::connect(config(&server.url())).await.unwrap();
    server.on(
        "EVALSHA",
        Answer::line(
            "-ERR unknown command 'EVALSHA', with args beginning with: 'aa34' '2' 'spool:{TEST-02}:lock' \
             'spool:{TEST-02}:fence' 'hunter2gAAAAAAAAAAAAAA' 'i' ",
        ),
    );
    let (tag, worker) = (tag(), worker());
    let acquired = locks.acquire(&tag, &worker).await.unwrap_err();
    watch.error(&acquired);
    assert!(all_words(&acquired).contains("unknown command 'EVALSHA'"), "{acquired:?}");
    watch.error(&locks.extend(&tag, &worker, Ttl::HOUR).await.unwrap_err());
    watch.error(&locks.release(&tag, &worker).await.unwrap_err());
    watch.error(&locks.force_release(&tag, "operator", "test").await.unwrap_err());
    watch.error(&locks.inspect(&tag).await.unwrap_err());
    watch.error(&locks.list().await.unwrap_err());
    watch.debug(&locks.health().await);
    watch.log("a lock was not released by force");
}

/// The value of a lock has the token; where it cannot be read as a lease it must not be shown either.
#[tokio::test]
async fn a_value_that_is_no_lease_is_not_quoted() {
    let watch = Watch::for_secrets(["hunter2hAAAAAAAAAAAAAA"]);
    let server = RedisServer::start();
    let locks = SpoolLocks::connect(config(&server.url())).await.unwrap();
    let (tag, worker, key) = (tag(), worker(), "spool:{TEST-02}:lock");
    for value in [
        "hunter2hAAAAAAAAAAAAAA",
        "1|hunter2hAAAAAAAAAAAAAA|x|y|i|93||",
        "1|hunter2hAAAAAAAAAAAAAA|99999999999999999999|1|i|93||",
        "1|hunter2hAAAAAAAAAAAAAA|17|17|i|93|%|",
    ] {
        for ttl in [&["PX", "60000"][..], &[]] {
            server.cmd(&[&["SET", key, value], ttl].concat());
            watch.error(&locks.acquire(&tag, &worker).await.unwrap_err());
            watch.error(&locks.inspect(&tag).await.unwrap_err());
            if let Err(error) = locks.extend(&tag, &worker, Ttl::HOUR).await {
                watch.error(&error);
            }
            watch.debug(&locks.list().await);
            watch.debug(&locks.force_release(&tag, "operator", "test").await);
        }
    }
    watch.log("a lock was released by force");
}

/// Every door of a process that locks, extends, waits for nobody, loses replies, and is looked at.
#[tokio::test]
async fn a_day_of_work_tells_no_secret() {
    let server = RedisServer::builder().password("hunter2i").start();
    let proxy = FaultProxy::before(&server);
    let mut config = config(&proxy.url());
    // Each call is one try, so that a lost reply is heard of.
    config.retry.attempts = 1;
    let locks = SpoolLocks::connect(config.clone()).await.unwrap();
    let (tag, worker, stranger) = (tag(), worker(), stranger());
    let token = Token::random();
    let lease = locks.acquire(&tag, &worker).token(token).note("ARM").await.unwrap();
    let token_text = token_on(&server);
    let watch = Watch::for_secrets(["hunter2i", token_text.as_str()]);

    watch.debug(&lease);
    watch.debug(&token);
    watch.text("JSON", &serde_json::to_string(&lease).unwrap());
    watch.debug(&config);
    watch.debug(&locks);
    watch.debug(&locks.acquire(&tag, &worker).token(token).note("ARM"));
    watch.debug(&locks.extend(&tag, &worker, Ttl::HOUR));
    watch.debug(&locks.release_lease(&lease));

    let contended = locks.acquire(&tag, &stranger).await.unwrap_err();
    assert!(matches!(contended, AcquireError::Contended { .. }), "{contended:?}");
    watch.error(&contended);
    watch.debug(&locks.acquire(&tag, &worker).token(token).await.unwrap());
    let already = locks.acquire(&tag, &worker).await.unwrap_err();
    assert!(matches!(already, AcquireError::AlreadyHeld(_)), "{already:?}");
    watch.error(&already);
    watch.debug(&locks.extend(&tag, &worker, Ttl::HOUR).await.unwrap());
    let refused = locks.extend(&tag, &stranger, Ttl::HOUR).await.unwrap_err();
    assert!(matches!(refused, ExtendError::NotHolder(_)), "{refused:?}");
    watch.error(&refused);
    let refused = locks.release(&tag, &stranger).await.unwrap_err();
    assert!(matches!(refused, ReleaseError::NotHolder(_)), "{refused:?}");
    watch.error(&refused);
    let (inspected, listed) = (locks.inspect(&tag).await.unwrap(), locks.list().await.unwrap());
    watch.debug(&inspected);
    watch.debug(&listed);
    watch.text("JSON", &serde_json::to_string(&(inspected, listed)).unwrap());

    proxy.drop_replies(1, LostReply::DropThenClose, named("EVALSHA"));
    let lost = locks.release(&tag, &worker).await.unwrap_err();
    assert!(matches!(lost, ReleaseError::Ambiguous { .. }), "{lost:?}");
    watch.error(&lost);
    proxy.drop_replies(1, LostReply::DropThenClose, named("EVALSHA"));
    let lost = locks.acquire(&tag, &worker).token(token).await.unwrap_err();
    assert!(matches!(lost, AcquireError::Ambiguous { .. }), "{lost:?}");
    watch.error(&lost);
    assert_eq!(token_on(&server), token_text, "granted for the same token");
    watch.debug(&locks.force_release(&tag, "operator", "test").await.unwrap());

    server.kill9();
    // Of the last known state, where there is any.
    watch.debug(&locks.inspect(&tag).await);
    watch.debug(&locks.list().await.unwrap());
    for _ in 0..4 {
        watch.error(&locks.inspect(&Tag::new("never seen").unwrap()).await.unwrap_err());
    }
    let refused = locks.acquire(&tag, &worker).await.unwrap_err();
    assert!(matches!(refused, AcquireError::Unavailable { .. }), "{refused:?}");
    watch.error(&refused);
    watch.debug(&locks.link_circuit());
    let health = locks.health().await;
    watch.text("JSON", &serde_json::to_string(&health).unwrap());
    watch.debug(&health);

    watch.debug(&locks.stats());
    watch.text("JSON", &serde_json::to_string(&locks.stats()).unwrap());
    watch.text("JSON", &serde_json::to_string(&locks.snapshot()).unwrap());
    #[cfg(feature = "prometheus")]
    {
        let mut page = spool_lock::metrics::Page::new();
        assert_eq!(page.add_snapshot(&locks.snapshot(), None), 0);
        let page = page.render();
        watch.text("the metrics page", &page);
        for word in ["TEST-02", "MR(93)", "127.0.0.1"] {
            assert!(!page.contains(word), "{word} is nobody's label");
        }
        watch.debug(&locks.collector());
    }
    watch.debug(&locks);
    watch.log("a lock was released by force");
    eventually(Duration::from_secs(5), async || proxy.connections_open() == 0).await;
    watch.log("a lock was released by force");
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn memory_hides_its_tokens_too() {
    let watch = Watch::for_secrets(["Token(0", "Token(1", "Token(2", "Token(3", "Token(4", "token: Some(T)"]);
    let locks = SpoolLocks::connect(config("memory://")).await.unwrap();
    let lease = locks.acquire(&tag(), &worker()).await.unwrap();
    assert!(format!("{lease:?}").contains("Token(…)"));
    watch.debug(&locks);
    watch.debug(&lease);
    watch.text("JSON", &serde_json::to_string(&lease).unwrap());
}

/// The net has no holes: what is said aloud is heard.
#[test]
fn the_watch_hears_what_is_said() {
    let watch = Watch::for_secrets(["hunter2j"]);
    let caught = |act: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).is_err();
    #[derive(Debug)]
    struct Loud(Option<Box<Loud>>);
    impl Display for Loud {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(if self.0.is_some() { "quiet" } else { "hunter2j" })
        }
    }
    impl Error for Loud {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.0.as_deref().map(|source| source as _)
        }
    }
    let deep = Loud(Some(Box::new(Loud(None))));
    assert!(caught(&|| watch.error(&deep)));
    assert!(caught(&|| watch.debug(&"hunter2j")));
    tracing::trace!(password = "hunter2j", "a slip");
    assert!(caught(&|| watch.log("a slip")));
    LINES.lock().unwrap_or_else(PoisonError::into_inner).retain(|line| !line.contains("hunter2j"));
}
