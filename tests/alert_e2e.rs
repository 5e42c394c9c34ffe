//! The rules and the board in a real Prometheus, which scrapes a page that this test writes by hand.
//!
//! The rules are those of `grafana/`, with every duration divided by 12 so that minutes become seconds; the scrape comes each
//! second instead of each 15. What is asked of the board is all that it asks.

#![cfg(feature = "prometheus")]

mod observability;
#[path = "observability/prometheus.rs"]
mod prometheus;
#[path = "observability/stub.rs"]
mod stub;
mod support;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use observability::{
    board, promql,
    rules::{self, Rule},
};
use prometheus::Prometheus;
use spool_lock::metrics::{Door, Kind, Metric, catalogue};
use stub::{LIMIT, Level, Page};
use support::eventually;
use tokio::time::Instant;

/// How much faster than in production time passes for the rules.
const FASTER: u32 = 12;
/// For what should happen at once, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_pool_fires_and_resolves_and_every_query_of_the_board_has_an_answer() {
    let page = Page::serve().await;
    let Some(prometheus) = Prometheus::start(page.port, &faster(&observability::text(rules::FILE))).await
    else {
        observability::skipped("prometheus");
        return;
    };

    // An ordinary day.
    page.set(Level { active: 8.0, waiting: 0.0 });
    let used = "instance_pool:spool_pool_active_per_limit:ratio_rate1m";
    eventually(SOON, async || prometheus.number(used).await.filter(|ratio| (0.35..0.45).contains(ratio)))
        .await;

    page.set(Level { active: LIMIT, waiting: 7.0 });
    let high = "SpoolPoolUtilizationHigh".to_owned();
    eventually(SOON, async || prometheus.alerts("pending").await.contains(&high)).await;
    assert_eq!(prometheus.alerts("firing").await, BTreeSet::new());
    // `for: 2m`, which is 10 s here.
    eventually(SOON + Duration::from_secs(10), async || prometheus.alerts("firing").await.contains(&high))
        .await;
    let both = BTreeSet::from([high, "SpoolPoolExhausted".to_owned()]);
    eventually(SOON, async || prometheus.alerts("firing").await == both).await;

    // Load goes, and service and Redis start again: the counters fall, the board gets its two annotations.
    page.set(Level { active: 2.0, waiting: 0.0 });
    page.restart();
    let relieved = Instant::now();
    let asked = async {
        let board = board::load();
        for query in board::queries(&board) {
            eventually(SOON, async || prometheus.answers(&query).await).await;
        }
        for variable in board::variables(&board) {
            let values = format!("count by ({}) ({})", variable.label, variable.selector);
            eventually(SOON, async || prometheus.number(&values).await.ok_or(&variable.name)).await;
        }
    };
    // `keep_firing_for: 5m`, which is 25 s here, after the last true evaluation.
    let resolved = async {
        let bound = SOON + Duration::from_secs(35);
        eventually(bound, async || prometheus.alerts("firing").await.is_disjoint(&both)).await;
        relieved.elapsed()
    };
    // `offset 10m`, which is 50 s here: before that Prometheus knows nothing of another start.
    let restarted = async {
        let bound = SOON + Duration::from_secs(50);
        eventually(bound, async || prometheus.alerts("firing").await.contains("SpoolRedisRestarted")).await;
    };
    let ((), lasted, ()) = tokio::join!(asked, resolved, restarted);
    assert!(lasted > Duration::from_secs(20), "a dip of {lasted:?} ended the alerts");
}

#[test]
fn faster_rules_differ_in_durations_only() {
    let rules = observability::text(rules::FILE);
    let fast = faster(&rules);
    assert_ne!(rules, fast);
    let (slow_durations, slow_rest) = split(&rules);
    let (fast_durations, fast_rest) = split(&fast);
    assert_eq!(slow_rest, fast_rest);
    assert_eq!(slow_durations.len(), fast_durations.len());
    for (slow, fast) in slow_durations.iter().zip(&fast_durations) {
        assert_eq!(*slow / FASTER, *fast);
    }
    // By another reader: names, labels, annotations and the number of rules are the same.
    let plain =
        |text: &str| rules::parse(text).into_iter().map(|rule| Rule { expression: String::new(), ..rule });
    assert!(plain(&rules).eq(plain(&fast)));
    let durations: usize =
        ["for: ", "m]", "s]", "h]", "offset "].iter().map(|mark| rules.matches(mark).count()).sum();
    assert_eq!(slow_durations.len(), durations, "every duration is found");
}

/// The page of this test is written by hand; this keeps it true to the catalogue.
#[test]
fn page_of_this_test_has_the_names_and_labels_of_the_catalogue() {
    let page = Page::new().render();
    let mut seen: HashMap<&str, Vec<promql::Selector>> = HashMap::new();
    for line in page.lines() {
        let (series, value) = line.rsplit_once(' ').expect("a sample is a series and a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let selector = promql::parse(series).selectors.remove(0);
        let belongs = |metric: &&Metric| {
            let rest = selector.name.strip_prefix(metric.name);
            rest == Some("")
                || metric.kind == Kind::Histogram
                    && rest.is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))
        };
        let metric =
            catalogue().iter().find(belongs).unwrap_or_else(|| panic!("not in the catalogue: {line}"));
        seen.entry(metric.name).or_default().push(selector);
    }
    for metric in catalogue() {
        let samples = seen.get(metric.name).unwrap_or_else(|| panic!("{} is not on the page", metric.name));
        let mut wanted: BTreeSet<_> = metric.labels.iter().map(|label| label.name).collect();
        wanted.extend((metric.door == Door::Service || metric.name == "spool_up").then_some("service"));
        for sample in samples {
            let labels =
                sample.matchers.iter().map(|(label, ..)| label.as_str()).filter(|label| *label != "le");
            assert_eq!(labels.collect::<BTreeSet<_>>(), wanted, "{}", metric.name);
        }
    }
}

/// The rules with every duration divided: ranges in brackets, offsets, `for` and `keep_firing_for`.
fn faster(rules: &str) -> String {
    rewrite(rules, |duration| format!("{}ms", (duration / FASTER).as_millis()))
}

/// The durations of rules, and the rest of the text.
fn split(rules: &str) -> (Vec<Duration>, String) {
    let mut durations = Vec::new();
    let rest = rewrite(rules, |duration| {
        durations.push(duration);
        "…".to_owned()
    });
    (durations, rest)
}

fn rewrite(rules: &str, mut change: impl FnMut(Duration) -> String) -> String {
    let (mut text, mut rest) = (String::new(), rules);
    while let Some(end) = end_of_mark(rest) {
        let (head, tail) = rest.split_at(end);
        let length = tail.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(tail.len());
        let (word, after) = tail.split_at(length);
        text += head;
        text += &duration(word).map_or_else(|| word.to_owned(), &mut change);
        rest = after;
    }
    text + rest
}

/// Where the first mark ends behind which a duration may stand.
fn end_of_mark(text: &str) -> Option<usize> {
    let marks = ["for: ", "[", "offset "];
    marks.iter().filter_map(|mark| text.find(mark).map(|start| start + mark.len())).min()
}

/// `5m`, `30s`, `250ms`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = (text[..digits].parse::<u32>().ok()?, &text[digits..]);
    let one = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        _ => return None,
    };
    Some(one * number)
}
