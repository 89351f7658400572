//! Deferred reference counts for callables, on free-threaded builds.
//!
//! A call counts a reference to the callable up and down, and threads that write to one counter
//! slow each other down. CPython avoids that for its own functions: those that are not nested in
//! others have "deferred" counts, and only the garbage collector frees them. A cached function must
//! scale as the function alone does, so it is deferred if its function is.
//!
//! This is for CPython 3.13. Later versions have a function for it
//! (`PyUnstable_Object_EnableDeferredRefcount`), which this module does not use yet.

use crate::objects::Object;
use pyo3::prelude::*;
use pyo3::types::PyFunction;
use std::sync::atomic::Ordering;

/// The flag of an object whose count is deferred; the local count of an immortal one; the state of
/// one that the collector counts.
const DEFERRED: u8 = 1 << 6;
const IMMORTAL: u32 = u32::MAX;
const QUEUED: isize = 2;

/// Defers the reference counts of `object` if those of `function` are deferred.
///
/// CPython 3.13 exports no function for this and will not change any more: the steps are those of
/// its own. When the first thread is started, CPython makes all deferred objects immortal. Nothing
/// is deferred after that, since objects that are made over time would never be freed.
///
/// # Safety
/// The object is new: no other thread knows it. The collector tracks it.
pub(crate) unsafe fn as_function(object: Object, function: &Bound<'_, PyAny>) {
    // SAFETY: the caller's promise: this thread owns the object, and no other thread writes to it;
    // the function is alive.
    unsafe {
        let (object, like) = (&mut *object, &*function.as_ptr());
        let deferred = like.ob_gc_bits & DEFERRED != 0 && like.ob_ref_local.load(Ordering::Relaxed) != IMMORTAL;
        if function.is_exact_instance_of::<PyFunction>() && deferred {
            object.ob_gc_bits |= DEFERRED;
            // One more than there are references, as the collector expects of deferred objects.
            *object.ob_ref_local.get_mut() += 1;
            *object.ob_ref_shared.get_mut() = QUEUED;
        }
    }
}
