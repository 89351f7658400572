//! The arguments of a call as a key: hashed and compared where they lie, made into an object only when they are kept.
//!
//! A key is one object. A single positional argument is its own key, unless it is a tuple (or of a subclass, as named tuples are); all else becomes a tuple: the positional
//! arguments; a mark, the names and the values of those given by name, if there are any; and all their types, if `typed`. Two keys
//! are equal where functools' are: so an int or str by itself is only equal to its like (1 and 1.0 are kept apart, True and 1.0
//! are not), and the order of names counts.

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

/// The arguments of a call, as they lie in the caller's memory.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// First those by position, then the values of those by name.
    args: &'a [Object],
    positional: usize,
    /// A tuple of strings, or null.
    names: Object,
    /// Arguments of other types are other arguments.
    typed: bool,
    receiver: Receiver,
}

/// What the first argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// An argument as any other.
    None,
    /// A method's instance: compared by identity, held by a weak reference.
    Weak,
    /// A method's instance that cannot be referred to weakly: compared by type and equality, held by a reference.
    Equal,
}

impl Receiver {
    /// The owner of a method's result, by its first argument.
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

    /// As `of`, where an instance that has no weak references is not found.
    #[inline(always)]
    pub(crate) fn assume_weak(method: bool) -> Self {
        if method { Self::Weak } else { Self::None }
    }
}

/// Raises a TypeError if a method's instance can be kept neither by a weak reference nor by equality.
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
            "a cached method cannot keep a weak reference to a {name}, nor tell its instances apart by their values: add '__weakref__' to its \
             __slots__ (dataclass(slots=True, weakref_slot=True)), or give it __eq__ and __hash__ (dataclass(frozen=True)), or use \
             cached(method=False), which takes the instance for an argument as any other"
        ))
    })))
}

impl<'a> Call<'a> {
    /// # Safety
    /// As vectorcall's: `args` are `positional` and as many more as there are `names` (a tuple, or null); all stay alive for `'a`.
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

    /// Whether the key is a single argument by itself, or a tuple of it if that is a tuple.
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

    /// If that is all that there is to the key.
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

    /// How long the tuple is.
    fn key_len(&self) -> usize {
        let types = if self.typed { self.args.len() } else { 0 };
        self.args.len() + if self.names.is_null() { 0 } else { 2 } + types
    }

    /// The key, as an object, to be kept.
    pub(crate) fn key(&self) -> Result<Ref, Raised> {
        // SAFETY: `new`'s promise. Every place of the new tuple is filled before anybody else can see it, but for a failure, after
        // which it is given back with nulls in it, as is allowed.
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

    /// Whether the key is that of this call, as far as can be told without running Python code.
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
    /// As `compare`, of a key that is a tuple.
    #[inline]
    unsafe fn compare_all(&self, key: &[Object]) -> Equal {
        if key.len() != self.key_len() {
            return Equal::No;
        }
        // SAFETY: the caller's promise, and `new`'s.
        unsafe {
            if self.is_single() {
                // (Else the argument would be the key.)
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

    /// Has Python say whether the key is that of this call, if [`compare`](Self::compare) cannot tell.
    ///
    /// # Safety
    /// As `compare`; the key stays alive while other code runs.
    pub(crate) unsafe fn rich_compare(&self, key: Object) -> Result<bool, Raised> {
        // SAFETY: the caller's promise, and `new`'s. `compare` has looked at lengths, marks, instances and types.
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

    /// Whether a method's key is of an instance that is gone.
    ///
    /// # Safety
    /// The key is alive, and was made by [`key`](Self::key).
    #[cfg(Py_GIL_DISABLED)]
    pub(crate) unsafe fn is_dead(key: Object) -> bool {
        // SAFETY: the caller's promise; None is for ever.
        unsafe {
            is_tuple(key)
                && items(key)
                    .first()
                    .is_some_and(|first| referent(*first) == ffi::Py_None())
        }
    }

    /// The arguments of the call that a key was made of, `(args, kwargs)`; None for an instance that is gone.
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

    /// The method's instance.
    pub(crate) fn instance(&self) -> Option<Object> {
        (self.receiver != Receiver::None).then(|| self.args[0])
    }

    pub(crate) fn receiver(&self) -> Receiver {
        self.receiver
    }

    /// What vectorcall calls `nargsf`, without leave to use the place before the arguments.
    pub(crate) fn positional(&self) -> usize {
        self.positional
    }

    /// The arguments as Python objects, `(args, kwargs)`.
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

    /// Calls the function with these arguments; `nargsf` is vectorcall's.
    ///
    /// # Safety
    /// The function stays alive.
    #[inline]
    pub(crate) unsafe fn call(&self, function: Object, nargsf: usize) -> Result<Ref, Raised> {
        // SAFETY: `new`'s promise, which is that of vectorcall.
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

/// The hash of arguments by theirs; that of a method's instance is its address.
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

/// Compares the part of a key that is made of arguments by position with as many of these.
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

/// Arguments by position only, not `typed`: a method's instance and others, or at least two.
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

    /// As [`Call::hash`].
    #[inline(always)]
    pub(crate) fn hash(&self) -> Result<u64, Raised> {
        // SAFETY: `new`'s promise.
        hash_args(self.args, self.receiver, |arg| unsafe { hash(arg) })
    }

    /// The same, if it takes no call.
    #[inline(always)]
    pub(crate) fn hash_fast(&self) -> Option<u64> {
        // SAFETY: `new`'s promise.
        hash_args(self.args, self.receiver, |arg| unsafe { hash_fast(arg) }.ok_or(())).ok()
    }

    /// As [`Call::compare`].
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

    /// As [`Call::rich_compare`].
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

/// A single argument, not `typed` and not a method's instance: what is most often asked for, apart from all else.
pub(crate) struct SingleArg(pub(crate) Object);

impl SingleArg {
    /// As [`Call::compare`].
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

/// What a weak reference refers to, for a comparison with an object that is alive: what is gone is never equal to that.
///
/// # Safety
/// It is alive.
#[inline(always)]
pub(crate) unsafe fn referent(weak: Object) -> Object {
    // SAFETY: the layout of weak references in all versions: what they refer to comes first. It is set to None before that is gone,
    // maybe by another thread.
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
