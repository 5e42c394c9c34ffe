//! `list`: who holds which tag of the prefix.

use serde_json::json;
use spool_lock::{FaultKind, Holder, LeaseKind, Occupant};

use super::{
    Answer, Form, Refusal,
    desk::Desk,
    moment::{left, moment, span},
    table::aligned,
};

/// The flags of `list`.
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    pub(super) form: Form,
}

impl List {
    pub(super) async fn answer(&self) -> Result<Answer, Refusal> {
        let desk = Desk::open().await?;
        let occupants = desk.locks.list().await.map_err(|error| slow_or(Refusal::of(error)))?.value;
        let prefix = &desk.config.prefix;
        let json = json!({ "prefix": prefix, "locks": occupants });
        if occupants.is_empty() {
            let text = format!("nobody holds a tag of the prefix {prefix} at {}\n", desk.config.url);
            return Ok(Answer::well(text, json));
        }
        let now = desk.now();
        let head = ["TAG", "HOLDER", "KIND", "FENCE", "SINCE", "LEFT", "NOTE"].map(str::to_owned);
        let row = |occupant: &Occupant| {
            [
                occupant.tag.to_string(),
                holder(&occupant.holder),
                kind(occupant).to_owned(),
                occupant.fence.to_string(),
                moment(occupant.since, now),
                span(left(occupant.expires_at, now)),
                occupant.note.clone(),
            ]
        };
        let rows: Vec<_> = std::iter::once(head).chain(occupants.iter().map(row)).collect();
        Ok(Answer::well(aligned(&rows), json))
    }
}

/// A walk that did not come to its end in time can be given more.
fn slow_or(refusal: Refusal) -> Refusal {
    let slow = [FaultKind::Timeout, FaultKind::CheckoutTimeout].map(FaultKind::as_str);
    match refusal {
        Refusal::Failed { kind, message } if slow.contains(&kind) => Refusal::failed(
            kind,
            format!("{message}; SPOOL_LOCK_DEADLINE=60s gives a large key space more time"),
        ),
        refusal => refusal,
    }
}

/// `93 MR(93)`.
pub(super) fn holder(holder: &Holder) -> String {
    format!("{} {}", holder.id(), holder.name()).trim_end().to_owned()
}

/// As JSON has it.
pub(super) fn kind(occupant: &Occupant) -> &'static str {
    match occupant.kind {
        LeaseKind::Identity => "identity",
        LeaseKind::Guard => "guard",
    }
}
