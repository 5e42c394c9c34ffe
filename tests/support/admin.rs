//! The test's own connection to a server: past every proxy, past every pool.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use redis::{
    Client, Connection, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo, RedisResult,
    Value,
};

/// The name under which the admin connection stands in `CLIENT LIST`.
pub const ADMIN_NAME: &str = "test-admin";

/// One blocking connection over the server's unix socket, dialled when needed and kept.
///
/// Kept, because a server that is full turns new connections away, the test's too: it counts against `maxclients`.
/// By unix socket, because it works for a TLS server as well and proves that the server is ours.
pub struct Admin {
    client: Client,
    connection: Mutex<Option<Connection>>,
}

/// One line of `INFO commandstats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommandStat {
    pub calls: u64,
    pub rejected_calls: u64,
    pub failed_calls: u64,
}

impl Admin {
    pub fn new(socket: PathBuf, password: Option<&str>) -> Self {
        let mut settings = RedisConnectionInfo::default();
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        let info = ConnectionAddr::Unix(socket)
            .into_connection_info()
            .expect("a socket path is an address")
            .set_redis_settings(settings);
        let client = Client::open(info).expect("a socket path is an address");
        Self { client, connection: Mutex::new(None) }
    }

    /// Sends one command and waits up to 5 s for its reply.
    pub fn try_cmd<T: FromRedisValue>(&self, args: &[&str]) -> RedisResult<T> {
        let mut slot = self.connection.lock().expect("no panic while holding the connection");
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.dial()?,
        };
        let reply: RedisResult<Value> = command(args).query(&mut connection);
        // An error reply leaves a good connection; after anything else a late reply would answer the next command.
        if reply.is_ok() || reply.as_ref().is_err_and(|error| error.code().is_some()) {
            *slot = Some(connection);
        }
        Ok(T::from_redis_value(reply?)?)
    }

    /// A connection of its own.
    pub fn another(&self) -> RedisResult<Connection> {
        self.dial()
    }

    /// Closes the connection; the next command dials again.
    pub fn forget(&self) {
        self.connection.lock().expect("no panic while holding the connection").take();
    }

    fn dial(&self) -> RedisResult<Connection> {
        let patience = Duration::from_secs(5);
        let mut connection = self.client.get_connection_with_timeout(patience)?;
        connection.set_read_timeout(Some(patience))?;
        connection.set_write_timeout(Some(patience))?;
        command(&["CLIENT", "SETNAME", ADMIN_NAME]).exec(&mut connection)?;
        Ok(connection)
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

fn command(args: &[&str]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for arg in args {
        command.arg(*arg);
    }
    command
}

/// `field:value` lines, as `INFO` has them.
pub(super) fn parse_info(text: &str) -> BTreeMap<String, String> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(field, value)| (field.to_owned(), value.trim_end().to_owned())).collect()
}

/// `field=value field=value` lines, as `CLIENT LIST` has them.
pub(super) fn parse_clients(text: &str) -> Vec<BTreeMap<String, String>> {
    text.lines().map(|line| parse_pairs(line, ' ')).collect()
}

/// `cmdstat_get:calls=1,usec=…` lines, by command (`get`, `client|list`).
pub(super) fn parse_commandstats(text: &str) -> BTreeMap<String, CommandStat> {
    let mut stats = BTreeMap::new();
    for (field, value) in parse_info(text) {
        let Some(name) = field.strip_prefix("cmdstat_") else { continue };
        let pairs = parse_pairs(&value, ',');
        let number = |field: &str| pairs.get(field).and_then(|value| value.parse().ok()).unwrap_or(0);
        let stat = CommandStat {
            calls: number("calls"),
            rejected_calls: number("rejected_calls"),
            failed_calls: number("failed_calls"),
        };
        stats.insert(name.to_owned(), stat);
    }
    stats
}

fn parse_pairs(line: &str, separator: char) -> BTreeMap<String, String> {
    let pairs = line.split(separator).filter_map(|pair| pair.split_once('='));
    pairs.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}
