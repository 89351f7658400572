//! The overflow: events of writers whose ring was full while the lock holder made no progress.
//!
//! A stack (Treiber, "Systems programming: coping with parallelism", 1986). Any thread pushes. Only
//! the lock holder takes, and takes the whole stack, so there is no ABA problem.
//!
//! It is empty unless a lock holder is suspended. Then it grows by one event per writer and
//! [`PATIENCE`](super::maintenance_lock::PATIENCE), which each writer waits before each push.

use crate::prim::memory::boxed;
use crate::prim::sync::{AtomicPtr, Ordering};
use std::ptr;

/// See the [module's documentation](self).
pub(super) struct Overflow(AtomicPtr<Node>);

struct Node {
    pair: [u64; 2],
    next: *mut Node,
}

impl Overflow {
    pub(super) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Pushes a pair of words. Returns false if there is no memory for it.
    #[cold]
    pub(super) fn push(&self, pair: [u64; 2]) -> bool {
        let next = ptr::null_mut();
        let Some(node) = boxed(Node { pair, next }) else {
            return false;
        };
        let node = Box::into_raw(node);
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is this call's own until the exchange below.
            unsafe { (*node).next = first };
            // Release pairs with the Acquire in `take` and `peek`: the pair, and all that its
            // writer did before, is seen.
            match self
                .0
                .compare_exchange_weak(first, node, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => first = now,
            }
        }
    }

    /// Takes all pairs and passes them to `take`.
    #[cold]
    pub(super) fn take(&self, mut take: impl FnMut([u64; 2])) {
        // Acquire pairs with the Release in `push`.
        let mut node = self.0.swap(ptr::null_mut(), Ordering::Acquire);
        while !node.is_null() {
            // SAFETY: allocated by `boxed` in `push`, and this call's own since the swap.
            let taken = unsafe { Box::from_raw(node) };
            node = taken.next;
            take(taken.pair);
        }
    }

    /// Calls `see` with all pairs, and leaves them here. For the holder of the maintenance lock,
    /// the only thread that takes them.
    pub(super) fn peek(&self, mut see: impl FnMut([u64; 2])) {
        // Acquire: as in `take`.
        let mut node = self.0.load(Ordering::Acquire);
        // SAFETY: only `take` frees nodes, under the lock that the caller holds; `next` is not
        // written again.
        while let Some(at) = unsafe { node.as_ref() } {
            see(at.pair);
            node = at.next;
        }
    }
}

impl Drop for Overflow {
    fn drop(&mut self) {
        self.take(|_| ());
    }
}
