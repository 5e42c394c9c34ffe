//! The floor: one redis-rs connection that all tasks share, and nothing around it.

use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo as _, Value, aio::MultiplexedConnection,
    io::tcp::TcpSettings,
};

use super::{
    Contender, Failure,
    scripts::{self, Names},
};

/// redis-rs with nodelay on, RESP2 and no timeouts.
pub struct Floor {
    connection: MultiplexedConnection,
}

impl Floor {
    pub async fn connect(url: &str) -> Result<Self, Failure> {
        let info = url.into_connection_info()?.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut connection =
            Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
        scripts::load(&mut connection).await?;
        Ok(Self { connection })
    }
}

impl Contender for Floor {
    type Task = (Names, MultiplexedConnection);

    fn task(&self, number: usize) -> Self::Task {
        (Names::of(number), self.connection.clone())
    }

    async fn pair(&self, (names, connection): &mut Self::Task) -> Result<(), Failure> {
        let reply: Value = names.acquire().query_async(connection).await?;
        let fence = scripts::granted(&reply)?;
        let reply: Value = names.release(fence).query_async(connection).await?;
        scripts::released(&reply)
    }
}
