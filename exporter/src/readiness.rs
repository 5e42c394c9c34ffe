//! [`Readiness`]: a set of latches, each dropped by the part that it waited for.
//!
//! Ready is a one-way street: it says that this process has started, not that Redis or a service is well. Those are
//! samples of the page.

use std::sync::{Arc, Weak};

/// What the exporter still waits for.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Vec<Weak<Part>>);

/// Keeps the exporter from being ready as long as it lives.
#[must_use = "a latch that is dropped at once holds nothing back"]
#[derive(Debug)]
pub(crate) struct Latch {
    _part: Arc<Part>,
}

/// What is waited for, in words.
#[derive(Debug)]
struct Part(&'static str);

impl Readiness {
    /// Waits for one more part.
    pub(crate) fn latch(&mut self, part: &'static str) -> Latch {
        let part = Arc::new(Part(part));
        self.0.push(Arc::downgrade(&part));
        Latch { _part: part }
    }

    /// The parts that are waited for; none means ready.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        self.0.iter().filter_map(Weak::upgrade).map(|part| part.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_latch_is_dropped() {
        let mut readiness = Readiness::default();
        assert!(readiness.missing().is_empty());
        let (first, second) = (readiness.latch("first"), readiness.latch("second"));
        assert_eq!(readiness.missing(), ["first", "second"]);
        drop(first);
        assert_eq!(readiness.missing(), ["second"]);
        drop(second);
        assert!(readiness.missing().is_empty());
    }
}
