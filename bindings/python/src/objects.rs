//! Python objects as the caches see them: hashing and comparing without running anybody's code where that is possible.

use pyo3::ffi;
use pyo3::prelude::*;
use std::slice;
use std::sync::atomic::{AtomicIsize, Ordering};

pub(crate) type Object = *mut ffi::PyObject;

/// A Python exception is set.
#[derive(Debug)]
pub(crate) struct Raised;

/// A reference to an object. Unlike PyO3's, which have to find out whether the thread is attached, it is let go of there and then:
/// whatever drops one here is attached.
#[derive(Debug)]
pub(crate) struct Ref(Object);

// SAFETY: Python objects may be used by any attached thread.
unsafe impl Send for Ref {}
// SAFETY: as above.
unsafe impl Sync for Ref {}

impl Ref {
    /// # Safety
    /// The reference is the caller's to give; not null.
    #[inline(always)]
    pub(crate) unsafe fn owned(object: Object) -> Self {
        Self(object)
    }

    /// # Safety
    /// The object is alive.
    #[inline(always)]
    pub(crate) unsafe fn borrowed(object: Object) -> Self {
        // SAFETY: the caller's promise.
        unsafe { ffi::Py_INCREF(object) };
        Self(object)
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> Object {
        self.0
    }

    /// Where the pointer lies, as the item of a tuple does.
    pub(crate) fn as_slot(&self) -> &Object {
        &self.0
    }

    /// Gives the reference away.
    #[inline(always)]
    pub(crate) fn into_raw(self) -> Object {
        std::mem::ManuallyDrop::new(self).0
    }

    pub(crate) fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        // SAFETY: the reference is given away.
        unsafe { Bound::from_owned_ptr(py, self.into_raw()) }
    }
}

impl From<Bound<'_, PyAny>> for Ref {
    fn from(bound: Bound<'_, PyAny>) -> Self {
        Self(bound.into_ptr())
    }
}

impl Clone for Ref {
    #[inline(always)]
    fn clone(&self) -> Self {
        // SAFETY: held by `self`.
        unsafe { Self::borrowed(self.0) }
    }
}

impl Drop for Ref {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the reference is this one's.
        unsafe { ffi::Py_DECREF(self.0) }
    }
}

/// What can be said of two objects without running Python code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Equal {
    Yes,
    No,
    /// Only Python can tell.
    Unknown,
}

impl Equal {
    fn of(equal: bool) -> Self {
        if equal { Self::Yes } else { Self::No }
    }
}

/// Spreads two words over one.
#[inline(always)]
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ b) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}

/// # Safety
/// The object is alive. As for all functions here: the thread is attached to the interpreter.
#[inline(always)]
pub(crate) unsafe fn is_exactly(object: Object, class: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ffi::Py_TYPE(object) == class }
}

/// # Safety
/// The object is alive.
#[inline(always)]
pub(crate) unsafe fn is_tuple(object: Object) -> bool {
    // SAFETY: the caller's promise.
    unsafe { is_exactly(object, &raw mut ffi::PyTuple_Type) }
}

/// Whether it is a tuple, or of a subclass (as named tuples are).
///
/// # Safety
/// The object is alive.
#[inline(always)]
pub(crate) unsafe fn is_any_tuple(object: Object) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ffi::PyTuple_Check(object) != 0 }
}

/// The items of a tuple.
///
/// # Safety
/// It is a tuple, and stays alive for `'a`.
#[inline(always)]
pub(crate) unsafe fn items<'a>(tuple: Object) -> &'a [Object] {
    // SAFETY: a tuple's items follow it, and do not change.
    unsafe {
        let first = &raw const (*tuple.cast::<ffi::PyTupleObject>()).ob_item;
        slice::from_raw_parts(first.cast(), ffi::Py_SIZE(tuple) as usize)
    }
}

/// The word that says sign and size of an int, and its digits.
///
/// # Safety
/// It is an int, and stays alive for `'a`.
#[inline(always)]
unsafe fn digits<'a>(int: Object) -> (usize, &'a [u32]) {
    // SAFETY: the layout of ints from 3.11 to 3.14: a word behind the object's head, then digits of 30 bits. 3.11 has the signed
    // number of digits there; from 3.12 on it is `digits << 3 | flag | sign`.
    unsafe {
        let word = int.byte_add(size_of::<ffi::PyObject>()).cast::<usize>();
        let tag = *word;
        #[cfg(not(Py_3_12))]
        let (tag, count) = (tag, tag.cast_signed().unsigned_abs());
        #[cfg(Py_3_12)]
        let (tag, count) = (tag & !4, tag >> 3);
        (tag, slice::from_raw_parts(word.add(1).cast::<u32>(), count))
    }
}

/// # Safety
/// The object is alive.
#[inline(always)]
pub(crate) unsafe fn hash(object: Object) -> Result<u64, Raised> {
    // SAFETY: the caller's promise.
    let hash = unsafe {
        if let Some(hash) = hash_fast(object) {
            return Ok(hash);
        }
        ffi::PyObject_Hash(object)
    };
    if hash == -1 { Err(Raised) } else { Ok(hash as u64) }
}

/// The hash of what is hashed most often, if it is at hand.
///
/// # Safety
/// The object is alive.
#[inline(always)]
pub(crate) unsafe fn hash_fast(object: Object) -> Option<u64> {
    // SAFETY: the caller's promise; the layouts are looked at for exact types only.
    unsafe {
        if is_exactly(object, &raw mut ffi::PyUnicode_Type) {
            // (Another thread may be setting it, to what this one would.)
            let cached = (&raw const (*object.cast::<ffi::PyASCIIObject>()).hash).cast::<AtomicIsize>();
            let cached = (*cached).load(Ordering::Relaxed);
            return (cached != -1).then_some(cached as u64);
        }
        if is_exactly(object, &raw mut ffi::PyLong_Type)
            && let (tag, [digit]) = digits(object)
        {
            // As Python's own: what is equal to it, a float say, has that hash.
            #[cfg(not(Py_3_12))]
            let sign = tag.cast_signed() as i64;
            #[cfg(Py_3_12)]
            let sign = 1 - (tag & 3) as i64;
            let value = sign * i64::from(*digit);
            return Some((if value == -1 { -2 } else { value }) as u64);
        }
    }
    None
}

/// The numbers whose comparison runs no code of the user's.
///
/// # Safety
/// The type is alive.
unsafe fn is_number(class: *mut ffi::PyTypeObject) -> bool {
    class == &raw mut ffi::PyLong_Type || class == &raw mut ffi::PyFloat_Type || class == &raw mut ffi::PyBool_Type
}

/// Compares two strings.
///
/// # Safety
/// They are exact strings, and alive.
#[inline(always)]
unsafe fn same_text(a: Object, b: Object) -> bool {
    // SAFETY: the caller's promise; strings do not change.
    unsafe {
        let (length, kind) = (ffi::PyUnicode_GET_LENGTH(a), ffi::PyUnicode_KIND(a));
        length == ffi::PyUnicode_GET_LENGTH(b) && kind == ffi::PyUnicode_KIND(b) && {
            let bytes = length as usize * kind as usize;
            let of = |text| slice::from_raw_parts(ffi::PyUnicode_DATA(text).cast::<u8>(), bytes);
            of(a) == of(b)
        }
    }
}

/// Whether a key is this int or str, of which [`hash_fast`] has told a hash, as far as that takes no call.
///
/// # Safety
/// Both are alive.
#[inline(always)]
pub(crate) unsafe fn equals_fast(key: Object, sought: Object) -> bool {
    if key == sought {
        return true;
    }
    // SAFETY: the caller's promise, and the types are looked at first.
    unsafe {
        let class = ffi::Py_TYPE(sought);
        if ffi::Py_TYPE(key) != class {
            return false;
        }
        if class == &raw mut ffi::PyLong_Type {
            return matches!((digits(key), digits(sought)), ((a, [x]), (b, [y])) if (a, x) == (b, y));
        }
        let (length, kind) = (ffi::PyUnicode_GET_LENGTH(key), ffi::PyUnicode_KIND(key));
        length == ffi::PyUnicode_GET_LENGTH(sought) && kind == ffi::PyUnicode_KIND(sought) && {
            let bytes = length as usize * kind as usize;
            let of = |text| ffi::PyUnicode_DATA(text).cast::<u8>().cast_const();
            bytes <= 64 && same_bytes(of(key), of(sought), bytes)
        }
    }
}

/// Compares few bytes.
///
/// # Safety
/// There are so many bytes in both places.
#[inline(always)]
unsafe fn same_bytes(a: *const u8, b: *const u8, count: usize) -> bool {
    // SAFETY: the caller's promise; what is read ends within it.
    unsafe {
        let words = |at: usize| a.add(at).cast::<u64>().read_unaligned() == b.add(at).cast::<u64>().read_unaligned();
        if count >= 8 {
            let mut at = 0;
            while at + 8 < count {
                if !words(at) {
                    return false;
                }
                at += 8;
            }
            // (The last ones, which may be among those before.)
            return words(count - 8);
        }
        (0..count).all(|at| *a.add(at) == *b.add(at))
    }
}

/// How deep tuples within tuples are compared here.
const DEPTH: usize = 4;

/// Compares two objects as a dict does, identity first.
///
/// # Safety
/// Both are alive.
#[inline(always)]
pub(crate) unsafe fn compare(a: Object, b: Object) -> Equal {
    if a == b {
        return Equal::Yes;
    }
    // SAFETY: the caller's promise, and the types are looked at first.
    unsafe {
        if is_exactly(a, &raw mut ffi::PyLong_Type) && is_exactly(b, &raw mut ffi::PyLong_Type) {
            return Equal::of(digits(a) == digits(b));
        }
        if is_exactly(a, &raw mut ffi::PyUnicode_Type) && is_exactly(b, &raw mut ffi::PyUnicode_Type) {
            return Equal::of(same_text(a, b));
        }
        compare_slow(a, b, DEPTH)
    }
}

/// # Safety
/// Both are alive.
#[inline(never)]
unsafe fn compare_slow(a: Object, b: Object, depth: usize) -> Equal {
    if a == b {
        return Equal::Yes;
    }
    // SAFETY: the caller's promise, and the types are looked at first. The comparisons called here are those of the builtin types,
    // which run no other code.
    unsafe {
        let (of_a, of_b) = (ffi::Py_TYPE(a), ffi::Py_TYPE(b));
        if is_number(of_a) && is_number(of_b) || of_a == of_b && of_a == &raw mut ffi::PyBytes_Type {
            return match ffi::PyObject_RichCompareBool(a, b, ffi::Py_EQ) {
                0 => Equal::No,
                1 => Equal::Yes,
                _ => {
                    ffi::PyErr_Clear();
                    Equal::Unknown
                }
            };
        }
        if of_a == of_b {
            if of_a == &raw mut ffi::PyUnicode_Type {
                return Equal::of(same_text(a, b));
            }
            if of_a == &raw mut ffi::PyTuple_Type && depth > 0 {
                let (of_a, of_b) = (items(a), items(b));
                if of_a.len() != of_b.len() {
                    return Equal::No;
                }
                let pairs = of_a.iter().zip(of_b);
                return all(pairs.map(|(a, b)| compare_slow(*a, *b, depth - 1)));
            }
        }
        let plain = |class: *mut ffi::PyTypeObject| {
            // Those whose objects are equal to themselves only; and builtin ones, which are equal to none of another type here.
            (*class).tp_richcompare.map(|f| f as usize) == ffi::PyBaseObject_Type.tp_richcompare.map(|f| f as usize)
                || is_number(class)
                || [
                    &raw mut ffi::PyUnicode_Type,
                    &raw mut ffi::PyBytes_Type,
                    &raw mut ffi::PyTuple_Type,
                ]
                .contains(&class)
        };
        if (of_a != of_b || of_a != &raw mut ffi::PyTuple_Type) && plain(of_a) && plain(of_b) {
            return Equal::No;
        }
    }
    Equal::Unknown
}

/// Whether all are equal: one that is not decides, whatever Python would say of others.
#[inline(always)]
pub(crate) fn all(parts: impl Iterator<Item = Equal>) -> Equal {
    let mut all = Equal::Yes;
    for part in parts {
        match part {
            Equal::Yes => {}
            Equal::No => return Equal::No,
            Equal::Unknown => all = Equal::Unknown,
        }
    }
    all
}

/// Has Python compare two objects, identity first.
///
/// # Safety
/// Both are alive, and stay so while other code runs.
pub(crate) unsafe fn rich_compare(a: Object, b: Object) -> Result<bool, Raised> {
    // SAFETY: the caller's promise.
    match unsafe { ffi::PyObject_RichCompareBool(a, b, ffi::Py_EQ) } {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Raised),
    }
}
