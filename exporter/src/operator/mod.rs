//! [`Order`]: what an operator does by hand, with one command each.
//!
//! A command is a file and a struct with its flags; its `answer` is what was found or done, or why not. All go through the library, by
//! the settings that the services have (`SPOOL_LOCK_URL`, `SPOOL_LOCK_PREFIX` …), so there is no second opinion on who holds what.
//!
//! # What it promises
//! - Nothing is changed but by `force-release`, and by `canary` on a tag of its own.
//! - Two connections at a time at most: whoever looks at a server that is full must not make it worse.
//! - With `--json`, standard output has one JSON value and nothing else, also where something was refused; but nothing where the
//!   command line itself cannot be read. No secret is in either form.
//! - It ends with 0 when it was done or all is well, 1 when something must be done or was refused, 2 when it was asked wrongly.

mod advice;
mod answer;
mod canary;
mod desk;
mod doctor;
mod force_release;
mod history;
mod inspect;
mod list;
mod moment;
mod table;

use clap::Subcommand;

pub use self::answer::Outcome;
use self::{
    answer::{Answer, Refusal},
    canary::Canary,
    doctor::Doctor,
    force_release::ForceRelease,
    history::History,
    inspect::Inspect,
    list::List,
};

const SETTINGS: &str = "\
Connects by the settings of the services: SPOOL_LOCK_URL (or REDIS_URL), SPOOL_LOCK_PREFIX,
SPOOL_LOCK_TLS_CA_FILE and the other SPOOL_LOCK_* of docs/config.md.
Ends with 0 when it was done or all is well, 1 when something must be done or was refused, 2 when
it was asked wrongly.";

/// What an operator wants done.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Commands, each with --help and --json")]
pub enum Order {
    /// Look at the server: can it keep locks, and what is to be changed?
    #[command(after_help = SETTINGS)]
    Doctor(Doctor),
    /// Say who holds which tag; walks the whole key space of the server
    #[command(after_help = SETTINGS)]
    List(List),
    /// Say who holds a tag
    #[command(after_help = SETTINGS)]
    Inspect(Inspect),
    /// Say who held a tag, and how that ended
    #[command(after_help = SETTINGS)]
    History(History),
    /// End whatever lock stands on a tag
    #[command(after_help = SETTINGS)]
    ForceRelease(ForceRelease),
    /// Acquire a lock, verify it and release it, for a deploy to wait for
    #[command(after_help = SETTINGS)]
    Canary(Canary),
}

/// How an answer is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Form {
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

impl Order {
    /// Whether it changes what is somebody else's, which belongs into a log.
    pub fn is_logged(&self) -> bool {
        matches!(self, Self::ForceRelease(_))
    }

    /// Carries it out. Must be awaited within a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped, `force-release` may have ended the lock; what `canary` has acquired ends after 5 s at the latest.
    pub async fn carry_out(&self) -> Outcome {
        let (form, answer) = match self {
            Self::Doctor(doctor) => (&doctor.form, doctor.answer().await),
            Self::List(list) => (&list.form, list.answer().await),
            Self::Inspect(inspect) => (&inspect.form, inspect.answer().await),
            Self::History(history) => (&history.form, history.answer().await),
            Self::ForceRelease(force_release) => (&force_release.form, force_release.answer().await),
            Self::Canary(canary) => (&canary.form, canary.answer().await),
        };
        Outcome::of(answer, form.json)
    }
}
