//! A cache as a mapping.

mod compute;
mod methods;
mod snapshot;

use crate::ffi::{catch_panics, ffi_guard, raise};
use crate::objects::{Object, Raised, Ref, hash};
use crate::store::Store;
use crate::store::deferred_drop::{DrainOnExit, RemovalNotice};
use crate::store::key::{Found, MappingKey, Search, Value};
use crate::store::options::Options;
use crate::types::{NativeObject, ObjectHead, TypeSpec, new_object, slot};
use hotset::Ttl;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;

#[repr(C)]
pub(crate) struct Mapping {
    head: ObjectHead,
    store: ManuallyDrop<Store>,
}

// SAFETY: it begins with a `ObjectHead`.
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

/// How a key is looked for.
pub(crate) type KeySearch<'s> = Search<'s, MappingKey>;

impl Mapping {
    fn object(&self) -> Object {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// Runs `f` with the search for a key, which the caller holds. The clock has been asked.
    #[inline(always)]
    fn with_search<R>(&self, key: Object, f: impl FnOnce(&KeySearch<'_>) -> Result<R, Raised>) -> Result<R, Raised> {
        let _drain = DrainOnExit;
        self.store.read_timer()?;
        let single = MappingKey(key);
        // SAFETY: the caller holds the key.
        let hash = unsafe { hash(key) }?;
        f(&Search::new(&single, hash))
    }

    /// The key's value. A failure that is remembered is none.
    #[inline(always)]
    fn get_value(&self, key: Object) -> Result<Option<Ref>, Raised> {
        self.with_search(key, |search| Ok(self.store.get(search)?.and_then(Found::value)))
    }

    /// Sets a key's value; `key` and `value` are the caller's.
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

/// Raises a KeyError of this key.
fn key_error(key: Object) -> Raised {
    // SAFETY: the key is alive. As dicts do, a tuple is put into one, since it would be taken for the exception's arguments.
    unsafe {
        let tuple = ffi::PyTuple_Pack(1, key);
        if !tuple.is_null() {
            ffi::PyErr_SetObject(ffi::PyExc_KeyError, tuple);
            ffi::Py_DECREF(tuple);
        }
    }
    Raised
}

unsafe extern "C" fn subscript(this: Object, key: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: Python calls with an object of the type, and a key that it holds.
        let mapping = unsafe { &*this.cast::<Mapping>() };
        match mapping.get_value(key)? {
            Some(value) => Ok(value.into_raw()),
            None => missing(this, key),
        }
    })
}

/// What `c[key]` is that is absent: what a subclass's `__missing__` returns, or a KeyError.
#[cold]
#[inline(never)]
fn missing(this: Object, key: Object) -> Result<Object, Raised> {
    let made = Python::attach(|py| {
        // SAFETY: Python calls with an object of the type, and a key that it holds.
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

/// Tells a listener: `(key, value, cause)`.
fn notify(py: Python<'_>, notice: &RemovalNotice, key: Object, value: Object) -> PyResult<()> {
    // SAFETY: alive, as long as this runs.
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

const OPTIONS: [&str; 10] = [
    "maxsize",
    "policy",
    "ttl",
    "tti",
    "jitter",
    "weigher",
    "max_weight",
    "on_removal",
    "negative_ttl",
    "timer",
];

unsafe extern "C" fn new(class: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        // SAFETY: Python calls with a tuple, and a dict or null.
        let (args, kwargs) = unsafe {
            let kwargs = Bound::from_borrowed_ptr_or_opt(py, kwargs);
            (Bound::from_borrowed_ptr(py, args), kwargs)
        };
        if !args.cast_into::<PyTuple>()?.is_empty() {
            return Err(PyTypeError::new_err("Cache takes its arguments by name"));
        }
        let kwargs = kwargs.map(|kwargs| kwargs.cast_into::<PyDict>()).transpose()?;
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

/// Accepts what `new` has seen to, also in subclasses.
unsafe extern "C" fn init(_: Object, _: Object, _: Object) -> c_int {
    0
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    TypeSpec {
        name: c"hotset._hotset.Cache",
        doc: c"A cache as a mapping.",
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
        methods: methods::table(),
        dict: false,
    }
    .create::<Mapping>(module)
}
