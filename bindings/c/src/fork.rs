//! Forks: a child opens caches of its own, and is refused those that it inherited.
//!
//! A fork may stop other threads anywhere inside hotset, so an inherited cache may be in any state.
//! The state that all caches of a process share can be repaired in every case
//! (`engine::raw::fork_child`): the child waits for no lock of it.

use crate::memory;
use crate::types::{Status, hotset_status};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Changes in every child of a fork.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// The generation of this process.
#[inline(always)]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    memory::fork_child();
    // SAFETY: the child's only thread runs the handlers of the fork; the header forbids that the
    // child returns from a callback that forked it.
    unsafe { engine::raw::fork_child() };
}

/// Registers the handler for forks. Before the first cache there is nothing that a child could
/// inherit.
pub(crate) fn watch() -> Result<(), Status> {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    if !WATCHED.load(Ordering::Relaxed) {
        // Two threads may both register it: a second run of the handler does no harm. With a lock,
        // the child of a fork at this point could wait forever.
        // SAFETY: the handler takes no lock and no memory. It stays loaded (build.rs); libc forgets
        // the handlers of a plugin that was linked with the static library, and is unloaded. (Miri
        // knows no forks.)
        if !cfg!(miri) && unsafe { libc::pthread_atfork(None, None, Some(in_child)) } != 0 {
            return Err(hotset_status::HOTSET_NO_MEMORY.into());
        }
        WATCHED.store(true, Ordering::Relaxed);
    }
    Ok(())
}
