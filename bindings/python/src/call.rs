//! The arguments of a call as a key: hashed and compared where they are, made into an object only
//! to be stored.
//!
//! A key is one object. A single positional argument is its own key, unless it is a tuple or an
//! instance of a subclass, as named tuples are. All other keys are tuples of the positional
//! arguments; a mark, the names and the values of keyword arguments, if there are any; and the
//! types of all arguments, if `typed`.
//!
//! Two keys are equal where those of functools are: an int or str by itself is only equal to one of
//! its type (1 and 1.0 are different keys, True and 1.0 are not), and the order of keywords counts.

use crate::objects::{
    Equal, Object, Raised, Ref, all, compare, hash, hash_fast, is_any_tuple, is_exactly, is_tuple, items, mix,
    rich_compare,
};
use crate::sentinels::kwargs_mark;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The arguments of a call, in the caller's memory.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// The positional arguments, then the values of keyword arguments.
    args: &'a [Object],
    positional: usize,
    /// A tuple of strings, or null.
    names: Object,
    /// Whether arguments of other types make another key.
    typed: bool,
    receiver: Receiver,
}

/// The role of the first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// An ordinary argument.
    None,
    /// A method's instance: compared by identity, held by a weak reference.
    Weak,
    /// A method's instance that has no weak references: compared by type and equality, held by a
    /// reference.
    Equal,
}

impl Receiver {
    /// Returns the role of the first argument.
    ///
    /// # Safety
    /// There are `count` arguments, which are alive.
    #[inline(always)]
    pub(crate) unsafe fn of(method: bool, args: *const Object, count: usize) -> Self {
        if !method || count == 0 {
            return Self::None;
        }
        // SAFETY: the caller's promise.
        if unsafe { (*ffi::Py_TYPE(*args)).tp_weaklistoffset } != 0 {
            Self::Weak
        } else {
            Self::Equal
        }
    }

    /// Returns the receiver of the fast path, which does not find instances without weak
    /// references.
    #[inline(always)]
    pub(crate) fn assume_weak(method: bool) -> Self {
        if method { Self::Weak } else { Self::None }
    }
}

/// Raises a TypeError if a method's instance can be stored neither by a weak reference nor by
/// equality.
///
/// # Safety
/// The type is alive.
pub(crate) unsafe fn check_equal(class: *mut ffi::PyTypeObject) -> Result<(), Raised> {
    // SAFETY: the caller's promise.
    let (is_hashable, is_value) = unsafe {
        let address = |f: Option<ffi::richcmpfunc>| f.map(|f| f as usize);
        (
            (*class).tp_hash.map(|f| f as usize) != Some(ffi::PyObject_HashNotImplemented as *const () as usize),
            address((*class).tp_richcompare) != address(ffi::PyBaseObject_Type.tp_richcompare),
        )
    };
    if is_hashable && is_value {
        return Ok(());
    }
    Err(crate::ffi::raise(Python::attach(|py| {
        // SAFETY: the caller's promise.
        let class = unsafe { Bound::from_borrowed_ptr(py, class.cast()) };
        let name = class
            .getattr("__qualname__")
            .map_or_else(|_| "this class".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!(
            "a cached method can neither keep a weak reference to a {name} nor compare its instances by value: add '__weakref__' to its \
             __slots__ (dataclass(slots=True, weakref_slot=True)), or give it __eq__ and __hash__ (dataclass(frozen=True)), or use \
             cached(method=False), which treats the instance as any other argument"
        ))
    })))
}

impl<'a> Call<'a> {
    /// # Safety
    /// As for vectorcall: `args` has `positional` arguments and one for each of `names` (a tuple,
    /// or null); all stay alive for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn new(
        args: *const Object,
        positional: usize,
        names: Object,
        typed: bool,
        receiver: Receiver,
    ) -> Self {
        // SAFETY: the caller's promise.
        let (args, names) = unsafe {
            let named = if names.is_null() {
                0
            } else {
                ffi::Py_SIZE(names) as usize
            };
            let all = positional + named;
            let args = if all == 0 {
                &[][..]
            } else {
                slice::from_raw_parts(args, all)
            };
            (args, if named == 0 { ptr::null_mut() } else { names })
        };
        let receiver = if positional > 0 { receiver } else { Receiver::None };
        Self {
            args,
            positional,
            names,
            typed,
            receiver,
        }
    }

    /// Returns whether the key is a single argument by itself, or a tuple of one if the argument is
    /// a tuple.
    #[inline(always)]
    fn is_single(&self) -> bool {
        self.args.len() == 1 && self.names.is_null() && !self.typed && self.receiver == Receiver::None
    }

    fn names(&self) -> &'a [Object] {
        if self.names.is_null() {
            &[]
        } else {
            // SAFETY: `new`'s promise.
            unsafe { items(self.names) }
        }
    }

    #[inline(always)]
    pub(crate) fn hash(&self) -> Result<u64, Raised> {
        if self.is_single() {
            // SAFETY: `new`'s promise.
            unsafe { hash(self.args[0]) }
        } else if let Some(positional) = self.as_positional() {
            positional.hash()
        } else {
            self.hash_all()
        }
    }

    /// Returns the positional arguments, if the key consists of those alone.
    #[inline(always)]
    fn as_positional(&self) -> Option<Positional<'a>> {
        let (args, receiver) = (self.args, self.receiver);
        (self.names.is_null() && !self.typed).then_some(Positional { args, receiver })
    }

    fn hash_all(&self) -> Result<u64, Raised> {
        // SAFETY: `new`'s promise.
        let mut mixed = hash_args(self.args, self.receiver, |arg| unsafe { hash(arg) })?;
        for name in self.names() {
            // SAFETY: `new`'s promise.
            mixed = combine(mixed, unsafe { hash(*name) }?);
        }
        if self.typed {
            for arg in self.args {
                // SAFETY: `new`'s promise.
                mixed = mix(mixed, unsafe { ffi::Py_TYPE(*arg) } as u64);
            }
        }
        Ok(mixed)
    }

    /// Returns the length of the key's tuple.
    fn key_len(&self) -> usize {
        let types = if self.typed { self.args.len() } else { 0 };
        self.args.len() + if self.names.is_null() { 0 } else { 2 } + types
    }

    /// Makes the key's object, to be stored.
    pub(crate) fn key(&self) -> Result<Ref, Raised> {
        // SAFETY: `new`'s promise. Every place of the new tuple is filled before other code can see
        // it. After a failure the tuple is released with nulls in it, which CPython allows.
        unsafe {
            if self.is_single() && !is_any_tuple(self.args[0]) {
                return Ok(Ref::borrowed(self.args[0]));
            }
            let tuple = ffi::PyTuple_New(self.key_len() as ffi::Py_ssize_t);
            if tuple.is_null() {
                return Err(Raised);
            }
            let made = Ref::owned(tuple);
            let mut at = 0;
            let mut put = |object: Object| {
                ffi::Py_INCREF(object);
                ffi::PyTuple_SET_ITEM(tuple, at, object);
                at += 1;
            };
            let (by_position, by_name) = self.args.split_at(self.positional);
            let (first, rest) = by_position.split_at(usize::from(self.receiver == Receiver::Weak));
            for instance in first {
                let weak = ffi::PyWeakref_NewRef(*instance, ptr::null_mut());
                if weak.is_null() {
                    return Err(Raised);
                }
                put(weak);
                ffi::Py_DECREF(weak);
            }
            rest.iter().for_each(|arg| put(*arg));
            if !self.names.is_null() {
                put(kwargs_mark());
                put(self.names);
            }
            by_name.iter().for_each(|arg| put(*arg));
            if self.typed {
                self.args.iter().for_each(|arg| put(ffi::Py_TYPE(*arg).cast()));
            }
            Ok(made)
        }
    }

    /// Compares the key with that of this call, as far as that runs no Python code.
    ///
    /// # Safety
    /// The key is alive, and was made by [`key`](Self::key) of a call with the same settings.
    #[inline(always)]
    pub(crate) unsafe fn compare(&self, key: Object) -> Equal {
        // SAFETY: the caller's promise, and `new`'s.
        unsafe {
            if self.is_single() && !is_tuple(key) {
                return SingleArg(self.args[0]).compare(key);
            }
            match self.as_positional() {
                Some(positional) if !self.is_single() => positional.compare(key),
                _ if is_tuple(key) => self.compare_all(items(key)),
                _ => Equal::No,
            }
        }
    }

    /// # Safety
    /// As for `compare`, of a key that is a tuple.
    #[inline]
    unsafe fn compare_all(&self, key: &[Object]) -> Equal {
        if key.len() != self.key_len() {
            return Equal::No;
        }
        // SAFETY: the caller's promise, and `new`'s.
        unsafe {
            if self.is_single() {
                // A single argument that is no tuple would be the key itself.
                return if is_any_tuple(self.args[0]) {
                    compare(key[0], self.args[0])
                } else {
                    Equal::No
                };
            }
            let (by_position, by_name) = self.args.split_at(self.positional);
            let (of_key, mut rest) = key.split_at(self.positional);
            let mut of_positional = compare_args(of_key, by_position, self.receiver);
            if of_positional == Equal::No {
                return of_positional;
            }
            if !self.names.is_null() {
                if rest[0] != kwargs_mark() || !is_tuple(rest[1]) {
                    return Equal::No;
                }
                if rest[1] != self.names {
                    let names = items(rest[1]);
                    if names.len() != by_name.len() {
                        return Equal::No;
                    }
                    let names = names.iter().zip(self.names());
                    match all(names.map(|(a, b)| compare(*a, *b))) {
                        Equal::Yes => {}
                        Equal::No => return Equal::No,
                        Equal::Unknown => of_positional = Equal::Unknown,
                    }
                }
                rest = &rest[2..];
            }
            let (values, types) = rest.split_at(by_name.len());
            if !types
                .iter()
                .zip(self.args)
                .all(|(class, arg)| *class == ffi::Py_TYPE(*arg).cast())
            {
                return Equal::No;
            }
            all([of_positional]
                .into_iter()
                .chain(values.iter().zip(by_name).map(|(a, b)| compare(*a, *b))))
        }
    }

    /// Compares the key with that of this call by Python's rich comparison, after
    /// [`compare`](Self::compare) was inconclusive.
    ///
    /// # Safety
    /// As for `compare`; the key stays alive while other code runs.
    pub(crate) unsafe fn rich_compare(&self, key: Object) -> Result<bool, Raised> {
        // SAFETY: the caller's promise, and `new`'s. `compare` has checked lengths, marks,
        // instances and types.
        unsafe {
            if !is_tuple(key) {
                return rich_compare(key, self.args[0]);
            }
            let key = items(key);
            let (by_position, by_name) = self.args.split_at(self.positional);
            for (at, arg) in by_position
                .iter()
                .enumerate()
                .skip(usize::from(self.receiver == Receiver::Weak))
            {
                if !rich_compare(key[at], *arg)? {
                    return Ok(false);
                }
            }
            if !self.names.is_null() {
                if !rich_compare(key[self.positional + 1], self.names)? {
                    return Ok(false);
                }
                for (at, arg) in by_name.iter().enumerate() {
                    if !rich_compare(key[self.positional + 2 + at], *arg)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Returns whether a method's key is that of a dead instance.
    ///
    /// # Safety
    /// The key is alive, and was made by [`key`](Self::key).
    #[cfg(Py_GIL_DISABLED)]
    pub(crate) unsafe fn is_dead(key: Object) -> bool {
        // SAFETY: the caller's promise; None is never freed.
        unsafe {
            is_tuple(key)
                && items(key)
                    .first()
                    .is_some_and(|first| referent(*first) == ffi::Py_None())
        }
    }

    /// Returns the arguments of the call that a key was made of, `(args, kwargs)`, with None for a
    /// dead instance.
    ///
    /// # Safety
    /// The key is alive, and was made by [`key`](Self::key) with these settings.
    pub(crate) unsafe fn arguments<'py>(
        py: Python<'py>,
        key: Object,
        typed: bool,
        method: bool,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let kwargs = PyDict::new(py);
        // SAFETY: the caller's promise.
        unsafe {
            let own = |object: &Object| Bound::from_borrowed_ptr(py, *object);
            if !is_tuple(key) {
                return Ok((PyTuple::new(py, [own(&key)])?, kwargs));
            }
            let mut rest = items(key);
            if let Some(at) = rest.iter().position(|item| *item == kwargs_mark()) {
                let (names, values) = (items(rest[at + 1]), &rest[at + 2..]);
                for (name, value) in names.iter().zip(values) {
                    kwargs.set_item(own(name), own(value))?;
                }
                rest = &rest[..at];
            } else if typed {
                rest = &rest[..rest.len() / 2];
            }
            let mut args: Vec<_> = rest.iter().map(own).collect();
            if method
                && let Some(first) = args.first_mut()
                && is_exactly(first.as_ptr(), &raw mut ffi::_PyWeakref_RefType)
            {
                *first = first.call0()?;
            }
            Ok((PyTuple::new(py, args)?, kwargs))
        }
    }

    /// Returns the method's instance.
    pub(crate) fn instance(&self) -> Option<Object> {
        (self.receiver != Receiver::None).then(|| self.args[0])
    }

    pub(crate) fn receiver(&self) -> Receiver {
        self.receiver
    }

    /// Returns the number of positional arguments: vectorcall's `nargsf`, without the flag that
    /// allows the use of the place before the arguments.
    pub(crate) fn positional(&self) -> usize {
        self.positional
    }

    /// Returns the arguments as Python objects, `(args, kwargs)`.
    pub(crate) fn objects<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        // SAFETY: `new`'s promise.
        let own = |object: &Object| unsafe { Bound::from_borrowed_ptr(py, *object) };
        let (by_position, by_name) = self.args.split_at(self.positional);
        let kwargs = PyDict::new(py);
        for (name, value) in self.names().iter().zip(by_name) {
            kwargs.set_item(own(name), own(value))?;
        }
        Ok((PyTuple::new(py, by_position.iter().map(own))?, kwargs))
    }

    /// Calls `function` with these arguments; `nargsf` is vectorcall's.
    ///
    /// # Safety
    /// The function stays alive.
    #[inline]
    pub(crate) unsafe fn call(&self, function: Object, nargsf: usize) -> Result<Ref, Raised> {
        // SAFETY: `new`'s promise, which is vectorcall's.
        unsafe {
            let result = ffi::PyObject_Vectorcall(function, self.args.as_ptr(), nargsf, self.names);
            if result.is_null() {
                Err(Raised)
            } else {
                Ok(Ref::owned(result))
            }
        }
    }
}

#[inline(always)]
fn combine(mixed: u64, hash: u64) -> u64 {
    mix(mixed, hash).rotate_left(17)
}

/// Combines the arguments' hashes; that of a method's instance is its address.
#[inline(always)]
fn hash_args<E>(
    mut args: &[Object],
    receiver: Receiver,
    mut hash: impl FnMut(Object) -> Result<u64, E>,
) -> Result<u64, E> {
    let mut mixed = args.len() as u64;
    if receiver == Receiver::Weak
        && let [instance, rest @ ..] = args
    {
        (mixed, args) = (mix(mixed, *instance as u64), rest);
    }
    for arg in args {
        mixed = combine(mixed, hash(*arg)?);
    }
    Ok(mixed)
}

/// Compares the positional part of a key with as many arguments.
///
/// # Safety
/// All are alive.
#[inline(always)]
unsafe fn compare_args(key: &[Object], args: &[Object], receiver: Receiver) -> Equal {
    let mut pairs = key.iter().zip(args);
    // SAFETY: the caller's promise.
    unsafe {
        match receiver {
            Receiver::None => {}
            Receiver::Weak => {
                if let Some((weak, instance)) = pairs.next()
                    && referent(*weak) != *instance
                {
                    return Equal::No;
                }
            }
            Receiver::Equal => {
                if let ([of_key, ..], [instance, ..]) = (key, args)
                    && ffi::Py_TYPE(*of_key) != ffi::Py_TYPE(*instance)
                {
                    return Equal::No;
                }
            }
        }
        all(pairs.map(|(a, b)| compare(*a, *b)))
    }
}

/// Positional arguments only, not `typed`: a method's instance and others, or at least two.
pub(crate) struct Positional<'a> {
    args: &'a [Object],
    receiver: Receiver,
}

impl<'a> Positional<'a> {
    /// # Safety
    /// As for [`Call::new`].
    #[inline(always)]
    pub(crate) unsafe fn new(args: *const Object, count: usize, receiver: Receiver) -> Self {
        // SAFETY: the caller's promise.
        let args = unsafe { slice::from_raw_parts(args, count) };
        Self { args, receiver }
    }

    /// Returns what [`Call::hash`] does.
    #[inline(always)]
    pub(crate) fn hash(&self) -> Result<u64, Raised> {
        // SAFETY: `new`'s promise.
        hash_args(self.args, self.receiver, |arg| unsafe { hash(arg) })
    }

    /// Returns the hash if [`hash_fast`] has those of all arguments.
    #[inline(always)]
    pub(crate) fn hash_fast(&self) -> Option<u64> {
        // SAFETY: `new`'s promise.
        hash_args(self.args, self.receiver, |arg| unsafe { hash_fast(arg) }.ok_or(())).ok()
    }

    /// Compares as [`Call::compare`] does.
    ///
    /// # Safety
    /// The key is alive, and made by [`Call::key`].
    #[inline(always)]
    pub(crate) unsafe fn compare(&self, key: Object) -> Equal {
        // SAFETY: the caller's promise, and `new`'s.
        unsafe {
            if !is_tuple(key) {
                return Equal::No;
            }
            let key = items(key);
            if key.len() != self.args.len() {
                return Equal::No;
            }
            compare_args(key, self.args, self.receiver)
        }
    }

    /// Compares as [`Call::rich_compare`] does.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn rich_compare(&self, key: Object) -> Result<bool, Raised> {
        // SAFETY: the caller's promise, and `new`'s.
        unsafe {
            Call::new(
                self.args.as_ptr(),
                self.args.len(),
                ptr::null_mut(),
                false,
                self.receiver,
            )
            .rich_compare(key)
        }
    }
}

/// A single argument, not `typed` and not a method's instance: the most frequent key, which has its
/// own fast path.
pub(crate) struct SingleArg(pub(crate) Object);

impl SingleArg {
    /// Compares as [`Call::compare`] does.
    ///
    /// # Safety
    /// The key is alive, and made by [`Call::key`]; so is the argument.
    #[inline(always)]
    pub(crate) unsafe fn compare(&self, key: Object) -> Equal {
        // SAFETY: the caller's promise.
        unsafe {
            let (of_key, of_arg) = (ffi::Py_TYPE(key), ffi::Py_TYPE(self.0));
            if of_key == of_arg && of_key != &raw mut ffi::PyTuple_Type {
                return compare(key, self.0);
            }
            let alone = [
                &raw mut ffi::PyLong_Type,
                &raw mut ffi::PyUnicode_Type,
                &raw mut ffi::PyTuple_Type,
            ];
            if alone.contains(&of_key) || alone.contains(&of_arg) {
                return Equal::No;
            }
            compare(key, self.0)
        }
    }
}

/// Returns the object that a weak reference refers to, for a comparison with an object that is
/// alive: a dead one never equals that.
///
/// # Safety
/// The weak reference is alive.
#[inline(always)]
pub(crate) unsafe fn referent(weak: Object) -> Object {
    // SAFETY: in all supported versions the referent is the first field of a weak reference.
    // CPython sets it to None before the referent is freed, maybe in another thread.
    unsafe {
        if !is_exactly(weak, &raw mut ffi::_PyWeakref_RefType) {
            return ptr::null_mut();
        }
        let at = weak
            .byte_add(size_of::<ffi::PyObject>())
            .cast::<AtomicPtr<ffi::PyObject>>();
        (*at).load(Ordering::Relaxed)
    }
}
