//! The support library keeps its own promises.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use support::frame::{NotResp, Request, frame_len};
use support::proxy::{Close, LostReply, containing, named};
use support::{Answer, ClockShim, FaultProxy, RedisServer, ScriptedServer, TlsFiles, eventually};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn server_answers_and_is_gone_after_drop() {
    let server = RedisServer::start();
    let port = server.port();
    assert_eq!(server.query::<String>(&["PING"]), "PONG");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    let process = format!("/proc/{}", server.pid());
    drop(server);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!Path::new(&process).exists());
}

#[test]
fn restart_keeps_the_port() {
    let server = RedisServer::start();
    let (port, pid) = (server.port(), server.pid());
    server.cmd(&["SET", "spool", "1"]);
    server.restart();
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert_eq!(server.query::<i64>(&["DBSIZE"]), 0, "no persistence by default");
}

#[test]
fn restart_keeps_the_data_of_an_append_only_server() {
    let server = RedisServer::builder().arg("appendonly", "yes").start();
    server.cmd(&["SET", "spool", "1"]);
    server.restart();
    assert_eq!(server.query::<String>(&["GET", "spool"]), "1");
}

#[test]
fn killed_server_refuses_connections() {
    let server = RedisServer::start();
    server.kill9();
    assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err());
    assert!(server.try_query::<String>(&["PING"]).is_err());
}

#[test]
fn stopped_server_answers_after_cont() {
    let server = RedisServer::start();
    server.stop();
    let mut connection = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    connection.write_all(b"PING\r\n").unwrap();
    let mut reply = [0; 7];
    assert!(connection.read_exact(&mut reply).is_err(), "a stopped server is silent");
    server.cont();
    connection.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    connection.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
}

#[test]
fn admin_connection_is_named_and_left_out_of_clients() {
    let server = RedisServer::start();
    assert_eq!(server.client_list().len(), 1);
    assert_eq!(server.client_list()[0]["name"], support::admin::ADMIN_NAME);
    assert!(server.clients().is_empty());
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    redis::cmd("CLIENT").arg("SETNAME").arg("worker").exec(&mut connection).unwrap();
    assert_eq!(server.clients()[0]["name"], "worker");
    assert_eq!(server.info("clients")["connected_clients"], "2");
    assert_eq!(server.calls("client|setname"), 2);
}

#[test]
fn full_server_still_answers_the_admin() {
    let server = RedisServer::builder().maxclients(1).start();
    let client = redis::Client::open(server.url()).unwrap();
    assert!(client.get_connection().is_err());
    assert_eq!(server.info("clients")["maxclients"], "1");
}

#[test]
fn password_stands_in_the_url() {
    let server = RedisServer::builder().password("sesame").start();
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    assert_eq!(redis::cmd("PING").query::<String>(&mut connection).unwrap(), "PONG");
    let without = format!("redis://127.0.0.1:{}", server.port());
    let mut connection = redis::Client::open(without).unwrap().get_connection().unwrap();
    assert!(redis::cmd("PING").query::<String>(&mut connection).is_err());
}

#[tokio::test]
async fn replica_follows_its_primary() {
    let primary = RedisServer::builder().password("sesame").start();
    let replica = RedisServer::builder().replica_of(&primary).start();
    primary.cmd(&["SET", "spool", "7"]);
    eventually(Duration::from_secs(10), async || replica.query::<Option<String>>(&["GET", "spool"])).await;
    let refused = replica.try_query::<()>(&["SET", "spool", "8"]).unwrap_err();
    assert_eq!(refused.code(), Some("READONLY"));
}

#[tokio::test]
#[should_panic(expected = "not so within 20ms, asked at tests/support_selftest.rs")]
async fn eventually_names_the_line_that_asked() {
    eventually(Duration::from_millis(20), async || false).await;
}

async fn connect(url: String) -> MultiplexedConnection {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_millis(300)));
    let client = redis::Client::open(url).expect("a proxy's URL is valid");
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.expect("the server is healthy")
}

async fn incr(connection: &mut MultiplexedConnection, key: &str) -> redis::RedisResult<i64> {
    redis::cmd("INCR").arg(key).query_async(connection).await
}

fn value(server: &RedisServer, key: &str) -> Option<i64> {
    server.query(&["GET", key])
}

#[tokio::test]
async fn healthy_proxy_passes_and_counts() {
    let server = RedisServer::builder().password("sesame").start();
    let proxy = FaultProxy::before(&server);
    let mut connection = connect(proxy.url()).await;
    for expected in 1..=3 {
        assert_eq!(incr(&mut connection, "n").await.unwrap(), expected);
    }
    assert_eq!(proxy.requests("incr"), 3);
    assert_eq!(proxy.requests("auth"), 1);
    assert_eq!((proxy.connections_opened(), proxy.connections_open()), (1, 1));
    assert_eq!(proxy.frames_to_server(), proxy.frames_to_client());
    assert!(proxy.bytes() > 3 * "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".len() as u64);
    drop(connection);
    eventually(SOON, async || proxy.connections_open() == 0 && server.clients().is_empty()).await;
}

#[tokio::test]
async fn large_and_binary_values_pass_unchanged() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut connection = connect(proxy.url()).await;
    let value: Vec<u8> = b"*2\r\n$-1\r\n\0\xff".iter().copied().cycle().take(300_000).collect();
    redis::cmd("SET").arg("spool").arg(&value).exec_async(&mut connection).await.unwrap();
    let read: Vec<u8> = redis::cmd("GET").arg("spool").query_async(&mut connection).await.unwrap();
    assert!(read == value);
}

#[tokio::test]
async fn split_bytes_arrive_whole() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    proxy.split_bytes(true);
    let mut connection = connect(proxy.url()).await;
    assert_eq!(incr(&mut connection, "n").await.unwrap(), 1);
}

#[tokio::test]
async fn delay_adds_latency_and_keeps_throughput() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let connection = connect(proxy.url()).await;
    proxy.delay(Duration::from_millis(40));
    proxy.delay_requests(Duration::from_millis(20));
    let started = tokio::time::Instant::now();
    let mut operations = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let mut connection = connection.clone();
        operations.spawn(async move { incr(&mut connection, "n").await.unwrap() });
    }
    operations.join_all().await;
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(60), "{took:?}");
    assert!(took < Duration::from_millis(250), "50 in flight share the delay, {took:?}");
}

#[tokio::test]
async fn dropped_reply_was_applied_by_the_server() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut connection = connect(proxy.url()).await;
    proxy.drop_replies(1, LostReply::DropThenClose, containing("lost"));
    assert_eq!(incr(&mut connection, "other").await.unwrap(), 1, "does not match");
    let error = incr(&mut connection, "lost").await.unwrap_err();
    assert!(error.is_connection_dropped() || error.is_io_error(), "{error}");
    assert_eq!(value(&server, "lost"), Some(1));
    assert_eq!(proxy.replies_dropped(), 1);
    let mut again = connect(proxy.url()).await;
    assert_eq!(incr(&mut again, "lost").await.unwrap(), 2, "only one was to be dropped");
}

#[tokio::test]
async fn swallowed_reply_leaves_a_silent_open_connection() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut connection = connect(proxy.url()).await;
    proxy.drop_replies(1, LostReply::Swallow, named("incr"));
    assert!(incr(&mut connection, "n").await.unwrap_err().is_timeout());
    let heard = proxy.frames_to_client();
    assert!(redis::cmd("PING").exec_async(&mut connection).await.unwrap_err().is_timeout());
    assert_eq!(proxy.frames_to_client(), heard, "a later reply would be taken for the lost one");
    assert_eq!((value(&server, "n"), server.calls("ping")), (Some(1), 2));
    assert_eq!((proxy.connections_open(), server.clients().len()), (1, 1));
    drop(connection);
    eventually(SOON, async || server.clients().is_empty()).await;
}

#[test]
fn pushes_are_not_taken_for_replies() {
    for hello in ["HELLO 2", "HELLO 3"] {
        let server = RedisServer::start();
        let proxy = FaultProxy::before(&server);
        proxy.drop_replies(1, LostReply::DropThenClose, named("PING"));
        let mut subscriber = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        subscriber.set_read_timeout(Some(SOON)).unwrap();
        write!(subscriber, "{hello}\r\nSUBSCRIBE a b\r\n").unwrap();
        while server.query::<(String, i64)>(&["PUBSUB", "NUMSUB", "b"]).1 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.cmd(&["PUBLISH", "a", "freed"]);
        write!(subscriber, "PING\r\n").unwrap();
        let mut seen = String::new();
        subscriber.read_to_string(&mut seen).unwrap();
        assert!(seen.ends_with("message\r\n$1\r\na\r\n$5\r\nfreed\r\n"), "{hello}: {seen}");
        assert_eq!(proxy.replies_dropped(), 1);
    }
}

#[tokio::test]
async fn held_request_is_delivered_after_its_client_left() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut connection = connect(proxy.url()).await;
    let held = proxy.hold_requests(named("INCR"));
    assert!(incr(&mut connection, "n").await.unwrap_err().is_timeout());
    drop(connection);
    eventually(SOON, async || proxy.connections_open() == 0).await;
    held.caught(1).await;
    assert_eq!(value(&server, "n"), None);
    assert_eq!(server.clients().len(), 1, "the server's side waits for it");
    held.release();
    eventually(SOON, async || value(&server, "n") == Some(1)).await;
    eventually(SOON, async || server.clients().is_empty()).await;
}

#[tokio::test]
async fn released_request_answers_a_client_that_stayed() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut connection = connect(proxy.url()).await;
    let held = proxy.hold_requests(named("INCR"));
    let mut other = connection.clone();
    let pending = tokio::spawn(async move { incr(&mut other, "n").await });
    held.caught(1).await;
    held.release();
    assert_eq!(pending.await.unwrap().unwrap(), 1);
    assert_eq!(incr(&mut connection, "n").await.unwrap(), 2, "nothing is held any more");
}

#[tokio::test]
async fn request_given_up_by_its_holder_never_arrives() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut connection = connect(proxy.url()).await;
    let held = proxy.hold_requests(named("INCR"));
    let pending = tokio::spawn(async move { incr(&mut connection, "n").await });
    held.caught(1).await;
    drop(held);
    assert!(!pending.await.unwrap().unwrap_err().is_timeout(), "the connection was closed");
    eventually(SOON, async || server.clients().is_empty()).await;
    assert_eq!(value(&server, "n"), None);
}

#[tokio::test]
async fn blackhole_keeps_connections_open() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut connection = connect(proxy.url()).await;
    proxy.blackhole();
    assert!(incr(&mut connection, "n").await.unwrap_err().is_timeout());
    assert_eq!(value(&server, "n"), None);
    assert_eq!((proxy.connections_open(), server.clients().len()), (1, 1));
    let stranger = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    eventually(SOON, async || proxy.connections_open() == 2).await;
    assert_eq!(server.clients().len(), 1, "a new connection does not reach the server");
    drop(stranger);
    eventually(SOON, async || proxy.connections_open() == 1).await;
    let dialled = server.info("stats")["total_connections_received"].clone();
    proxy.heal();
    assert_eq!(incr(&mut connection, "n").await.unwrap(), 2, "the first was late, not lost");
    assert_eq!(server.info("stats")["total_connections_received"], dialled, "nor does one that was given up");
}

#[tokio::test]
async fn blackhole_hides_that_a_client_or_the_server_left() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let (leaving, staying) =
        (connect(proxy.url()).await, TcpStream::connect(("127.0.0.1", proxy.port())).unwrap());
    eventually(SOON, async || server.clients().len() == 2).await;
    proxy.blackhole();
    drop(leaving);
    eventually(SOON, async || proxy.connections_open() == 1).await;
    assert_eq!(server.clients().len(), 2);
    server.kill9();
    staying.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let waited = (&staying).read(&mut [0]).unwrap_err();
    assert_eq!(waited.kind(), ErrorKind::WouldBlock);
    proxy.heal();
    staying.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!((&staying).read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn refused_dials_are_counted_with_their_time() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    proxy.refuse();
    let client = redis::Client::open(proxy.url()).unwrap();
    for _ in 0..3 {
        assert!(client.get_connection().is_err());
    }
    assert_eq!((proxy.connections_opened(), proxy.connections_open()), (3, 0));
    assert_eq!(proxy.peak_dials(Duration::from_secs(60)), 3);
    assert_eq!(proxy.peak_dials(Duration::ZERO), 0);
    assert!(proxy.dials().is_sorted());
    proxy.heal();
    assert!(client.get_connection().is_ok());
}

#[tokio::test]
async fn close_all_spares_later_connections() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    for how in [Close::Fin, Close::Rst] {
        let before = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        before.set_read_timeout(Some(SOON)).unwrap();
        eventually(SOON, async || server.clients().len() == 1).await;
        proxy.close_all(how);
        let seen = (&before).read(&mut [0]).map_err(|error| error.kind());
        match how {
            Close::Fin => assert_eq!(seen, Ok(0)),
            Close::Rst => assert_eq!(seen, Err(ErrorKind::ConnectionReset)),
        }
        let mut after = connect(proxy.url()).await;
        assert!(incr(&mut after, "n").await.is_ok());
        drop(after);
        eventually(SOON, async || server.clients().is_empty()).await;
    }
}

#[tokio::test]
async fn killed_server_closes_connections_through_the_proxy() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut connection = connect(proxy.url()).await;
    server.kill9();
    assert!(!incr(&mut connection, "n").await.unwrap_err().is_timeout());
    let client = redis::Client::open(proxy.url()).unwrap();
    assert!(client.get_connection().is_err());
    server.restart();
    assert!(client.get_connection().is_ok());
}

#[tokio::test]
async fn dropped_proxy_closes_everything() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut connection = connect(proxy.url()).await;
    let port = proxy.port();
    drop(proxy);
    eventually(SOON, async || server.clients().is_empty()).await;
    assert!(!incr(&mut connection, "n").await.unwrap_err().is_timeout());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn frames_end_where_the_protocol_says() {
    let whole: [&[u8]; 12] = [
        b"+OK\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"$5\r\na\r\nb\n\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
        b"*2\r\n*1\r\n:1\r\n%1\r\n+a\r\n_\r\n",
        b">3\r\n+message\r\n$1\r\nc\r\n$1\r\nm\r\n",
        b"|1\r\n+ttl\r\n:9\r\n$1\r\nv\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"(3492890328409238509324850943850943825024385\r\n",
        b"PING\r\n",
    ];
    for frame in whole {
        for cut in 0..frame.len() {
            assert_eq!(frame_len(&frame[..cut]), Ok(None), "{cut} bytes of {frame:?}");
        }
        let twice = [frame, frame].concat();
        assert_eq!(frame_len(&twice), Ok(Some(frame.len())), "{frame:?}");
    }
}

#[test]
fn nonsense_is_told_from_resp_without_panic() {
    let nonsense: [&[u8]; 6] = [
        b"\x16\x03\x01",
        b"*x\r\n",
        b"$18446744073709551615\r\n",
        b"*18446744073709551615\r\n*2\r\n",
        b"%9999999999999999999999\r\n",
        b"*1\r\nword\r\n",
    ];
    for bytes in nonsense {
        assert_eq!(frame_len(bytes), Err(NotResp), "{bytes:?}");
        let _ = Request::new(bytes.to_vec()).name();
    }
}

#[test]
fn requests_know_their_words() {
    let request = Request::new(b"*3\r\n$7\r\nevalsha\r\n$2\r\nab\r\n$1\r\n0\r\n".to_vec());
    assert_eq!(request.name(), "EVALSHA");
    assert_eq!(request.words(), ["evalsha", "ab", "0"]);
    assert!(request.contains("ab") && !request.contains("abc"));
    assert_eq!(Request::new(b"ping now\r\n".to_vec()).words(), ["ping", "now"]);
}

fn unix_micros() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_micros()).expect("before the year 294247")
}

/// How far the server's clock is ahead of ours, in seconds.
fn ahead(server: &RedisServer) -> f64 {
    let (seconds, micros): (i64, i64) = server.query(&["TIME"]);
    (seconds * 1_000_000 + micros - unix_micros()) as f64 / 1e6
}

#[test]
fn clock_shim_moves_server_time() {
    let shim = ClockShim::build().unwrap();
    let server = RedisServer::builder().clock(&shim).start();
    let untouched = RedisServer::start();
    assert!(ahead(&server).abs() < 2.0);
    for seconds in [3_600, -3_600, 0, 86_400 * 400] {
        shim.shift(seconds);
        let seen = ahead(&server);
        assert!((seen - seconds as f64).abs() < 2.0, "shifted by {seconds}, seen {seen}");
        assert!(ahead(&untouched).abs() < 2.0);
    }
    server.restart();
    assert!(ahead(&server) > 86_400.0, "a restarted server keeps its clock");
}

#[test]
fn clock_shim_carries_into_seconds_in_both_directions() {
    let shim = ClockShim::build().unwrap();
    let server = RedisServer::builder().clock(&shim).start();
    for millis in [-5_900, 5_900, -400, 700] {
        shim.shift_millis(millis);
        for _ in 0..20 {
            let (_, micros): (i64, i64) = server.query(&["TIME"]);
            assert!((0..1_000_000).contains(&micros));
            let off = ahead(&server) - millis as f64 / 1e3;
            assert!((-1.0..0.2).contains(&off), "shifted by {millis} ms, off by {off} s");
        }
    }
}

#[tokio::test]
async fn clock_step_expires_keys_and_moves_scripts() {
    let shim = ClockShim::build().unwrap();
    let server = RedisServer::builder().clock(&shim).start();
    server.cmd(&["SET", "spool", "1", "PX", "60000"]);
    shim.shift(59);
    assert_eq!(value(&server, "spool"), Some(1));
    shim.shift(61);
    eventually(SOON, async || value(&server, "spool").is_none()).await;
    let in_script: i64 = server.query(&["EVAL", "return tonumber(redis.call('TIME')[1])", "0"]);
    assert!((in_script - unix_micros() / 1_000_000 - 61).abs() < 2);
}

/// `redis-cli` of the same package stands in for a TLS client: this crate has one only by feature.
fn cli(port: u16, ca: &Path) -> String {
    let port = port.to_string();
    let mut command = std::process::Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &port, "--tls", "--cacert"]).arg(ca).arg("PING");
    let output = command.output().expect("redis-cli comes with redis-server");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn tls_server_answers_with_our_ca() {
    let files = TlsFiles::generate();
    let server = RedisServer::builder().tls(&files).start();
    assert!(server.url().starts_with("rediss://127.0.0.1:"));
    assert_eq!(cli(server.port(), &files.ca()).trim(), "PONG");
    let refusal = cli(server.port(), &TlsFiles::generate().ca());
    assert!(refusal.contains("certificate verify failed"), "{refusal}");
}

#[test]
fn tls_passes_through_the_proxy_as_bytes() {
    let files = TlsFiles::generate();
    let server = RedisServer::builder().tls(&files).start();
    let proxy = FaultProxy::before(&server);
    proxy.split_bytes(true);
    assert_eq!(cli(proxy.port(), &files.ca()).trim(), "PONG");
    assert!(proxy.commands().is_empty());
}

#[tokio::test]
async fn scripted_server_answers_a_handshake() {
    let server = ScriptedServer::start();
    for url in [server.url(), format!("{}/2?protocol=resp3", server.url())] {
        let mut connection = connect(url).await;
        assert!(redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok());
        let info: String = redis::cmd("INFO").query_async(&mut connection).await.unwrap();
        assert!(info.contains("redis_version:7.0.15"));
    }
    assert_eq!(server.connections_opened(), 2);
    assert_eq!(server.requests("hello"), 1);
    assert!(server.conversation().contains(&vec!["SELECT".to_owned(), "2".to_owned()]));
}

#[tokio::test]
async fn scripted_server_says_what_it_was_told() {
    let server = ScriptedServer::start();
    let mut connection = connect(server.url()).await;
    let error = incr(&mut connection, "n").await.unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");

    server.on("INCR", Answer::line("-LOADING Redis is loading the dataset in memory"));
    server.once("INCR", Answer::line(":7")).once("INCR", Answer::line(":8"));
    assert_eq!(incr(&mut connection, "n").await.unwrap(), 7);
    assert_eq!(incr(&mut connection, "n").await.unwrap(), 8);
    for _ in 0..2 {
        assert_eq!(incr(&mut connection, "n").await.unwrap_err().code(), Some("LOADING"));
    }
    server.on("CONFIG GET", Answer::array([Answer::bulk("maxclients"), Answer::bulk("2")]));
    let mut config = redis::cmd("CONFIG");
    config.arg("GET").arg("maxclients");
    let seen: Vec<String> = config.query_async(&mut connection).await.unwrap();
    assert_eq!(seen, ["maxclients", "2"]);

    server.once("INCR", Answer::silence());
    assert!(incr(&mut connection, "n").await.unwrap_err().is_timeout());
    assert_eq!(server.requests("incr"), 6);
}

#[tokio::test]
async fn scripted_server_hangs_up_when_told() {
    let server = ScriptedServer::start();
    for answer in [Answer::close(), Answer::raw("$10\r\nhalf").then_close()] {
        let mut connection = connect(server.url()).await;
        server.once("INCR", answer);
        assert!(!incr(&mut connection, "n").await.unwrap_err().is_timeout());
    }
    server.greet(Answer::line("-ERR max number of clients reached").then_close());
    let mut late = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    late.set_read_timeout(Some(SOON)).unwrap();
    let mut heard = String::new();
    late.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "-ERR max number of clients reached\r\n");
    server.heal();
    connect(server.url()).await;
}
