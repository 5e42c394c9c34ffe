//! [`Right`]: what a user of Redis is to be granted.

use super::Config;
use crate::store::check::{CHANNEL_RIGHTS, HISTORY_RIGHTS, RIGHTS, WELCOME_RIGHTS};

/// One word of `ACL SETUSER`, and what it is needed for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Right {
    /// A command (`+get`, `+client|setname`), a pattern of keys (`~spool:*`) or one of channels (`&spool:events:*`).
    pub rule: String,
    /// What does not work without it.
    pub purpose: RightPurpose,
}

/// What does not work without a [`Right`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RightPurpose {
    /// Nothing does.
    Locks,
    /// Who watches hears nothing, and who waits finds out by looking again and again.
    Events,
    /// Past grants are not remembered.
    History,
    /// `connect` knows nothing of the server, and the connections have no name in `CLIENT LIST`.
    Checks,
}

impl RightPurpose {
    /// What JSON calls it: `locks`, `events`, `history`, `checks`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Locks => "locks",
            Self::Events => "events",
            Self::History => "history",
            Self::Checks => "checks",
        }
    }
}

impl Config {
    /// What the user in the URL must be granted for these settings, patterns first: those of a history only where one is kept.
    ///
    /// # Examples
    /// ```
    /// let config = spool_lock::Config::new("redis://127.0.0.1:6379")?;
    /// let rules: Vec<_> = config.rights().into_iter().map(|right| right.rule).collect();
    /// let line = format!("ACL SETUSER picker on >PASSWORD {}", rules.join(" "));
    /// assert!(line.starts_with("ACL SETUSER picker on >PASSWORD ~spool:* &spool:events:* &spool:grants:* +eval +evalsha "));
    /// # Ok::<(), spool_lock::ConfigError>(())
    /// ```
    pub fn rights(&self) -> Vec<Right> {
        use RightPurpose::{Checks, Events, History, Locks};
        let prefix = &self.prefix;
        let keys = format!("~{prefix}:*");
        let channels = format!("&{prefix}:events:* &{prefix}:grants:*");
        let history = if self.history.enabled { HISTORY_RIGHTS } else { "" };
        let all = [
            (keys.as_str(), Locks),
            (&channels, Events),
            (RIGHTS, Locks),
            (CHANNEL_RIGHTS, Events),
            (history, History),
            (WELCOME_RIGHTS, Checks),
        ];
        let rights = |(rules, purpose): (&str, _)| {
            let right = |rule: &str| Right { rule: rule.to_owned(), purpose };
            rules.split_whitespace().map(right).collect::<Vec<_>>()
        };
        all.into_iter().flat_map(rights).collect()
    }
}
