//! Threads that end beside running ones, and readers that stall.

use crate::POLICIES;
use hotset::{Cache, Policy};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;

/// A counted value, with its contents on the heap.
struct Value(Box<u64>, Arc<AtomicIsize>);

impl Value {
    fn new(value: u64, live: &Arc<AtomicIsize>) -> Self {
        live.fetch_add(1, Relaxed);
        Self(Box::new(value), live.clone())
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        Self::new(*self.0, &self.1)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        *self.0 = u64::MAX;
        self.1.fetch_sub(1, Relaxed);
    }
}

type Shared = Cache<u64, Value>;

fn build(policy: Policy) -> Shared {
    Cache::builder().max_entries(100).policy(policy).build().unwrap()
}

fn use_it(cache: &Shared, live: &Arc<AtomicIsize>, from: u64) {
    for key in from..from + 40 {
        let key = key % 300;
        cache.insert(key, Value::new(key, live));
        if let Some(found) = cache.get(&(key / 2)) {
            assert_eq!(*found.0, key / 2);
        }
        if key % 3 == 0 {
            cache.remove(&(key / 3));
        }
        assert_eq!(
            *cache.get_or_insert_with(key + 1, || Value::new(key + 1, live)).0,
            key + 1
        );
        let reader = cache.reader();
        assert!(reader.get(&key).is_none_or(|found| *found.0 == key));
    }
}

/// Waits until the removed entries have been freed, which readers of other tests may delay.
fn settle(cache: &Shared, live: &AtomicIsize) {
    loop {
        cache.run_pending();
        if live.load(Relaxed) == cache.len() as isize {
            return cache.validate();
        }
        thread::yield_now();
    }
}

/// Uses the cache while the thread's thread-locals are destroyed.
struct Late(Shared, Arc<AtomicIsize>, u64);

impl Drop for Late {
    fn drop(&mut self) {
        use_it(&self.0, &self.1, self.2);
    }
}

thread_local! {
    // The thread-local that is initialized first is destroyed last.
    static BEFORE: RefCell<Option<Late>> = const { RefCell::new(None) };
    static AFTER: RefCell<Option<Late>> = const { RefCell::new(None) };
}

#[test]
fn thread_exit_beside_others_frees_its_values() {
    for policy in POLICIES {
        let live = Arc::new(AtomicIsize::new(0));
        let cache = build(policy);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut from = 0;
                while !over.load(Relaxed) {
                    use_it(&cache, &live, from);
                    from += 7;
                }
            });
            for generation in 0..60u64 {
                let late = |at| Late(cache.clone(), live.clone(), generation + at);
                let ending: Vec<_> = (0..4)
                    .map(|number| {
                        let (before, after, own) = (late(20), late(50), late(90));
                        thread::spawn(move || {
                            // Thread-locals of this test that are destroyed after the cache's own,
                            // before them, both, or neither.
                            if number & 1 != 0 {
                                BEFORE.set(Some(before));
                            }
                            drop(own);
                            if number & 2 != 0 {
                                AFTER.set(Some(after));
                            }
                        })
                    })
                    .collect();
                ending.into_iter().for_each(|thread| thread.join().unwrap());
            }
            over.store(true, Relaxed);
        });
        settle(&cache, &live);
        assert!(cache.len() <= 100);
        drop(cache);
        assert_eq!(live.load(Relaxed), 0, "{policy:?}");
    }
}

/// Changes that a thread has only recorded when it panics and ends are not lost.
#[test]
fn thread_that_panics_leaves_its_changes() {
    for policy in POLICIES {
        let live = Arc::new(AtomicIsize::new(0));
        let cache = build(policy);
        for key in 0..90 {
            let (cache, live) = (cache.clone(), live.clone());
            let died = thread::spawn(move || {
                cache.insert(key, Value::new(key, &live));
                let _reader = cache.reader();
                std::panic::resume_unwind(Box::new(()));
            });
            assert!(died.join().is_err());
        }
        settle(&cache, &live);
        assert_eq!((cache.len(), cache.iter().count()), (90, 90));
        drop(cache);
        assert_eq!(live.load(Relaxed), 0, "{policy:?}");
    }
}

/// A pinned reader keeps the values that it found and delays freeing, but no other call, and no
/// bound of the cache. Once it is dropped, all garbage is freed.
#[test]
fn stalled_reader_delays_only_freeing() {
    for policy in POLICIES {
        let live = Arc::new(AtomicIsize::new(0));
        let cache = build(policy);
        cache.insert(7, Value::new(7, &live));
        cache.run_pending();
        let (stalled, is_stalled) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let reader = cache.reader();
                let seen = reader.get(&7).expect("it is there");
                stalled.send(()).unwrap();
                let go_on = may_go_on;
                go_on.recv().unwrap();
                assert_eq!(*seen.0, 7, "still readable");
            });
            is_stalled.recv().unwrap();
            cache.remove(&7);
            for key in 1000..21_000 {
                cache.insert(key, Value::new(key, &live));
                assert!(cache.iter().take(1).count() <= 1);
            }
            cache.run_pending();
            cache.validate();
            assert!(cache.len() <= 100);
            assert_eq!(live.load(Relaxed), 20_001, "nothing is freed under a reader");
            go_on.send(()).unwrap();
        });
        settle(&cache, &live);
        // Later calls free new garbage as it is retired, although the old garbage was delayed.
        for key in 0..2000 {
            cache.insert(key, Value::new(key, &live));
        }
        settle(&cache, &live);
        drop(cache);
        assert_eq!(live.load(Relaxed), 0, "{policy:?}");
    }
}
