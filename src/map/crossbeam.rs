//! The same interface as `epoch`, on crossbeam-epoch: the alternative (feature `crossbeam`), and a second opinion in tests.
//!
//! Only the waiting is crossbeam's: a seal is a flag that a deferred function sets. Garbage stays with its cache, so
//! that no destructor runs after the cache is gone.

use crossbeam_epoch::{self as epoch, Collector, LocalHandle};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, LazyLock, Mutex};

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

/// Pins the calling thread.
#[inline]
pub(crate) fn pin() -> Guard {
    Guard { _pinned: pin_here() }
}

/// [`pin`], with a SeqCst fence: crossbeam's own is not one in every case.
#[inline]
pub(crate) fn pin_fenced() -> Guard {
    fence(Ordering::SeqCst);
    pin()
}

/// [`pin`], unless that may take longer.
#[inline]
pub(crate) fn pin_first() -> Option<Guard> {
    Some(pin())
}

/// A guard for a caller who needs none: here, it is one.
///
/// # Safety
/// As in `epoch`.
pub(crate) unsafe fn alone() -> Guard {
    pin()
}

/// As in `epoch`, where it frees what the parent's other threads held; crossbeam's participants cannot be given back, so what
/// they pinned at the fork stays allocated in the child.
///
/// # Safety
/// As in `epoch`.
pub(crate) unsafe fn fork_child() {}

static FREE: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

struct Index(usize);

impl Index {
    fn new() -> Self {
        let mut free = FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let next = free.1;
        Self(free.0.pop().unwrap_or_else(|| {
            free.1 += 1;
            next
        }))
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        CACHED.set(usize::MAX);
        FREE.lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .0
            .push(self.0);
    }
}

thread_local! {
    static CACHED: Cell<usize> = const { Cell::new(usize::MAX) };
    static INDEX: Index = Index::new();
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

/// Marks all that was unlinked so far.
#[derive(Debug, Clone)]
pub(crate) struct Seal(Arc<AtomicBool>);

/// See [`Seal`].
pub(crate) fn seal() -> Seal {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    let guard = pin_here();
    // Release pairs with the Acquire in `passed`: all guards older than the seal ended before.
    guard.defer(move || set.store(true, Ordering::Release));
    guard.flush();
    Seal(flag)
}

/// Answers for any number of seals whether readers are past them.
pub(crate) struct Horizon;

impl Horizon {
    pub(crate) fn now() -> Self {
        // A pin and a flush give crossbeam the occasion to collect, which runs the deferred functions.
        pin_here().flush();
        Self
    }

    pub(crate) fn passed(&self, seal: &Seal) -> bool {
        seal.0.load(Ordering::Acquire)
    }
}

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
            let guard = pin();
            self.0.send(guard.thread_index()).unwrap();
            self.1.recv().unwrap();
        }
    }

    #[test]
    fn no_two_living_threads_have_the_same_index() {
        let ((tell, told), (go, wait)) = (sync_channel(0), sync_channel(0));
        let one = std::thread::spawn(move || {
            LATE.with_borrow_mut(|late| *late = Some(Late(tell, wait)));
            pin().thread_index();
        });
        let index = told.recv().unwrap();
        let other = std::thread::spawn(|| pin().thread_index()).join().unwrap();
        go.send(()).unwrap();
        one.join().unwrap();
        assert_ne!(index, other);
    }
}
