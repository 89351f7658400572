//! Loom models of the allocation of per-thread states, and of the drain limits.

use super::*;
use crate::reclaim::{INDEX, pin};
use loom::thread;
use std::sync::Arc;

const CAPACITY: u64 = 1024;

/// Runs `threads` concurrently, each with an index of its own. Then checks that the drain limits
/// are those for the number of rings and `capacity`.
fn model<const N: usize>(first: usize, threads: [fn(&ThreadStates); N], capacity: u64) {
    loom::model(move || {
        let thread_states = Arc::new(ThreadStates::new(CAPACITY, false));
        let run = |n: usize| {
            let thread_states = thread_states.clone();
            move || {
                INDEX.with(|index| index.set(first + n));
                threads[n](&thread_states);
            }
        };
        let others: Vec<_> = (1..N).map(|n| thread::spawn(run(n))).collect();
        run(0)();
        others.into_iter().for_each(|other| other.join().unwrap());
        let mut parts = 0;
        thread_states.for_each_writer(|_| parts += 1);
        let guard = pin();
        let (mut soon, mut cursor) = (0, 0);
        thread_states.for_some_writers(&guard, &mut cursor, |writer, _| soon += writer.ring.len());
        assert!(soon >= parts, "each recorded one change");
        assert_eq!(thread_states.ring_count.load(Ordering::Relaxed), parts);
        let want = ThreadStates::new(capacity, false);
        want.ring_count.store(parts, Ordering::Relaxed);
        want.update_drain_limits();
        let drain_limits = |thread_states: &ThreadStates| {
            let drain_limits = &thread_states.drain_limits;
            let [batch, most] = [&drain_limits.batch, &drain_limits.max_events].map(|at| at.load(Ordering::Relaxed));
            (batch, most, drain_limits.max_weight.load(Ordering::Relaxed))
        };
        assert_eq!(
            drain_limits(&thread_states),
            drain_limits(&want),
            "the drain_limits is that of {parts} threads"
        );
    });
}

fn hit(thread_states: &ThreadStates) {
    let guard = pin();
    let (before, ..) = thread_states.lookups();
    thread_states.count(&guard, true);
    let writer = thread_states.writer(&guard).expect("few threads have parts");
    assert_eq!(writer.ring.push([1, 2]), Some(1), "no other thread has it");
    let (after, ..) = thread_states.lookups();
    assert!(after > before, "its own hit is counted");
}

#[test]
fn loom_thread_state_two_near_threads() {
    model(0, [hit, hit], CAPACITY);
}

#[test]
fn loom_thread_state_two_far_threads() {
    model(NEAR, [hit, hit], CAPACITY);
}

#[test]
fn loom_thread_state_and_capacity_change() {
    model(
        0,
        [hit, |thread_states| thread_states.set_capacity(8 * CAPACITY)],
        8 * CAPACITY,
    );
}
