//! [`Agenda`]: what is to be seen to, and when.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// One time for each thing: a moment of our clock, or of the server's.
#[derive(Debug)]
pub(crate) struct Agenda<Time, Thing> {
    order: BTreeSet<(Time, Thing)>,
    due: HashMap<Thing, Time>,
}

impl<Time, Thing> Default for Agenda<Time, Thing> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), due: HashMap::new() }
    }
}

impl<Time: Copy + Ord, Thing: Clone + Hash + Ord> Agenda<Time, Thing> {
    /// Sets the time of `thing`, in place of an earlier one.
    pub(crate) fn set(&mut self, thing: &Thing, due: Time) {
        self.cancel(thing);
        self.due.insert(thing.clone(), due);
        self.order.insert((due, thing.clone()));
    }

    pub(crate) fn cancel(&mut self, thing: &Thing) {
        if let Some((thing, due)) = self.due.remove_entry(thing) {
            self.order.remove(&(due, thing));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(crate) fn has(&self, thing: &Thing) -> bool {
        self.due.contains_key(thing)
    }

    /// The earliest time.
    pub(crate) fn next(&self) -> Option<Time> {
        self.order.first().map(|(due, _)| *due)
    }

    /// The thing with the earliest time.
    pub(crate) fn first(&self) -> Option<&Thing> {
        self.order.first().map(|(_, thing)| thing)
    }

    /// Everything there is, the earliest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Thing> {
        self.order.iter().map(|(_, thing)| thing)
    }

    /// Takes out a thing whose time has come.
    pub(crate) fn take(&mut self, now: Time) -> Option<Thing> {
        self.next().filter(|due| *due <= now)?;
        self.pop()
    }

    /// Takes out the thing with the earliest time, whether that has come or not.
    pub(crate) fn pop(&mut self) -> Option<Thing> {
        let (_, thing) = self.order.pop_first()?;
        self.due.remove(&thing);
        Some(thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tag;

    #[test]
    fn each_thing_comes_once_at_its_last_time() {
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
