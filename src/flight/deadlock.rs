//! Who leads loads and who waits for them, so that a ring of loaders, which would wait for ever, is told from a slow one.

use super::Reentrant;
use crate::prim::sync::{Ordering, thread_address};
use std::iter;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Who leads a flight, or waits for one: a thread (an even number) or the future that a task polls (an odd one). No two
/// that do so at the same time are the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActorId(usize);

impl ActorId {
    pub(super) const NONE: Self = Self(0);

    #[inline]
    pub(crate) fn this_thread() -> Self {
        Self(thread_address())
    }

    /// All whose next step this thread is taking: itself, and the futures whose polls it is inside of.
    fn all_here() -> Vec<Self> {
        #[cfg(feature = "async")]
        let polled = polls::polled_here();
        #[cfg(not(feature = "async"))]
        let polled = [];
        iter::once(Self::this_thread()).chain(polled).collect()
    }
}

#[cfg(feature = "async")]
mod polls {
    use super::ActorId;
    use std::cell::RefCell;
    use std::marker::PhantomData;
    use std::sync::atomic::{AtomicUsize, Ordering};

    thread_local! {
        /// The futures that lead loads whose polls this thread is inside of, outermost first.
        static POLLED: RefCell<Vec<ActorId>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn polled_here() -> Vec<ActorId> {
        // A thread that is ending no longer knows; then rings are not found.
        POLLED.try_with(|polled| polled.borrow().clone()).unwrap_or_default()
    }

    impl ActorId {
        /// A future, which is no thread's.
        pub(crate) fn future() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(1);
            Self(NEXT.fetch_add(2, Ordering::Relaxed))
        }

        /// Until the result is dropped, what this thread does is done by this future.
        pub(crate) fn polled(self) -> Polled {
            let known = POLLED.try_with(|polled| polled.borrow_mut().push(self)).is_ok();
            Polled(known, PhantomData)
        }
    }

    /// See [`ActorId::polled`]. Not `Send`: it belongs to the thread.
    pub(crate) struct Polled(bool, PhantomData<*const ()>);

    impl Drop for Polled {
        fn drop(&mut self) {
            if self.0 {
                let _ = POLLED.try_with(|polled| polled.borrow_mut().pop());
            }
        }
    }
}

/// The threads that wait for loads, in one process.
struct Graph {
    waits: Mutex<Vec<WaitEdge>>,
    /// The one of a child of a fork. Only processes that deep make and use it, so a fork never finds it half made.
    child: OnceLock<Box<Self>>,
}

impl Graph {
    const fn new() -> Self {
        Self {
            waits: Mutex::new(Vec::new()),
            child: OnceLock::new(),
        }
    }
}

static WAIT_GRAPH: Graph = Graph::new();

/// How many forks lie between the process that began and this one.
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// In the child of a fork: no thread waits. The parent's graph may be locked by a thread that the fork left behind, for ever.
pub(crate) fn fork_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

struct WaitEdge {
    /// The thread that is blocked.
    thread: ActorId,
    /// It, or a future whose poll it is inside of, and which cannot go on either.
    waiter: ActorId,
    leader: ActorId,
    /// The address of the flight's `wait_state`.
    flight: usize,
}

fn waiting() -> MutexGuard<'static, Vec<WaitEdge>> {
    let own = (0..FORKS.load(Ordering::Relaxed)).fold(&WAIT_GRAPH, |graph, _| {
        graph.child.get_or_init(|| Box::new(Graph::new()))
    });
    own.waits.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `leader` waits, directly or not, for any of those `here`.
fn would_deadlock(waiting: &[WaitEdge], leader: ActorId, here: &[ActorId]) -> bool {
    let mut at = leader;
    loop {
        if here.contains(&at) {
            return true;
        }
        match waiting.iter().find(|wait| wait.waiter == at) {
            Some(wait) => at = wait.leader,
            None => return false,
        }
    }
}

/// Whether a flight's waiters wait no more, though they may not have woken up yet. Touched only under `WAIT_GRAPH`.
pub(super) struct WaitState(AtomicBool);

impl WaitState {
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The flight is about to land: who waited for it waits for nobody now. Else its leader could take a waiter that has
    /// yet to wake up for one that waits for the leader's next steps.
    pub(super) fn end(&self) {
        let mut waiting = waiting();
        self.0.store(true, Ordering::Relaxed);
        waiting.retain(|wait| wait.flight != ptr::from_ref(self).addr());
    }

    /// An error if who waits here for `leader` would wait for ever, as far as blocked threads tell.
    #[cfg(feature = "async")]
    pub(super) fn check(&self, leader: ActorId) -> Result<(), Reentrant> {
        let here = ActorId::all_here();
        let waiting = waiting();
        if !self.0.load(Ordering::Relaxed) && would_deadlock(&waiting, leader, &here) {
            return Err(Reentrant);
        }
        Ok(())
    }
}

/// This thread waits.
pub(super) struct Waiting(ActorId);

impl Waiting {
    /// Registers that this thread waits for `leader`; an error if that one, directly or not, waits for this thread.
    pub(super) fn begin(leader: ActorId, wait_state: &WaitState) -> Result<Self, Reentrant> {
        let (thread, here) = (ActorId::this_thread(), ActorId::all_here());
        let mut waiting = waiting();
        if wait_state.0.load(Ordering::Relaxed) {
            return Ok(Self(thread));
        }
        if would_deadlock(&waiting, leader, &here) {
            return Err(Reentrant);
        }
        let flight = ptr::from_ref(wait_state).addr();
        waiting.extend(here.into_iter().map(|waiter| WaitEdge {
            thread,
            waiter,
            leader,
            flight,
        }));
        Ok(Self(thread))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        waiting().retain(|wait| wait.thread != self.0);
    }
}
