//! Who waits: callers for other processes' loads, and for the right to load without a lease.

use super::clock::now;
use super::session::lock;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The number of groups, by key, of callers that wait for other processes' loads.
const SHARDS: usize = 16;

/// The callers of a group.
#[derive(Default)]
struct Shard {
    /// How many changes woke them.
    changes: Mutex<u64>,
    changed: Condvar,
}

/// Callers that wait for other processes' loads.
#[derive(Default)]
pub(super) struct Waiters([Shard; SHARDS]);

impl Waiters {
    fn shard(&self, key: &[u8]) -> &Shard {
        let sum = key
            .iter()
            .fold(0usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        &self.0[sum % SHARDS]
    }

    /// Waits until then, or until a change that may be one of the key. (If it came before this
    /// call, the caller reads again at that time.)
    pub(super) fn wait(&self, key: &[u8], until: u64) {
        let shard = self.shard(key);
        let changes = lock(&shard.changes);
        let before = *changes;
        let left = Duration::from_nanos(until.saturating_sub(now()));
        let unchanged = |changes: &mut u64| *changes == before;
        drop(shard.changed.wait_timeout_while(changes, left, unchanged));
    }

    /// Wakes the callers that wait for another's load of the key.
    pub(super) fn wake(&self, key: &[u8]) {
        let shard = self.shard(key);
        *lock(&shard.changes) += 1;
        shard.changed.notify_all();
    }

    /// Wakes all callers that wait for another's load.
    pub(super) fn wake_all(&self) {
        for shard in &self.0 {
            *lock(&shard.changes) += 1;
            shard.changed.notify_all();
        }
    }
}

/// How many loads without a lease may begin.
pub(super) struct LoadLimit {
    free: Mutex<usize>,
    ended: Condvar,
}

impl LoadLimit {
    pub(super) fn new(loads: usize) -> Self {
        Self {
            free: Mutex::new(loads),
            ended: Condvar::new(),
        }
    }

    /// Waits until one more load may begin.
    pub(super) fn begin(&self) -> LoadPermit<'_> {
        let mut free = lock(&self.free);
        while *free == 0 {
            free = self.ended.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        LoadPermit(self)
    }
}

/// The right to load without a lease.
pub(super) struct LoadPermit<'l>(&'l LoadLimit);

impl Drop for LoadPermit<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.ended.notify_one();
    }
}
