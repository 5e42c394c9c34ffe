//! [`Server`]: what Redis says of its clients, asked over a connection of the demo's own.

use std::{io, net::SocketAddr};

use redis::{Client, RedisError, RedisResult, aio::MultiplexedConnection};

/// A Redis server, and the one connection that looks at it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    /// None while the server is away.
    connection: Option<MultiplexedConnection>,
    /// What it said at the last look of those turned away, and what it had said before it was started again: it counts from 0 then.
    rejected: u64,
    rejected_before: u64,
}

/// What the server counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clients {
    /// Those connected now, the demo's own and the exporter's included.
    pub(crate) connected: u64,
    /// Those turned away since the server was started for the first time.
    pub(crate) rejected: u64,
    /// The most that it accepts.
    pub(crate) max: u64,
}

impl Server {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let client = Client::open(format!("redis://{address}")).map_err(silent)?;
        let connection = Some(client.get_multiplexed_async_connection().await.map_err(silent)?);
        Ok(Self { address, client, connection, rejected: 0, rejected_before: 0 })
    }

    /// What the server counts now, or an error while it is away; the next look tries again.
    pub(crate) async fn look(&mut self) -> io::Result<Clients> {
        let text = match self.info().await {
            Ok(text) => text,
            Err(error) => {
                self.connection = None;
                return Err(silent(error));
            }
        };
        let number = |field: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        let rejected = number("rejected_connections");
        if rejected < self.rejected {
            self.rejected_before += self.rejected;
        }
        self.rejected = rejected;
        Ok(Clients {
            connected: number("connected_clients"),
            rejected: self.rejected_before + rejected,
            max: number("maxclients"),
        })
    }

    async fn info(&mut self) -> RedisResult<String> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.client.get_multiplexed_async_connection().await?),
        };
        redis::cmd("INFO").arg("clients").arg("stats").query_async(connection).await
    }
}

/// The driver's error repeats its source: one text is enough.
fn silent(error: RedisError) -> io::Error {
    io::Error::other(format!("redis does not answer: {error}"))
}
