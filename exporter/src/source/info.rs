//! [`Info`]: the few fields of Redis' `INFO` that the page shows.

/// What the server said of itself. A field that it did not say, or that is not what it should be, is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Info {
    pub(crate) redis_version: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) maxmemory_policy: Option<String>,
    pub(crate) connected_clients: Option<u64>,
    pub(crate) maxclients: Option<u64>,
    pub(crate) rejected_connections: Option<u64>,
    pub(crate) connections_received: Option<u64>,
    /// Seconds since 1970, by the server's own clock; counted back from its uptime.
    pub(crate) started_at: Option<u64>,
    /// Whether the server still loads its data: it answers `INFO` then, and nothing else.
    pub(crate) loading: bool,
}

impl Info {
    /// The sections that hold the fields; one `INFO` asks for all (Redis 7.0).
    pub(crate) const SECTIONS: [&'static str; 6] =
        ["server", "clients", "stats", "replication", "memory", "persistence"];

    /// Reads `field:value` lines; whatever else is there is skipped.
    pub(crate) fn parse(text: &str) -> Self {
        let mut info = Self::default();
        let (mut now_micros, mut uptime) = (None, None);
        for (field, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match field {
                "redis_version" => info.redis_version = word(value),
                "role" => info.role = word(value),
                "maxmemory_policy" => info.maxmemory_policy = word(value),
                "connected_clients" => info.connected_clients = value.parse().ok(),
                "maxclients" => info.maxclients = value.parse().ok(),
                "rejected_connections" => info.rejected_connections = value.parse().ok(),
                "total_connections_received" => info.connections_received = value.parse().ok(),
                "loading" => info.loading = value == "1",
                "server_time_usec" => now_micros = value.parse::<u64>().ok(),
                "uptime_in_seconds" => uptime = value.parse::<u64>().ok(),
                _ => {}
            }
        }
        info.started_at =
            now_micros.zip(uptime).map(|(now, uptime)| (now / 1_000_000).saturating_sub(uptime));
        info
    }
}

/// A value that may become a label: short and without surprises.
fn word(value: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
    ((1..=40).contains(&value.len()) && value.chars().all(plain)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_server_says() {
        let info = Info::parse(
            "# Server\r\nredis_version:7.0.15\r\nuptime_in_seconds:50\r\nserver_time_usec:1700000050999999\r\n\r\n\
             # Clients\r\nconnected_clients:3\r\nmaxclients:25\r\n\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n\
             # Stats\r\ntotal_connections_received:12\r\nrejected_connections:4\r\n# Replication\r\nrole:master\r\n\
             # Persistence\r\nloading:0\r\n",
        );
        let expected = Info {
            redis_version: Some("7.0.15".into()),
            role: Some("master".into()),
            maxmemory_policy: Some("noeviction".into()),
            connected_clients: Some(3),
            maxclients: Some(25),
            rejected_connections: Some(4),
            connections_received: Some(12),
            started_at: Some(1_700_000_000),
            loading: false,
        };
        assert_eq!(info, expected);
        assert!(Info::parse("loading:1").loading);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let long = format!("role:{}", "x".repeat(41));
        for text in [
            "",
            "nonsense",
            "role:\"}\n",
            "connected_clients:-1",
            "maxclients:many",
            "uptime_in_seconds:1",
            &long,
        ] {
            assert_eq!(Info::parse(text), Info::default(), "{text:?}");
        }
        assert_eq!(Info::parse("server_time_usec:0\nuptime_in_seconds:9").started_at, Some(0));
    }
}
