//! What follows a maintenance visit once the lock is released: user code runs, and memory is freed.

use super::Engine;
use super::core::CallerGuard;
use super::deferred::DeferredWork;
use super::entry::{Chain, Entry, Handle};
use super::event::Event;
use super::limbo::Portion;
use crate::prim::panics::Panics;
use crate::reclaim::Guard;
use crate::stats::Cause;

impl<K, V> Engine<K, V> {
    /// Frees what became due, and runs the user code that this needs, unpinned.
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

    /// Whether freeing entries runs user code.
    pub(super) fn has_user_code(&self) -> bool {
        self.listener.is_some() || std::mem::needs_drop::<Entry<K, V>>()
    }

    /// User code that runs here may use the cache, and so come here again. What becomes due then is left to the outermost
    /// call, which looks again, a few times: so the stack does not grow, however much ends at once.
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
            // SAFETY: the lock is held, and this reference ends before it is given up.
            let core = unsafe { &mut *self.work.0.core.get() };
            core.release(&mut shown);
            let deferred = if outermost.is_some() {
                // SAFETY: nothing was found under the guard.
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

    /// Returns what the listener was shown, which is still to be released.
    fn run_user_code(&self, deferred: DeferredWork, panics: &mut Panics) -> Vec<(Handle, Cause)> {
        if deferred.wanted != 0 {
            self.map.prepare(deferred.wanted, &self.pin());
        }
        let mut empty = Chain::new();
        for bulk in deferred.bulk {
            empty.prepend(bulk.into_recycled(|table| self.map.discard(table)));
        }
        if self.map.has_discarded() {
            self.map.dismantle();
        }
        for &(handle, cause) in &deferred.evicted {
            self.notify(handle, cause, panics);
        }
        let (mut free, mut nonstandard) = (deferred.free, deferred.nonstandard);
        while let Some(previous) = free.pop() {
            // SAFETY: nobody can reach what is due to be freed; the header, which was overwritten, has no destructor. Popped
            // from one chain, it goes to another.
            unsafe {
                panics.catch(|| self.shape.drop_contents::<K, V>(previous));
                empty.push(previous);
            }
        }
        while let Some(previous) = nonstandard.pop() {
            // SAFETY: as above; what is odd has times if the usual has none, and the other way round.
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

    /// Keeps the memory of former entries for this thread's next ones, or gives it back.
    #[inline]
    fn recycle(&self, mut empty: Chain, guard: &Guard) {
        if let Some(writer) = self.thread_states.writer_if_any(guard) {
            // SAFETY: the part is this thread's, which is pinned; the memory was given up by its former owner.
            empty = unsafe { writer.recycle(empty, self.shape.size::<K, V>()) };
        }
        while let Some(previous) = empty.pop() {
            // SAFETY: as above; only what is usual is put into chains.
            unsafe { self.shape.release::<K, V>(previous, self.shape.timed) };
        }
    }
}

/// How often the outermost call looks again for what its own user code made due.
const ROUNDS: usize = 8;

/// In which caches this thread is running user code that became due.
#[cfg(not(loom))]
pub(super) mod running {
    use std::cell::RefCell;
    use std::ptr;

    thread_local! {
        static MARKED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    /// A thread in its last destructors has no marks: there, user code may nest.
    pub(in crate::engine) fn is<T>(cache: &T) -> bool {
        let marked = MARKED.try_with(|marked| marked.borrow().contains(&ptr::from_ref(cache).addr()));
        marked.unwrap_or(false)
    }

    pub(super) struct Mark(usize);

    impl Mark {
        /// `None` if the thread is at it already.
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

/// Loom's threads share one of the system's; its models have no user code that comes back.
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
