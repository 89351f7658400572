//! The type `Memo`: its constructor, its slots, its methods.

use super::outage::Outage;
use super::{Memo, vectorcall, vectorcall_special};
use crate::call::Call;
use crate::ffi::{constructor_arguments, ffi_guard};
use crate::objects::Object;
use crate::store::Store;
use crate::store::deferred_drop::RemovalNotice;
use crate::store::options::Options;
use crate::types::{TypeSpec, new_callable_like, slot};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::AtomicPtr;
#[cfg(Py_GIL_DISABLED)]
use std::sync::atomic::Ordering;

/// Notifies a listener with `(args, kwargs, value, cause)`.
fn notify<const TYPED: bool>(py: Python<'_>, notice: &RemovalNotice, key: Object, value: Object) -> PyResult<()> {
    // SAFETY: the notice's owner holds all of them while this runs, and the key is one of this kind
    // of cache.
    let (args, kwargs, value, listener) = unsafe {
        let (args, kwargs) = Call::arguments(py, key, TYPED, notice.method)?;
        let value = Bound::from_borrowed_ptr(py, value);
        (args, kwargs, value, Bound::from_borrowed_ptr(py, notice.listener))
    };
    listener.call1((args, kwargs, value, notice.cause())).map(drop)
}

const OPTIONS: [&str; 20] = [
    "maxsize",
    "policy",
    "ttl",
    "tti",
    "jitter",
    "typed",
    "key",
    "weigher",
    "max_weight",
    "on_removal",
    "single_flight",
    "negative_ttl",
    "stale_while_revalidate",
    "stale_if_error",
    "refresher",
    "profile",
    "autosize",
    "timer",
    "method",
    "per_instance",
];

unsafe extern "C" fn new(class: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        // SAFETY: CPython calls with a tuple, and a dict or null.
        let (args, kwargs) = unsafe { constructor_arguments(py, args, kwargs)? };
        if args.len() != 1 {
            return Err(PyTypeError::new_err(
                "Memo takes one argument by position: the function",
            ));
        }
        let function = args.get_item(0)?;
        if !function.is_callable() {
            return Err(PyTypeError::new_err("the first argument must be callable"));
        }
        let options = Options::read(kwargs.as_ref(), 128, &OPTIONS)?;
        // The result of a key function is the key, whatever the arguments' types are.
        let typed = options.typed && options.key.is_none();
        let store = Store::new(&options, if typed { notify::<true> } else { notify::<false> })?;
        let reference =
            |object: Option<Bound<'_, PyAny>>| AtomicPtr::new(object.map_or(ptr::null_mut(), Bound::into_ptr));
        let reloads = options.stale_while_revalidate.is_some() || options.stale_if_error.is_some();
        let special = options.key.is_some() || reloads || store.has_timer();
        let timed = options.ttl.is_some() || options.tti.is_some();
        let eager = matches!(options.policy, hotset::Policy::Lru);
        let memo = |head| Memo {
            head,
            function: reference(Some(function.clone())),
            typed,
            single_flight: options.single_flight,
            is_simple: !special && !typed,
            has_fast_path: cfg!(not(Py_GIL_DISABLED)) && !special && !typed && !timed && !eager,
            reloads,
            outage: Outage::new(options.stale_while_revalidate.max(options.stale_if_error)),
            key: reference(options.key),
            refresher: reference(options.refresher),
            store: ManuallyDrop::new(store),
        };
        let called = if special { vectorcall_special } else { vectorcall };
        // SAFETY: the type is this one.
        unsafe { new_callable_like(&function, class, called, memo) }
    })
}

/// Makes the type immutable, so that the interpreter specializes calls of its methods.
///
/// Args:
///     memo: The type, to which the package has added its methods. Called once.
#[pyfunction]
fn seal(class: &Bound<'_, PyType>) -> PyResult<()> {
    let this = class.as_type_ptr();
    // SAFETY: a type is alive while it is borrowed. Its flags are changed during the import, before
    // another thread can know it.
    unsafe {
        let made = (*this).tp_new.map_or(0, |made| made as usize);
        if ![new as *const () as usize, super::bound::NEW as usize].contains(&made) {
            return Err(PyTypeError::new_err("only Memo and BoundMemo are sealed"));
        }
        #[cfg(not(Py_GIL_DISABLED))]
        {
            (*this).tp_flags |= ffi::Py_TPFLAGS_IMMUTABLETYPE;
        }
        #[cfg(Py_GIL_DISABLED)]
        (*this)
            .tp_flags
            .fetch_or(ffi::Py_TPFLAGS_IMMUTABLETYPE as _, Ordering::Relaxed);
        ffi::PyType_Modified(this);
    }
    Ok(())
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(seal, module)?)?;
    super::bound::add(module)?;
    #[cfg(not(Py_GIL_DISABLED))]
    crate::store::owners::add(module)?;
    module.add_class::<super::reload::Reload>()?;
    TypeSpec {
        // Libraries that recognize functools' wrappers by their module (pydantic) accept this type.
        name: c"functools.Memo",
        doc: c"The callable behind `cached`, on the engine.

Has __dict__, weak references, __get__, copy and pickle as `LruFunction` has, and cannot be
subclassed. `method=True` makes it a method's: the first argument is compared by identity, need
not be hashable, and is referenced weakly; one that cannot be referenced weakly is compared by
type and equality, and held.
",
        // Becomes immutable after the package has added the methods for users: see `seal`.
        flags: ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR,
        slots: vec![
            slot(ffi::Py_tp_new, new as *mut c_void),
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_descr_get, super::bound::bind as *mut c_void),
        ],
        methods: super::methods::table(),
        dict: true,
    }
    .create::<Memo>(module)
    .map(drop)
}
