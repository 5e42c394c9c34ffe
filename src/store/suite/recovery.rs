//! What was lost is put back, and nothing else is; what stands is seen in one look; an extend reaches no further than it is asked to.

use super::*;

/// A lease of which the store knows nothing: it was granted for another tag.
async fn lost(store: &impl Store, ask: &Ask) -> Lease {
    let lease = take(store, &Ask { tag: Tag::new("LOST").expect("a tag"), ..ask.clone() }).await;
    give(store, &lease).await;
    Lease { tag: ask.tag.clone(), ..lease }
}

async fn restore(store: &impl Store, lease: &Lease) -> Restored {
    store.restore(lease, Ttl::HOUR, soon()).await.expect("healthy")
}

async fn put_back(store: &impl Store, lease: &Lease) -> Lease {
    match restore(store, lease).await {
        Restored::Restored(lease) => lease,
        other => panic!("it was to be put back: {other:?}"),
    }
}

/// The last fence, where nothing is put back because the lease has ended.
async fn refused(store: &impl Store, lease: &Lease) -> Option<Fence> {
    match restore(store, lease).await {
        Restored::Not(NotYours::Free { last }) => last,
        other => panic!("it has ended: {other:?}"),
    }
}

pub(crate) async fn what_was_lost_is_put_back_as_it_was<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    for kind in [LeaseKind::Identity, LeaseKind::Guard] {
        let holder = Holder::new("a|%", "M%R(93)|").expect("a holder");
        let to_a = Ask { kind, holder, note: "ARM|50%".to_owned(), ..ask("a") };
        let before = lost(&a, &to_a).await;
        let lease = put_back(&a, &before).await;
        let expires_at = lease.expires_at;
        assert_eq!(lease, Lease { expires_at, ..before.clone() });
        let left = expires_at.duration_since(before.since).expect("it ends after it began");
        assert!(left >= Ttl::HOUR.duration(), "from now on: {left:?}");
        assert_eq!(lease.holder.name(), before.holder.name());
        let seen = occupant(&b, &tag()).await.expect("it stands");
        assert_eq!((seen.fence, seen.since, seen.kind), (before.fence, before.since, kind));
        // Its token is known again, and so is its holder.
        let adopted = b.acquire(&to_a, soon()).await.expect("healthy");
        assert!(matches!(adopted, Acquired::Adopted { lease, .. } if lease.fence == before.fence));
        let extended =
            b.extend(Whose::of(&before), Ttl::HOUR, Reach::AtLeast, soon()).await.expect("healthy");
        assert!(matches!(extended, Extended::Extended { .. }), "{extended:?}");
        give(&b, &before).await;
        let next = take(&b, &ask("b")).await;
        assert!(next.fence > before.fence, "the counter is back, too");
        give(&b, &next).await;
    }
}

pub(crate) async fn a_lease_without_its_token_is_given_another<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let before = Lease { token: None, ..lost(&a, &guard()).await };
    let lease = put_back(&a, &before).await;
    let token = lease.token.expect("a new one");
    let found = a.find(&tag(), token, soon()).await.expect("healthy").expect("by its token");
    assert_eq!(found.fence, before.fence);
    assert!(matches!(sweep(&a, &lease).await, Released::Released { .. }), "nobody else relies on it");
}

pub(crate) async fn an_identity_that_is_put_back_is_relied_on<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let lease = put_back(&a, &lost(&a, &ask("a")).await).await;
    assert!(matches!(sweep(&a, &lease).await, Released::Not(NotYours::Occupied(_))));
}

pub(crate) async fn what_stands_is_not_put_back_again<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let granted = take(&a, &ask("a")).await;
    for lease in [&granted, &Lease { token: None, ..granted.clone() }] {
        match b.restore(lease, Ttl::MAX, soon()).await.expect("healthy") {
            Restored::Stands(standing) => {
                assert_eq!(standing.fence, granted.fence);
                assert!(lasts(&standing) < Duration::from_secs(3601), "untouched: {standing:?}");
            }
            other => panic!("it stands: {other:?}"),
        }
    }
    assert!(matches!(sweep(&a, &granted).await, Released::Released { .. }), "by its old token");
    let lost = lost(&a, &Ask { tag: elsewhere(), ..ask("a") }).await;
    put_back(&a, &lost).await;
    assert!(matches!(restore(&b, &lost).await, Restored::Stands(_)));
}

pub(crate) async fn what_another_has_is_not_put_back<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let before = lost(&a, &ask("a")).await;
    let standing = take(&b, &ask("b")).await;
    let later = lost(&a, &ask("a")).await;
    assert!(before.fence < standing.fence && standing.fence < later.fence);
    let same_fence = Lease { fence: standing.fence, ..before.clone() };
    let as_guard = Lease { kind: LeaseKind::Guard, ..standing.clone() };
    for lease in [before, later, same_fence, as_guard] {
        match restore(&a, &lease).await {
            Restored::Not(NotYours::Occupied(occupant)) => assert_eq!(occupant.fence, standing.fence),
            other => panic!("b has it: {other:?}"),
        }
    }
    give(&b, &standing).await;
}

pub(crate) async fn what_has_ended_is_not_put_back<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    for way in 0..4 {
        let ttl = if way == 2 { millis(50) } else { Ttl::HOUR };
        let lease = take(&a, &Ask { ttl, ..ask("a") }).await;
        let mut last = lease.fence;
        match way {
            0 => give(&a, &lease).await,
            1 => drop(a.force_release(&tag(), "ops", "stuck", soon()).await.expect("healthy")),
            2 => eventually(async || occupant(&a, &tag()).await.is_none()).await,
            _ => {
                give(&a, &lease).await;
                let next = take(&b, &ask("b")).await;
                last = next.fence;
                give(&b, &next).await;
            }
        }
        assert_eq!(refused(&b, &lease).await, Some(last), "way {way}");
        assert_eq!(holder_id(&a).await, "", "way {way}");
    }
}

pub(crate) async fn what_is_put_back_stands_before_those_who_wait<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let (a, b) = (open(LIVING).await, open(LIVING).await);
    let to_b = ask("b");
    // The store knows of an earlier grant: its latest data is lost.
    unserved(&a, &b, &to_b).await;
    let lease = put_back(&a, &lost(&a, &ask("a")).await).await;
    assert_eq!(stand(&b, &to_b).await.fence, lease.fence);
    assert_eq!(holder_id(&a).await, "a");
    give(&a, &lease).await;
    let next = granted(&b, &to_b).await;
    assert!(next.fence > lease.fence);
}

pub(crate) async fn what_is_put_back_is_said_and_remembered<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(Rules { history: Some((32, Duration::from_secs(3600))), ..LIVING }).await;
    let before = lost(&a, &ask("a")).await;
    let mut feed = follow(&a, &[Topic::Tag(tag())]).await;
    put_back(&a, &before).await;
    restore(&a, &before).await;
    give(&a, &before).await;
    refused(&a, &before).await;
    let said = [event(&mut feed).await, event(&mut feed).await];
    assert_eq!(said.each_ref().map(in_words), ["taken a", "released a"]);
    assert_eq!(said[0].occupant().map(|told| (told.fence, told.since)), Some((before.fence, before.since)));
    assert_eq!(a.history(&tag(), soon()).await.expect("healthy"), said);
}

pub(crate) async fn one_look_sees_many_tags_in_their_order<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let tags: Vec<_> = (0..250).map(|number| Tag::new(format!("T{number}")).expect("a tag")).collect();
    let mut right = Vec::new();
    for (number, tag) in tags.iter().enumerate() {
        let to_a = Ask { tag: tag.clone(), ..ask(&format!("h{number}")) };
        right.push(match number % 3 {
            0 => None,
            1 => Some((true, take(&a, &to_a).await)),
            _ => {
                let lease = take(&a, &to_a).await;
                give(&a, &lease).await;
                Some((false, lease))
            }
        });
    }
    let seen = a.look(&tags, soon()).await.expect("healthy");
    assert_eq!(seen.len(), right.len());
    for (seen, right) in seen.into_iter().zip(right) {
        match (seen.expect("no other value is there"), right) {
            (Seen::Held(occupant), Some((true, lease))) => {
                assert_eq!((&occupant.tag, &occupant.holder), (&lease.tag, &lease.holder));
                assert_eq!((occupant.fence, occupant.since), (lease.fence, lease.since));
            }
            (Seen::Free { last }, Some((false, lease))) => assert_eq!(last, Some(lease.fence)),
            (Seen::Free { last: None }, None) => {}
            (seen, right) => panic!("{seen:?} instead of {right:?}"),
        }
    }
    assert_eq!(a.look(&[], soon()).await.expect("healthy"), []);
}

pub(crate) async fn an_extend_reaches_as_far_as_it_is_asked_to<S: Store>(open: impl AsyncFn(Rules) -> S) {
    let a = open(LIVING).await;
    let (short, long) = (millis(1_200_000), millis(6_000_000));
    for (reach, ttl, right) in [
        (Reach::AtLeast, short, Ttl::HOUR),
        (Reach::AtLeast, long, long),
        (Reach::Exactly, short, short),
        (Reach::Exactly, long, long),
        (Reach::AtMost, short, short),
        (Reach::AtMost, long, Ttl::HOUR),
    ] {
        let lease = take(&a, &ask("a")).await;
        let told = match a.extend(Whose::of(&lease), ttl, reach, soon()).await.expect("healthy") {
            Extended::Extended { lease, .. } => lease.into(),
            other => panic!("{reach:?}: {other:?}"),
        };
        for seen in [told, occupant(&a, &tag()).await.expect("it stands")] {
            let lasts = lasts(&seen).as_secs_f64();
            assert!((lasts - right.duration().as_secs_f64()).abs() < 100.0, "{reach:?} {ttl}: {lasts} s");
        }
        give(&a, &lease).await;
    }
}
