//! [`Alerts`]: which alerts are pending or firing, asked of Prometheus.

use std::{collections::BTreeMap, fmt, io, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The alerts that are pending or firing, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Alerts(BTreeMap<String, AlertState>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AlertState {
    Pending,
    Firing,
}

impl Alerts {
    /// What Prometheus says now; of several alerts of one name, the furthest.
    pub(crate) async fn ask(prometheus: SocketAddr) -> io::Result<Self> {
        let answer = timeout(PATIENCE, get(prometheus, "/api/v1/alerts")).await??;
        let answer: Value = serde_json::from_str(&answer)?;
        let alerts = answer["data"]["alerts"].as_array();
        let alerts =
            alerts.ok_or_else(|| io::Error::other("prometheus answered something else than alerts"))?;
        let mut all = Self::default();
        for alert in alerts {
            let state = match alert["state"].as_str() {
                Some("firing") => AlertState::Firing,
                Some("pending") => AlertState::Pending,
                _ => continue,
            };
            let name = alert["labels"]["alertname"].as_str().unwrap_or("an alert without a name");
            let furthest = all.0.entry(name.to_owned()).or_insert(state);
            *furthest = state.max(*furthest);
        }
        Ok(all)
    }

    pub(crate) fn is_firing(&self, name: &str) -> bool {
        self.0.get(name) == Some(&AlertState::Firing)
    }
}

impl fmt::Display for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (number, (name, state)) in self.0.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            let state = if *state == AlertState::Firing { "FIRING" } else { "pending" };
            write!(f, "{comma}{name} {state}")?;
        }
        Ok(())
    }
}

/// HTTP/1.0: the body ends with the connection, and is never sent in chunks.
async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    match response.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("prometheus: {}", response.lines().next().unwrap_or("no answer")))),
    }
}
