//! Keys and values whose code springs a trap: whoever has them as a module says with `Place` and `trap` what that is, and with
//! `count` where those that are alive are counted.

use super::{Place, count, trap};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What a trap panics with.
pub(crate) struct Intended;

/// Whether it panicked as intended. Any other panic goes on.
pub(crate) fn springs<R>(call: impl FnOnce() -> R) -> bool {
    match catch_unwind(AssertUnwindSafe(|| drop(call()))) {
        Ok(()) => false,
        Err(panic) if panic.is::<Intended>() => true,
        Err(panic) => resume_unwind(panic),
    }
}

pub(crate) struct Key(pub(crate) u64, Box<u64>);
pub(crate) struct Value(pub(crate) Box<u64>);

pub(crate) fn key(k: u64) -> Key {
    count(1);
    Key(k, Box::new(k))
}

pub(crate) fn value(v: u64) -> Value {
    count(1);
    Value(Box::new(v))
}

impl Value {
    pub(crate) fn weight(&self) -> u64 {
        1 + *self.0 % 3
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        trap(Place::Hash);
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        trap(Place::Eq);
        assert!(self.0 == *self.1 && other.0 == *other.1, "compared while alive");
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Clone for Key {
    fn clone(&self) -> Self {
        trap(Place::CloneKey);
        key(self.0)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        assert_eq!(std::mem::replace(&mut *self.1, u64::MAX), self.0, "dropped once");
        count(-1);
        trap(Place::DropKey);
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        trap(Place::CloneValue);
        value(*self.0)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        assert_ne!(std::mem::replace(&mut *self.0, u64::MAX), u64::MAX, "dropped once");
        count(-1);
        trap(Place::DropValue);
    }
}
