//! Tasks that wait.

use super::{LoadLimit, LoadPermit, Waiters};
use crate::tiered::clock::now;
use crate::tiered::pool::{Pool, TimerId};
use crate::tiered::session::lock;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Wakers of tasks, each by the number that it was given.
#[derive(Default)]
pub(super) struct Wakers {
    all: BTreeMap<u64, Waker>,
    next: u64,
}

impl Wakers {
    /// Keeps the waker, which may have a number already. Returns the one that it replaces.
    fn keep(&mut self, number: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        let number = *number.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.all.insert(number, waker)
    }

    pub(super) fn take(&mut self) -> BTreeMap<u64, Waker> {
        mem::take(&mut self.all)
    }
}

impl Waiters {
    /// [`wait`](Self::wait) for a task.
    pub(in crate::tiered) fn wait_async<'w, J>(&'w self, pool: &'w Pool<J>, key: &'w [u8], until: u64) -> Wait<'w, J> {
        Wait {
            waiters: self,
            pool,
            key,
            until,
            before: lock(&self.shard(key).state).changes,
            number: None,
            timer: None,
        }
    }
}

/// A task that waits for a change of a key.
pub(in crate::tiered) struct Wait<'w, J> {
    waiters: &'w Waiters,
    pool: &'w Pool<J>,
    key: &'w [u8],
    until: u64,
    /// How many changes there had been.
    before: u64,
    number: Option<u64>,
    timer: Option<TimerId>,
}

impl<J> Future for Wait<'_, J> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if now() >= this.until {
            return Poll::Ready(());
        }
        // Wakers are cloned and dropped outside the locks: they are code of the caller's.
        let waker = cx.waker().clone();
        let mut state = lock(&this.waiters.shard(this.key).state);
        if state.changes != this.before {
            drop(state);
            return Poll::Ready(());
        }
        let old = state.tasks.keep(&mut this.number, waker);
        drop(state);
        drop(old);
        this.pool.set_timer(&mut this.timer, this.until, cx.waker().clone());
        Poll::Pending
    }
}

impl<J> Drop for Wait<'_, J> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = lock(&self.waiters.shard(self.key).state).tasks.all.remove(&number);
            drop(waker);
        }
        if let Some(timer) = self.timer {
            self.pool.clear_timer(timer);
        }
    }
}

/// Removes a waiting task of a [`LoadLimit`] when its future is dropped.
struct Waiting<'l> {
    limit: &'l LoadLimit,
    number: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = lock(&self.limit.state).tasks.all.remove(&number);
            drop(waker);
        }
    }
}

impl LoadLimit {
    /// [`begin`](Self::begin) for a task.
    pub(in crate::tiered) async fn begin_async(&self) -> LoadPermit<'_> {
        let mut waiting = Waiting {
            limit: self,
            number: None,
        };
        poll_fn(move |cx| {
            let waker = cx.waker().clone();
            let mut state = lock(&self.state);
            if state.free > 0 {
                state.free -= 1;
                drop(state);
                return Poll::Ready(LoadPermit(self));
            }
            let old = state.tasks.keep(&mut waiting.number, waker);
            drop(state);
            drop(old);
            Poll::Pending
        })
        .await
    }
}
