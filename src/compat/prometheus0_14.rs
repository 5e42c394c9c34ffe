//! `prometheus` 0.14: a [`Collector`] for a registry, and the [`families`] of a page.

use std::{collections::HashMap, fmt};

use prometheus::{
    core::{self, Desc},
    proto::MetricFamily,
};

use crate::{
    metrics::{Door, Metric, Page, catalogue},
    stats::Snapshot,
};

/// Shows the metrics of this process in a registry of `prometheus` 0.14.
///
/// Takes one snapshot per gathering. A registry takes one collector of this kind: a second one has the same series.
pub struct Collector {
    descs: Vec<Desc>,
    snapshot: Box<dyn Fn() -> Snapshot + Send + Sync>,
}

impl Collector {
    /// A collector of the snapshots that `snapshot` takes.
    pub fn new(snapshot: impl Fn() -> Snapshot + Send + Sync + 'static) -> Self {
        let descs = catalogue().iter().filter(|metric| metric.door == Door::Service).filter_map(desc);
        Self { descs: descs.collect(), snapshot: Box::new(snapshot) }
    }
}

impl core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut page = Page::new();
        // Nothing is dropped: the snapshot is this library's own, and a test holds it to the catalogue.
        page.add_snapshot(&(self.snapshot)(), None);
        page.to_families()
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("metrics", &self.descs.len()).finish_non_exhaustive()
    }
}

/// The families of a page, by name: for an encoder or a push of the caller's own.
pub fn families(page: &Page) -> Vec<MetricFamily> {
    page.to_families()
}

/// The registry's description of a metric; a test shows that every metric of the catalogue has one.
fn desc(metric: &Metric) -> Option<Desc> {
    let labels = metric.labels.iter().map(|label| label.name.to_owned()).collect();
    Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new()).ok()
}
