//! A real Prometheus, started for one test, and what it answers.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    observability::board::{self, Query},
    support::{free_port, process::Process},
};

const POLL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(20);

/// A Prometheus on a port of its own that scrapes one page each second.
pub(crate) struct Prometheus {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// `None` when it is not installed.
    pub(crate) async fn start(scraped: u16, rules: &str) -> Option<Self> {
        // The port is free until somebody else is faster: then the next one.
        let mut said = String::new();
        for _ in 0..3 {
            let folder = TempDir::new().expect("a temporary folder");
            let path = |name: &str| folder.path().join(name);
            let config = format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}}\n\
                 rule_files: [rules.yml]\n\
                 scrape_configs: [{{job_name: spool, static_configs: [{{targets: ['127.0.0.1:{scraped}']}}]}}]\n"
            );
            fs::write(path("prometheus.yml"), config).expect("the folder can be written");
            fs::write(path("rules.yml"), rules).expect("the folder can be written");
            let log = File::create(path("log")).expect("the folder can be written");
            let port = free_port();
            let mut command = Command::new("prometheus");
            command
                .arg(format!("--config.file={}", path("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", path("data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .args(["--log.level=warn"])
                .stdout(Stdio::null())
                .stderr(log);
            let mut process = match Process::spawn(command) {
                Err(error) if error.kind() == ErrorKind::NotFound => return None,
                other => other.expect("prometheus starts"),
            };
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline && process.ended().is_none() {
                if get(port, "/-/ready").await.is_ok() {
                    return Some(Self { port, _process: process, _folder: folder });
                }
                sleep(POLL).await;
            }
            said += &fs::read_to_string(path("log")).unwrap_or_default();
        }
        panic!("prometheus did not start: {said}")
    }

    /// The names of the alerts in a state.
    pub(crate) async fn alerts(&self, state: &str) -> BTreeSet<String> {
        sleep(POLL).await;
        let body = get(self.port, "/api/v1/alerts").await.expect("prometheus answers");
        let body: Value = serde_json::from_str(&body).expect("the answer is JSON");
        let alerts = body["data"]["alerts"].as_array().expect("the answer is a list");
        let names =
            alerts.iter().filter(|alert| alert["state"] == state).map(|alert| &alert["labels"]["alertname"]);
        names.map(|name| name.as_str().expect("an alert has a name").to_owned()).collect()
    }

    /// What an instant query answers.
    async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        sleep(POLL).await;
        // What Grafana puts in place of its variables when all is selected.
        let expression = ["$job", "$instance", "$pool"]
            .into_iter()
            .fold(expression.replace("$__rate_interval", "20s"), |text, variable| {
                text.replace(variable, ".+")
            });
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("query", &expression).finish();
        let body = get(self.port, &format!("/api/v1/query?{query}")).await?;
        let body: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        Ok(body["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// The first finite number that a query answers.
    pub(crate) async fn number(&self, expression: &str) -> Option<f64> {
        let series = self.query(expression).await.expect("prometheus answers");
        series.iter().filter_map(value).find(|value| value.is_finite())
    }

    /// That a query of the board has an answer with a number in it, and the labels that its legend shows.
    pub(crate) async fn answers(&self, query: &Query) -> Result<(), String> {
        let series = self.query(&query.expression).await?;
        if !series.iter().filter_map(value).any(f64::is_finite) {
            return Err(format!("{}: nothing for {}", query.at, query.expression));
        }
        for label in board::labels_of(&query.legend) {
            let has_it = |one: &Value| one["metric"].get(label).is_some();
            assert!(series.iter().all(has_it), "{}: the legend shows {label}, the answer has none", query.at);
        }
        Ok(())
    }
}

fn value(series: &Value) -> Option<f64> {
    series["value"][1].as_str()?.parse().ok()
}

/// The body of a 200.
async fn get(port: u16, path: &str) -> Result<String, String> {
    let mut answer = String::new();
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).await?;
        stream.read_to_string(&mut answer).await
    };
    timeout(PATIENCE, asked).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    if head.lines().next().is_some_and(|status| status.contains(" 200 ")) {
        Ok(body.to_owned())
    } else {
        Err(answer)
    }
}
