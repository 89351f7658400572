//! What a store gives away, and how a method's store grows.

use super::key::{Found, Key, Value};
use super::{Store, WITHOUT_NOTICE};
use crate::objects::{Object, Ref};
use hotset::raw;
use std::ptr;
use std::sync::atomic::Ordering;

impl Store {
    /// The bound of a method's cache that has none of its own is so much for each instance that has results.
    #[cfg(not(Py_GIL_DISABLED))]
    pub(super) fn scale_capacity(&self) {
        let each = self.per_instance.load(Ordering::Relaxed);
        if each == 0 {
            return;
        }
        let instances = self.hooks.owners.load(Ordering::Relaxed) as u64 + 1;
        let now = self.cache.capacity();
        let wanted = each.saturating_mul(instances);
        // Grown by a quarter at least, and shrunk when a half is too much: not with every instance.
        if wanted > now {
            self.cache.set_capacity(wanted.max(now.saturating_add(now / 4)));
        } else if wanted < now / 2 {
            self.cache.set_capacity(wanted);
        }
    }

    /// Runs `f`, which replaces a value by itself: the listener is not told of that.
    pub(crate) fn without_notice<R>(value: Object, f: impl FnOnce() -> R) -> R {
        struct ResetOnDrop;
        impl Drop for ResetOnDrop {
            fn drop(&mut self) {
                WITHOUT_NOTICE.set(ptr::null_mut());
            }
        }
        WITHOUT_NOTICE.set(value);
        let _reset = ResetOnDrop;
        f()
    }

    /// A lookup that was counted as a miss found another caller's load, and waits for it.
    pub(crate) fn count_joined(&self) {
        self.joined_misses.increment(Ordering::Relaxed);
    }

    /// Removes the entry that would go first, and returns it.
    pub(crate) fn pop_coldest(&self) -> Option<(Ref, Found)> {
        loop {
            if let Some(taken) = raw::pop_coldest(&self.cache, borrow_entry)? {
                return Some(taken);
            }
        }
    }

    /// Removes what has expired, and returns it.
    pub(crate) fn take_expired(&self) -> Vec<(Ref, Found)> {
        raw::take_expired(&self.cache, borrow_entry)
            .into_iter()
            .flatten()
            .collect()
    }
}

/// New references to an entry, for one who keeps it.
fn borrow_entry(key: &Key, value: &Value) -> Option<(Ref, Found)> {
    let key = key.object();
    // SAFETY: the entry holds its key until it is taken out, which is not while this runs.
    (!key.is_null()).then(|| (unsafe { Ref::borrowed(key) }, value.found()))
}
