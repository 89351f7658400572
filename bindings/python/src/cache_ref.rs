//! References from loads and snapshot sessions to the cache that they belong to.

use crate::types::NativeObject;
use pyo3::prelude::*;
use std::ops::Deref;

/// A reference to a cache object, seen as a `T`, which is a trait of the user of the reference.
///
/// Loads and snapshot sessions outlive the call that begins them. They hold the cache by this,
/// without knowing its type.
pub(crate) struct CacheRef<T: ?Sized> {
    /// Keeps the cache alive.
    object: Py<PyAny>,
    cache: *const T,
}

// SAFETY: Python objects may be used by any attached thread, and all users of this are attached.
unsafe impl<T: ?Sized> Send for CacheRef<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized> Sync for CacheRef<T> {}

impl<T: ?Sized> CacheRef<T> {
    /// Returns a reference to `cache`, which `view` turns into a `T`.
    pub(crate) fn new<C: NativeObject>(py: Python<'_>, cache: &C, view: impl FnOnce(&C) -> &T) -> Self {
        Self {
            object: cache.to_python(py),
            cache: std::ptr::from_ref(view(cache)),
        }
    }
}

impl<T: ?Sized> Deref for CacheRef<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let _held = &self.object;
        // SAFETY: `cache` points to the object that `object` keeps alive, or into it; Python
        // objects do not move.
        unsafe { &*self.cache }
    }
}
