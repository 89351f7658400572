//! Whether a method's result can lead back to instances: only then the collector has to know to whom it belongs.

use crate::objects::{Object, is_tuple};
use pyo3::ffi;
use std::collections::HashSet;
use std::ffi::{c_int, c_void};
use std::ptr;

/// How many objects are looked at. What is larger counts as leading back.
const BUDGET: usize = 4096;

struct Walk {
    seen: HashSet<Object>,
    left: Vec<Object>,
}

impl Walk {
    fn push(&mut self, object: Object) {
        // SAFETY: what an object holds is alive while nobody else runs; null is skipped.
        let holds_others = !object.is_null() && unsafe { ffi::PyObject_IS_GC(object) } != 0;
        if holds_others && self.seen.insert(object) {
            self.left.push(object);
        }
    }
}

unsafe extern "C" fn visit(object: Object, walk: *mut c_void) -> c_int {
    // SAFETY: `leads_to_instances` gives its own walk.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    walk.push(object);
    // (Not much more than is going to be looked at.)
    c_int::from(walk.left.len() > BUDGET)
}

/// Whether an instance of a class, which may have cached methods of its own, can be reached from these: then a cycle is possible, now or
/// later. Classes, modules and the globals of functions are not looked into. Runs no Python code.
///
/// # Safety
/// The objects are alive, and the GIL is held.
pub(super) unsafe fn leads_to_instances(roots: &[Object]) -> bool {
    let mut walk = Walk {
        seen: HashSet::new(),
        left: Vec::new(),
    };
    roots.iter().for_each(|root| walk.push(*root));
    while let Some(object) = walk.left.pop() {
        if walk.seen.len() > BUDGET || walk.left.len() > BUDGET {
            return true;
        }
        // SAFETY: reached from the caller's objects, which are alive, as is all that they hold while nobody else runs.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if ffi::PyType_Check(object) != 0
                || ffi::PyModule_Check(object) != 0
                || class == &raw mut ffi::_PyWeakref_RefType
            {
                continue;
            }
            if class == &raw mut ffi::PyFunction_Type {
                // (Borrowed, or null.)
                walk.push(ffi::PyFunction_GetClosure(object));
                walk.push(ffi::PyFunction_GetDefaults(object));
                walk.push(ffi::PyFunction_GetKwDefaults(object));
                continue;
            }
            let is_instance =
                ffi::PyType_HasFeature(class, ffi::Py_TPFLAGS_HEAPTYPE) != 0 && (*class).tp_weaklistoffset != 0;
            if is_instance {
                return true;
            }
            if let Some(traverse) = (*class).tp_traverse {
                traverse(object, visit, ptr::from_mut(&mut walk).cast());
            }
        }
    }
    false
}

/// The arguments in a key of a method, without its instance.
///
/// # Safety
/// The key is alive for `'a`, and a method's.
pub(super) unsafe fn arguments<'a>(key: Object) -> &'a [Object] {
    // SAFETY: the caller's promise.
    unsafe {
        if !is_tuple(key) {
            return &[];
        }
        crate::objects::items(key).get(1..).unwrap_or_default()
    }
}
