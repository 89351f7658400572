//! A fork in a program with many threads: the child has only the thread that forked, and the state
//! that the other threads left.

use hotset::{Cache, Policy};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

/// Runs `child` in a child process, and returns its exit status: 0 if it did not panic.
fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the child takes no lock that another thread of this process may hold: glibc's
    // allocator is usable after a fork, nothing is printed, and `_exit` runs no handlers.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "no process");
    if pid == 0 {
        let ok = catch_unwind(AssertUnwindSafe(child)).is_ok();
        // SAFETY: ends the process, whatever its state.
        unsafe { libc::_exit(i32::from(!ok)) };
    }
    let mut status = -1;
    // SAFETY: the child is the one from above, and `status` may be written.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "the child was killed: {status}");
    libc::WEXITSTATUS(status)
}

/// The child must not use a cache that other threads used: its state is arbitrary. The child may
/// use other caches, and build new ones; the parent's caches keep working.
#[test]
fn forked_child_uses_caches_of_its_thread() {
    let (over, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    let shared: Cache<u64, Box<u64>> = Cache::new(200);
    let own: Cache<u64, Box<u64>> = Cache::new(200);
    let exercise = |cache: &Cache<u64, Box<u64>>| {
        for key in 0..3000 {
            cache.insert(key, Box::new(key));
            let found = cache.get_or_insert_with(key / 2, || Box::new(key / 2));
            assert_eq!(*found, key / 2);
            cache.remove(&(key / 3));
        }
        cache.run_pending();
        cache.validate();
        assert!(cache.len() <= 200);
    };
    thread::scope(|scope| {
        for from in 0..3 {
            let (over, turns, shared) = (&over, &turns, &shared);
            scope.spawn(move || {
                let mut key = from;
                while !over.load(Relaxed) {
                    key = (key + 7) % 500;
                    shared.insert(key, Box::new(key));
                    shared.get(&(key / 2));
                    shared.get_or_insert_with(key + 1, || Box::new(key + 1));
                    turns.fetch_add(1, Relaxed);
                }
            });
        }
        for _ in 0..20 {
            exercise(&own);
            let seen = turns.load(Relaxed);
            while turns.load(Relaxed) < seen + 300 {
                thread::yield_now();
            }
            let status = fork(|| {
                exercise(&own);
                exercise(&Cache::new(200));
                let other = Cache::builder().max_entries(200).policy(Policy::Lru).build().unwrap();
                exercise(&other);
                drop(other);
            });
            assert_eq!(status, 0, "the child's caches work");
        }
        over.store(true, Relaxed);
    });
    exercise(&own);
    shared.run_pending();
    shared.validate();
}
