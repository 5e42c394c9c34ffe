//! The state of an alert, asked of Prometheus.

use std::{fmt, io, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AlertState {
    #[default]
    Inactive,
    Pending,
    Firing,
}

impl fmt::Display for AlertState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "FIRING",
        })
    }
}

/// The state of the alert `name`; of several alerts of that name, the furthest.
pub(crate) async fn alert_state(address: SocketAddr, name: &str) -> io::Result<AlertState> {
    let answer = timeout(Duration::from_secs(2), get(address, "/api/v1/alerts")).await??;
    let answer: Value = serde_json::from_str(&answer)?;
    let alerts = answer["data"]["alerts"].as_array();
    let alerts = alerts.ok_or_else(|| io::Error::other("prometheus answered something else than alerts"))?;
    let state_of = |alert: &Value| match alert["state"].as_str() {
        Some("firing") => AlertState::Firing,
        Some("pending") => AlertState::Pending,
        _ => AlertState::Inactive,
    };
    let named = alerts.iter().filter(|alert| alert["labels"]["alertname"] == name);
    Ok(named.map(state_of).max().unwrap_or(AlertState::Inactive))
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
