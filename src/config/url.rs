//! [`StoreUrl`]: where the locks are, with its password out of sight.

use std::{fmt, str::FromStr};

use url::Url;

/// The address of a store. `Debug` and `Display` mask the password.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(Store);

#[derive(Clone, PartialEq, Eq)]
enum Store {
    Redis(Box<Url>),
    Memory(Option<String>),
}

const RIGHT: &str = "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://… (TLS), redis+unix:///PATH, memory:// or memory://NAME can";

impl StoreUrl {
    /// The URL with its password, for a driver alone: not to be shown or logged. `None` for a memory store.
    pub fn with_password(&self) -> Option<&str> {
        match &self.0 {
            Store::Redis(url) => Some(url.as_str()),
            Store::Memory(_) => None,
        }
    }

    #[cfg(feature = "memory")]
    /// The name of a memory store that is shared in the process.
    pub(crate) fn memory_name(&self) -> Option<&str> {
        match &self.0 {
            Store::Redis(_) => None,
            Store::Memory(name) => name.as_deref(),
        }
    }
}

impl Default for StoreUrl {
    fn default() -> Self {
        "redis://127.0.0.1:6379".parse().expect("the default address is one")
    }
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("{error}; {RIGHT}"))?;
        match url.scheme() {
            "memory" => {
                let name = url.host_str().filter(|name| !name.is_empty());
                Ok(Self(Store::Memory(name.map(str::to_owned))))
            }
            "redis" | "rediss" | "redis+unix" => {
                let needs_host = url.scheme().starts_with("redis") && url.scheme() != "redis+unix";
                if needs_host && url.host_str().is_none_or(str::is_empty) {
                    return Err(format!("the host is missing; {RIGHT}"));
                }
                let database = url.path().trim_matches('/');
                if needs_host && !database.is_empty() && database.parse::<u16>().is_err() {
                    // Not the text itself: it may be the rest of a password that was not escaped.
                    return Err(format!("the path is no database number; {RIGHT}"));
                }
                Ok(Self(Store::Redis(Box::new(url))))
            }
            scheme if scheme.contains("sentinel") || scheme.contains("cluster") => {
                Err(format!("one standalone server is supported, {scheme} is not; {RIGHT}"))
            }
            scheme => Err(format!("the scheme {scheme} is not known; {RIGHT}")),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Store::Redis(url) => f.write_str(&masked(url.as_str())),
            Store::Memory(name) => write!(f, "memory://{}", name.as_deref().unwrap_or_default()),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

/// Hides all that may be a secret in `text`, which need not be a URL: what stands before the last `@` of the authority, and
/// the query, in which some write `?password=`.
pub(crate) fn masked(text: &str) -> String {
    let (scheme, rest) = match text.find("://") {
        Some(at) => text.split_at(at + 3),
        None => ("", text),
    };
    let rest = match rest.rfind('@') {
        Some(at) => format!("***{}", &rest[at..]),
        None => rest.to_owned(),
    };
    match rest.find(['?', '#']) {
        Some(at) => format!("{scheme}{}***", &rest[..=at]),
        None => format!("{scheme}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_never_shown() {
        for text in [
            "redis://:hunter2@localhost",
            "redis://user:hunter2@localhost:6379/0",
            "rediss://user:p@hunter2@localhost",
            "redis+unix:///run/redis.sock?pass=hunter2",
            "redis:/user:hunter2@localhost",
            "redis://worker:12/hunter2@localhost",
            "hunter2@",
            "redis://user:hunter2@ho st",
        ] {
            assert!(!masked(text).contains("hunter2"), "{}", masked(text));
            let parsed =
                text.parse::<StoreUrl>().map(|url| format!("{url} {url:?}")).unwrap_or_else(|error| error);
            assert!(!parsed.contains("hunter2"), "{parsed}");
        }
    }

    #[test]
    fn sentinel_and_cluster_are_refused_by_name() {
        for scheme in ["redis-sentinel", "redis+cluster", "rediss+sentinel"] {
            let error = format!("{scheme}://localhost").parse::<StoreUrl>().unwrap_err();
            assert!(error.contains(scheme) && error.contains("standalone"), "{error}");
        }
    }
}
