//! A load that somebody waits for.

use crate::objects::Ref;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::ffi::{c_int, c_longlong, c_ulong, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

// Of Python's stable interface, not declared by PyO3.
unsafe extern "C" {
    fn PyThread_get_thread_ident() -> c_ulong;
    fn PyThread_allocate_lock() -> *mut c_void;
    fn PyThread_free_lock(lock: *mut c_void);
    fn PyThread_acquire_lock_timed(lock: *mut c_void, microseconds: c_longlong, interruptible: c_int) -> c_int;
    fn PyThread_release_lock(lock: *mut c_void);
}

/// What `PyThread_acquire_lock_timed` returns when a signal came.
const INTERRUPTED: c_int = 2;

/// Goes on in a child after a fork: loads of an earlier number are nobody's.
static FORKS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn fork() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    waiting().clear();
}

/// The calling thread; never 0.
pub(crate) fn thread() -> u64 {
    // SAFETY: it has no conditions.
    unsafe { PyThread_get_thread_ident() as u64 }
}

/// What came of a load.
#[derive(Clone)]
pub(crate) enum Outcome {
    Value(Ref),
    Error(Ref),
    /// Who waits is to try again.
    Abandoned,
}

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    callbacks: Vec<Ref>,
}

/// See the [module's documentation](self).
pub(crate) struct Shared {
    /// The thread that leads it; 0 for a task.
    leader: u64,
    /// The load's number.
    pub(crate) id: u64,
    /// One of Python's locks, held until the load has landed, which waiters pass one after another: they can be interrupted there.
    gate: *mut c_void,
    state: Mutex<State>,
}

// SAFETY: Python's locks may be used by any thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Which thread waits for which other.
fn waiting() -> MutexGuard<'static, HashMap<u64, u64>> {
    static WAITING: LazyLock<Mutex<HashMap<u64, u64>>> = LazyLock::new(Mutex::default);
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that is in the list of those who wait.
struct Waiting(u64, Option<u64>);

impl Waiting {
    /// Unless the leader waits for this thread, over any number of others.
    fn new(leader: u64) -> PyResult<Self> {
        let (me, mut waiting) = (thread(), waiting());
        let mut at = Some(leader);
        while let Some(thread) = at {
            if thread == me {
                return Err(PyRuntimeError::new_err(
                    "loads wait for each other: the thread that loads this key waits for one that this thread is loading",
                ));
            }
            at = waiting.get(&thread).copied();
        }
        let before = waiting.insert(me, leader);
        Ok(Self(me, before))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // (A signal's handler may have waited in the middle of another wait.)
        match self.1 {
            Some(before) => _ = waiting().insert(self.0, before),
            None => _ = waiting().remove(&self.0),
        }
    }
}

impl Shared {
    pub(crate) fn new(leader: u64, id: u64) -> Self {
        // SAFETY: a new lock, which is then taken, at once.
        let gate = unsafe {
            let gate = PyThread_allocate_lock();
            if !gate.is_null() {
                PyThread_acquire_lock_timed(gate, 0, 0);
            }
            gate
        };
        Self {
            leader,
            id,
            gate,
            state: Mutex::default(),
        }
    }

    /// No Python code runs under this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the outcome to all who wait, once. Runs callbacks.
    pub(crate) fn land(&self, py: Python<'_>, outcome: Outcome) {
        let callbacks = {
            let mut state = self.state();
            state.outcome = Some(outcome);
            std::mem::take(&mut state.callbacks)
        };
        if !self.gate.is_null() {
            // SAFETY: it has been held since `new`, and loads land once.
            unsafe { PyThread_release_lock(self.gate) };
        }
        for callback in callbacks {
            call(&callback.into_bound(py));
        }
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.state().outcome.clone()
    }

    pub(crate) fn add_callback(&self, callback: Bound<'_, PyAny>) {
        let mut state = self.state();
        if state.outcome.is_none() {
            state.callbacks.push(callback.into());
            return;
        }
        drop(state);
        call(&callback);
    }

    /// Waits for the outcome, without the GIL.
    pub(crate) fn wait(&self, py: Python<'_>) -> PyResult<Outcome> {
        loop {
            if let Some(outcome) = self.outcome() {
                return Ok(outcome);
            }
            if self.gate.is_null() {
                return Err(PyMemoryError::new_err("no lock to wait with"));
            }
            let waiting = Waiting::new(self.leader)?;
            let gate = self.gate.expose_provenance();
            let taken = py.detach(|| {
                let gate = std::ptr::with_exposed_provenance_mut(gate);
                // SAFETY: the gate lasts as long as `self`; who gets through leaves it open for the next.
                unsafe {
                    let taken = PyThread_acquire_lock_timed(gate, -1, 1);
                    if taken != INTERRUPTED {
                        PyThread_release_lock(gate);
                    }
                    taken
                }
            });
            drop(waiting);
            if taken == INTERRUPTED {
                py.check_signals()?;
            }
        }
    }
}

fn call(callback: &Bound<'_, PyAny>) {
    if let Err(error) = callback.call0() {
        error.write_unraisable(callback.py(), Some(callback));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.gate.is_null() {
            // SAFETY: nobody waits any more, since who does holds it. A lock that is held, after a fork, may be freed too.
            unsafe { PyThread_free_lock(self.gate) };
        }
    }
}
