//! The callable behind `cached`: a function whose results are in a [`Store`].

mod bound;
pub(crate) mod class;
mod load;
mod methods;
mod outage;
mod reload;
mod snapshot;

use crate::cache_methods::CacheObject;
use crate::call::{Call, Positional, Receiver, SingleArg, check_equal};
use crate::exception_copy::raise_copy;
use crate::ffi::{catch_panics, raise};
use crate::objects::{Equal, Object, Raised, Ref, equals_fast, hash, hash_fast, is_any_tuple};
use crate::stack;
use crate::store::Store;
use crate::store::deferred_drop::{DeferredDrop, DrainOnExit, defer_drop};
use crate::store::key::{Found, MatchesKey, Search};
use crate::types::{NativeObject, ObjectHead, cleared_by_gc};
use outage::Outage;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The search for the key of a call.
type CallSearch<'s, 'a> = Search<'s, Call<'a>>;

#[repr(C)]
pub(crate) struct Memo {
    head: ObjectHead,
    function: AtomicPtr<ffi::PyObject>,
    /// Makes the key of the arguments, unless null.
    key: AtomicPtr<ffi::PyObject>,
    /// Runs reloads elsewhere, unless null.
    refresher: AtomicPtr<ffi::PyObject>,
    typed: bool,
    /// Not `typed`, and without key function, reloads and timer: a hit only looks the key up.
    is_simple: bool,
    /// `is_simple`, with the GIL, without expiration, and under a policy that is not notified of
    /// every hit: one probe can decide.
    has_fast_path: bool,
    single_flight: bool,
    /// Whether values are reloaded before they expire, or served after that.
    reloads: bool,
    /// Whether expired results are being served because the function raises.
    outage: Outage,
    store: ManuallyDrop<Store>,
}

// SAFETY: it begins with an `ObjectHead`.
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

impl CacheObject for Memo {
    fn store(&self) -> &Store {
        &self.store
    }
}

impl Memo {
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

    /// [`call`](Self::call)s with positional arguments only, of a function that is `is_simple`.
    /// `matcher` is the key, with its hash.
    ///
    /// # Safety
    /// As for vectorcall.
    #[inline(always)]
    unsafe fn call_plain<T: MatchesKey>(
        &self,
        (matcher, hash): (&T, Result<u64, Raised>),
        args: *const Object,
        nargsf: usize,
        receiver: Receiver,
    ) -> Result<Object, Raised> {
        let _drain = DrainOnExit;
        let completed = self.store.loads.completed();
        let hash = hash?;
        match self.store.get(&Search::new(matcher, hash))? {
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

    /// A call with a key function, a timer, or reloads.
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

    /// Returns what is cached, and whether this caller has claimed its reload.
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

    /// Runs `f` with what the key is made of: the arguments, or what the key function returns for
    /// them.
    fn with_key<R>(&self, call: &Call<'_>, f: impl FnOnce(&Call<'_>) -> Result<R, Raised>) -> Result<R, Raised> {
        let function = self.key.load(Ordering::Relaxed);
        if function.is_null() {
            return f(call);
        }
        // SAFETY: held while they are used.
        unsafe {
            let function = Ref::borrowed(function);
            let key = call.call(function.get(), call.positional())?;
            // A method's results belong to its instances, whatever the key function returns.
            let objects = [call.instance().unwrap_or(ptr::null_mut()), key.get()];
            let skipped = usize::from(call.receiver() == Receiver::None);
            let (args, count) = (objects.as_ptr().add(skipped), 2 - skipped);
            f(&Call::new(args, count, ptr::null_mut(), false, call.receiver()))
        }
    }

    /// Returns the role of the first of these arguments.
    ///
    /// # Safety
    /// There are `count` arguments, and they are alive.
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

    /// Calls the function with arguments that are Python objects.
    fn run_with<'py>(&self, args: &Bound<'py, PyTuple>, kwargs: &Bound<'py, PyDict>) -> PyResult<Ref> {
        let function = self.function.load(Ordering::Relaxed);
        // SAFETY: the memo holds it while it runs.
        let function = unsafe { Bound::from_borrowed_ptr_or_opt(args.py(), function) };
        let function = function.ok_or_else(|| cleared_by_gc("function"))?;
        stack::check()?;
        Ok(function.call(args, Some(kwargs))?.into())
    }

    /// Calls the function.
    fn run(&self, call: &Call<'_>, nargsf: usize) -> Result<Ref, Raised> {
        let function = self.function.load(Ordering::Relaxed);
        if function.is_null() {
            return Err(raise(cleared_by_gc("function")));
        }
        stack::check()?;
        // SAFETY: the function is held while it runs, even if the cache drops its reference.
        unsafe {
            let function = Ref::borrowed(function);
            call.call(function.get(), nargsf)
        }
    }
}

/// The fast path of a call. Three functions, each of which calls the next one last: a hit needs few
/// registers and no stack frame, since no code that needs more is in the same function.
unsafe extern "C" fn vectorcall(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    // SAFETY: CPython calls with an object of the type, and arguments as vectorcall specifies.
    unsafe {
        let memo = &*this.cast::<Memo>();
        if !memo.has_fast_path || !names.is_null() {
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

/// Calls a memo that is `has_fast_path` with positional arguments only.
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

/// Calls a memo with a key function, reloads or a timer. In a function of its own, which takes less
/// stack.
unsafe extern "C" fn vectorcall_special(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: CPython calls with an object of the type, and arguments as vectorcall specifies.
        unsafe {
            let this = &*this.cast::<Memo>();
            let count = ffi::PyVectorcall_NARGS(nargsf) as usize;
            let call = Call::new(args, count, names, this.typed, this.receiver(args, count)?);
            let _drain = DrainOnExit;
            this.call_special(&call, nargsf)
        }
    })
}

/// Calls any other memo.
#[inline(never)]
unsafe extern "C" fn call_slow(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: CPython calls with an object of the type, and arguments as vectorcall specifies.
        unsafe {
            let this = &*this.cast::<Memo>();
            let count = ffi::PyVectorcall_NARGS(nargsf) as usize;
            let receiver = if this.store.is_method() {
                this.receiver(args, count)?
            } else {
                Receiver::None
            };
            if names.is_null() && this.is_simple && count > 0 {
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
