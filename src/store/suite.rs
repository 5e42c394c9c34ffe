//! What waiting, hearing and remembering mean does not depend on where a lock is kept: one suite at the height of [`Store`].
//!
//! A behaviour is given `open`, which opens one more process on a store of the test's own. It keeps to the time of that store:
//! what must pass is waited for until it is seen, so that a real server can run the suite too.

mod recovery;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

pub(crate) use self::recovery::*;

use super::*;

/// Makes a test of each behaviour. `$stand` is a function that makes a fresh store, and answers with its `open`.
macro_rules! behaviours {
    ($stand:path) => {
        $crate::store::suite::behaviours! { $stand:
            a_free_lock_is_granted_to_who_queues
            processes_are_served_in_the_order_in_which_they_came
            a_place_is_kept_by_another_look
            another_waiter_keeps_the_place_of_its_process
            what_is_granted_from_the_queue_is_short_until_it_is_confirmed
            a_confirmation_never_shortens
            a_short_ttl_is_not_stretched_to_the_place
            who_is_granted_before_is_told_and_nothing_changes
            the_same_holder_takes_no_place
            a_holder_that_is_granted_elsewhere_takes_no_place
            another_guard_of_the_same_holder_waits_and_is_served
            a_guard_is_handed_over_to_another_of_the_same_holder
            a_guard_and_an_identity_of_one_holder_wait_for_each_other
            a_guard_takes_its_place_behind_another_of_its_holder_that_comes_first
            one_look_comes_behind_those_who_wait
            a_look_from_the_queue_comes_behind_those_who_came_before
            the_first_takes_a_free_lock_at_once
            the_dead_are_passed_over
            the_silent_are_passed_over_and_keep_their_places
            who_was_silent_and_looks_comes_first_again
            what_is_granted_to_the_dead_ends_with_its_place
            who_leaves_is_not_served
            who_leaves_too_late_has_the_lease
            a_hand_over_grants_to_the_next
            a_hand_over_lets_others_go_first
            others_first_with_no_others_grants_to_the_next
            a_hand_over_gives_up_the_place_of_its_process
            a_repeated_hand_over_grants_nothing
            only_the_holder_hands_over
            a_forced_release_serves_the_queue
            what_nobody_relies_on_is_swept
            what_its_holder_was_told_of_is_not_swept
            a_guard_is_swept_whoever_asks_for_another
            a_guard_that_is_swept_serves_another_of_the_same_holder
            a_guard_that_was_served_is_swept_although_another_asked
            what_its_holder_was_told_as_it_was_granted_is_not_swept
            a_repeated_sweep_is_answered_as_the_first
            what_is_swept_serves_the_queue
            an_extend_of_a_guard_names_its_fence
            what_happens_is_said
            each_event_comes_once
            other_tags_are_not_heard
            what_is_not_followed_any_more_is_not_heard
            only_who_was_granted_the_lock_is_told_so
            an_end_by_itself_is_not_said
            grants_and_ends_are_remembered
            as_many_grants_are_remembered_as_there_is_room_for
            history_is_forgotten_in_time
            without_history_nothing_is_remembered
            what_was_lost_is_put_back_as_it_was
            a_lease_without_its_token_is_given_another
            an_identity_that_is_put_back_is_relied_on
            what_stands_is_not_put_back_again
            what_another_has_is_not_put_back
            what_has_ended_is_not_put_back
            what_is_put_back_stands_before_those_who_wait
            what_is_put_back_is_said_and_remembered
            one_look_sees_many_tags_in_their_order
            an_extend_reaches_as_far_as_it_is_asked_to
        }
    };
    ($stand:path: $($behaviour:ident)*) => {
        $(#[tokio::test] async fn $behaviour() { $crate::store::suite::$behaviour($stand()).await })*
    };
}
pub(crate) use behaviours;

/// A place that outlasts every test, and is far shorter than the ttl that they ask for.
pub(crate) const LIVING: Rules = Rules {
    place: Duration::from_secs(60),
    history: None,
    tries_again: false,
    restart_grace: Duration::ZERO,
};
const DYING: Rules = Rules { place: Duration::from_millis(150), ..LIVING };
const SILENT: Rules = Rules { place: Duration::from_secs(4), ..LIVING };
const PATIENCE: Duration = Duration::from_secs(10);

// --- words of the suite

pub(crate) fn tag() -> Tag {
    Tag::new("TEST-02").expect("a tag")
}

fn elsewhere() -> Tag {
    Tag::new("TEST-03").expect("a tag")
}

/// An hour for a holder of this name.
pub(crate) fn ask(holder: &str) -> Ask {
    Ask {
        tag: tag(),
        holder: Holder::new(holder, "").expect("a holder"),
        kind: LeaseKind::Identity,
        token: Token::random(),
        ttl: Ttl::HOUR,
        note: "ARM".to_owned(),
    }
}

fn millis(millis: u64) -> Ttl {
    Ttl::new(Duration::from_millis(millis)).expect("a ttl")
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

pub(crate) async fn take(store: &impl Store, ask: &Ask) -> Lease {
    match store.acquire(ask, soon()).await.expect("healthy") {
        Acquired::Granted(lease) => lease,
        other => panic!("a grant was expected: {other:?}"),
    }
}

pub(crate) async fn give(store: &impl Store, lease: &Lease) {
    match store.release(Whose::of(lease), RequestId::random(), soon()).await.expect("healthy") {
        Released::Released { held: Some(_) } => {}
        other => panic!("a release was expected: {other:?}"),
    }
}

/// Takes or keeps a place; who has the lock meanwhile?
pub(crate) async fn stand(store: &impl Store, ask: &Ask) -> Occupant {
    match store.queue(ask, None, soon()).await.expect("healthy") {
        Queued::Waits { occupant, .. } => occupant,
        other => panic!("a place was expected: {other:?}"),
    }
}

async fn granted(store: &impl Store, ask: &Ask) -> Lease {
    match store.queue(ask, None, soon()).await.expect("healthy") {
        Queued::Granted(lease) => lease,
        other => panic!("a grant was expected: {other:?}"),
    }
}

async fn hand(store: &impl Store, lease: &Lease, next: &Ask, others_first: bool) -> HandedOver {
    let request = RequestId::random();
    store.hand_over(Whose::of(lease), request, next, others_first, soon()).await.expect("healthy")
}

pub(crate) async fn occupant(store: &impl Store, tag: &Tag) -> Option<Occupant> {
    match store.inspect(tag, soon()).await.expect("healthy") {
        Seen::Held(occupant) => Some(occupant),
        Seen::Free { .. } => None,
    }
}

/// The name of who has the lock; empty where nobody has.
pub(crate) async fn holder_id(store: &impl Store) -> String {
    occupant(store, &tag()).await.map(|occupant| occupant.holder.id().to_owned()).unwrap_or_default()
}

fn lasts(occupant: &Occupant) -> Duration {
    occupant.expires_at.duration_since(occupant.since).expect("it ends after it began")
}

#[track_caller]
pub(crate) fn assert_short(occupant: &Occupant) {
    assert!(lasts(occupant) < LIVING.place + Duration::from_secs(1), "{occupant:?}");
}

#[track_caller]
fn assert_whole(lease: &Lease) {
    assert!(lasts(&lease.clone().into()) > Duration::from_secs(3500), "{lease:?}");
}

async fn eventually(mut claim: impl AsyncFnMut() -> bool) {
    let deadline = soon();
    while !claim().await {
        assert!(Instant::now() < deadline, "not so within {PATIENCE:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until as much of the store's own time has passed: until a lease as long as that is seen to have ended.
async fn pass(store: &impl Store, time: Duration) {
    let witness = Ask {
        tag: Tag::new("WITNESS").expect("a tag"),
        ttl: Ttl::new(time).expect("a ttl"),
        ..ask("witness")
    };
    take(store, &witness).await;
    eventually(async || occupant(store, &witness.tag).await.is_none()).await;
}

async fn follow(store: &impl Store, topics: &[Topic]) -> Feed {
    let mut feed = store.feed(soon()).await.expect("healthy");
    for topic in topics {
        follow_too(&mut feed, topic).await;
    }
    feed
}

async fn follow_too(feed: &mut Feed, topic: &Topic) {
    feed.topics.follow(topic).await.expect("healthy");
    match hear(feed).await {
        News::Follows(followed) => assert_eq!(followed, *topic),
        other => panic!("it follows before it hears: {other:?}"),
    }
}

async fn hear(feed: &mut Feed) -> News {
    timeout(PATIENCE, feed.news.recv()).await.expect("news").expect("the feed lives")
}

async fn event(feed: &mut Feed) -> Event {
    match hear(feed).await {
        News::Said(event) => event,
        other => panic!("an event was expected: {other:?}"),
    }
}

/// The next events as words: what, and to whom.
async fn events(feed: &mut Feed, count: usize) -> Vec<String> {
    let mut words = Vec::new();
    for _ in 0..count {
        words.push(in_words(&event(feed).await));
    }
    words
}

fn in_words(event: &Event) -> String {
    let occupant = event.occupant().expect("an event about a lease");
    format!("{} {}", event.name(), occupant.holder.id())
}

// --- the queue

pub(crate) async fn a_free_lock_is_granted_to_who_queues<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let lease = granted(&a, &ask("a")).await;
    assert_whole(&lease);
    assert_eq!(occupant(&b, &tag()).await.map(|seen| seen.fence), Some(lease.fence));
}

pub(crate) async fn processes_are_served_in_the_order_in_which_they_came<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b, c) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let (to_b, to_c) = (ask("b"), ask("c"));
    let first = take(&a, &ask("a")).await;
    assert_eq!(stand(&b, &to_b).await.holder.id(), "a");
    stand(&c, &to_c).await;

    give(&a, &first).await;
    assert_eq!(stand(&c, &to_c).await.holder.id(), "b");
    let second = granted(&b, &to_b).await;
    give(&b, &second).await;
    let third = granted(&c, &to_c).await;
    assert!(first.fence < second.fence && second.fence < third.fence);
    assert_eq!((second.note.as_str(), third.token), ("ARM", Some(to_c.token)));

    give(&c, &third).await;
    assert_eq!(holder_id(&a).await, "", "nobody waits any more");
}

pub(crate) async fn a_place_is_kept_by_another_look<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b, c) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let (to_b, to_c) = (ask("b"), ask("c"));
    let lease = take(&a, &ask("a")).await;
    for (store, ask) in [(&b, &to_b), (&c, &to_c), (&b, &to_b)] {
        stand(store, ask).await;
    }
    give(&a, &lease).await;
    assert_eq!(holder_id(&a).await, "b");
}

pub(crate) async fn another_waiter_keeps_the_place_of_its_process<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b, c) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let (first, second) = (ask("b1"), ask("b2"));
    let lease = take(&a, &ask("a")).await;
    stand(&b, &first).await;
    stand(&c, &ask("c")).await;
    let outcome = b.queue(&second, Some(first.token), soon()).await.expect("healthy");
    assert!(matches!(outcome, Queued::Waits { .. }), "{outcome:?}");
    give(&a, &lease).await;
    assert_eq!(holder_id(&a).await, "b2");
    granted(&b, &second).await;
}

pub(crate) async fn what_is_granted_from_the_queue_is_short_until_it_is_confirmed<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let to_b = ask("b");
    let lease = take(&a, &ask("a")).await;
    stand(&b, &to_b).await;
    give(&a, &lease).await;
    let before = occupant(&a, &tag()).await.expect("granted at once");
    assert_short(&before);
    let lease = granted(&b, &to_b).await;
    assert_whole(&lease);
    assert_eq!((lease.fence, lease.since), (before.fence, before.since), "the same grant");
}

pub(crate) async fn a_confirmation_never_shortens<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let mut ask = ask("a");
    take(&a, &ask).await;
    ask.ttl = millis(1000);
    assert_whole(&granted(&a, &ask).await);
}

pub(crate) async fn a_short_ttl_is_not_stretched_to_the_place<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let lease = take(&a, &ask("a")).await;
    stand(&b, &Ask { ttl: millis(1000), ..ask("b") }).await;
    give(&a, &lease).await;
    let occupant = occupant(&a, &tag()).await.expect("granted at once");
    assert!(lasts(&occupant) < Duration::from_secs(2), "{occupant:?}");
}

pub(crate) async fn who_is_granted_before_is_told_and_nothing_changes<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let (first, second) = (ask("b1"), ask("b2"));
    let lease = take(&a, &ask("a")).await;
    stand(&b, &first).await;
    give(&a, &lease).await;
    let outcome = b.queue(&second, Some(first.token), soon()).await.expect("healthy");
    let Queued::GrantedBefore(lease) = outcome else { panic!("it was granted before: {outcome:?}") };
    assert_eq!((lease.token, lease.holder.id()), (Some(first.token), "b1"));
    assert_short(&occupant(&a, &tag()).await.expect("held"));
    give(&b, &lease).await;
    assert_eq!(holder_id(&a).await, "", "the second took no place");
}

pub(crate) async fn the_same_holder_takes_no_place<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let lease = take(&a, &ask("a")).await;
    let outcome = b.queue(&ask("a"), None, soon()).await.expect("healthy");
    let Queued::AlreadyHeld(held) = outcome else { panic!("already held was expected: {outcome:?}") };
    assert_eq!((held.fence, held.token), (lease.fence, None));
    // A guard of the same holder is another lease, and waits.
    stand(&b, &Ask { kind: LeaseKind::Guard, ..ask("a") }).await;
    let left = b.leave(&tag(), Token::random(), soon()).await.expect("healthy");
    assert_eq!(left, None);
    give(&a, &lease).await;
    assert_eq!(holder_id(&a).await, "");
}

/// Guards of one holder are several: each is its own value's.
fn guard() -> Ask {
    Ask { kind: LeaseKind::Guard, ..ask("a") }
}

pub(crate) async fn another_guard_of_the_same_holder_waits_and_is_served<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b, c) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let (to_b, to_c) = (guard(), guard());
    let first = take(&a, &guard()).await;
    match b.acquire(&to_b, soon()).await.expect("healthy") {
        Acquired::Contended { occupant, .. } => {
            assert_eq!((occupant.fence, occupant.kind), (first.fence, LeaseKind::Guard));
        }
        other => panic!("contended was expected: {other:?}"),
    }
    assert_eq!(stand(&b, &to_b).await.fence, first.fence);
    stand(&c, &to_c).await;
    give(&a, &first).await;
    assert_short(&occupant(&a, &tag()).await.expect("granted at once"));
    let second = granted(&b, &to_b).await;
    assert!(second.token == Some(to_b.token) && second.fence > first.fence);
    assert_whole(&second);
    // Who released it once more by its old fence ends nothing.
    let outcome = a.release(Whose::of(&first), RequestId::random(), soon()).await.expect("healthy");
    assert!(matches!(outcome, Released::Not(NotYours::Occupied(_))), "{outcome:?}");
    give(&b, &second).await;
    assert_eq!(granted(&c, &to_c).await.token, Some(to_c.token));
}

pub(crate) async fn a_guard_is_handed_over_to_another_of_the_same_holder<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let (next, to_b) = (guard(), guard());
    let first = take(&a, &guard()).await;
    stand(&b, &to_b).await;
    let HandedOver::Granted { lease, .. } = hand(&a, &first, &next, false).await else { panic!("its turn") };
    assert_eq!(lease.token, Some(next.token));
    let HandedOver::Passed { .. } = hand(&a, &lease, &guard(), true).await else {
        panic!("the other's turn")
    };
    assert_eq!(granted(&b, &to_b).await.token, Some(to_b.token));
}

pub(crate) async fn a_guard_and_an_identity_of_one_holder_wait_for_each_other<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    for (holds, waits) in [(guard(), ask("a")), (ask("a"), guard())] {
        let lease = take(&a, &holds).await;
        let outcome = b.acquire(&waits, soon()).await.expect("healthy");
        assert!(matches!(outcome, Acquired::Contended { .. }), "{outcome:?}");
        assert_eq!(stand(&b, &waits).await.kind, holds.kind);
        let strangers = Lease { kind: waits.kind, ..lease.clone() };
        let outcome = b.release(Whose::of(&strangers), RequestId::random(), soon()).await.expect("healthy");
        assert!(matches!(outcome, Released::Not(NotYours::Occupied(_))), "{outcome:?}");
        give(&a, &lease).await;
        let lease = granted(&b, &waits).await;
        assert_eq!((lease.kind, lease.token), (waits.kind, Some(waits.token)));
        give(&b, &lease).await;
    }
    // Two identities of one name are one holder still.
    let lease = take(&a, &ask("a")).await;
    match b.acquire(&ask("a"), soon()).await.expect("healthy") {
        Acquired::AlreadyHeld(held) => assert_eq!((held.fence, held.token), (lease.fence, None)),
        other => panic!("already held was expected: {other:?}"),
    }
}

pub(crate) async fn a_guard_takes_its_place_behind_another_of_its_holder_that_comes_first<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b, c) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let (to_b, to_c) = (guard(), guard());
    unserved(&a, &b, &to_b).await;
    assert_short(&stand(&c, &to_c).await);
    give(&b, &granted(&b, &to_b).await).await;
    assert_eq!(granted(&c, &to_c).await.token, Some(to_c.token), "it has its place");
}

/// A lock that has ended by itself while a living process waits: the place is taken, and served by nobody yet.
async fn unserved<S: Store>(holding: &S, waiting: &S, ask_waiting: &Ask) {
    take(holding, &Ask { ttl: millis(500), ..ask("a") }).await;
    stand(waiting, ask_waiting).await;
    eventually(async || occupant(holding, &tag()).await.is_none()).await;
}

pub(crate) async fn a_holder_that_is_granted_elsewhere_takes_no_place<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b, c) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let to_b = ask("x");
    unserved(&a, &b, &to_b).await;
    let outcome = c.queue(&ask("x"), None, soon()).await.expect("healthy");
    assert!(matches!(outcome, Queued::AlreadyHeld(_)), "{outcome:?}");
    give(&b, &granted(&b, &to_b).await).await;
    assert_eq!(holder_id(&a).await, "");
}

pub(crate) async fn one_look_comes_behind_those_who_wait<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let to_b = ask("b");
    unserved(&a, &b, &to_b).await;
    let outcome = a.acquire(&ask("a"), soon()).await.expect("healthy");
    let Acquired::Contended { occupant, expires_in } = outcome else { panic!("b comes first: {outcome:?}") };
    assert_eq!(occupant.holder.id(), "b");
    assert!(expires_in <= LIVING.place, "{expires_in:?}");
    granted(&b, &to_b).await;
}

pub(crate) async fn a_look_from_the_queue_comes_behind_those_who_came_before<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let (to_a, to_b) = (ask("a"), ask("b"));
    unserved(&a, &b, &to_b).await;
    assert_short(&stand(&a, &to_a).await);
    give(&b, &granted(&b, &to_b).await).await;
    assert_eq!(holder_id(&b).await, "a", "it has its place");
}

pub(crate) async fn the_first_takes_a_free_lock_at_once<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let (first, second) = (ask("b1"), ask("b2"));
    unserved(&a, &b, &first).await;
    let outcome = b.queue(&second, Some(first.token), soon()).await.expect("healthy");
    let Queued::Granted(lease) = outcome else { panic!("the process comes first: {outcome:?}") };
    assert_eq!(lease.token, Some(second.token));
    assert_whole(&lease);
    give(&b, &lease).await;
    assert_eq!(holder_id(&a).await, "", "its place is gone");
}

pub(crate) async fn the_dead_are_passed_over<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, dead, c) = (open(LIVING).await, open(DYING).await, open(LIVING).await);
    let lease = take(&a, &ask("a")).await;
    stand(&dead, &ask("dead")).await;
    stand(&c, &ask("c")).await;
    pass(&a, DYING.place).await;
    give(&a, &lease).await;
    assert_eq!(holder_id(&a).await, "c");
}

pub(crate) async fn the_silent_are_passed_over_and_keep_their_places<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, silent, c) = (open(LIVING).await, open(SILENT).await, open(LIVING).await);
    let (to_silent, to_c) = (ask("silent"), ask("c"));
    let lease = take(&a, &ask("a")).await;
    stand(&silent, &to_silent).await;
    pass(&a, SILENT.place / 2).await;
    stand(&c, &to_c).await;
    give(&a, &lease).await;
    let lease = granted(&c, &to_c).await;
    stand(&a, &ask("d")).await;
    stand(&silent, &to_silent).await;
    give(&c, &lease).await;
    assert_eq!(holder_id(&a).await, "silent", "it came before d");
}

pub(crate) async fn who_was_silent_and_looks_comes_first_again<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, silent, c) = (open(LIVING).await, open(SILENT).await, open(LIVING).await);
    let (to_a, to_silent) = (Ask { ttl: millis(2100), ..ask("a") }, ask("silent"));
    take(&a, &to_a).await;
    stand(&silent, &to_silent).await;
    stand(&c, &ask("c")).await;
    // By now it is silent, and nobody has granted the lock to c.
    eventually(async || occupant(&a, &tag()).await.is_none()).await;
    assert_whole(&granted(&silent, &to_silent).await);
}

pub(crate) async fn what_is_granted_to_the_dead_ends_with_its_place<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, dead, c) = (open(LIVING).await, open(DYING).await, open(LIVING).await);
    let to_c = ask("c");
    let lease = take(&a, &ask("a")).await;
    stand(&c, &to_c).await;
    stand(&dead, &ask("dead")).await;
    give(&a, &lease).await;
    give(&c, &granted(&c, &to_c).await).await;
    // By now it has the lock, or its place has run out already.
    eventually(async || occupant(&a, &tag()).await.is_none()).await;
    take(&a, &ask("a")).await;
}

pub(crate) async fn who_leaves_is_not_served<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b, c) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let to_b = ask("b");
    let lease = take(&a, &ask("a")).await;
    stand(&b, &to_b).await;
    stand(&c, &ask("c")).await;
    assert_eq!(b.leave(&tag(), to_b.token, soon()).await.expect("healthy"), None);
    give(&a, &lease).await;
    assert_eq!(holder_id(&a).await, "c");
}

pub(crate) async fn who_leaves_too_late_has_the_lease<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let to_b = ask("b");
    let lease = take(&a, &ask("a")).await;
    stand(&b, &to_b).await;
    give(&a, &lease).await;
    let lease = b.leave(&tag(), to_b.token, soon()).await.expect("healthy").expect("granted meanwhile");
    assert_eq!((lease.holder.id(), lease.token), ("b", Some(to_b.token)));
    assert_short(&lease.clone().into());
    give(&b, &lease).await;
}

// --- hand-overs

pub(crate) async fn a_hand_over_grants_to_the_next<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, c) = (open(LIVING).await, open(LIVING).await);
    let next = ask("next");
    let first = take(&a, &ask("a")).await;
    stand(&c, &ask("c")).await;
    let outcome = hand(&a, &first, &next, false).await;
    let HandedOver::Granted { held: Some(_), lease } = outcome else { panic!("its turn: {outcome:?}") };
    assert_eq!((lease.token, lease.holder.id()), (Some(next.token), "next"));
    assert!(lease.fence > first.fence);
    assert_whole(&lease);
    give(&a, &lease).await;
    assert_eq!(holder_id(&a).await, "c", "it kept its place");
}

pub(crate) async fn a_hand_over_lets_others_go_first<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, c, d) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let (next, to_c, to_d) = (ask("next"), ask("c"), ask("d"));
    let first = take(&a, &ask("a")).await;
    // This process came first, and has had its turn.
    stand(&a, &next).await;
    stand(&c, &to_c).await;
    stand(&d, &to_d).await;
    let outcome = hand(&a, &first, &next, true).await;
    let HandedOver::Passed { held: Some(_), occupant, expires_in } = outcome else {
        panic!("another's turn: {outcome:?}")
    };
    assert_eq!(occupant.holder.id(), "c");
    assert!(expires_in <= LIVING.place, "{expires_in:?}");
    give(&c, &granted(&c, &to_c).await).await;
    assert_eq!(holder_id(&a).await, "d");
    give(&d, &granted(&d, &to_d).await).await;
    assert_eq!(holder_id(&a).await, "next", "it stands at the end");
}

pub(crate) async fn others_first_with_no_others_grants_to_the_next<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let next = ask("next");
    let lease = take(&a, &ask("a")).await;
    stand(&a, &next).await;
    let outcome = hand(&a, &lease, &next, true).await;
    let HandedOver::Granted { lease, .. } = outcome else { panic!("no other waits: {outcome:?}") };
    assert_whole(&lease);
}

pub(crate) async fn a_hand_over_gives_up_the_place_of_its_process<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let next = ask("next");
    let lease = take(&a, &ask("a")).await;
    stand(&a, &next).await;
    let outcome = hand(&a, &lease, &next, false).await;
    let HandedOver::Granted { lease, .. } = outcome else { panic!("its turn: {outcome:?}") };
    give(&a, &lease).await;
    assert_eq!(holder_id(&a).await, "");
}

pub(crate) async fn a_repeated_hand_over_grants_nothing<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let (next, request) = (ask("next"), RequestId::random());
    let first = take(&a, &ask("a")).await;
    let outcome = a.hand_over(Whose::of(&first), request, &next, false, soon()).await.expect("healthy");
    let HandedOver::Granted { lease, .. } = outcome else { panic!("its turn: {outcome:?}") };
    give(&a, &lease).await;
    let outcome = a.hand_over(Whose::of(&first), request, &next, false, soon()).await.expect("healthy");
    assert!(matches!(outcome, HandedOver::Repeated), "{outcome:?}");
    let outcome = a.release(Whose::of(&first), request, soon()).await.expect("healthy");
    assert!(matches!(outcome, Released::Released { held: None }), "{outcome:?}");
    assert_eq!(holder_id(&a).await, "");
}

pub(crate) async fn only_the_holder_hands_over<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let lease = take(&a, &ask("a")).await;
    let strangers = Lease { holder: ask("b").holder, ..lease.clone() };
    let outcome = hand(&b, &strangers, &ask("next"), false).await;
    assert!(matches!(outcome, HandedOver::Not(NotYours::Occupied(_))), "{outcome:?}");
    give(&a, &lease).await;
    let outcome = hand(&a, &lease, &ask("next"), true).await;
    assert!(matches!(outcome, HandedOver::Not(NotYours::Free { last: Some(_) })), "{outcome:?}");
    assert_eq!(holder_id(&a).await, "");
}

async fn sweep(store: &impl Store, lease: &Lease) -> Released {
    store.sweep(lease, RequestId::random(), soon()).await.expect("healthy")
}

pub(crate) async fn what_nobody_relies_on_is_swept<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let lease = take(&a, &ask("a")).await;
    let another = Lease { token: Some(Token::random()), ..lease.clone() };
    assert!(matches!(sweep(&b, &another).await, Released::Not(_)), "by its token");
    assert!(matches!(sweep(&b, &lease).await, Released::Released { held: Some(_) }));
    assert_eq!(holder_id(&a).await, "");
    assert!(matches!(sweep(&b, &lease).await, Released::Not(_)));
}

pub(crate) async fn what_its_holder_was_told_of_is_not_swept<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    for way in 0..4 {
        let to_a = ask("a");
        let lease = take(&a, &to_a).await;
        match way {
            0 => drop(b.acquire(&ask("a"), soon()).await.expect("healthy")),
            1 => drop(b.queue(&ask("a"), None, soon()).await.expect("healthy")),
            2 => drop(b.extend(Whose::of(&lease), Ttl::HOUR, Reach::AtLeast, soon()).await.expect("healthy")),
            _ => drop(
                b.extend(Whose::of(&lease), millis(1000), Reach::AtLeast, soon()).await.expect("healthy"),
            ),
        }
        assert!(matches!(sweep(&a, &lease).await, Released::Not(_)), "way {way}");
        let left = occupant(&a, &tag()).await.expect("it stands");
        assert!(lasts(&left) > Duration::from_secs(3000), "as long as before: {left:?}");
        // The call that was granted it finds it as before.
        let found = a.find(&tag(), to_a.token, soon()).await.expect("healthy").expect("its own");
        assert_eq!(found.fence, lease.fence);
        assert!(
            matches!(a.acquire(&to_a, soon()).await, Ok(Acquired::Adopted { lease: adopted, .. }) if adopted.fence == lease.fence)
        );
        give(&b, &lease).await;
    }
}

pub(crate) async fn a_guard_is_swept_whoever_asks_for_another<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let lease = take(&a, &guard()).await;
    b.acquire(&guard(), soon()).await.expect("healthy");
    b.extend(Whose::of(&lease), Ttl::HOUR, Reach::AtLeast, soon()).await.expect("healthy");
    assert!(matches!(sweep(&a, &lease).await, Released::Released { .. }));
}

pub(crate) async fn a_guard_that_is_swept_serves_another_of_the_same_holder<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let to_b = guard();
    let lease = take(&a, &guard()).await;
    stand(&b, &to_b).await;
    let another = Lease { token: Some(Token::random()), ..lease.clone() };
    assert!(matches!(sweep(&a, &another).await, Released::Not(_)), "by its token");
    assert!(matches!(sweep(&a, &lease).await, Released::Released { .. }));
    let next = granted(&b, &to_b).await;
    assert_eq!(next.token, Some(to_b.token));
    assert!(matches!(sweep(&a, &lease).await, Released::Not(_)), "of the same holder, and another's");
    assert_eq!(occupant(&a, &tag()).await.map(|seen| seen.fence), Some(next.fence));
}

pub(crate) async fn a_guard_that_was_served_is_swept_although_another_asked<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b, c) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let to_b = guard();
    unserved(&a, &b, &to_b).await;
    // Its look grants the lock to the process that came before.
    let outcome = c.acquire(&guard(), soon()).await.expect("healthy");
    assert!(matches!(outcome, Acquired::Contended { .. }), "{outcome:?}");
    let lease = a.find(&tag(), to_b.token, soon()).await.expect("healthy").expect("granted");
    assert!(matches!(sweep(&b, &lease).await, Released::Released { .. }));
}

/// It is exactly one grant that its guard prolongs, never the next one of the same holder.
pub(crate) async fn an_extend_of_a_guard_names_its_fence<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let extend = async |lease: &Lease| {
        a.extend(Whose::of(lease), Ttl::MAX, Reach::AtLeast, soon()).await.expect("healthy")
    };
    let before = take(&a, &guard()).await;
    match extend(&before).await {
        Extended::Extended { lease, margin } => {
            assert_eq!((lease.fence, lease.kind, lease.token), (before.fence, LeaseKind::Guard, None));
            assert!(margin > Duration::from_secs(3500) && margin <= Ttl::HOUR.duration(), "{margin:?}");
        }
        other => panic!("it stands: {other:?}"),
    }
    let identity = Lease { kind: LeaseKind::Identity, ..before.clone() };
    assert!(matches!(extend(&identity).await, Extended::Not(NotYours::Occupied(_))), "it is no identity's");
    give(&a, &before).await;
    match extend(&before).await {
        Extended::Not(NotYours::Free { last }) => assert_eq!(last, Some(before.fence)),
        other => panic!("it has ended: {other:?}"),
    }
    let next = take(&b, &guard()).await;
    match extend(&before).await {
        Extended::Not(NotYours::Occupied(occupant)) => assert_eq!(occupant.fence, next.fence),
        other => panic!("it is the next one's: {other:?}"),
    }
    assert!(lasts(&occupant(&a, &tag()).await.expect("held")) < Duration::from_secs(3700), "untouched");
}

pub(crate) async fn what_its_holder_was_told_as_it_was_granted_is_not_swept<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let (a, b, c) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let to_b = ask("x");
    unserved(&a, &b, &to_b).await;
    // Its look grants the lock to the process that came before, which waits for the same holder.
    let outcome = c.acquire(&ask("x"), soon()).await.expect("healthy");
    assert!(matches!(outcome, Acquired::AlreadyHeld(_)), "{outcome:?}");
    let lease = a.find(&tag(), to_b.token, soon()).await.expect("healthy").expect("granted");
    assert!(matches!(sweep(&b, &lease).await, Released::Not(_)));
}

pub(crate) async fn a_repeated_sweep_is_answered_as_the_first<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let lease = take(&a, &ask("a")).await;
    stand(&b, &ask("b")).await;
    let request = RequestId::random();
    for held in [true, false] {
        match a.sweep(&lease, request, soon()).await.expect("healthy") {
            Released::Released { held: seen } => assert_eq!(seen.is_some(), held),
            other => panic!("it was released: {other:?}"),
        }
        assert_eq!(holder_id(&a).await, "b");
    }
}

pub(crate) async fn what_is_swept_serves_the_queue<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let lease = take(&a, &ask("a")).await;
    stand(&b, &ask("b")).await;
    assert!(matches!(sweep(&a, &lease).await, Released::Released { .. }));
    assert_eq!(holder_id(&a).await, "b");
}

pub(crate) async fn a_forced_release_serves_the_queue<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let to_b = ask("b");
    take(&a, &ask("a")).await;
    stand(&b, &to_b).await;
    let outcome = a.force_release(&tag(), "boss", "shift ended", soon()).await.expect("healthy");
    let Forced::Ended(Some(ended)) = outcome else { panic!("a's lease ends: {outcome:?}") };
    assert_eq!((ended.holder.id(), holder_id(&a).await.as_str()), ("a", "b"));
    assert_short(&occupant(&a, &tag()).await.expect("held"));
    granted(&b, &to_b).await;
}

// --- what is heard

pub(crate) async fn what_happens_is_said<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let mut feed = follow(&b, &[Topic::Tag(tag())]).await;
    let to_b = ask("b");
    let lease = take(&a, &ask("a")).await;
    let taken = event(&mut feed).await;
    assert_eq!((in_words(&taken).as_str(), taken.tag()), ("taken a", Some(&tag())));
    let occupant = taken.occupant().expect("about a lease");
    assert_eq!((occupant.fence, occupant.since, occupant.note.as_str()), (lease.fence, lease.since, "ARM"));

    a.extend(Whose::of(&lease), millis(1000), Reach::AtLeast, soon()).await.expect("healthy");
    a.extend(Whose::of(&lease), Ttl::MAX, Reach::AtLeast, soon()).await.expect("healthy");
    let extended = event(&mut feed).await;
    assert_eq!(in_words(&extended), "extended a");
    assert!(lasts(extended.occupant().expect("about a lease")) > Duration::from_secs(29 * 24 * 3600));
    stand(&b, &to_b).await;
    give(&a, &lease).await;
    assert_eq!(events(&mut feed, 2).await, ["released a", "taken b"]);
    let lease = granted(&b, &to_b).await;
    assert_eq!(events(&mut feed, 1).await, ["extended b"]);
    hand(&b, &lease, &ask("next"), false).await;
    assert_eq!(events(&mut feed, 2).await, ["released b", "taken next"]);
    a.force_release(&tag(), "boss|%", "shift ended", soon()).await.expect("healthy");
    match event(&mut feed).await {
        Event::Forced { occupant, by, why, at } => {
            let told = (occupant.holder.id(), by.as_str(), why.as_str());
            assert_eq!(told, ("next", "boss|%", "shift ended"));
            assert!(at >= occupant.since);
        }
        other => panic!("forced was expected: {other:?}"),
    }
}

pub(crate) async fn each_event_comes_once<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let mut feed = follow(&a, &[Topic::All, Topic::Tag(tag())]).await;
    give(&a, &take(&a, &ask("a")).await).await;
    take(&a, &Ask { tag: elsewhere(), ..ask("b") }).await;
    assert_eq!(events(&mut feed, 3).await, ["taken a", "released a", "taken b"]);
}

pub(crate) async fn other_tags_are_not_heard<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let mut feed = follow(&a, &[Topic::Grants, Topic::Tag(tag())]).await;
    take(&a, &Ask { tag: elsewhere(), ..ask("b") }).await;
    take(&a, &ask("a")).await;
    assert_eq!(events(&mut feed, 1).await, ["taken a"]);
}

pub(crate) async fn what_is_not_followed_any_more_is_not_heard<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let mut feed = follow(&a, &[Topic::Tag(tag())]).await;
    feed.topics.unfollow(&Topic::Tag(tag())).await.expect("healthy");
    // What is asked for later is followed later: by then the other is not.
    follow_too(&mut feed, &Topic::Tag(elsewhere())).await;
    take(&a, &ask("a")).await;
    take(&a, &Ask { tag: elsewhere(), ..ask("b") }).await;
    assert_eq!(events(&mut feed, 1).await, ["taken b"]);
}

pub(crate) async fn only_who_was_granted_the_lock_is_told_so<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b, c) = (open(LIVING).await, open(LIVING).await, open(LIVING).await);
    let to_b = ask("b");
    let mut told = follow(&b, &[Topic::Grants]).await;
    let mut not_told = follow(&c, &[Topic::Grants, Topic::Tag(tag())]).await;
    let mut deaf = follow(&b, &[Topic::Tag(tag())]).await;
    let lease = take(&a, &ask("a")).await;
    stand(&b, &to_b).await;
    stand(&c, &ask("c")).await;
    give(&a, &lease).await;
    match hear(&mut told).await {
        News::Granted(granted) => assert_eq!(granted, tag()),
        other => panic!("a grant was expected: {other:?}"),
    }
    // Who is granted the lock by its own look knows already.
    granted(&b, &to_b).await;
    for feed in [&mut not_told, &mut deaf] {
        assert_eq!(events(feed, 4).await, ["taken a", "released a", "taken b", "extended b"]);
    }
}

pub(crate) async fn an_end_by_itself_is_not_said<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let mut feed = follow(&a, &[Topic::Tag(tag())]).await;
    take(&a, &Ask { ttl: millis(50), ..ask("a") }).await;
    eventually(async || occupant(&a, &tag()).await.is_none()).await;
    take(&a, &ask("b")).await;
    assert_eq!(events(&mut feed, 2).await, ["taken a", "taken b"]);
}

// --- what is remembered

fn remembering(entries: u32, kept: Duration) -> Rules {
    Rules { history: Some((entries, kept)), ..LIVING }
}

async fn remembered(store: &impl Store) -> Vec<String> {
    store.history(&tag(), soon()).await.expect("healthy").iter().map(in_words).collect()
}

pub(crate) async fn grants_and_ends_are_remembered<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let rules = remembering(32, Duration::from_secs(3600));
    let (a, b) = (open(rules).await, open(rules).await);
    let to_b = ask("b");
    let lease = take(&a, &ask("a")).await;
    a.extend(Whose::of(&lease), Ttl::MAX, Reach::AtLeast, soon()).await.expect("healthy");
    stand(&b, &to_b).await;
    give(&a, &lease).await;
    hand(&b, &granted(&b, &to_b).await, &ask("next"), false).await;
    a.force_release(&tag(), "boss|%", "shift ended", soon()).await.expect("healthy");
    let told = ["taken a", "released a", "taken b", "released b", "taken next", "forced next"];
    assert_eq!(remembered(&a).await, told);
    assert_eq!(remembered(&b).await, told);
    match b.history(&tag(), soon()).await.expect("healthy").pop() {
        Some(Event::Forced { by, why, .. }) => {
            assert_eq!((by.as_str(), why.as_str()), ("boss|%", "shift ended"))
        }
        other => panic!("forced was expected: {other:?}"),
    }
    assert!(a.history(&elsewhere(), soon()).await.expect("healthy").is_empty());
}

pub(crate) async fn as_many_grants_are_remembered_as_there_is_room_for<S: Store>(
    open: impl AsyncFn(Rules) -> S,
) {
    let a = open(remembering(2, Duration::from_secs(3600))).await;
    for holder in ["a", "b", "c"] {
        give(&a, &take(&a, &ask(holder)).await).await;
    }
    assert_eq!(remembered(&a).await, ["taken b", "released b", "taken c", "released c"]);
}

pub(crate) async fn history_is_forgotten_in_time<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(remembering(32, Duration::from_millis(300))).await;
    let lease = take(&a, &ask("a")).await;
    give(&a, &lease).await;
    eventually(async || remembered(&a).await.is_empty()).await;
    let began = lease.since;
    let forgotten = take(&a, &ask("b")).await.since;
    assert!(forgotten >= began + Duration::from_millis(290), "not before its time");
}

pub(crate) async fn without_history_nothing_is_remembered<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    give(&a, &take(&a, &ask("a")).await).await;
    assert!(remembered(&a).await.is_empty());
}
