//! A real `redis-server` for one test.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use redis::{FromRedisValue, RedisResult, Value};
use tempfile::TempDir;

use super::admin::{ADMIN_NAME, Admin, CommandStat, parse_clients, parse_commandstats, parse_info};
use super::free_port;
use super::monitor::Monitor;
use super::process::Process;

/// A running server with a port and a directory of its own; killed and removed on drop.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    launch: ServerBuilder,
    process: Mutex<Process>,
    admin: Admin,
    dir: TempDir,
}

/// How a server is started. Later arguments win, so a test can overrule the defaults.
#[derive(Debug, Clone, Default)]
pub struct ServerBuilder {
    args: Vec<String>,
    env: Vec<(String, String)>,
    password: Option<String>,
    tls: bool,
}

impl RedisServer {
    /// Starts a server without persistence that accepts `DEBUG`.
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// `redis://127.0.0.1:port`, with the password if there is one; `rediss://` for a TLS server.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same URL with another port: the way through a proxy.
    pub fn url_at(&self, port: u16) -> String {
        let scheme = if self.launch.tls { "rediss" } else { "redis" };
        match &self.launch.password {
            Some(password) => format!("{scheme}://:{password}@127.0.0.1:{port}"),
            None => format!("{scheme}://127.0.0.1:{port}"),
        }
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        read_log(self.dir.path())
    }

    /// Runs a command over the test's own connection, whatever stands between the crate and the server.
    ///
    /// # Panics
    /// When the server answers with an error, or not within 5 s.
    #[track_caller]
    pub fn cmd(&self, args: &[&str]) -> Value {
        self.query(args)
    }

    /// [`cmd`](Self::cmd) with a typed reply.
    #[track_caller]
    pub fn query<T: FromRedisValue>(&self, args: &[&str]) -> T {
        self.try_query(args).unwrap_or_else(|error| panic!("{args:?} failed: {error}"))
    }

    pub fn try_query<T: FromRedisValue>(&self, args: &[&str]) -> RedisResult<T> {
        self.admin.try_cmd(args)
    }

    /// The fields of one section of `INFO`. The test's own connection counts in `connected_clients`.
    #[track_caller]
    pub fn info(&self, section: &str) -> BTreeMap<String, String> {
        parse_info(&self.query::<String>(&["INFO", section]))
    }

    /// `CLIENT LIST`, the test's own connection included (`name` = [`ADMIN_NAME`]).
    #[track_caller]
    pub fn client_list(&self) -> Vec<BTreeMap<String, String>> {
        parse_clients(&self.query::<String>(&["CLIENT", "LIST"]))
    }

    /// `CLIENT LIST` without the test's own connection.
    #[track_caller]
    pub fn clients(&self) -> Vec<BTreeMap<String, String>> {
        let mut clients = self.client_list();
        clients.retain(|client| client["name"] != ADMIN_NAME);
        clients
    }

    /// Begins to listen to what clients send.
    #[track_caller]
    pub fn monitor(&self) -> Monitor {
        Monitor::listen(self.admin.another().expect("one more client is let in"))
    }

    /// Calls by command, in lower case as Redis has them (`evalsha`, `client|list`).
    #[track_caller]
    pub fn commandstats(&self) -> BTreeMap<String, CommandStat> {
        parse_commandstats(&self.query::<String>(&["INFO", "commandstats"]))
    }

    /// How often `command` was called; 0 if never.
    #[track_caller]
    pub fn calls(&self, command: &str) -> u64 {
        self.commandstats().get(&command.to_lowercase()).map_or(0, |stat| stat.calls)
    }

    /// Commands that clients have sent: without what only scripts call, and what tests ask over their own connection. `SET`
    /// counts as one that only scripts call.
    #[track_caller]
    pub fn sent(&self) -> u64 {
        const NOT_SENT: [&str; 25] = [
            "client|list",
            "del",
            "exists",
            "get",
            "hdel",
            "hget",
            "hset",
            "info",
            "keys",
            "lpush",
            "lrange",
            "ltrim",
            "pexpire",
            "pttl",
            "publish",
            "scan",
            "select",
            "set",
            "time",
            "type",
            "zadd",
            "zcard",
            "zrange",
            "zrem",
            "zscore",
        ];
        let stats = self.commandstats();
        stats.iter().filter(|(name, _)| !NOT_SENT.contains(&name.as_str())).map(|(_, stat)| stat.calls).sum()
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill9(&self) {
        self.process().kill();
        self.admin.forget();
    }

    /// `SHUTDOWN NOSAVE`; returns when the process is gone.
    ///
    /// # Panics
    /// When it is not within 5 s.
    pub fn shutdown(&self) {
        // It answers by closing the connection.
        let _ = self.try_query::<Value>(&["SHUTDOWN", "NOSAVE"]);
        self.admin.forget();
        for _ in 0..1_000 {
            if self.process().ended().is_some() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the server did not shut down within 5 s:\n{}", self.log());
    }

    /// SIGSTOP: connections stay open, nothing is answered, until [`cont`](Self::cont).
    pub fn stop(&self) {
        self.process().stop();
    }

    /// SIGCONT.
    pub fn cont(&self) {
        self.process().cont();
    }

    /// Kills the server if it still runs and starts it with the same port, directory and arguments.
    pub fn restart(&self) {
        self.kill9();
        for _ in 0..20 {
            match self.launch.spawn(self.port, &self.dir, &self.admin) {
                Ok(process) => return *self.process() = process,
                // The kernel may still be closing the old listener.
                Err(PortTaken) => thread::sleep(Duration::from_millis(50)),
            }
        }
        panic!("port {} stayed taken for 1 s after the server was killed", self.port);
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Process> {
        // A test thread that panicked is no reason to leave the server running.
        self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ServerBuilder {
    /// `--name value`; words of the value become arguments of their own.
    #[must_use]
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        self.args.push(format!("--{name}"));
        match value.split_whitespace().collect::<Vec<_>>() {
            words if words.is_empty() => self.args.push(String::new()),
            words => self.args.extend(words.into_iter().map(str::to_owned)),
        }
        self
    }

    /// `--name path`, spaces and all.
    #[must_use]
    pub(super) fn path_arg(mut self, name: &str, path: &Path) -> Self {
        self.args.extend([format!("--{name}"), path.display().to_string()]);
        self
    }

    #[must_use]
    pub(super) fn speaking_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// At most `n` clients, of which the test's own connection is one.
    #[must_use]
    pub fn maxclients(self, n: u32) -> Self {
        self.arg("maxclients", &n.to_string())
    }

    /// As Redis writes sizes: `2mb`.
    #[must_use]
    pub fn maxmemory(self, size: &str) -> Self {
        self.arg("maxmemory", size)
    }

    #[must_use]
    pub fn replica_of(mut self, primary: &RedisServer) -> Self {
        if let Some(password) = &primary.launch.password {
            self = self.arg("masterauth", password);
        }
        self.arg("replicaof", &format!("127.0.0.1 {}", primary.port))
    }

    /// Loads a shared object before all others (LD_PRELOAD).
    #[must_use]
    pub fn preload(self, object: &Path) -> Self {
        self.env("LD_PRELOAD", &object.display().to_string())
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.arg("requirepass", password)
    }

    /// # Panics
    /// When there is no `redis-server`, or it does not answer within 20 s.
    pub fn start(self) -> RedisServer {
        let dir = TempDir::with_prefix("redis-").expect("a temporary directory can be made");
        let admin = Admin::new(socket(dir.path()), self.password.as_deref());
        for _ in 0..10 {
            let port = free_port();
            if let Ok(process) = self.spawn(port, &dir, &admin) {
                return RedisServer { port, launch: self, process: Mutex::new(process), admin, dir };
            }
        }
        panic!("ten ports in a row were taken between choosing and binding them");
    }

    /// Starts the process and waits until it answers.
    fn spawn(&self, port: u16, dir: &TempDir, admin: &Admin) -> Result<Process, PortTaken> {
        let _ = std::fs::remove_file(dir.path().join(LOG));
        let mut process = match Process::spawn(self.command(port, dir.path())) {
            Ok(process) => process,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("redis-server is not on PATH; `scripts/test` runs the tests with one")
            }
            Err(error) => panic!("redis-server could not be started: {error}"),
        };
        // Counted, not timed: tokio's clock may be paused, and the std one is banned.
        for _ in 0..4_000 {
            match admin.try_cmd::<String>(&["PING"]) {
                Ok(_) => return Ok(process),
                Err(_) if process.ended().is_none() => thread::sleep(Duration::from_millis(5)),
                Err(_) if read_log(dir.path()).contains("Failed listening on port") => return Err(PortTaken),
                Err(_) => panic!("redis-server ended at once:\n{}", read_log(dir.path())),
            }
        }
        panic!("redis-server did not answer within 20 s:\n{}", read_log(dir.path()));
    }

    fn command(&self, port: u16, dir: &Path) -> Command {
        let mut command = Command::new("redis-server");
        command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.args(["--bind", "127.0.0.1", "--unixsocket", SOCKET, "--logfile", LOG]);
        command.args(["--save", "", "--appendonly", "no", "--enable-debug-command", "local"]);
        // A replica that has to wait 5 s for its first copy makes a slow test.
        command.args(["--repl-diskless-sync-delay", "0"]);
        let port = port.to_string();
        if self.tls {
            command.args(["--port", "0", "--tls-port", &port]);
        } else {
            command.args(["--port", &port]);
        }
        command.args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Somebody else listens on the port.
#[derive(Debug)]
struct PortTaken;

const LOG: &str = "redis.log";
const SOCKET: &str = "redis.sock";

fn socket(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

fn read_log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join(LOG)).unwrap_or_default()
}
