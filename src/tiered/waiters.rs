//! What waits: callers for other processes' loads, and for the right to load without a lease.

use super::clock::now;
use super::session::lock;
#[cfg(feature = "async")]
use crate::prim::panics::wake_all;
use crate::prim::sync::{Condvar, Mutex};
use std::sync::PoisonError;
use std::time::Duration;

#[cfg(feature = "async")]
pub(super) mod tasks;

/// The number of groups, by key, of callers that wait for other processes' loads.
const SHARDS: usize = if cfg!(loom) { 1 } else { 16 };

/// The callers of a group.
#[derive(Default)]
struct Shard {
    state: Mutex<ShardState>,
    changed: Condvar,
}

#[derive(Default)]
struct ShardState {
    /// How many changes woke the callers.
    changes: u64,
    /// Those of them that are tasks.
    #[cfg(feature = "async")]
    tasks: tasks::Wakers,
}

/// Callers that wait for other processes' loads.
#[derive(Default)]
pub(super) struct Waiters {
    shards: [Shard; SHARDS],
}

impl Waiters {
    fn shard(&self, key: &[u8]) -> &Shard {
        let sum = key
            .iter()
            .fold(0usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        &self.shards[sum % SHARDS]
    }

    /// Waits until then, or until a change that may be one of the key. (If it came before this
    /// call, the caller reads again at that time.)
    pub(super) fn wait(&self, key: &[u8], until: u64) {
        let shard = self.shard(key);
        let mut state = lock(&shard.state);
        let before = state.changes;
        while state.changes == before {
            let left = until.saturating_sub(now());
            if left == 0 {
                return;
            }
            let waited = shard.changed.wait_timeout(state, Duration::from_nanos(left));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wakes the callers that wait for another's load of the key.
    pub(super) fn wake(&self, key: &[u8]) {
        self.shard(key).wake();
    }

    /// Wakes all callers that wait for another's load.
    pub(super) fn wake_all(&self) {
        self.shards.iter().for_each(Shard::wake);
    }
}

impl Shard {
    fn wake(&self) {
        let mut state = lock(&self.state);
        state.changes += 1;
        #[cfg(feature = "async")]
        let tasks = state.tasks.take();
        drop(state);
        self.changed.notify_all();
        // Wakers are code of the caller's: outside the lock.
        #[cfg(feature = "async")]
        wake_all(tasks.into_values());
    }
}

/// How many loads without a lease may begin.
pub(super) struct LoadLimit {
    state: Mutex<LimitState>,
    ended: Condvar,
}

struct LimitState {
    free: usize,
    #[cfg(feature = "async")]
    tasks: tasks::Wakers,
}

impl LoadLimit {
    pub(super) fn new(loads: usize) -> Self {
        Self {
            state: Mutex::new(LimitState {
                free: loads,
                #[cfg(feature = "async")]
                tasks: tasks::Wakers::default(),
            }),
            ended: Condvar::new(),
        }
    }

    /// Waits until one more load may begin.
    pub(super) fn begin(&self) -> LoadPermit<'_> {
        let mut state = lock(&self.state);
        while state.free == 0 {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.free -= 1;
        LoadPermit(self)
    }
}

/// The right to load without a lease.
pub(super) struct LoadPermit<'l>(&'l LoadLimit);

impl Drop for LoadPermit<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.free += 1;
        // All of them: the one that is woken might be dropped instead of polled.
        #[cfg(feature = "async")]
        let tasks = state.tasks.take();
        drop(state);
        self.0.ended.notify_one();
        #[cfg(feature = "async")]
        wake_all(tasks.into_values());
    }
}
