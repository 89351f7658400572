//! The work that follows a maintenance visit after the unlock: user code runs, and memory is freed.
//!
//! User code may use the cache and so reach this code again. Only the outermost call of a thread
//! takes the resulting work, a bounded number of times, so the stack does not grow.

use super::Engine;
use super::core::CallerGuard;
use super::deferred::DeferredWork;
use super::entry::{Chain, Entry, Handle};
use super::event::Event;
use super::limbo::Portion;
use crate::prim::panics::Panics;
use crate::prim::prefetch::prefetch;
use crate::reclaim::Guard;
use crate::stats::Cause;

impl<K, V> Engine<K, V> {
    /// Frees reclaimed entries, and runs the user code that this needs, unpinned.
    #[inline]
    pub(super) fn run_deferred(&self, deferred: DeferredWork, guard: Guard) {
        let quiet = deferred.evicted.is_empty()
            && deferred.nonstandard.len() == 0
            && !deferred.has_bulk()
            && !self.map.has_discarded();
        if quiet && !std::mem::needs_drop::<Entry<K, V>>() {
            self.recycle(deferred.free, &guard);
        } else {
            drop(guard);
            self.run_deferred_slow(deferred);
        }
    }

    /// Returns whether freeing entries runs user code.
    pub(super) fn has_user_code(&self) -> bool {
        self.listener.is_some() || std::mem::needs_drop::<Entry<K, V>>()
    }

    /// Same as [`run_deferred`](Self::run_deferred), with user code. User code may use the cache
    /// and reach this function again: a nested call leaves new work to the outermost one, which
    /// takes more work up to [`ROUNDS`] times.
    #[inline(never)]
    fn run_deferred_slow(&self, deferred: DeferredWork) {
        let mut panics = Panics::default();
        let outermost = running::Mark::new(self);
        let mut shown = self.run_user_code(deferred, &mut panics);
        for _ in 0..ROUNDS {
            if outermost.is_none() && shown.is_empty() {
                break;
            }
            let guard = self.pin();
            let Some(held) = self.work.0.lock.try_lock() else {
                break;
            };
            // SAFETY: the lock is held, and this reference ends before the unlock.
            let core = unsafe { &mut *self.work.0.core.get() };
            core.release(&mut shown);
            let deferred = if outermost.is_some() {
                // SAFETY: no reference was obtained under the guard.
                unsafe { core.take_deferred(&self.domain, CallerGuard::Spent(&guard), Portion::Fresh) }
            } else {
                DeferredWork::nothing()
            };
            held.unlock();
            drop(guard);
            if deferred.is_nothing() {
                break;
            }
            shown = self.run_user_code(deferred, &mut panics);
        }
        for (handle, _) in shown {
            panics.catch(|| self.record(Event::Released(handle), self.pin()));
        }
        drop(outermost);
        panics.resume();
    }

    /// Runs listeners and destructors. Returns the entries that the listener has seen, which the
    /// caller must still free.
    fn run_user_code(&self, deferred: DeferredWork, panics: &mut Panics) -> Vec<(Handle, Cause)> {
        if deferred.wanted != 0 {
            self.map.prepare(deferred.wanted, &self.pin());
        }
        let mut empty = Chain::new();
        for bulk in deferred.bulk {
            empty.prepend(bulk.into_recycled(|table| self.map.discard(table)));
        }
        if self.map.has_discarded() {
            self.map.free_discarded_slice();
        }
        for &(handle, cause) in &deferred.evicted {
            self.notify(handle, cause, panics);
        }
        let (mut free, mut nonstandard) = (deferred.free, deferred.nonstandard);
        // SAFETY: the iterator stays ahead of `pop`.
        let mut ahead = unsafe { free.iter() };
        let mut prefetch_values = |count| {
            let Some(pointee) = self.pointee else { return };
            for previous in ahead.by_ref().take(count) {
                // SAFETY: as below, and its contents are not dropped yet.
                prefetch(pointee(unsafe { &previous.entry::<K, V>().value }));
            }
        };
        prefetch_values(AHEAD);
        while let Some(previous) = free.pop() {
            prefetch_values(1);
            // SAFETY: no thread can reach an entry that is reclaimed. Its header, which the chain
            // overwrote, has no destructor. An entry popped from one chain is pushed to another.
            unsafe {
                panics.catch(|| self.shape.drop_contents::<K, V>(previous));
                empty.push(previous);
            }
        }
        while let Some(previous) = nonstandard.pop() {
            // SAFETY: as above; the nonstandard layout has deadlines if the standard one has none,
            // and vice versa.
            unsafe {
                panics.catch(|| self.shape.drop_contents::<K, V>(previous));
                self.shape.release::<K, V>(previous, !self.shape.timed);
            }
        }
        if empty.len() > 0 {
            self.recycle(empty, &self.pin());
        }
        deferred.evicted
    }

    /// Keeps the memory of freed entries for this thread's next insertions, or returns it to the
    /// allocator.
    #[inline]
    fn recycle(&self, mut empty: Chain, guard: &Guard) {
        if let Some(writer) = self.thread_states.writer_if_any(guard) {
            // SAFETY: the writer belongs to this thread, which is pinned; the entries in `empty`
            // are owned by this call.
            empty = unsafe { writer.recycle(empty, self.shape.size::<K, V>()) };
        }
        while let Some(previous) = empty.pop() {
            // SAFETY: as above; `empty` holds only entries of the standard layout.
            unsafe { self.shape.release::<K, V>(previous, self.shape.timed) };
        }
    }
}

/// The number of values whose memory is prefetched before they are dropped: those of evicted values
/// are cold, and so their cache misses overlap.
const AHEAD: usize = 16;
/// The most times that the outermost call takes the work that its own user code caused.
const ROUNDS: usize = 8;

/// The caches in which this thread is running deferred user code.
#[cfg(not(loom))]
pub(super) mod running {
    use std::cell::RefCell;
    use std::ptr;

    thread_local! {
        static MARKED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    /// Returns whether this thread is running deferred user code of `cache`. False in a thread's
    /// last destructors, where user code may nest.
    pub(in crate::engine) fn is<T>(cache: &T) -> bool {
        let marked = MARKED.try_with(|marked| marked.borrow().contains(&ptr::from_ref(cache).addr()));
        marked.unwrap_or(false)
    }

    pub(super) struct Mark(usize);

    impl Mark {
        /// Returns a mark, or `None` if the thread already has one for `cache`.
        pub(super) fn new<T>(cache: &T) -> Option<Self> {
            let address = ptr::from_ref(cache).addr();
            let new = !is(cache) && MARKED.try_with(|marked| marked.borrow_mut().push(address)).is_ok();
            new.then_some(Self(address))
        }
    }

    impl Drop for Mark {
        fn drop(&mut self) {
            _ = MARKED.try_with(|marked| marked.borrow_mut().retain(|address| *address != self.0));
        }
    }
}

/// Loom's threads share one thread of the system, and no model has user code that calls back.
#[cfg(loom)]
pub(super) mod running {
    pub(in crate::engine) fn is<T>(_: &T) -> bool {
        false
    }

    pub(super) struct Mark;

    impl Mark {
        pub(super) fn new<T>(_: &T) -> Option<Self> {
            None
        }
    }
}
