//! Changes of writers that found their ring full while the holder of the maintenance lock made no progress.
//!
//! A stack (Treiber, "Systems programming: coping with parallelism", 1986). Any thread pushes; the lock holder takes it as a
//! whole, so there is no ABA problem. It is empty unless a lock holder is suspended, and then grows by one per writer and
//! [`PATIENCE`](super::maintenance_lock::PATIENCE), since each writer waits for so long before each push.

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

    /// Appends a pair of words. Returns false if there is no memory for it.
    #[cold]
    pub(super) fn push(&self, pair: [u64; 2]) -> bool {
        let next = ptr::null_mut();
        let Some(node) = boxed(Node { pair, next }) else {
            return false;
        };
        let node = Box::into_raw(node);
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: this call's own until the exchange below.
            unsafe { (*node).next = first };
            // Release pairs with the Acquire in `take` and `peek`: the pair, and all that its writer did before, is seen.
            match self
                .0
                .compare_exchange_weak(first, node, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => first = now,
            }
        }
    }

    /// Hands out all pairs and forgets them.
    #[cold]
    pub(super) fn take(&self, mut take: impl FnMut([u64; 2])) {
        // Acquire pairs with the Release in `push`.
        let mut node = self.0.swap(ptr::null_mut(), Ordering::Acquire);
        while !node.is_null() {
            // SAFETY: made by `boxed` in `push`, and this call's own since the swap.
            let taken = unsafe { Box::from_raw(node) };
            node = taken.next;
            take(taken.pair);
        }
    }

    /// Shows all pairs, and leaves them here. For the holder of the maintenance lock, which is the only one to take them.
    pub(super) fn peek(&self, mut see: impl FnMut([u64; 2])) {
        // Acquire: as in `take`.
        let mut node = self.0.load(Ordering::Acquire);
        // SAFETY: nodes are freed by `take` only, which needs the lock that the caller holds; `next` is not written again.
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
