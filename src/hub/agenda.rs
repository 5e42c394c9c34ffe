//! [`Agenda`]: which tag is to be looked at, and when.

use std::collections::{BTreeSet, HashMap};

use crate::Tag;

/// One time for each tag, in µs of the server's clock since 1970.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    order: BTreeSet<(u64, Tag)>,
    due: HashMap<Tag, u64>,
}

impl Agenda {
    /// Sets the time of `tag`, in place of an earlier one.
    pub(super) fn set(&mut self, tag: &Tag, due: u64) {
        self.cancel(tag);
        self.due.insert(tag.clone(), due);
        self.order.insert((due, tag.clone()));
    }

    pub(super) fn cancel(&mut self, tag: &Tag) {
        if let Some((tag, due)) = self.due.remove_entry(tag) {
            self.order.remove(&(due, tag));
        }
    }

    pub(super) fn has(&self, tag: &Tag) -> bool {
        self.due.contains_key(tag)
    }

    /// The earliest time.
    pub(super) fn next(&self) -> Option<u64> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Takes out a tag whose time has come.
    pub(super) fn take(&mut self, now: u64) -> Option<Tag> {
        self.next().filter(|due| *due <= now)?;
        let (_, tag) = self.order.pop_first()?;
        self.due.remove(&tag);
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tag_comes_once_at_its_last_time() {
        let [one, two] = ["TEST-01", "TEST-02"].map(|text| Tag::new(text).unwrap());
        let mut agenda = Agenda::default();
        agenda.set(&one, 10);
        agenda.set(&two, 20);
        agenda.set(&one, 30);
        assert_eq!((agenda.next(), agenda.take(19)), (Some(20), None));
        assert_eq!((agenda.take(99), agenda.take(99), agenda.take(99)), (Some(two), Some(one.clone()), None));

        agenda.set(&one, 40);
        agenda.cancel(&one);
        assert_eq!((agenda.next(), agenda.has(&one)), (None, false));
    }
}
