//! The type `Cache`: its constructor, its slots, its methods.

use super::{Mapping, key_error};
use crate::ffi::{catch_panics, constructor_arguments, ffi_guard, raise};
use crate::objects::{Object, Raised};
use crate::store::Store;
use crate::store::deferred_drop::{DrainOnExit, RemovalNotice};
use crate::store::options::Options;
use crate::types::{TypeSpec, new_object, slot};
use hotset::Ttl;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;

unsafe extern "C" fn subscript(this: Object, key: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: CPython calls with an object of the type, and a key that it holds.
        let mapping = unsafe { &*this.cast::<Mapping>() };
        match mapping.get_value(key)? {
            Some(value) => Ok(value.into_raw()),
            None => missing(this, key),
        }
    })
}

/// Returns what `c[key]` is for an absent key: the result of a subclass's `__missing__`, or a
/// KeyError.
#[cold]
#[inline(never)]
fn missing(this: Object, key: Object) -> Result<Object, Raised> {
    let made = Python::attach(|py| {
        // SAFETY: CPython calls with an object of the type, and a key that it holds.
        let (this, key) = unsafe { (Bound::from_borrowed_ptr(py, this), Bound::from_borrowed_ptr(py, key)) };
        let class = this.get_type();
        match class.getattr_opt(pyo3::intern!(py, "__missing__"))? {
            Some(function) => function.call1((this, key)).map(|made| Some(made.into_ptr())),
            None => Ok(None),
        }
    });
    made.map_err(raise)?.ok_or_else(|| key_error(key))
}

unsafe extern "C" fn assign(this: Object, key: Object, value: Object) -> c_int {
    catch_panics(-1, || {
        // SAFETY: as above; `value` is null for `del`.
        let this = unsafe { &*this.cast::<Mapping>() };
        this.with_search(key, |search| {
            if !value.is_null() {
                return this.insert_value(search, key, value, Ttl::Default);
            }
            this.remove_value(search)?.map(drop).ok_or_else(|| key_error(key))
        })?;
        Ok(0)
    })
}

unsafe extern "C" fn contains(this: Object, key: Object) -> c_int {
    catch_panics(-1, || {
        // SAFETY: as above.
        let this = unsafe { &*this.cast::<Mapping>() };
        this.with_search(key, |search| this.store.contains_value(search))
            .map(c_int::from)
    })
}

unsafe extern "C" fn length(this: Object) -> ffi::Py_ssize_t {
    catch_panics(-1, || {
        // SAFETY: as above.
        let this = unsafe { &*this.cast::<Mapping>() };
        let _drain = DrainOnExit;
        this.store.read_timer()?;
        Ok(this.store.len() as ffi::Py_ssize_t)
    })
}

unsafe extern "C" fn iterate(this: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        // SAFETY: as above.
        let this = unsafe { &*this.cast::<Mapping>() };
        let keys = this.entries(py)?.into_iter().map(|(key, _)| key);
        let keys = pyo3::types::PyList::new(py, keys.collect::<Vec<_>>())?;
        Ok(keys.try_iter()?.into_any().into_ptr())
    })
}

/// Notifies a listener with `(key, value, cause)`.
fn notify(py: Python<'_>, notice: &RemovalNotice, key: Object, value: Object) -> PyResult<()> {
    // SAFETY: the notice's owner holds all three while this runs.
    let (key, value, listener) = unsafe {
        let value = Bound::from_borrowed_ptr(py, value);
        (
            Bound::from_borrowed_ptr(py, key),
            value,
            Bound::from_borrowed_ptr(py, notice.listener),
        )
    };
    listener.call1((key, value, notice.cause())).map(drop)
}

const OPTIONS: [&str; 12] = [
    "maxsize",
    "policy",
    "ttl",
    "tti",
    "jitter",
    "weigher",
    "max_weight",
    "on_removal",
    "negative_ttl",
    "profile",
    "autosize",
    "timer",
];

unsafe extern "C" fn new(class: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        // SAFETY: CPython calls with a tuple, and a dict or null.
        let (args, kwargs) = unsafe { constructor_arguments(py, args, kwargs)? };
        if !args.is_empty() {
            return Err(PyTypeError::new_err("Cache takes its arguments by name"));
        }
        let options = Options::read(kwargs.as_ref(), 128, &OPTIONS)?;
        let store = Store::new(&options, notify)?;
        let mapping = |head| Mapping {
            head,
            store: ManuallyDrop::new(store),
        };
        // SAFETY: the type is this one or a subclass.
        unsafe { new_object::<Mapping>(class, None, mapping) }
    })
}

/// Accepts the arguments of `new`, for subclasses without an `__init__`.
unsafe extern "C" fn init(_: Object, _: Object, _: Object) -> c_int {
    0
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    TypeSpec {
        name: c"hotset._hotset.Cache",
        doc: c"A cache as a mapping, on the engine. May be subclassed.

Has weak references; subclasses have a __dict__. c[k] raises KeyError; c[k] = v, del c[k], k in
c, len(c), and iteration over the keys, hottest first, as of its start.
",
        flags: ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_IMMUTABLETYPE | ffi::Py_TPFLAGS_MAPPING,
        slots: vec![
            slot(ffi::Py_tp_new, new as *mut c_void),
            slot(ffi::Py_tp_init, init as *mut c_void),
            slot(ffi::Py_tp_iter, iterate as *mut c_void),
            slot(ffi::Py_mp_subscript, subscript as *mut c_void),
            slot(ffi::Py_mp_ass_subscript, assign as *mut c_void),
            slot(ffi::Py_mp_length, length as *mut c_void),
            slot(ffi::Py_sq_contains, contains as *mut c_void),
        ],
        methods: super::methods::table(),
        dict: false,
    }
    .create::<Mapping>(module)
    .map(drop)
}
