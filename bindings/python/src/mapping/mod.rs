//! A cache as a mapping.

pub(crate) mod class;
mod compute;
mod methods;
mod snapshot;

use crate::cache_methods::CacheObject;
use crate::objects::{Object, Raised, Ref, hash};
use crate::store::Store;
use crate::store::deferred_drop::DrainOnExit;
use crate::store::key::{Found, MappingKey, Search, Value};
use crate::types::{NativeObject, ObjectHead};
use hotset::Ttl;
use pyo3::ffi;
use std::ffi::c_int;
use std::mem::ManuallyDrop;

#[repr(C)]
pub(crate) struct Mapping {
    head: ObjectHead,
    store: ManuallyDrop<Store>,
}

// SAFETY: it begins with an `ObjectHead`.
unsafe impl NativeObject for Mapping {
    fn visit(&self, visit: &mut dyn FnMut(Object) -> c_int) -> c_int {
        self.store.visit(visit)
    }

    fn clear(&self) {
        let _drain = DrainOnExit;
        self.store.clear_for_gc();
    }

    unsafe fn drop_native(this: *mut Self) {
        let _drain = DrainOnExit;
        // SAFETY: the caller's promise; it was written by `new`, and is dropped once.
        unsafe { ManuallyDrop::drop(&mut (*this).store) };
    }
}

/// The search for a mapping's key.
pub(crate) type KeySearch<'s> = Search<'s, MappingKey>;

impl CacheObject for Mapping {
    fn store(&self) -> &Store {
        &self.store
    }
}

impl Mapping {
    /// Runs `f` with the search for `key`, which the caller holds, after reading the timer.
    #[inline(always)]
    fn with_search<R>(&self, key: Object, f: impl FnOnce(&KeySearch<'_>) -> Result<R, Raised>) -> Result<R, Raised> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        let single = MappingKey(key);
        // SAFETY: the caller holds the key.
        let hash = unsafe { hash(key) }?;
        f(&Search::new(&single, hash))
    }

    /// Returns the key's value. A cached failure is no value.
    #[inline(always)]
    fn get_value(&self, key: Object) -> Result<Option<Ref>, Raised> {
        self.with_search(key, |search| Ok(self.store.get(search)?.and_then(Found::value)))
    }

    /// Sets a key's value; the caller holds `key` and `value`.
    fn insert_value(&self, search: &KeySearch<'_>, key: Object, value: Object, ttl: Ttl) -> Result<(), Raised> {
        let weight = self.store.weigh(&[key, value])?;
        self.store.loads.invalidate(search)?;
        // SAFETY: the caller's objects are alive.
        let (key, value) = unsafe { (Ref::borrowed(key), Ref::borrowed(value)) };
        self.store.insert(search, key, Value::new(value), weight, ttl)
    }

    /// Removes a key, and returns its value.
    fn remove_value(&self, search: &KeySearch<'_>) -> Result<Option<Ref>, Raised> {
        self.store.loads.invalidate(search)?;
        Ok(self.store.remove(search)?.and_then(Found::value))
    }
}

/// Raises a KeyError for `key`.
fn key_error(key: Object) -> Raised {
    // SAFETY: the key is alive. As dicts do, wraps the key in a tuple: a key that is a tuple would
    // become the exception's arguments.
    unsafe {
        let tuple = ffi::PyTuple_Pack(1, key);
        if !tuple.is_null() {
            ffi::PyErr_SetObject(ffi::PyExc_KeyError, tuple);
            ffi::Py_DECREF(tuple);
        }
    }
    Raised
}
