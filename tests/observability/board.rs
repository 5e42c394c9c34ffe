//! A board: its panels and everything that it asks Prometheus.

use serde_json::Value;

pub(crate) const FILE: &str = "grafana/dashboards/spool-overview.json";

/// The board of [`FILE`].
pub(crate) fn load() -> Value {
    serde_json::from_str(&super::text(FILE)).expect("the board is JSON")
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Every panel, rows included.
pub(crate) fn panels(board: &Value) -> Vec<&Value> {
    let top = list(&board["panels"]);
    assert!(!top.is_empty(), "no panels");
    top.iter().flat_map(|panel| [panel].into_iter().chain(list(&panel["panels"]))).collect()
}

/// Something that the board asks Prometheus.
#[derive(Debug)]
pub(crate) struct Query {
    /// Where it stands: the title of the panel and the letter, or the annotation.
    pub(crate) at: String,
    pub(crate) expression: String,
    /// The text that is made of the labels of each series.
    pub(crate) legend: String,
}

/// The queries of all panels and annotations.
pub(crate) fn queries(board: &Value) -> Vec<Query> {
    let of_panels = panels(board).into_iter().flat_map(|panel| {
        list(&panel["targets"]).iter().map(|target| Query {
            at: format!("{} {}", text(&panel["title"]), text(&target["refId"])),
            expression: text(&target["expr"]).to_owned(),
            legend: text(&target["legendFormat"]).to_owned(),
        })
    });
    let notes = list(&board["annotations"]["list"]).iter().filter(|note| note["builtIn"].is_null());
    let of_notes = notes.map(|note| Query {
        at: text(&note["name"]).to_owned(),
        expression: text(&note["expr"]).to_owned(),
        legend: text(&note["textFormat"]).to_owned(),
    });
    of_panels.chain(of_notes).collect()
}

/// A variable that lists the values of a label: `label_values(selector, label)`.
#[derive(Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) selector: String,
    pub(crate) label: String,
}

pub(crate) fn variables(board: &Value) -> Vec<Variable> {
    let all = list(&board["templating"]["list"]).iter();
    all.filter(|variable| variable["type"] == "query")
        .map(|variable| {
            let query = text(&variable["query"]["query"]);
            assert_eq!(query, text(&variable["definition"]), "what is shown is what is asked");
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) =
                inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(…, label)");
            Variable {
                name: text(&variable["name"]).to_owned(),
                selector: selector.to_owned(),
                label: label.to_owned(),
            }
        })
        .collect()
}

/// The labels that a legend names: `{{label}}`.
pub(crate) fn labels_of(legend: &str) -> Vec<&str> {
    legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label).collect()
}
