//! The callable behind `cached`: a function whose results are kept in a [`Store`].

mod bound;
mod load;
mod methods;
mod outage;
mod reload;
mod snapshot;

use crate::call::{Call, Positional, Receiver, SingleArg, check_equal};
use crate::exception_copy::raise_copy;
use crate::ffi::{catch_panics, ffi_guard, raise};
use crate::objects::{Equal, Object, Raised, Ref, equals_fast, hash, hash_fast, is_any_tuple};
use crate::stack;
use crate::store::Store;
use crate::store::deferred_drop::{DeferredDrop, DrainOnExit, RemovalNotice, defer_drop};
use crate::store::key::{Found, MatchesKey, Search};
use crate::store::options::Options;
use crate::types::{NativeObject, ObjectHead, TypeSpec, new_callable_like, slot};
use outage::Outage;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

#[repr(C)]
pub(crate) struct Memo {
    head: ObjectHead,
    function: AtomicPtr<ffi::PyObject>,
    /// Makes the key of the arguments, if it is not null.
    key: AtomicPtr<ffi::PyObject>,
    /// Has values reloaded elsewhere, if it is not null.
    refresher: AtomicPtr<ffi::PyObject>,
    typed: bool,
    /// Not `typed`; hits look at nothing but what is there.
    plain: bool,
    /// And with the GIL, without times, and under a policy that is not told of every hit: a single look may tell.
    quick: bool,
    single_flight: bool,
    /// Values are reloaded before they end.
    reloads: bool,
    /// Expired results are served because the function raises.
    outage: Outage,
    store: ManuallyDrop<Store>,
}

// SAFETY: it begins with a `ObjectHead`.
unsafe impl NativeObject for Memo {
    fn visit(&self, visit: &mut dyn FnMut(Object) -> c_int) -> c_int {
        for held in [&self.function, &self.key, &self.refresher] {
            match visit(held.load(Ordering::Relaxed)) {
                0 => {}
                stop => return stop,
            }
        }
        self.store.visit(visit)
    }

    fn clear(&self) {
        let _drain = DrainOnExit;
        for held in [&self.function, &self.key, &self.refresher] {
            defer_drop(DeferredDrop {
                key: held.swap(ptr::null_mut(), Ordering::Relaxed),
                value: ptr::null_mut(),
                notice: None,
            });
        }
        self.store.clear_for_gc();
    }

    unsafe fn drop_native(this: *mut Self) {
        let _drain = DrainOnExit;
        // SAFETY: the caller's promise; it was written by `new`, and is dropped once.
        unsafe { ManuallyDrop::drop(&mut (*this).store) };
    }
}

impl Memo {
    fn object(&self) -> Object {
        ptr::from_ref(self).cast_mut().cast()
    }

    #[inline(always)]
    fn call(&self, call: &Call<'_>, nargsf: usize) -> Result<Object, Raised> {
        let _drain = DrainOnExit;
        let completed = self.store.loads.completed();
        let search = Search::new(call, call.hash()?);
        match self.store.get(&search)? {
            Some(found) => found.or_raise().map(Ref::into_raw),
            None => self.load(&search, call, call, nargsf, completed),
        }
    }

    /// [`call`](Self::call) with arguments by position only, of a function that is `plain`; `sought` is what is looked for, with its hash.
    ///
    /// # Safety
    /// As vectorcall's.
    #[inline(always)]
    unsafe fn call_plain<T: MatchesKey>(
        &self,
        (sought, hash): (&T, Result<u64, Raised>),
        args: *const Object,
        nargsf: usize,
        receiver: Receiver,
    ) -> Result<Object, Raised> {
        let _drain = DrainOnExit;
        let completed = self.store.loads.completed();
        let hash = hash?;
        match self.store.get(&Search::new(sought, hash))? {
            Some(Found::Value(value)) => Ok(value.into_raw()),
            Some(Found::Error(failure)) => Err(raise_copy(failure)),
            None => {
                // SAFETY: the caller's promise.
                let call = unsafe {
                    let count = ffi::PyVectorcall_NARGS(nargsf) as usize;
                    Call::new(args, count, ptr::null_mut(), false, receiver)
                };
                self.load(&Search::new(&call, hash), &call, &call, nargsf, completed)
            }
        }
    }

    /// A call with a key function, a clock of the user's, or reloads.
    #[inline(never)]
    fn call_special(&self, call: &Call<'_>, nargsf: usize) -> Result<Object, Raised> {
        self.store.read_timer()?;
        self.with_key(call, |key| {
            let completed = self.store.loads.completed();
            let search = Search::new(key, Self::hash_special(key)?);
            match self.find_special(&search)? {
                Some((Found::Value(value), true)) => self.reload(&search, key, call, nargsf, value).map(Ref::into_raw),
                Some((found, _)) => found.or_raise().map(Ref::into_raw),
                None => self.load(&search, key, call, nargsf, completed),
            }
        })
    }

    #[inline(never)]
    fn hash_special(key: &Call<'_>) -> Result<u64, Raised> {
        key.hash()
    }

    /// What is there, and whether the caller is the one that must reload it.
    #[inline(never)]
    fn find_special<T: MatchesKey>(&self, search: &Search<'_, T>) -> Result<Option<(Found, bool)>, Raised> {
        if self.reloads {
            return self.store.get_and_claim_reload(search);
        }
        Ok(self.store.get(search)?.map(|found| (found, false)))
    }

    fn has_key_function(&self) -> bool {
        !self.key.load(Ordering::Relaxed).is_null()
    }

    /// Runs `f` with what the key is made of: the arguments, or what the key function makes of them.
    fn with_key<R>(&self, call: &Call<'_>, f: impl FnOnce(&Call<'_>) -> Result<R, Raised>) -> Result<R, Raised> {
        let function = self.key.load(Ordering::Relaxed);
        if function.is_null() {
            return f(call);
        }
        // SAFETY: held while they are used.
        unsafe {
            let function = Ref::borrowed(function);
            let key = call.call(function.get(), call.positional())?;
            // A method's results belong to its instances, whatever their other arguments are told apart by.
            let objects = [call.instance().unwrap_or(ptr::null_mut()), key.get()];
            let skipped = usize::from(call.receiver() == Receiver::None);
            let (args, count) = (objects.as_ptr().add(skipped), 2 - skipped);
            f(&Call::new(args, count, ptr::null_mut(), false, call.receiver()))
        }
    }

    /// What the first of these arguments is.
    ///
    /// # Safety
    /// There are so many, and they are alive.
    #[inline(always)]
    unsafe fn receiver(&self, args: *const Object, count: usize) -> Result<Receiver, Raised> {
        // SAFETY: the caller's promise.
        unsafe {
            let receiver = Receiver::of(self.store.is_method(), args, count);
            if receiver == Receiver::Equal {
                check_equal(ffi::Py_TYPE(*args))?;
            }
            Ok(receiver)
        }
    }

    /// Calls the function with arguments that are objects.
    fn run_with<'py>(&self, args: &Bound<'py, PyTuple>, kwargs: &Bound<'py, PyDict>) -> PyResult<Ref> {
        let function = self.function.load(Ordering::Relaxed);
        // SAFETY: held while it runs.
        let function = unsafe { Bound::from_borrowed_ptr_or_opt(args.py(), function) };
        let function = function.ok_or_else(cleared_by_gc)?;
        stack::check()?;
        Ok(function.call(args, Some(kwargs))?.into())
    }

    /// Calls the function.
    fn run(&self, call: &Call<'_>, nargsf: usize) -> Result<Ref, Raised> {
        let function = self.function.load(Ordering::Relaxed);
        if function.is_null() {
            return Err(raise(cleared_by_gc()));
        }
        stack::check()?;
        // SAFETY: held while it runs, whatever happens to this cache meanwhile.
        unsafe {
            let function = Ref::borrowed(function);
            call.call(function.get(), nargsf)
        }
    }
}

fn cleared_by_gc() -> PyErr {
    PyRuntimeError::new_err("the garbage collector has taken this function apart")
}

/// Tells a listener: `(args, kwargs, value, cause)`.
fn notify<const TYPED: bool>(py: Python<'_>, notice: &RemovalNotice, key: Object, value: Object) -> PyResult<()> {
    // SAFETY: alive, and the key is one of this kind of cache.
    let (args, kwargs, value, listener) = unsafe {
        let (args, kwargs) = Call::arguments(py, key, TYPED, notice.method)?;
        let value = Bound::from_borrowed_ptr(py, value);
        (args, kwargs, value, Bound::from_borrowed_ptr(py, notice.listener))
    };
    listener.call1((args, kwargs, value, notice.cause())).map(drop)
}

/// Three functions, of which each goes on with the next one: a hit needs but a few registers, and no memory of its own, if nothing that
/// needs more is in the same function.
unsafe extern "C" fn vectorcall(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    // SAFETY: Python calls with an object of the type, and arguments as vectorcall says.
    unsafe {
        let memo = &*this.cast::<Memo>();
        if !memo.quick || !names.is_null() {
            return call_slow(this, args, nargsf, names);
        }
        if ffi::PyVectorcall_NARGS(nargsf) != 1 || memo.store.is_method() {
            return call_positional(this, args, nargsf, names);
        }
        let arg = *args;
        match hash_fast(arg).and_then(|hash| memo.store.probe_hit(hash, |key| equals_fast(key, arg))) {
            Some(value) => value.into_raw(),
            None => call_slow(this, args, nargsf, names),
        }
    }
}

/// A call with arguments by position only, of a memo that is `quick`.
#[inline(never)]
unsafe extern "C" fn call_positional(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    // SAFETY: as above.
    unsafe {
        let memo = &*this.cast::<Memo>();
        let positional = Positional::new(
            args,
            ffi::PyVectorcall_NARGS(nargsf) as usize,
            Receiver::assume_weak(memo.store.is_method()),
        );
        let equal = |key| positional.compare(key) == Equal::Yes;
        match positional
            .hash_fast()
            .and_then(|hash| memo.store.probe_hit(hash, equal))
        {
            Some(value) => value.into_raw(),
            None => call_slow(this, args, nargsf, names),
        }
    }
}

/// Any call of a memo that is `special`. (In a function of its own, which takes less stack.)
unsafe extern "C" fn vectorcall_special(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: Python calls with an object of the type, and arguments as vectorcall says.
        unsafe {
            let this = &*this.cast::<Memo>();
            let count = ffi::PyVectorcall_NARGS(nargsf) as usize;
            let call = Call::new(args, count, names, this.typed, this.receiver(args, count)?);
            let _drain = DrainOnExit;
            this.call_special(&call, nargsf)
        }
    })
}

/// Any call of another memo.
#[inline(never)]
unsafe extern "C" fn call_slow(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: Python calls with an object of the type, and arguments as vectorcall says.
        unsafe {
            let this = &*this.cast::<Memo>();
            let count = ffi::PyVectorcall_NARGS(nargsf) as usize;
            let receiver = if this.store.is_method() {
                this.receiver(args, count)?
            } else {
                Receiver::None
            };
            if names.is_null() && this.plain && count > 0 {
                if count > 1 || receiver != Receiver::None {
                    let positional = Positional::new(args, count, receiver);
                    return this.call_plain((&positional, positional.hash()), args, nargsf, receiver);
                }
                if !is_any_tuple(*args) {
                    return this.call_plain((&SingleArg(*args), hash(*args)), args, nargsf, receiver);
                }
            }
            let call = Call::new(args, count, names, this.typed, receiver);
            this.call(&call, nargsf)
        }
    })
}

const OPTIONS: [&str; 18] = [
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
    "timer",
    "method",
    "per_instance",
];

unsafe extern "C" fn new(class: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        // SAFETY: Python calls with a tuple, and a dict or null.
        let (args, kwargs) = unsafe {
            let kwargs = Bound::from_borrowed_ptr_or_opt(py, kwargs);
            (Bound::from_borrowed_ptr(py, args), kwargs)
        };
        let args = args.cast_into::<PyTuple>()?;
        let kwargs = kwargs.map(|kwargs| kwargs.cast_into::<PyDict>()).transpose()?;
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
        // What the key function makes of the arguments is the key, whatever their types.
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
            plain: !special && !typed,
            quick: cfg!(not(Py_GIL_DISABLED)) && !special && !typed && !timed && !eager,
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

/// Makes the type immutable, when it has got all its methods: the interpreter specialises calls of methods for such types only.
#[pyfunction]
fn seal(class: &Bound<'_, PyType>) -> PyResult<()> {
    let this = class.as_type_ptr();
    // SAFETY: a type is alive while it is borrowed; its flags are changed while it is imported, before another thread can know it.
    unsafe {
        let made = (*this).tp_new.map_or(0, |made| made as usize);
        if ![new as *const () as usize, bound::NEW as usize].contains(&made) {
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
    bound::add(module)?;
    #[cfg(not(Py_GIL_DISABLED))]
    crate::store::owners::add(module)?;
    module.add_class::<reload::Reload>()?;
    TypeSpec {
        // Libraries that know functools' wrappers by their module (pydantic) take this for one.
        name: c"functools.Memo",
        doc: c"A function whose results are cached.",
        // Immutable only when the package has added the methods that its users call: see `seal`.
        flags: ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR,
        slots: vec![
            slot(ffi::Py_tp_new, new as *mut c_void),
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_descr_get, bound::bind as *mut c_void),
        ],
        methods: methods::table(),
        dict: true,
    }
    .create::<Memo>(module)
}
