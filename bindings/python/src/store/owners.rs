//! Results that belong to instances of classes: they go when their instance goes.
//!
//! A key of a method begins with a weak reference to the instance. By that reference's address this knows all entries of an instance, in all
//! caches. A second weak reference, with a callback, tells of the instance's end, and the entries are removed then.
//!
//! That is not enough where a result leads back to its instance: the cache would keep the instance alive by the result. Such entries
//! belong to an object in the instance's `__dict__`, [`Results`], and not to the cache, as far as Python's collector sees: the object
//! shows it the references that the cache holds, and the cache does not. So a cycle through a result is a cycle of the instance's
//! own, which the collector ends as any other. The object's end removes the entries.
//!
//! For the GIL: what is changed here is changed while no Python code and no other thread runs.

use super::graph::{arguments, leads_to_instances};
use super::snapshot::IdentityQuery;
use super::{Hooks, Store};
use crate::call::referent;
use crate::ffi::{ffi_guard, raise};
use crate::gil_cell::GilCell;
use crate::objects::{Object, Raised, Ref, is_exactly, is_tuple, items, mix};
use crate::store::deferred_drop::DrainOnExit;
use crate::store::key::KeyQuery;
use crate::types::{NativeObject, ObjectHead, TypeSpec, new_object, slot};
use hashbrown::HashMap;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ffi::{CStr, c_int, c_void};
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Hashes an address.
#[derive(Default)]
struct Address(u64);

impl Hasher for Address {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = mix(address as u64, 0);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("addresses are numbers")
    }
}

type ByAddress<T> = HashMap<usize, T, BuildHasherDefault<Address>>;

/// An instance with results.
struct Owner {
    /// The weak reference that keys begin with, which is so kept for all of them.
    _plain: Ref,
    /// Tells of its end.
    _notifying: Ref,
    /// By the addresses of their keys, each of which is in one cache.
    entries: ByAddress<Entry>,
    /// How many of them there are in each cache that has any.
    caches: Vec<(*const Store, usize)>,
    /// The object in the instance's `__dict__`, or null.
    results: *mut Results,
}

#[derive(Clone, Copy)]
struct Entry {
    store: *const Store,
    hash: u64,
    value: Object,
    /// It belongs to `results`.
    owned: bool,
}

// SAFETY: pointers to Python objects and to stores, which are used with the GIL held.
unsafe impl Send for Owner {}

/// By the address of the weak reference that keys begin with.
static OWNERS: GilCell<ByAddress<Owner>> = GilCell::new(HashMap::with_hasher(BuildHasherDefault::new()));

/// The object that an instance holds.
#[repr(C)]
struct Results {
    head: ObjectHead,
    /// The weak reference that keys begin with.
    instance: AtomicPtr<ffi::PyObject>,
}

static CLASS: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
const ATTRIBUTE: &CStr = c"__hotset_results__";

/// The weak reference to an instance that a key begins with.
///
/// # Safety
/// The key is alive.
unsafe fn instance_of(key: Object) -> Option<Object> {
    // SAFETY: the caller's promise.
    unsafe {
        if key.is_null() || !is_tuple(key) {
            return None;
        }
        let first = *items(key).first()?;
        is_exactly(first, &raw mut ffi::_PyWeakref_RefType).then_some(first)
    }
}

/// What `prepare` found out of an entry.
#[derive(Clone, Copy)]
pub(super) struct PreparedEntry {
    instance: Object,
    owned: bool,
}

/// Returns whether a method's key is of an instance that is gone.
///
/// # Safety
/// The key is alive.
pub(super) unsafe fn is_dead(key: Object) -> bool {
    // SAFETY: the caller's promise; None is immortal or held by the interpreter.
    unsafe { instance_of(key).is_some_and(|weak| referent(weak) == ffi::Py_None()) }
}

/// Prepares for an entry of a method; None if it belongs to no instance. Allocates Python objects, so other code may run.
///
/// # Safety
/// The caller holds the key and the value; the instance is alive.
pub(super) unsafe fn prepare_entry(key: Object, value: Object) -> Result<Option<PreparedEntry>, Raised> {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(plain) = instance_of(key) else {
            return Ok(None);
        };
        // (Held: the load's arguments may be gone by now.)
        let held = Ref::borrowed(referent(plain));
        let instance = held.get();
        if !OWNERS.lock().contains_key(&(plain as usize)) {
            let callback = ffi::PyCFunction_NewEx((&raw const DEFINITION.0).cast_mut(), plain, ptr::null_mut());
            if callback.is_null() {
                return Err(Raised);
            }
            let callback = Ref::owned(callback);
            let notifying = ffi::PyWeakref_NewRef(instance, callback.get());
            if notifying.is_null() {
                return Err(Raised);
            }
            let owner = Owner {
                _plain: Ref::borrowed(plain),
                _notifying: Ref::owned(notifying),
                entries: HashMap::default(),
                caches: Vec::new(),
                results: ptr::null_mut(),
            };
            // (Other code may have run, and put it there.)
            let other = OWNERS.lock().insert(plain as usize, owner);
            if let Some(other) = other {
                let mine = OWNERS.lock().insert(plain as usize, other);
                drop(mine);
            }
        }
        let mut roots = arguments(key).to_vec();
        roots.push(value);
        let owned = ffi::PyType_Check(instance) == 0 && leads_to_instances(&roots) && give_results(plain, instance)?;
        Ok(Some(PreparedEntry { instance: plain, owned }))
    }
}

/// Puts the object into the instance's `__dict__`, if it has one, and is not there; whether it is there then.
unsafe fn give_results(plain: Object, instance: Object) -> Result<bool, Raised> {
    let there = |plain: Object| {
        OWNERS
            .lock()
            .get(&(plain as usize))
            .is_some_and(|owner| !owner.results.is_null())
    };
    if there(plain) {
        return Ok(true);
    }
    // SAFETY: the caller holds both; the type was made here.
    unsafe {
        let fill = |head| Results {
            head,
            instance: AtomicPtr::new(Ref::borrowed(plain).into_raw()),
        };
        let made = new_object::<Results>(CLASS.load(Ordering::Relaxed), None, fill).map_err(raise)?;
        let made = Ref::owned(made);
        let name = ffi::PyUnicode_InternFromString(ATTRIBUTE.as_ptr());
        if name.is_null() {
            return Err(Raised);
        }
        let name = Ref::owned(name);
        // Past a `__setattr__` of its own: it is no attribute that others are to know of.
        if ffi::PyObject_GenericSetAttr(instance, name.get(), made.get()) != 0 {
            // It has no `__dict__`.
            ffi::PyErr_Clear();
            return Ok(false);
        }
        if let Some(owner) = OWNERS.lock().get_mut(&(plain as usize)) {
            owner.results = made.get().cast();
        }
    }
    Ok(there(plain))
}

impl PreparedEntry {
    /// Notes an entry, which is about to be inserted: nothing may run in between.
    pub(super) fn register(self, store: &Store, key: Object, value: Object, hash: u64) {
        let mut owners = OWNERS.lock();
        let Some(owner) = owners.get_mut(&(self.instance as usize)) else {
            return;
        };
        // (The object may be gone since.)
        let owned = self.owned && !owner.results.is_null();
        let entry = Entry {
            store,
            hash,
            value,
            owned,
        };
        store.hooks.owned.fetch_add(usize::from(owned), Ordering::Relaxed);
        owner.entries.insert(key as usize, entry);
        match owner.caches.iter_mut().find(|(cache, _)| ptr::eq(*cache, store)) {
            Some((_, count)) => *count += 1,
            None => {
                owner.caches.push((store, 1));
                store.hooks.owners.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Forgets an entry, which left its cache.
pub(super) fn detach_entry(hooks: &Hooks, key: Object) {
    // SAFETY: the entry holds its key.
    let Some(instance) = (unsafe { instance_of(key) }) else {
        return;
    };
    let mut owners = OWNERS.lock();
    let Some(owner) = owners.get_mut(&(instance as usize)) else {
        return;
    };
    let Some(entry) = owner.entries.remove(&(key as usize)) else {
        return;
    };
    hooks.owned.fetch_sub(usize::from(entry.owned), Ordering::Relaxed);
    let Some(at) = owner.caches.iter().position(|(cache, _)| ptr::eq(*cache, entry.store)) else {
        return;
    };
    owner.caches[at].1 -= 1;
    if owner.caches[at].1 == 0 {
        owner.caches.swap_remove(at);
        hooks.owners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an entry belongs to an object that an instance holds, which shows it to the collector.
pub(super) fn is_owned(hooks: &Hooks, key: Object) -> bool {
    if hooks.owned.load(Ordering::Relaxed) == 0 {
        return false;
    }
    // SAFETY: the entry holds its key.
    let instance = unsafe { instance_of(key) };
    let owners = OWNERS.lock();
    let owner = instance.and_then(|instance| owners.get(&(instance as usize)));
    owner
        .and_then(|owner| owner.entries.get(&(key as usize)))
        .is_some_and(|entry| entry.owned)
}

/// Removes entries from their caches.
fn remove(entries: impl Iterator<Item = (usize, Entry)>) {
    for (key, entry) in entries {
        // SAFETY: a store's entries are forgotten here before it ends.
        let store = unsafe { &*entry.store };
        store
            .cache
            .remove(&IdentityQuery(entry.hash, key as Object) as &dyn KeyQuery);
    }
}

/// An instance is gone: so are its results.
fn instance_died(instance: Object) {
    let _drain = DrainOnExit;
    let owner = OWNERS.lock().remove(&(instance as usize));
    let Some(owner) = owner else { return };
    for (store, _) in &owner.caches {
        // SAFETY: as in `remove`.
        unsafe { &**store }.hooks.owners.fetch_sub(1, Ordering::Relaxed);
    }
    for entry in owner.entries.values().filter(|entry| entry.owned) {
        // SAFETY: as in `remove`.
        unsafe { &*entry.store }.hooks.owned.fetch_sub(1, Ordering::Relaxed);
    }
    remove(owner.entries.iter().map(|(key, entry)| (*key, *entry)));
}

/// A store ends, which has been emptied: nothing of it may be left here.
pub(super) fn detach_store(store: &Store) {
    if store.hooks.owners.load(Ordering::Relaxed) == 0 {
        return;
    }
    for owner in OWNERS.lock().values_mut() {
        owner.entries.retain(|_, entry| !ptr::eq(entry.store, store));
        owner.caches.retain(|(cache, _)| !ptr::eq(*cache, store));
    }
}

unsafe extern "C" fn on_instance_death(instance: Object, _: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        instance_died(instance);
        Ok(py.None().into_ptr())
    })
}

/// A definition of C's, which Python reads only.
struct Definition(ffi::PyMethodDef);

// SAFETY: nobody changes it.
unsafe impl Sync for Definition {}

static DEFINITION: Definition = Definition(ffi::PyMethodDef {
    ml_name: c"ended".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer {
        PyCFunction: on_instance_death,
    },
    ml_flags: ffi::METH_O,
    ml_doc: ptr::null(),
});

// SAFETY: it begins with a `ObjectHead`.
unsafe impl NativeObject for Results {
    fn visit(&self, visit: &mut dyn FnMut(Object) -> c_int) -> c_int {
        let owners = OWNERS.lock();
        let Some(owner) = owners.get(&(self.instance.load(Ordering::Relaxed) as usize)) else {
            return 0;
        };
        // (A copy of the instance may have brought another's into its `__dict__`; that is not the one.)
        if !ptr::eq(owner.results, self) {
            return 0;
        }
        let owned = owner.entries.iter().filter(|(_, entry)| entry.owned);
        owned
            .flat_map(|(key, entry)| [*key as Object, entry.value])
            .map(visit)
            .find(|stop| *stop != 0)
            .unwrap_or(0)
    }

    fn clear(&self) {
        let _drain = DrainOnExit;
        let instance = self.instance.swap(ptr::null_mut(), Ordering::Relaxed);
        if instance.is_null() {
            return;
        }
        let owned: Vec<_> = match OWNERS.lock().get_mut(&(instance as usize)) {
            Some(owner) if ptr::eq(owner.results, self) => {
                owner.results = ptr::null_mut();
                let owned = owner.entries.iter().filter(|(_, entry)| entry.owned);
                owned.map(|(key, entry)| (*key, *entry)).collect()
            }
            _ => Vec::new(),
        };
        remove(owned.into_iter());
        // SAFETY: the reference was this one's.
        unsafe { ffi::Py_DECREF(instance) };
    }

    unsafe fn drop_native(_: *mut Self) {}
}

impl Results {
    /// Copies and pickles of an instance are others, which have no results: None takes its place.
    fn reduce(&self, _: &[Bound<'_, PyAny>], py: Python<'_>) -> PyResult<Py<PyAny>> {
        let none = py.None().into_bound(py).get_type();
        Ok((none, PyTuple::empty(py)).into_pyobject(py)?.into_any().unbind())
    }
}

unsafe extern "C" fn new(_: *mut ffi::PyTypeObject, _: Object, _: Object) -> Object {
    ffi_guard(ptr::null_mut(), |_| {
        Err(PyTypeError::new_err("results are made by the caches whose they are"))
    })
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    TypeSpec {
        name: c"hotset._hotset.Results",
        doc: c"The results of an instance's cached methods that lead to other objects.",
        flags: ffi::Py_TPFLAGS_IMMUTABLETYPE,
        slots: vec![slot(ffi::Py_tp_new, new as *mut c_void)],
        methods: crate::ffi::methods![Results;
            c"__reduce__" => Results::reduce, 0..=0, c"Copied and pickled as None";
        ],
        dict: false,
    }
    .create::<Results>(module)?;
    let class = module.getattr("Results")?;
    CLASS.store(class.as_ptr().cast(), Ordering::Relaxed);
    // For as long as the process: instances get such objects at any time.
    std::mem::forget(class.unbind());
    Ok(())
}
