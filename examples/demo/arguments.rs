//! [`Arguments`]: the command line.

use std::{error::Error, net::SocketAddr, time::Duration};

use spool_lock::SnapshotEndpoint;

pub(crate) const USAGE: &str = "\
usage: demo per-request --redis IP:PORT [--seconds N]
       demo pooled      --redis IP:PORT [--seconds N] [--snapshot unix:PATH] [--prometheus IP:PORT]
       demo restart     --redis IP:PORT [--seconds N] [--snapshot unix:PATH] [--prometheus IP:PORT]
       demo saturated   --redis IP:PORT [--seconds N] --snapshot unix:PATH --prometheus IP:PORT

scripts/demo starts what this needs.";

pub(crate) struct Arguments {
    pub(crate) part: Part,
    pub(crate) redis: SocketAddr,
    pub(crate) seconds: Option<Duration>,
    pub(crate) snapshot: Option<SnapshotEndpoint>,
    pub(crate) prometheus: Option<SocketAddr>,
}

pub(crate) enum Part {
    PerRequest,
    Pooled,
    Restart,
    Saturated,
}

impl Arguments {
    /// `None` when only the usage is asked for.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, Box<dyn Error>> {
        let Some(part) = args.next().filter(|part| !matches!(part.as_str(), "--help" | "-h")) else {
            return Ok(None);
        };
        let (mut redis, mut seconds, mut snapshot, mut prometheus) = (None, None, None, None);
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--redis" => redis = Some(value.parse()?),
                "--seconds" => seconds = Some(Duration::from_secs(value.parse()?)),
                "--snapshot" => snapshot = Some(value.parse::<SnapshotEndpoint>()?),
                "--prometheus" => prometheus = Some(value.parse()?),
                _ => return Err(format!("{flag} is not known\n{USAGE}").into()),
            }
        }
        let part = match part.as_str() {
            "per-request" => Part::PerRequest,
            "pooled" => Part::Pooled,
            "restart" => Part::Restart,
            "saturated" if prometheus.is_none() => return Err("--prometheus is missing".into()),
            "saturated" => Part::Saturated,
            _ => return Err(format!("{part} is no part of the demo\n{USAGE}").into()),
        };
        let redis = redis.ok_or("--redis is missing")?;
        Ok(Some(Self { part, redis, seconds, snapshot, prometheus }))
    }
}
