//! A load that other callers wait for.

use super::actor::{Actor, current_thread};
use crate::exception_copy::Failure;
use crate::interrupt;
use crate::objects::Ref;
use pyo3::exceptions::{PyException, PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::collections::HashMap;
use std::ffi::{c_int, c_longlong, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

// Part of Python's stable interface, not declared by PyO3.
unsafe extern "C" {
    fn PyThread_allocate_lock() -> *mut c_void;
    fn PyThread_free_lock(lock: *mut c_void);
    fn PyThread_acquire_lock_timed(lock: *mut c_void, microseconds: c_longlong, interruptible: c_int) -> c_int;
    fn PyThread_release_lock(lock: *mut c_void);
}

/// The results of `PyThread_acquire_lock_timed`: the lock was acquired; a signal interrupted the
/// wait.
const ACQUIRED: c_int = 1;
const INTERRUPTED: c_int = 2;

/// The interval, in microseconds, at which a waiting thread checks that the event loop of the
/// loading task still runs.
const INTERVAL: c_longlong = 50_000;

/// Called with the number of a load that a task leads, and whether the caller has waited for it:
/// abandons the load if its event loop does not run.
static CHECK_EVENT_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

pub(crate) fn set_check(check: Bound<'_, PyAny>) {
    // The first one stays: the functions of a module that is imported again are equivalent.
    let _ = CHECK_EVENT_LOOP.set(check.py(), check.clone().unbind());
}

/// Incremented in a child after a fork: the leaders of loads with an earlier number are in the
/// parent.
static FORK_COUNT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn fork_count() -> u64 {
    FORK_COUNT.load(Ordering::Relaxed)
}

pub(crate) fn note_fork() {
    // Relaxed: only the forking thread exists in the child.
    FORK_COUNT.fetch_add(1, Ordering::Relaxed);
    // The threads that waited are in the parent.
    wait_graph().clear();
}

/// The outcome of a load, for its leader.
#[derive(Clone)]
pub(crate) enum Outcome {
    Value(Ref),
    /// The exception that the leader raises.
    Error(Ref),
    /// No outcome: waiters try again.
    Abandoned,
}

/// The outcome of a load, for its waiters.
#[derive(Clone)]
pub(crate) enum Completion {
    Value(Ref),
    /// A [`Failure`], which makes a copy of the exception for each waiter.
    Error(Ref),
    Abandoned,
}

impl Completion {
    /// Makes an outcome shareable. May run Python code.
    fn of(py: Python<'_>, outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Value(value) => Self::Value(value.clone()),
            Outcome::Error(error) => {
                let error = error.clone().into_bound(py);
                match Failure::new(&error, true) {
                    Ok(Some(failure)) => Self::Error(failure.into_any().into()),
                    // Without a copy, each waiter loads for itself and gets its own exception.
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

/// Returns the outcome of a load that raised: an error for all callers, or none if the exception
/// concerns its leader only, as `KeyboardInterrupt` does.
pub(crate) fn failure(py: Python<'_>, error: &PyErr) -> Outcome {
    if error.is_instance_of::<PyException>(py) {
        let value = error.value(py);
        // Before 3.12 PyO3 keeps the traceback beside the exception, not in it.
        if let Some(traceback) = error.traceback(py) {
            // SAFETY: an exception, and a traceback.
            unsafe { pyo3::ffi::PyException_SetTraceback(value.as_ptr(), traceback.as_ptr()) };
        }
        Outcome::Error(value.clone().into_any().into())
    } else {
        Outcome::Abandoned
    }
}

#[derive(Default)]
struct State {
    completion: Option<Completion>,
    callbacks: Vec<Ref>,
}

/// A load that other callers wait for.
pub(crate) struct SharedLoad {
    leader: Actor,
    /// The load's number.
    pub(crate) id: u64,
    /// A lock of Python's, held until the load completes. Waiters acquire and release it one after
    /// another: signals can interrupt that.
    gate: *mut c_void,
    state: Mutex<State>,
}

// SAFETY: Python's locks may be used by any thread.
unsafe impl Send for SharedLoad {}
// SAFETY: as above.
unsafe impl Sync for SharedLoad {}

/// The wait graph: the thread that each waiting thread waits for.
fn wait_graph() -> MutexGuard<'static, HashMap<u64, u64>> {
    static WAIT_GRAPH: LazyLock<Mutex<HashMap<u64, u64>>> = LazyLock::new(Mutex::default);
    WAIT_GRAPH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An edge of the wait graph, from the first thread; and the edge that it replaced.
struct WaitEdge(u64, Option<u64>);

impl WaitEdge {
    /// Adds an edge from the calling thread to the leader, or raises a RuntimeError if that closes
    /// a cycle.
    ///
    /// A task waits if the thread of its event loop does.
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
                    "deadlock: the thread that loads this key waits for a load of this thread",
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
        // A signal handler may have waited in the middle of another wait, whose edge is restored.
        match self.1 {
            Some(before) => _ = wait_graph().insert(self.0, before),
            None => _ = wait_graph().remove(&self.0),
        }
    }
}

impl SharedLoad {
    pub(crate) fn new(leader: Actor, id: u64) -> Self {
        // SAFETY: a new lock, which no other thread knows when it is acquired.
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

    /// Locks the state. No Python code runs under this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the outcome to all waiters, once. Runs callbacks, after the lock is released.
    pub(crate) fn complete(&self, py: Python<'_>, outcome: &Outcome) {
        let completion = Completion::of(py, outcome);
        let callbacks = {
            let mut state = self.state();
            state.completion = Some(completion);
            std::mem::take(&mut state.callbacks)
        };
        if !self.gate.is_null() {
            // SAFETY: held since `new`, and a load completes once.
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
                return Err(PyMemoryError::new_err("out of memory for the lock of a load"));
            }
            if self.leader.task
                && let Some(check) = CHECK_EVENT_LOOP.get(py)
            {
                // A thread that waits for its own event loop keeps that from running.
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
                // SAFETY: the gate lives as long as `self`; each thread that acquires it releases
                // it for the next.
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
            // SAFETY: no thread waits any more, since waiters hold a reference to `self`. A lock
            // that is held, after a fork, may be freed too.
            unsafe { PyThread_free_lock(self.gate) };
        }
    }
}
