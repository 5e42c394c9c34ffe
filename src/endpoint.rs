//! [`SnapshotEndpoint`]: where a process serves its snapshot.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// Where a process serves its snapshot: a unix socket of its own, or a port of the loopback interface.
///
/// Written `unix:PATH`, in which `%p` stands for the process id, or `http://127.0.0.1:PORT` (port 0 takes a free one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotEndpoint {
    /// A unix socket, made with mode 0600.
    Unix(PathBuf),
    /// An address of the loopback interface.
    Http(SocketAddr),
}

impl FromStr for SnapshotEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "unix:PATH (%p stands for the process id) or http://127.0.0.1:PORT is";
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.replace("%p", &std::process::id().to_string()).into()));
        }
        let address = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match address.and_then(|address| address.parse::<SocketAddr>().ok()) {
            Some(address) if address.ip().is_loopback() => Ok(Self::Http(address)),
            Some(_) => Err(format!("the snapshot is for this machine alone; {RIGHT}")),
            None => Err(format!("not a snapshot endpoint; {RIGHT}")),
        }
    }
}

impl fmt::Display for SnapshotEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(address) => write!(f, "http://{address}"),
        }
    }
}
