//! What people build alerts on: the metrics page as Prometheus' own tool sees it, and the table in `docs/metrics.md`.

#![cfg(all(feature = "prometheus", feature = "serde"))]

use std::{
    env, fs,
    io::{ErrorKind, Write},
    process::{Command, Stdio},
};

use spool_lock::{
    Snapshot,
    metrics::{Door, Metric, Page, catalogue},
};

/// A page with every metric of the catalogue, as the exporter shows it for two services.
fn full_page() -> Page {
    let mut snapshot: Snapshot =
        serde_json::from_str(include_str!("fixtures/snapshot.json")).expect("the fixture is a snapshot");
    snapshot.locks.held_seconds.counts[3] = 8;
    snapshot.locks.held_seconds.sum = 1_234.5;
    let mut page = Page::new();
    for service in ["backend", "planner"] {
        assert_eq!(page.add_snapshot(&snapshot, Some(service)), 0);
        page.set("spool_up", &[("service", service)], 1.0);
    }
    for metric in
        catalogue().iter().filter(|metric| metric.door != Door::Service && metric.name != "spool_up")
    {
        let first = |values: &[&'static str]| values.first().copied().unwrap_or("7.0.15");
        let labels: Vec<_> = metric.labels.iter().map(|label| (label.name, first(label.values))).collect();
        page.set(metric.name, &labels, 1.0);
    }
    page
}

#[test]
fn promtool_has_nothing_to_say_about_a_full_page() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics", "--extended"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIPPED: promtool not installed");
            return;
        }
        other => other.unwrap(),
    };
    let page = full_page().render();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && complained.is_empty(), "{complained}");
    for metric in catalogue() {
        assert!(said.contains(metric.name), "promtool did not see {}", metric.name);
    }
}

#[test]
fn families_stand_by_name_with_help_and_type_once() {
    let page = full_page().render();
    let helps: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
    assert_eq!(helps.len(), catalogue().len());
    assert!(helps.is_sorted());
    assert_eq!(page.matches("# TYPE ").count(), helps.len());
}

/// The table between the marks of `docs/metrics.md`; `UPDATE_DOCS=1 cargo test --test metrics` rewrites it.
#[test]
fn the_table_of_the_documentation_is_the_catalogue() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    const BEGIN: &str = "<!-- catalogue: begin -->\n";
    const END: &str = "<!-- catalogue: end -->\n";
    let text = fs::read_to_string(FILE).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the table begins with its mark");
    let (_, tail) = rest.split_once(END).expect("the table ends with its mark");
    let wanted = [head, BEGIN, &tables(), "\n", END, tail].concat();
    if env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        fs::write(FILE, wanted).unwrap();
    } else {
        assert!(
            text == wanted,
            "docs/metrics.md is not the catalogue: run UPDATE_DOCS=1 cargo test --test metrics"
        );
    }
}

fn tables() -> String {
    let is_pool = |metric: &Metric| metric.name.starts_with("spool_pool_");
    let is_lock = |metric: &Metric| metric.name.starts_with("spool_lock_");
    let is_fault = |metric: &Metric| {
        ["spool_breaker_", "spool_retry_", "spool_degraded_"].iter().any(|kin| metric.name.starts_with(kin))
    };
    let is_recovery = |metric: &Metric| {
        ["spool_deferred_", "spool_recovery_"].iter().any(|kin| metric.name.starts_with(kin))
    };
    let is_redis = |metric: &Metric| metric.door == Door::Redis;
    [
        table("Pool", &is_pool),
        table("Locks", &is_lock),
        table("Faults", &is_fault),
        table("Recovery", &is_recovery),
        table("Service and exporter", &|metric| {
            !(is_pool(metric)
                || is_lock(metric)
                || is_fault(metric)
                || is_recovery(metric)
                || is_redis(metric))
        }),
        table("Redis", &is_redis),
    ]
    .concat()
}

fn table(title: &str, is_in: &dyn Fn(&Metric) -> bool) -> String {
    let rows = catalogue().iter().filter(|metric| is_in(metric)).map(row);
    let head = format!("\n## {title}\n\n| name | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    [head].into_iter().chain(rows).collect()
}

fn row(metric: &Metric) -> String {
    let labels = metric.labels.iter().map(|label| match label.values {
        [] => format!("`{}`", label.name),
        values => format!("`{}` = {}", label.name, values.join(", ")),
    });
    let labels = labels.collect::<Vec<_>>().join("; ");
    let buckets = match metric.buckets {
        [] => String::new(),
        bounds => format!(" Buckets: {}.", bounds.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")),
    };
    format!("| `{}` | {} | {labels} | {}{buckets} |\n", metric.name, metric.kind.as_str(), metric.help)
}
