//! What a circuit promises, so that its engine can be exchanged: what is known to go wrong in others goes right here.
//!
//! The first ten are the facts about the engine on which the rules around it rest; then what is done by hand, and numbers.

use std::{
    fmt,
    io::ErrorKind,
    iter,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{
            AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    task::{Context, Wake, Waker},
    thread,
    time::{Duration, SystemTime},
};

use spool_lock::{Circuit, CircuitConfig, CircuitState, Jitter, Permit, Rejected, Schedule};
use tokio::time::{Instant, advance, sleep, timeout};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

const BASE: Duration = Duration::from_millis(250);
const CAP: Duration = Duration::from_secs(30);
/// How often two threads race.
const ROUNDS: u32 = 200_000;
const MOMENT: Duration = Duration::from_millis(1);
/// Longer than a test that hangs is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

use CircuitState::{Closed, HalfOpen, Open};

/// The defaults, but for chance.
fn config() -> CircuitConfig {
    let mut config = CircuitConfig::default();
    config.open = config.open.jitter(Jitter::None);
    config
}

fn circuit() -> Circuit {
    Circuit::new("ledger", config())
}

/// One whose interval is over as soon as it is open.
fn without_intervals() -> Circuit {
    let mut config = config();
    config.open = Schedule::new(Duration::ZERO, Duration::ZERO);
    Circuit::new("ledger", config)
}

/// As many faults as open it.
fn fail(circuit: &Circuit) {
    for _ in 0..3 {
        circuit.permit().expect("it is closed").fault();
    }
    assert_eq!(circuit.state(), Open);
}

fn refused(circuit: &Circuit) -> Duration {
    circuit.permit().expect_err("it is open").retry_after
}

// 1

#[tokio::test(start_paused = true)]
async fn half_open_admits_one_of_a_hundred_tasks() {
    let circuit = Arc::new(circuit());
    fail(&circuit);
    advance(BASE).await;
    let calls = (0..100).map(|_| {
        let circuit = circuit.clone();
        tokio::spawn(async move {
            let Ok(permit) = circuit.permit() else { return 0 };
            sleep(Duration::from_secs(1)).await;
            permit.success();
            1
        })
    });
    let mut admitted = 0;
    for call in calls.collect::<Vec<_>>() {
        admitted += call.await.unwrap();
    }
    assert_eq!((admitted, circuit.state()), (1, Closed));
    assert_eq!(circuit.stats().rejected_total, 99);
}

#[test]
fn half_open_admits_one_of_a_hundred_threads() {
    for _ in 0..20 {
        let circuit = without_intervals();
        fail(&circuit);
        let (start, end, admitted) = (Barrier::new(100), Barrier::new(100), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    start.wait();
                    let permit = circuit.permit();
                    admitted.fetch_add(u32::from(permit.is_ok()), Relaxed);
                    end.wait();
                    drop(permit);
                });
            }
        });
        assert_eq!(admitted.into_inner(), 1);
    }
}

#[test]
fn there_is_never_a_second_probe() {
    let circuit = without_intervals();
    fail(&circuit);
    let (under_way, probes, second) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..5_000 {
                    let Ok(probe) = circuit.permit() else { continue };
                    second.fetch_add(under_way.fetch_add(1, SeqCst), SeqCst);
                    probes.fetch_add(1, SeqCst);
                    thread::yield_now();
                    under_way.fetch_sub(1, SeqCst);
                    match round % 3 {
                        0 => probe.fault(),
                        1 => probe.neutral(),
                        _ => probe.open_for(Duration::ZERO),
                    }
                }
            });
        }
    });
    assert_eq!(second.into_inner(), 0);
    assert!(probes.into_inner() > 100, "there were probes, one after the other");
    assert_eq!(circuit.stats().transitions_total["closed"], 0);
}

// 2

#[tokio::test(start_paused = true)]
async fn a_late_success_from_before_it_opened_changes_nothing() {
    let circuit = circuit();
    let [early, during_open, during_half_open] = [(); 3].map(|()| circuit.permit().unwrap());
    fail(&circuit);
    during_open.success();
    assert_eq!(circuit.state(), Open);
    advance(BASE).await;
    let probe = circuit.permit().unwrap();
    during_half_open.success();
    assert_eq!(circuit.state(), HalfOpen);
    probe.fault();
    assert_eq!(circuit.state(), Open);
    advance(CAP).await;
    circuit.permit().unwrap().success();
    circuit.permit().unwrap().fault();
    circuit.permit().unwrap().fault();
    early.success();
    circuit.permit().unwrap().fault();
    assert_eq!(circuit.state(), Open, "nor does it end the run of faults of a later time");
}

#[tokio::test(start_paused = true)]
async fn a_late_fault_of_an_older_time_changes_nothing() {
    let circuit = circuit();
    let late = [(); 9].map(|()| circuit.permit().unwrap());
    let opening = circuit.permit().unwrap();
    fail(&circuit);
    advance(BASE).await;
    let probe = circuit.permit().unwrap();
    probe.success();
    late.into_iter().for_each(|permit| permit.fault());
    assert_eq!(circuit.state(), Closed);
    opening.open_for(CAP);
    assert_eq!(circuit.state(), Closed);
}

// 3

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_neutral() {
    let circuit = circuit();
    for _ in 0..10 {
        let call = async {
            let permit = circuit.permit().unwrap();
            sleep(CAP).await;
            permit.fault();
        };
        timeout(MOMENT, call).await.unwrap_err();
    }
    assert_eq!(circuit.state(), Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_is_given_back() {
    let circuit = circuit();
    fail(&circuit);
    advance(BASE).await;
    let probe = circuit.permit().unwrap();
    assert_eq!(circuit.state(), HalfOpen);
    refused(&circuit);
    drop(probe);
    assert_eq!(circuit.state(), Open);
    circuit.permit().expect("its interval is over").success();
    assert_eq!(circuit.state(), Closed);
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_inside_the_permit_counts() {
    let circuit = circuit();
    let mut calls = 0;
    for _ in 0..10 {
        let Ok(permit) = circuit.permit() else { continue };
        calls += 1;
        match timeout(MOMENT, sleep(CAP)).await {
            Ok(()) => permit.success(),
            Err(_) => permit.fault(),
        }
    }
    assert_eq!((circuit.state(), calls), (Open, 3), "ten calls that would have waited");
}

// 4

#[tokio::test(start_paused = true)]
async fn a_neutral_call_neither_ends_the_run_nor_closes() {
    let circuit = circuit();
    for _ in 0..3 {
        assert_eq!(circuit.state(), Closed);
        circuit.permit().unwrap().neutral();
        circuit.permit().unwrap().fault();
    }
    assert_eq!(circuit.state(), Open);
    advance(BASE).await;
    for _ in 0..10 {
        circuit.permit().unwrap().neutral();
        assert_eq!(circuit.state(), Open);
    }
    assert_eq!(circuit.stats().transitions_total["closed"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_the_run() {
    let circuit = circuit();
    for _ in 0..10 {
        circuit.permit().unwrap().fault();
        circuit.permit().unwrap().fault();
        circuit.permit().unwrap().success();
    }
    assert_eq!(circuit.state(), Closed);
}

// 5

#[tokio::test(start_paused = true)]
async fn asking_how_it_stands_changes_nothing() {
    let circuit = circuit();
    fail(&circuit);
    advance(CAP).await;
    let before = circuit.stats().transitions_total;
    for _ in 0..10 {
        assert_eq!((circuit.state(), circuit.is_forced()), (Open, false));
        assert_eq!((circuit.watch().state(), circuit.retry_after()), (Open, BASE));
        assert_eq!(circuit.stats().transitions_total, before);
        assert!(format!("{circuit:?}").contains("ledger"));
    }
    let probe = circuit.permit().unwrap();
    assert_eq!((circuit.state(), circuit.retry_after()), (HalfOpen, BASE));
    probe.success();
}

// 6

#[tokio::test(start_paused = true)]
async fn intervals_grow_from_a_quarter_of_a_second_to_half_a_minute_and_begin_anew_once_it_was_closed() {
    let circuit = circuit();
    for _ in 0..2 {
        fail(&circuit);
        let mut intervals = vec![refused(&circuit).as_millis()];
        for _ in 0..8 {
            advance(circuit.retry_after()).await;
            circuit.permit().expect("the interval is over").fault();
            intervals.push(refused(&circuit).as_millis());
        }
        assert_eq!(intervals, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        advance(CAP).await;
        circuit.permit().unwrap().success();
    }
}

#[tokio::test(start_paused = true)]
async fn no_interval_is_near_zero() {
    for _ in 0..1000 {
        let circuit = Circuit::new("ledger", CircuitConfig::default());
        fail(&circuit);
        let first = refused(&circuit);
        assert!((BASE / 2..=BASE).contains(&first), "{first:?}");
        advance(first).await;
        circuit.permit().unwrap().fault();
        let second = refused(&circuit);
        assert!((BASE..=2 * BASE).contains(&second), "{second:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_given_back_probe_does_not_lengthen_the_interval() {
    let circuit = circuit();
    fail(&circuit);
    advance(BASE).await;
    circuit.permit().unwrap().neutral();
    circuit.permit().unwrap().fault();
    assert_eq!(refused(&circuit), 2 * BASE);
}

// 7

/// Comes back when both have come as often as this one.
fn meet(arrivals: &AtomicU32, met: &mut u32) {
    *met += 2;
    arrivals.fetch_add(1, SeqCst);
    // Not a barrier of the system: two that are woken one after the other do not race.
    while arrivals.load(SeqCst) < *met {
        thread::yield_now();
    }
}

#[test]
fn the_last_state_that_a_watch_hears_is_the_state() {
    let circuit = without_intervals();
    let (watch, arrivals) = (circuit.watch(), AtomicU32::new(0));
    let (mut seen, mut wrong) = ([0; 3], 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut met = 0;
            for _ in 0..ROUNDS {
                meet(&arrivals, &mut met);
                circuit.force_open();
                meet(&arrivals, &mut met);
            }
        });
        let mut met = 0;
        for _ in 0..ROUNDS {
            meet(&arrivals, &mut met);
            circuit.reset();
            meet(&arrivals, &mut met);
            // The other waits for the next round, so nothing is asserted before it is gone.
            wrong += u32::from(watch.state() != circuit.state());
            seen[circuit.state() as usize] += 1;
        }
    });
    assert_eq!(wrong, 0, "rounds after which the watch had heard another state last");
    assert!(seen[Closed as usize] > 0 && seen[Open as usize] > 0, "rounds end in both states: {seen:?}");
}

/// Uses the circuit in the moment in which it is called.
struct Meddler(Arc<Circuit>);

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        self.0.reset();
        self.0.force_open();
        self.0.force_closed();
        self.0.reset();
    }
}

#[test]
fn a_watcher_may_use_the_circuit_while_it_is_told() {
    let (sender, done) = mpsc::channel();
    thread::spawn(move || {
        let circuit = Arc::new(circuit());
        let waker = Waker::from(Arc::new(Meddler(circuit.clone())));
        let mut watch = circuit.watch();
        let mut changed = std::pin::pin!(watch.changed());
        assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        circuit.permit().unwrap().open_for(CAP);
        sender.send((circuit.state(), circuit.watch().state())).unwrap();
    });
    assert_eq!(done.recv_timeout(PATIENCE), Ok((Closed, Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_watch_hears_each_change_in_order_and_the_end() {
    let circuit = Arc::new(circuit());
    let mut watch = circuit.watch();
    assert_eq!(watch.state(), Closed);
    timeout(CAP, watch.changed()).await.expect_err("nothing has changed yet");
    fail(&circuit);
    assert_eq!(watch.changed().await, Some(Open));
    advance(BASE).await;
    let probe = circuit.permit().unwrap();
    assert_eq!(watch.changed().await, Some(HalfOpen));
    probe.success();
    assert_eq!((watch.changed().await, watch.state()), (Some(Closed), Closed));
    let waiting = tokio::spawn(async move { watch.changed().await });
    tokio::task::yield_now().await;
    drop(circuit);
    assert_eq!(timeout(CAP, waiting).await.expect("it does not hang").unwrap(), None);
}

// 8

/// The name of the circuit whose events are written down.
const TOLD: &str = "told";

/// Writes the events of one circuit down, as `level field=value …`.
#[derive(Clone, Default)]
struct Scribe(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }
}

impl Subscriber for Scribe {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "spool_lock::circuit"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        if line.0.contains(&format!("circuit={TOLD:?}")) {
            self.0.lock().expect("nobody panics there").push(line.0);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn each_transition_is_an_event_with_name_target_and_delay() {
    let scribe = Scribe::default();
    // For all threads, and asked anew: whether anybody listens is remembered for each event by whichever thread comes to it first.
    tracing::subscriber::set_global_default(scribe.clone()).expect("there is no other");
    tracing::callsite::rebuild_interest_cache();
    let circuit = Circuit::new(TOLD, config());
    fail(&circuit);
    refused(&circuit);
    advance(BASE).await;
    circuit.permit().unwrap().fault();
    advance(2 * BASE).await;
    circuit.permit().unwrap().success();
    circuit.permit().unwrap().success();
    circuit.force_closed();
    circuit.force_closed();
    circuit.force_open();
    circuit.reset();
    circuit.reset();
    let told = |level: &str, from: &str, to: &str, forced: bool, retry_after: &str| {
        format!(
            "{level} circuit=\"{TOLD}\" from=\"{from}\" to=\"{to}\" forced={forced} retry_after={retry_after}"
        )
    };
    assert_eq!(
        *scribe.0.lock().unwrap(),
        [
            told("WARN", "closed", "open", false, "250ms"),
            told("INFO", "open", "half_open", false, "250ms"),
            told("WARN", "half_open", "open", false, "500ms"),
            told("INFO", "open", "half_open", false, "250ms"),
            told("INFO", "half_open", "closed", false, "0ns"),
            told("INFO", "closed", "closed", true, "0ns"),
            told("WARN", "closed", "open", true, "30s"),
            told("INFO", "open", "closed", false, "0ns"),
        ]
    );
}

// 9

#[tokio::test(start_paused = true)]
async fn its_clock_is_that_of_tokio() {
    let circuit = circuit();
    let began = SystemTime::now();
    fail(&circuit);
    advance(BASE - MOMENT).await;
    assert_eq!(refused(&circuit), MOMENT);
    advance(MOMENT).await;
    circuit.permit().unwrap().open_for(365 * 24 * 3600 * Duration::from_secs(1));
    advance(364 * 24 * 3600 * Duration::from_secs(1)).await;
    assert_eq!(refused(&circuit), 24 * 3600 * Duration::from_secs(1));
    assert!(began.elapsed().unwrap() < PATIENCE, "a year has passed in no time");
}

#[test]
fn it_works_outside_a_runtime() {
    let circuit = without_intervals();
    fail(&circuit);
    circuit.permit().unwrap().success();
    assert_eq!(circuit.state(), Closed);
}

// 10

#[tokio::test(start_paused = true)]
async fn every_refusal_says_when_to_come_back() {
    let circuit = circuit();
    assert_eq!(circuit.retry_after(), Duration::ZERO);
    fail(&circuit);
    for left in [250, 150, 1] {
        let left = Duration::from_millis(left);
        advance(refused(&circuit) - left).await;
        assert_eq!((refused(&circuit), circuit.retry_after()), (left, left));
    }
    advance(MOMENT).await;
    let probe = circuit.permit().unwrap();
    assert_eq!(refused(&circuit), BASE, "as long as a first interval while nobody knows");
    drop(probe);
    circuit.force_open();
    assert_eq!(refused(&circuit), CAP);
    let said = circuit.permit().unwrap_err().to_string();
    assert_eq!(said, "the circuit is open, ask again in 30s");
    assert!(matches!(circuit.permit(), Err(Rejected { retry_after: CAP, .. })));
}

// By hand

#[tokio::test(start_paused = true)]
async fn forced_open_refuses_whatever_is_reported() {
    let circuit = circuit();
    let before = circuit.permit().unwrap();
    circuit.force_open();
    assert_eq!((circuit.state(), circuit.is_forced()), (Open, true));
    before.success();
    for _ in 0..10 {
        advance(CAP).await;
        assert_eq!(refused(&circuit), CAP);
    }
    circuit.reset();
    assert_eq!((circuit.state(), circuit.is_forced()), (Closed, false));
    fail(&circuit);
    assert_eq!(refused(&circuit), BASE);
}

#[tokio::test(start_paused = true)]
async fn forced_closed_admits_whatever_is_reported() {
    let circuit = circuit();
    fail(&circuit);
    circuit.force_closed();
    assert_eq!((circuit.state(), circuit.is_forced()), (Closed, true));
    for _ in 0..10 {
        circuit.permit().unwrap().fault();
        circuit.permit().unwrap().open_for(CAP);
    }
    let [begun_when_forced, another] = [(); 2].map(|()| circuit.permit().unwrap());
    assert_eq!((circuit.state(), circuit.is_forced()), (Closed, true));
    circuit.reset();
    assert!(!circuit.is_forced());
    begun_when_forced.open_for(CAP);
    another.fault();
    circuit.permit().unwrap().fault();
    circuit.permit().unwrap().fault();
    assert_eq!(circuit.state(), Closed, "what was reported before the reset does not count");
    circuit.permit().unwrap().fault();
    assert_eq!(circuit.state(), Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_under_way_cannot_undo_what_is_done_by_hand() {
    let reports: [fn(Permit<'_>); 3] =
        [|probe| probe.success(), |probe| probe.fault(), |probe| probe.neutral()];
    for undo in [Circuit::force_open, Circuit::force_closed, Circuit::reset] {
        for report in reports {
            let circuit = circuit();
            fail(&circuit);
            advance(BASE).await;
            let probe = circuit.permit().unwrap();
            undo(&circuit);
            let (state, is_forced) = (circuit.state(), circuit.is_forced());
            report(probe);
            assert_eq!((circuit.state(), circuit.is_forced()), (state, is_forced));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_forgets_the_run_and_the_growth() {
    let circuit = circuit();
    circuit.permit().unwrap().fault();
    circuit.permit().unwrap().fault();
    circuit.reset();
    circuit.permit().unwrap().fault();
    circuit.permit().unwrap().fault();
    assert_eq!(circuit.state(), Closed);
    circuit.permit().unwrap().fault();
    advance(BASE).await;
    circuit.permit().unwrap().fault();
    assert_eq!(refused(&circuit), 2 * BASE);
    circuit.reset();
    fail(&circuit);
    assert_eq!(refused(&circuit), BASE);
}

// Trips

#[tokio::test(start_paused = true)]
async fn a_probe_that_says_so_opens_at_once_for_exactly_so_long_and_again() {
    let circuit = circuit();
    circuit.permit().unwrap().open_for(CAP);
    for _ in 0..3 {
        assert_eq!((circuit.state(), refused(&circuit)), (Open, CAP));
        advance(CAP - MOMENT).await;
        assert_eq!(refused(&circuit), MOMENT);
        advance(MOMENT).await;
        circuit.permit().unwrap().open_for(CAP);
    }
    advance(CAP).await;
    circuit.permit().unwrap().fault();
    assert_eq!(refused(&circuit), BASE, "the intervals have not grown by it");
    advance(BASE).await;
    circuit.permit().unwrap().success();
    assert_eq!(circuit.state(), Closed);
}

#[tokio::test(start_paused = true)]
async fn no_duration_is_too_long() {
    let mut config = config();
    config.open = Schedule::new(Duration::MAX, Duration::MAX);
    let circuit = Circuit::new("ledger", config);
    circuit.permit().unwrap().open_for(Duration::MAX);
    let year = 365 * 24 * 3600 * Duration::from_secs(1);
    assert_eq!(refused(&circuit), year);
    circuit.force_open();
    assert_eq!(refused(&circuit), year);
    circuit.reset();
    fail(&circuit);
    assert!(refused(&circuit) <= year);
}

// Numbers

#[tokio::test(start_paused = true)]
async fn numbers_are_of_all_that_happened() {
    let circuit = circuit();
    let stats = circuit.stats();
    assert_eq!((stats.state, stats.forced, stats.rejected_total), (Closed, false, 0));
    assert_eq!((stats.last_transition, stats.open_seconds_total), (None, 0.0));
    assert!(CircuitState::ALL.iter().all(|state| stats.transitions_total[state.as_str()] == 0));

    let began = SystemTime::now();
    fail(&circuit);
    refused(&circuit);
    advance(BASE).await;
    let probe = circuit.permit().unwrap();
    refused(&circuit);
    advance(BASE).await;
    assert_eq!(circuit.stats().open_seconds_total, 0.5, "also while it is open");
    probe.success();
    advance(CAP).await;
    circuit.force_open();
    circuit.force_open();
    advance(CAP).await;
    circuit.force_closed();
    advance(CAP).await;

    let stats = circuit.stats();
    assert_eq!((stats.state, stats.forced, stats.rejected_total), (Closed, true, 2));
    let counts: Vec<_> = stats.transitions_total.into_iter().collect();
    assert_eq!(counts, [("closed".to_owned(), 2), ("half_open".to_owned(), 1), ("open".to_owned(), 2)]);
    assert_eq!(stats.open_seconds_total, 30.5);
    assert!(stats.last_transition.unwrap() >= began);
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn numbers_are_read_back_as_they_were_written() {
    let circuit = circuit();
    let written = serde_json::to_value(circuit.stats()).unwrap();
    assert_eq!(
        (&written["state"], &written["last_transition"]),
        (&"closed".into(), &serde_json::Value::Null)
    );
    assert_eq!(serde_json::from_value::<spool_lock::CircuitStats>(written).unwrap(), circuit.stats());
    fail(&circuit);
    let written = serde_json::to_value(circuit.stats()).unwrap();
    assert!(written["last_transition"].as_str().unwrap().ends_with('Z'), "{written}");
    for state in CircuitState::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    let read: spool_lock::CircuitStats = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), written);
}

#[cfg(feature = "backoff")]
#[test]
fn the_schedule_of_the_backoff_crate_opens_a_circuit() {
    let settings = backoff::ExponentialBackoff { randomization_factor: 0.0, ..Default::default() };
    let mut config = CircuitConfig::default();
    config.open = spool_lock::compat::backoff0_4::schedule(&settings);
    let delays: Vec<_> = config.open.delays().take(3).map(|delay| delay.as_millis()).collect();
    assert_eq!(delays, [500, 750, 1125]);
}

/// A service that guards its ledger, an outage of it, and what its users see.
#[tokio::test(start_paused = true)]
async fn an_outage_costs_three_calls_and_a_probe_each_interval() {
    let (circuit, began) = (circuit(), Instant::now());
    let (mut calls, mut refusals) = (0, 0);
    let outcomes =
        iter::from_fn(|| Some(if began.elapsed() < CAP { Err(ErrorKind::TimedOut) } else { Ok(()) }));
    for outcome in outcomes.take(4_000) {
        match circuit.permit() {
            Ok(permit) => {
                calls += u32::from(outcome.is_err());
                if outcome.is_ok() { permit.success() } else { permit.fault() }
            }
            Err(_) => refusals += 1,
        }
        advance(10 * MOMENT).await;
    }
    // The probes after 0.25, 0.75, 1.75, 3.75, 7.75 and 15.75 s find it ill, that after 31.75 s well.
    assert_eq!((calls, circuit.state()), (3 + 6, Closed));
    assert!((3_100..3_200).contains(&refusals), "{refusals}");
}
