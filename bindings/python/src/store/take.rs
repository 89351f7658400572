//! Operations that return removed entries, and the capacity of a method's store.

use super::Store;
use super::hooks::WITHOUT_NOTICE;
use super::key::{Found, Key, Value};
use crate::objects::{Object, Ref};
use hotset::raw;
use std::ptr;
use std::sync::atomic::Ordering;

impl Store {
    /// Scales a capacity that is per instance to the number of instances with results.
    #[cfg(not(Py_GIL_DISABLED))]
    pub(super) fn scale_capacity(&self) {
        let each = self.per_instance.load(Ordering::Relaxed);
        if each == 0 {
            return;
        }
        let instances = self.hooks.counts.owners.load(Ordering::Relaxed) as u64 + 1;
        let now = self.cache.capacity();
        let wanted = each.saturating_mul(instances);
        // Grown by at least a quarter and shrunk by at least a half, so not with every instance.
        if wanted > now {
            self.cache.set_capacity(wanted.max(now.saturating_add(now / 4)));
        } else if wanted < now / 2 {
            self.cache.set_capacity(wanted);
        }
    }

    /// Runs `f`, which replaces `value` by itself: the listener is not notified of that.
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

    /// Notes that a lookup which was counted as a miss waits for another caller's load.
    pub(crate) fn count_joined(&self) {
        self.joined_misses.increment(Ordering::Relaxed);
    }

    /// Removes and returns the entry that would be evicted first.
    pub(crate) fn pop_coldest(&self) -> Option<(Ref, Found)> {
        loop {
            if let Some(taken) = raw::pop_coldest(&self.cache, borrow_entry)? {
                return Some(taken);
            }
        }
    }

    /// Removes and returns all expired entries.
    pub(crate) fn take_expired(&self) -> Vec<(Ref, Found)> {
        raw::take_expired(&self.cache, borrow_entry)
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Returns new references to an entry. The caller keeps the entry from being freed.
fn borrow_entry(key: &Key, value: &Value) -> Option<(Ref, Found)> {
    let key = key.object();
    // SAFETY: the entry holds its key until it is taken out, which does not happen while this runs.
    (!key.is_null()).then(|| (unsafe { Ref::borrowed(key) }, value.found()))
}
