//! The threads that talk to servers for tasks, and wake them when their time has come.

use super::clock::now;
use super::session::{Request, Session, lock};
use crate::prim::panics::wake_all;
use crate::prim::sync::{Condvar, Mutex};
use crate::tier2::{Action, Operation};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// The most threads: as many requests are on their way at a time.
const THREADS: usize = 8;

type Job = Box<dyn FnOnce(&Session) + Send>;

/// An instant, and a number that distinguishes timers of the same instant.
pub(super) type TimerId = (u64, u64);

/// What the threads have to do.
pub(super) struct Pool<J = Job> {
    state: Mutex<PoolState<J>>,
    added: Condvar,
}

struct PoolState<J> {
    jobs: VecDeque<J>,
    timers: BTreeMap<TimerId, Waker>,
    last_timer: u64,
    /// The number of threads that wait for a job.
    idle: usize,
    threads: usize,
    stopped: bool,
}

impl<J> Default for Pool<J> {
    fn default() -> Self {
        Self {
            state: Mutex::new(PoolState {
                jobs: VecDeque::new(),
                timers: BTreeMap::new(),
                last_timer: 0,
                idle: 0,
                threads: 0,
                stopped: false,
            }),
            added: Condvar::new(),
        }
    }
}

impl<J> PoolState<J> {
    /// Takes the wakers of the timers whose time has come.
    fn due(&mut self) -> BTreeMap<TimerId, Waker> {
        let later = self.timers.split_off(&(now() + 1, 0));
        mem::replace(&mut self.timers, later)
    }
}

/// Wakes the tasks whose time has come. Their panics have no caller to continue in.
fn wake_due(due: BTreeMap<TimerId, Waker>) {
    _ = catch_unwind(AssertUnwindSafe(|| wake_all(due.into_values())));
}

impl<J> Pool<J> {
    /// Runs jobs, by `run`, until the pool is stopped and there are none.
    pub(super) fn work(&self, run: impl Fn(J)) {
        let mut state = lock(&self.state);
        loop {
            let due = state.due();
            let job = if due.is_empty() { state.jobs.pop_front() } else { None };
            if due.is_empty() && job.is_none() {
                if state.stopped {
                    return;
                }
                state.idle += 1;
                state = match state.timers.first_key_value() {
                    Some((&(until, _), _)) => {
                        let left = Duration::from_nanos(until.saturating_sub(now()));
                        let waited = self.added.wait_timeout(state, left);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => self.added.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
                state.idle -= 1;
                continue;
            }
            drop(state);
            // Wakers are code of the caller's, and so may the transport be.
            wake_due(due);
            if let Some(job) = job {
                run(job);
            }
            state = lock(&self.state);
        }
    }

    /// Wakes the tasks whose time has come, in a thread that is not the pool's, if that has none.
    pub(super) fn stand_in(&self) {
        let mut state = lock(&self.state);
        if state.threads == 0 && !state.timers.is_empty() {
            let due = state.due();
            drop(state);
            wake_due(due);
        }
    }

    /// Has the threads end once there are no jobs.
    pub(super) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.added.notify_all();
    }

    /// Adds a job. Returns whether the caller has to start a thread for it, since all are busy.
    pub(super) fn add(&self, job: J) -> bool {
        let mut state = lock(&self.state);
        state.jobs.push_back(job);
        let grows = state.idle < state.jobs.len() && state.threads < THREADS;
        state.threads += usize::from(grows);
        drop(state);
        self.added.notify_one();
        grows
    }

    /// Learns that the thread could not be started. Returns the jobs if there is none at all.
    fn not_started(&self) -> VecDeque<J> {
        let mut state = lock(&self.state);
        state.threads -= 1;
        if state.threads == 0 {
            mem::take(&mut state.jobs)
        } else {
            VecDeque::new()
        }
    }

    /// Wakes a task then: replaces the timer that it may have.
    pub(super) fn set_timer(&self, timer: &mut Option<TimerId>, until: u64, waker: Waker) {
        let mut state = lock(&self.state);
        let at = *timer.get_or_insert_with(|| {
            state.last_timer += 1;
            (until, state.last_timer)
        });
        let old = state.timers.insert(at, waker);
        let is_first = state.timers.first_key_value().is_some_and(|(first, _)| *first == at);
        drop(state);
        drop(old);
        if is_first {
            self.added.notify_all();
        }
    }

    pub(super) fn clear_timer(&self, timer: TimerId) {
        let waker = lock(&self.state).timers.remove(&timer);
        drop(waker);
    }
}

impl Session {
    /// Has a thread of the pool run this: another one where all are busy.
    fn spawn(self: &Arc<Self>, job: Job) {
        if !self.pool.add(job) || self.start_thread(|session| session.work()).is_ok() {
            return;
        }
        // The system starts no thread at all: the caller's own does it.
        self.pool.not_started().into_iter().for_each(|job| self.run(job));
    }

    fn work(&self) {
        self.pool.work(|job| self.run(job));
    }

    /// Runs a job, which reports its panic by itself.
    fn run(&self, job: Job) {
        _ = catch_unwind(AssertUnwindSafe(|| job(self)));
    }

    /// Performs a request's command on a thread of the pool, and returns the request. If the future
    /// is dropped before that, the operation is given up behind the command.
    pub(super) async fn command_async(self: &Arc<Self>, request: Request) -> Request {
        let handover = Handover::default();
        let sender = handover.clone();
        let mut owned = Owned {
            session: self.clone(),
            request: Some(request),
        };
        self.spawn(Box::new(move |session| {
            let request = owned.request.as_mut().expect("just made");
            let performed = catch_unwind(AssertUnwindSafe(|| session.command(request)));
            sender.send((owned, performed.err()));
        }));
        let (mut owned, panic): (Owned, Option<Box<dyn Any + Send>>) = handover.receive().await;
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        owned.request.take().expect("just made")
    }

    /// Connects to a server on a thread of the pool.
    pub(super) async fn probe_async(self: &Arc<Self>, server: u32) {
        let handover = Handover::default();
        let sender = handover.clone();
        self.spawn(Box::new(move |session| {
            let probed = catch_unwind(AssertUnwindSafe(|| session.probe(server)));
            sender.send(probed.err());
        }));
        if let Some(panic) = handover.receive().await {
            resume_unwind(panic);
        }
    }

    /// Gives up an operation whose caller is gone: ends its lease, so that other callers load.
    pub(super) fn abandon(self: &Arc<Self>, mut operation: Operation) {
        if !self.is_own() {
            // In the child of a fork, a thread of the parent may hold the lock of the tier.
            mem::forget(operation);
            return;
        }
        if operation.give_up(now()) != Action::Release {
            // Dropped, a write counts as not confirmed.
            return;
        }
        let mut request = Request::new(operation);
        self.spawn(Box::new(move |session| {
            while request.operation.action() == Action::Release {
                session.command(&mut request);
            }
            session.waiters.wake(request.operation.key());
        }));
    }
}

/// A request whose operation is given up if no thread takes it.
struct Owned {
    session: Arc<Session>,
    request: Option<Request>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.session.abandon(request.operation);
        }
    }
}

/// What a thread hands to a task.
pub(super) struct Handover<T>(Arc<Mutex<Handed<T>>>);

enum Handed<T> {
    Nothing(Option<Waker>),
    Value(T),
    /// The task is gone, or has the value.
    Over,
}

impl<T> Clone for Handover<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Handover<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Handed::Nothing(None))))
    }
}

impl<T> Handover<T> {
    /// Hands the value over; drops it if the task is gone.
    pub(super) fn send(&self, value: T) {
        let mut state = lock(&self.0);
        if let Handed::Nothing(waker) = &mut *state {
            let waker = waker.take();
            *state = Handed::Value(value);
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        } else {
            // The value is dropped outside the lock.
            drop(state);
            drop(value);
        }
    }

    pub(super) async fn receive(self) -> T {
        // Dropped with the future.
        let receiver = Receiver(self);
        poll_fn(|cx| {
            let new = cx.waker().clone();
            let mut state = lock(&receiver.0.0);
            match &mut *state {
                Handed::Nothing(waker) => {
                    let old = waker.replace(new);
                    drop(state);
                    drop(old);
                    Poll::Pending
                }
                _ => match mem::replace(&mut *state, Handed::Over) {
                    Handed::Value(value) => Poll::Ready(value),
                    _ => unreachable!("polled after its end"),
                },
            }
        })
        .await
    }
}

struct Receiver<T>(Handover<T>);

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let old = mem::replace(&mut *lock(&self.0.0), Handed::Over);
        // Outside the lock.
        drop(old);
    }
}
