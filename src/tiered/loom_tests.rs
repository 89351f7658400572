//! Callers that wait for other processes' loads and for permits, the threads of the pool, and what
//! they hand to tasks, under loom. A lost wake-up shows as a deadlock.
//!
//! No time passes in a model: a timer is due from the start, or never.

use super::pool::{Handover, Pool};
use super::waiters::{LoadLimit, Waiters};
use crate::prim::block_on::{ThreadWaker, block_on};
use crate::prim::sync::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use loom::thread;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

const KEY: &[u8] = b"tea";
const DUE: u64 = 0;
const NEVER: u64 = u64::MAX;

type Jobs = Pool<usize>;

#[test]
fn loom_tiered_task_sees_change_or_is_woken() {
    loom::model(|| {
        let shared = Arc::new((Waiters::default(), Jobs::default(), AtomicBool::new(false)));
        let tasks = shared.clone();
        let task = thread::spawn(move || {
            let (waiters, pool, changed) = &*tasks;
            let wait = waiters.wait_async(pool, KEY, NEVER);
            // As a read that finds another process's lease.
            if !changed.load(Relaxed) {
                block_on(wait);
                assert!(changed.load(Relaxed), "woken by the change");
            }
        });
        let (waiters, _, changed) = &*shared;
        changed.store(true, Relaxed);
        waiters.wake(KEY);
        task.join().unwrap();
    });
}

#[test]
fn loom_tiered_thread_and_task_get_the_permit() {
    loom::model(|| {
        let limit = Arc::new(LoadLimit::new(1));
        let permit = limit.begin();
        let (threads, tasks) = (limit.clone(), limit.clone());
        let thread = thread::spawn(move || drop(threads.begin()));
        let task = thread::spawn(move || drop(block_on(tasks.begin_async())));
        drop(permit);
        thread.join().unwrap();
        task.join().unwrap();
        drop(limit.begin());
    });
}

#[test]
fn loom_tiered_dropped_task_leaves_the_permit() {
    loom::model(|| {
        let limit = Arc::new(LoadLimit::new(1));
        let permit = limit.begin();
        let (dropped, others) = (limit.clone(), limit.clone());
        let dropped = thread::spawn(move || {
            let mut begin = pin!(dropped.begin_async());
            // Woken or not, with or without the permit.
            _ = begin.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        });
        let task = thread::spawn(move || drop(block_on(others.begin_async())));
        drop(permit);
        dropped.join().unwrap();
        task.join().unwrap();
        drop(limit.begin());
    });
}

#[test]
fn loom_tiered_pool_runs_jobs_and_earlier_timers() {
    loom::model(|| {
        let pool = Arc::new(Jobs::default());
        let sum = Arc::new(AtomicUsize::new(0));
        let never = ThreadWaker::new();
        pool.set_timer(&mut None, NEVER, Waker::from(never.clone()));
        let (threads, jobs) = (pool.clone(), sum.clone());
        let work = move || threads.work(|job| _ = jobs.fetch_add(job, Relaxed));
        let thread = thread::spawn(work);
        let woken = ThreadWaker::new();
        pool.set_timer(&mut None, DUE, Waker::from(woken.clone()));
        woken.wait();
        pool.add(7);
        pool.stop();
        thread.join().unwrap();
        assert_eq!(sum.load(Relaxed), 7, "jobs are run before the end");
        assert_eq!(never.wakes(), 0);
    });
}

#[test]
fn loom_tiered_pool_grows_for_a_job_behind_a_busy_thread() {
    loom::model(|| {
        let pool = Arc::new(Jobs::default());
        let (second, done) = (ThreadWaker::new(), ThreadWaker::new());
        let start = || {
            let (pool, second, done) = (pool.clone(), second.clone(), done.clone());
            thread::spawn(move || {
                pool.work(|job| match job {
                    1 => {
                        // It waits for the next job.
                        second.wait();
                        Waker::from(done.clone()).wake();
                    }
                    2 => Waker::from(second.clone()).wake(),
                    _ => {}
                });
            })
        };
        assert!(pool.add(0), "there is no thread");
        // The first thread may be idle, or not.
        let mut threads = vec![start()];
        threads.extend(pool.add(1).then(start));
        threads.extend(pool.add(2).then(start));
        done.wait();
        pool.stop();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Counts how often it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn loom_tiered_handed_value_arrives() {
    loom::model(|| {
        let handover = Handover::default();
        let sender = handover.clone();
        let thread = thread::spawn(move || sender.send(7));
        assert_eq!(block_on(handover.receive()), 7);
        thread.join().unwrap();
    });
}

#[test]
fn loom_tiered_value_for_a_dropped_task_is_dropped() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let handover = Handover::default();
        let (sender, value) = (handover.clone(), Counted(drops.clone()));
        let thread = thread::spawn(move || sender.send(value));
        {
            let mut receive = pin!(handover.receive());
            _ = receive.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        thread.join().unwrap();
        assert_eq!(drops.load(Relaxed), 1);
    });
}
