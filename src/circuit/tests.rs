use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::time::{Instant, advance};

use super::*;
use crate::{CircuitState::*, Jitter};

const BASE: Duration = Duration::from_millis(250);

fn circuit() -> Circuit {
    let mut config = CircuitConfig::default();
    config.open = config.open.jitter(Jitter::None);
    Circuit::new("ledger", config)
}

fn open() -> Circuit {
    let circuit = circuit();
    for _ in 0..3 {
        circuit.permit_closed().unwrap().fault();
    }
    assert_eq!(circuit.state(), Open);
    circuit
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_to_probe_never_does() {
    let circuit = open();
    advance(BASE).await;
    assert_eq!(circuit.permit_closed().unwrap_err().retry_after, BASE);
    assert_eq!(circuit.state(), Open);
    circuit.probe().unwrap().success();
    circuit.permit_closed().unwrap().success();
    assert_eq!(circuit.stats().rejected_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_one_and_only_when_it_is_due() {
    let circuit = circuit();
    assert!(circuit.probe().is_none() && circuit.probe_at().is_none(), "it is closed");
    let circuit = open();
    let due = circuit.probe_at().unwrap();
    assert_eq!(due, Instant::now() + BASE);
    assert!(circuit.probe().is_none(), "not yet");
    advance(BASE).await;
    assert_eq!(circuit.probe_at(), Some(due));
    let probe = circuit.probe().unwrap();
    assert!(circuit.probe().is_none() && circuit.probe_at().is_none(), "one is under way");
    drop(probe);
    assert_eq!(circuit.probe_at(), Some(due), "it was given back");
    circuit.probe().unwrap().fault();
    assert_eq!(circuit.probe_at(), Some(Instant::now() + 2 * BASE));
    assert_eq!(circuit.stats().rejected_total, 0, "nobody was refused");
    for force in [Circuit::force_open, Circuit::force_closed] {
        force(&circuit);
        advance(8 * BASE).await;
        assert!(circuit.probe().is_none() && circuit.probe_at().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_witness_of_a_closed_circuit_is_like_any_call() {
    let circuit = circuit();
    circuit.witness().fault();
    circuit.witness().fault();
    circuit.witness().success();
    circuit.witness().fault();
    circuit.witness().neutral();
    circuit.witness().fault();
    assert_eq!(circuit.state(), Closed);
    circuit.witness().fault();
    assert_eq!(circuit.state(), Open);
    let circuit = self::circuit();
    circuit.witness().open_for(BASE);
    assert_eq!((circuit.state(), circuit.retry_after()), (Open, BASE));
}

#[tokio::test(start_paused = true)]
async fn a_witness_that_began_after_the_opening_closes() {
    let circuit = open();
    circuit.witness().success();
    assert_eq!(circuit.state(), Closed);

    let circuit = open();
    let witness = circuit.witness();
    advance(BASE).await;
    let probe = circuit.probe().unwrap();
    witness.success();
    assert_eq!(circuit.state(), Closed, "also while a probe is under way");
    probe.fault();
    assert_eq!(circuit.state(), Closed, "which then says nothing any more");

    let circuit = open();
    advance(BASE).await;
    let probe = circuit.probe().unwrap();
    let witness = circuit.witness();
    probe.neutral();
    witness.success();
    assert_eq!(circuit.state(), Closed, "a probe that is given back is no opening");
}

#[tokio::test(start_paused = true)]
async fn a_witness_that_began_before_the_opening_changes_nothing() {
    let circuit = circuit();
    let [early, earlier] = [(); 2].map(|()| circuit.witness());
    circuit.permit().unwrap().open_for(BASE);
    early.success();
    assert_eq!(circuit.state(), Open);
    let before_the_second = circuit.witness();
    advance(BASE).await;
    circuit.probe().unwrap().fault();
    before_the_second.success();
    assert_eq!(circuit.state(), Open, "the last opening is what counts");
    advance(BASE).await;
    let probe = circuit.probe().unwrap();
    earlier.success();
    assert_eq!(circuit.state(), HalfOpen);
    probe.success();
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_a_witness_changes_nothing_but_a_closed_circuit() {
    let circuit = open();
    circuit.witness().fault();
    circuit.witness().open_for(8 * BASE);
    circuit.witness().neutral();
    assert_eq!((circuit.state(), circuit.retry_after()), (Open, BASE));
    let late = [(); 3].map(|()| circuit.witness());
    advance(BASE).await;
    let probe = circuit.probe().unwrap();
    circuit.witness().fault();
    assert_eq!(circuit.state(), HalfOpen);
    probe.success();
    late.into_iter().for_each(Permit::fault);
    assert_eq!(circuit.state(), Closed, "nor that which began in an outage");
}

#[tokio::test(start_paused = true)]
async fn a_witness_passes_a_forced_circuit_and_changes_nothing() {
    for force in [Circuit::force_open, Circuit::force_closed] {
        let circuit = circuit();
        force(&circuit);
        let state = circuit.state();
        for _ in 0..3 {
            circuit.witness().success();
            circuit.witness().fault();
        }
        assert_eq!((circuit.state(), circuit.is_forced()), (state, true));
    }
}

#[test]
fn the_healthy_path_takes_no_lock() {
    let circuit = Arc::new(circuit());
    let _locked = circuit.lock();
    let (sender, done) = mpsc::channel();
    let calling = circuit.clone();
    std::thread::spawn(move || {
        calling.permit().unwrap().success();
        calling.permit().unwrap().neutral();
        calling.permit_closed().unwrap().success();
        calling.witness().success();
        sender.send((calling.state(), calling.is_forced())).unwrap();
    });
    assert_eq!(done.recv_timeout(Duration::from_secs(30)), Ok((Closed, false)));
}

#[test]
fn a_thread_that_panicked_in_it_stops_nobody() {
    let circuit = open();
    std::thread::scope(|scope| {
        let poisons = scope.spawn(|| {
            let _locked = circuit.lock();
            panic!("on purpose");
        });
        poisons.join().unwrap_err();
    });
    // The clock runs: its interval may be over.
    circuit.permit_closed().unwrap_err();
    circuit.reset();
    circuit.permit().unwrap().success();
}

#[test]
fn a_circuit_is_shared_and_a_permit_moves() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<(Circuit, CircuitConfig, CircuitWatch, Permit<'static>, Rejected)>();
}
