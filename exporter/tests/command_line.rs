//! What the program says of itself, and what it never says.

// Outside of the tests' own functions, too, a value that is not there ends the test.
#![allow(clippy::unwrap_used)]

mod stage;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use stage::Service;
use support::RedisServer;
use tokio::time::Instant;

const README: &str = include_str!("../README.md");
const SECRET: &str = "s3cr3t-W0rd";

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_spool-lock-exporter"));
    program.env_clear();
    program
}

fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap()
}

/// A running program; killed with the value.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start(program: &mut Command) -> Self {
        let child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").map(|address| address.parse().unwrap());
        Self { child, address: address.unwrap_or_else(|| panic!("{line:?}")) }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    /// SIGTERM, and what it had to say.
    fn terminate(mut self) -> (i32, String) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("sh").args(["-c", r#"kill -s TERM "$1""#, "sh", &pid]).status().unwrap().success()
        );
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code().unwrap(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_appear_nowhere() {
    let redis = RedisServer::builder().password(SECRET).start();
    let service = Service::well();
    let wrong_url = format!("redis://:{SECRET}{SECRET}@127.0.0.1:{}", redis.port());
    let mut said = Vec::new();
    for (url, up) in [(redis.url(), "1"), (wrong_url, "0")] {
        let mut program = program();
        program.env("SPOOL_EXPORTER_REDIS_URL", &url);
        program.args(["--web.listen-address=127.0.0.1:0", "--log.level=trace", &service.arg()]);
        let help =
            Command::new(program.get_program()).env("SPOOL_EXPORTER_REDIS_URL", &url).arg("--help").output();
        said.push(("help", text(&help.unwrap())));

        let running = Running::start(&mut program);
        let page = running.get("/metrics");
        assert!(page.contains(&format!("\nspool_redis_up {up}\n")));
        said.push(("metrics", page));
        for path in ["/", "/-/healthy", "/-/ready", "/nothing"] {
            said.push(("page", running.get(path)));
        }
        let command_line = std::fs::read_to_string(format!("/proc/{}/cmdline", running.child.id())).unwrap();
        assert!(command_line.contains("--log.level"));
        said.push(("command line", command_line));
        let (status, log) = running.terminate();
        assert!(status == 0 && log.contains("redis"), "{log}");
        said.push(("log", log));
    }
    for (variable, value) in [
        ("SPOOL_EXPORTER_REDIS_URL", format!("http://:{SECRET}@h")),
        ("SPOOL_EXPORTER_REDIS_URL", format!("redis://:{SECRET}@:port")),
        ("SPOOL_EXPORTER_REDIS_URL", format!("ftp://h:1/?password={SECRET}&x=@")),
        ("SPOOL_EXPORTER_SERVICE", format!("http://:{SECRET}@127.0.0.1:1")),
    ] {
        let output = program().env(variable, &value).arg("--config.check").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{value}");
        said.push(("error", text(&output)));
    }
    // One that somebody did put into an argument is at least not repeated.
    let output = program()
        .args(["--config.check", "--redis.url", &format!("redis://:{SECRET}@127.0.0.1")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    said.push(("refusal", text(&output)));
    for (what, text) in said {
        assert!(!text.is_empty() && !text.contains(SECRET), "{what}: {text}");
    }
}

#[test]
fn help_lists_every_flag_and_its_variable() {
    let help = program().arg("--help").output().unwrap();
    assert!(help.status.success() && help.stderr.is_empty());
    let help = text(&help);
    let mut flags = 0;
    for line in README.lines().filter_map(|line| line.strip_prefix("| `--")) {
        let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`'));
        let (flag, variable) = (cells.next().unwrap().trim_end_matches('`'), cells.next().unwrap());
        assert!(help.contains(&format!("--{flag}")), "--{flag} is not in the help");
        assert!(help.contains(&format!("[env: {variable}]")), "{variable} is not in the help");
        flags += 1;
    }
    let in_help: Vec<_> = help.lines().filter(|line| line.trim_start().starts_with("--")).collect();
    assert_eq!(flags, in_help.len(), "the README has not all of {in_help:?}");
}

#[test]
fn the_configuration_can_be_checked_without_a_start() {
    let good = program().args(["--config.check", "--service=unix:/run/spool/*.sock"]).output().unwrap();
    assert_eq!((good.status.code(), text(&good).as_str()), (Some(0), "the configuration is good\n"));
    let mut bad = program();
    bad.env("SPOOL_EXPORTER_SCRAPE_TIMEOUT", "soon").args(["--config.check", "--service=unix:/a"]);
    let bad = bad.output().unwrap();
    assert_eq!(bad.status.code(), Some(2));
    let said = text(&bad);
    assert_eq!(
        said,
        "spool-lock-exporter: --scrape.timeout (SPOOL_EXPORTER_SCRAPE_TIMEOUT): \"soon\" is not a duration; \
         50ms to 9s is, such as 1s\n"
    );
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = program().args(["--service=unix:/a", "--web.listen-address", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(&format!("cannot listen on {address}")), "{}", text(&output));
}

#[test]
fn every_flag_can_come_from_its_variable() {
    let mut program = program();
    program.envs([
        ("SPOOL_EXPORTER_LISTEN_ADDRESS", "127.0.0.1:0"),
        ("SPOOL_EXPORTER_SERVICE", "unix:/no/a.sock,b=unix:/no/c.sock"),
        ("SPOOL_EXPORTER_REDIS_URL", "redis+unix:///no/redis.sock"),
        ("SPOOL_EXPORTER_REDIS_URL_FILE", ""),
        ("SPOOL_EXPORTER_REDIS_CONNECTION_LIMIT", "20"),
        ("SPOOL_EXPORTER_SCRAPE_TIMEOUT", "200ms"),
        ("SPOOL_EXPORTER_LOG_LEVEL", "warn"),
        ("SPOOL_EXPORTER_CONFIG_CHECK", ""),
    ]);
    let running = Running::start(&mut program);
    let page = running.get("/metrics");
    for line in ["spool_up{service=\"a\"} 0", "spool_up{service=\"b\"} 0", "spool_redis_connections_limit 20"]
    {
        assert!(page.lines().any(|found| found == line), "{line}");
    }
    let started = Instant::now();
    let (status, log) = running.terminate();
    assert_eq!(status, 0);
    assert!(started.elapsed() < Duration::from_secs(2));
    // At this level, only what failed; and each once, however often it is scraped.
    assert_eq!(log.lines().filter(|line| line.contains("source failed")).count(), 3, "{log}");
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
#[test]
fn a_certificate_of_our_own_authority_is_trusted_when_the_environment_says_so() {
    let files = support::TlsFiles::generate();
    let redis = RedisServer::builder().tls(&files).start();
    let mut program = program();
    program.env("SSL_CERT_FILE", files.ca());
    let running =
        Running::start(program.args(["--web.listen-address=127.0.0.1:0", "--redis.url", &redis.url()]));
    let page = running.get("/metrics");
    assert!(page.contains("\nspool_redis_up 1\n"), "{page}");
    assert_eq!(redis.clients().len(), 1);
}
