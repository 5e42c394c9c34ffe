//! `history`: who held a tag, and how that ended.

use std::time::SystemTime;

use serde_json::json;
use spool_lock::{HistoryConfig, LeaseEnd, PastLease, Tag};

use super::{
    Answer, Form, Refusal,
    desk::Desk,
    list::{holder, kind},
    moment::{moment, span},
    table::aligned,
};

/// The flags of `history`.
#[derive(Debug, clap::Args)]
pub struct History {
    /// What was locked
    #[arg(value_name = "TAG")]
    tag: String,
    #[command(flatten)]
    pub(super) form: Form,
}

impl History {
    pub(super) async fn answer(&self) -> Result<Answer, Refusal> {
        let tag = Tag::new(&self.tag)?;
        let desk = Desk::open().await?;
        let grants = desk.locks.history(&tag).await.map_err(Refusal::of)?.value;
        let kept = &desk.config.history;
        let json = json!({ "tag": tag, "is_kept": kept.enabled, "grants": grants });
        if grants.is_empty() {
            return Ok(Answer::well(
                format!("nothing is remembered of {tag}: {}\n", why_nothing(kept)),
                json,
            ));
        }
        let now = desk.now();
        let head = ["TAKEN", "HOLDER", "KIND", "FENCE", "END", "NOTE"].map(str::to_owned);
        let row = |PastLease { occupant, end, .. }: &PastLease| {
            [
                moment(occupant.since, now),
                holder(&occupant.holder),
                kind(occupant).to_owned(),
                occupant.fence.to_string(),
                ending(end.as_ref(), now),
                occupant.note.clone(),
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(grants.iter().map(row)).collect();
        Ok(Answer::well(aligned(&rows), json))
    }
}

fn why_nothing(kept: &HistoryConfig) -> String {
    let (entries, days) = (kept.entries, span(kept.kept));
    if kept.enabled {
        format!("it was not granted in the last {days}, or the services have no SPOOL_LOCK_HISTORY=on")
    } else {
        format!(
            "no history is kept; SPOOL_LOCK_HISTORY=on, in the services and here, keeps the last {entries} grants \
             of a tag for {days}"
        )
    }
}

fn ending(end: Option<&LeaseEnd>, now: SystemTime) -> String {
    match end {
        None => "still held".to_owned(),
        Some(LeaseEnd::Released { at }) => format!("released {}", moment(*at, now)),
        Some(LeaseEnd::Forced { by, why, at }) => {
            format!("released by force {} by {by}: {why}", moment(*at, now))
        }
        Some(LeaseEnd::Expired) => "expired".to_owned(),
        Some(_) => "ended".to_owned(),
    }
}
