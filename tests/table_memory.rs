//! What the table costs: nothing before it is used, no allocation under the maintenance lock, and its memory returned when the
//! cache is cleared or its capacity lowered.

use hotset::{Cache, Policy};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of tables that are allocated. They are what is zeroed and a number of cache lines, with room to align them.
static TABLES: AtomicUsize = AtomicUsize::new(0);
/// The tests look at what the whole process allocates.
static ONE: Mutex<()> = Mutex::new(());

thread_local! {
    /// Called when this thread allocates a table.
    static HOOK: Cell<Option<fn()>> = const { Cell::new(None) };
}

fn one() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Counting;

fn is_table(layout: Layout) -> bool {
    layout.align() == 8 && layout.size() % 64 == 56 && layout.size() >= 128
}

// SAFETY: it is the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_table(layout) {
            TABLES.fetch_add(layout.size(), SeqCst);
            // Taken, so that what the hook allocates does not call it again.
            if let Ok(Some(hook)) = HOOK.try_with(Cell::take) {
                hook();
                HOOK.set(Some(hook));
            }
        }
        // SAFETY: as the caller says.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if is_table(layout) {
            // What is zeroed is not all that has such a layout.
            _ = TABLES.fetch_update(SeqCst, SeqCst, |bytes| bytes.checked_sub(layout.size()));
        }
        // SAFETY: as the caller says.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller says.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Resident bytes of this process, where the system tells.
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    // SAFETY: has no preconditions.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize
}

#[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
#[test]
fn empty_cache_has_no_resident_table() {
    let _one = one();
    for entries in [100_000, 1_000_000, 10_000_000, 1 << 26] {
        let before = resident();
        let cache: Cache<u64, u64> = Cache::new(entries);
        let more = resident().saturating_sub(before);
        assert!(more < 1 << 20, "{more} bytes for {entries} entries");
        assert_eq!(cache.get(&1), None);
        drop(cache);
    }
}

#[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
#[test]
fn cleared_cache_returns_its_resident_memory() {
    let _one = one();
    const ENTRIES: u64 = 1_000_000;
    let cache: Cache<u64, ()> = Cache::builder()
        .max_entries(4 * ENTRIES as usize)
        .policy(Policy::Fifo)
        .build()
        .unwrap();
    let table = 4 * ENTRIES as usize * 64 * 10 / 36;
    (0..ENTRIES).for_each(|key| cache.insert(key, ()));
    let full = resident();
    cache.clear();
    let less = full.saturating_sub(resident());
    assert!(less > table * 9 / 10, "{less} of {table} bytes were returned");
    (0..1000).for_each(|key| cache.insert(key, ()));
    cache.run_pending();
    cache.validate();
    assert_eq!(cache.len(), 1000);
}

thread_local! {
    static GROWING: Cell<Option<&'static Cache<u64, u64>>> = const { Cell::new(None) };
    static INSERTED: Cell<usize> = const { Cell::new(0) };
    static SEEN: Cell<usize> = const { Cell::new(0) };
}

#[test]
fn growth_allocates_outside_the_lock() {
    let _one = one();
    /// Under the lock this would find a stale length, or wait for itself.
    fn hook() {
        let cache = GROWING.get().unwrap();
        if cache.len() == INSERTED.get() {
            cache.run_pending();
            SEEN.set(SEEN.get() + 1);
        }
    }
    let cache: &Cache<u64, u64> = Box::leak(Box::new(Cache::new(usize::MAX)));
    GROWING.set(Some(cache));
    let before = TABLES.load(SeqCst);
    HOOK.set(Some(hook));
    let entries = if cfg!(miri) { 500 } else { 100_000 };
    for key in 0..entries {
        INSERTED.set(key as usize + 1);
        cache.insert(key, key);
    }
    HOOK.set(None);
    assert!(TABLES.load(SeqCst) > before);
    assert!(
        SEEN.get() >= if cfg!(miri) { 2 } else { 8 },
        "{} growths outside the lock",
        SEEN.get()
    );
    cache.run_pending();
    cache.validate();
    assert!((0..entries).all(|key| cache.get(&key) == Some(key)));
}

/// The bytes of the tables that `run` leaves allocated, less those before it.
fn tables(run: impl FnOnce()) -> isize {
    let before = TABLES.load(SeqCst) as isize;
    run();
    TABLES.load(SeqCst) as isize - before
}

#[test]
fn table_shrinks_when_capacity_is_lowered() {
    let _one = one();
    for policy in [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random] {
        let cache: Cache<u64, u64> = Cache::builder().max_entries(1_000_000).policy(policy).build().unwrap();
        (0..200_000).for_each(|key| cache.insert(key, key));
        let returned = -tables(|| cache.set_capacity(2_000));
        assert!(returned > 16_000_000, "{returned} bytes of 18 million");
        cache.validate();
        assert!((1..=2_000).contains(&cache.len()));
        assert!(
            cache
                .iter()
                .all(|(key, value)| key == value && cache.contains_key(&key))
        );
        // It grows again for a larger capacity.
        cache.set_capacity(100_000);
        (0..100_000).for_each(|key| cache.insert(key, key));
        cache.run_pending();
        cache.validate();
        assert_eq!(cache.len(), 100_000, "{policy:?}");
    }
}

#[test]
fn table_shrinks_when_cleared_or_emptied() {
    let _one = one();
    let cache: Cache<u64, u64> = Cache::new(usize::MAX);
    const LEAST: isize = 2 << 16; // what a table of 1,024 buckets may take
    for round in 0..3 {
        let grown = tables(|| (0..100_000).for_each(|key| cache.insert(key, key)));
        assert!(grown > 1_000_000);
        let left = match round {
            0 => grown + tables(|| cache.clear()),
            // By removals alone, without any call that mentions the table.
            1 => grown + tables(|| (0..100_000).for_each(|key| _ = cache.remove(&key))),
            _ => grown + tables(|| hotset::raw::retain(&cache, |key, _| *key < 10)),
        };
        cache.run_pending();
        cache.validate();
        assert!(
            left < if round == 0 { LEAST } else { grown / 4 },
            "{left} of {grown} bytes are left in round {round}"
        );
        cache.clear();
    }
}

#[test]
fn sizes_between_growing_and_shrinking_do_not_thrash() {
    let _one = one();
    let cache: Cache<u64, u64> = Cache::new(usize::MAX);
    (0..50_000).for_each(|key| cache.insert(key, key));
    cache.run_pending();
    thread_local! {
        static ALLOCATED: Cell<usize> = const { Cell::new(0) };
    }
    HOOK.set(Some(|| ALLOCATED.set(ALLOCATED.get() + 1)));
    for _ in 0..20 {
        (10_000..50_000).for_each(|key| _ = cache.remove(&key));
        (10_000..50_000).for_each(|key| cache.insert(key, key));
    }
    HOOK.set(None);
    assert_eq!(ALLOCATED.get(), 0);
}

#[test]
fn threads_insert_while_the_table_shrinks() {
    let _one = one();
    let cache: Cache<u64, u64> = Cache::new(usize::MAX);
    for round in 0..4u64 {
        (0..60_000).for_each(|key| cache.insert(1 << 40 | key, key));
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let cache = &cache;
                scope.spawn(move || {
                    for n in 0..20_000 {
                        let key = (round << 32) + thread * 20_000 + n;
                        cache.insert(key, key);
                        assert_eq!(cache.get(&key), Some(key));
                    }
                });
            }
            hotset::raw::retain(&cache, |key, _| key >> 40 == 0);
            cache.set_capacity(usize::MAX as u64);
        });
        cache.run_pending();
        cache.validate();
        // Without a bound nothing is evicted, whatever the table does.
        assert_eq!(cache.stats().evictions, 0);
        assert!((0..60_000).all(|n| cache.get(&((round << 32) + n)) == Some((round << 32) + n)));
        hotset::raw::retain(&cache, |key, _| key >> 32 == round);
    }
}

/// Prints what docs/explanation/verification.md quotes.
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
#[test]
#[ignore = "measures: run it alone, with --release --nocapture"]
fn figures_of_tables() {
    let _one = one();
    let entries: u64 = std::env::var("ENTRIES").map_or(28_000_000, |entries| entries.parse().unwrap());
    for capacity in [1_000_000, 10_000_000, 1 << 26] {
        let before = resident();
        let time = std::time::Instant::now();
        let cache: Cache<u64, u64> = Cache::new(capacity);
        let built = time.elapsed();
        let empty = resident().saturating_sub(before) as f64 / 1e6;
        (0..1000).for_each(|key| cache.insert(key, key));
        let few = resident().saturating_sub(before) as f64 / 1e6;
        println!("Cache::new({capacity}): {built:?}; resident: {empty:.1} MB empty, {few:.1} MB with 1,000 entries");
    }
    for writers in [1, 2] {
        let cache: Cache<u64, u64> = Cache::new(usize::MAX);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let slowest = std::thread::scope(|scope| {
            // The second overwrites 1,000 keys.
            let second = (writers == 2).then(|| {
                let keys = (0..).map(|n| (1 << 50) | (n % 1000)).take_while(|_| !stop.load(SeqCst));
                scope.spawn(|| slowest_insertions(&cache, keys))
            });
            let first = slowest_insertions(&cache, 0..entries);
            stop.store(true, SeqCst);
            [Some(first), second.map(|second| second.join().unwrap())]
        });
        println!("growth to {entries} entries, {writers} writing threads: their slowest insertions: {slowest:?}");
    }
}

/// The four slowest insertions, by the wall clock and by the calling thread's processor time, in microseconds.
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
#[derive(Debug, Default)]
struct Slowest {
    wall: [u64; 4],
    processor: [u64; 4],
}

#[cfg(all(target_os = "linux", target_pointer_width = "64", not(miri)))]
fn slowest_insertions(cache: &Cache<u64, u64>, keys: impl Iterator<Item = u64>) -> Slowest {
    fn processor_time() -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` may be written.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        assert_eq!(failed, 0);
        time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
    }
    fn note(slowest: &mut [u64; 4], micros: u64) {
        if micros > slowest[3] {
            slowest[3] = micros;
            slowest.sort_unstable_by(|one, other| other.cmp(one));
        }
    }
    let mut slowest = Slowest::default();
    for key in keys {
        let (wall, processor) = (std::time::Instant::now(), processor_time());
        cache.insert(key, key);
        note(&mut slowest.processor, processor_time() - processor);
        note(&mut slowest.wall, wall.elapsed().as_micros() as u64);
    }
    slowest
}
