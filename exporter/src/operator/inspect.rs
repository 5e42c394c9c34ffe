//! `inspect`: who holds a tag.

use std::time::SystemTime;

use serde_json::json;
use spool_lock::{Occupant, Tag};

use super::{
    Answer, Form, Refusal,
    desk::Desk,
    list::{holder, kind},
    moment::moment,
    table::aligned,
};

/// The flags of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// What may be locked
    #[arg(value_name = "TAG")]
    tag: String,
    #[command(flatten)]
    pub(super) form: Form,
}

impl Inspect {
    pub(super) async fn answer(&self) -> Result<Answer, Refusal> {
        let tag = Tag::new(&self.tag)?;
        let desk = Desk::open().await?;
        let occupant = desk.locks.inspect(&tag).await.map_err(Refusal::of)?.value;
        let text = match &occupant {
            Some(occupant) => format!("{tag} is held\n{}", portrait(occupant, desk.now())),
            None => format!("{tag} is free: nobody holds it\n"),
        };
        Ok(Answer::well(text, json!({ "tag": tag, "occupant": occupant })))
    }
}

/// Who holds a tag, a line for each thing that is known.
pub(super) fn portrait(occupant: &Occupant, now: SystemTime) -> String {
    let lines = [
        ("holder", holder(&occupant.holder)),
        ("kind", kind(occupant).to_owned()),
        ("fence", occupant.fence.to_string()),
        ("since", moment(occupant.since, now)),
        ("ends", moment(occupant.expires_at, now)),
        ("note", occupant.note.clone()),
    ];
    let lines = lines.into_iter().filter(|(_, value)| !value.is_empty());
    aligned(&lines.map(|(name, value)| [format!("  {name}"), value]).collect::<Vec<_>>())
}
