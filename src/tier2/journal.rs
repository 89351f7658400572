//! What tier 2 did not confirm, and what a failover could undo.
//!
//! While a key is in the journal, this process does not read it from tier 2, does not fill it, and
//! does not keep it in tier 1. A confirmed replay (a removal, or a bump of a generation) takes it
//! out.

use super::node::Node;
use std::collections::{HashMap, VecDeque};

/// How long a confirmation may still be lost by an asynchronous failover.
const CONFIRMED: u64 = 30_000_000_000;

/// What has to be done about an unconfirmed key.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Distinguishes this entry from later ones of the same key.
    pub(crate) number: u64,
    pub(crate) node: u32,
    /// The key is a generation: its replay is a bump.
    pub(crate) bump: bool,
    /// Unconditional writes of the key that may still be executed.
    pub(crate) late_writes: Vec<LateWrite>,
    replaying: bool,
}

/// An unconditional write whose outcome is unknown, and which may still be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LateWrite {
    /// Where it was sent: connections and clocks are that server's.
    pub(crate) node: u32,
    pub(crate) until: LateWriteEnd,
}

/// When a late write can no longer be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LateWriteEnd {
    /// The connection is killed.
    Killed(u64),
    /// The server's clock, in milliseconds, is past this.
    Server(u64),
}

impl LateWrite {
    pub(crate) fn has_passed(&self, node: &Node, now: u64) -> bool {
        match self.until {
            LateWriteEnd::Server(until) => until < node.server_ms_lower(now),
            // A replay begins with the kill.
            LateWriteEnd::Killed(_) => true,
        }
    }
}

/// A key and the number of its entry.
type Numbered = (u64, Box<[u8]>);

#[derive(Debug)]
struct Confirmed {
    at: u64,
    node: u32,
    key: Box<[u8]>,
    bump: bool,
}

#[derive(Debug)]
pub(crate) struct Journal {
    entries: HashMap<Box<[u8]>, Entry>,
    /// The keys of each node in the order in which they came. One whose number is another by now is
    /// skipped.
    order: HashMap<u32, VecDeque<Numbered>>,
    /// Entries that are no bumps.
    keys: usize,
    confirmed: VecDeque<Confirmed>,
    /// When the last confirmation was forgotten because there were too many.
    forgotten_at: Option<u64>,
    capacity: usize,
    next: u64,
}

impl Journal {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: HashMap::new(),
            keys: 0,
            confirmed: VecDeque::new(),
            forgotten_at: None,
            capacity: capacity.max(1),
            next: 1,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        // Mostly there is none, and a hit need not hash its key.
        if self.entries.is_empty() {
            return None;
        }
        self.entries.get(key)
    }

    /// Adds a key that is not confirmed. Its earlier entry, if any, is replaced; late writes are
    /// inherited.
    pub(crate) fn add(&mut self, key: &[u8], node: u32, bump: bool, late: Option<LateWrite>) {
        let number = self.next;
        self.next += 1;
        let mut entry = Entry {
            number,
            node,
            bump,
            late_writes: late.into_iter().collect(),
            replaying: false,
        };
        if let Some(before) = self.remove(key) {
            let others = before.late_writes.into_iter().filter(|&other| Some(other) != late);
            entry.late_writes.extend(others);
        }
        self.keys += usize::from(!bump);
        self.entries.insert(key.into(), entry);
        let order = self.order.entry(node).or_default();
        order.push_back((number, key.into()));
        if order.len() > 2 * self.entries.len() + 16 {
            let entries = &self.entries;
            order.retain(|(number, key)| entries.get(key).is_some_and(|entry| entry.number == *number));
        }
    }

    /// Returns whether there are more keys than the journal may hold.
    pub(crate) fn exceeds_capacity(&self) -> bool {
        self.keys > self.capacity
    }

    /// Forgets all keys that are no generations. The caller has added bumps of everything that they
    /// belong to.
    pub(crate) fn forget_keys(&mut self) {
        self.entries.retain(|_, entry| entry.bump);
        self.keys = 0;
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.keys -= usize::from(!entry.bump);
        Some(entry)
    }

    /// A replay, or a newer write or removal that was begun when the entry `number` was there, is
    /// confirmed.
    pub(crate) fn remove_confirmed(&mut self, key: &[u8], number: u64) -> bool {
        self.get(key).is_some_and(|entry| entry.number == number) && self.remove(key).is_some()
    }

    /// A connection can no longer deliver a late write of the key. (No node: whichever it is to.)
    pub(crate) fn fenced(&mut self, key: &[u8], node: Option<u32>, connection: u64) {
        if let Some(entry) = self.entries.get_mut(key) {
            let killed = LateWriteEnd::Killed(connection);
            entry
                .late_writes
                .retain(|late| node.is_some_and(|node| late.node != node) || late.until != killed);
        }
    }

    /// A connection cannot be killed: the key waits until that server's time `until` instead.
    pub(crate) fn hold(&mut self, key: &[u8], node: u32, connection: u64, until: u64) {
        self.fenced(key, Some(node), connection);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.late_writes.push(LateWrite {
                node,
                until: LateWriteEnd::Server(until),
            });
        }
    }

    /// Calls `each` with the key of every bump.
    pub(crate) fn for_each_bump(&self, mut each: impl FnMut(&[u8])) {
        let bumps = self.entries.iter().filter(|(_, entry)| entry.bump);
        bumps.for_each(|(key, _)| each(key));
    }

    /// Has a key replayed on another node than before.
    pub(crate) fn assign_node(&mut self, key: &[u8], node: u32) {
        let Some(entry) = self
            .entries
            .get_mut(key)
            .filter(|entry| !entry.replaying && entry.node != node)
        else {
            return;
        };
        (entry.node, entry.number) = (node, self.next);
        self.order.entry(node).or_default().push_back((self.next, key.into()));
        self.next += 1;
    }

    /// Has all keys of a node replayed on another one.
    pub(crate) fn hand_over(&mut self, from: u32, to: u32) {
        let of_node = self.entries.iter().filter(|(_, entry)| entry.node == from);
        let keys: Vec<_> = of_node.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.assign_node(key, to));
    }

    /// Returns whether a key of the node awaits its replay.
    pub(crate) fn has(&self, node: u32) -> bool {
        self.order.get(&node).is_some_and(|order| {
            let is_current = |(number, key): &Numbered| self.get(key).is_some_and(|entry| entry.number == *number);
            order.iter().any(is_current)
        })
    }

    /// Returns whether a key of the node awaits its replay, and nothing else.
    pub(crate) fn awaits(&self, node: u32, has_passed: impl Fn(&LateWrite) -> bool) -> bool {
        self.order.get(&node).is_some_and(|order| {
            let is_ready = |(number, key): &Numbered| {
                self.get(key)
                    .is_some_and(|entry| entry.number == *number && entry.late_writes.iter().all(&has_passed))
            };
            order.iter().any(is_ready)
        })
    }

    /// Returns the oldest key of the node that can be replayed now.
    pub(crate) fn next_replay(
        &mut self,
        node: u32,
        has_passed: impl Fn(&LateWrite) -> bool,
    ) -> Option<(Box<[u8]>, Entry)> {
        let order = self.order.get_mut(&node)?;
        while let Some((number, key)) = order.front() {
            if self.entries.get(key).is_some_and(|entry| entry.number == *number) {
                break;
            }
            order.pop_front();
        }
        order.iter().find_map(|(number, key)| {
            let entry = self.entries.get(key)?;
            let due = entry.number == *number && !entry.replaying && entry.late_writes.iter().all(&has_passed);
            due.then(|| (key.clone(), entry.clone()))
        })
    }

    /// Marks an entry as being replayed, or as no longer.
    pub(crate) fn set_replaying(&mut self, key: &[u8], number: u64, replaying: bool) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.number == number
        {
            entry.replaying = replaying;
        }
    }

    /// Remembers a confirmation, which a failover in the next 30 seconds could undo.
    pub(crate) fn confirm(&mut self, key: &[u8], node: u32, bump: bool, now: u64) {
        while self.confirmed.front().is_some_and(|oldest| oldest.at + CONFIRMED < now) {
            self.confirmed.pop_front();
        }
        if self.confirmed.len() >= self.capacity {
            self.confirmed.pop_front();
            self.forgotten_at = Some(now);
        }
        self.confirmed.push_back(Confirmed {
            at: now,
            node,
            key: key.into(),
            bump,
        });
    }

    /// The node `from` (none: any) is another one than before, or `to` is in its place: what was
    /// confirmed lately is not. Returns whether too much was confirmed to know.
    pub(crate) fn unconfirm(&mut self, from: Option<u32>, to: u32, now: u64) -> bool {
        let confirmed = std::mem::take(&mut self.confirmed);
        let is_lost = |one: &Confirmed| from.is_none_or(|node| one.node == node);
        let (lost, kept): (Vec<_>, _) = confirmed.into_iter().partition(is_lost);
        self.confirmed = kept.into();
        for one in lost.into_iter().filter(|one| one.at + CONFIRMED >= now) {
            self.add(&one.key, to, one.bump, None);
        }
        let forgotten = self.forgotten_at.take().is_some_and(|at| at + CONFIRMED >= now);
        let Some(node) = from else {
            return forgotten;
        };
        // A write that needed a fence on the previous node needs none on this one.
        for entry in self.entries.values_mut() {
            entry
                .late_writes
                .retain(|late| late.node != node || matches!(late.until, LateWriteEnd::Server(_)));
        }
        forgotten
    }
}
