//! The support library keeps its own promises.

mod support;

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use support::{RedisServer, eventually};

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
    std::io::Write::write_all(&mut connection, b"PING\r\n").unwrap();
    let mut reply = [0; 7];
    assert!(std::io::Read::read_exact(&mut connection, &mut reply).is_err(), "a stopped server is silent");
    server.cont();
    connection.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    std::io::Read::read_exact(&mut connection, &mut reply).unwrap();
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
