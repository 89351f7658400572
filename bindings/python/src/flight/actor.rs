//! Who leads a load, or waits for one.
//!
//! A load belongs to the greenlet that began it: greenlets of one thread take turns on its stack, so another one may look up a key that
//! is being loaded, and must not block the thread in which the load continues.

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};
use std::ffi::{c_int, c_ulong};

unsafe extern "C" {
    // Of Python's stable interface, not declared by PyO3.
    fn PyThread_get_thread_ident() -> c_ulong;
    #[cfg_attr(not(Py_3_13), link_name = "_Py_IsFinalizing")]
    fn Py_IsFinalizing() -> c_int;
}

/// The calling thread; never 0.
pub(crate) fn current_thread() -> u64 {
    // SAFETY: it has no conditions.
    unsafe { PyThread_get_thread_ident() as u64 }
}

/// Whether the interpreter is ending: then no thread runs but the calling one.
pub(crate) fn is_finalizing() -> bool {
    // SAFETY: it has no conditions.
    unsafe { Py_IsFinalizing() != 0 }
}

/// The leader of a load.
#[derive(Clone, Copy)]
pub(crate) struct Actor {
    /// A task of asyncio's, in an event loop that runs in the thread.
    pub(crate) task: bool,
    pub(crate) thread: u64,
    /// The address of the running greenlet, which lives as long as its load; 0 while there are none.
    greenlet: usize,
}

/// What a caller may do about a load that another one leads.
pub(crate) enum Relation {
    /// The caller leads it.
    Own,
    /// It may wait.
    Other,
    /// It must not: other greenlets of this thread would wait, too.
    Bypass,
}

impl Actor {
    pub(crate) fn current(task: bool) -> Self {
        // SAFETY: whoever loads is attached.
        let py = unsafe { Python::assume_attached() };
        let greenlet = if task { None } else { running_greenlet(py) };
        Self {
            task,
            thread: current_thread(),
            greenlet: greenlet.map_or(0, |greenlet| greenlet.as_ptr().addr()),
        }
    }

    /// What the calling one, which is no task, is to a leader.
    pub(crate) fn relation(self, leader: Self) -> Relation {
        // SAFETY: whoever loads is attached.
        let py = unsafe { Python::assume_attached() };
        let greenlet = running_greenlet(py);
        // (One that is not the thread's first has another as its parent.)
        let is_first = greenlet.as_ref().is_none_or(|greenlet| {
            !greenlet
                .getattr(intern!(py, "parent"))
                .is_ok_and(|parent| !parent.is_none())
        });
        if !leader.task && leader.thread == self.thread {
            // A load that began before there were greenlets is the first one's.
            let own = leader.greenlet == self.greenlet || leader.greenlet == 0 && is_first;
            return if own { Relation::Own } else { Relation::Bypass };
        }
        let blocks_others = !is_first || greenlet.is_some() && has_hub(py);
        if blocks_others {
            Relation::Bypass
        } else {
            Relation::Other
        }
    }
}

/// The greenlet that runs, if the package has been imported.
fn running_greenlet(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    static GETCURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if let Some(getcurrent) = GETCURRENT.get(py) {
        return getcurrent.bind(py).call0().ok();
    }
    let greenlet = imported(py, intern!(py, "greenlet"))?;
    let getcurrent = greenlet.getattr(intern!(py, "getcurrent")).ok()?;
    let _ = GETCURRENT.set(py, getcurrent.clone().unbind());
    getcurrent.call0().ok()
}

/// The module of this name, if it has been imported.
fn imported<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    // SAFETY: borrowed from the interpreter, which keeps it.
    let modules = unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyImport_GetModuleDict()) }?;
    modules.cast::<PyDict>().ok()?.get_item(name).ok()?
}

/// Whether the calling thread has a hub of gevent or eventlet, which runs other greenlets while this one waits. A thread's first greenlet
/// is the thread itself: without a hub it may block as any thread.
fn has_hub(py: Python<'_>) -> bool {
    // (Neither has a public function that does not make a hub where there is none.)
    let gevent = || {
        let hub = imported(py, intern!(py, "gevent._hub_local"))?.call_method0(intern!(py, "get_hub_if_exists"));
        hub.ok().filter(|hub| !hub.is_none())
    };
    let eventlet = || {
        let locals = imported(py, intern!(py, "eventlet.hubs"))?.getattr(intern!(py, "_threadlocal"));
        locals.ok()?.getattr_opt(intern!(py, "hub")).ok()?
    };
    gevent().is_some() || eventlet().is_some()
}
