//! How a lock stands at each moment. Nothing here waits: what time it is, the tests say.

use std::{collections::BTreeMap, sync::Arc, time::UNIX_EPOCH};

use proptest::prelude::*;
use tokio::time::{advance, sleep_until};

use super::*;
use crate::{Fence, Holder, LeaseKind, Tag, Token};

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);
const DAYS_30: Duration = Duration::from_secs(30 * 24 * 3600);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn ttl(duration: Duration) -> Ttl {
    Ttl::new(duration).unwrap()
}

fn grant(asked: Instant, lasts: Duration) -> Grant {
    let lease = Lease {
        tag: Tag::new("TEST-02").unwrap(),
        holder: Holder::new("robot-7", "").unwrap(),
        kind: LeaseKind::Guard,
        token: Some(Token::random()),
        fence: Fence::new(5).unwrap(),
        since: UNIX_EPOCH,
        expires_at: UNIX_EPOCH + lasts,
        note: String::new(),
    };
    Grant::new(lease, asked, lasts)
}

/// Asked for at `asked`, with a warning from half of the ttl on, renewed each third of it, for an hour.
pub(crate) fn held(asked: Instant, lasts: Duration) -> Held {
    let terms =
        Terms { ttl: ttl(lasts), margin: lasts / 2, renew_every: lasts / 3, ends: asked + 3600 * SECOND };
    Held::new(grant(asked, lasts), terms, asked + lasts / 3)
}

/// 30 s, of which 17 ms are for the drift; a warning with 10 s left.
fn half_a_minute(asked: Instant) -> Held {
    let mut held = held(asked, 30 * SECOND);
    held.terms.margin = 10 * SECOND;
    held
}

/// How long that is safe.
const SAFE: Duration = Duration::from_millis(29_983);

/// A lock ends 500 ppm and 2 ms before its ttl does; the numbers were computed by hand.
#[test]
fn drift_is_500_ppm_and_2_ms() {
    for (lasts, lost) in [
        (millis(1), Duration::from_nanos(2_000_500)),
        (millis(600), Duration::from_micros(2_300)),
        (30 * SECOND, millis(17)),
        (3600 * SECOND, millis(1_802)),
        (DAYS_30, millis(1_296_002)),
    ] {
        assert_eq!(drift(lasts), lost, "{lasts:?}");
    }
}

#[test]
fn state_is_a_function_of_the_time() {
    let start = Instant::now();
    let held = half_a_minute(start);
    let of = |at: Duration| held.state(start + at);
    let lost = GuardState::Lost { reason: LostReason::Deadline };
    assert_eq!(of(Duration::ZERO), GuardState::Held { safe_for: SAFE });
    let warned = SAFE - 10 * SECOND;
    assert_eq!(of(warned - NANOSECOND), GuardState::Held { safe_for: 10 * SECOND + NANOSECOND });
    assert_eq!(of(warned), GuardState::Jeopardy { safe_for: 10 * SECOND });
    assert_eq!(of(SAFE - NANOSECOND), GuardState::Jeopardy { safe_for: NANOSECOND });
    assert_eq!((of(SAFE), of(30 * SECOND), of(DAYS_30)), (lost, lost, lost));
    assert_eq!(held.safe_until(start), Ok(start + SAFE), "and to look changes nothing");
}

#[test]
fn with_no_margin_there_is_no_warning() {
    let start = Instant::now();
    let mut held = half_a_minute(start);
    held.terms.margin = Duration::ZERO;
    assert_eq!(held.state(start + SAFE - NANOSECOND), GuardState::Held { safe_for: NANOSECOND });
}

#[test]
fn a_ttl_below_the_drift_is_never_safe() {
    let start = Instant::now();
    let held = held(start, millis(2));
    assert_eq!(held.state(start), GuardState::Lost { reason: LostReason::Deadline });
    assert_eq!(held.next_ttl(start), None);
}

#[test]
fn a_renewal_counts_from_when_it_was_asked_for() {
    let start = Instant::now();
    let held = half_a_minute(start);
    held.renewed(start + 10 * SECOND, ttl(30 * SECOND), || start + 12 * SECOND);
    assert_eq!(held.safe_until(start + 12 * SECOND), Ok(start + 10 * SECOND + SAFE));
}

#[test]
fn no_renewal_makes_it_shorter() {
    let start = Instant::now();
    let held = half_a_minute(start);
    held.renewed(start + 10 * SECOND, ttl(SECOND), || start + 10 * SECOND);
    assert_eq!(held.safe_until(start), Ok(start + SAFE), "one of a shorter ttl");
    held.renewed(start + 9 * SECOND, ttl(30 * SECOND), || start + 11 * SECOND);
    held.renewed(start + 3 * SECOND, ttl(30 * SECOND), || start + 12 * SECOND);
    assert_eq!(held.safe_until(start), Ok(start + 9 * SECOND + SAFE), "one that was overtaken");
}

#[test]
fn a_renewal_that_comes_too_late_brings_nothing_back() {
    let start = Instant::now();
    for (late, safe_until) in
        [(SAFE - NANOSECOND, Ok(start + 29 * SECOND + SAFE)), (SAFE, Err(Over::Lost(LostReason::Deadline)))]
    {
        let held = half_a_minute(start);
        held.renewed(start + 29 * SECOND, ttl(30 * SECOND), || start + late);
        assert_eq!(held.safe_until(start + SAFE), safe_until);
    }
    for over in [Over::Lost(LostReason::Forced), Over::GivenBack] {
        let held = half_a_minute(start);
        match over {
            Over::Lost(reason) => drop(held.lose(reason, || start)),
            Over::GivenBack => held.give_back(|| start).unwrap(),
        }
        held.renewed(start, ttl(30 * SECOND), || start + SECOND);
        assert_eq!(held.safe_until(start + SECOND), Err(over));
    }
}

#[test]
fn it_is_lost_once_and_the_first_reason_stands() {
    let start = Instant::now();
    let (stolen, forced) = (LostReason::Stolen, LostReason::Forced);
    let held = half_a_minute(start);
    assert_eq!(held.lose(forced, || start + SECOND), Ok(forced));
    assert_eq!(held.lose(stolen, || start + SECOND), Err(Over::Lost(forced)));
    assert_eq!(held.give_back(|| start + SECOND), Err(Over::Lost(forced)));
    assert_eq!(held.state(start + DAYS_30), GuardState::Lost { reason: forced });
}

/// Whoever looked in between was told that its time was over.
#[test]
fn what_is_heard_of_it_after_its_time_is_no_other_reason() {
    let start = Instant::now();
    let held = half_a_minute(start);
    assert_eq!(held.give_back(|| start + SAFE), Err(Over::Lost(LostReason::Deadline)));
    assert_eq!(held.lose(LostReason::Stolen, || start + SAFE), Ok(LostReason::Deadline));
    assert_eq!(held.lose(LostReason::Stolen, || start + SAFE), Err(Over::Lost(LostReason::Deadline)));
}

#[test]
fn it_is_given_back_once_and_not_lost_then() {
    let start = Instant::now();
    let held = half_a_minute(start);
    assert_eq!(held.give_back(|| start + SAFE - NANOSECOND), Ok(()));
    assert_eq!(held.give_back(|| start), Err(Over::GivenBack));
    assert_eq!(held.lose(LostReason::Forced, || start), Err(Over::GivenBack));
    assert_eq!(held.state(start + DAYS_30), GuardState::Released);
    assert_eq!(held.next_ttl(start + 20 * SECOND), None, "nor is it renewed");
}

#[test]
fn cancellation_fires_whenever_it_was_asked_for() {
    let start = Instant::now();
    let end = |held: &Held, way| match way {
        0 => held.give_back(|| start + SECOND).unwrap(),
        1 => drop(held.lose(LostReason::Forced, || start + SECOND).unwrap()),
        _ => drop(held.lose(LostReason::Deadline, || start + SAFE).unwrap()),
    };
    for way in 0..3 {
        let held = half_a_minute(start);
        let before = held.cancellation(start).clone();
        assert!(!before.is_cancelled());
        end(&held, way);
        assert!(before.is_cancelled(), "before, way {way}");

        let held = half_a_minute(start);
        end(&held, way);
        assert!(held.cancellation(start + SECOND).is_cancelled(), "after, way {way}");
    }
    let held = half_a_minute(start);
    assert!(!held.cancellation(start + SAFE - NANOSECOND).is_cancelled());
    assert!(held.cancellation(start + SAFE).is_cancelled(), "by the time alone");
}

/// What a watch is told, and how many ms after the start.
async fn told(held: &Arc<Held>, start: Instant) -> Vec<(u128, &'static str)> {
    let mut watch = GuardWatch::new(held.clone());
    let mut told = Vec::new();
    while let Some(state) = watch.next().await {
        let word = match state {
            GuardState::Held { .. } => "held",
            GuardState::Jeopardy { .. } => "jeopardy",
            GuardState::Lost { reason } => reason.as_str(),
            GuardState::Released => "released",
        };
        told.push((start.elapsed().as_millis(), word));
    }
    told
}

#[tokio::test(start_paused = true)]
async fn who_watches_is_told_at_the_moment_without_any_keeper() {
    let start = Instant::now();
    let held = Arc::new(half_a_minute(start));
    assert_eq!(told(&held, start).await, [(0, "held"), (19_983, "jeopardy"), (29_983, "deadline")]);
    assert_eq!(told(&held, start).await, [(29_983, "deadline")], "and later, how it ended");
}

#[tokio::test(start_paused = true)]
async fn who_watches_is_told_of_a_renewal_only_where_there_was_danger() {
    let start = Instant::now();
    let held = Arc::new(half_a_minute(start));
    let at = |second| start + second * SECOND;
    let script = async {
        for (asked, answered) in [(10, 11), (38, 39)] {
            sleep_until(at(answered)).await;
            held.renewed(at(asked), ttl(30 * SECOND), || at(answered));
        }
        sleep_until(at(59)).await;
        held.lose(LostReason::Forced, || at(59)).unwrap();
    };
    let (told, ()) = tokio::join!(told(&held, start), script);
    let right =
        [(0, "held"), (29_983, "jeopardy"), (39_000, "held"), (57_983, "jeopardy"), (59_000, "forced")];
    assert_eq!(told, right);
}

#[tokio::test(start_paused = true)]
async fn who_watches_is_told_at_once_that_it_was_given_back() {
    let start = Instant::now();
    let held = Arc::new(half_a_minute(start));
    let script = async {
        sleep_until(start + 3 * SECOND).await;
        held.give_back(|| start + 3 * SECOND).unwrap();
    };
    let (told, ()) = tokio::join!(told(&held, start), script);
    assert_eq!(told, [(0, "held"), (3_000, "released")]);
}

/// As after a suspension: what was in between is told to nobody.
#[tokio::test(start_paused = true)]
async fn who_watches_hears_of_a_long_gap_as_it_ended() {
    let start = Instant::now();
    let held = Arc::new(half_a_minute(start));
    let mut watch = GuardWatch::new(held.clone());
    assert!(matches!(watch.next().await, Some(GuardState::Held { .. })));
    advance(DAYS_30).await;
    assert_eq!(watch.next().await, Some(GuardState::Lost { reason: LostReason::Deadline }));
    assert_eq!(watch.next().await, None);
}

#[test]
fn a_renewal_asks_for_the_ttl_and_for_no_more_than_its_longest_hold() {
    let start = Instant::now();
    let mut held = half_a_minute(start);
    held.terms.ends = start + 100 * SECOND + Duration::from_micros(1500);
    let next = |after| held.next_ttl(start + after).map(Ttl::duration);
    assert_eq!(next(Duration::ZERO), None, "it lasts as long already");
    assert_eq!(next(millis(1)), Some(30 * SECOND));

    for second in [25, 50, 70] {
        held.renewed(start + second * SECOND, ttl(30 * SECOND), || start + second * SECOND);
    }
    assert_eq!(next(80 * SECOND), Some(20 * SECOND + millis(1)), "whole milliseconds, rounded down");
    held.renewed(start + 80 * SECOND, ttl(20 * SECOND), || start + 80 * SECOND);
    // Each is a little longer, because a shorter lease drifts less; beyond its end it never is.
    for second in 81..100 {
        if let Some(ttl) = next(second * SECOND) {
            assert!(second * SECOND + ttl <= 100 * SECOND + millis(1), "in second {second}");
            held.renewed(start + second * SECOND, self::ttl(ttl), || start + second * SECOND);
        }
    }
    let until = held.safe_until(start + 99 * SECOND).unwrap();
    assert!(until > start + 99 * SECOND + millis(990) && until < held.terms.ends, "{:?}", until - start);
    assert_eq!((next(100 * SECOND), next(DAYS_30)), (None, None));
}

/// Rounded to whole milliseconds it is not safe for less.
#[test]
fn what_is_put_back_lasts_for_as_long_as_it_is_counted_on_and_no_longer_than_its_ttl() {
    let start = Instant::now();
    for longest_hold in [SECOND, 20 * SECOND, 35 * SECOND, DAYS_30] {
        for micros in (0..29_000_000).step_by(333_333) {
            let now = start + Duration::from_micros(micros);
            let mut held = half_a_minute(start);
            held.terms.ends = start + longest_hold;
            let (until, rest) = (held.safe_until(now).unwrap(), held.rest(now).unwrap());
            let lasts = rest.duration();
            assert!(
                lasts <= 30 * SECOND
                    && now + lasts <= (start + longest_hold).max(start + 30 * SECOND + millis(1))
            );
            assert!(
                now + lasts - drift(lasts) >= until,
                "after {micros} µs, {longest_hold:?} at most: {rest}"
            );
        }
    }
    let held = half_a_minute(start);
    assert_eq!(held.rest(start + SAFE), None, "it is over");
}

#[test]
fn what_is_held_for_the_ttl_alone_is_not_renewed() {
    let start = Instant::now();
    let mut held = half_a_minute(start);
    held.terms.ends = start + SECOND;
    for second in 0..30 {
        assert_eq!(held.next_ttl(start + second * SECOND), None, "second {second}");
    }
}

fn with_rhythm(start: Instant, first: Duration, every: Duration) -> Held {
    let terms = Terms { ttl: Ttl::MAX, margin: SECOND, renew_every: every, ends: start + DAYS_30 };
    Held::new(grant(start, DAYS_30), terms, start + first)
}

#[test]
fn extreme_rhythms_do_not_overflow() {
    let start = Instant::now();
    for (first, every) in [
        (NANOSECOND, millis(1)),
        (millis(1), millis(1)),
        (DAYS_30 / 3, DAYS_30 / 3),
        (SECOND, Duration::ZERO),
        (SECOND, Duration::MAX / u32::MAX / 2),
    ] {
        let held = with_rhythm(start, first, every);
        for now in [Duration::ZERO, first, SECOND, DAYS_30] {
            let next = held.next_renewal(start + now);
            assert!(every.is_zero() || next > start + now, "{first:?} {every:?} {now:?}");
        }
    }
    let shortest = held(start, millis(1));
    assert_eq!((shortest.next_ttl(start + DAYS_30), shortest.safe_until(start).is_ok()), (None, false));
    let longest = with_rhythm(start, SECOND, SECOND);
    longest.renewed(start + DAYS_30 / 2, Ttl::MAX, || start + DAYS_30 / 2);
    assert!(longest.safe_until(start + DAYS_30).is_ok());
}

proptest! {
    #[test]
    fn the_next_renewal_is_within_an_interval_and_in_the_same_rhythm(
        every in 1..=864_000_000_u64,
        chance in 0.0..=1.0_f64,
        gap in 0..=2_592_000_000_000_u64,
    ) {
        let (start, every, gap) = (Instant::now(), millis(every), Duration::from_micros(gap));
        let first = every.mul_f64(chance);
        let held = with_rhythm(start, first, every);
        let (now, next) = (start + gap, held.next_renewal(start + gap));
        prop_assert!(next > now && next <= now + every, "{:?} after {gap:?}", next - start);
        prop_assert_eq!((next - (start + first)).as_nanos() % every.as_nanos(), 0);
    }
}

/// What happens to a guard, and to its lease at a server.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Advance(Duration),
    /// A renewal that arrives and is answered so much later; `None`: the answer is lost.
    Renew {
        there: Duration,
        back: Option<Duration>,
    },
    Lose,
    GiveBack,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let up_to = |most: u64| (0..=most).prop_map(Duration::from_micros);
    let deed = prop_oneof![
        12 => up_to(1_500_000).prop_map(Deed::Advance),
        12 => (up_to(1_500_000), proptest::option::weighted(0.8, up_to(1_500_000)))
            .prop_map(|(there, back)| Deed::Renew { there, back }),
        1 => Just(Deed::Lose),
        1 => Just(Deed::GiveBack),
    ];
    proptest::collection::vec(deed, 1..60)
}

/// A server whose clock goes faster than ours by as much as clocks may, and which counts whole milliseconds: the shortest
/// that a lease of it can last.
struct Server {
    ends: Instant,
}

impl Server {
    const TTL: Duration = Duration::from_millis(3_000);

    fn granted(at: Instant) -> Self {
        Self { ends: Self::after(at, Self::TTL) }
    }

    fn after(at: Instant, ttl: Duration) -> Instant {
        at + ttl.mul_f64(1.0 / 1.0005) - millis(1)
    }

    /// Whether the lease stood; it lasts as long as was asked for now.
    fn renew(&mut self, at: Instant, ttl: Ttl) -> bool {
        let stands = at < self.ends;
        if stands {
            self.ends = Self::after(at, ttl.duration());
        }
        stands
    }
}

/// Until when a lease that was asked for then is safe.
fn safe(asked: Instant, lasts: Duration) -> Instant {
    asked + lasts - lasts / 2000 - millis(2)
}

/// What is under way.
#[derive(Debug, Clone, Copy)]
enum Post {
    Request { asked: Instant, ttl: Ttl, back: Option<Duration> },
    Answer { asked: Instant, ttl: Ttl, is_renewed: bool },
}

/// A guard, its server, and what is under way between them, driven by a clock of their own.
struct Drive {
    now: Instant,
    held: Held,
    server: Server,
    /// In the order of arrival.
    post: BTreeMap<(Instant, usize), Post>,
    sent: usize,
    /// Until when the last answer in time has made it safe.
    safe_until: Instant,
    /// How it ended.
    over: Option<Over>,
}

impl Drive {
    /// The grant was asked for, arrived so much later, and is answered now.
    fn new(there: Duration, back: Duration) -> Self {
        let asked = Instant::now();
        let mut held = held(asked, Server::TTL);
        held.terms.ends = asked + 8 * SECOND;
        let safe_until = safe(asked, Server::TTL);
        let server = Server::granted(asked + there);
        let now = asked + there + back;
        Self { now, held, server, post: BTreeMap::new(), sent: 0, safe_until, over: None }
    }

    fn send(&mut self, arrives: Instant, post: Post) {
        self.sent += 1;
        self.post.insert((arrives, self.sent), post);
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Advance(time) => {
                let until = self.now + time;
                while let Some(next) = self.post.first_entry().filter(|next| next.key().0 <= until) {
                    self.now = next.key().0;
                    let post = next.remove();
                    self.look();
                    self.arrived(post);
                    self.look();
                }
                self.now = until;
            }
            Deed::Renew { there, back } => {
                if let Some(ttl) = self.held.next_ttl(self.now) {
                    self.send(self.now + there, Post::Request { asked: self.now, ttl, back });
                }
            }
            Deed::Lose => {
                let over =
                    self.held.lose(LostReason::Forced, || self.now).map_or_else(|over| over, Over::Lost);
                self.ended(over);
            }
            Deed::GiveBack => self.ended(self.held.give_back(|| self.now).err().unwrap_or(Over::GivenBack)),
        }
        self.look();
    }

    fn arrived(&mut self, post: Post) {
        match post {
            Post::Request { asked, ttl, back } => {
                let is_renewed = self.server.renew(self.now, ttl);
                if let Some(back) = back {
                    self.send(self.now + back, Post::Answer { asked, ttl, is_renewed });
                }
            }
            Post::Answer { asked, ttl, is_renewed: true } => {
                self.held.renewed(asked, ttl, || self.now);
                if self.over.is_none() {
                    self.safe_until = self.safe_until.max(safe(asked, ttl.duration()));
                }
            }
            Post::Answer { is_renewed: false, .. } => {
                let over =
                    self.held.lose(LostReason::Expired, || self.now).map_or_else(|over| over, Over::Lost);
                self.ended(over);
            }
        }
    }

    fn ended(&mut self, over: Over) {
        assert_eq!(*self.over.get_or_insert(over), over, "it ends once, in one way");
    }

    /// What it says of itself is true at this moment.
    fn look(&mut self) {
        if self.now >= self.safe_until && self.over.is_none() {
            self.over = Some(Over::Lost(LostReason::Deadline));
        }
        let said = self.held.safe_until(self.now);
        assert_eq!(said.err(), self.over);
        if let Ok(until) = said {
            assert_eq!(until, self.safe_until);
            assert!(until <= self.server.ends, "safe for {:?} too long", until - self.server.ends);
        }
        assert_eq!(self.held.state(self.now).is_final(), self.over.is_some());
    }
}

proptest! {
    #[test]
    fn what_it_calls_safe_no_server_has_ended_and_what_is_over_stays_so(
        there in 0..=2_000_000_u64,
        back in 0..=2_000_000_u64,
        deeds in deeds(),
    ) {
        let mut drive = Drive::new(Duration::from_micros(there), Duration::from_micros(back));
        drive.look();
        for deed in deeds {
            drive.act(deed);
        }
    }
}
