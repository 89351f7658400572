//! The native part of hotset's Python wheel.
//!
//! `lru` is `functools.lru_cache`, by itself. `memo` is a function with a cache and `mapping` a
//! cache as a mapping, both on a `store`: the engine with Python objects in it. `snapshot` saves
//! their entries to a file and restores them. Types whose calls are hot are made of CPython's raw
//! structures (`types`); the rest is ordinary PyO3.

mod advise;
mod cache_methods;
mod cache_ref;
mod call;
#[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
mod deferred_refcount;
mod exception_copy;
mod ffi;
mod finalization;
mod flight;
mod gil_cell;
mod hash_seed;
mod interrupt;
mod lru;
mod mapping;
mod memo;
mod objects;
mod sentinels;
mod snapshot;
mod stack;
mod store;
mod tier2;
mod ttl;
mod types;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicI64, Ordering};

/// Drops the loads of other threads, and has the child make its own stats file. Called by the
/// module itself in children after a fork.
#[pyfunction]
fn after_fork() {
    flight::shared::note_fork();
    #[cfg(unix)]
    hotset::raw::stats_file::fork_child();
}

/// Registers what threads call while they wait for a task's load. Called once.
///
/// Args:
///     check: Called with the load's number, and whether the thread has waited already.
#[pyfunction]
fn check_loads(check: Bound<'_, PyAny>) {
    flight::shared::set_check(check);
}

/// Compares the caches' clock with that of the second tier.
///
/// Called before `set_trust`, and at least once per second afterwards.
///
/// Args:
///     now: The time of the second tier, in nanoseconds.
#[pyfunction]
#[pyo3(signature = (now, /))]
fn sync_clock(now: u64) {
    store::trust::sync_clock(now);
}

/// Raises an ImportError in any interpreter but the first that imports the module.
///
/// What leaves a cache is dropped by the next thread that returns from a call of this module, so
/// all objects must belong to one interpreter. CPython itself refuses interpreters with a GIL of
/// their own.
fn refuse_another_interpreter() -> PyResult<()> {
    static FIRST: AtomicI64 = AtomicI64::new(-1);
    // SAFETY: the module is being imported, so the thread is attached.
    let this = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
    match FIRST.compare_exchange(-1, this, Ordering::Relaxed, Ordering::Relaxed) {
        Err(first) if first != this => Err(PyImportError::new_err(
            "hotset can be imported in one interpreter of a process only",
        )),
        _ => Ok(()),
    }
}

#[pymodule(gil_used = false)]
fn _hotset(module: &Bound<'_, PyModule>) -> PyResult<()> {
    refuse_another_interpreter()?;
    finalization::hang_instead_of_unwinding();
    hash_seed::init();
    sentinels::init(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let gil = if cfg!(Py_GIL_DISABLED) { "free-threaded" } else { "GIL" };
    let build = format!(
        "{} {profile}, {}-{}, {gil}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    );
    module.add("build", build)?;
    module.add_function(wrap_pyfunction!(after_fork, module)?)?;
    module.add_function(wrap_pyfunction!(check_loads, module)?)?;
    module.add_function(wrap_pyfunction!(sync_clock, module)?)?;
    let os = module.py().import("os")?;
    if os.hasattr("register_at_fork")? {
        let kwargs = pyo3::types::PyDict::new(module.py());
        kwargs.set_item("after_in_child", module.getattr("after_fork")?)?;
        os.call_method("register_at_fork", (), Some(&kwargs))?;
    }
    module.add_class::<flight::Flight>()?;
    store::publish::add(module)?;
    ttl::add(module)?;
    lru::add(module)?;
    memo::class::add(module)?;
    mapping::class::add(module)?;
    snapshot::add(module)?;
    advise::add(module)?;
    tier2::add(module)
}
