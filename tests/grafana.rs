//! `grafana/` against the tools of Prometheus, against the catalogue, and against what Grafana is known to want.
//!
//! Nothing here draws a panel: there is no Grafana to be had in the tests. `alert_e2e.rs` asks a real Prometheus everything that
//! the board asks.

#![cfg(feature = "prometheus")]

mod observability;

use std::collections::{BTreeSet, HashMap, HashSet};

use observability::{
    accepted_by,
    board::{self, list, text},
    file, files,
    promql::{self, Selector},
    rules::{self, Rule},
};
use spool_lock::metrics::{Door, Kind, catalogue};

const UNITS: [&str; 6] = ["none", "s", "ops", "cps", "percentunit", "dateTimeFromNow"];

#[test]
fn promtool_accepts_config_and_rules() {
    accepted_by("promtool", &["check", "config", "grafana/prometheus.yml"]);
    accepted_by("promtool", &["check", "rules", "--lint=all", "--lint-fatal", rules::FILE]);
}

#[test]
fn rule_unit_tests_pass() {
    let tests = files("grafana/rules/tests", ".yml");
    let mut arguments = vec!["test", "rules"];
    arguments.extend(tests.iter().map(String::as_str));
    accepted_by("promtool", &arguments);
}

/// A unit test that never sees its alert fire, or never sees it silent, proves half of nothing.
#[test]
fn every_alert_is_tested_to_fire_and_to_stay_silent() {
    let mut seen = HashSet::new();
    for path in files("grafana/rules/tests", ".yml") {
        let file = rules::yaml(&observability::text(&path));
        let cases = rules::list(&file["tests"]).iter().flat_map(|test| rules::list(&test["alert_rule_test"]));
        seen.extend(cases.map(|case| {
            let fires = !rules::list(&case["exp_alerts"]).is_empty();
            (case["alertname"].as_str().expect("a case names its alert").to_owned(), fires)
        }));
    }
    for alert in alerts() {
        for fires in [true, false] {
            assert!(
                seen.contains(&(alert.name.clone(), fires)),
                "{}: no case where fires = {fires}",
                alert.name
            );
        }
    }
}

#[test]
fn alerts_and_panels_use_only_catalogue_names() {
    let series = Series::known();
    for (at, expression) in expressions() {
        let parsed = promql::parse(&expression);
        assert!(!parsed.selectors.is_empty(), "{at}: reads nothing");
        for selector in &parsed.selectors {
            series.check(&at, selector);
        }
        for label in &parsed.grouping {
            let known = |selector: &Selector| series.labels(&selector.name).contains(label.as_str());
            assert!(parsed.selectors.iter().any(known), "{at}: nothing has the label {label}");
        }
    }
}

#[test]
fn counters_only_under_rate_and_gauges_never() {
    const RATES: [&str; 2] = ["rate", "increase"];
    let series = Series::known();
    for (at, expression) in expressions() {
        for selector in promql::parse(&expression).selectors {
            let is_rate = RATES.contains(&selector.function());
            assert_eq!(is_rate, series.is_counter(&selector.name), "{at}: {selector:?}");
            assert!(!is_rate || selector.has_range, "{at}: {selector:?}");
        }
    }
}

/// With two jobs or two instances in one Prometheus, a bare `sum` adds what does not belong together.
#[test]
fn every_panel_is_filtered_and_kept_apart_by_job_and_instance() {
    for query in board::queries(&board::load()) {
        let parsed = promql::parse(&query.expression);
        for label in ["job", "instance"] {
            assert!(parsed.grouping.iter().any(|kept| kept == label), "{}: not by {label}", query.at);
        }
        for selector in parsed.selectors {
            let mut wanted = vec![("job", "$job"), ("instance", "$instance")];
            if selector.name.contains("spool_pool_") {
                wanted.push(("pool", "$pool"));
            }
            for (label, variable) in wanted {
                assert_eq!(selector.matcher(label), Some(("=~", variable)), "{}: {selector:?}", query.at);
            }
        }
    }
}

/// Prometheus 3 writes `le="2"` as `le="2.0"`: a rule that names one of them works on one side only.
#[test]
fn whole_bucket_bounds_are_named_in_both_spellings() {
    let found = expressions().into_iter().flat_map(|(at, expression)| {
        promql::parse(&expression).selectors.into_iter().map(move |selector| (at.clone(), selector))
    });
    let mut bounds = 0;
    for (at, selector) in found {
        let Some((operator, value)) = selector.matcher("le") else { continue };
        bounds += 1;
        assert_eq!((operator, value), ("=~", "2(\\.0)?"), "{at}");
        let metric = catalogue()
            .iter()
            .find(|metric| selector.name.starts_with(metric.name) && metric.kind == Kind::Histogram);
        assert!(metric.is_some_and(|metric| metric.buckets.contains(&2.0)), "{at}: no bucket ends at 2 s");
    }
    assert!(bounds > 0, "the share within 2 s is shown");
}

#[test]
fn every_panel_has_title_description_unit_and_datasource() {
    let board = board::load();
    let (mut titles, mut ids) = (HashSet::new(), HashSet::new());
    for panel in board::panels(&board) {
        let title = text(&panel["title"]);
        assert!(!title.is_empty() && titles.insert(title), "{title:?} is empty or there twice");
        assert!(
            ids.insert(panel["id"].as_u64().expect("a panel has a number")),
            "{title}: its id is there twice"
        );
        if panel["type"] == "row" {
            continue;
        }
        let description = text(&panel["description"]);
        assert!(
            description.ends_with('.') && description.len() > 40,
            "{title}: {description:?} explains nothing"
        );
        let unit = text(&panel["fieldConfig"]["defaults"]["unit"]);
        assert!(UNITS.contains(&unit), "{title}: unit {unit:?}");
        assert!(!list(&panel["targets"]).is_empty(), "{title}: asks nothing");
        for place in [panel].into_iter().chain(list(&panel["targets"])) {
            assert_eq!(place["datasource"]["uid"], "${datasource}", "{title}");
            assert_eq!(place["datasource"]["type"], "prometheus", "{title}");
        }
    }
}

/// Whoever cannot tell the colours apart reads a word, a number, or a line that is dashed.
#[test]
fn colour_is_never_the_only_carrier() {
    let board = board::load();
    for panel in board::panels(&board) {
        let (title, defaults) = (text(&panel["title"]), &panel["fieldConfig"]["defaults"]);
        let is_state = panel["type"] == "state-timeline"
            || title == "Exporter"
            || title == "Service"
            || title == "Redis";
        if is_state && panel["type"] != "row" {
            let words = &list(&defaults["mappings"])[0]["options"];
            assert!(
                !text(&words["0"]["text"]).is_empty() && !text(&words["1"]["text"]).is_empty(),
                "{title}"
            );
        }
        if panel["type"] == "stat" {
            assert_eq!(panel["options"]["textMode"], "value_and_name", "{title}");
        }
        if panel["type"] == "timeseries" && list(&defaults["thresholds"]["steps"]).len() > 1 {
            assert_eq!(
                defaults["custom"]["thresholdsStyle"]["mode"], "dashed",
                "{title}: its thresholds are lines"
            );
        }
    }
}

#[test]
fn pool_thresholds_are_80_and_95_percent() {
    let board = board::load();
    for title in ["Pool in use", "Redis connections in use", "Connections in use"] {
        let panel = board::panels(&board)
            .into_iter()
            .find(|panel| panel["title"] == title)
            .expect("the panel exists");
        let steps = list(&panel["fieldConfig"]["defaults"]["thresholds"]["steps"]);
        let values: Vec<_> = steps.iter().filter_map(|step| step["value"].as_f64()).collect();
        assert_eq!(values, [0.8, 0.95], "{title}");
    }
}

#[test]
fn panels_do_not_overlap() {
    let board = board::load();
    let mut taken = HashMap::new();
    for panel in board::panels(&board) {
        let side = |name: &str| panel["gridPos"][name].as_u64().expect("a panel has a place");
        let (x, y, w, h) = (side("x"), side("y"), side("w"), side("h"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{} leaves the grid", panel["title"]);
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            if let Some(other) = taken.insert(cell, &panel["title"]) {
                panic!("{} lies on {other}", panel["title"]);
            }
        }
    }
}

/// A board that was exported with inputs cannot be provisioned: "Datasource ${DS_PROMETHEUS} was not found".
#[test]
fn no_inputs_and_stable_uid() {
    let board = board::load();
    for key in ["__inputs", "__requires", "__elements", "id"] {
        assert!(board.get(key).is_none(), "{key}");
    }
    assert_eq!(board["uid"], "spool-overview");
    assert_eq!(board["schemaVersion"], 39);
    assert_eq!(board["editable"], false);
    assert_eq!((text(&board["timezone"]), text(&board["refresh"])), ("utc", "30s"));
    let names = list(&board["templating"]["list"]).iter().map(|variable| text(&variable["name"]));
    assert_eq!(names.collect::<Vec<_>>(), ["datasource", "job", "instance", "pool"]);
    for variable in list(&board["templating"]["list"]).iter().filter(|variable| variable["type"] == "query") {
        assert_eq!((&variable["multi"], &variable["includeAll"]), (&true.into(), &true.into()));
        assert_eq!((text(&variable["allValue"]), variable["refresh"].as_u64()), (".+", Some(2)));
    }
}

#[test]
fn every_alert_has_a_runbook_page_that_exists() {
    let index = observability::text("grafana/README.md");
    let mut pages = BTreeSet::new();
    for alert in alerts() {
        let name = &alert.name;
        let page = format!("docs/runbooks/{name}.md");
        assert_eq!(alert.annotations["runbook_url"], page);
        let runbook = observability::text(&page);
        let title = runbook.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        let is_named = title == name || title.starts_with(&format!("{name}: "));
        assert!(is_named, "{page}: its title begins with its alert");
        let severity = if alert.labels["severity"] == "critical" { "Critical, pages." } else { "Warning." };
        assert!(runbook.contains(&format!("\n\n{severity} ")), "{page}: says {severity}");
        for part in ["What it means.", "What the crate does by itself.", "What to check", "What to do."] {
            assert!(runbook.contains(&format!("\n**{part}**")), "{page}: {part}");
        }
        assert!(index.contains(&format!("(../{page})")), "grafana/README.md links {page}");
        pages.insert(page);
    }
    // The other pages are about what people do by hand.
    let of_alerts = |page: &String| page.starts_with("docs/runbooks/Spool");
    let (of_alerts, by_hand): (BTreeSet<_>, BTreeSet<_>) =
        files("docs/runbooks", ".md").into_iter().partition(of_alerts);
    assert_eq!(of_alerts, pages, "no page without alert");
    let index = observability::text("docs/README.md");
    for page in by_hand {
        let page = page.trim_start_matches("docs/");
        assert!(index.contains(&format!("({page})")), "docs/README.md links {page}");
    }
}

#[test]
fn every_alert_says_what_whose_and_how_bad() {
    for Rule { name, labels, annotations, .. } in alerts() {
        assert!(name.starts_with("Spool"), "{name}");
        let is_critical = match labels["severity"].as_str() {
            "critical" => true,
            "warning" => false,
            other => panic!("{name}: severity {other}"),
        };
        assert_eq!(labels.get("page").map(String::as_str), is_critical.then_some("true"), "{name}");
        assert!(!annotations["summary"].contains("{{"), "{name}: a summary is the same for all");
        assert!(annotations["description"].contains("{{ $labels."), "{name}: a description says whose");
    }
}

#[test]
fn alertmanager_config_is_accepted() {
    const CONFIG: &str = "grafana/alertmanager.yml";
    if accepted_by("amtool", &["check-config", CONFIG]).is_none() {
        return;
    }
    for alert in alerts() {
        let wanted = if alert.labels.contains_key("page") { "pagerduty" } else { "tickets" };
        let mut arguments: Vec<_> =
            ["config", "routes", "test", "--config.file", CONFIG].map(str::to_owned).into();
        arguments.push(format!("alertname={}", alert.name));
        arguments.extend(alert.labels.iter().map(|(label, value)| format!("{label}={value}")));
        let receiver = accepted_by("amtool", &arguments).expect("it was there a moment ago");
        assert_eq!(receiver.trim(), wanted, "{}", alert.name);
    }
}

#[test]
fn provisioning_names_what_the_board_has() {
    let source = rules::yaml(&observability::text("grafana/provisioning/datasources/prometheus.yml"));
    let source = &source["datasources"][0];
    let board = board::load();
    let variable = &list(&board["templating"]["list"])[0];
    assert_eq!(variable["current"]["value"], source["uid"].as_str().expect("the source has a uid"));
    assert_eq!(variable["query"], source["type"].as_str().expect("the source has a type"));
    let prometheus = rules::yaml(&observability::text("grafana/prometheus.yml"));
    assert_eq!(source["jsonData"]["timeInterval"], prometheus["global"]["scrape_interval"]);
    let provider = rules::yaml(&observability::text("grafana/provisioning/dashboards/spool-lock.yml"));
    assert_eq!(provider["providers"][0]["allowUiUpdates"].as_bool(), Some(false));
    assert!(file(board::FILE).is_file());
}

#[test]
fn expressions_are_read_as_prometheus_reads_them() {
    let parsed = promql::parse(
        r#"1 - sum by (job, op) (rate(a_bucket{le=~"2(\\.0)?", x!="y"}[5m])) / (b:c > 0 offset 1m) and on (job) up"#,
    );
    assert_eq!(parsed.grouping, ["job", "op", "job"]);
    let names: Vec<_> = parsed.selectors.iter().map(|selector| selector.name.as_str()).collect();
    assert_eq!(names, ["a_bucket", "b:c", "up"]);
    let bucket = &parsed.selectors[0];
    assert_eq!(bucket.inside, ["rate", "sum"]);
    assert_eq!((bucket.matcher("le"), bucket.matcher("x")), (Some(("=~", "2(\\.0)?")), Some(("!=", "y"))));
    assert!(bucket.has_range && !parsed.selectors[1].has_range);
    assert_eq!(parsed.selectors[1].function(), "");
}

fn alerts() -> Vec<Rule> {
    rules().into_iter().filter(|rule| rule.is_alert).collect()
}

fn rules() -> Vec<Rule> {
    rules::parse(&observability::text(rules::FILE))
}

/// Every expression of the rules and the board, with the place where it stands.
fn expressions() -> Vec<(String, String)> {
    let of_rules = rules().into_iter().map(|rule| (rule.name, rule.expression));
    let board = board::load();
    let of_board = board::queries(&board).into_iter().map(|query| (query.at, query.expression));
    let of_variables =
        board::variables(&board).into_iter().map(|variable| (variable.name, variable.selector));
    // A variable lists series and computes nothing: `count` makes an expression of it.
    of_rules
        .chain(of_board)
        .chain(of_variables.map(|(name, selector)| (name, format!("count({selector})"))))
        .collect()
}

/// Every series that there is: the catalogue, what Prometheus makes of it, `up`, and our recording rules.
struct Series(HashMap<String, Known>);

struct Known {
    is_counter: bool,
    /// Label and its values; empty where any value may be.
    labels: HashMap<&'static str, &'static [&'static str]>,
}

impl Series {
    fn known() -> Self {
        let target = || HashMap::from([("job", &[][..]), ("instance", &[][..])]);
        let mut all = HashMap::new();
        for metric in catalogue() {
            let mut labels = target();
            labels.extend(metric.labels.iter().map(|label| (label.name, label.values)));
            if metric.door == Door::Service || metric.name == "spool_up" {
                labels.insert("service", &[]);
            }
            if metric.kind != Kind::Histogram {
                let is_counter = metric.kind == Kind::Counter;
                all.insert(metric.name.to_owned(), Known { is_counter, labels });
                continue;
            }
            for part in ["_bucket", "_sum", "_count"] {
                let mut labels = labels.clone();
                if part == "_bucket" {
                    labels.insert("le", &[]);
                }
                all.insert(format!("{}{part}", metric.name), Known { is_counter: true, labels });
            }
        }
        all.insert("up".to_owned(), Known { is_counter: false, labels: target() });
        for record in rules().into_iter().filter(|rule| !rule.is_alert) {
            let mut labels = target();
            if record.name.starts_with("instance_pool:") {
                labels.extend([("service", &[][..]), ("pool", &[][..])]);
            }
            all.insert(record.name, Known { is_counter: false, labels });
        }
        Self(all)
    }

    fn get(&self, name: &str) -> &Known {
        self.0.get(name).unwrap_or_else(|| panic!("{name} is not in the catalogue"))
    }

    fn is_counter(&self, name: &str) -> bool {
        self.get(name).is_counter
    }

    fn labels(&self, name: &str) -> HashSet<&str> {
        self.get(name).labels.keys().copied().collect()
    }

    fn check(&self, at: &str, selector: &Selector) {
        let Some(known) = self.0.get(&selector.name) else {
            panic!("{at}: {} is not in the catalogue", selector.name)
        };
        for (label, operator, value) in &selector.matchers {
            let Some(values) = known.labels.get(label.as_str()) else {
                panic!("{at}: {} has no label {label}", selector.name)
            };
            let is_one = operator == "=" && !values.is_empty();
            assert!(!is_one || values.contains(&value.as_str()), "{at}: {label} is never {value}");
        }
    }
}
