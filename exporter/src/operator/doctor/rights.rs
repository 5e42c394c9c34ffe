//! Which of the rights that the library needs the user has.
//!
//! A script may ask for its user what `ACL DRYRUN` tells an administrator alone. Where scripts are refused, little can be known.

use redis::{RedisError, RedisResult, aio::MultiplexedConnection};
use spool_lock::{Config, Right, RightPurpose};

const SCRIPT: &str = include_str!("rights.lua");

/// A script that no server knows.
const UNKNOWN_SCRIPT: &str = "0000000000000000000000000000000000000000";

/// Locks are kept by these as well, and they touch no key that they name.
const KEYLESS: [&str; 4] = ["+eval", "+evalsha", "+time", "+scan"];

/// A right, and whether the user has it; `None` where that is not known.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) right: Right,
    pub(super) is_granted: Option<bool>,
}

impl Checked {
    /// Of which nothing is known.
    pub(super) fn unknown(config: &Config) -> Vec<Self> {
        config.rights().into_iter().map(|right| Self { right, is_granted: None }).collect()
    }
}

/// The rules that are refused, for whatever purpose is meant.
pub(super) fn refused(checked: &[Checked], is_meant: impl Fn(RightPurpose) -> bool) -> Vec<&str> {
    let refused = checked.iter().filter(|it| it.is_granted == Some(false) && is_meant(it.right.purpose));
    refused.map(|it| it.right.rule.as_str()).collect()
}

/// The rules of which it is not known whether the user has them.
pub(super) fn unknown(checked: &[Checked]) -> Vec<&str> {
    let unknown = checked.iter().filter(|it| it.is_granted.is_none());
    unknown.map(|it| it.right.rule.as_str()).collect()
}

/// Asks for each right whether the user has it.
pub(super) async fn check(connection: &mut MultiplexedConnection, config: &Config) -> Vec<Checked> {
    let mut checked = Checked::unknown(config);
    let questions: Vec<_> = checked.iter().map(|it| questions(&it.right.rule, &config.prefix)).collect();
    let mut script = redis::cmd("EVAL");
    script.arg(SCRIPT).arg(0).arg(questions.concat());
    let asked: RedisResult<Vec<u8>> = script.query_async(connection).await;
    match asked {
        Ok(answers) => {
            let mut answers = answers.into_iter();
            for (it, questions) in checked.iter_mut().zip(&questions) {
                let may =
                    answers.by_ref().take(questions.len()).fold(false, |may, answer| may | (answer == 1));
                it.is_granted = Some(may);
            }
            forget_what_hides_behind_the_keys(&mut checked);
        }
        Err(error) if is_refused(&error) => {
            set(&mut checked, "+eval", false);
            if let Some(may) = may_run_by_hash(connection).await {
                set(&mut checked, "+evalsha", may);
            }
        }
        // The server is busy or loading: that is found elsewhere.
        Err(_) => {}
    }
    checked
}

/// Commands of which one at least must be allowed where the right is there.
fn questions(rule: &str, prefix: &str) -> Vec<String> {
    let key = format!("{prefix}:{{doctor}}:lock");
    let (events, grants) = (format!("{prefix}:events:*"), format!("{prefix}:grants:*"));
    let name = rule.get(1..).unwrap_or_default();
    match rule {
        "+eval" | "+evalsha" => vec![format!("{name} - 0")],
        "+publish" | "+subscribe" | "+psubscribe" | "+unsubscribe" | "+punsubscribe" => {
            vec![format!("{name} {events}"), format!("{name} {grants}")]
        }
        _ if rule.starts_with('~') => vec![format!("eval - 1 {key}")],
        // A pattern is allowed only where it was granted to the letter.
        _ if rule.starts_with('&') && name == events => vec![format!("psubscribe {name}")],
        _ if rule.starts_with('&') => ["publish", "subscribe"].map(|verb| format!("{verb} {name}")).into(),
        _ if name.contains('|') => vec![format!("{} -", name.replace('|', " "))],
        // As many words as any of them wants; some take more than one key.
        _ => vec![format!("{name} {key} {key} {key}")],
    }
}

/// Who may touch no key is refused every command on one, whether they may run it or not.
fn forget_what_hides_behind_the_keys(checked: &mut [Checked]) {
    let is_of_keys = |it: &Checked| it.right.rule.starts_with('~');
    if checked.iter().any(|it| is_of_keys(it) && it.is_granted == Some(false)) {
        let on_keys = |it: &&mut Checked| {
            let is_kept = matches!(it.right.purpose, RightPurpose::Locks | RightPurpose::History);
            is_kept && !is_of_keys(it) && !KEYLESS.contains(&it.right.rule.as_str())
        };
        checked.iter_mut().filter(on_keys).for_each(|it| it.is_granted = None);
    }
}

/// Whether the user may run a script by its hash; `None` where the server says neither.
async fn may_run_by_hash(connection: &mut MultiplexedConnection) -> Option<bool> {
    let mut script = redis::cmd("EVALSHA");
    script.arg(UNKNOWN_SCRIPT).arg(0);
    match script.exec_async(connection).await {
        Err(error) if error.code() == Some("NOSCRIPT") => Some(true),
        Err(error) if is_refused(&error) => Some(false),
        _ => None,
    }
}

/// The user may not run it, or nobody may: it was renamed or switched off.
pub(super) fn is_refused(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.to_string().contains("unknown command")
}

fn set(checked: &mut [Checked], rule: &str, is_granted: bool) {
    if let Some(it) = checked.iter_mut().find(|it| it.right.rule == rule) {
        it.is_granted = Some(is_granted);
    }
}
