//! Whether a history is linearizable: the search of Wing and Gong, with the memory of Lowe ("Testing for linearizability").

use std::collections::HashSet;
use std::hash::Hash;

/// An operation and the interval in which it took effect: from before its call to after its return.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Timed<O> {
    pub(crate) call: u64,
    pub(crate) ret: u64,
    pub(crate) op: O,
}

impl<O> Timed<O> {
    pub(crate) fn overlaps<P>(&self, other: &Timed<P>) -> bool {
        self.call <= other.ret && other.call <= self.ret
    }
}

/// Whether there is an order of the operations that keeps to their intervals, and in which each does what `step` says: that
/// gives the states that may follow, none if the operation cannot have had its result in this state.
///
/// At most 64 operations. A set of operations that led to some state is tried once, however many orders lead there.
pub(crate) fn linearizable<O, S: Clone + Eq + Hash>(
    history: &[Timed<O>],
    start: S,
    step: impl Fn(&S, &O) -> Vec<S>,
) -> bool {
    assert!(history.len() <= 64, "too many operations for one word");
    let all = if history.len() == 64 {
        u64::MAX
    } else {
        (1 << history.len()) - 1
    };
    let mut seen = HashSet::from([(0u64, start.clone())]);
    let mut open = vec![(0u64, start)];
    while let Some((done, state)) = open.pop() {
        if done == all {
            return true;
        }
        let waiting = || history.iter().enumerate().filter(|(i, _)| done >> i & 1 == 0);
        // An operation can be next if none that waits had returned before it was called.
        let first_return = waiting().map(|(_, one)| one.ret).min().unwrap_or(u64::MAX);
        for (i, one) in waiting().filter(|(_, one)| one.call <= first_return) {
            for next in step(&state, &one.op) {
                let config = (done | 1 << i, next);
                if seen.insert(config.clone()) {
                    open.push(config);
                }
            }
        }
    }
    false
}

#[derive(Clone, Copy)]
enum Register {
    Write(u32),
    Read(u32),
    /// The old value and the new one.
    Swap(u32, u32),
}
use Register::*;

/// Whether a history of a register that begins with 0 is linearizable.
fn register(history: &[(u64, u64, Register)]) -> bool {
    let history: Vec<_> = history.iter().map(|&(call, ret, op)| Timed { call, ret, op }).collect();
    linearizable(&history, 0, |state, op| match *op {
        Write(new) => vec![new],
        Read(value) => Vec::from_iter((*state == value).then_some(value)),
        Swap(old, new) => Vec::from_iter((*state == old).then_some(new)),
    })
}

#[test]
fn good_histories_are_accepted() {
    assert!(register(&[]));
    assert!(register(&[(0, 1, Read(0)), (2, 3, Write(1)), (4, 5, Read(1))]));
    // A read beside a write may see either, and two reads one after the other first the old value, then the new one.
    assert!(register(&[(0, 9, Write(1)), (1, 2, Read(0)), (3, 4, Read(1))]));
    // The write that was called last may take effect first.
    assert!(register(&[(0, 9, Write(1)), (1, 8, Write(2)), (10, 11, Read(1))]));
    assert!(register(&[(0, 9, Write(1)), (1, 8, Write(2)), (10, 11, Read(2))]));
    // Only one order of four that are all concurrent.
    assert!(register(&[
        (0, 9, Swap(3, 4)),
        (1, 9, Swap(1, 2)),
        (2, 9, Swap(0, 1)),
        (3, 9, Swap(2, 3))
    ]));
    // Intervals that touch are concurrent.
    assert!(register(&[(0, 5, Write(1)), (5, 6, Read(0))]));
}

#[test]
fn bad_histories_are_rejected() {
    assert!(!register(&[(0, 1, Read(1))]));
    // Stale.
    assert!(!register(&[(0, 1, Write(1)), (2, 3, Read(0))]));
    // New, then old again.
    assert!(!register(&[(0, 9, Write(1)), (1, 2, Read(1)), (3, 4, Read(0))]));
    // Two readers that do not agree on the order of two writes.
    let writes = [(0, 1, Write(1)), (0, 1, Write(2))];
    let one = [(2, 3, Read(1))];
    let other = [(4, 5, Read(2))];
    assert!(!register(&[&writes[..], &one, &other].concat()));
    // A lost update: both took the same old value.
    assert!(!register(&[(0, 9, Swap(0, 1)), (1, 8, Swap(0, 2))]));
    // A write that takes effect after its return.
    assert!(!register(&[(0, 1, Write(1)), (2, 3, Read(0)), (4, 5, Read(1))]));
}

#[test]
fn long_histories_take_no_exponential_time() {
    // 2^31 orders of writes; and a read that none of them explains.
    let mut history: Vec<_> = (0..31).map(|i| (i, 1000, Write(i as u32 % 4 + 1))).collect();
    history.push((1001, 1002, Read(9)));
    // Sequentially, so that the memory holds few sets: 64 operations use the whole word.
    assert!(!register(&history[20..]));
    let long: Vec<_> = (0..64)
        .map(|i| {
            (
                2 * i,
                2 * i + 1,
                if i % 2 == 0 {
                    Write(i as u32)
                } else {
                    Read(i as u32 - 1)
                },
            )
        })
        .collect();
    assert!(register(&long));
}
