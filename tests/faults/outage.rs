//! [`Outage`]: the ways in which Redis is away, and how each begins and ends.

use crate::support::{FaultProxy, RedisServer, proxy::Close};

/// How Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// `kill -9`; then it is started again, empty.
    Killed,
    /// `SIGSTOP`: connections are accepted by the kernel, and nobody answers.
    Stopped,
    /// Nothing passes, and no connection is closed.
    Blackhole,
    /// All connections are closed, and new ones too.
    Refused,
}

impl Outage {
    pub(crate) const ALL: [Self; 4] = [Self::Killed, Self::Stopped, Self::Blackhole, Self::Refused];

    pub(crate) fn begin(self, server: &RedisServer, networks: &[&FaultProxy]) {
        match self {
            Self::Killed => server.kill9(),
            Self::Stopped => server.stop(),
            Self::Blackhole => networks.iter().for_each(|network| network.blackhole()),
            Self::Refused => networks.iter().for_each(|network| {
                network.refuse();
                network.close_all(Close::Rst);
            }),
        }
    }

    /// Returns when Redis is there again.
    pub(crate) fn end(self, server: &RedisServer, networks: &[&FaultProxy]) {
        match self {
            Self::Killed => server.restart(),
            Self::Stopped => server.cont(),
            Self::Blackhole | Self::Refused => networks.iter().for_each(|network| network.heal()),
        }
    }
}
