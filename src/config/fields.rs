//! The table of settings: variable, bounds, reason, and how a value is read and written.

use std::{fmt::Display, path::PathBuf, str::FromStr, time::Duration};

use super::{Config, url};
use crate::{ConfigError, Rate, Ttl};

pub(super) const PREFIX: &str = "SPOOL_LOCK_";
pub(super) const URL: &str = "SPOOL_LOCK_URL";
pub(super) const URL_FALLBACK: &str = "REDIS_URL";
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// One setting.
struct Field {
    variable: &'static str,
    /// What it is and why its default is what it is, for `docs/config.md`.
    #[cfg_attr(not(test), expect(dead_code, reason = "the test of docs/config.md reads it"))]
    meaning: &'static str,
    get: fn(&Config) -> String,
    /// Reads a value, or says what would be right.
    set: fn(&mut Config, &str) -> Result<(), String>,
    right: &'static str,
}

macro_rules! field {
    ($variable:literal, $($path:ident).+, $read:expr, $write:expr, $right:literal, $meaning:literal) => {
        Field {
            variable: concat!("SPOOL_LOCK_", $variable),
            meaning: $meaning,
            get: |config| $write(&config.$($path).+),
            set: |config, text| {
                config.$($path).+ = $read(text)?;
                Ok(())
            },
            right: $right,
        }
    };
}

/// A duration within bounds, in humantime's notation (`250ms`, `5s`, `1h`).
macro_rules! duration {
    ($variable:literal, $($path:ident).+, $min:expr, $max:expr, $right:literal, $meaning:literal) => {
        field!($variable, $($path).+, |text| duration(text, $min, $max), span, $right, $meaning)
    };
}

/// A whole number within bounds.
macro_rules! count {
    ($variable:literal, $($path:ident).+, $min:literal, $max:literal, $right:literal, $meaning:literal) => {
        field!($variable, $($path).+, |text| count(text, $min, $max), show, $right, $meaning)
    };
}

const FIELDS: &[Field] = &[
    field!(
        "URL",
        url,
        parse,
        show,
        "redis://, rediss://, redis+unix://, memory:// or memory://NAME can",
        "Where the locks are; `REDIS_URL` where it is not set"
    ),
    field!(
        "PREFIX",
        prefix,
        prefix,
        String::clone,
        "1 to 32 of A-Z a-z 0-9 : _ . - can",
        "What all keys begin with; services that share locks share it"
    ),
    duration!(
        "DEADLINE",
        deadline,
        MILLI,
        60 * MINUTE,
        "1ms to 1h can",
        "How long a call may take, all but an acquire's wait in line: as long as a person at a terminal waits"
    ),
    field!(
        "TTL",
        ttl,
        ttl,
        show,
        "whole milliseconds from 1ms to 30days can",
        "How long a lock lasts where the call does not say: a worker's spell at a spool"
    ),
    duration!(
        "WAIT",
        wait.wait,
        Duration::ZERO,
        DAY,
        "0s to 1day can",
        "How long an acquire waits where the call does not say: one look"
    ),
    duration!(
        "WAIT_POLL",
        wait.poll,
        50 * MILLI,
        MINUTE,
        "50ms to 1m can",
        "How often the first who waits for a tag looks although nobody called it, and up to 20 % later: the net below the messages"
    ),
    count!(
        "WAIT_LINE",
        wait.line,
        0,
        100_000,
        "0 to 100000 can",
        "Calls that may wait for one tag; one more is refused at once: a shift of a large factory at one machine"
    ),
    field!(
        "GUARD_TTL",
        guard.ttl,
        ttl,
        show,
        "whole milliseconds from 1ms to 30days can",
        "How long a guard's lock lasts after its last renewal: how long others wait after a crash; seconds at least, much longer than a reply takes"
    ),
    duration!(
        "GUARD_MAX_HOLD",
        guard.max_hold,
        MILLI,
        30 * DAY,
        "1ms to 30days can, not below SPOOL_LOCK_GUARD_TTL",
        "How long a guard is held at most, renewals included: a stuck task does not hold for ever"
    ),
    field!(
        "LIMIT_PER_HOLDER",
        limits.per_holder,
        rate,
        shown,
        "N/PERIOD, such as 10/1s, N 1 to 1000000 and PERIOD 1ms to 1day can",
        "Acquires by one holder in a period, a whole period's at once; one more is refused: a terminal that runs wild. Feature `rate-limit`"
    ),
    field!(
        "LIMIT_PER_TAG",
        limits.per_tag,
        rate,
        shown,
        "N/PERIOD, such as 10/1s, N 1 to 1000000 and PERIOD 1ms to 1day can",
        "Acquires of one tag in a period, by whomever: a spool that everybody wants is not asked for all the time. Feature `rate-limit`"
    ),
    count!(
        "MAX_CONNECTIONS",
        pool.max_connections,
        1,
        1000,
        "1 to 1000 can",
        "Connections of one `connect` and its clones, everything included: what a small hosted Redis can spare"
    ),
    count!(
        "DEPTH",
        pool.depth,
        1,
        1024,
        "1 to 1024 can",
        "Operations that a connection carries at a time (`docs/adr/0002-depth.md`)"
    ),
    duration!(
        "IDLE_TIMEOUT",
        pool.idle_timeout,
        10 * MILLI,
        DAY,
        "10ms to 1day can",
        "How long a connection may be without work before it is closed; one stays, and one for guards while there are any"
    ),
    count!(
        "MAX_WAITERS",
        pool.max_waiters,
        0,
        100_000,
        "0 to 100000 can",
        "Calls that may wait for a connection, releases and extends counted apart: eight for each of 20; one more is refused at once"
    ),
    duration!(
        "CONNECT_TIMEOUT",
        pool.connect_timeout,
        10 * MILLI,
        MINUTE,
        "10ms to 1m can",
        "How long opening a connection may take: TCP, TLS and handshake over a bad line; after 1 s another is tried beside it"
    ),
    duration!(
        "RESPONSE_TIMEOUT",
        pool.response_timeout,
        10 * MILLI,
        MINUTE,
        "10ms to 1m can",
        "How long a reply may take; the deadline of a call shortens it"
    ),
    duration!(
        "IDLE_TEST",
        pool.idle_test,
        10 * MILLI,
        DAY,
        "10ms to 1day can",
        "After how long without work a connection is tested: below the idle limits of firewalls"
    ),
    count!(
        "DIALS",
        pool.dials,
        1,
        100,
        "1 to 100 can",
        "Connections opened at the same time: a recovering server meets no herd"
    ),
    count!(
        "DIALS_PER_SECOND",
        pool.dials_per_second,
        1,
        100,
        "1 to 100 can",
        "Attempts per second to open a connection after one has failed"
    ),
    count!(
        "CIRCUIT_FAULTS",
        circuit.faults,
        1,
        1000,
        "1 to 1000 can",
        "Faults in a row after which calls are refused without asking Redis: one may be chance, three are an outage"
    ),
    duration!(
        "CIRCUIT_OPEN",
        circuit.open.base,
        10 * MILLI,
        60 * MINUTE,
        "10ms to 1h can",
        "How long they are refused until Redis is tried in the background; doubled each time that fails, and up to half less by chance"
    ),
    duration!(
        "CIRCUIT_OPEN_MAX",
        circuit.open.cap,
        10 * MILLI,
        60 * MINUTE,
        "10ms to 1h can, not below SPOOL_LOCK_CIRCUIT_OPEN",
        "How long they are refused at most until Redis is tried again: how much later than Redis a service comes back"
    ),
    count!(
        "RETRY_ATTEMPTS",
        retry.attempts,
        1,
        10,
        "1 to 10 can",
        "How many times a call is sent at most, within its deadline; 1: never again"
    ),
    duration!(
        "RETRY_DELAY",
        retry.delays.base,
        MILLI,
        MINUTE,
        "1ms to 1m can",
        "The pause before a call is sent again, a random part of it; doubled each time"
    ),
    duration!(
        "RETRY_DELAY_MAX",
        retry.delays.cap,
        MILLI,
        MINUTE,
        "1ms to 1m can, not below SPOOL_LOCK_RETRY_DELAY",
        "The longest such pause; what does not fit into the deadline of a call is not waited for"
    ),
    duration!(
        "FENCE_KEPT",
        fence_kept,
        MINUTE,
        30 * DAY,
        "1m to 30days can",
        "How long the last fence of a tag is remembered after its lock has ended: a day's late writers"
    ),
    duration!(
        "RESTART_GRACE",
        restart_grace,
        Duration::ZERO,
        60 * MINUTE,
        "0s to 1h can",
        "How long after a start of Redis nobody is granted a tag that it knows nothing of, so that what it has lost can be put back first: not at all"
    ),
    duration!(
        "SNAPSHOT_MAX_AGE",
        snapshot_max_age,
        SECOND,
        DAY,
        "1s to 1day can",
        "How old a last known state may be to be answered while Redis is away"
    ),
    count!(
        "DEFERRED",
        deferred,
        0,
        1_000_000,
        "0 to 1000000 can",
        "Releases that wait for Redis to come back: a shift of a large factory"
    ),
    field!(
        "HISTORY",
        history.enabled,
        on_off,
        |on: &bool| if *on { "on" } else { "off" }.to_owned(),
        "on or off can",
        "Whether past grants are remembered in Redis"
    ),
    count!("HISTORY_ENTRIES", history.entries, 1, 1000, "1 to 1000 can", "Grants remembered for each tag"),
    duration!(
        "HISTORY_KEPT",
        history.kept,
        MINUTE,
        90 * DAY,
        "1m to 90days can",
        "How long they are remembered"
    ),
    field!(
        "SNAPSHOT",
        snapshot,
        optional,
        shown,
        "unix:PATH (%p stands for the process id) or http://127.0.0.1:PORT can",
        "Where the process serves its snapshot for the exporter"
    ),
    field!(
        "TLS_CA_FILE",
        tls_ca_file,
        optional,
        |path: &Option<PathBuf>| path.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
        "a PEM file can",
        "Certificate authorities to trust for `rediss://`; the system's where it is not set"
    ),
];

pub(super) fn set(config: &mut Config, variable: &str, value: &str) -> Result<(), ConfigError> {
    let refuse = |value: String, right: String| ConfigError { variable: variable.to_owned(), value, right };
    let Some(field) = FIELDS.iter().find(|field| field.variable == variable) else {
        let near = FIELDS
            .iter()
            .min_by_key(|field| distance(field.variable, variable))
            .map_or(URL, |field| field.variable);
        return Err(refuse(
            url::masked(value),
            format!("no setting has this name, {near} is the nearest that can"),
        ));
    };
    (field.set)(config, value).map_err(|reason| {
        let right = if reason.is_empty() { field.right.to_owned() } else { reason };
        refuse(url::masked(value), right)
    })
}

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let mut again = config.clone();
    for field in FIELDS {
        set(&mut again, field.variable, &(field.get)(config))?;
    }
    let Config { guard, circuit, retry, .. } = config;
    not_below("GUARD_MAX_HOLD", guard.max_hold, "GUARD_TTL", guard.ttl.duration(), "30days")?;
    not_below("CIRCUIT_OPEN_MAX", circuit.open.cap, "CIRCUIT_OPEN", circuit.open.base, "1h")?;
    not_below("RETRY_DELAY_MAX", retry.delays.cap, "RETRY_DELAY", retry.delays.base, "1m")
}

/// Of two settings that belong together.
fn not_below(
    variable: &str,
    value: Duration,
    lower: &str,
    least: Duration,
    most: &str,
) -> Result<(), ConfigError> {
    if value >= least {
        return Ok(());
    }
    Err(ConfigError {
        variable: format!("{PREFIX}{variable}"),
        value: span(&value),
        right: format!("{} ({PREFIX}{lower}) to {most} can", span(&least)),
    })
}

fn show<T: ToString>(value: &T) -> String {
    value.to_string()
}

fn shown<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map(T::to_string).unwrap_or_default()
}

fn span(duration: &Duration) -> String {
    humantime::format_duration(*duration).to_string()
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn optional<T: FromStr<Err: Display>>(text: &str) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// Refuses in the words of the field.
fn in_its_words<E>(_: E) -> String {
    String::new()
}

fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(in_its_words)?;
    if (min..=max).contains(&duration) { Ok(duration) } else { Err(String::new()) }
}

fn count(text: &str, min: u32, max: u32) -> Result<u32, String> {
    let count = text.parse().map_err(in_its_words)?;
    if (min..=max).contains(&count) { Ok(count) } else { Err(String::new()) }
}

fn ttl(text: &str) -> Result<Ttl, String> {
    text.parse().map_err(in_its_words)
}

fn rate(text: &str) -> Result<Option<Rate>, String> {
    if !text.is_empty() && !cfg!(feature = "rate-limit") {
        return Err("it needs the feature rate-limit".to_owned());
    }
    optional(text).map_err(in_its_words)
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(String::new()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":_.-".contains(&byte);
    if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(String::new())
    }
}

/// Edit distance (Levenshtein), to name the variable that was probably meant.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn refused(variable: &str, value: &str) -> String {
        let vars = [(variable.to_owned(), value.to_owned())];
        Config::from_vars(vars).expect_err(value).to_string()
    }

    #[test]
    fn every_default_is_within_its_own_bounds() {
        Config::default().check().unwrap();
    }

    #[test]
    fn a_bad_value_names_variable_value_and_what_would_be_right() {
        assert_eq!(refused("SPOOL_LOCK_DEPTH", "0"), "SPOOL_LOCK_DEPTH: \"0\" cannot be used; 1 to 1024 can");
        assert_eq!(
            refused("SPOOL_LOCK_TTL", "31days"),
            "SPOOL_LOCK_TTL: \"31days\" cannot be used; whole milliseconds from 1ms to 30days can"
        );
        assert_eq!(
            refused("SPOOL_LOCK_PREFIX", "a{b"),
            "SPOOL_LOCK_PREFIX: \"a{b\" cannot be used; 1 to 32 of A-Z a-z 0-9 : _ . - can"
        );
        let error = refused("SPOOL_LOCK_SNAPSHOT", "http://0.0.0.0:1");
        assert!(error.contains("for this machine alone") && error.contains("unix:PATH"), "{error}");
    }

    #[test]
    fn every_number_and_duration_refuses_what_is_outside() {
        for field in FIELDS {
            for value in ["-1", "99999999999", "9999999999y", "é", "\0"] {
                let takes_any_text =
                    ["SPOOL_LOCK_TLS_CA_FILE", "SPOOL_LOCK_PREFIX"].contains(&field.variable);
                assert!(
                    takes_any_text || set(&mut Config::default(), field.variable, value).is_err(),
                    "{} {value}",
                    field.variable
                );
            }
        }
    }

    #[test]
    fn a_variable_that_no_setting_has_is_refused_with_the_nearest() {
        let error = refused("SPOOL_LOCK_MAXCONNECTIONS", "5");
        assert!(error.contains("SPOOL_LOCK_MAX_CONNECTIONS is the nearest"), "{error}");
    }

    #[test]
    fn redis_url_is_read_where_there_is_no_spool_lock_url() {
        let var = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fallback = var("REDIS_URL", "redis://fallback");
        let config = Config::from_vars([fallback.clone()]).unwrap();
        assert_eq!(config.url.to_string(), "redis://fallback");
        let config = Config::from_vars([var("SPOOL_LOCK_URL", "memory://m"), fallback]).unwrap();
        assert_eq!(config.url.to_string(), "memory://m");
        let error = Config::from_vars([var("REDIS_URL", "http://u:hunter2@h")]).unwrap_err().to_string();
        assert!(error.starts_with("REDIS_URL") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_guard_is_not_held_shorter_than_its_ttl() {
        let error = refused("SPOOL_LOCK_GUARD_MAX_HOLD", "1s");
        assert!(error.contains("30s (SPOOL_LOCK_GUARD_TTL)"), "{error}");
    }

    #[cfg(feature = "rate-limit")]
    #[test]
    fn a_limit_is_a_number_for_each_period() {
        for variable in ["SPOOL_LOCK_LIMIT_PER_HOLDER", "SPOOL_LOCK_LIMIT_PER_TAG"] {
            let config = Config::from_vars([(variable.to_owned(), "10/1s".to_owned())]).unwrap();
            let crate::LimitsConfig { per_holder, per_tag } = config.limits;
            assert_eq!(
                (per_holder.is_some(), per_tag.is_some()),
                (variable.ends_with("HOLDER"), variable.ends_with("TAG"))
            );
            assert_eq!(per_holder.or(per_tag), Rate::new(10, SECOND).ok());
            let error = refused(variable, "0/1s");
            assert!(
                error.ends_with(
                    "cannot be used; N/PERIOD, such as 10/1s, N 1 to 1000000 and PERIOD 1ms to 1day can"
                ),
                "{error}"
            );
        }
    }

    #[cfg(not(feature = "rate-limit"))]
    #[test]
    fn a_limit_that_nobody_would_keep_is_refused() {
        let error = refused("SPOOL_LOCK_LIMIT_PER_TAG", "10/1s");
        assert!(error.ends_with("it needs the feature rate-limit"), "{error}");
        let mut config = Config::default();
        config.limits.per_holder = Rate::new(10, SECOND).ok();
        let error = config.check().unwrap_err();
        assert_eq!(error.variable, "SPOOL_LOCK_LIMIT_PER_HOLDER");
    }

    /// The table of `docs/config.md`; `UPDATE_DOCS=1` writes it.
    #[test]
    fn docs_list_every_setting() {
        let defaults = Config::default();
        let mut table =
            String::from("| variable | default | allowed | meaning |\n| --- | --- | --- | --- |\n");
        for Field { variable, meaning, get, right, .. } in FIELDS {
            let default = match get(&defaults) {
                text if text.is_empty() => "not set".to_owned(),
                text => format!("`{text}`"),
            };
            let allowed = right.replace(" can", "");
            writeln!(table, "| `{variable}` | {default} | {allowed} | {meaning} |").unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");
        let page = std::fs::read_to_string(path).unwrap();
        let start = page.find("| variable").expect("a table");
        let end = page[start..].find("\n\n").map_or(page.len(), |at| start + at + 1);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, format!("{}{table}{}", &page[..start], &page[end..])).unwrap();
        } else {
            assert_eq!(
                page[start..end],
                table,
                "run the tests with UPDATE_DOCS=1 and look at the difference"
            );
        }
    }
}
