//! One step after the other: what a line does when calls are lost, refused, or never end.

use std::{
    cell::RefCell,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use shuttle::future::block_on;
use tokio::{sync::mpsc::UnboundedReceiver, time::Instant};

use crate::{
    LONG, Model, Token,
    lines::{Errand, HandOverEnd, Lines, Seat, Settled, Step},
};

const SECOND: Duration = Duration::from_secs(1);
const UNKNOWN: Option<Token> = None;

/// A line with its clock and its errands.
struct Bench {
    lines: Lines<Model>,
    errands: RefCell<UnboundedReceiver<Errand<Model>>>,
    now: Instant,
}

/// What a step is for.
#[derive(Debug, PartialEq)]
enum Does {
    Look(Token, Option<Token>),
    Leave(Token),
    Rest(Duration),
    Close,
}
use Does::{Close, Leave, Look, Rest};

/// What is left for others to do.
#[derive(Debug, PartialEq)]
enum Left {
    Stray(Token, Option<Token>),
    Abandoned(Token, Duration),
}

impl Bench {
    fn new() -> Self {
        let (lines, errands) = Lines::new(100);
        Self { lines, errands: errands.into(), now: Instant::now() }
    }

    fn join(&self, token: Token, wait: Duration) -> Seat<'_, Model> {
        self.seat(token, wait, false)
    }

    fn seat(&self, token: Token, wait: Duration, is_callers: bool) -> Seat<'_, Model> {
        let until = self.now + wait;
        self.lines.join(&(), token.into(), is_callers, None, until, self.now).expect("there is room")
    }

    fn step(&self, after: Duration) -> Does {
        let now = self.now + after;
        match self.lines.step(&(), now) {
            Step::Look { ask, before } => Look(*ask, before.map(|before| *before.ask)),
            Step::Leave(before) => Leave(*before.ask),
            Step::Rest(until) => Rest(until - self.now),
            Step::Close => Close,
        }
    }

    fn settle(&self, after: Duration, settled: Settled<Model>) {
        self.lines.settle(&(), settled, self.now + after);
    }

    fn left(&self) -> Vec<Left> {
        let mut left = Vec::new();
        while let Ok(errand) = self.errands.borrow_mut().try_recv() {
            left.push(match errand {
                Errand::Opened(()) => continue,
                Errand::Stray { ask, answer } => Left::Stray(*ask, answer),
                Errand::Abandoned { ask, until } => Left::Abandoned(*ask, until - self.now),
            });
        }
        left
    }

    fn rings(&self) -> bool {
        let bell = self.lines.bell(&()).expect("the line is open");
        now(bell.notified()).is_some()
    }
}

/// What a future says at its first poll.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// What has been answered by now: nothing yet, or that it was not granted, or what it was.
fn answered(seat: &mut Seat<'_, Model>) -> Option<Option<Option<Token>>> {
    now(seat.answer())
}

fn granted(token: Token) -> Settled<Model> {
    Settled::Granted { answer: Some(token), sight: (), again: SECOND }
}

fn waits() -> Settled<Model> {
    Settled::Waits { sight: (), again: SECOND }
}

fn handed(token: Token, again: Duration) -> HandOverEnd<Model> {
    HandOverEnd::Granted { answer: Some(token), sight: (), again }
}

/// The lines take their locks from the model checker, which has to be there.
fn alone(test: fn(Bench)) {
    shuttle::check_random(move || block_on(async move { test(Bench::new()) }), 1);
}

fn lost(until: Duration, bench: &Bench) -> Settled<Model> {
    Settled::Ambiguous { again: SECOND, until: bench.now + until }
}

#[test]
fn a_line_of_a_process_that_was_granted_nothing_lets_others_go_first() {
    alone(|bench| {
        for first in [1, 3] {
            let (one, two) = (bench.join(first, LONG), bench.join(first + 1, LONG));
            let take = || bench.lines.take_head(&(), bench.now + SECOND, bench.now).unwrap();
            let head = take();
            assert!(head.others_first, "the line is new");
            head.settle(handed(first, LONG));
            let head = take();
            assert!(!head.others_first, "its turn has begun");
            head.settle(handed(first + 1, LONG));
            drop((one, two));
            assert_eq!(bench.step(Duration::ZERO), Close);
        }
    });
}

#[test]
fn what_a_lost_hand_over_may_still_do_is_cleared_up() {
    alone(|bench| {
        let seat = bench.join(1, LONG);
        drop(bench.lines.take_head(&(), bench.now + 5 * SECOND, bench.now).unwrap());
        drop(seat);
        assert_eq!(bench.step(SECOND), Leave(1));
        bench.settle(SECOND, Settled::Left);
        assert_eq!(bench.left(), [Left::Abandoned(1, 5 * SECOND)]);
        assert_eq!(bench.step(SECOND), Close);
    });
}

#[test]
fn what_a_lost_hand_over_may_still_do_is_cleared_up_behind_the_next() {
    alone(|bench| {
        let (seat, _next) = (bench.join(1, LONG), bench.join(2, LONG));
        drop(bench.lines.take_head(&(), bench.now + 5 * SECOND, bench.now).unwrap());
        drop(seat);
        assert_eq!(bench.step(SECOND), Look(2, Some(1)));
        bench.settle(SECOND, waits());
        assert_eq!(bench.left(), [Left::Abandoned(1, 5 * SECOND)]);
    });
}

#[test]
fn a_lost_call_is_remembered_however_the_place_was_taken() {
    alone(|bench| {
        let lose = || drop(bench.lines.take_head(&(), bench.now + 5 * SECOND, bench.now).unwrap());
        let is_waiting = || {
            assert_eq!(bench.step(Duration::ZERO), Look(1, None));
            bench.settle(Duration::ZERO, waits());
        };
        for place_first in [true, false] {
            let seat = bench.join(1, LONG);
            if place_first {
                is_waiting();
                lose();
            } else {
                lose();
                is_waiting();
            }
            drop(seat);
            assert_eq!(bench.step(Duration::ZERO), Leave(1));
            bench.settle(Duration::ZERO, Settled::Left);
            assert_eq!(bench.left(), [Left::Abandoned(1, 5 * SECOND)]);
            assert_eq!(bench.step(Duration::ZERO), Close);
        }
    });
}

#[test]
fn a_call_that_cannot_arrive_any_more_is_forgotten() {
    alone(|bench| {
        let seat = bench.join(1, LONG);
        drop(bench.lines.take_head(&(), bench.now + SECOND, bench.now).unwrap());
        drop(seat);
        assert_eq!(bench.step(SECOND), Leave(1));
        bench.settle(SECOND, Settled::Left);
        assert_eq!(bench.left(), []);
    });
}

#[test]
fn whose_time_is_over_while_a_lost_call_may_arrive_is_not_told_that_it_has_nothing() {
    alone(|bench| {
        let (mut seat, _next) = (bench.join(1, SECOND), bench.join(2, LONG));
        drop(bench.lines.take_head(&(), bench.now + 5 * SECOND, bench.now).unwrap());
        assert!(!seat.withdraw(), "it may be granted the lock");
        assert_eq!(bench.step(2 * SECOND), Look(2, Some(1)));
        bench.settle(2 * SECOND, waits());
        assert_eq!(answered(&mut seat), Some(Some(UNKNOWN)));
        drop(seat);
        assert_eq!(bench.left(), [], "whoever was told sees to it");
    });
}

#[test]
fn who_was_told_that_nobody_knows_keeps_what_it_was_granted() {
    alone(|bench| {
        let mut seat = bench.join(1, SECOND);
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        bench.settle(Duration::ZERO, waits());
        assert_eq!(bench.step(SECOND), Leave(1));
        bench.settle(SECOND, lost(9 * SECOND, &bench));
        assert_eq!(answered(&mut seat), Some(Some(UNKNOWN)));
        drop(seat);
        assert_eq!(bench.step(3 * SECOND), Close);
        assert_eq!(bench.left(), []);
    });
}

#[test]
fn who_leaves_without_hearing_that_nobody_knows_is_cleared_up_after() {
    alone(|bench| {
        let seat = bench.join(1, SECOND);
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        bench.settle(Duration::ZERO, waits());
        assert_eq!(bench.step(SECOND), Leave(1));
        bench.settle(SECOND, lost(9 * SECOND, &bench));
        drop(seat);
        assert_eq!(bench.left(), [Left::Stray(1, UNKNOWN)]);
    });
}

#[test]
fn nothing_is_granted_on_behalf_of_one_who_was_told_that_nobody_knows() {
    alone(|bench| {
        let (mut one, mut two) = (bench.join(1, SECOND), bench.join(2, 2 * SECOND));
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        bench.settle(Duration::ZERO, waits());
        assert_eq!(bench.step(SECOND), Look(2, Some(1)));
        bench.settle(SECOND, lost(9 * SECOND, &bench));
        assert_eq!(answered(&mut one), Some(Some(UNKNOWN)));
        drop(one);
        // The lost look is repeated for the second, who still waits, and not for the first.
        assert_eq!(bench.step(2 * SECOND), Look(2, Some(1)));
        bench.settle(2 * SECOND, lost(9 * SECOND, &bench));
        assert_eq!(answered(&mut two), Some(Some(UNKNOWN)));
        drop(two);
        assert_eq!(bench.step(3 * SECOND), Leave(1));
        bench.settle(3 * SECOND, Settled::Left);
        assert_eq!((bench.step(3 * SECOND), bench.left()), (Close, vec![]));
    });
}

#[test]
fn whoever_named_its_token_keeps_what_it_was_granted() {
    alone(|bench| {
        for is_callers in [true, false] {
            let seat = bench.seat(1, LONG, is_callers);
            assert_eq!(bench.step(Duration::ZERO), Look(1, None));
            drop(seat);
            bench.settle(Duration::ZERO, granted(1));
            let left = if is_callers { vec![] } else { vec![Left::Stray(1, Some(1))] };
            assert_eq!((bench.left(), bench.step(Duration::ZERO)), (left, Close));
        }
    });
}

#[test]
fn whoever_named_its_token_keeps_what_it_does_not_fetch_or_is_yet_to_be_granted() {
    alone(|bench| {
        let unfetched = bench.seat(1, LONG, true);
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        bench.settle(Duration::ZERO, granted(1));
        drop(unfetched);
        assert_eq!((bench.left(), bench.step(Duration::ZERO)), (vec![], Close));

        let lost = bench.seat(1, LONG, true);
        drop(bench.lines.take_head(&(), bench.now + 5 * SECOND, bench.now).unwrap());
        drop(lost);
        assert_eq!(bench.step(Duration::ZERO), Leave(1));
        bench.settle(Duration::ZERO, Settled::Left);
        assert_eq!((bench.left(), bench.step(Duration::ZERO)), (vec![], Close));
    });
}

#[test]
fn whoever_sees_to_it_from_now_on_keeps_what_it_is_granted() {
    alone(|bench| {
        let mut looked_for = bench.join(1, LONG);
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        looked_for.leave_to_caller();
        drop(looked_for);
        bench.settle(Duration::ZERO, granted(1));
        assert_eq!((bench.left(), bench.step(Duration::ZERO)), (vec![], Close));

        let mut handed_to = bench.join(1, LONG);
        let hand = bench.lines.take_head(&(), bench.now + SECOND, bench.now).unwrap();
        handed_to.leave_to_caller();
        drop(handed_to);
        hand.settle(handed(1, LONG));
        assert_eq!((bench.left(), bench.step(Duration::ZERO)), (vec![], Close));

        let mut retired = bench.join(1, Duration::ZERO);
        drop(bench.lines.take_head(&(), bench.now + 5 * SECOND, bench.now).unwrap());
        assert_eq!(bench.step(Duration::ZERO), Leave(1));
        retired.leave_to_caller();
        drop(retired);
        bench.settle(Duration::ZERO, Settled::BeforeGranted(Some(1)));
        assert_eq!((bench.left(), bench.step(Duration::ZERO)), (vec![], Close));
    });
}

#[test]
fn who_may_have_it_by_a_lost_call_is_not_refused() {
    alone(|bench| {
        let mut seat = bench.join(1, LONG);
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        bench.settle(Duration::ZERO, lost(9 * SECOND, &bench));
        assert_eq!(bench.step(Duration::ZERO), Rest(SECOND));
        let refused = || Settled::Refused { answer: None, again: SECOND };
        assert_eq!(bench.step(SECOND), Look(1, None));
        bench.settle(SECOND, refused());
        assert_eq!((answered(&mut seat), bench.step(SECOND)), (None, Rest(2 * SECOND)));
        assert_eq!(bench.step(9 * SECOND), Look(1, None));
        bench.settle(9 * SECOND, refused());
        assert!(answered(&mut seat).is_some(), "by now it cannot have it");
    });
}

#[test]
fn a_leave_that_fails_closes_the_line() {
    alone(|bench| {
        let seat = bench.join(1, LONG);
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        bench.settle(Duration::ZERO, waits());
        drop(seat);
        assert_eq!(bench.step(Duration::ZERO), Leave(1));
        bench.settle(Duration::ZERO, lost(9 * SECOND, &bench));
        assert_eq!(bench.left(), [Left::Abandoned(1, 9 * SECOND)]);
        assert_eq!(bench.step(SECOND), Close);
    });
}

#[test]
fn a_hand_over_that_nobody_polls_holds_nobody_up() {
    alone(|bench| {
        let mut seat = bench.join(1, LONG);
        let hand = bench.lines.take_head(&(), bench.now + 5 * SECOND, bench.now).unwrap();
        assert_eq!(bench.step(SECOND), Rest(5 * SECOND));
        assert_eq!(bench.step(5 * SECOND), Look(1, None));
        // It ends after all, while its head is looked for.
        hand.settle(handed(1, LONG));
        assert_eq!(answered(&mut seat), None);
        bench.settle(5 * SECOND, granted(1));
        assert_eq!(answered(&mut seat), Some(Some(Some(1))));
        assert_eq!(bench.left(), []);
    });
}

#[test]
fn a_hand_over_that_ends_late_ends_no_other() {
    alone(|bench| {
        let mut seat = bench.join(1, LONG);
        let late = bench.lines.take_head(&(), bench.now + SECOND, bench.now).unwrap();
        assert_eq!(bench.step(SECOND), Look(1, None));
        bench.settle(SECOND, waits());
        let next = bench.lines.take_head(&(), bench.now + 5 * SECOND, bench.now).unwrap();
        late.settle(handed(9, LONG));
        assert_eq!(answered(&mut seat), None);
        next.settle(handed(1, LONG));
        assert_eq!(answered(&mut seat), Some(Some(Some(1))));
    });
}

#[test]
fn a_shorter_lease_wakes_the_keeper() {
    alone(|bench| {
        let _seats = [1, 2, 3].map(|token| bench.join(token, LONG));
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        bench.settle(Duration::ZERO, waits());
        bench.rings();
        assert_eq!(bench.step(Duration::ZERO), Rest(SECOND));
        let hand_on = |again| {
            let head = bench.lines.take_head(&(), bench.now + SECOND, bench.now).unwrap();
            let token = *head.ask;
            head.settle(handed(token, again));
        };
        hand_on(LONG);
        assert!(!bench.rings(), "it looks soon enough");
        hand_on(SECOND / 20);
        assert!(bench.rings());
    });
}

/// The store grants nothing yet, and nobody has a place.
fn not_yet() -> Settled<Model> {
    Settled::NotYet { again: SECOND }
}

#[test]
fn where_the_queue_is_not_open_yet_the_line_looks_again_later() {
    alone(|bench| {
        let mut seat = bench.lines.join(&(), 1.into(), false, Some(()), bench.now + LONG, bench.now).unwrap();
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        bench.settle(Duration::ZERO, not_yet());
        assert_eq!(bench.lines.sight(&()), None, "what stood in the way is gone");
        assert_eq!(bench.step(Duration::ZERO), Rest(SECOND));
        bench.lines.look_now(&());
        assert_eq!(bench.step(Duration::ZERO), Look(1, None), "it is called");
        bench.settle(Duration::ZERO, not_yet());
        assert_eq!(bench.step(SECOND), Look(1, None));
        bench.settle(SECOND, granted(1));
        assert_eq!(answered(&mut seat), Some(Some(Some(1))));
    });
}

#[test]
fn where_the_queue_is_not_open_yet_no_place_is_left() {
    alone(|bench| {
        let mut seat = bench.join(1, 3 * SECOND);
        for (after, settled) in [(Duration::ZERO, waits()), (SECOND, not_yet())] {
            assert_eq!(bench.step(after), Look(1, None));
            bench.settle(after, settled);
        }
        assert!(seat.withdraw(), "nobody can have granted it the lock");
        drop(seat);
        assert_eq!(bench.step(SECOND), Close);
        assert_eq!(bench.left(), []);
    });
}

#[test]
fn where_the_queue_is_not_open_yet_a_lost_call_may_still_arrive() {
    alone(|bench| {
        let mut seat = bench.join(1, LONG);
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        bench.settle(Duration::ZERO, lost(9 * SECOND, &bench));
        assert_eq!(bench.step(SECOND), Look(1, None));
        bench.settle(SECOND, not_yet());
        assert_eq!(bench.left(), [], "it is still wanted");
        assert_eq!(bench.step(SECOND), Rest(2 * SECOND));
        assert!(!seat.withdraw(), "it may be granted the lock");
        drop(seat);
        assert_eq!(bench.step(SECOND), Leave(1));
        bench.settle(SECOND, Settled::Left);
        assert_eq!(bench.left(), [Left::Abandoned(1, 9 * SECOND)]);
    });
}

#[test]
fn where_the_queue_is_not_open_yet_who_had_a_place_before_is_let_go() {
    alone(|bench| {
        let (mut one, _two) = (bench.join(1, SECOND), bench.join(2, LONG));
        assert_eq!(bench.step(Duration::ZERO), Look(1, None));
        bench.settle(Duration::ZERO, waits());
        assert_eq!(bench.step(SECOND), Look(2, Some(1)));
        bench.settle(SECOND, not_yet());
        assert_eq!(answered(&mut one), Some(None), "it was not granted the lock");
        assert_eq!(bench.step(SECOND), Rest(2 * SECOND));
    });
}
