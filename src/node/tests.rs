//! What each fault counts against, for each kind of call, and what a probe makes of it.

use tokio::time::advance;

use super::*;

const PURPOSES: [Purpose; 4] = [Purpose::Read, Purpose::Acquire, Purpose::Keep, Purpose::Sweep];

/// How long nothing is tried that an operator has to mend.
const HALF_A_MINUTE: Duration = Duration::from_secs(30);

/// What the server says to a user who may not run scripts.
const NO_SCRIPTS: &str = "NOPERM: User svc has no permissions to run the 'evalsha' command";
/// And to one who lacks a command within one.
const NOT_WITHIN: &str = "ERR: The user executing the script can't run this command or subcommand";

fn node() -> Node {
    Node::new(CircuitConfig::default(), RetryConfig::default())
}

fn ends(node: &Node, purpose: Purpose, outcome: Result<(), Fault>) {
    node.admit(purpose, Instant::now()).expect("it is let through").settle(&outcome);
}

fn fails(node: &Node, purpose: Purpose, kind: FaultKind) {
    ends(node, purpose, Err(kind.into()));
}

/// Fails with `kind` until the circuit is open that it counts against.
fn is_open_for(kind: FaultKind) -> Node {
    let node = node();
    for _ in 0..3 {
        if node.mode() == Mode::Normal {
            fails(&node, Purpose::Acquire, kind);
        }
    }
    assert_ne!(node.mode(), Mode::Normal, "{kind:?}");
    node
}

/// Which circuit the same fault opens, over and over, and after how often.
fn opens(purpose: Purpose, fault: impl Fn() -> Fault) -> Option<(Mode, u32)> {
    let node = node();
    (1..=4).find_map(|times| {
        ends(&node, purpose, Err(fault()));
        let (link, writes) = (node.link.state(), node.writes.state());
        assert!(link == CircuitState::Closed || writes == CircuitState::Closed, "never both");
        node.mode().is_degraded().then(|| (node.mode(), times))
    })
}

/// Lets the time pass until a probe is due, and says what it found.
async fn probe_finds(node: &Node, outcome: Result<(), Fault>) {
    let due = node.probe_at().expect("something is open");
    assert!(due > Instant::now() && node.probe().is_none(), "not before it is due");
    advance(due - Instant::now()).await;
    node.probe().expect("it is due").settle(&outcome);
}

#[tokio::test(start_paused = true)]
async fn each_fault_counts_against_one_circuit_or_none_by_what_the_call_wanted() {
    use FaultKind::*;
    let link = [Timeout, Disconnected, Connect, ClosedInHandshake, MaxClients, Loading, Busy];
    let writes = [ReadOnly, Misconf, OutOfMemory, NoReplicas];
    let nobody = [CheckoutTimeout, Saturated, NotALock, FenceRegression, Late, Protocol, Other, CircuitOpen];
    let setup = [Auth, Tls, Permission];
    assert_eq!(link.len() + writes.len() + nobody.len() + setup.len(), FaultKind::ALL.len(), "every kind");
    for purpose in PURPOSES {
        for kind in link {
            assert_eq!(opens(purpose, || kind.into()), Some((Mode::Unreachable, 3)), "{kind:?}, {purpose:?}");
        }
        for kind in writes {
            // A read that is refused as a write has no answer either.
            let mode = if purpose == Purpose::Read { Mode::Unreachable } else { Mode::ReadOnlyServer };
            assert_eq!(opens(purpose, || kind.into()), Some((mode, 3)), "{kind:?}, {purpose:?}");
        }
        for kind in nobody {
            assert_eq!(opens(purpose, || kind.into()), None, "{kind:?}, {purpose:?}");
        }
        for (kind, said) in [(Auth, "WRONGPASS"), (Tls, "UnknownIssuer"), (Permission, NO_SCRIPTS)] {
            let outcome = opens(purpose, || Fault::new(kind, said));
            assert_eq!(outcome, Some((Mode::Unreachable, 1)), "{said}, {purpose:?}: at once");
        }
        let within = opens(purpose, || Fault::new(Permission, NOT_WITHIN));
        // What one kind of read may not do is its own affair.
        let expected = (purpose != Purpose::Read).then_some((Mode::ReadOnlyServer, 1));
        assert_eq!(within, expected, "{purpose:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_an_acquire_that_succeeds_ends_a_run_of_write_faults() {
    for (purpose, ends_it) in
        [(Purpose::Read, false), (Purpose::Keep, false), (Purpose::Sweep, false), (Purpose::Acquire, true)]
    {
        let node = node();
        for _ in 0..2 {
            fails(&node, Purpose::Acquire, FaultKind::OutOfMemory);
        }
        ends(&node, purpose, Ok(()));
        fails(&node, Purpose::Acquire, FaultKind::OutOfMemory);
        assert_eq!(node.mode() == Mode::Normal, ends_it, "{purpose:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_succeeds_does_not_close_the_circuit_of_writes() {
    let node = is_open_for(FaultKind::OutOfMemory);
    for purpose in [Purpose::Keep, Purpose::Sweep, Purpose::Read] {
        ends(&node, purpose, Ok(()));
        assert_eq!(node.mode(), Mode::ReadOnlyServer, "{purpose:?}");
    }
}

/// Who says that he takes no writes is there.
#[tokio::test(start_paused = true)]
async fn a_refused_write_ends_a_run_of_faults_of_the_link() {
    for (kind, ends_it) in
        [(FaultKind::OutOfMemory, true), (FaultKind::NotALock, false), (FaultKind::Saturated, false)]
    {
        let node = node();
        for _ in 0..2 {
            fails(&node, Purpose::Acquire, FaultKind::Timeout);
        }
        fails(&node, Purpose::Acquire, kind);
        fails(&node, Purpose::Acquire, FaultKind::Timeout);
        assert_eq!(node.link.state() == CircuitState::Closed, ends_it, "{kind:?}");
    }
    // And closes one that is open: a release passes it.
    let node = is_open_for(FaultKind::Timeout);
    fails(&node, Purpose::Keep, FaultKind::OutOfMemory);
    assert_eq!(node.mode(), Mode::Normal);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_lets_through_what_it_says_and_no_more() {
    let passing = |node: &Node| PURPOSES.map(|purpose| node.admit(purpose, Instant::now()).is_ok());
    let by_hand = |which: fn(&Node) -> &Circuit| {
        let node = node();
        which(&node).force_open();
        node
    };
    //                                                  read, acquire, keep, sweep
    assert_eq!(passing(&node()), [true; 4]);
    assert_eq!(passing(&is_open_for(FaultKind::Timeout)), [false, false, true, false]);
    assert_eq!(passing(&is_open_for(FaultKind::ReadOnly)), [true, false, true, true]);
    assert_eq!(passing(&is_open_for(FaultKind::Auth)), [false; 4]);
    assert_eq!(passing(&by_hand(|node| &node.link)), [false, false, true, false]);
    assert_eq!(passing(&by_hand(|node| &node.writes)), [true, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_which_mode_until_when_and_why() {
    let node = node();
    for _ in 0..3 {
        ends(&node, Purpose::Acquire, Err(Fault::new(FaultKind::ReadOnly, "You can't write")));
    }
    let refused = node.admit(Purpose::Acquire, Instant::now()).unwrap_err();
    let refusal = refused.refusal().expect("it was refused");
    assert_eq!((refusal.mode, refusal.cause), (Mode::ReadOnlyServer, Some(FaultKind::ReadOnly)));
    assert_eq!(refusal.retry_after, node.writes.retry_after());
    assert!((125..=250).contains(&refusal.retry_after.as_millis()), "{:?}", refusal.retry_after);
    let cause = std::error::Error::source(&refused).expect("the last fault that counted");
    assert_eq!(cause.to_string(), FaultKind::ReadOnly.to_string());
    assert_eq!(cause.source().map(ToString::to_string), Some("You can't write".to_owned()));
    assert!(!refused.is_misconfigured());

    // The link comes first: where it is open nobody knows of writes.
    for _ in 0..3 {
        fails(&node, Purpose::Keep, FaultKind::Timeout);
    }
    let refusal = node.standing().unwrap_err().refusal().expect("it was refused");
    assert_eq!((refusal.mode, refusal.cause), (Mode::Unreachable, Some(FaultKind::Timeout)));
    node.link.reset();
    let refusal = node.standing().unwrap_err().refusal().expect("it was refused");
    assert_eq!((refusal.mode, refusal.cause), (Mode::ReadOnlyServer, Some(FaultKind::ReadOnly)));
    node.writes.reset();
    assert!(node.standing().is_ok() && node.mode() == Mode::Normal);
}

/// The last fault from before says nothing of it.
#[tokio::test(start_paused = true)]
async fn a_circuit_that_was_opened_by_hand_says_so() {
    let node = is_open_for(FaultKind::Auth);
    assert!(node.is_misconfigured() && node.is_held_open());
    node.link.reset();
    assert!(!node.is_misconfigured() && !node.is_held_open());
    node.link.force_open();
    assert!(node.is_held_open());
    let refused = node.admit(Purpose::Read, Instant::now()).unwrap_err();
    assert_eq!(refused.refusal().and_then(|refusal| refusal.cause), None);
    assert_eq!(std::error::Error::source(&refused).unwrap().to_string(), "the circuit was opened by hand");
    assert_eq!((node.probe_at(), node.probe().is_some()), (None, false), "and it is not probed");
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_has_to_mend_is_tried_each_30_s() {
    let node = is_open_for(FaultKind::Auth);
    for _ in 0..5 {
        assert_eq!(node.link.retry_after(), HALF_A_MINUTE);
        assert!(
            PURPOSES
                .iter()
                .all(|purpose| node.admit(*purpose, Instant::now()).is_err_and(|it| it.is_misconfigured()))
        );
        advance(HALF_A_MINUTE - Duration::from_millis(1)).await;
        assert!(node.probe().is_none());
        advance(Duration::from_millis(1)).await;
        let probe = node.probe().expect("it is due");
        assert!(
            node.probe().is_none() && node.admit(Purpose::Keep, Instant::now()).is_err(),
            "one at a time, and nothing beside"
        );
        probe.settle(&Err(FaultKind::Auth.into()));
    }
    probe_finds(&node, Ok(())).await;
    assert!(node.mode() == Mode::Normal && node.standing().is_ok() && !node.is_misconfigured());
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_the_link_closes_it_where_redis_answers() {
    for (kind, said, mode) in [
        (FaultKind::Timeout, "", Mode::Unreachable),
        (FaultKind::Loading, "", Mode::Unreachable),
        (FaultKind::Auth, "", Mode::Unreachable),
        (FaultKind::Permission, NO_SCRIPTS, Mode::Unreachable),
        // It proves nothing.
        (FaultKind::Saturated, "", Mode::Unreachable),
        (FaultKind::Protocol, "", Mode::Unreachable),
        // It answered; one refused write is not three.
        (FaultKind::ReadOnly, "", Mode::Normal),
        (FaultKind::OutOfMemory, "", Mode::Normal),
        (FaultKind::Permission, NOT_WITHIN, Mode::ReadOnlyServer),
    ] {
        let node = is_open_for(FaultKind::Timeout);
        probe_finds(&node, Err(Fault::new(kind, said))).await;
        assert_eq!(node.mode(), mode, "{kind:?} {said}");
        let is_setup = matches!(kind, FaultKind::Auth | FaultKind::Permission);
        let pause = node.link.retry_after().max(node.writes.retry_after());
        assert_eq!(pause == HALF_A_MINUTE, is_setup, "{kind:?} {said}: {pause:?}");
        assert_eq!(node.is_misconfigured(), is_setup && mode == Mode::Unreachable, "{kind:?} {said}");
    }
    let node = is_open_for(FaultKind::Timeout);
    probe_finds(&node, Ok(())).await;
    assert_eq!(node.mode(), Mode::Normal);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_succeeds_closes_both() {
    let node = is_open_for(FaultKind::OutOfMemory);
    for _ in 0..3 {
        fails(&node, Purpose::Read, FaultKind::Timeout);
    }
    assert!(node.link.state() == CircuitState::Open && node.writes.state() == CircuitState::Open);
    probe_finds(&node, Ok(())).await;
    assert_eq!((node.mode(), node.probe_at()), (Mode::Normal, None));
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_writes_finds_each_of_both_ill() {
    for (kind, said, mode) in [
        (FaultKind::OutOfMemory, "", Mode::ReadOnlyServer),
        (FaultKind::Saturated, "", Mode::ReadOnlyServer),
        (FaultKind::Permission, NOT_WITHIN, Mode::ReadOnlyServer),
        (FaultKind::Auth, "", Mode::Unreachable),
        (FaultKind::Permission, NO_SCRIPTS, Mode::Unreachable),
    ] {
        let node = is_open_for(FaultKind::ReadOnly);
        probe_finds(&node, Err(Fault::new(kind, said))).await;
        assert_eq!(node.mode(), mode, "{kind:?} {said}");
        assert!(
            node.probe_at().is_some_and(|due| due > Instant::now()),
            "{kind:?}: the next one has a pause"
        );
    }
    let node = is_open_for(FaultKind::ReadOnly);
    probe_finds(&node, Ok(())).await;
    assert_eq!(node.mode(), Mode::Normal);
}

/// The probe of writes was given back where the link was at fault: the next one was due at once, and the next, without a pause and for
/// as long as nobody called.
#[tokio::test(start_paused = true)]
async fn a_demoted_server_that_then_loads_its_data_is_probed_with_pauses_and_opens_the_link() {
    for kind in [FaultKind::Loading, FaultKind::Busy, FaultKind::Timeout, FaultKind::Connect] {
        let node = is_open_for(FaultKind::ReadOnly);
        for _ in 0..3 {
            assert_eq!(node.mode(), Mode::ReadOnlyServer);
            probe_finds(&node, Err(kind.into())).await;
        }
        assert_eq!(node.mode(), Mode::Unreachable, "{kind:?}: it does not answer");
        probe_finds(&node, Ok(())).await;
        assert_eq!(node.mode(), Mode::Normal, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_health_check_counts_while_closed_and_can_only_close_what_is_open() {
    let node = node();
    node.check(Instant::now()).settle(&Err(FaultKind::Saturated.into()));
    for (kind, mode) in
        [(FaultKind::OutOfMemory, Mode::ReadOnlyServer), (FaultKind::Timeout, Mode::Unreachable)]
    {
        assert_eq!(node.mode(), Mode::Normal);
        for _ in 0..3 {
            node.check(Instant::now()).settle(&Err(kind.into()));
        }
        assert_eq!(node.mode(), mode, "three are enough");
        let due = node.probe_at();
        for _ in 0..3 {
            node.check(Instant::now()).settle(&Err(kind.into()));
            node.check(Instant::now()).settle(&Err(FaultKind::Saturated.into()));
        }
        assert_eq!((node.mode(), node.probe_at()), (mode, due), "more change nothing");
        node.check(Instant::now()).settle(&Ok(()));
    }
    assert_eq!(node.mode(), Mode::Normal, "whoever finds it well closes it before it is time");
    let asked_before = node.check(Instant::now());
    for _ in 0..3 {
        fails(&node, Purpose::Read, FaultKind::Timeout);
    }
    asked_before.settle(&Ok(()));
    assert_eq!(node.mode(), Mode::Unreachable, "what was asked before it opened says nothing");
    node.check(Instant::now()).settle(&Err(FaultKind::Auth.into()));
    assert!(node.is_misconfigured(), "but whoever asks is told what is known by now");
}

/// A connection that breaks takes all its calls with it.
#[tokio::test(start_paused = true)]
async fn calls_that_were_under_way_together_fail_as_one() {
    let node = node();
    let together = || (0..16).map(|_| node.admit(Purpose::Read, Instant::now()).unwrap()).collect::<Vec<_>>();
    for event in 1..=3 {
        let calls = together();
        advance(Duration::from_millis(1)).await;
        assert_eq!(node.mode(), Mode::Normal, "after {} events", event - 1);
        calls.into_iter().for_each(|call| call.settle(&Err::<(), _>(FaultKind::Disconnected.into())));
    }
    assert_eq!(node.mode(), Mode::Unreachable);
}

/// What was known of the password was forgotten when a call ended that had been under way.
#[tokio::test(start_paused = true)]
async fn a_call_that_ends_late_does_not_hide_what_an_operator_has_to_mend() {
    let node = node();
    let late = node.admit(Purpose::Read, Instant::now()).unwrap();
    advance(Duration::from_millis(1)).await;
    fails(&node, Purpose::Acquire, FaultKind::Auth);
    late.settle(&Err::<(), _>(FaultKind::Disconnected.into()));
    assert!(node.is_misconfigured() && node.admit(Purpose::Keep, Instant::now()).is_err());
}

#[tokio::test(start_paused = true)]
async fn one_fault_is_enough_for_the_mode_that_a_health_check_tells() {
    let node = node();
    for (kind, mode) in [
        (FaultKind::Timeout, Mode::Unreachable),
        (FaultKind::OutOfMemory, Mode::ReadOnlyServer),
        (FaultKind::Saturated, Mode::Normal),
    ] {
        assert_eq!(node.mode_by(Some(&kind.into())), mode, "{kind:?}");
    }
    assert_eq!(node.mode_by(None), Mode::Normal);
    let node = is_open_for(FaultKind::Timeout);
    assert_eq!(node.mode_by(Some(&FaultKind::OutOfMemory.into())), Mode::Unreachable, "the worse of both");
}

/// A wrong password of an hour ago is no reason to refuse a release today.
#[tokio::test(start_paused = true)]
async fn what_was_set_up_wrong_once_does_not_keep_releases_from_a_circuit_opened_by_hand() {
    let node = Node::new(CircuitConfig::default(), RetryConfig::default());
    let now = Instant::now();
    node.admit(Purpose::Read, now).unwrap().settle(&Err::<(), _>(FaultKind::Auth.into()));
    assert!(node.admit(Purpose::Keep, now).is_err());
    node.link.reset();
    node.link.force_open();
    assert!(node.admit(Purpose::Keep, now).is_ok());
    assert!(node.admit(Purpose::Acquire, now).is_err());
}

/// Calls of one broken connection, and looks at the health beside them, on several threads.
#[test]
fn one_event_counts_once_however_many_tell_of_it_at_once() {
    for round in 0..2000 {
        let node = Node::new(CircuitConfig::default(), RetryConfig::default());
        let began = Instant::now();
        let together = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (node, together) = (&node, &together);
                scope.spawn(move || {
                    let (ticket, check) = (node.admit(Purpose::Read, began).unwrap(), node.check(began));
                    together.wait();
                    match number % 2 {
                        0 => ticket.settle(&Err::<(), _>(FaultKind::Disconnected.into())),
                        _ => check.settle(&Err(FaultKind::Disconnected.into())),
                    }
                });
            }
        });
        assert_eq!(node.mode(), Mode::Normal, "round {round}");
    }
}

/// A ping that was under way when the password was changed.
#[tokio::test(start_paused = true)]
async fn what_comes_late_does_not_hide_that_an_operator_has_to_act() {
    let node = Node::new(CircuitConfig::default(), RetryConfig::default());
    let now = Instant::now();
    let ping = node.admit(Purpose::Read, now + Duration::from_millis(500)).unwrap();
    node.admit(Purpose::Read, now).unwrap().settle(&Err::<(), _>(FaultKind::Auth.into()));
    ping.settle(&Err::<(), _>(FaultKind::Disconnected.into()));
    assert!(node.is_misconfigured());
}

/// Writes that fail while the link is probed are not well because that probe is answered.
#[tokio::test(start_paused = true)]
async fn a_probe_does_not_close_what_opened_while_it_was_under_way() {
    let node = Node::new(CircuitConfig::default(), RetryConfig::default());
    for _ in 0..3 {
        node.admit(Purpose::Read, Instant::now()).unwrap().settle(&Err::<(), _>(FaultKind::Busy.into()));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!(node.mode(), Mode::Unreachable);
    tokio::time::advance(Duration::from_secs(1)).await;
    let probe = node.probe().expect("it is time");
    for _ in 0..3 {
        node.admit(Purpose::Keep, Instant::now()).unwrap().settle(&Err::<(), _>(FaultKind::Misconf.into()));
    }
    probe.settle(&Ok(()));
    assert_eq!(node.mode(), Mode::ReadOnlyServer);
}
