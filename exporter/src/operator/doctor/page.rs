//! [`Page`]: what was seen and found, for people and for machines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use spool_lock::{Config, ServerReport};

use super::{
    super::{
        moment::moment,
        table::{aligned, printable},
    },
    clients::Client,
    finding::Finding,
    look::Look,
    rights::{refused, unknown},
};

/// What was seen and found.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) config: &'a Config,
    pub(super) look: &'a Look,
    /// What the library says, where it could connect.
    pub(super) server: Option<ServerReport>,
    pub(super) findings: &'a [Finding],
}

impl Page<'_> {
    pub(super) fn text(&self) -> String {
        let mut text = aligned(&self.rows());
        if !self.look.hidden.is_empty() {
            let hidden = self.look.hidden.join(" ");
            text.push_str(&format!("\nnot all was seen: the user {} lacks {hidden}\n", self.look.user));
        }
        text.push('\n');
        for Finding { name, message, mend } in self.findings {
            text.push_str(&printable(&format!("{name}: {message} -> {mend}")));
            text.push('\n');
        }
        let is_forgotten =
            |it: &Finding| ["CONFIG SET", "ACL SETUSER"].iter().any(|verb| it.mend.starts_with(verb));
        if self.findings.is_empty() {
            text.push_str("all is well: this server can keep locks\n");
        } else if self.findings.iter().any(is_forgotten) {
            text.push_str(
                "\nCONFIG REWRITE, or ACL SAVE, has Redis remember such changes after its next start\n",
            );
        }
        text
    }

    fn rows(&self) -> Vec<[String; 2]> {
        let Config { url, prefix, .. } = self.config;
        let seen = [
            ("server", format!("{}, {}", self.known("redis_version"), self.known("role"))),
            ("memory", format!("maxmemory-policy {}", self.known("maxmemory_policy"))),
            ("persistence", self.persistence()),
            ("connections", self.connections()),
            ("clock", self.clock()),
            ("rights", self.rights()),
        ];
        let mut rows = vec![("redis", format!("{url}, prefix {prefix}, user {}", self.look.user))];
        // Where nobody answered, a list of what is not known would hide why.
        if self.server.is_some() || !self.look.info.is_empty() {
            rows.extend(seen);
        }
        rows.push(("acl", self.acl_line()));
        rows.into_iter().map(|(name, value)| [name.to_owned(), value]).collect()
    }

    pub(super) fn json(&self) -> Value {
        let look = self.look;
        let finding = |it: &Finding| json!({ "name": it.name, "message": it.message, "mend": it.mend });
        json!({
            "is_well": self.findings.is_empty(),
            "redis": self.config.url.to_string(),
            "prefix": self.config.prefix,
            "user": look.user,
            "version": look.field("redis_version"),
            "role": look.field("role"),
            "maxmemory_policy": look.field("maxmemory_policy"),
            "persistence": {
                "append_only_file": look.number("aof_enabled").map(|on| on == 1),
                "save_points": look.save_points,
                "last_save_status": look.field("rdb_last_bgsave_status"),
                "last_save_at": self.saved_at().map(|at| humantime::format_rfc3339_seconds(at).to_string()),
            },
            "connections": {
                "limit": look.number("maxclients"),
                "used": look.number("connected_clients"),
                "wanted": self.config.pool.max_connections,
                "clients": self.clients_json(),
            },
            "clock_offset_seconds": self.server.as_ref().map(|server| server.clock_offset_seconds),
            "acl": {
                "line": self.acl_line(),
                "rights": look.rights.iter().map(|it| json!({
                    "rule": it.right.rule,
                    "purpose": it.right.purpose.as_str(),
                    "is_granted": it.is_granted,
                })).collect::<Vec<_>>(),
            },
            "hidden": look.hidden,
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }

    fn known(&self, field: &str) -> &str {
        self.look.field(field).unwrap_or("unknown")
    }

    fn persistence(&self) -> String {
        let file = match self.look.number("aof_enabled") {
            Some(1) => "append-only file on",
            Some(_) => "append-only file off",
            None => "append-only file unknown",
        };
        let points = match self.look.save_points.as_deref() {
            Some("") => "never saved as a whole",
            Some(points) => &format!("saved as a whole at {points} (seconds, changes)"),
            None => "save points unknown",
        };
        let last = match self.saved_at() {
            Some(at) => &moment(at, SystemTime::now()),
            None => "unknown",
        };
        format!("{file}; {points}; last save {last}, {}", self.known("rdb_last_bgsave_status"))
    }

    /// When the data was last saved as a whole, or the server was started.
    fn saved_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.look.number("rdb_last_save_time")?))
    }

    fn connections(&self) -> String {
        let (used, limit) = (self.known("connected_clients"), self.known("maxclients"));
        let by = match &self.look.clients {
            Some(clients) => {
                let by = |(client, count): (&Client, u64)| match client {
                    Client::Named(name) => format!("{count} {name}"),
                    Client::Nameless(host) => format!("{count} from {host}"),
                };
                clients.iter().map(by).collect::<Vec<_>>().join(", ")
            }
            None => "by whom is unknown".to_owned(),
        };
        format!("{used} of {limit} in use: {by}; a pool takes up to {}", self.config.pool.max_connections)
    }

    fn clients_json(&self) -> Value {
        let client = |(client, count): (&Client, u64)| match client {
            Client::Named(name) => json!({ "name": name, "address": null, "count": count }),
            Client::Nameless(host) => json!({ "name": null, "address": host, "count": count }),
        };
        self.look.clients.as_ref().map(|clients| clients.iter().map(client).collect::<Vec<_>>()).into()
    }

    fn clock(&self) -> String {
        match &self.server {
            // Plus zero, because minus zero would be shown as such.
            Some(server) => {
                format!("{:+.1} s off ours", (server.clock_offset_seconds * 10.0).round() / 10.0 + 0.0)
            }
            None => "unknown".to_owned(),
        }
    }

    fn rights(&self) -> String {
        let rights = &self.look.rights;
        let (refused, unknown) = (refused(rights, |_| true), unknown(rights));
        match (refused.is_empty(), unknown.is_empty()) {
            (true, true) => format!("all {} are granted", rights.len()),
            (false, true) => format!("not granted: {}", refused.join(" ")),
            (true, false) => "unknown".to_owned(),
            (false, false) => {
                format!("not granted: {}; not known until then: {}", refused.join(" "), unknown.join(" "))
            }
        }
    }

    /// A line for the file of users, or of the configuration; after `ACL SETUSER` in place of `user` for redis-cli.
    fn acl_line(&self) -> String {
        // What locks need is no line for whoever may do all.
        let name = if self.look.user == "default" { "NAME" } else { &self.look.user };
        let rules: Vec<_> = self.look.rights.iter().map(|it| it.right.rule.as_str()).collect();
        format!("user {name} on >PASSWORD {}", rules.join(" "))
    }
}
