//! What one key of a map may do: the operations with their results, and the states between which they lead.
//!
//! All that is not an exact map is said here, as narrowly as the documentation allows:
//!
//! - A load that an insertion, removal, computation or clearing of the key overtakes returns its value, which does not enter
//!   the cache. So it may have no effect, but only if there is such an operation within its time.
//! - Who waits for such a load gets its value too, but only if it came before what overtook the load had returned.
//! - `clear` takes effect key by key, and may leave what others insert meanwhile: so it may have no effect on a key, but only if
//!   there is a writer of that key within its time. It removes the keys that are being loaded first, then all: so it may remove
//!   a key twice, and is written down as two operations, of which the second may do nothing.

use crate::checker::{Timed, linearizable};

/// Absent, or a value; every write of a history writes another one.
pub(crate) type State = Option<u64>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op {
    Get(State),
    Contains(bool),
    Insert(u64),
    Remove(State),
    /// Removes even values: what it removed.
    RemoveEven(State),
    /// What the closure was given last, and what it made of it.
    Compute(State, State),
    /// The value returned, and whether this call's loader brought it.
    Load(u64, bool),
    Clear,
    ClearAgain,
}
use Op::*;

impl Op {
    /// Overtakes a load of the key.
    fn overtakes(self) -> bool {
        !matches!(self, Get(_) | Contains(_) | Load(..))
    }

    fn writes(self) -> bool {
        matches!(self, Insert(_) | Compute(_, Some(_)) | Load(_, true))
    }
}

/// An operation, and whether it may have had no effect because of others within its time.
struct Judged {
    op: Op,
    idle: bool,
}

fn judge(history: &[Timed<Op>], one: &Timed<Op>) -> Judged {
    let beside = |one: &Timed<Op>, other: &Timed<Op>| one != other && one.overlaps(other);
    let overtaking = |load: &Timed<Op>, not_before: u64| {
        let mut others = history.iter();
        others.any(|other| other.op.overtakes() && beside(load, other) && other.ret >= not_before)
    };
    let idle = match one.op {
        Load(_, true) => overtaking(one, 0),
        Load(value, false) => history
            .iter()
            .any(|leader| leader.op == Load(value, true) && beside(one, leader) && overtaking(leader, one.call)),
        Clear => history.iter().any(|other| other.op.writes() && beside(one, other)),
        _ => false,
    };
    Judged { op: one.op, idle }
}

fn step(state: &State, Judged { op, idle }: &Judged) -> Vec<State> {
    let state = *state;
    let to = |next: State, condition: bool| Vec::from_iter(condition.then_some(next));
    let even = state.filter(|value| value % 2 == 0);
    match *op {
        Get(found) => to(state, found == state),
        Contains(found) => to(state, found == state.is_some()),
        Insert(new) => vec![Some(new)],
        Remove(removed) => to(None, removed == state),
        RemoveEven(removed) => to(state.filter(|_| even.is_none()), removed == even),
        Compute(seen, new) => to(new, seen == state),
        Load(new, true) => match state {
            None if *idle => vec![Some(new), None],
            None => vec![Some(new)],
            Some(_) => vec![],
        },
        // Who gets another's value without finding it had missed the key.
        Load(found, false) => to(state, state == Some(found) || *idle && state.is_none()),
        Clear if *idle => vec![None, state],
        Clear => vec![None],
        ClearAgain => vec![None, state],
    }
}

/// Whether what was done to one key, which had this value before, can have happened.
pub(crate) fn possible(history: &[Timed<Op>], start: State) -> bool {
    let judged: Vec<_> = history
        .iter()
        .map(|one| Timed {
            call: one.call,
            ret: one.ret,
            op: judge(history, one),
        })
        .collect();
    linearizable(&judged, start, step)
}

fn of_absent(history: &[(u64, u64, Op)]) -> bool {
    let history: Vec<_> = history.iter().map(|&(call, ret, op)| Timed { call, ret, op }).collect();
    possible(&history, None)
}

#[test]
fn a_load_inserts_unless_it_was_overtaken() {
    let after = |found| (10, 11, Get(found));
    let load = (0, 5, Load(7, true));
    assert!(of_absent(&[load, after(Some(7))]));
    assert!(!of_absent(&[load, after(None)]));
    assert!(of_absent(&[load, (2, 3, Remove(None)), after(None)]));
    assert!(
        !of_absent(&[load, (6, 7, Remove(None)), after(None)]),
        "too late to overtake it"
    );
    assert!(of_absent(&[load, (2, 3, Insert(8)), after(Some(8))]));
    assert!(!of_absent(&[(0, 1, Insert(8)), (2, 5, Load(7, true))]), "it was there");
    assert!(
        !of_absent(&[load, (2, 3, Insert(8)), (4, 4, Get(Some(8))), after(Some(7))]),
        "the load won"
    );
    assert!(!of_absent(&[load, (1, 4, Load(8, true))]), "two loaders at a time");
}

#[test]
fn who_waits_shares_what_is_not_older_than_its_call() {
    let load = (0, 9, Load(7, true));
    assert!(of_absent(&[load, (1, 10, Load(7, false)), (11, 12, Get(Some(7)))]));
    assert!(of_absent(&[
        load,
        (1, 10, Load(7, false)),
        (2, 3, Remove(None)),
        (11, 12, Get(None))
    ]));
    let late = [load, (2, 3, Remove(None)), (4, 10, Load(7, false)), (11, 12, Get(None))];
    assert!(!of_absent(&late), "it came after the removal");
    assert!(!of_absent(&[(0, 9, Load(7, false))]), "from nowhere");
}

#[test]
fn clear_leaves_only_what_came_meanwhile() {
    let insert = |at, value| (at, at + 1, Insert(value));
    assert!(of_absent(&[insert(0, 1), (2, 9, Clear), (10, 11, Get(None))]));
    assert!(!of_absent(&[insert(0, 1), (2, 9, Clear), (10, 11, Get(Some(1)))]));
    assert!(of_absent(&[
        insert(0, 1),
        (2, 9, Clear),
        insert(4, 2),
        (10, 11, Get(Some(2)))
    ]));
    assert!(of_absent(&[
        insert(0, 1),
        (2, 9, Clear),
        (4, 5, Compute(Some(1), Some(2))),
        (10, 11, Get(Some(2)))
    ]));
}

#[test]
fn conditions_are_checked() {
    assert!(of_absent(&[
        (0, 1, Insert(3)),
        (2, 3, RemoveEven(None)),
        (4, 5, Remove(Some(3)))
    ]));
    assert!(of_absent(&[
        (0, 1, Insert(4)),
        (2, 3, RemoveEven(Some(4))),
        (4, 5, Contains(false))
    ]));
    assert!(!of_absent(&[(0, 1, Insert(4)), (2, 3, RemoveEven(None))]));
    assert!(
        !of_absent(&[(0, 9, Compute(None, Some(2))), (0, 9, Compute(None, Some(4)))]),
        "a lost update"
    );
}
