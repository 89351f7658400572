//! Deadlock detection: finds wait cycles of loaders, which would wait forever.
//!
//! The wait graph has an edge from each blocked thread, and from the futures that it polls, to the
//! leader of the load it waits for ([`WaitEdge`]). Before a thread blocks, it follows the edges
//! from that leader. If they lead back to an actor whose next step this thread takes, it returns
//! [`Reentrant`] instead of waiting.
//!
//! Check and registration are one critical section of the graph's mutex, so of the threads that
//! would close a cycle, the last one sees it. Waiting tasks have no edges: they may do something
//! else while they wait, so a cycle through one is not certain to be a deadlock. Each generation of
//! forked processes has a graph of its own.

use crate::prim::sync::{Ordering, thread_address};
use std::iter;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The error of a wait that would last forever. See
/// [`LoadError::Reentrant`](crate::LoadError::Reentrant).
#[derive(Debug)]
pub(crate) struct Reentrant;

/// A thread (an even number) or a future that a task polls (an odd number) that leads a load, or
/// waits for one. Unique among those that do so at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActorId(usize);

impl ActorId {
    /// The id of no actor.
    pub(super) const NONE: Self = Self(0);

    /// Returns the id of the calling thread.
    #[inline]
    pub(crate) fn this_thread() -> Self {
        Self(thread_address())
    }

    /// Returns the actors whose next step this thread takes: itself, and the futures whose polls it
    /// is inside of.
    fn all_current() -> Vec<Self> {
        #[cfg(feature = "async")]
        let polled = polls::current_polls();
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
        /// The loading futures whose polls this thread is inside of, outermost first.
        static CURRENT_POLLS: RefCell<Vec<ActorId>> = const { RefCell::new(Vec::new()) };
    }

    /// Returns the loading futures whose polls this thread is inside of.
    pub(super) fn current_polls() -> Vec<ActorId> {
        // A thread past its thread-local destructors has no list: then wait cycles are not found.
        CURRENT_POLLS
            .try_with(|polled| polled.borrow().clone())
            .unwrap_or_default()
    }

    impl ActorId {
        /// Returns the id of a new future.
        pub(crate) fn new_future() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(1);
            Self(NEXT.fetch_add(2, Ordering::Relaxed))
        }

        /// Records that this thread is inside a poll of this future, until the guard is dropped.
        pub(crate) fn enter_poll(self) -> PollGuard {
            let known = CURRENT_POLLS.try_with(|polled| polled.borrow_mut().push(self)).is_ok();
            PollGuard(known, PhantomData)
        }
    }

    /// A poll of a loading future in progress. Not `Send`: it belongs to the thread. See
    /// [`ActorId::enter_poll`].
    pub(crate) struct PollGuard(bool, PhantomData<*const ()>);

    impl Drop for PollGuard {
        fn drop(&mut self) {
            if self.0 {
                let _ = CURRENT_POLLS.try_with(|polled| polled.borrow_mut().pop());
            }
        }
    }
}

/// The wait graph of one process.
struct Graph {
    waits: Mutex<Vec<WaitEdge>>,
    /// The graph of a child of a fork. Only processes of that depth allocate and use it, so a fork
    /// never finds it half made.
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

/// Number of forks between the first process and this one.
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// In the child of a fork, starts a new graph, without edges. The parent's may be locked forever,
/// by a thread that the fork left behind.
pub(crate) fn fork_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// An edge of the wait graph: `waiter` takes no step before `leader` completes a load.
struct WaitEdge {
    /// The blocked thread.
    thread: ActorId,
    /// That thread, or a future whose poll it is inside of.
    waiter: ActorId,
    leader: ActorId,
    /// The address of the flight's `wait_state`.
    flight: usize,
}

/// Locks the wait graph of this process.
fn lock_wait_graph() -> MutexGuard<'static, Vec<WaitEdge>> {
    let own = (0..FORKS.load(Ordering::Relaxed)).fold(&WAIT_GRAPH, |graph, _| {
        graph.child.get_or_init(|| Box::new(Graph::new()))
    });
    own.waits.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether `leader` waits, directly or over other actors, for any of `current`.
fn would_deadlock(edges: &[WaitEdge], leader: ActorId, current: &[ActorId]) -> bool {
    // Each actor waits for at most one other, so the edges are a path. It has no cycle, since no
    // registered wait closes one.
    let mut at = leader;
    loop {
        if current.contains(&at) {
            return true;
        }
        match edges.iter().find(|edge| edge.waiter == at) {
            Some(edge) => at = edge.leader,
            None => return false,
        }
    }
}

/// Whether a flight's waiters have stopped waiting, though they may not have woken up yet. Accessed
/// only under `WAIT_GRAPH`.
pub(super) struct WaitState(AtomicBool);

impl WaitState {
    /// Returns the state of a flight that is not completed.
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Removes the edges of the flight's waiters, just before it is completed.
    ///
    /// Otherwise its leader could take a waiter that has not woken up yet for one that waits for
    /// the leader's next step.
    pub(super) fn end_waits(&self) {
        let mut edges = lock_wait_graph();
        self.0.store(true, Ordering::Relaxed);
        edges.retain(|edge| edge.flight != ptr::from_ref(self).addr());
    }

    /// Returns an error if a wait for `leader` by this thread's actors would last forever, as far
    /// as blocked threads show.
    #[cfg(feature = "async")]
    pub(super) fn check_deadlock(&self, leader: ActorId) -> Result<(), Reentrant> {
        let current = ActorId::all_current();
        let edges = lock_wait_graph();
        if !self.0.load(Ordering::Relaxed) && would_deadlock(&edges, leader, &current) {
            return Err(Reentrant);
        }
        Ok(())
    }
}

/// The registration of a waiting thread. Dropped, it removes the thread's edges.
pub(super) struct WaitRegistration(ActorId);

impl WaitRegistration {
    /// Registers that this thread waits for `leader`. Returns an error if `leader`, directly or
    /// over others, waits for this thread.
    pub(super) fn register(leader: ActorId, wait_state: &WaitState) -> Result<Self, Reentrant> {
        let (thread, current) = (ActorId::this_thread(), ActorId::all_current());
        let mut edges = lock_wait_graph();
        // The flight is completed, or is about to be: no edge is needed.
        if wait_state.0.load(Ordering::Relaxed) {
            return Ok(Self(thread));
        }
        // Checked and registered under one lock: of two threads that would close a cycle, the
        // second sees the first.
        if would_deadlock(&edges, leader, &current) {
            return Err(Reentrant);
        }
        let flight = ptr::from_ref(wait_state).addr();
        // An edge for each actor that is blocked with this thread.
        edges.extend(current.into_iter().map(|waiter| WaitEdge {
            thread,
            waiter,
            leader,
            flight,
        }));
        Ok(Self(thread))
    }
}

impl Drop for WaitRegistration {
    fn drop(&mut self) {
        lock_wait_graph().retain(|edge| edge.thread != self.0);
    }
}
