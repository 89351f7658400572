//! Heap types made of CPython's raw structures: the entry into a method of a PyO3 class costs more
//! than a whole hit.

use crate::ffi::{ffi_guard, raise};
use crate::objects::Object;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;
use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The first fields of all objects whose types are made here.
#[repr(C)]
pub(crate) struct ObjectHead {
    pub(crate) base: ffi::PyObject,
    /// The function that vectorcall calls; null for objects that are not callable.
    pub(crate) vectorcall: Option<ffi::vectorcallfunc>,
    pub(crate) dict: Object,
    weak: Object,
}

/// An object whose type is made here.
///
/// # Safety
/// The type is `repr(C)` and begins with an [`ObjectHead`], which [`new_object`] gave to it and
/// which does not change.
pub(crate) unsafe trait NativeObject: Sized {
    /// Returns a new reference to the Python object that `self` is.
    fn to_python(&self, py: Python<'_>) -> Py<PyAny> {
        let object = ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `new_object` wrote `self` at the beginning of a Python object, which the borrow
        // of `self` keeps alive.
        unsafe { Bound::from_borrowed_ptr(py, object) }.unbind()
    }

    /// Shows the collector all references that the object holds. Takes no lock and runs no Python
    /// code.
    fn visit(&self, visit: &mut dyn FnMut(Object) -> c_int) -> c_int;
    /// Drops all references that may be part of a cycle.
    fn clear(&self);
    /// Drops what is not Python's, after `clear`.
    ///
    /// # Safety
    /// The object is not used any more.
    unsafe fn drop_native(this: *mut Self);
}

/// The description of a type.
pub(crate) struct TypeSpec {
    pub(crate) name: &'static CStr,
    pub(crate) doc: &'static CStr,
    pub(crate) flags: c_ulong,
    pub(crate) slots: Vec<ffi::PyType_Slot>,
    pub(crate) methods: Vec<ffi::PyMethodDef>,
    /// Whether instances have a `__dict__`.
    pub(crate) dict: bool,
}

pub(crate) fn slot(slot: c_int, pfunc: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
}

impl TypeSpec {
    /// Creates a type that is never freed, and stores it in `class` for code that makes instances.
    pub(crate) fn create_static<T: NativeObject>(
        self,
        module: &Bound<'_, PyModule>,
        class: &AtomicPtr<ffi::PyTypeObject>,
    ) -> PyResult<()> {
        let created = self.create::<T>(module)?;
        // Relaxed: the module is being imported, so no other thread reads it yet. The reference is
        // never released.
        class.store(created.into_ptr().cast(), Ordering::Relaxed);
        Ok(())
    }

    /// Creates the type and adds it to the module.
    pub(crate) fn create<'py, T: NativeObject>(self, module: &Bound<'py, PyModule>) -> PyResult<Bound<'py, PyType>> {
        let member = |name: &'static CStr, offset: usize| ffi::PyMemberDef {
            name: name.as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: offset as ffi::Py_ssize_t,
            flags: ffi::Py_READONLY,
            doc: ptr::null(),
        };
        // SAFETY: structures of C, of which all zeroes mark the end of a list.
        let (no_member, no_method, no_getset): (ffi::PyMemberDef, ffi::PyMethodDef, ffi::PyGetSetDef) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        let mut members = vec![member(c"__weaklistoffset__", offset_of!(ObjectHead, weak))];
        let mut getset = Vec::new();
        if self.dict {
            members.push(member(c"__dictoffset__", offset_of!(ObjectHead, dict)));
            getset.push(ffi::PyGetSetDef {
                name: c"__dict__".as_ptr(),
                get: Some(ffi::PyObject_GenericGetDict),
                set: Some(ffi::PyObject_GenericSetDict),
                doc: ptr::null(),
                closure: ptr::null_mut(),
            });
        }
        if self.flags & ffi::Py_TPFLAGS_HAVE_VECTORCALL != 0 {
            members.push(member(c"__vectorcalloffset__", offset_of!(ObjectHead, vectorcall)));
        }
        members.push(no_member);
        getset.push(no_getset);
        let mut methods = self.methods;
        methods.push(no_method);
        let mut slots = self.slots;
        // The type refers to these tables and is never freed, so neither are they.
        slots.extend([
            slot(ffi::Py_tp_doc, self.doc.as_ptr().cast_mut().cast()),
            slot(ffi::Py_tp_members, members.leak().as_mut_ptr().cast()),
            slot(ffi::Py_tp_methods, methods.leak().as_mut_ptr().cast()),
            slot(ffi::Py_tp_getset, getset.leak().as_mut_ptr().cast()),
            slot(ffi::Py_tp_traverse, traverse::<T> as *mut c_void),
            slot(ffi::Py_tp_clear, clear::<T> as *mut c_void),
            slot(ffi::Py_tp_dealloc, dealloc::<T> as *mut c_void),
            slot(0, ptr::null_mut()),
        ]);
        let mut spec = ffi::PyType_Spec {
            name: self.name.as_ptr(),
            basicsize: size_of::<T>() as c_int,
            itemsize: 0,
            flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | self.flags) as _,
            slots: slots.as_mut_ptr(),
        };
        let py = module.py();
        // SAFETY: the specification is complete, and its tables outlive the type.
        let class = unsafe {
            let class = ffi::PyType_FromModuleAndSpec(module.as_ptr(), &raw mut spec, ptr::null_mut());
            Bound::from_owned_ptr_or_err(py, class)?.cast_into::<PyType>()?
        };
        module.add(class.name()?, &class)?;
        Ok(class)
    }
}

/// Makes an object of the type from what `fill` returns for its head. No Python code runs between
/// the allocation and `fill`.
///
/// # Safety
/// The type was made here for `T`, or is a subclass of such a type.
pub(crate) unsafe fn new_object<T: NativeObject>(
    class: *mut ffi::PyTypeObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    fill: impl FnOnce(ObjectHead) -> T,
) -> PyResult<Object> {
    // SAFETY: the caller's promise. The allocated object has room for a `T`, and begins with a
    // head.
    unsafe {
        let allocate = (*class)
            .tp_alloc
            .ok_or_else(|| PyRuntimeError::new_err("a type without tp_alloc"))?;
        let object = allocate(class, 0);
        if object.is_null() {
            return Err(PyErr::fetch(Python::assume_attached()));
        }
        let mut head = ptr::read(object.cast::<ObjectHead>());
        head.vectorcall = vectorcall;
        object.cast::<T>().write(fill(head));
        Ok(object)
    }
}

/// Makes a [`new_object`] that stands for `_function`, and scales with the number of calling
/// threads as that does.
///
/// # Safety
/// As for `new_object`.
pub(crate) unsafe fn new_callable_like<T: NativeObject>(
    _function: &Bound<'_, PyAny>,
    class: *mut ffi::PyTypeObject,
    vectorcall: ffi::vectorcallfunc,
    fill: impl FnOnce(ObjectHead) -> T,
) -> PyResult<Object> {
    // SAFETY: the caller's promise; the object is new.
    unsafe {
        let made = new_object(class, Some(vectorcall), fill)?;
        #[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
        crate::deferred_refcount::as_function(made, _function);
        Ok(made)
    }
}

unsafe extern "C" fn traverse<T: NativeObject>(this: Object, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    let mut visit = |object: Object| {
        if object.is_null() {
            0
        } else {
            // SAFETY: the collector's function with its argument; the object is alive, since `this`
            // holds it.
            unsafe { visit(object, arg) }
        }
    };
    // SAFETY: the collector traverses objects of the type. (It has no way to report a panic.)
    unsafe {
        let head = &*this.cast::<ObjectHead>();
        match visit(ffi::Py_TYPE(this).cast()) {
            0 => {}
            stop => return stop,
        }
        match visit(head.dict) {
            0 => (*this.cast::<T>()).visit(&mut visit),
            stop => stop,
        }
    }
}

unsafe extern "C" fn clear<T: NativeObject>(this: Object) -> c_int {
    ffi_guard((), |_| {
        // SAFETY: the collector clears objects of the type.
        unsafe {
            let dict = std::mem::replace(&mut (*this.cast::<ObjectHead>()).dict, ptr::null_mut());
            ffi::Py_XDECREF(dict);
            (*this.cast::<T>()).clear();
        }
        Ok(())
    });
    0
}

unsafe extern "C" fn dealloc<T: NativeObject>(this: Object) {
    // SAFETY: CPython's protocol for the deallocation of an object of a heap type with garbage
    // collection.
    unsafe {
        ffi::PyObject_GC_UnTrack(this.cast());
        // The drops below run Python code, which must neither see nor replace an exception that is
        // set.
        let pending = ffi::PyErr_Occurred()
            .is_null()
            .then_some(())
            .is_none()
            .then(|| PyErr::fetch(Python::assume_attached()));
        if !(*this.cast::<ObjectHead>()).weak.is_null() {
            ffi::PyObject_ClearWeakRefs(this);
        }
        clear::<T>(this);
        ffi_guard((), |_| {
            T::drop_native(this.cast());
            Ok(())
        });
        if !ffi::PyErr_Occurred().is_null() {
            ffi::PyErr_WriteUnraisable(ptr::null_mut());
        }
        if let Some(pending) = pending {
            raise(pending);
        }
        let class = ffi::Py_TYPE(this);
        if let Some(free) = (*class).tp_free {
            free(this.cast());
        }
        ffi::Py_DECREF(class.cast());
    }
}

/// Returns the exception for calls of an object whose references the garbage collector has cleared.
#[cold]
pub(crate) fn cleared_by_gc(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!("the garbage collector has cleared this {what}"))
}

/// `__copy__` and `__deepcopy__`: returns the object itself, as for functions.
pub(crate) fn copy<T: NativeObject>(this: &T, _: &[Bound<'_, PyAny>], py: Python<'_>) -> PyResult<Py<PyAny>> {
    Ok(this.to_python(py))
}

/// `__reduce__`: returns the qualified name, as for functions.
pub(crate) fn reduce<T: NativeObject>(this: &T, _: &[Bound<'_, PyAny>], py: Python<'_>) -> PyResult<Py<PyAny>> {
    this.to_python(py).getattr(py, "__qualname__")
}

/// `__get__`: returns a bound method, as functions do.
pub(crate) unsafe extern "C" fn bind(this: Object, instance: Object, _class: Object) -> Object {
    unsafe extern "C" {
        fn PyMethod_New(function: Object, instance: Object) -> Object;
    }
    // SAFETY: CPython calls with objects that are alive; `instance` may be null.
    unsafe {
        if instance.is_null() || ffi::Py_IsNone(instance) != 0 {
            ffi::Py_INCREF(this);
            return this;
        }
        PyMethod_New(this, instance)
    }
}

/// Runs `f` while no other thread uses the object's structures; with the GIL that is always so.
///
/// On a free-threaded build this is a critical section: it is suspended while the thread waits or
/// detaches, so `f` must not rely on it across Python code.
pub(crate) fn with_critical_section<R>(_object: Object, f: impl FnOnce() -> R) -> R {
    #[cfg(Py_GIL_DISABLED)]
    {
        struct Section(ffi::PyCriticalSection);
        impl Drop for Section {
            fn drop(&mut self) {
                // SAFETY: begun below by this thread, and sections nest.
                unsafe { ffi::PyCriticalSection_End(&raw mut self.0) }
            }
        }
        // SAFETY: all zeroes is the initial state of a section.
        let mut section = Section(unsafe { std::mem::zeroed() });
        // SAFETY: the object is alive, and the section does not move until it ends.
        unsafe { ffi::PyCriticalSection_Begin(&raw mut section.0, _object) };
        f()
    }
    #[cfg(not(Py_GIL_DISABLED))]
    f()
}
