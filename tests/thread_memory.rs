//! Memory of threads that use a cache, in bytes. (One test, in a file of its own: it counts every
//! allocation. crossbeam-epoch has memory of its own for each thread.)
#![cfg(not(feature = "crossbeam"))]

use hotset::Cache;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Barrier;
use std::sync::atomic::{AtomicIsize, Ordering::SeqCst};

static BYTES: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: it is the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as isize, SeqCst);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, SeqCst);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `threads` at the same time, and waits until they have ended.
fn together(threads: usize, run: impl Fn() + Sync) {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let each = || {
            run();
            barrier.wait();
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(each)).collect();
        // A scope does not wait for the destructors of its threads' locals. Without `join`, the
        // slots of these threads would still be taken, and the next threads would get higher ones,
        // for which caches allocate more.
        running.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn thread_memory_is_small_and_returned() {
    let caches: Vec<Cache<u64, u64>> = (0..100).map(|_| Cache::new(100)).collect();
    // Once before, for memory of the process and of the threads themselves.
    let warm: Cache<u64, u64> = Cache::new(100);
    together(64, || _ = warm.get(&1));
    let before = BYTES.load(SeqCst);
    together(16, || caches.iter().for_each(|cache| _ = cache.get(&1)));
    let each = (BYTES.load(SeqCst) - before) / 100;
    println!("16 threads that read once: {each} bytes more per cache");
    assert!(each <= 2600, "{each} bytes");

    let large: Cache<u64, u64> = Cache::new(10_000);
    let fill = |from: u64| (from..from + 20_000).for_each(|key| large.insert(key, key));
    fill(0);
    let before = BYTES.load(SeqCst);
    together(64, || (0..1000).for_each(|key| large.insert(key, key)));
    let peak = BYTES.load(SeqCst) - before;
    fill(0);
    large.run_pending();
    let after = BYTES.load(SeqCst) - before;
    println!("64 threads that wrote: {peak} bytes more, {after} after others wrote");
    assert!(after < peak / 3, "{after} bytes of {peak}");
}
