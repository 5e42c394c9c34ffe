//! Who uses the connections of the server, from `CLIENT LIST`.

use std::collections::BTreeMap;

use spool_lock::Config;

/// As the doctor is called in `CLIENT LIST`.
pub(super) const OWN_NAME: &str = "spool-lock-exporter:doctor";

/// Clients that call themselves the same, or that come from the same address and have no name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Client {
    Named(String),
    /// Without its port.
    Nameless(String),
}

/// How many of each there are, the most first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clients(Vec<(Client, u64)>);

impl Clients {
    /// Reads `field=value field=value` lines; what is no such line is skipped.
    pub(super) fn parse(list: &str) -> Self {
        let mut counts = BTreeMap::<_, u64>::new();
        for client in list.lines().filter_map(Client::parse) {
            *counts.entry(client).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Self(counts)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Client, u64)> {
        self.0.iter().map(|(client, count)| (client, *count))
    }

    /// Those that are neither a service with these settings nor the doctor.
    pub(super) fn others(&self, config: &Config) -> u64 {
        // As the library calls its connections.
        let service = Client::Named(format!("spool-lock:{}", config.prefix));
        let doctor = Client::Named(OWN_NAME.to_owned());
        self.iter()
            .filter(|(client, _)| **client != service && **client != doctor)
            .map(|(_, count)| count)
            .sum()
    }
}

impl Client {
    fn parse(line: &str) -> Option<Self> {
        let field = |wanted: &str| {
            line.split(' ').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == wanted)
        };
        let (_, address) = field("addr")?;
        match field("name") {
            Some((_, name)) if !name.is_empty() => Some(Self::Named(name.to_owned())),
            _ => Some(Self::Nameless(address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_by_their_name_and_by_their_address_where_they_have_none() {
        let clients = Clients::parse(
            "id=1 addr=10.0.0.3:41000 laddr=10.0.0.1:6379 name= age=1\n\
             id=2 addr=10.0.0.3:41001 laddr=10.0.0.1:6379 name= age=1\n\
             id=3 addr=[::1]:41002 name=\n\
             id=4 addr=10.0.0.4:1 name=spool-lock:spool\n\
             id=5 addr=10.0.0.5:1 name=spool-lock:spool\n\
             id=6 addr=10.0.0.5:2 name=spool-lock:spool\n\
             id=7 addr=10.0.0.5:3 name=spool-lock-exporter:doctor\n\nnonsense\n",
        );
        let named = |name: &str| Client::Named(name.to_owned());
        let nameless = |host: &str| Client::Nameless(host.to_owned());
        let expected = [
            (named("spool-lock:spool"), 3),
            (nameless("10.0.0.3"), 2),
            (named("spool-lock-exporter:doctor"), 1),
            (nameless("[::1]"), 1),
        ];
        assert_eq!(clients, Clients(expected.into()));
        assert_eq!(clients.others(&Config::default()), 3);
    }
}
