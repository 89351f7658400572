//! Keys and values in the engine, and searches for keys that are not objects yet.

use super::deferred_drop::{DeferredDrop, defer_drop};
use crate::call::{Call, Positional, SingleArg};
use crate::hash_seed::seeded;
use crate::objects::{Equal, Object, Raised, Ref, all, compare, is_exactly, is_tuple, items, rich_compare};
use pyo3::ffi;
use std::borrow::Borrow;
use std::cell::Cell;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A reference to a Python object; null after it has been taken out of its entry.
pub(crate) struct Key(AtomicPtr<ffi::PyObject>);

/// A reference to a value; or to a [`Failure`](crate::exception_copy::Failure), if the lowest bit
/// is set.
pub(crate) struct Value(AtomicPtr<ffi::PyObject>);

const RAISES: usize = 1;

/// The result of a lookup.
pub(crate) enum Found {
    Value(Ref),
    Error(Ref),
}

impl Found {
    /// Returns the value, `None` for a failure.
    #[inline(always)]
    pub(crate) fn value(self) -> Option<Ref> {
        match self {
            Self::Value(value) => Some(value),
            Self::Error(_) => None,
        }
    }
}

impl Key {
    pub(crate) fn new(object: Ref) -> Self {
        Self(AtomicPtr::new(object.into_raw()))
    }

    #[inline(always)]
    pub(crate) fn object(&self) -> Object {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes the reference out of the entry.
    pub(crate) fn take(&self) -> Object {
        take(&self.0)
    }
}

impl Value {
    pub(crate) fn new(object: Ref) -> Self {
        Self(AtomicPtr::new(object.into_raw()))
    }

    /// Makes a cached failure.
    pub(crate) fn error(object: Ref) -> Self {
        Self(AtomicPtr::new(object.into_raw().map_addr(|address| address | RAISES)))
    }

    pub(crate) fn is_error(&self) -> bool {
        self.0.load(Ordering::Relaxed).addr() & RAISES != 0
    }

    /// Returns the object, which is a value or a failure.
    pub(crate) fn object(&self) -> Object {
        self.0.load(Ordering::Relaxed).map_addr(|address| address & !RAISES)
    }

    /// Takes the reference out of the entry.
    pub(crate) fn take(&self) -> Object {
        take(&self.0).map_addr(|address| address & !RAISES)
    }

    /// Returns a new reference to the value, `None` for a failure.
    #[inline(always)]
    pub(crate) fn value(&self) -> Option<Ref> {
        let object = self.0.load(Ordering::Relaxed);
        // SAFETY: as for `found`.
        (object.addr() & RAISES == 0).then(|| unsafe { Ref::borrowed(object) })
    }

    /// Returns a new reference to the value or failure. The caller keeps the entry from being
    /// freed.
    #[inline(always)]
    pub(crate) fn found(&self) -> Found {
        let object = self.0.load(Ordering::Relaxed);
        let real = object.map_addr(|address| address & !RAISES);
        // SAFETY: the entry holds a reference and is not freed while this runs; with the GIL, no
        // other thread takes the reference out.
        let held = unsafe { Ref::borrowed(real) };
        if object == real {
            Found::Value(held)
        } else {
            Found::Error(held)
        }
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        match self.found() {
            Found::Value(object) => Self::new(object),
            Found::Error(object) => Self::error(object),
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        drop_object(self.take(), ptr::null_mut());
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        drop_object(ptr::null_mut(), self.take());
    }
}

/// Takes a reference out of an entry.
#[inline(always)]
fn take(held: &AtomicPtr<ffi::PyObject>) -> Object {
    if cfg!(Py_GIL_DISABLED) {
        return held.swap(ptr::null_mut(), Ordering::Relaxed);
    }
    // Only the thread that unlinked the entry takes its references out, with the GIL, or the one
    // that frees it.
    let taken = held.load(Ordering::Relaxed);
    held.store(ptr::null_mut(), Ordering::Relaxed);
    taken
}

fn drop_object(key: Object, value: Object) {
    if !key.is_null() || !value.is_null() {
        defer_drop(DeferredDrop {
            key,
            value,
            notice: None,
        });
    }
}

/// The argument of the engine's lookups: a key, or a search that can compare itself with keys.
pub(crate) trait KeyQuery {
    /// Returns the key's object; null for a search.
    fn object(&self) -> Object;
    fn hash(&self) -> u64;
    fn matches(&self, key: Object) -> bool;
}

impl KeyQuery for Key {
    #[inline(always)]
    fn object(&self) -> Object {
        Key::object(self)
    }

    fn hash(&self) -> u64 {
        unreachable!("keys are looked for, and inserted, by what knows their hash")
    }

    fn matches(&self, key: Object) -> bool {
        Key::object(self) == key
    }
}

impl<'a> Borrow<dyn KeyQuery + 'a> for Key {
    #[inline(always)]
    fn borrow(&self) -> &(dyn KeyQuery + 'a) {
        self
    }
}

impl PartialEq for dyn KeyQuery + '_ {
    /// The engine compares a key that it holds with the query, in this order.
    #[inline(always)]
    fn eq(&self, query: &Self) -> bool {
        query.matches(self.object())
    }
}

impl Eq for dyn KeyQuery + '_ {}

impl Hash for dyn KeyQuery + '_ {
    #[inline(always)]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(KeyQuery::hash(self));
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(KeyQuery::hash(self));
    }
}

/// Equality of keys is that of the entry.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        Key::object(self) == Key::object(other)
    }
}

impl Eq for Key {}

/// Passes on hashes that are Python's with a seed: the engine mixes them itself.
#[derive(Clone, Copy, Default)]
pub(crate) struct IdentityHasher(u64);

impl BuildHasher for IdentityHasher {
    type Hasher = Self;

    #[inline(always)]
    fn build_hasher(&self) -> Self {
        *self
    }
}

impl Hasher for IdentityHasher {
    #[inline(always)]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys write one number")
    }
}

/// Something that can be compared with keys.
pub(crate) trait MatchesKey {
    /// # Safety
    /// The key is alive.
    unsafe fn compare(&self, key: Object) -> Equal;
    /// # Safety
    /// The key is alive, and stays so while other code runs.
    unsafe fn rich_compare(&self, key: Object) -> Result<bool, Raised>;
}

impl MatchesKey for Call<'_> {
    #[inline(always)]
    unsafe fn compare(&self, key: Object) -> Equal {
        // SAFETY: the caller's promise.
        unsafe { Call::compare(self, key) }
    }

    unsafe fn rich_compare(&self, key: Object) -> Result<bool, Raised> {
        // SAFETY: the caller's promise.
        unsafe { Call::rich_compare(self, key) }
    }
}

impl MatchesKey for Positional<'_> {
    #[inline(always)]
    unsafe fn compare(&self, key: Object) -> Equal {
        // SAFETY: the caller's promise, and that of `Positional::new`.
        unsafe { Positional::compare(self, key) }
    }

    unsafe fn rich_compare(&self, key: Object) -> Result<bool, Raised> {
        // SAFETY: the caller's promise, and that of `Positional::new`.
        unsafe { Positional::rich_compare(self, key) }
    }
}

impl MatchesKey for SingleArg {
    #[inline(always)]
    unsafe fn compare(&self, key: Object) -> Equal {
        // SAFETY: the caller's promise; the holder of a `SingleArg` keeps its object alive.
        unsafe { SingleArg::compare(self, key) }
    }

    unsafe fn rich_compare(&self, key: Object) -> Result<bool, Raised> {
        // SAFETY: the caller's promise; the holder of a `SingleArg` keeps its object alive.
        unsafe { rich_compare(key, self.0) }
    }
}

/// An object as the key of a mapping. The caller keeps it alive.
pub(crate) struct MappingKey(pub(crate) Object);

impl MatchesKey for MappingKey {
    #[inline(always)]
    unsafe fn compare(&self, key: Object) -> Equal {
        // SAFETY: the caller's promise; the holder of a `MappingKey` keeps its object alive.
        unsafe { compare(key, self.0) }
    }

    unsafe fn rich_compare(&self, key: Object) -> Result<bool, Raised> {
        // SAFETY: the caller's promise; the holder of a `MappingKey` keeps its object alive.
        unsafe { rich_compare(key, self.0) }
    }
}

/// A memo's key that [`Call::key`] made earlier, for the end of a load.
pub(crate) struct StoredKey {
    key: Ref,
    /// Whether it begins with a method's instance: a weak reference, which is one object for each
    /// instance, or the instance itself.
    method: bool,
}

impl StoredKey {
    pub(crate) fn new(key: Ref, method: bool) -> Self {
        Self { key, method }
    }

    /// Returns the parts to compare by equality, `None` if those that are compared by identity or
    /// type differ.
    fn pairs<'a>(&'a self, key: &'a Object) -> Option<(&'a [Object], &'a [Object])> {
        let own = slice::from_ref(self.key.as_slot());
        // SAFETY: both are alive; types are checked before layouts are used.
        unsafe {
            if !self.method || !is_tuple(self.key.get()) || !is_tuple(*key) {
                return Some((own, slice::from_ref(key)));
            }
            match (items(self.key.get()), items(*key)) {
                ([a, own @ ..], [b, other @ ..]) if own.len() == other.len() => {
                    if is_exactly(*a, &raw mut ffi::_PyWeakref_RefType) {
                        return (a == b).then_some((own, other));
                    }
                    let same_type = ffi::Py_TYPE(*a) == ffi::Py_TYPE(*b);
                    same_type.then(|| (items(self.key.get()), items(*key)))
                }
                _ => None,
            }
        }
    }
}

impl MatchesKey for StoredKey {
    unsafe fn compare(&self, key: Object) -> Equal {
        if key == self.key.get() {
            return Equal::Yes;
        }
        // SAFETY: `self` holds its key.
        if unsafe { !is_tuple(self.key.get()) } {
            // SAFETY: the caller's promise.
            return unsafe { SingleArg(self.key.get()).compare(key) };
        }
        let Some((own, other)) = self.pairs(&key) else {
            return Equal::No;
        };
        // SAFETY: the caller's promise; `self` holds its key.
        all(own.iter().zip(other).map(|(a, b)| unsafe { compare(*b, *a) }))
    }

    unsafe fn rich_compare(&self, key: Object) -> Result<bool, Raised> {
        let Some((own, other)) = self.pairs(&key) else {
            return Ok(false);
        };
        for (a, b) in own.iter().zip(other) {
            // SAFETY: as above.
            if !unsafe { rich_compare(*b, *a) }? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A search for a key.
///
/// While the engine runs, only comparisons without Python code are made: a key that needs Python's
/// rich comparison counts as different, and is noted. Afterwards [`resolve`](Self::resolve)
/// compares it, and the search is repeated with the result.
pub(crate) struct Search<'s, T> {
    matcher: &'s T,
    hash: u64,
    /// Only present after a comparison that needs Python code, which is rare.
    comparisons: Cell<Option<Box<Comparisons>>>,
}

#[derive(Default)]
struct Comparisons {
    /// The first key that needs Python's rich comparison.
    pending: Option<Ref>,
    /// Results of rich comparisons. The keys are held, so no other key can get such an address.
    known: Vec<(Ref, bool)>,
}

impl<'s, T: MatchesKey> Search<'s, T> {
    #[inline(always)]
    pub(crate) fn new(matcher: &'s T, hash: u64) -> Self {
        Self {
            matcher,
            hash: seeded(hash),
            comparisons: Cell::new(None),
        }
    }

    /// Makes a search with the hash of an earlier one, which includes the seed.
    pub(crate) fn resumed(matcher: &'s T, seeded: u64) -> Self {
        Self {
            matcher,
            hash: seeded,
            comparisons: Cell::new(None),
        }
    }

    #[inline(always)]
    fn has_comparisons(&self) -> bool {
        // SAFETY: no other reference into the cell exists, and it belongs to one thread.
        unsafe { (*self.comparisons.as_ptr()).is_some() }
    }

    /// Returns whether the last search compared all keys.
    pub(crate) fn is_conclusive(&self) -> bool {
        let comparisons = self.comparisons.take();
        let conclusive = comparisons
            .as_ref()
            .is_none_or(|comparisons| comparisons.pending.is_none());
        self.comparisons.set(comparisons);
        conclusive
    }

    /// Compares the key that the last search could not compare, if there is one; returns whether to
    /// repeat the search.
    ///
    /// Runs Python code.
    #[inline(always)]
    pub(crate) fn resolve(&self) -> Result<bool, Raised> {
        if self.has_comparisons() {
            self.resolve_pending()
        } else {
            Ok(false)
        }
    }

    #[cold]
    fn resolve_pending(&self) -> Result<bool, Raised> {
        let mut comparisons = self.comparisons.take().unwrap_or_default();
        let mut answer = Ok(false);
        if let Some(key) = comparisons.pending.take() {
            // SAFETY: `key` is an owned reference.
            let equal = unsafe { self.matcher.rich_compare(key.get()) };
            comparisons.known.push((key, matches!(equal, Ok(true))));
            answer = equal.map(|_| true);
        }
        self.comparisons.set(Some(comparisons));
        answer
    }

    #[cold]
    fn known_answer(&self, key: Object) -> bool {
        let mut comparisons = self.comparisons.take().unwrap_or_default();
        let answer = comparisons.known.iter().find(|(known, _)| known.get() == key);
        let answer = answer.map(|(_, equal)| *equal);
        if answer.is_none() && comparisons.pending.is_none() {
            // SAFETY: the cache holds the key while it compares it.
            comparisons.pending = Some(unsafe { Ref::borrowed(key) });
        }
        self.comparisons.set(Some(comparisons));
        answer.unwrap_or(false)
    }
}

impl<T: MatchesKey> KeyQuery for Search<'_, T> {
    fn object(&self) -> Object {
        ptr::null_mut()
    }

    #[inline(always)]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline(always)]
    fn matches(&self, key: Object) -> bool {
        if key.is_null() {
            return false;
        }
        // SAFETY: the cache holds the key while it compares it.
        match unsafe { self.matcher.compare(key) } {
            Equal::Yes => true,
            Equal::No => false,
            Equal::Unknown => self.known_answer(key),
        }
    }
}

/// A query for keys that equal the search's, except for one object.
pub(crate) struct ExceptQuery<'s, 't, T>(pub(crate) &'s Search<'t, T>, pub(crate) Object);

impl<T: MatchesKey> KeyQuery for ExceptQuery<'_, '_, T> {
    fn object(&self) -> Object {
        ptr::null_mut()
    }

    fn hash(&self) -> u64 {
        self.0.hash
    }

    fn matches(&self, key: Object) -> bool {
        key != self.1 && self.0.matches(key)
    }
}

/// A query for one key object.
pub(super) struct IdentityQuery(pub(super) u64, pub(super) Object);

impl KeyQuery for IdentityQuery {
    fn object(&self) -> Object {
        ptr::null_mut()
    }

    fn hash(&self) -> u64 {
        self.0
    }

    fn matches(&self, key: Object) -> bool {
        key == self.1
    }
}
