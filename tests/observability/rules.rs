//! The alert and recording rules, as plain values.

use std::collections::BTreeMap;

use yaml_rust2::{Yaml, YamlLoader};

pub(crate) const FILE: &str = "grafana/rules/spool-lock.yml";

/// A rule of [`FILE`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) is_alert: bool,
    pub(crate) expression: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

pub(crate) fn yaml(text: &str) -> Yaml {
    YamlLoader::load_from_str(text).expect("it is YAML").remove(0)
}

pub(crate) fn list(yaml: &Yaml) -> &[Yaml] {
    yaml.as_vec().map_or(&[], Vec::as_slice)
}

pub(crate) fn parse(text: &str) -> Vec<Rule> {
    let file = yaml(text);
    let rules: Vec<_> =
        list(&file["groups"]).iter().flat_map(|group| list(&group["rules"])).map(rule).collect();
    assert!(!rules.is_empty(), "no rules");
    rules
}

fn rule(yaml: &Yaml) -> Rule {
    let alert = yaml["alert"].as_str();
    let name = alert.or(yaml["record"].as_str()).expect("a rule is an alert or a record");
    Rule {
        name: name.to_owned(),
        is_alert: alert.is_some(),
        expression: yaml["expr"].as_str().expect("a rule has an expression").to_owned(),
        labels: texts(&yaml["labels"]),
        annotations: texts(&yaml["annotations"]),
    }
}

fn texts(yaml: &Yaml) -> BTreeMap<String, String> {
    let pairs = yaml.as_hash().into_iter().flatten();
    pairs
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .map(|(key, value)| (key.expect("a text").to_owned(), value.expect("a text").to_owned()))
        .collect()
}
