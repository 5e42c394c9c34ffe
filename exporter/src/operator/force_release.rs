//! `force-release`: ends whatever lock stands on a tag.
//!
//! The one order that changes what is somebody else's, so it wants to know who asks and why. Both go to standard error as a line of the
//! log, to every service that watches the tag, and into the history where one is kept.

use serde_json::json;
use spool_lock::{ForceReleaseError, Occupant, Tag};

use super::{Answer, Form, Refusal, desk::Desk, inspect::portrait, table::printable};

/// The flags of `force-release`.
#[derive(Debug, clap::Args)]
pub struct ForceRelease {
    /// What is locked
    #[arg(value_name = "TAG")]
    tag: String,
    /// Who wants it released
    #[arg(long, value_name = "WHO")]
    by: String,
    /// For what reason
    #[arg(long, value_name = "WHY")]
    why: String,
    #[command(flatten)]
    pub(super) form: Form,
}

impl ForceRelease {
    pub(super) async fn answer(&self) -> Result<Answer, Refusal> {
        let tag = Tag::new(&self.tag)?;
        let by = filled("--by", &self.by, "the name of whoever decided it")?;
        let why = filled("--why", &self.why, "the reason, as others will read it")?;
        let desk = Desk::open().await?;
        let was = desk.locks.force_release(&tag, by, why).await.map_err(|error| match error {
            ForceReleaseError::NotHeld { .. } => Refusal::failed(
                "not_held",
                format!("nobody holds {tag}; `spool-lock-exporter list` says what is held"),
            ),
            error => Refusal::of(error),
        })?;
        let is_kept = desk.config.history.enabled;
        let json = json!({ "tag": tag, "was": was, "by": by, "why": why, "is_in_history": is_kept });
        Ok(Answer::well(told(&desk, &tag, was.as_ref(), by, why), json))
    }
}

fn told(desk: &Desk, tag: &Tag, was: Option<&Occupant>, by: &str, why: &str) -> String {
    let was = match was {
        Some(occupant) => format!("{tag} is released; it was held\n{}", portrait(occupant, desk.now())),
        None => format!("{tag} is free; what stood there was no lock\n"),
    };
    let kept = if desk.config.history.enabled {
        "and in the history of the tag"
    } else {
        "and in no history, as none is kept (SPOOL_LOCK_HISTORY=on)"
    };
    let (by, why) = (printable(by), printable(why));
    format!("{was}it is in the log, as done by {by} ({why}), {kept}\n")
}

fn filled<'a>(flag: &str, text: &'a str, right: &str) -> Result<&'a str, Refusal> {
    match text.trim() {
        "" => Err(Refusal::Usage(format!("{flag} is blank; {right} is wanted"))),
        text => Ok(text),
    }
}
