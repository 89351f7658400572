//! The interface of `epoch` on crossbeam-epoch: the alternative (feature `crossbeam`), and a second
//! opinion in tests.
//!
//! Only the waiting is crossbeam's: a seal is a flag that a deferred function sets. Garbage stays
//! with its cache, so no destructor runs after the cache is dropped. All caches are one domain: a
//! reader of any of them delays the freeing in all. Crossbeam decides when it checks the readers,
//! so memory is freed later than with `epoch`.

use super::registry::Registry;
use crossbeam_epoch::{self as epoch, Collector, LocalHandle};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, LazyLock};

/// A pinned reader: while it lives, nothing that its thread can reach in a map is freed. Not
/// `Send`.
pub(crate) struct Guard {
    _pinned: epoch::Guard,
}

/// A collector of this crate. The default one would also run the deferred functions of its other
/// users.
static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::new);

thread_local! {
    /// The thread's participation in the collector.
    static PARTICIPANT: LocalHandle = COLLECTOR.register();
}

/// Pins the calling thread.
fn pin_here() -> epoch::Guard {
    // A thread past its thread-local destructors registers for this guard alone.
    let pinned = PARTICIPANT.try_with(LocalHandle::pin);
    pinned.unwrap_or_else(|_| COLLECTOR.register().pin())
}

/// A guard that ends with a call: here, one like others.
pub(crate) struct FastGuard(Guard);

impl FastGuard {
    /// Returns the guard.
    #[inline]
    pub(crate) fn guard(&self) -> &Guard {
        &self.0
    }

    /// Returns the same guard as one that may outlive its thread's registration.
    #[inline]
    pub(crate) fn into_guard(self) -> Guard {
        self.0
    }
}

/// The readers of a cache: here, those of all caches.
pub(crate) struct Domain(());

impl Domain {
    /// Returns the domain of all caches.
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Pins the calling thread.
    #[inline]
    pub(crate) fn pin(&self) -> Guard {
        Guard { _pinned: pin_here() }
    }

    /// [`pin`](Self::pin) that always executes a SeqCst fence, which crossbeam's own does not in
    /// every case.
    #[inline]
    pub(crate) fn pin_fenced(&self) -> Guard {
        fence(Ordering::SeqCst);
        self.pin()
    }

    /// [`pin`](Self::pin) for a call that ends before the thread does. Here it always succeeds.
    #[inline]
    pub(crate) fn pin_fast(&self) -> Option<FastGuard> {
        Some(FastGuard(self.pin()))
    }

    /// Marks all that was unlinked so far.
    pub(crate) fn seal(&self) -> Seal {
        let flag = Arc::new(AtomicBool::new(false));
        let set = flag.clone();
        let guard = pin_here();
        // Release pairs with the Acquire in `passed`: all guards older than the seal ended before.
        guard.defer(move || set.store(true, Ordering::Release));
        // Flushed, so that the deferred function does not wait in a buffer of this thread.
        guard.flush();
        Seal(flag)
    }

    /// [`seal`](Self::seal). Here the guard delays the freeing.
    ///
    /// # Safety
    /// As in `epoch`.
    pub(crate) unsafe fn seal_renewing(&self, _: &Guard) -> Seal {
        self.seal()
    }

    /// Returns whether no reader can reference what was sealed. The number of slots visited is not
    /// known.
    pub(crate) fn passed(&self, seal: &Seal) -> (bool, usize) {
        // A pin and a flush let crossbeam collect, which runs the deferred functions.
        pin_here().flush();
        // Acquire pairs with the Release in `seal`.
        (seal.0.load(Ordering::Acquire), 0)
    }
}

/// Returns a guard to a caller that needs none. Here it pins.
///
/// # Safety
/// As in `epoch`.
pub(crate) unsafe fn unprotected() -> Guard {
    Guard { _pinned: pin_here() }
}

/// Does nothing. `epoch` releases what the parent's other threads held; crossbeam's participants
/// cannot be released, so what they pinned at the fork stays allocated in the child.
///
/// # Safety
/// As in `epoch`.
pub(crate) unsafe fn fork_child() {}

/// The indices of living threads.
static INDICES: Registry<()> = Registry::new();

/// A thread's claim of its index, released when the thread ends.
struct Index(usize);

impl Drop for Index {
    fn drop(&mut self) {
        // Before the release: a later destructor of this thread must not use an index that is free.
        CACHED.set(usize::MAX);
        INDICES.release(self.0);
    }
}

thread_local! {
    /// The index, without a destructor. `usize::MAX` before the first use, and once it is released.
    static CACHED: Cell<usize> = const { Cell::new(usize::MAX) };
    /// The claim.
    static INDEX: Index = Index(INDICES.claim().0);
}

impl Guard {
    /// Returns the thread's index: a small number that no other living thread has (`usize::MAX` for
    /// a thread past its thread-local destructors).
    #[inline]
    pub(crate) fn thread_index(&self) -> usize {
        let index = CACHED.get();
        if index != usize::MAX {
            return index;
        }
        let index = INDEX.try_with(|index| index.0).unwrap_or(usize::MAX);
        CACHED.set(index);
        index
    }
}

/// Claims the index of a thread that has ended, so that no thread begins to use it. Returns false
/// if a thread has it.
pub(crate) fn claim_index(index: usize) -> bool {
    !INDICES.is_used(index) && INDICES.claim_exactly(index)
}

/// Releases an index that [`claim_index`] claimed.
pub(crate) fn release_index(index: usize) {
    INDICES.release(index);
}

/// A mark of all that was unlinked before it.
#[derive(Debug, Clone)]
pub(crate) struct Seal(Arc<AtomicBool>);

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    thread_local! {
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }

    /// Pins in a destructor that runs after the one of the thread's index.
    struct Late(SyncSender<usize>, Receiver<()>);

    impl Drop for Late {
        fn drop(&mut self) {
            let guard = Domain::new().pin();
            self.0.send(guard.thread_index()).unwrap();
            self.1.recv().unwrap();
        }
    }

    #[test]
    fn living_threads_have_distinct_indices() {
        let ((index_tx, index_rx), (go_tx, go_rx)) = (sync_channel(0), sync_channel(0));
        let one = std::thread::spawn(move || {
            LATE.with_borrow_mut(|late| *late = Some(Late(index_tx, go_rx)));
            Domain::new().pin().thread_index();
        });
        let index = index_rx.recv().unwrap();
        let other = std::thread::spawn(|| Domain::new().pin().thread_index())
            .join()
            .unwrap();
        go_tx.send(()).unwrap();
        one.join().unwrap();
        assert_ne!(index, other);
    }
}
