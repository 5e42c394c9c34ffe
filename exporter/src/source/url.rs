//! [`RedisUrl`]: where Redis is, and what it wants to hear; never shown whole.

use std::{fmt, str::FromStr};

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::mask;

/// A parsed `redis://`, `rediss://` or `redis+unix://` URL. Its `Display` and `Debug` have no secrets.
#[derive(Clone)]
pub struct RedisUrl {
    info: ConnectionInfo,
    shown: String,
}

impl RedisUrl {
    /// Whether the URL carries a password.
    pub fn has_password(&self) -> bool {
        self.info.redis_settings().password().is_some()
    }

    pub(crate) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// A text of the client library or the server, without our password, should it repeat it.
    pub(crate) fn redact(&self, text: &str) -> String {
        match self.info.redis_settings().password() {
            Some(password) if !password.is_empty() => mask(&text.replace(password, "***")),
            _ => mask(text),
        }
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The library's own text could repeat a part of the URL; ours says what would be right.
        let info = text.into_connection_info().map_err(|_| match text.split_once("://") {
            Some(("rediss" | "valkeys", _)) if !has_tls() => {
                "a URL that needs TLS, which is not in this build; \
                one with the feature tls-ring or tls-aws-lc has it, redis:// does without"
                    .to_owned()
            }
            _ => "not a Redis URL; redis://HOST:PORT/DB, rediss://HOST:PORT/DB and redis+unix:///PATH are"
                .to_owned(),
        })?;
        // One command less to be allowed by an ACL; the name of the connection says who we are.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        Ok(Self { info: info.set_redis_settings(settings).set_tcp_settings(tcp), shown: mask(text) })
    }
}

/// Whether the client library was built with TLS; a feature of ours is not the only way to that.
fn has_tls() -> bool {
    let (host, port) = (String::new(), 0);
    ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }.is_supported()
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}
