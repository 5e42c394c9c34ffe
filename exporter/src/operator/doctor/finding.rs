//! [`Finding`]: something that must be changed, and how.

use spool_lock::{Config, ConnectError, FaultKind, RightPurpose, ServerReport, Warning};

use super::{
    super::{advice::advice, answer::in_one_line},
    look::Look,
    rights::{refused, unknown},
};

/// Something that must be changed.
#[derive(Debug)]
pub(super) struct Finding {
    /// Its name, which is stable; one of the library's warnings, of the kinds of its faults, or of those in the README.
    pub(super) name: String,
    /// What is so, and why it matters.
    pub(super) message: String,
    /// What mends it: a command for redis-cli, a setting, or what to do.
    pub(super) mend: String,
}

impl Finding {
    fn new(name: &str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name: name.to_owned(), message: message.into(), mend: mend.into() }
    }
}

/// What the library warns of where a right for this is missing; of those for a history it does not.
fn warning_of(purpose: RightPurpose) -> &'static str {
    match purpose {
        RightPurpose::Locks => "scripts_denied",
        RightPurpose::Events => "events_permission",
        RightPurpose::History => "history_denied",
        _ => "info_denied",
    }
}

/// All that must be changed, what the library says first.
pub(super) fn findings(
    config: &Config,
    look: &Look,
    report: &Result<ServerReport, ConnectError>,
) -> Vec<Finding> {
    let mut findings: Vec<_> = match report {
        Ok(report) => report.warnings.iter().map(|warning| warned(config, look, warning)).collect(),
        Err(error) => vec![not_connected(config, look, error)],
    };
    // Where the library could not connect either, it has said why.
    if let (Ok(_), Some(reason)) = (report, look.wrong) {
        let why = reason.as_str();
        let message = format!("the doctor's own connection failed ({why}), so not all was seen");
        findings.push(Finding::new("look_failed", message, "run the doctor again"));
    }
    findings.extend(not_saved(look));
    findings.extend(no_room(config, look).filter(|_| !findings.iter().any(|it| it.name == "client_limit")));
    let mut not_granted = not_granted(look);
    // Of the same the library has said more; where it was refused, what grants them all is said there.
    not_granted
        .retain(|missing| findings.iter().all(|it| it.name != missing.name && it.name != "permission"));
    findings.extend(not_granted);
    findings
}

/// What the library warns of, with what mends it.
fn warned(config: &Config, look: &Look, warning: &Warning) -> Finding {
    let mend = match warning.name.as_str() {
        "eviction_policy" => "CONFIG SET maxmemory-policy noeviction".to_owned(),
        "no_append_only_file" => "CONFIG SET appendonly yes".to_owned(),
        "replica" => match look.field("master_host").zip(look.field("master_port")) {
            Some((host, port)) => format!("put its master into SPOOL_LOCK_URL: {host}:{port}"),
            None => "put its master into SPOOL_LOCK_URL".to_owned(),
        },
        "client_limit" => more_room(config, look),
        "clock_offset" => "timedatectl set-ntp true, on the machine that is wrong".to_owned(),
        name => grant(look, |purpose| warning_of(purpose) == name),
    };
    Finding::new(&warning.name, &warning.message, mend)
}

fn not_connected(config: &Config, look: &Look, error: &ConnectError) -> Finding {
    let ConnectError::Fault(fault) = error else {
        return Finding::new("too_old", in_one_line(error), "install Redis 7.0 or newer");
    };
    let message = format!("{}, at {}", in_one_line(fault), config.url);
    let mend = if fault.kind() == FaultKind::Permission {
        grant(look, |_| true)
    } else {
        advice(fault.kind()).to_owned()
    };
    Finding::new(fault.kind().as_str(), message, mend)
}

/// A server that should save and cannot will soon refuse writes, and does so by default.
fn not_saved(look: &Look) -> Option<Finding> {
    let failed = |field: &str| look.field(field).is_some_and(|status| status != "ok");
    let what = match () {
        () if failed("aof_last_write_status") => "write to its append-only file",
        () if failed("rdb_last_bgsave_status") => "save its data",
        () => return None,
    };
    Some(Finding::new(
        "save_failed",
        format!("the server could not {what} the last time, and may refuse writes until it can"),
        advice(FaultKind::Misconf),
    ))
}

/// There are places for a pool, but others have them.
fn no_room(config: &Config, look: &Look) -> Option<Finding> {
    let (limit, others) = (look.number("maxclients")?, look.clients.as_ref()?.others(config));
    let (wanted, left) = (u64::from(config.pool.max_connections), limit.saturating_sub(others));
    (left < wanted).then(|| {
        let message = format!(
            "maxclients is {limit} and others use {others} of them, which leaves {left} for a pool of {wanted}"
        );
        Finding::new("client_room", message, more_room(config, look))
    })
}

fn more_room(config: &Config, look: &Look) -> String {
    let wanted = config.pool.max_connections;
    let others = look.clients.as_ref().map_or(0, |clients| clients.others(config));
    let needed = u64::from(wanted) + others;
    format!("CONFIG SET maxclients {needed} or more, or SPOOL_LOCK_MAX_CONNECTIONS below {wanted}")
}

/// Each purpose for which a right is missing.
fn not_granted(look: &Look) -> Vec<Finding> {
    use RightPurpose::{Checks, Events, History, Locks};
    let finding = |purpose: RightPurpose| {
        let missing = refused(&look.rights, |it| it == purpose);
        let without = match purpose {
            Locks => "no lock can be taken or given back",
            Events => "who waits looks again and again, and who watches hears nothing",
            History => "past grants are not remembered",
            _ => "the server cannot be looked at, and the connections have no name in CLIENT LIST",
        };
        let message = format!("the user {} lacks {}: {without}", look.user, missing.join(" "));
        let mend = grant(look, |it| it == purpose);
        (!missing.is_empty()).then(|| Finding::new(warning_of(purpose), message, mend))
    };
    [Locks, Events, History, Checks].into_iter().filter_map(finding).collect()
}

/// Grants what is missing, and what hides behind it: to grant what was granted does no harm, and one round is enough.
fn grant(look: &Look, is_meant: impl Fn(RightPurpose) -> bool) -> String {
    let mut rules = refused(&look.rights, is_meant);
    if rules.is_empty() {
        // Another one hinders it: with a grace after a restart, no lock can be taken without what the checks need.
        rules = refused(&look.rights, |_| true);
    }
    rules.extend(unknown(&look.rights));
    format!("ACL SETUSER {} {}", look.user, rules.join(" "))
}
