//! A method under `cached`, bound to its instance: so that `instance.method.cache_invalidate(..)` knows of which.
//!
//! Calls of the form `instance.method(..)` do not come here: the interpreter hands the instance to the function itself. What is looked
//! up here is looked up in the type first (the methods that the package adds), and then in the function.

use crate::ffi::{catch_panics, ffi_guard, methods};
use crate::objects::{Object, Raised, Ref};
use crate::types::{NativeObject, ObjectHead, TypeSpec, new_object, slot};
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

#[repr(C)]
pub(crate) struct BoundMemo {
    head: ObjectHead,
    function: AtomicPtr<ffi::PyObject>,
    instance: AtomicPtr<ffi::PyObject>,
}

/// The type, for `__get__`: it lives as long as the process.
static CLASS: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

// SAFETY: it begins with a `ObjectHead`.
unsafe impl NativeObject for BoundMemo {
    fn visit(&self, visit: &mut dyn FnMut(Object) -> c_int) -> c_int {
        match visit(self.function.load(Ordering::Relaxed)) {
            0 => visit(self.instance.load(Ordering::Relaxed)),
            stop => stop,
        }
    }

    fn clear(&self) {
        for held in [&self.function, &self.instance] {
            // SAFETY: it was this one's, and is released once.
            unsafe { ffi::Py_XDECREF(held.swap(ptr::null_mut(), Ordering::Relaxed)) };
        }
    }

    unsafe fn drop_native(_: *mut Self) {}
}

impl BoundMemo {
    /// The function and the instance.
    fn parts(&self) -> Result<[Ref; 2], Raised> {
        let held = [&self.function, &self.instance].map(|held| held.load(Ordering::Relaxed));
        if held.contains(&ptr::null_mut()) {
            let text = "the garbage collector has taken this method apart";
            return Err(crate::ffi::raise(PyRuntimeError::new_err(text)));
        }
        // SAFETY: both are held by this one, which is alive.
        Ok(held.map(|object| unsafe { Ref::borrowed(object) }))
    }

    fn function<'py>(&self, _: &[Bound<'py, PyAny>], py: Python<'py>) -> PyResult<Py<PyAny>> {
        let [function, _] = self.parts()?;
        Ok(function.into_bound(py).unbind())
    }

    fn instance<'py>(&self, _: &[Bound<'py, PyAny>], py: Python<'py>) -> PyResult<Py<PyAny>> {
        let [_, instance] = self.parts()?;
        Ok(instance.into_bound(py).unbind())
    }

    /// `getattr(instance, name)`, as for bound methods.
    fn reduce<'py>(&self, _: &[Bound<'py, PyAny>], py: Python<'py>) -> PyResult<Py<PyAny>> {
        let [function, instance] = self.parts()?.map(|part| part.into_bound(py));
        let getattr = py.import("builtins")?.getattr("getattr")?;
        let arguments = (instance, function.getattr("__name__")?);
        Ok((getattr, arguments).into_pyobject(py)?.into_any().unbind())
    }
}

/// A method of this instance; a new reference.
unsafe fn bound_to(function: Object, instance: Object) -> PyResult<Object> {
    // SAFETY: the type was made here, and the caller's objects are alive.
    unsafe {
        let part = |object: Object| {
            ffi::Py_INCREF(object);
            AtomicPtr::new(object)
        };
        let fill = |head| BoundMemo {
            head,
            function: part(function),
            instance: part(instance),
        };
        new_object::<BoundMemo>(CLASS.load(Ordering::Relaxed), Some(vectorcall), fill)
    }
}

/// `__get__` of a function under `cached`.
pub(super) unsafe extern "C" fn bind(this: Object, instance: Object, owner: Object) -> Object {
    // SAFETY: Python calls with objects that are alive; `instance` and `owner` may be null.
    unsafe {
        // (A class as its own owner is what a class method hands on before 3.13; later ones make a bound method themselves.)
        if instance.is_null() || ffi::Py_IsNone(instance) != 0 || instance == owner {
            return crate::types::bind(this, instance, owner);
        }
        ffi_guard(ptr::null_mut(), |_| bound_to(this, instance))
    }
}

unsafe extern "C" fn vectorcall(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: Python calls with an object of the type, and arguments as vectorcall says: with the flag, the place before the
        // first may be used while the call runs.
        unsafe {
            let [function, instance] = (*this.cast::<BoundMemo>()).parts()?;
            let count = ffi::PyVectorcall_NARGS(nargsf) as usize;
            let result = if nargsf & ffi::PY_VECTORCALL_ARGUMENTS_OFFSET != 0 {
                let first = args.sub(1).cast_mut();
                let before = first.replace(instance.get());
                let result = ffi::PyObject_Vectorcall(function.get(), first, count + 1, names);
                first.write(before);
                result
            } else {
                let named = if names.is_null() {
                    0
                } else {
                    ffi::Py_SIZE(names) as usize
                };
                let mut all = Vec::with_capacity(1 + count + named);
                all.push(instance.get());
                if count + named > 0 {
                    all.extend_from_slice(std::slice::from_raw_parts(args, count + named));
                }
                ffi::PyObject_Vectorcall(function.get(), all.as_ptr(), count + 1, names)
            };
            if result.is_null() { Err(Raised) } else { Ok(result) }
        }
    })
}

unsafe extern "C" fn new(_: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        // SAFETY: Python calls with a tuple, and a dict or null.
        unsafe {
            if !kwargs.is_null() && ffi::PyDict_Size(kwargs) > 0 {
                return Err(PyTypeError::new_err("BoundMemo takes its arguments by position"));
            }
            let args = Bound::from_borrowed_ptr(py, args).cast_into::<PyTuple>()?;
            let (function, instance): (Bound<'_, PyAny>, Bound<'_, PyAny>) = args.extract()?;
            if !function.is_callable() {
                return Err(PyTypeError::new_err("the first argument must be callable"));
            }
            bound_to(function.as_ptr(), instance.as_ptr())
        }
    })
}

/// What tells of the type in the type, but should tell of the function here.
const OF_FUNCTION: [&str; 2] = ["__doc__", "__module__"];

/// An attribute of the object, or else of the function under it.
fn attribute<'py>(this: Object, function: Ref, name: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = name.py();
    let name = name.cast_into::<PyString>()?;
    if !OF_FUNCTION.iter().any(|other| name == *other) {
        // SAFETY: the caller's object is alive.
        let own = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyObject_GenericGetAttr(this, name.as_ptr())) };
        match own {
            Err(error) if error.is_instance_of::<PyAttributeError>(py) => {}
            own => return own,
        }
    }
    function.into_bound(py).getattr(name)
}

unsafe extern "C" fn getattro(this: Object, name: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        // SAFETY: Python calls with an object of the type, and a string.
        let ([function, _], name) =
            unsafe { ((*this.cast::<BoundMemo>()).parts()?, Bound::from_borrowed_ptr(py, name)) };
        attribute(this, function, name).map(Bound::into_ptr)
    })
}

unsafe extern "C" fn compare(this: Object, other: Object, operation: c_int) -> Object {
    // SAFETY: Python calls with objects that are alive, the first of this type.
    unsafe {
        let is_other = ffi::Py_TYPE(other) == CLASS.load(Ordering::Relaxed);
        let answer = if !is_other || ![ffi::Py_EQ, ffi::Py_NE].contains(&operation) {
            ffi::Py_NotImplemented()
        } else {
            let part = |object: Object| {
                let bound = &*object.cast::<BoundMemo>();
                [&bound.function, &bound.instance].map(|held| held.load(Ordering::Relaxed))
            };
            if (part(this) == part(other)) == (operation == ffi::Py_EQ) {
                ffi::Py_True()
            } else {
                ffi::Py_False()
            }
        };
        ffi::Py_INCREF(answer);
        answer
    }
}

unsafe extern "C" fn hash(this: Object) -> ffi::Py_hash_t {
    // SAFETY: Python calls with an object of the type.
    let this = unsafe { &*this.cast::<BoundMemo>() };
    let [function, instance] = [&this.function, &this.instance].map(|held| held.load(Ordering::Relaxed) as u64);
    // (-1 would be an error.)
    (crate::objects::mix(function, instance) >> 1) as ffi::Py_hash_t
}

/// How the type is told, when it is sealed.
pub(super) const NEW: unsafe extern "C" fn(*mut ffi::PyTypeObject, Object, Object) -> Object = new;

/// A coroutine method under `cached`, in its class: what lies there is bound as a [`BoundMemo`], and is else the coroutine function.
#[repr(C)]
struct AsyncMethod {
    head: ObjectHead,
    function: AtomicPtr<ffi::PyObject>,
}

// SAFETY: it begins with a `ObjectHead`.
unsafe impl NativeObject for AsyncMethod {
    fn visit(&self, visit: &mut dyn FnMut(Object) -> c_int) -> c_int {
        visit(self.function.load(Ordering::Relaxed))
    }

    fn clear(&self) {
        // SAFETY: it was this one's, and is released once.
        unsafe { ffi::Py_XDECREF(self.function.swap(ptr::null_mut(), Ordering::Relaxed)) };
    }

    unsafe fn drop_native(_: *mut Self) {}
}

/// The coroutine function.
///
/// # Safety
/// The object is an [`AsyncMethod`], and alive.
unsafe fn coroutine_function(this: Object) -> Result<Ref, Raised> {
    // SAFETY: the caller's promise.
    unsafe {
        let function = (*this.cast::<AsyncMethod>()).function.load(Ordering::Relaxed);
        if function.is_null() {
            let text = "the garbage collector has taken this method apart";
            return Err(crate::ffi::raise(PyRuntimeError::new_err(text)));
        }
        Ok(Ref::borrowed(function))
    }
}

unsafe extern "C" fn bind_coroutine(this: Object, instance: Object, owner: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: Python calls with an object of the type, and others that are alive.
        unsafe {
            let function = coroutine_function(this)?;
            if instance.is_null() || ffi::Py_IsNone(instance) != 0 {
                return Ok(function.into_raw());
            }
            Ok(bind(function.get(), instance, owner))
        }
    })
}

unsafe extern "C" fn call_coroutine(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: Python calls with an object of the type, and arguments as vectorcall says.
        unsafe {
            let function = coroutine_function(this)?;
            let result = ffi::PyObject_Vectorcall(function.get(), args, nargsf, names);
            if result.is_null() { Err(Raised) } else { Ok(result) }
        }
    })
}

unsafe extern "C" fn coroutine_attribute(this: Object, name: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        // SAFETY: Python calls with an object of the type, and a string.
        let (function, name) = unsafe { (coroutine_function(this)?, Bound::from_borrowed_ptr(py, name)) };
        attribute(this, function, name).map(Bound::into_ptr)
    })
}

unsafe extern "C" fn new_coroutine(class: *mut ffi::PyTypeObject, args: Object, _: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        // SAFETY: Python calls with the type, and a tuple.
        unsafe {
            let args = Bound::from_borrowed_ptr(py, args).cast_into::<PyTuple>()?;
            let (function,): (Bound<'_, PyAny>,) = args.extract()?;
            let fill = |head| AsyncMethod {
                head,
                function: AtomicPtr::new(function.into_ptr()),
            };
            new_object::<AsyncMethod>(class, Some(call_coroutine), fill)
        }
    })
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    TypeSpec {
        name: c"hotset._hotset.BoundMemo",
        doc: c"A method whose results are cached, of an instance.",
        flags: ffi::Py_TPFLAGS_HAVE_VECTORCALL,
        slots: vec![
            slot(ffi::Py_tp_new, new as *mut c_void),
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_getattro, getattro as *mut c_void),
            slot(ffi::Py_tp_richcompare, compare as *mut c_void),
            slot(ffi::Py_tp_hash, hash as *mut c_void),
        ],
        methods: methods![BoundMemo;
            c"function" => BoundMemo::function, 0..=0, c"The function under the method";
            c"instance" => BoundMemo::instance, 0..=0, c"The instance that the method is of";
            c"__reduce__" => BoundMemo::reduce, 0..=0, c"Pickled by its instance and name";
        ],
        dict: false,
    }
    .create::<BoundMemo>(module)?;
    TypeSpec {
        // As for Memo.
        name: c"functools.AsyncMethod",
        doc: c"A coroutine method whose results are cached.",
        flags: ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR | ffi::Py_TPFLAGS_IMMUTABLETYPE,
        slots: vec![
            slot(ffi::Py_tp_new, new_coroutine as *mut c_void),
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_descr_get, bind_coroutine as *mut c_void),
            slot(ffi::Py_tp_getattro, coroutine_attribute as *mut c_void),
        ],
        methods: Vec::new(),
        dict: false,
    }
    .create::<AsyncMethod>(module)?;
    let class = module.getattr("BoundMemo")?;
    CLASS.store(class.as_ptr().cast(), Ordering::Relaxed);
    // For as long as the process: `__get__` needs it.
    std::mem::forget(class.unbind());
    Ok(())
}
