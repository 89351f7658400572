//! The same interface as `epoch`, on crossbeam-epoch: the alternative (feature `crossbeam`), and a second opinion in tests.
//!
//! Only the waiting is crossbeam's: a seal is a flag that a deferred function sets. Garbage stays with its cache, so
//! that no destructor runs after the cache is gone. All caches are one domain: a reader of any of them holds up the garbage of all,
//! and crossbeam decides when it looks at the readers, so what was unlinked is freed later than with `epoch`.

use super::registry::Registry;
use crossbeam_epoch::{self as epoch, Collector, LocalHandle};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, LazyLock};

/// While it lives, nothing that its thread can reach in a map is freed. Not `Send`.
pub(crate) struct Guard {
    _pinned: epoch::Guard,
}

/// A collector of our own: the default one's would run other users' deferred functions, wherever we are.
static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::new);

thread_local! {
    static PARTICIPANT: LocalHandle = COLLECTOR.register();
}

fn pin_here() -> epoch::Guard {
    // A thread in its last destructors takes part for the moment.
    let pinned = PARTICIPANT.try_with(LocalHandle::pin);
    pinned.unwrap_or_else(|_| COLLECTOR.register().pin())
}

/// A guard that ends with a call: here, one like others.
pub(crate) struct Brief(Guard);

impl Brief {
    #[inline]
    pub(crate) fn guard(&self) -> &Guard {
        &self.0
    }

    #[inline]
    pub(crate) fn into_guard(self) -> Guard {
        self.0
    }
}

/// The readers of a cache: here, those of all.
pub(crate) struct Domain(());

impl Domain {
    pub(crate) fn new() -> Self {
        Self(())
    }

    /// Pins the calling thread.
    #[inline]
    pub(crate) fn pin(&self) -> Guard {
        Guard { _pinned: pin_here() }
    }

    /// [`pin`](Self::pin), with a SeqCst fence: crossbeam's own is not one in every case.
    #[inline]
    pub(crate) fn pin_fenced(&self) -> Guard {
        fence(Ordering::SeqCst);
        self.pin()
    }

    /// [`pin`](Self::pin), unless that may take longer.
    #[inline]
    pub(crate) fn pin_briefly(&self) -> Option<Brief> {
        Some(Brief(self.pin()))
    }

    /// Marks all that was unlinked so far.
    pub(crate) fn seal(&self) -> Seal {
        let flag = Arc::new(AtomicBool::new(false));
        let set = flag.clone();
        let guard = pin_here();
        // Release pairs with the Acquire in `passed`: all guards older than the seal ended before.
        guard.defer(move || set.store(true, Ordering::Release));
        guard.flush();
        Seal(flag)
    }

    /// [`seal`](Self::seal): here, the guard holds it up.
    ///
    /// # Safety
    /// As in `epoch`.
    pub(crate) unsafe fn seal_renewing(&self, _: &Guard) -> Seal {
        self.seal()
    }

    /// Whether no reader can see any more what was sealed.
    pub(crate) fn passed(&self, seal: &Seal) -> (bool, usize) {
        // A pin and a flush give crossbeam the occasion to collect, which runs the deferred functions.
        pin_here().flush();
        (seal.0.load(Ordering::Acquire), 0)
    }
}

/// A guard for a caller that needs none: here, it is one.
///
/// # Safety
/// As in `epoch`.
pub(crate) unsafe fn unprotected() -> Guard {
    Guard { _pinned: pin_here() }
}

/// As in `epoch`, where it frees what the parent's other threads held; crossbeam's participants cannot be given back, so what
/// they pinned at the fork stays allocated in the child.
///
/// # Safety
/// As in `epoch`.
pub(crate) unsafe fn fork_child() {}

/// The indices of living threads.
static INDICES: Registry<()> = Registry::new();

struct Index(usize);

impl Drop for Index {
    fn drop(&mut self) {
        CACHED.set(usize::MAX);
        INDICES.release(self.0);
    }
}

thread_local! {
    static CACHED: Cell<usize> = const { Cell::new(usize::MAX) };
    static INDEX: Index = Index(INDICES.claim().0);
}

impl Guard {
    /// A small number that no other living thread has (`usize::MAX` for a thread in its last destructors).
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

/// Claims the index of a thread that has ended, so that no thread begins to use it. False if a thread has it.
pub(crate) fn claim_index(index: usize) -> bool {
    !INDICES.is_used(index) && INDICES.claim_exactly(index)
}

/// Gives back what [`claim_index`] claimed.
pub(crate) fn release_index(index: usize) {
    INDICES.release(index);
}

/// Marks all that was unlinked so far.
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
    fn no_two_living_threads_have_the_same_index() {
        let ((tell, told), (go, wait)) = (sync_channel(0), sync_channel(0));
        let one = std::thread::spawn(move || {
            LATE.with_borrow_mut(|late| *late = Some(Late(tell, wait)));
            Domain::new().pin().thread_index();
        });
        let index = told.recv().unwrap();
        let other = std::thread::spawn(|| Domain::new().pin().thread_index())
            .join()
            .unwrap();
        go.send(()).unwrap();
        one.join().unwrap();
        assert_ne!(index, other);
    }
}
