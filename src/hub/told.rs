//! [`Told`]: what was told last of each tag, and which answer is not believed yet.
//!
//! The answer to a look comes over another connection than the news, and may overtake them. To tell the difference at once would
//! hide what the news still have to say: the lease between is older then than what was told, what is under way is told twice,
//! and that an operator ended a lease looks like a release. So while the news come, an answer that differs is told only when a
//! later look finds the same and nothing was heard in between.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::{Tag, known::Finding, store::Seen};

#[derive(Debug, Default)]
pub(super) struct Told {
    findings: HashMap<Tag, Finding>,
    /// Since when an answer has differed from what was told, nothing being heard since.
    doubts: HashMap<Tag, Instant>,
}

impl Told {
    pub(super) fn get(&self, tag: &Tag) -> Option<&Finding> {
        self.findings.get(tag)
    }

    /// Whether a finding is newer than what was told.
    pub(super) fn is_news(&self, tag: &Tag, finding: &Finding) -> bool {
        self.findings.get(tag).is_none_or(|told| finding.supersedes(told))
    }

    pub(super) fn settle(&mut self, tag: Tag, finding: Finding) {
        self.doubts.remove(&tag);
        self.findings.insert(tag, finding);
    }

    /// Whether an answer that differs, asked at `asked`, came so early that the news of it may be under way; they have `patience`
    /// from the first such answer on.
    pub(super) fn doubts(&mut self, tag: &Tag, asked: Instant, now: Instant, patience: Duration) -> bool {
        asked < *self.doubts.entry(tag.clone()).or_insert(now) + patience
    }

    pub(super) fn is_doubted(&self, tag: &Tag) -> bool {
        self.doubts.contains_key(tag)
    }

    pub(super) fn forget(&mut self, tag: &Tag) {
        self.findings.remove(tag);
        self.doubts.remove(tag);
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.findings.keys()
    }

    /// The tags that are told to be held, as was heard before `asked`.
    pub(super) fn held_before(&self, asked: Instant) -> impl Iterator<Item = &Tag> {
        let held = move |finding: &Finding| matches!(finding.state, Seen::Held(_)) && finding.heard() < asked;
        self.findings.iter().filter(move |(_, finding)| held(finding)).map(|(tag, _)| tag)
    }

    /// Forgets the tags that have been told to be free for `long`, but for those that are to be kept.
    pub(super) fn forget_free(&mut self, now: Instant, long: Duration, keep: impl Fn(&Tag) -> bool) {
        self.findings.retain(|tag, finding| {
            matches!(finding.state, Seen::Held(_)) || finding.heard() + long > now || keep(tag)
        });
    }
}
