//! One metric with its values: a family, in the word of the text format.

use std::collections::BTreeMap;

use prometheus::proto;

use super::catalogue::{Kind, Metric};

/// The labels of one series, in the order in which they are shown.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// The value of one series.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram: observations at or below each bound of the metric, then all of them.
    Buckets { cumulative: Vec<u64>, sum: f64 },
}

/// A metric and the values of its series.
///
/// The labels are the key, so that a value which is set twice is shown once: Prometheus refuses a page that has it twice.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    pub(crate) metric: &'static Metric,
    pub(crate) series: BTreeMap<Labels, Value>,
}

impl Family {
    pub(crate) fn new(metric: &'static Metric) -> Self {
        Self { metric, series: BTreeMap::new() }
    }

    /// How many lines with a value the family has on the page.
    pub(crate) fn samples(&self) -> usize {
        let lines = |value: &Value| match value {
            Value::Number(_) => 1,
            // The count of all observations is shown twice, as the last bucket and as `_count`; the sum is the other one.
            Value::Buckets { cumulative, .. } => cumulative.len() + 2,
        };
        self.series.values().map(lines).sum()
    }

    /// The family in the form that the encoder takes.
    ///
    /// Only setters are used that exist with and without the crate's feature `protobuf`: another crate of the same build may
    /// have switched it on.
    pub(crate) fn to_proto(&self) -> proto::MetricFamily {
        let mut family = proto::MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(match self.metric.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Histogram => proto::MetricType::HISTOGRAM,
        });
        let series = self.series.iter().map(|(labels, value)| self.one_to_proto(labels, value));
        family.set_metric(series.collect());
        family
    }

    fn one_to_proto(&self, labels: &Labels, value: &Value) -> proto::Metric {
        let mut series = proto::Metric::from_label(labels.iter().map(label_to_proto).collect());
        match value {
            Value::Buckets { cumulative, sum } => {
                series.set_histogram(histogram_to_proto(self.metric.buckets, cumulative, *sum));
            }
            Value::Number(number) if self.metric.kind == Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(*number);
                series.set_counter(counter);
            }
            Value::Number(number) => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(*number);
                series.set_gauge(gauge);
            }
        }
        series
    }
}

fn label_to_proto((name, value): &(&'static str, String)) -> proto::LabelPair {
    let mut label = proto::LabelPair::default();
    label.set_name((*name).to_owned());
    label.set_value(value.clone());
    label
}

fn histogram_to_proto(bounds: &[f64], cumulative: &[u64], sum: f64) -> proto::Histogram {
    let bucket = |(bound, count): (&f64, &u64)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    // The encoder adds the bucket `+Inf` from the count.
    histogram.set_bucket(bounds.iter().zip(cumulative).map(bucket).collect());
    histogram.set_sample_count(cumulative.last().copied().unwrap_or_default());
    histogram.set_sample_sum(sum);
    histogram
}
