//! Callables that many threads call, without the GIL.
//!
//! Whoever calls one counts a reference to it, up and down: two threads that write to one counter are slower than one. CPython spares its
//! own functions that: those that are not nested in others "defer" their counts, and only the garbage collector frees them. A function
//! with a cache is to scale as it would without one, so it is made as its function is.
//!
//! This is for CPython 3.13. (Later ones have a function for it, which waits for one of them to be tried on.)

use crate::objects::Object;
use pyo3::prelude::*;
use pyo3::types::PyFunction;
use std::sync::atomic::Ordering;

/// Of a function or object whose count is deferred; of one that is never freed; of one that the collector counts.
const DEFERRED: u8 = 1 << 6;
const IMMORTAL: u32 = u32::MAX;
const QUEUED: isize = 2;

/// Has the references to an object deferred, if those to the function are.
///
/// CPython 3.13 has no function for this that others may call, and will not change any more: this is what its own does. When the first thread
/// begins it makes all objects of this kind immortal. After that nothing is deferred here: what is made anew by and by would never be freed.
///
/// # Safety
/// The object is new: no other thread knows it. The collector tracks it.
pub(crate) unsafe fn as_function(object: Object, function: &Bound<'_, PyAny>) {
    // SAFETY: the caller's promise: this thread owns the object, and nobody else writes to it; the function is alive.
    unsafe {
        let (object, like) = (&mut *object, &*function.as_ptr());
        let deferred = like.ob_gc_bits & DEFERRED != 0 && like.ob_ref_local.load(Ordering::Relaxed) != IMMORTAL;
        if function.is_exact_instance_of::<PyFunction>() && deferred {
            object.ob_gc_bits |= DEFERRED;
            // One more than there are, which the collector knows of.
            *object.ob_ref_local.get_mut() += 1;
            *object.ob_ref_shared.get_mut() = QUEUED;
        }
    }
}
