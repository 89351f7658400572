//! What the rest of the crate uses of the module `snapshot`, for builds without that feature: a
//! slot that is always empty, and settings that no program can make.
//!
//! The functions are constant, so the compiler removes the branches that call them.

use crate::cache::Inner;
use crate::engine::Handle;
use crate::reclaim::Guard;
use std::convert::Infallible;
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

/// A slot that never holds a snapshot.
pub(crate) struct SnapshotSlot<K, V>(PhantomData<fn(K, V)>);

impl<K, V> SnapshotSlot<K, V> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }

    /// Returns false.
    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        false
    }

    /// Returns false: no thread is restoring an entry.
    #[inline(always)]
    pub(crate) fn invalidate<Q: Hash + ?Sized>(&self, _key: &Q) -> bool {
        false
    }

    /// Does nothing.
    #[inline(always)]
    pub(crate) fn close(&self, _kill: impl FnMut(u64)) {}
}

impl<K, V, S> Inner<K, V, S> {
    /// Returns `None`: there is no snapshot to restore from.
    #[inline(always)]
    pub(crate) fn restore_on_miss<Q: ?Sized>(&self, _hash: u64, _key: &Q, _guard: &Guard) -> Option<Handle> {
        None
    }
}

/// The configuration of automatic snapshots. It has no value.
pub(crate) struct AutoSnapshot {
    pub(crate) every: Option<Duration>,
    _never: Infallible,
}
