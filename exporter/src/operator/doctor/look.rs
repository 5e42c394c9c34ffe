//! [`Look`]: what the server says of itself to whoever asks, over a connection of its own.

use std::{collections::BTreeMap, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, RedisResult, aio::MultiplexedConnection,
};
use spool_lock::Config;
use tokio::time::timeout;

use super::{
    clients::{Clients, OWN_NAME},
    rights::{self, Checked, is_refused},
};
use crate::source::{Reason, RedisUrl};

/// For the connection, and then for all answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen.
#[derive(Debug)]
pub(super) struct Look {
    /// The fields of `INFO`; empty where it could not be seen.
    pub(super) info: BTreeMap<String, String>,
    /// When the data is saved as a whole, in the words of `CONFIG`; empty for never.
    pub(super) save_points: Option<String>,
    pub(super) clients: Option<Clients>,
    pub(super) rights: Vec<Checked>,
    /// Rights with which more would have been seen.
    pub(super) hidden: Vec<&'static str>,
    /// Why nothing was seen, or not all.
    pub(super) wrong: Option<Reason>,
    /// As whom we came.
    pub(super) user: String,
}

impl Look {
    /// Never fails: what could not be seen is not there.
    pub(super) async fn at(config: &Config) -> Self {
        let mut look = Self {
            info: BTreeMap::new(),
            save_points: None,
            clients: None,
            rights: Checked::unknown(config),
            hidden: Vec::new(),
            wrong: None,
            user: "default".to_owned(),
        };
        let url = config.url.with_password().and_then(|url| url.parse::<RedisUrl>().ok());
        // An address that this build cannot use is for the library to refuse.
        let Some(url) = url else { return look };
        if let Some(user) = url.info().redis_settings().username() {
            look.user = user.to_owned();
        }
        match open(&url, config).await {
            Ok(mut connection) => {
                let seen = timeout(PATIENCE, look.see(&mut connection, config)).await;
                look.wrong = seen.is_err().then_some(Reason::Timeout);
            }
            Err(error) => look.wrong = Some(Reason::of(&error, url.is_tls())),
        }
        look
    }

    async fn see(&mut self, connection: &mut MultiplexedConnection, config: &Config) {
        let info: Option<Vec<u8>> = self.ask(connection, "+info", &["INFO"]).await;
        // Bytes of somebody else: a strange one must not hide the rest.
        let info = info.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        let fields = info.lines().filter_map(|line| line.split_once(':'));
        self.info = fields.map(|(field, value)| (field.to_owned(), value.trim().to_owned())).collect();
        let save: Option<BTreeMap<String, String>> =
            self.ask(connection, "+config|get", &["CONFIG", "GET", "save"]).await;
        self.save_points = save.and_then(|mut save| save.remove("save"));
        let clients: Option<Vec<u8>> = self.ask(connection, "+client|list", &["CLIENT", "LIST"]).await;
        self.clients = clients.map(|list| Clients::parse(&String::from_utf8_lossy(&list)));
        self.rights = rights::check(connection, config).await;
    }

    async fn ask<T: FromRedisValue>(
        &mut self,
        connection: &mut MultiplexedConnection,
        right: &'static str,
        words: &[&str],
    ) -> Option<T> {
        let mut command = redis::Cmd::new();
        command.arg(words);
        match command.query_async(connection).await {
            Ok(reply) => Some(reply),
            Err(error) if is_refused(&error) => {
                self.hidden.push(right);
                None
            }
            Err(_) => None,
        }
    }

    /// A field of `INFO`.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.info.get(name).map(String::as_str)
    }

    /// A field of `INFO` that is a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }
}

async fn open(url: &RedisUrl, config: &Config) -> RedisResult<MultiplexedConnection> {
    let limits = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let client = client(url.info().clone(), config)?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&limits).await?;
    match redis::cmd("CLIENT").arg("SETNAME").arg(OWN_NAME).exec_async(&mut connection).await {
        // No answer at all: nor will there be to anything else.
        Err(error) if error.code().is_none() => Err(error),
        // Who may not name a connection may still look.
        _ => Ok(connection),
    }
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
fn client(info: ConnectionInfo, config: &Config) -> RedisResult<Client> {
    // A file that cannot be read is for the library to refuse.
    match config.tls_ca_file.as_ref().and_then(|path| std::fs::read(path).ok()) {
        Some(pem) => {
            let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(pem) };
            Client::build_with_tls(info, certificates)
        }
        None => Client::open(info),
    }
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
fn client(info: ConnectionInfo, _: &Config) -> RedisResult<Client> {
    Client::open(info)
}
