//! A load that somebody waits for.

use super::actor::{Actor, current_thread};
use crate::exception_copy::Failure;
use crate::interrupt;
use crate::objects::Ref;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::collections::HashMap;
use std::ffi::{c_int, c_longlong, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

// Of Python's stable interface, not declared by PyO3.
unsafe extern "C" {
    fn PyThread_allocate_lock() -> *mut c_void;
    fn PyThread_free_lock(lock: *mut c_void);
    fn PyThread_acquire_lock_timed(lock: *mut c_void, microseconds: c_longlong, interruptible: c_int) -> c_int;
    fn PyThread_release_lock(lock: *mut c_void);
}

/// What `PyThread_acquire_lock_timed` returns when it has the lock, and when a signal came.
const ACQUIRED: c_int = 1;
const INTERRUPTED: c_int = 2;

/// The interval, in microseconds, at which a waiting thread looks whether the event loop of the task that loads still runs.
const INTERVAL: c_longlong = 50_000;

/// Called with the number of a load that a task leads, and whether the caller has waited for it already: abandons the load if its
/// event loop does not run.
static CHECK_EVENT_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

pub(crate) fn set_check(check: Bound<'_, PyAny>) {
    // (The first one stays: a module that is imported anew has its functions in the same place.)
    let _ = CHECK_EVENT_LOOP.set(check.py(), check.clone().unbind());
}

/// Goes on in a child after a fork: loads of an earlier number are nobody's.
static FORK_COUNT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn fork_count() -> u64 {
    FORK_COUNT.load(Ordering::Relaxed)
}

pub(crate) fn note_fork() {
    FORK_COUNT.fetch_add(1, Ordering::Relaxed);
    wait_graph().clear();
}

/// The outcome of a load, as its leader has it.
#[derive(Clone)]
pub(crate) enum Outcome {
    Value(Ref),
    /// The exception that the leader raises.
    Error(Ref),
    /// Waiters try again.
    Abandoned,
}

/// The outcome of a load, as its waiters get it.
#[derive(Clone)]
pub(crate) enum Completion {
    Value(Ref),
    /// A [`Failure`], which makes an exception for each.
    Error(Ref),
    Abandoned,
}

impl Completion {
    /// May run Python code.
    fn of(py: Python<'_>, outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Value(value) => Self::Value(value.clone()),
            Outcome::Error(error) => {
                let error = error.clone().into_bound(py);
                match Failure::new(&error, true) {
                    Ok(Some(failure)) => Self::Error(failure.into_any().into()),
                    // Each waiter loads for itself then, and has an exception of its own.
                    Ok(None) => Self::Abandoned,
                    Err(raised) => {
                        interrupt::report_callback_error(raised, &error);
                        Self::Abandoned
                    }
                }
            }
            Outcome::Abandoned => Self::Abandoned,
        }
    }
}

#[derive(Default)]
struct State {
    completion: Option<Completion>,
    callbacks: Vec<Ref>,
}

/// See the [module's documentation](self).
pub(crate) struct SharedLoad {
    leader: Actor,
    /// The load's number.
    pub(crate) id: u64,
    /// One of Python's locks, held until the load has landed, which waiters pass one after another: they can be interrupted there.
    gate: *mut c_void,
    state: Mutex<State>,
}

// SAFETY: Python's locks may be used by any thread.
unsafe impl Send for SharedLoad {}
// SAFETY: as above.
unsafe impl Sync for SharedLoad {}

/// Which thread waits for which other.
fn wait_graph() -> MutexGuard<'static, HashMap<u64, u64>> {
    static WAIT_GRAPH: LazyLock<Mutex<HashMap<u64, u64>>> = LazyLock::new(Mutex::default);
    WAIT_GRAPH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that is in the list of those who wait.
struct WaitEdge(u64, Option<u64>);

impl WaitEdge {
    /// Unless the leader waits for this thread, over any number of others. A task waits if the thread of its event loop does.
    fn new(leader: Actor) -> PyResult<Self> {
        let (me, mut graph) = (current_thread(), wait_graph());
        if leader.task && leader.thread == me {
            return Err(PyRuntimeError::new_err(
                "the key is being loaded by a task of the event loop that this call blocks: await aget_or_load instead",
            ));
        }
        let leader = leader.thread;
        let mut at = Some(leader);
        while let Some(thread) = at {
            if thread == me {
                return Err(PyRuntimeError::new_err(
                    "loads wait for each other: the thread that loads this key waits for one that this thread is loading",
                ));
            }
            at = graph.get(&thread).copied();
        }
        let before = graph.insert(me, leader);
        Ok(Self(me, before))
    }
}

impl Drop for WaitEdge {
    fn drop(&mut self) {
        // (A signal's handler may have waited in the middle of another wait.)
        match self.1 {
            Some(before) => _ = wait_graph().insert(self.0, before),
            None => _ = wait_graph().remove(&self.0),
        }
    }
}

impl SharedLoad {
    pub(crate) fn new(leader: Actor, id: u64) -> Self {
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

    /// Hands the outcome to all waiters, once. Runs callbacks.
    pub(crate) fn complete(&self, py: Python<'_>, outcome: &Outcome) {
        let completion = Completion::of(py, outcome);
        let callbacks = {
            let mut state = self.state();
            state.completion = Some(completion);
            std::mem::take(&mut state.callbacks)
        };
        if !self.gate.is_null() {
            // SAFETY: it has been held since `new`, and loads land once.
            unsafe { PyThread_release_lock(self.gate) };
        }
        for callback in callbacks {
            run_callback(&callback.into_bound(py));
        }
    }

    pub(crate) fn of_task(&self) -> bool {
        self.leader.task
    }

    pub(crate) fn completion(&self) -> Option<Completion> {
        self.state().completion.clone()
    }

    pub(crate) fn add_callback(&self, callback: Bound<'_, PyAny>) {
        let mut state = self.state();
        if state.completion.is_none() {
            state.callbacks.push(callback.into());
            return;
        }
        drop(state);
        run_callback(&callback);
    }

    /// Waits for the outcome, without the GIL.
    pub(crate) fn wait(&self, py: Python<'_>) -> PyResult<Completion> {
        let mut waited = false;
        loop {
            if let Some(completion) = self.completion() {
                return Ok(completion);
            }
            if self.gate.is_null() {
                return Err(PyMemoryError::new_err("no lock to wait with"));
            }
            if self.leader.task
                && let Some(check) = CHECK_EVENT_LOOP.get(py)
            {
                // (A thread that waits for its own event loop keeps it from running.)
                check.call1(py, (self.id, waited || self.leader.thread == current_thread()))?;
                if self.completion().is_some() {
                    continue;
                }
            }
            let edge = WaitEdge::new(self.leader)?;
            let gate = self.gate.expose_provenance();
            let limit = if self.leader.task { INTERVAL } else { -1 };
            let taken = py.detach(|| {
                let gate = std::ptr::with_exposed_provenance_mut(gate);
                // SAFETY: the gate lasts as long as `self`; each thread that gets through leaves it open for the next.
                unsafe {
                    let taken = PyThread_acquire_lock_timed(gate, limit, 1);
                    if taken == ACQUIRED {
                        PyThread_release_lock(gate);
                    }
                    taken
                }
            });
            drop(edge);
            if taken == INTERRUPTED {
                py.check_signals()?;
            }
            waited = true;
        }
    }
}

fn run_callback(callback: &Bound<'_, PyAny>) {
    if let Err(error) = callback.call0() {
        interrupt::report_callback_error(error, callback);
    }
}

impl Drop for SharedLoad {
    fn drop(&mut self) {
        if !self.gate.is_null() {
            // SAFETY: nobody waits any more, since who does holds it. A lock that is held, after a fork, may be freed too.
            unsafe { PyThread_free_lock(self.gate) };
        }
    }
}
