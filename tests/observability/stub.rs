//! A metrics page written by hand, as an exporter would show it, and a server for it.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

pub(crate) const LIMIT: f64 = 20.0;

/// What the pool on the page does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    pub(crate) active: f64,
    pub(crate) waiting: f64,
}

/// A metrics page as an exporter would show it, of one service with one pool, and its server.
pub(crate) struct Page {
    pub(crate) port: u16,
    state: Mutex<State>,
}

struct State {
    level: Level,
    /// Since when the counters count, and since when the level is what it is.
    started: Instant,
    since: Instant,
    started_at: SystemTime,
    active_seconds: f64,
    exhausted_seconds: f64,
}

impl State {
    fn new(level: Level) -> Self {
        let now = Instant::now();
        let (active_seconds, exhausted_seconds) = (0.0, 0.0);
        Self {
            level,
            started: now,
            since: now,
            started_at: SystemTime::now(),
            active_seconds,
            exhausted_seconds,
        }
    }

    fn advance(&mut self) {
        let now = Instant::now();
        let spent = (now - self.since).as_secs_f64();
        self.since = now;
        self.active_seconds += spent * self.level.active;
        if self.level.active >= LIMIT {
            self.exhausted_seconds += spent;
        }
    }
}

impl Page {
    pub(crate) fn new() -> Self {
        Self { port: 0, state: Mutex::new(State::new(Level { active: 0.0, waiting: 0.0 })) }
    }

    pub(crate) async fn serve() -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let page = Arc::new(Self { port, ..Self::new() });
        let served = Arc::clone(&page);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(respond(stream, served.render()));
            }
        });
        page
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the page in hand")
    }

    pub(crate) fn set(&self, level: Level) {
        let mut state = self.state();
        state.advance();
        state.level = level;
    }

    /// Service and Redis start again: counters at zero, another start time.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        *state = State::new(state.level);
    }

    pub(crate) fn render(&self) -> String {
        let mut state = self.state();
        state.advance();
        let age = state.started.elapsed().as_secs_f64();
        let start = unix(state.started_at);
        let Level { active, waiting } = state.level;
        let (active_seconds, exhausted_seconds) = (state.active_seconds, state.exhausted_seconds);
        let (idle, now) = (LIMIT - active, unix(SystemTime::now()));
        let mut page = Samples(String::new());
        let pool = r#"service="api",pool="main""#;
        let service = r#"service="api""#;

        for (state, value) in [("active", active), ("idle", idle), ("connecting", 0.0), ("draining", 0.0)] {
            page.add(&format!(r#"spool_pool_connections{{{pool},state="{state}"}}"#), value);
        }
        for (name, value) in [
            ("connections_max", LIMIT),
            ("connections_limit", LIMIT),
            ("active_connections_peak", active),
            ("active_connection_seconds_total", active_seconds),
            ("saturated_seconds_total", exhausted_seconds),
            ("exhausted_seconds_total", exhausted_seconds),
            ("waiting_calls", waiting),
            ("oldest_waiting_seconds", waiting / 10.0),
            ("in_flight_operations", active * 3.0),
            ("slots", LIMIT * 16.0),
        ] {
            page.add(&format!("spool_pool_{name}{{{pool}}}"), value);
        }
        for (name, reason, value) in [
            ("limited", "max_clients", 0.0),
            ("checkout_failures_total", "checkout_timeout", age),
            ("connection_create_failures_total", "max_clients", age),
            ("connections_closed_total", "idle_timeout", age),
        ] {
            page.add(&format!(r#"spool_pool_{name}{{{pool},reason="{reason}"}}"#), value);
        }
        for name in ["checkout_wait", "connection_use", "connection_create"] {
            page.histogram(&format!("spool_pool_{name}_seconds"), pool, ["0.001", "0.01", "1"], age);
        }
        page.histogram("spool_lock_held_seconds", service, ["60", "300", "3600"], age);
        page.histogram("spool_lock_extend_margin_seconds", service, ["1", "10", "60"], age);
        for op in ["acquire", "extend", "release", "read"] {
            let labels = format!(r#"{service},op="{op}""#);
            page.histogram("spool_lock_operation_duration_seconds", &labels, ["0.001", "2", "5"], age);
            page.add(&format!("spool_lock_operations_total{{{labels}}}"), age);
            page.add(
                &format!(r#"spool_lock_operation_failures_total{{{labels},reason="timeout"}}"#),
                age / 50.0,
            );
        }
        page.add(&format!(r#"spool_lock_lost_total{{{service},reason="expired"}}"#), 0.0);
        page.add(&format!(r#"spool_lock_swept_total{{{service},outcome="released"}}"#), 0.0);
        page.add(&format!("spool_lock_waiters{{{service}}}"), waiting);
        page.histogram("spool_lock_acquire_wait_seconds", service, ["0.01", "1", "60"], age);
        for name in ["contended", "fencing_rejections", "late", "script_reloads"] {
            page.add(&format!("spool_lock_{name}_total{{{service}}}"), 0.0);
        }

        for breaker in ["link", "writes"] {
            let labels = format!(r#"{service},breaker="{breaker}""#);
            for (state, value) in [("closed", 1.0), ("open", 0.0), ("half_open", 0.0)] {
                page.add(&format!(r#"spool_breaker_state{{{labels},state="{state}"}}"#), value);
            }
            page.add(&format!("spool_breaker_forced{{{labels}}}"), 0.0);
            page.add(&format!(r#"spool_breaker_transitions_total{{{labels},to="open"}}"#), 0.0);
            page.add(&format!("spool_breaker_rejected_total{{{labels}}}"), age / 50.0);
            page.add(&format!("spool_breaker_last_transition_timestamp_seconds{{{labels}}}"), start);
            page.add(&format!("spool_breaker_open_seconds_total{{{labels}}}"), 0.0);
        }
        for op in ["acquire", "extend", "release", "read"] {
            for name in ["attempts", "exhausted"] {
                page.add(&format!(r#"spool_retry_{name}_total{{{service},op="{op}"}}"#), age / 50.0);
            }
        }
        page.add(&format!("spool_retry_budget_remaining_ratio{{{service}}}"), 1.0);
        page.add(&format!("spool_retry_budget_refused_total{{{service}}}"), 0.0);
        for mode in ["read_only_server", "unreachable"] {
            page.add(&format!(r#"spool_degraded_mode{{{service},mode="{mode}"}}"#), 0.0);
        }
        page.add(&format!("spool_degraded_entered_total{{{service}}}"), 1.0);
        page.add(&format!("spool_degraded_seconds_total{{{service}}}"), 8.0);
        page.add(&format!(r#"spool_degraded_reads_total{{{service},result="snapshot"}}"#), age / 50.0);
        page.add(&format!("spool_degraded_oldest_read_timestamp_seconds{{{service}}}"), start);
        page.add(&format!("spool_lock_guards{{{service}}}"), active);
        page.add(&format!("spool_lock_guards_in_jeopardy{{{service}}}"), 0.0);
        page.add(&format!(r#"spool_lock_limited_total{{{service},by="holder"}}"#), 0.0);

        // One restart of Redis long ago, and now and then a release that waits for a moment.
        for (name, value) in [
            ("deferred_calls", 0.0),
            ("deferred_total", age / 50.0),
            ("deferred_refused_total", 0.0),
            ("recovery_in_progress", 0.0),
            ("recovery_server_restarts_total", 1.0),
            ("recovery_data_losses_total", 1.0),
            ("lock_overlaps_total", 0.0),
        ] {
            page.add(&format!("spool_{name}{{{service}}}"), value);
        }
        for (settlement, value) in [("applied", age / 50.0), ("ended", 0.0)] {
            page.add(
                &format!(r#"spool_deferred_settled_total{{{service},settlement="{settlement}"}}"#),
                value,
            );
        }
        for (phase, failures, seconds) in
            [("verify", 0.0, 0.02), ("deferred", 0.0, 0.1), ("restore", 1.0, 10.0), ("admit", 0.0, 0.4)]
        {
            let labels = format!(r#"{service},phase="{phase}""#);
            page.add(&format!("spool_recovery_phases_total{{{labels}}}"), 1.0);
            page.add(&format!("spool_recovery_phase_failures_total{{{labels}}}"), failures);
            page.add(&format!("spool_recovery_phase_seconds_total{{{labels}}}"), seconds);
        }
        for (outcome, value) in [("restored", 40.0), ("stood", 2.0), ("refused", 1.0)] {
            page.add(
                &format!(r#"spool_recovery_restored_leases_total{{{service},outcome="{outcome}"}}"#),
                value,
            );
        }

        page.add(&format!("spool_up{{{service}}}"), 1.0);
        page.add(&format!(r#"spool_service_info{{{service},version="0.1.0"}}"#), 1.0);
        page.add(&format!("spool_service_start_time_seconds{{{service}}}"), start);
        page.add(&format!("spool_service_snapshot_timestamp_seconds{{{service}}}"), now);
        page.add(r#"spool_exporter_build_info{version="0.1.0"}"#, 1.0);
        for collector in ["service", "redis"] {
            page.add(&format!(r#"spool_exporter_collector_success{{collector="{collector}"}}"#), 1.0);
            page.add(
                &format!(r#"spool_exporter_collector_duration_seconds{{collector="{collector}"}}"#),
                0.002,
            );
        }
        page.add("spool_exporter_scrape_duration_seconds", 0.003);
        page.add("spool_exporter_snapshot_schema_errors_total", 0.0);

        page.add("spool_redis_up", 1.0);
        page.add(r#"spool_redis_probe_failure{reason="max_clients"}"#, 0.0);
        page.add("spool_redis_connected_clients", active + 1.0);
        page.add("spool_redis_connections_limit", 50.0);
        page.add(r#"spool_redis_connections_limit_info{source="info"}"#, 1.0);
        page.add("spool_redis_rejected_connections_total", 0.0);
        page.add("spool_redis_connections_received_total", age);
        page.add("spool_redis_start_time_seconds", start);
        page.add(r#"spool_redis_instance_info{role="master",redis_version="7.0.15"}"#, 1.0);
        page.add(r#"spool_redis_maxmemory_policy_info{policy="noeviction"}"#, 1.0);
        page.0
    }
}

struct Samples(String);

impl Samples {
    fn add(&mut self, series: &str, value: f64) {
        writeln!(self.0, "{series} {value}").expect("a String takes everything");
    }

    /// All observations in the second bucket.
    fn histogram(&mut self, name: &str, labels: &str, bounds: [&str; 3], count: f64) {
        for (bound, value) in bounds.into_iter().chain(["+Inf"]).zip([0.0, count, count, count]) {
            self.add(&format!(r#"{name}_bucket{{{labels},le="{bound}"}}"#), value);
        }
        self.add(&format!("{name}_sum{{{labels}}}"), count * 0.01);
        self.add(&format!("{name}_count{{{labels}}}"), count);
    }
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_secs_f64()
}

/// One request, one response: whatever is asked, the page.
async fn respond(mut stream: TcpStream, page: String) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        page.len()
    );
    // A scraper that hangs up early is seen by what it does not know.
    let _ = stream.write_all((head + &page).as_bytes()).await;
}
