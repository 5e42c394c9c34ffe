//! [`Server`]: what Redis says of its clients, asked over a connection of the demo's own.

use std::{io, net::SocketAddr};

use redis::{Client, RedisError, aio::MultiplexedConnection};

/// A Redis server, and the one connection that looks at it.
pub(crate) struct Server {
    pub(crate) client: Client,
    connection: MultiplexedConnection,
}

/// What the server counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clients {
    /// Those connected now, the demo's own and the exporter's included.
    pub(crate) connected: u64,
    /// Those turned away since the server was started.
    pub(crate) rejected: u64,
    /// The most that it accepts.
    pub(crate) max: u64,
}

impl Server {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let client = Client::open(format!("redis://{address}")).map_err(silent)?;
        let connection = client.get_multiplexed_async_connection().await.map_err(silent)?;
        Ok(Self { client, connection })
    }

    pub(crate) async fn clients(&mut self) -> io::Result<Clients> {
        let mut info = redis::cmd("INFO");
        info.arg("clients").arg("stats");
        let text: String = info.query_async(&mut self.connection).await.map_err(silent)?;
        let number = |field: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        Ok(Clients {
            connected: number("connected_clients"),
            rejected: number("rejected_connections"),
            max: number("maxclients"),
        })
    }
}

/// The driver's error repeats its source: one text is enough.
fn silent(error: RedisError) -> io::Error {
    io::Error::other(format!("redis does not answer: {error}"))
}
