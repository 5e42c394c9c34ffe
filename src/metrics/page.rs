//! [`Page`]: the values of one scrape, rendered for Prometheus.

use std::collections::BTreeMap;

use prometheus::{TextEncoder, proto::MetricFamily};

use super::{
    catalogue::{self, Door, Label, Metric},
    family::{Family, Labels, Value},
};

/// The values of one scrape, rendered as the text format of Prometheus, version 0.0.4.
///
/// A page takes only what the [`catalogue`](super::catalogue) knows, and each series once: the last value counts. Filled from
/// snapshots by [`add_snapshot`](Page::add_snapshot) and by the exporter's own [`set`](Page::set).
///
/// # Examples
/// ```
/// let mut page = spool_lock::metrics::Page::new();
/// page.set("spool_redis_up", &[], 1.0);
/// assert!(page.render().ends_with("# TYPE spool_redis_up gauge\nspool_redis_up 1\n"));
/// ```
#[derive(Debug, Default)]
pub struct Page {
    families: BTreeMap<&'static str, Family>,
}

impl Page {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one value of a metric of [`Door::Exporter`] or [`Door::Redis`].
    ///
    /// The labels are those of the catalogue, in any order; a metric of [`Door::Exporter`] that speaks of one service may
    /// have the label `service` besides. A name or label that the catalogue does not have is ignored, and so is a value that
    /// is negative or not finite and a label value of more than 64 characters or with control characters.
    ///
    /// # Panics
    /// With debug assertions on, for a name or label that the catalogue does not have: that is a mistake in the caller, not
    /// in what it was told.
    pub fn set(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let metric = catalogue::find(name).filter(|metric| metric.door != Door::Service);
        let Some((metric, labels)) = metric.and_then(|metric| Some((metric, known_labels(metric, labels)?)))
        else {
            debug_assert!(false, "the catalogue has no {name} with {labels:?} to be set");
            return;
        };
        if is_number(value) && labels.iter().all(|(_, value)| is_short(value)) {
            self.put(metric, labels, Value::Number(value));
        }
    }

    /// Renders the page: families by name, each with its help and type once.
    pub fn render(&self) -> String {
        // The encoder fails on a family without a name or without series, and a page has neither.
        TextEncoder::new().encode_to_string(&self.to_families()).unwrap_or_default()
    }

    /// How many lines with a value the page has.
    pub fn samples(&self) -> usize {
        self.families.values().map(Family::samples).sum()
    }

    pub(crate) fn to_families(&self) -> Vec<MetricFamily> {
        self.families.values().map(Family::to_proto).collect()
    }

    pub(super) fn put(&mut self, metric: &'static Metric, labels: Labels, value: Value) {
        let family = self.families.entry(metric.name).or_insert_with(|| Family::new(metric));
        family.series.insert(labels, value);
    }
}

/// The labels in the order of the catalogue; `None` if one is missing, foreign, or has a value outside its closed set.
fn known_labels(metric: &'static Metric, given: &[(&str, &str)]) -> Option<Labels> {
    const SERVICE: Label = Label { name: "service", values: &[] };
    let with_service = metric.door == Door::Exporter && given.iter().any(|(name, _)| *name == SERVICE.name);
    let wanted = with_service.then_some(&SERVICE).into_iter().chain(metric.labels);
    let pick = |label: &'static Label| {
        let (_, value) = given.iter().find(|(name, _)| *name == label.name)?;
        let is_known = label.values.is_empty() || label.values.contains(value);
        is_known.then(|| (label.name, (*value).to_owned()))
    };
    wanted.map(pick).collect::<Option<Labels>>().filter(|labels| labels.len() == given.len())
}

/// Whether a value can stand on a page: nothing that we count or measure is negative.
pub(super) fn is_number(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// Whether an open label value is short enough, and clean enough, to stand on a page.
pub(super) fn is_short(value: &str) -> bool {
    value.chars().count() <= 64 && !value.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_set_twice_is_shown_once() {
        let mut page = Page::new();
        page.set("spool_redis_instance_info", &[("role", "master"), ("redis_version", "7.0.15")], 1.0);
        page.set("spool_redis_instance_info", &[("redis_version", "7.0.15"), ("role", "master")], 1.0);
        assert_eq!(page.samples(), 1);
        assert!(
            page.render()
                .contains("\nspool_redis_instance_info{role=\"master\",redis_version=\"7.0.15\"} 1\n")
        );
    }

    #[test]
    fn an_exporter_metric_may_speak_of_one_service() {
        let mut page = Page::new();
        page.set("spool_up", &[("service", "backend")], 1.0);
        page.set("spool_up", &[("service", "planner")], 0.0);
        page.set("spool_exporter_collector_success", &[("collector", "redis")], 1.0);
        assert_eq!(page.samples(), 3);
    }

    #[test]
    fn what_redis_says_cannot_spoil_the_page() {
        let mut page = Page::new();
        page.set("spool_redis_connected_clients", &[], f64::NAN);
        page.set("spool_redis_connected_clients", &[], -1.0);
        page.set("spool_redis_maxmemory_policy_info", &[("policy", &"x".repeat(65))], 1.0);
        page.set("spool_redis_maxmemory_policy_info", &[("policy", "a\nspool_up 0")], 1.0);
        assert_eq!((page.samples(), page.render().as_str()), (0, ""));
        page.set("spool_redis_maxmemory_policy_info", &[("policy", "quo\"te")], 1.0);
        assert!(page.render().contains(r#"{policy="quo\"te"} 1"#));
    }

    #[test]
    fn numbers_are_shown_in_full() {
        let mut page = Page::new();
        page.set("spool_redis_start_time_seconds", &[], 1_795_207_616.75);
        assert!(page.render().ends_with("spool_redis_start_time_seconds 1795207616.75\n"));
    }

    #[test]
    #[cfg(debug_assertions)]
    fn mistakes_of_the_caller_are_noticed_in_debug_builds() {
        for (name, labels) in [
            ("spool_redis_upp", &[][..]),
            ("spool_redis_up", &[("service", "backend")]),
            ("spool_redis_probe_failure", &[]),
            ("spool_redis_probe_failure", &[("reason", "bad luck")]),
            ("spool_pool_slots", &[("pool", "default")]),
        ] {
            let set = || Page::new().set(name, labels, 1.0);
            assert!(std::panic::catch_unwind(set).is_err(), "{name} {labels:?}");
        }
    }
}
