//! Redis is away for 8 s: killed, stopped, out of reach or refusing.
//!
//! Three services work at it, each over a network of its own: one that has traffic, one that has traffic and asks how it stands,
//! and one that does nothing but ask. All timeouts are the defaults.

use std::{collections::HashMap, pin::Pin, time::Duration};

use futures_util::FutureExt as _;
use spool_lock::{
    AcquireError, CircuitState, Config, HealthStatus, Mode, Occupant, ReadError, ReadFallback, Reading,
    Source, SpoolLocks, Tag, Ttl,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    outage::Outage,
    report::{self, Row},
    service::{Call, Checkup, Interval, Log, Service, Told, Want, holder, seen_tag, tag},
    support::{FaultProxy, RedisServer, eventually},
};

const LASTS: Duration = Duration::from_secs(8);
const WARM_UP: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(5);
/// How long health may still say that all is well, and how long it may go on saying that it is not.
const TRUTH_AFTER: Duration = Duration::from_secs(3);
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
const OVERDUE: Duration = Duration::from_millis(250);
/// What the open interval does not explain.
const SLACK: Duration = Duration::from_secs(1);
const DIALS_PER_SECOND: usize = 4;

const MUST: &str = "after three faults a call is refused in its first poll and nothing is sent; no call outlives its deadline by more \
    than 250 ms; the first success comes within the open interval + 1 s after the end; at most 4 dials in any second; health \
    tells it within 3 s and has recovered within 5 s, with traffic and without";

/// What was seen of an outage.
struct Seen {
    began: Instant,
    /// Redis was away until then, and was there again at the end.
    over: Instant,
    ended: Instant,
    /// The open interval of the service with traffic that was in force at the end.
    interval: Duration,
    unsent: usize,
}

/// Three services at one Redis.
struct Scene {
    server: RedisServer,
    /// Has traffic.
    busy: Service,
    /// Has traffic and asks for its health.
    asking: Service,
    /// Only asks for its health.
    idle: Service,
}

impl Scene {
    async fn set() -> Self {
        let server = RedisServer::start();
        let stranger = SpoolLocks::connect(Config::new(&server.url()).expect("an address")).await;
        let stranger = stranger.expect("healthy");
        stranger.acquire(&seen_tag(), &holder("robot-7")).ttl(Ttl::HOUR).await.expect("it is free");
        let mut busy = Service::open("BUSY", &server).await;
        let mut asking = Service::open("ASKING", &server).await;
        let mut idle = Service::open("IDLE", &server).await;
        busy.works();
        asking.works();
        asking.asks_health();
        idle.asks_health();
        Self { server, busy, asking, idle }
    }

    fn services(&self) -> [&Service; 3] {
        [&self.busy, &self.asking, &self.idle]
    }

    fn networks(&self) -> [&FaultProxy; 3] {
        self.services().map(|service| &service.network)
    }

    /// Has the outage, and waits until all services have recovered.
    async fn suffer(&self, outage: Outage) -> Seen {
        sleep(WARM_UP).await;
        let is_well =
            |call: &Call| matches!(call.told, Told::Done | Told::Reading { source: Source::Live, .. });
        assert!(self.busy.log().calls.iter().all(is_well));

        let began = Instant::now();
        outage.begin(&self.server, &self.networks());
        // By then every call has been answered that was under way when the circuit opened.
        sleep_until(began + TRUTH_AFTER).await;
        let (probes, scripts) = (self.busy.probes(), self.busy.network.requests("EVALSHA"));
        let unsent = self.is_refused_unsent().await;
        for service in self.services() {
            let told = service.log().modes.last().map(|(mode, _)| *mode);
            assert_eq!((service.locks.mode(), told), (Mode::Unreachable, Some(Mode::Unreachable)));
        }
        sleep_until(began + LASTS).await;
        let (probes, scripts) =
            (self.busy.probes() - probes, self.busy.network.requests("EVALSHA") - scripts);
        assert!(scripts <= probes, "{scripts} scripts were sent, for {probes} probes");

        // A probe that is due or under way may still meet the fault: then the interval after it is in force.
        let is_probing = self.busy.locks.link_circuit().state() == CircuitState::HalfOpen;
        let in_force_by = Instant::now() + if is_probing { SLACK } else { Duration::from_millis(50) };
        let over = Instant::now();
        outage.end(&self.server, &self.networks());
        let ended = Instant::now();
        eventually(LASTS + 2 * SLACK, async || first_success(&self.busy.log(), over)).await;
        for service in [&self.asking, &self.idle] {
            eventually(HEALTHY_AFTER, async || healthy_at(&service.log(), over)).await;
        }
        for service in self.services() {
            eventually(SOON, async || match service.log().modes.last() {
                Some((Mode::Normal, _)) if service.locks.mode() == Mode::Normal => Ok(()),
                told => Err(format!("{told:?}, and now {:?}", service.locks.mode())),
            })
            .await;
        }
        let log = self.busy.log();
        let in_force = |interval: &&Interval| interval.began <= in_force_by;
        let interval = log.intervals.iter().rev().find(in_force).expect("the circuit was open").lasts;
        Seen { began, over, ended, interval, unsent }
    }

    /// The calls of a while in which nothing is probed: all are refused in their first poll, and nothing comes to the network. Answers
    /// how many that were.
    async fn is_refused_unsent(&self) -> usize {
        const CALLS: usize = 100;
        let Service { network, locks, .. } = &self.busy;
        for _ in 0..100 {
            let before = (self.busy.probes(), network.connections_opened());
            // What a new connection sends comes after it was counted.
            sleep(Duration::from_millis(50)).await;
            if locks.link_circuit().state() != CircuitState::Open
                || (self.busy.probes(), network.connections_opened()) != before
            {
                continue;
            }
            let requests = self.busy.requests();
            for number in 0..CALLS {
                let (tag, holder) = (tag(&format!("REFUSED-{number}")), holder("93"));
                let acquired = locks.acquire(&tag, &holder).into_future().now_or_never();
                assert!(matches!(acquired, Some(Err(AcquireError::Unavailable { .. }))), "{acquired:?}");
                let looked = locks.inspect(&tag).now_or_never();
                assert!(matches!(looked, Some(Err(ReadError::Unavailable { .. }))), "{looked:?}");
            }
            // What had been sent would have come by then.
            sleep(Duration::from_millis(50)).await;
            if (self.busy.probes(), network.connections_opened()) == before {
                assert_eq!(self.busy.requests(), requests, "something was sent");
                return 2 * CALLS;
            }
        }
        panic!("never 50 ms without a probe");
    }
}

const LIVE: Told = Told::Reading { is_held: true, source: Source::Live, age: Duration::ZERO };

/// When the first acquire had succeeded that was made after this.
fn first_success(log: &Log, after: Instant) -> Option<Instant> {
    let acquired =
        |call: &&Call| call.want == Want::Acquire && call.told == Told::Done && call.began >= after;
    log.calls.iter().filter(acquired).map(|call| call.ended).min()
}

/// When health first said that all is well, asked after this.
fn healthy_at(log: &Log, after: Instant) -> Option<Instant> {
    let healthy = |check: &&Checkup| check.status == HealthStatus::Healthy && check.asked >= after;
    log.checkups.iter().find(healthy).map(|check| check.answered)
}

impl Seen {
    /// What callers were told while the link was open or half open. Answers how many calls that were.
    fn refusals_are_at_once_and_honest(&self, log: &Log) -> usize {
        let refused: Vec<_> = log.calls.iter().filter(|call| call.is_link_open).collect();
        for call in &refused {
            assert!(call.is_at_once, "{call:?}");
            match (call.want, call.told) {
                (Want::Acquire | Want::Unseen, Told::Refused { mode, retry_after }) => {
                    assert_eq!(mode, Mode::Unreachable);
                    assert!(!retry_after.is_zero() && retry_after <= Duration::from_secs(30), "{call:?}");
                }
                (Want::Seen, Told::Reading { is_held: true, source: Source::Snapshot, .. }) => {}
                // It passes an open circuit, and was not granted at once: nobody has a lock then.
                other => panic!("{other:?} in {call:?}"),
            }
        }
        refused.len()
    }

    /// What is known is said with its age; what is not is never called free. Answers the oldest age.
    fn reads_are_truthful(&self, log: &Log) -> Duration {
        let looks = |want| log.calls.iter().filter(move |call| call.want == want);
        let is_live = |call: &&Call| call.told == LIVE && call.ended < self.over;
        let last_live =
            looks(Want::Seen).filter(is_live).max_by_key(|call| call.began).expect("one at least");
        let mut oldest = Duration::ZERO;
        for call in looks(Want::Seen).filter(|call| call.ended < self.over) {
            let Told::Reading { is_held: true, source, age } = call.told else { panic!("{call:?}") };
            if source == Source::Snapshot {
                let known_at = call.ended - age;
                let (from, until) = (last_live.began - Duration::from_millis(5), last_live.ended);
                assert!((from..=until + OVERDUE).contains(&known_at), "{call:?}, and before {last_live:?}");
                oldest = oldest.max(age);
            }
        }
        for call in looks(Want::Unseen) {
            assert!(!matches!(call.told, Told::Reading { source: Source::Snapshot, .. }), "{call:?}");
        }
        oldest
    }

    /// The busiest second of a network while Redis was away.
    fn peak_dials(&self, network: &FaultProxy) -> usize {
        let mut dials = network.dials();
        dials.retain(|at| (self.began..self.over).contains(at));
        let second = |from: &Instant| {
            dials.iter().filter(|at| (*from..*from + Duration::from_secs(1)).contains(at)).count()
        };
        dials.iter().map(second).max().unwrap_or(0)
    }

    /// When it was first told, and when all was well again.
    fn health_is_truthful(&self, log: &Log) -> (Duration, Duration) {
        let told = log
            .checkups
            .iter()
            .find(|check| check.answered > self.began && check.status != HealthStatus::Healthy);
        let told = told.expect("it was told").answered - self.began;
        assert!(told <= TRUTH_AFTER, "told after {told:?}");
        for check in &log.checkups {
            if check.asked >= self.began + TRUTH_AFTER && check.answered < self.over {
                assert_ne!(check.status, HealthStatus::Healthy, "{check:?}");
                assert_eq!(check.mode, Mode::Unreachable, "{check:?}");
            }
        }
        let well = healthy_at(log, self.began + told).expect("it has recovered");
        let well = well.saturating_duration_since(self.ended);
        assert!(well <= HEALTHY_AFTER, "healthy after {well:?}");
        (told, well)
    }
}

/// One row of the table.
async fn is_borne(outage: Outage, row: &str, fault: &str) {
    let scene = Scene::set().await;
    let seen = scene.suffer(outage).await;
    let logs = scene.services().map(Service::log);
    let [busy, asking, idle] = &logs;

    let refused = seen.refusals_are_at_once_and_honest(busy);
    assert!(refused > 100, "{refused} calls were refused");
    let first_refusal = busy.calls.iter().filter(|call| matches!(call.told, Told::Refused { .. }));
    let first_refusal = first_refusal.map(|call| call.ended).min().expect("many were refused") - seen.began;
    assert!(first_refusal <= TRUTH_AFTER, "refused after {first_refusal:?}");
    let overdue = |call: &Call| call.took().saturating_sub(call.deadline);
    let calls = || busy.calls.iter().chain(&asking.calls);
    let latest = calls().max_by_key(|call| overdue(call)).expect("many were made");
    assert!(overdue(latest) <= OVERDUE, "{latest:?}");
    let longest = calls().map(Call::took).max().unwrap_or_default();
    let first_success = first_success(busy, seen.began + first_refusal).expect("it has recovered");
    let first_success = first_success.saturating_duration_since(seen.ended);
    assert!(first_success <= seen.interval + SLACK, "{first_success:?}, interval {:?}", seen.interval);
    let oldest = seen.reads_are_truthful(busy);
    let dials = scene.networks().map(|network| seen.peak_dials(network));
    assert!(dials.iter().all(|dials| *dials <= DIALS_PER_SECOND), "{dials:?} dials in a second");
    let (told, well) = seen.health_is_truthful(asking);
    let (told_idle, well_idle) = seen.health_is_truthful(idle);

    report::row(Row {
        row,
        fault,
        must: MUST,
        timeouts: "the defaults: deadline 5 s, connect 5 s, response 5 s",
        measured: &[
            ("refused after", format!("{first_refusal:.1?}")),
            ("refused in the first poll", format!("{refused} of {refused}, {} unsent", seen.unsent)),
            ("longest call", format!("{longest:.1?}")),
            ("first success", format!("{first_success:.1?} after the end, interval {:.1?}", seen.interval)),
            ("dials in a second", format!("{}", dials.iter().max().unwrap_or(&0))),
            ("health told", format!("after {told:.1?}, without traffic {told_idle:.1?}")),
            ("healthy", format!("after {well:.1?}, without traffic {well_idle:.1?}")),
            ("oldest snapshot", format!("{oldest:.1?}")),
        ],
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed() {
    is_borne(Outage::Killed, "dead::killed", "kill -9, back after 8 s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped() {
    is_borne(Outage::Stopped, "dead::stopped", "SIGSTOP for 8 s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blackhole() {
    is_borne(Outage::Blackhole, "dead::blackhole", "nothing passes for 8 s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused() {
    is_borne(Outage::Refused, "dead::refused", "connections are cut and refused for 8 s").await;
}

/// Redis is tried three times, and then no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_faults_and_the_fourth_call_is_refused_in_its_first_poll() {
    for outage in Outage::ALL {
        let server = RedisServer::start();
        let network = FaultProxy::before(&server);
        let mut config = Config::new(&network.url()).expect("an address");
        config.deadline = Duration::from_millis(300);
        config.retry.attempts = 1;
        let locks = SpoolLocks::connect(config).await.expect("healthy");
        outage.begin(&server, &[&network]);
        for fault in 1..=3 {
            assert_eq!(locks.mode(), Mode::Normal, "{outage:?}, fault {fault}");
            let looked = locks.inspect(&tag("UNSEEN-01")).await;
            assert!(matches!(looked, Err(ReadError::Fault(_))), "{outage:?}, fault {fault}: {looked:?}");
        }
        assert_eq!(locks.mode(), Mode::Unreachable, "{outage:?}");
        let looked = locks.inspect(&tag("UNSEEN-01")).now_or_never();
        let Some(Err(ReadError::Unavailable { mode, retry_after, fault })) = looked else {
            panic!("{outage:?}: {looked:?}")
        };
        assert_eq!((mode, fault.retry_after()), (Mode::Unreachable, Some(retry_after)), "{outage:?}");
        outage.end(&server, &[&network]);
    }
}

/// What is too old is not answered; whoever may know better is asked then.
#[tokio::test]
async fn a_snapshot_is_answered_up_to_its_age_and_then_the_fallback_is_asked() {
    struct Ledger(HashMap<Tag, Occupant>);
    impl ReadFallback for Ledger {
        fn inspect<'a>(
            &'a self,
            tag: &'a Tag,
        ) -> Pin<Box<dyn Future<Output = Option<Reading<Option<Occupant>>>> + Send + 'a>> {
            let row = self.0.get(tag).cloned();
            Box::pin(async { row.map(|row| Reading::from_fallback(Some(row), Duration::from_secs(7))) })
        }

        fn list(&self) -> Pin<Box<dyn Future<Output = Option<Reading<Vec<Occupant>>>> + Send + '_>> {
            Box::pin(async { None })
        }
    }

    const AGE: Duration = Duration::from_secs(1);
    let server = RedisServer::start();
    let network = FaultProxy::before(&server);
    let config = || {
        let mut config = Config::new(&network.url()).expect("an address");
        config.snapshot_max_age = AGE;
        config
    };
    let (seen, unseen) = (tag("SEEN-02"), tag("UNSEEN-02"));
    let plain = SpoolLocks::connect(config()).await.expect("healthy");
    let lease = plain.acquire(&seen, &holder("93")).await.expect("it is free");
    let ledger = Ledger([(seen.clone(), lease.into())].into());
    let with_ledger = SpoolLocks::connect(config()).read_fallback(ledger).await.expect("healthy");
    for locks in [&plain, &with_ledger] {
        assert!(locks.inspect(&seen).await.expect("healthy").value.is_some());
    }
    let known_since = Instant::now();

    Outage::Refused.begin(&server, &[&network]);
    for locks in [&plain, &with_ledger] {
        let reading = locks.inspect(&seen).await.expect("it is known");
        assert_eq!((reading.source, reading.value.is_some()), (Source::Snapshot, true));
        assert!(reading.age <= AGE, "{reading:?}");
        eventually(SOON, async || locks.mode() == Mode::Unreachable).await;
    }
    sleep_until(known_since + AGE + Duration::from_millis(10)).await;
    let looked = plain.inspect(&seen).await;
    assert!(matches!(looked, Err(ReadError::Unavailable { .. })), "{looked:?}");
    let reading = with_ledger.inspect(&seen).await.expect("the ledger knows");
    assert_eq!((reading.source, reading.age), (Source::Fallback, Duration::from_secs(7)));
    assert_eq!(reading.value.expect("held").holder, holder("93"));
    for locks in [&plain, &with_ledger] {
        let looked = locks.inspect(&unseen).await;
        assert!(matches!(looked, Err(ReadError::Unavailable { .. })), "{looked:?}");
        let listed = locks.list().await;
        assert!(matches!(listed, Err(ReadError::Unavailable { .. })), "nothing was listed: {listed:?}");
    }
}
