#![cfg(feature = "serde")]

use serde_json::json;

use super::*;
use crate::metrics::{Kind, catalogue};

/// A snapshot of a process that has done nothing yet.
fn quiet() -> Snapshot {
    serde_json::from_str(include_str!("../../../tests/fixtures/snapshot.json")).unwrap()
}

fn page(snapshot: &Snapshot, dropped: usize) -> String {
    let mut page = Page::new();
    assert_eq!(page.add_snapshot(snapshot, None), dropped);
    page.render()
}

fn has(page: &str, line: &str) -> bool {
    page.lines().any(|found| found == line)
}

#[test]
fn every_metric_of_a_service_is_there_before_anything_has_happened() {
    let page = page(&quiet(), 0);
    for metric in catalogue().iter().filter(|metric| metric.door == Door::Service) {
        assert!(has(&page, &format!("# TYPE {} {}", metric.name, metric.kind.as_str())), "{}", metric.name);
        let name = if metric.kind == Kind::Histogram {
            format!("{}_count", metric.name)
        } else {
            metric.name.into()
        };
        for value in metric.labels.last().map_or(&[][..], |label| label.values) {
            let is_there = page.lines().any(|line| {
                line.starts_with(&format!("{name}{{")) && line.contains(&format!("=\"{value}\"}} "))
            });
            assert!(is_there, "{} has no {value}", metric.name);
        }
    }
    assert!(has(&page, "spool_service_snapshot_timestamp_seconds 1772352001.5"));
    assert!(has(&page, r#"spool_lock_lost_total{reason="stolen"} 0"#));
}

/// What each instance of a service costs in Prometheus. It was 300 until there were circuits, retries and modes to see, and 340 until
/// there were recoveries.
#[test]
fn one_service_is_at_most_365_series() {
    let mut page = Page::new();
    page.add_snapshot(&quiet(), Some("backend"));
    let lines = page.render().lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(page.samples(), lines);
    // The rest is for what the exporter says of itself and of Redis.
    let redis = catalogue().iter().filter(|metric| metric.door != Door::Service);
    let others: usize = redis
        .map(|metric| metric.labels.iter().map(|label| label.values.len().max(1)).product::<usize>())
        .sum();
    assert!(lines + others <= 365, "{lines} + {others}");
}

#[test]
fn values_arrive_where_they_belong() {
    let mut snapshot = quiet();
    let pool = &mut snapshot.pools[0];
    pool.report.active_connections = 3;
    pool.limit_reason = Some(LimitReason::MaxClients);
    pool.checkout_failures_total.insert("saturated".into(), 5);
    pool.checkout_failures_total.insert("no_replicas".into(), 2);
    pool.checkout_failures_total.insert("other".into(), 1);
    pool.checkout_wait_seconds.counts[0] = 4;
    pool.checkout_wait_seconds.counts[11] = 2;
    pool.checkout_wait_seconds.sum = 13.25;
    let page = page(&snapshot, 0);
    for line in [
        r#"spool_pool_connections{pool="default",state="active"} 3"#,
        r#"spool_pool_connections{pool="default",state="draining"} 0"#,
        r#"spool_pool_limited{pool="default",reason="closed_in_handshake"} 0"#,
        r#"spool_pool_limited{pool="default",reason="max_clients"} 1"#,
        r#"spool_pool_checkout_failures_total{pool="default",reason="saturated"} 5"#,
        // A fault that the label does not tell apart is not lost.
        r#"spool_pool_checkout_failures_total{pool="default",reason="other"} 3"#,
        r#"spool_pool_checkout_wait_seconds_bucket{pool="default",le="0.0001"} 4"#,
        r#"spool_pool_checkout_wait_seconds_bucket{pool="default",le="5"} 4"#,
        r#"spool_pool_checkout_wait_seconds_bucket{pool="default",le="+Inf"} 6"#,
        r#"spool_pool_checkout_wait_seconds_sum{pool="default"} 13.25"#,
        r#"spool_pool_checkout_wait_seconds_count{pool="default"} 6"#,
    ] {
        assert!(has(&page, line), "{line}\nis not in\n{page}");
    }
}

#[test]
fn faults_arrive_where_they_belong() {
    let mut snapshot = quiet();
    snapshot.locks.guards = 4;
    snapshot.locks.guards_in_jeopardy = 1;
    snapshot.locks.limited_total.insert("tag".into(), 2);
    let acquire = snapshot.locks.operations.get_mut("acquire").unwrap();
    (acquire.retries_total, acquire.retries_exhausted_total) = (7, 3);
    acquire.failures_total.insert("circuit_open".into(), 9);
    let faults = &mut snapshot.faults;
    let link = faults.circuits.get_mut("link").unwrap();
    (link.state, link.forced, link.rejected_total) = (CircuitState::HalfOpen, true, 12);
    link.transitions_total.insert("half_open".into(), 5);
    link.last_transition = Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_772_352_002_500));
    link.open_seconds_total = 2.5;
    faults.mode = Mode::Unreachable;
    faults.retry_budget_ratio = 0.25;
    faults.retries_refused_total = 6;
    (faults.degraded_entered_total, faults.degraded_seconds_total) = (1, 8.5);
    faults.degraded_reads_total.insert("snapshot".into(), 10);
    faults.snapshot_seen_at = Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_772_352_000));
    let page = page(&snapshot, 0);
    for line in [
        r#"spool_breaker_state{breaker="link",state="closed"} 0"#,
        r#"spool_breaker_state{breaker="link",state="open"} 0"#,
        r#"spool_breaker_state{breaker="link",state="half_open"} 1"#,
        r#"spool_breaker_state{breaker="writes",state="closed"} 1"#,
        r#"spool_breaker_forced{breaker="link"} 1"#,
        r#"spool_breaker_forced{breaker="writes"} 0"#,
        r#"spool_breaker_transitions_total{breaker="link",to="half_open"} 5"#,
        r#"spool_breaker_transitions_total{breaker="link",to="open"} 0"#,
        r#"spool_breaker_rejected_total{breaker="link"} 12"#,
        r#"spool_breaker_last_transition_timestamp_seconds{breaker="link"} 1772352002.5"#,
        r#"spool_breaker_last_transition_timestamp_seconds{breaker="writes"} 0"#,
        r#"spool_breaker_open_seconds_total{breaker="link"} 2.5"#,
        r#"spool_retry_attempts_total{op="acquire"} 7"#,
        r#"spool_retry_attempts_total{op="read"} 0"#,
        r#"spool_retry_exhausted_total{op="acquire"} 3"#,
        "spool_retry_budget_remaining_ratio 0.25",
        "spool_retry_budget_refused_total 6",
        r#"spool_degraded_mode{mode="read_only_server"} 0"#,
        r#"spool_degraded_mode{mode="unreachable"} 1"#,
        "spool_degraded_entered_total 1",
        "spool_degraded_seconds_total 8.5",
        r#"spool_degraded_reads_total{result="snapshot"} 10"#,
        r#"spool_degraded_reads_total{result="none"} 0"#,
        "spool_degraded_oldest_read_timestamp_seconds 1772352000",
        "spool_lock_guards 4",
        "spool_lock_guards_in_jeopardy 1",
        r#"spool_lock_limited_total{by="tag"} 2"#,
        r#"spool_lock_limited_total{by="holder"} 0"#,
        r#"spool_lock_operation_failures_total{op="acquire",reason="circuit_open"} 9"#,
    ] {
        assert!(has(&page, line), "{line}\nis not in\n{page}");
    }
    assert!(!page.contains(r#"mode="normal""#));
}

/// A service that is rolled out after its exporter.
#[test]
fn a_snapshot_of_an_older_library_has_all_series_and_no_breaker_in_any_state() {
    let mut older = serde_json::to_value(quiet()).unwrap();
    let take = |value: &mut serde_json::Value, key: &str| value.as_object_mut().unwrap().remove(key).unwrap();
    take(&mut older, "faults");
    for key in ["guards", "guards_in_jeopardy", "limited_total"] {
        take(&mut older["locks"], key);
    }
    for key in ["retries_total", "retries_exhausted_total"] {
        take(&mut older["locks"]["operations"]["acquire"], key);
    }
    let older: Snapshot = serde_json::from_value(older).unwrap();
    assert_eq!(older.faults, FaultStats::default());
    let count = |snapshot: &Snapshot| page(snapshot, 0).lines().count();
    assert_eq!(count(&older), count(&quiet()));
    let page = page(&older, 0);
    assert!(has(&page, r#"spool_breaker_state{breaker="link",state="closed"} 0"#));
    assert!(has(&page, "spool_retry_budget_remaining_ratio 1"));
}

#[test]
fn services_stand_side_by_side() {
    let mut page = Page::new();
    assert_eq!(page.add_snapshot(&quiet(), Some("backend")), 0);
    let one = page.samples();
    assert_eq!(page.add_snapshot(&quiet(), Some("planner")), 0);
    assert_eq!(page.samples(), 2 * one);
    let page = page.render();
    assert!(has(&page, r#"spool_lock_late_total{service="planner"} 0"#));
    assert!(has(&page, r#"spool_pool_slots{service="backend",pool="default"} 16"#));
    assert_eq!(page.matches("# HELP spool_pool_slots ").count(), 1);
}

#[test]
fn foreign_words_stay_off_the_page() {
    let mut snapshot = quiet();
    snapshot.version = "0.1.0\"} 1\nspool_up 1".into();
    snapshot.locks.lost_total.insert("aliens".into(), 1);
    snapshot.locks.lost_total.insert("timeout".into(), 1);
    let operation = json!({
        "total": 1, "failures_total": {},
        "duration_seconds": { "bounds": [], "counts": [], "sum": 0.0 },
    });
    snapshot.locks.operations.insert("destroy".into(), serde_json::from_value(operation).unwrap());
    let link = snapshot.faults.circuits["link"].clone();
    snapshot.faults.circuits.insert("ledger".into(), link);
    snapshot.faults.degraded_reads_total.insert("guessed".into(), 1);
    let page = page(&snapshot, 6);
    for word in ["aliens", "destroy", "ledger", "guessed", "spool_up", "spool_service_info"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(!page.contains(r#"spool_lock_lost_total{reason="timeout"}"#));
}

#[test]
fn numbers_that_cannot_be_are_left_out_rather_than_zero() {
    let mut snapshot = quiet();
    let pool = &mut snapshot.pools[0];
    pool.oldest_waiting_seconds = f64::NAN;
    pool.saturated_seconds_total = -1.0;
    pool.exhausted_seconds_total = f64::INFINITY;
    pool.checkout_wait_seconds.counts.pop();
    pool.connection_use_seconds.bounds[0] = 0.5;
    pool.connection_create_seconds.sum = f64::NEG_INFINITY;
    snapshot.locks.held_seconds.bounds.clear();
    snapshot.locks.held_seconds.counts = vec![1; 100_000];
    snapshot.faults.retry_budget_ratio = f64::NAN;
    let page = page(&snapshot, 8);
    for metric in [
        "spool_pool_oldest_waiting_seconds",
        "spool_pool_saturated_seconds_total",
        "spool_pool_exhausted_seconds_total",
        "spool_pool_checkout_wait_seconds",
        "spool_pool_connection_use_seconds",
        "spool_pool_connection_create_seconds",
        "spool_lock_held_seconds",
        "spool_retry_budget_remaining_ratio",
    ] {
        assert!(!page.contains(metric), "{metric}");
    }
}

#[test]
fn counts_that_overflow_stay_at_the_top() {
    let mut snapshot = quiet();
    snapshot.locks.held_seconds.counts.fill(u64::MAX);
    snapshot.pools[0].checkout_failures_total.insert("other".into(), u64::MAX);
    snapshot.pools[0].checkout_failures_total.insert("busy".into(), u64::MAX);
    assert!(has(&page(&snapshot, 0), "spool_lock_held_seconds_count 18446744073709552000"));
}

#[test]
fn pools_are_four_with_plain_names_and_told_apart() {
    let mut snapshot = quiet();
    let pool = snapshot.pools[0].clone();
    let names =
        ["default", "default", "", "a b", "\u{fc}", &"x".repeat(65), "two", "three-3", "four.4_", "five"];
    snapshot.pools = names.map(|name| PoolStats { name: name.into(), ..pool.clone() }).into();
    let page = page(&snapshot, 6);
    let slots: Vec<_> = page.lines().filter(|line| line.starts_with("spool_pool_slots{")).collect();
    assert_eq!(slots.len(), 4, "{slots:?}");
    assert!(!page.contains("five"));
}

#[test]
fn a_service_name_that_is_too_long_is_refused() {
    let mut page = Page::new();
    assert_eq!(page.add_snapshot(&quiet(), Some(&"x".repeat(65))), 1);
    assert_eq!(page.samples(), 0);
}

#[test]
fn a_registry_takes_the_collector_and_shows_the_same_page() {
    let registry = prometheus::Registry::new();
    let collector = crate::compat::prometheus0_14::Collector::new(quiet);
    let count = catalogue().iter().filter(|metric| metric.door == Door::Service).count();
    assert_eq!(prometheus::core::Collector::desc(&collector).len(), count);
    registry.register(Box::new(collector)).unwrap();
    let gathered = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert_eq!(gathered, page(&quiet(), 0));
}
