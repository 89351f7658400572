//! A search for instances that a method's result refers to. Only such results can be part of a
//! cycle, for which the collector has to know their owner.

use crate::objects::{Object, is_tuple};
use pyo3::ffi;
use std::collections::HashSet;
use std::ffi::{c_int, c_void};
use std::ptr;

/// The maximum number of objects that are visited. A larger graph counts as one that leads to an
/// instance.
const BUDGET: usize = 4096;

struct Walk {
    seen: HashSet<Object>,
    left: Vec<Object>,
}

impl Walk {
    fn push(&mut self, object: Object) {
        // SAFETY: what an object holds is alive while no other thread runs; null is skipped.
        let holds_others = !object.is_null() && unsafe { ffi::PyObject_IS_GC(object) } != 0;
        if holds_others && self.seen.insert(object) {
            self.left.push(object);
        }
    }
}

unsafe extern "C" fn visit(object: Object, walk: *mut c_void) -> c_int {
    // SAFETY: `leads_to_instances` passes its own walk.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    walk.push(object);
    // Stops before the stack grows far beyond what is visited.
    c_int::from(walk.left.len() > BUDGET)
}

/// Returns whether an instance of a class can be reached from `roots`: the class may have cached
/// methods, so a cycle is possible now or later.
///
/// Does not look into classes, modules and the globals of functions. Runs no Python code.
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
        // SAFETY: reached from the caller's objects, which are alive, as is all that they hold
        // while no other thread runs.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if ffi::PyType_Check(object) != 0
                || ffi::PyModule_Check(object) != 0
                || class == &raw mut ffi::_PyWeakref_RefType
            {
                continue;
            }
            if class == &raw mut ffi::PyFunction_Type {
                // Borrowed, or null.
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

/// Returns the arguments in a method's key, without the instance.
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
