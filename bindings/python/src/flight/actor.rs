//! The leader of a load, and the callers that wait for it.
//!
//! A load belongs to the greenlet that began it. Greenlets of one thread take turns on its stack:
//! another one may look up a key that is being loaded, and must not block the thread in which the
//! load continues.

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};
use std::ffi::{c_int, c_ulong};
use std::sync::atomic::{AtomicU64, Ordering};

unsafe extern "C" {
    // Part of Python's stable interface, not declared by PyO3.
    fn PyThread_get_thread_ident() -> c_ulong;
    #[cfg_attr(not(Py_3_13), link_name = "_Py_IsFinalizing")]
    fn Py_IsFinalizing() -> c_int;
}

/// Returns the calling thread's identifier; never 0.
pub(crate) fn current_thread() -> u64 {
    // SAFETY: it has no conditions.
    unsafe { PyThread_get_thread_ident() as u64 }
}

/// Returns whether the interpreter is finalizing: then no other thread runs.
pub(crate) fn is_finalizing() -> bool {
    // SAFETY: it has no conditions.
    unsafe { Py_IsFinalizing() != 0 }
}

/// The leader of a load.
#[derive(Clone, Copy)]
pub(crate) struct Actor {
    /// Whether it is an asyncio task, whose event loop runs in the thread.
    pub(crate) task: bool,
    pub(crate) thread: u64,
    /// The address of the running greenlet, which lives as long as its load; 0 if there is none.
    greenlet: usize,
}

/// The relation of a caller to the leader of a load.
pub(crate) enum Relation {
    /// The caller is the leader.
    Own,
    /// The caller may wait for the leader.
    Other,
    /// The caller must not wait: that would block other greenlets of its thread.
    Bypass,
}

impl Actor {
    pub(crate) fn current(task: bool) -> Self {
        // SAFETY: the calling thread is attached.
        let py = unsafe { Python::assume_attached() };
        let greenlet = if task { None } else { running_greenlet(py) };
        Self {
            task,
            thread: current_thread(),
            greenlet: greenlet.map_or(0, |greenlet| greenlet.as_ptr().addr()),
        }
    }

    /// Returns the relation of this actor, which calls and is no task, to the leader of a load.
    pub(crate) fn relation(self, leader: Self) -> Relation {
        // SAFETY: the calling thread is attached.
        let py = unsafe { Python::assume_attached() };
        let greenlet = running_greenlet(py);
        // A greenlet that is not its thread's first has a parent.
        let is_first = greenlet.as_ref().is_none_or(|greenlet| {
            !greenlet
                .getattr(intern!(py, "parent"))
                .is_ok_and(|parent| !parent.is_none())
        });
        if !leader.task && leader.thread == self.thread {
            // A load that began before greenlet was imported belongs to the first greenlet.
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

/// Returns the running greenlet, if the package has been imported.
fn running_greenlet(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    static GETCURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if let Some(getcurrent) = GETCURRENT.get(py) {
        return getcurrent.bind(py).call0().ok();
    }
    if is_without_greenlet() {
        return None;
    }
    let modules = modules(py)?;
    let Some(greenlet) = modules.get_item(intern!(py, "greenlet")).ok()? else {
        // SAFETY: the interpreter holds it.
        WITHOUT_GREENLET.store(unsafe { version_of(modules.as_ptr()) }, Ordering::Relaxed);
        return None;
    };
    let getcurrent = greenlet.getattr(intern!(py, "getcurrent")).ok()?;
    let _ = GETCURRENT.set(py, getcurrent.clone().unbind());
    getcurrent.call0().ok()
}

/// The version of the modules' dict when greenlet was last missing there; 0 if it never was.
///
/// Nearly all programs do without greenlet, and finding that out would take a tenth of a miss.
static WITHOUT_GREENLET: AtomicU64 = AtomicU64::new(0);

/// Returns whether no module has been imported since greenlet was last missing. Takes no reference:
/// to return one right after it was taken, as PyO3 does, waits a dozen cycles for the count.
#[inline(always)]
fn is_without_greenlet() -> bool {
    let known = WITHOUT_GREENLET.load(Ordering::Relaxed);
    // SAFETY: the calling thread is attached. The interpreter holds the object, which is a dict if
    // it is the one whose version is known.
    known != 0 && unsafe { version_of(ffi::PyImport_GetModuleDict()) } == known
}

/// Returns a number that no other dict has, nor this one after another change; 0 where Python has
/// no such number, or for another object.
///
/// # Safety
/// The object is null or alive.
#[cfg(not(any(Py_3_14, Py_GIL_DISABLED)))]
#[allow(deprecated, reason = "up to 3.13 each change of a dict sets it")]
#[inline(always)]
unsafe fn version_of(modules: *mut ffi::PyObject) -> u64 {
    // SAFETY: the object is a dict. With the GIL no thread changes it while this runs.
    unsafe {
        if modules.is_null() || ffi::PyDict_Check(modules) == 0 {
            return 0;
        }
        (*modules.cast::<ffi::PyDictObject>()).ma_version_tag
    }
}

#[cfg(any(Py_3_14, Py_GIL_DISABLED))]
unsafe fn version_of(_: *mut ffi::PyObject) -> u64 {
    0
}

/// Returns the imported modules by name.
fn modules(py: Python<'_>) -> Option<Bound<'_, PyDict>> {
    // SAFETY: borrowed from the interpreter, which holds it.
    let modules = unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyImport_GetModuleDict()) }?;
    modules.cast_into().ok()
}

/// Returns the module of this name, if it has been imported.
fn imported<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    modules(py)?.get_item(name).ok()?
}

/// Returns whether the calling thread has a hub of gevent or eventlet, which runs other greenlets
/// while this one waits.
///
/// A thread's first greenlet is the thread itself: without a hub it may block as any thread does.
fn has_hub(py: Python<'_>) -> bool {
    // The public functions of both packages make a hub where there is none.
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
