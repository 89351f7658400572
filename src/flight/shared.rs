//! A load that several callers share: its outcome, its mark, and how threads wait for it.

use super::deadlock::{ActorId, Reentrant, WaitRegistration, WaitState};
use crate::prim::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering};
use std::any::Any;
#[cfg(feature = "async")]
use std::mem;
use std::sync::{OnceLock, PoisonError};

/// The result of a load.
pub(crate) enum Outcome<V> {
    /// The value.
    Loaded(V),
    /// The loader's error, of any type.
    Failed(std::sync::Arc<dyn Any + Send + Sync>),
    /// The loader panicked, or its future was dropped before it was done.
    Abandoned,
}

/// A load of a key, as the callers that share it see it.
pub(crate) struct Flight<K, V> {
    pub(super) hash: u64,
    pub(super) key: K,
    pub(super) leader: ActorId,
    /// An invalidation came after the load began: the value must not enter the map, nor serve later
    /// callers.
    pub(super) invalidated: AtomicBool,
    /// Set once, before `waiters.completed`.
    pub(super) outcome: OnceLock<Outcome<V>>,
    pub(super) waiters: Mutex<Waiters>,
    pub(super) wait_state: WaitState,
    on_completion: Condvar,
}

/// Whether a flight is completed, and the tasks to wake when it is.
#[derive(Default)]
pub(super) struct Waiters {
    pub(super) completed: bool,
    #[cfg(feature = "async")]
    pub(super) wakers: super::wakers::Wakers,
}

/// Locks a mutex, also if it is poisoned: no user code runs under these locks, so the data is
/// whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, V> Flight<K, V> {
    pub(super) fn new(hash: u64, key: K, leader: ActorId) -> Self {
        Self {
            hash,
            key,
            leader,
            invalidated: AtomicBool::new(false),
            outcome: OnceLock::new(),
            waiters: Mutex::new(Waiters::default()),
            wait_state: WaitState::new(),
            on_completion: Condvar::new(),
        }
    }

    /// Gives the waiters the outcome, unless they have one.
    #[cold]
    pub(super) fn complete(&self, outcome: Outcome<V>) {
        // Before `completed`: a waiter that sees the latter reads the outcome.
        if self.outcome.set(outcome).is_ok() {
            // Before the wake-up: the waiters no longer count as waiting for the leader.
            self.wait_state.end_waits();
            let mut waiters = lock(&self.waiters);
            // Under the lock, under which waiters check it before they sleep or leave a waker
            // (invariant 21).
            waiters.completed = true;
            #[cfg(feature = "async")]
            let wakers = mem::take(&mut waiters.wakers);
            drop(waiters);
            self.on_completion.notify_all();
            // Last, and under no lock: wakers are user code.
            #[cfg(feature = "async")]
            wakers.wake();
        }
    }

    /// Waits for the outcome. Returns an error if it would never come.
    ///
    /// Returns `Ok(None)` if the load was invalidated before this call: the caller must look the
    /// key up again.
    pub(crate) fn wait(&self) -> Result<Option<&Outcome<V>>, Reentrant> {
        // Relaxed: an invalidation that happened before this call is seen. One that runs
        // concurrently may be ordered after it.
        let invalidated = self.invalidated.load(Ordering::Relaxed);
        let mut waiters = lock(&self.waiters);
        if !waiters.completed {
            drop(waiters);
            // Under no lock of this flight: the wait graph has its own.
            let _waiting = WaitRegistration::register(self.leader, &self.wait_state)?;
            waiters = lock(&self.waiters);
            while !waiters.completed {
                waiters = self.on_completion.wait(waiters).unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(waiters);
        Ok(if invalidated { None } else { self.outcome.get() })
    }
}
