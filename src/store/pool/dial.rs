//! [`Dialler`]: opens one connection, by way of deadpool-redis.

use std::{sync::Arc, time::Duration};

use deadpool::managed::Manager as _;
use deadpool_redis::Manager;
use redis::{
    AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, Value,
    aio::{AsyncPushSender, MultiplexedConnection},
    io::tcp::TcpSettings,
};

use super::{
    PoolConfig,
    resolver::{OneAddress, Resolver},
    slots::Pace,
};
use crate::{Fault, FaultKind, store::classify};

/// How long a silent peer is believed to be there, by the operating system.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// A connection that needs longer for a PING is not one to lock with.
const LONGEST_TEST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Dialler {
    info: ConnectionInfo,
    /// What the server shows for our connections in CLIENT LIST.
    name: String,
    connect_timeout: Duration,
    addresses: Arc<OneAddress>,
}

impl Dialler {
    /// Reads the address; nothing is opened yet.
    ///
    /// # Errors
    /// What is wrong with the address, in words that do not repeat its password.
    pub(crate) fn new(
        url: &str,
        ca: Option<Vec<u8>>,
        name: String,
        pool: &PoolConfig,
    ) -> Result<Self, String> {
        #[cfg(feature = "_tls")]
        choose_crypto();
        let info = url.into_connection_info().map_err(|error| error.to_string())?;
        let info = match ca {
            Some(pem) => with_ca(info, pem)?,
            None => info,
        };
        // Without nodelay a second small write waits for the answer of the first: half the throughput of a shared lane.
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3));
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(pool.response_timeout);
        // RESP3 tells at once when the connection is gone.
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_tcp_settings(tcp).set_redis_settings(redis);
        Ok(Self { info, name, connect_timeout: pool.connect_timeout, addresses: Arc::default() })
    }

    /// Opens a connection, within the time that `pace` allows. `watch` is told when it breaks, and dropped when its socket is gone,
    /// also when it never came to be.
    pub(super) async fn dial(
        &self,
        watch: impl AsyncPushSender,
        pace: Pace,
    ) -> Result<MultiplexedConnection, Fault> {
        // The one timeout layer of a command is the pool's; the driver's would be a second one.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_dns_resolver(Resolver(self.addresses.clone()))
            .set_push_sender(watch);
        let manager = Manager::new_with_config(self.info.clone(), config).map_err(classify::of_dial)?;
        let open = async {
            let mut connection = manager.create().await?;
            let mut name = redis::cmd("CLIENT");
            name.arg("SETNAME").arg(&self.name);
            match connection.send_packed_command(&name).await? {
                // A user without the right to name connections may still lock.
                Value::ServerError(error) if error.code() != "NOPERM" => Err(error.into()),
                _ => Ok(connection),
            }
        };
        let outcome = match tokio::time::timeout(pace.patience(self.connect_timeout), open).await {
            Ok(outcome) => outcome.map_err(classify::of_dial),
            Err(elapsed) => Err(Fault::new(FaultKind::Timeout, elapsed)),
        };
        if outcome.is_err() {
            self.addresses.failed();
        }
        outcome
    }

    /// Asks an idle connection whether it still answers. Any answer will do, also that this user may not ask.
    pub(super) async fn test(&self, mut connection: MultiplexedConnection) -> bool {
        let ping = redis::cmd("PING");
        let asked = connection.send_packed_command(&ping);
        matches!(tokio::time::timeout(self.connect_timeout.min(LONGEST_TEST), asked).await, Ok(Ok(_)))
    }
}

#[cfg(feature = "_tls")]
fn with_ca(info: ConnectionInfo, pem: Vec<u8>) -> Result<ConnectionInfo, String> {
    let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(pem) };
    let client = redis::Client::build_with_tls(info, certificates).map_err(|error| error.to_string())?;
    Ok(client.get_connection_info().clone())
}

#[cfg(not(feature = "_tls"))]
fn with_ca(_: ConnectionInfo, _: Vec<u8>) -> Result<ConnectionInfo, String> {
    Err("rediss:// needs the feature tls-ring or tls-aws-lc".to_owned())
}

/// Without a crypto provider rustls panics at the first connection; one that the process has chosen is left alone.
#[cfg(feature = "_tls")]
fn choose_crypto() {
    use rustls::crypto;
    if crypto::CryptoProvider::get_default().is_none() {
        #[cfg(feature = "tls-ring")]
        let provider = crypto::ring::default_provider();
        #[cfg(not(feature = "tls-ring"))]
        let provider = crypto::aws_lc_rs::default_provider();
        // Another thread may have been faster, with the same.
        let _ = provider.install_default();
    }
}
