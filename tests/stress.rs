//! Every kind of call concurrently: no value is ever wrong, torn, freed early, freed twice or
//! leaked.
//!
//! `HOTSET_STRESS=20` runs 20 times as many rounds.

#[cfg(feature = "async")]
#[path = "stress/tasks.rs"]
mod tasks;

use hotset::{Cache, Cause, Clock, Expiry, ManualClock, Policy, Ttl};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

const POLICIES: [Policy; 5] = [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random];
const THREADS: u64 = 4;

fn rounds(base: u64) -> u64 {
    base * std::env::var("HOTSET_STRESS").map_or(1, |factor| factor.parse().expect("a number"))
}

/// The payload of intended panics: no message is printed for it.
struct Intended;

fn panic_sometimes(random: &mut Random, one_in: u64) {
    if random.below(one_in) == 0 {
        std::panic::resume_unwind(Box::new(Intended));
    }
}

/// Runs `run`, which may panic as intended; resumes any other panic.
fn survive<R>(call: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(done) => Some(done),
        Err(panic) if panic.is::<Intended>() => None,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    /// Draws a key, small ones more often.
    fn key(&mut self, keys: u64) -> u64 {
        let range = 1 + self.below(keys);
        self.below(range)
    }
}

/// A value with its key and a checksum, on the heap, counted while it is alive.
struct Value {
    words: Box<[u64; 3]>,
    live: Arc<AtomicIsize>,
}

impl Value {
    fn new(key: u64, tag: u64, live: &Arc<AtomicIsize>) -> Self {
        live.fetch_add(1, Relaxed);
        Self {
            words: Box::new([key, tag, Self::sum(key, tag)]),
            live: live.clone(),
        }
    }
    fn sum(key: u64, tag: u64) -> u64 {
        (key ^ tag.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
    }
    fn check(&self, key: u64) -> u64 {
        let [of, tag, sum] = *self.words;
        assert_eq!(sum, Self::sum(of, tag), "torn or freed");
        assert_eq!(of, key, "another key's value");
        tag
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        let tag = self.check(self.words[0]);
        Self::new(self.words[0], tag, &self.live)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.check(self.words[0]);
        *self.words = [0; 3]; // a use after this does not check, nor does a second drop
        self.live.fetch_sub(1, Relaxed);
    }
}

/// Keys are counted, too, and own memory.
#[derive(PartialEq, Eq, Hash)]
struct Key(Box<u64>);

impl Clone for Key {
    fn clone(&self) -> Self {
        Key(self.0.clone())
    }
}

impl std::borrow::Borrow<u64> for Key {
    fn borrow(&self) -> &u64 {
        &self.0
    }
}

fn key(key: u64) -> Key {
    Key(Box::new(key))
}

type Shared = Cache<Key, Value>;
/// A random call: for some key, and with the capacity if it may be changed.
type Act = fn(&Shared, &mut Random, u64, &Arc<AtomicIsize>, Option<u64>);

fn act(cache: &Shared, random: &mut Random, keys: u64, live: &Arc<AtomicIsize>, capacity: Option<u64>) {
    let k = random.key(keys);
    let tag = random.next();
    let value = || Value::new(k, tag, live);
    match random.below(40) {
        0..12 => drop(cache.get(&k).map(|value| value.check(k))),
        12..22 => cache.insert(key(k), value()),
        22..25 => drop(cache.remove(&k).map(|value| value.check(k))),
        25..30 => {
            let loaded = cache.get_or_insert_with(key(k), || {
                panic_sometimes(random, 20);
                if k > 0 && random.below(4) == 0 {
                    act(cache, random, k, live, None); // smaller keys only: no rings
                }
                value()
            });
            loaded.check(k);
        }
        30 => {
            let failed = cache.try_get_or_insert_with(key(k), || Err(k));
            if let Ok(value) = failed {
                value.check(k);
            }
        }
        31..33 => {
            let computed = cache.compute(key(k), |old| {
                old.map(|old| old.check(k));
                panic_sometimes(random, 50);
                (random.below(4) > 0).then(value)
            });
            computed.map(|value| value.check(k));
        }
        33 => {
            let removed = cache.remove_if(&k, |_, value| value.check(k) % 2 == 0);
            assert!(removed.is_none_or(|value| value.check(k) % 2 == 0));
        }
        34 => {
            let wanted: Vec<u64> = (0..random.below(100)).map(|_| random.key(keys)).collect();
            for (k, found) in wanted.iter().zip(cache.get_many(&wanted)) {
                found.map(|value| value.check(*k));
            }
        }
        35 | 36 => {
            let reader = cache.reader();
            let found = reader.get(&k);
            for _ in 0..random.below(20) {
                let k = random.key(keys);
                reader.get(&k).map(|value| value.check(k));
                if random.below(3) == 0 {
                    cache.insert(key(k), Value::new(k, tag, live));
                }
            }
            found.map(|value| value.check(k));
        }
        37 => match random.below(100) {
            0 => cache.clear(),
            1..3 => cache.iter().for_each(|(k, value)| _ = value.check(*k.0)),
            3..5 => cache.reader().hottest().for_each(|(k, value)| _ = value.check(*k.0)),
            5..8 => {
                if let Some(capacity) = capacity {
                    cache.set_capacity(1 + random.below(capacity));
                }
            }
            8..20 => cache.run_pending(),
            _ => {}
        },
        _ => drop(cache.get_with(&k, |value| value.check(k))),
    }
}

/// Has all threads make random calls.
fn race(act: Act, cache: &Shared, seed: u64, rounds: u64, keys: u64, live: &Arc<AtomicIsize>, capacity: Option<u64>) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut random = Random(seed << 32 | (thread + 1) << 16 | 1);
                for _ in 0..rounds {
                    survive(|| act(cache, &mut random, keys, live, capacity));
                }
            });
        }
    });
}

/// Runs the threads, then checks the invariants.
fn run(cache: Shared, seed: u64, rounds: u64, keys: u64, live: &Arc<AtomicIsize>, capacity: Option<u64>) {
    race(act, &cache, seed, rounds, keys, live, capacity);
    survive(|| cache.run_pending());
    cache.run_pending();
    cache.validate();
    let mut left = 0;
    for (key, value) in cache.iter() {
        value.check(*key.0);
        assert!(cache.contains_key(&*key.0));
        left += 1;
    }
    assert_eq!(left, cache.len());
    if let Some(capacity) = capacity {
        assert!(cache.weight() <= capacity);
    }
    drop(cache);
    assert_eq!(live.load(Relaxed), 0, "nothing leaked");
}

#[test]
fn stress_bounded_cache() {
    for (seed, policy) in POLICIES.into_iter().enumerate() {
        let live = Arc::default();
        let cache = Cache::builder().max_entries(64).policy(policy).build().unwrap();
        run(cache, 1 + seed as u64, rounds(8000), 256, &live, Some(64));
    }
}

#[test]
fn stress_few_keys() {
    for (seed, policy) in POLICIES.into_iter().enumerate() {
        let live = Arc::default();
        let cache = Cache::builder().max_entries(3).policy(policy).build().unwrap();
        run(cache, 11 + seed as u64, rounds(8000), 6, &live, Some(3));
    }
}

#[test]
fn stress_weighted_cache_with_listener() {
    for (seed, policy) in POLICIES.into_iter().enumerate() {
        let live: Arc<AtomicIsize> = Arc::default();
        let listened = Arc::new(AtomicU64::new(0));
        let handle: Arc<std::sync::OnceLock<std::sync::Mutex<Option<Shared>>>> = Arc::default();
        let (inner, count, counted) = (handle.clone(), listened.clone(), live.clone());
        let cache: Shared = Cache::builder()
            .max_weight(500)
            .weigher(|_: &Key, value: &Value| value.words[1] % 20)
            .policy(policy)
            .on_removal(move |key, value, cause| {
                let tag = value.check(*key.0);
                assert!(matches!(cause, Cause::Size | Cause::Explicit | Cause::Replaced));
                count.fetch_add(1, Relaxed);
                let cache = inner.get().and_then(|cache| cache.lock().unwrap().clone());
                if let Some(cache) = cache {
                    match tag % 64 {
                        0 => std::panic::resume_unwind(Box::new(Intended)),
                        1 => drop(cache.get(&*key.0)),
                        2 => drop(cache.remove(&(*key.0 + 1))),
                        3 => cache.insert(super_key(*key.0), Value::new(*key.0 + 7, tag + 8, &counted)),
                        _ => {}
                    }
                }
            })
            .build()
            .unwrap();
        handle.set(std::sync::Mutex::new(Some(cache.clone()))).ok().unwrap();
        race(act, &cache, 21 + seed as u64, rounds(8000), 200, &live, Some(500));
        handle.get().unwrap().lock().unwrap().take(); // the listener is quiet from now on
        cache.run_pending();
        cache.validate();
        let left = cache.len() as u64;
        assert!(left > 0 || cache.capacity() < 40);
        let shown = listened.load(Relaxed);
        assert_eq!(
            shown + left,
            cache.stats().insertions,
            "every entry that left was shown once"
        );
        cache.clear();
        assert_eq!(listened.load(Relaxed), shown + left);
        drop(cache);
        assert_eq!(live.load(Relaxed), 0);
    }
}

fn super_key(k: u64) -> Key {
    key(k + 7)
}

#[test]
fn stress_growing_table() {
    for seed in 0..3 {
        let live: Arc<AtomicIsize> = Arc::default();
        let cache: Shared = Cache::builder().max_entries(usize::MAX).build().unwrap();
        let base = rounds(8000);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (cache, live) = (&cache, &live);
                scope.spawn(move || {
                    let mut random = Random((31 + seed) << 32 | (thread + 1) << 16 | 1);
                    for round in 0..base {
                        // The thread's own keys, which no other thread changes, are all there.
                        let own = 1_000_000 + round * THREADS + thread;
                        cache.insert(key(own), Value::new(own, round, live));
                        let back = own - THREADS * random.below(round + 1);
                        assert_eq!(
                            cache
                                .get(&back)
                                .unwrap_or_else(|| panic!("inserted by this thread: {:?}", cache.stats()))
                                .check(back),
                            (back - 1_000_000) / THREADS
                        );
                        let shared = random.key(5000);
                        match random.below(4) {
                            0 => cache.insert(key(shared), Value::new(shared, round, live)),
                            1 => drop(cache.remove(&shared).map(|value| value.check(shared))),
                            2 => drop(
                                cache
                                    .get_or_insert_with(key(shared), || Value::new(shared, 1, live))
                                    .check(shared),
                            ),
                            _ => drop(cache.get(&shared).map(|value| value.check(shared))),
                        }
                    }
                });
            }
        });
        cache.run_pending();
        cache.validate();
        let own = (0..base * THREADS)
            .filter(|own| cache.get(&(own + 1_000_000)).is_some())
            .count() as u64;
        assert_eq!(own, base * THREADS);
        drop(cache);
        assert_eq!(live.load(Relaxed), 0);
    }
}

/// Short-lived caches, whose values are still read and dropped by other threads.
#[test]
fn stress_short_lived_caches() {
    let live: Arc<AtomicIsize> = Arc::default();
    for round in 0..rounds(60) {
        let cache: Shared = Cache::new(20);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (cache, live) = (cache.clone(), &live);
                scope.spawn(move || {
                    let mut random = Random((round + 51) << 32 | (thread + 1) << 16 | 1);
                    for _ in 0..100 {
                        survive(|| act(&cache, &mut random, 60, live, Some(20)));
                    }
                });
            }
            drop(cache);
        });
        assert_eq!(live.load(Relaxed), 0);
    }
}

/// Random calls with short TTLs. No entry lives long enough for a check that all are there.
fn act_timed(cache: &Shared, random: &mut Random, keys: u64, live: &Arc<AtomicIsize>, capacity: Option<u64>) {
    let (k, tag) = (random.key(keys), random.next());
    let value = || Value::new(k, tag, live);
    let ttl = match random.below(8) {
        0 => Ttl::Never,
        1 => Ttl::Keep,
        2 => Ttl::Default,
        3 => Ttl::After(Duration::ZERO),
        _ => Ttl::After(Duration::from_micros(random.below(6000))),
    };
    match random.below(20) {
        0..5 => cache.insert_with_ttl(key(k), value(), ttl),
        5..7 => {
            let computed = cache.compute_with_ttl(key(k), |old| {
                old.map(|old| old.check(k));
                panic_sometimes(random, 50);
                (random.below(4) > 0).then(|| (value(), ttl))
            });
            computed.map(|value| value.check(k));
        }
        7..9 => _ = cache.get_or_insert_with_ttl(key(k), || (value(), ttl)).check(k),
        9 => _ = cache.remaining(&k),
        _ => act(cache, random, keys, live, capacity),
    }
}

/// TTLs by the value: a read sets a deadline, removes it, or moves it earlier or later.
struct Whims;

impl Expiry<Key, Value> for Whims {
    fn after_create(&self, key: &Key, value: &Value) -> Option<Duration> {
        let tag = value.check(*key.0);
        (!tag.is_multiple_of(4)).then(|| Duration::from_micros(tag / 4 % 9000))
    }

    fn after_update(&self, key: &Key, value: &Value, remaining: Option<Duration>) -> Option<Duration> {
        let tag = value.check(*key.0);
        if tag.is_multiple_of(2) {
            remaining
        } else {
            self.after_create(key, value)
        }
    }

    fn after_read(&self, key: &Key, value: &Value, remaining: Option<Duration>) -> Option<Duration> {
        let tag = value.check(*key.0);
        match tag % 8 {
            0 => remaining.is_none().then_some(Duration::from_millis(5)),
            1 => remaining.map(|left| left / 2),
            2 => Some(Duration::from_millis(tag / 8 % 20)),
            _ => remaining,
        }
    }
}

/// One of five mixes of settings. Every removed entry is counted.
fn timed(mix: u64, capacity: u64, clock: Option<ManualClock>, shown: &Arc<AtomicU64>) -> Shared {
    let count = shown.clone();
    let mut builder = Cache::builder()
        .max_entries(capacity as usize)
        .policy(POLICIES[mix as usize])
        .on_removal(move |key: &Key, value: &Value, _| {
            value.check(*key.0);
            count.fetch_add(1, Relaxed);
        });
    if let Some(clock) = clock {
        builder = builder.clock(clock);
    }
    builder = match mix {
        0 => builder,
        1 => builder.time_to_live(Duration::from_millis(3)).jitter(0.5),
        2 => builder.time_to_idle(Duration::from_millis(2)),
        3 => builder.expiry(Whims),
        _ => builder
            .time_to_live(Duration::from_millis(20))
            .time_to_idle(Duration::from_millis(4))
            .expiry(Whims),
    };
    builder.build().unwrap()
}

/// Advances a clock, in small steps and some large ones, while `work` runs.
fn ticking(clock: &ManualClock, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(61);
            while !done.load(Relaxed) {
                let micros = if random.below(500) == 0 {
                    1 << 24
                } else {
                    random.below(300)
                };
                clock.advance(Duration::from_micros(micros));
                thread::yield_now();
            }
        });
        let result = catch_unwind(AssertUnwindSafe(work));
        done.store(true, Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn stress_expiration() {
    for mix in 0..5 {
        for capacity in [1000, 50] {
            let (live, shown) = (Arc::default(), Arc::default());
            let cache = timed(mix, capacity, None, &shown);
            race(act_timed, &cache, 71 + mix, rounds(4000), 200, &live, Some(capacity));
            check_timed(cache, &live, &shown);
        }
    }
}

#[test]
fn stress_expiration_with_a_concurrent_clock() {
    for mix in 0..5 {
        for capacity in [1000, 50] {
            let (live, shown) = (Arc::default(), Arc::default());
            let clock = ManualClock::new();
            let cache = timed(mix, capacity, Some(clock.clone()), &shown);
            let act = || race(act_timed, &cache, 81 + mix, rounds(4000), 200, &live, Some(capacity));
            ticking(&clock, act);
            // A tick later, exactly the expired entries are gone.
            let alive: Vec<u64> = cache.iter().map(|(key, _)| *key.0).collect();
            clock.advance(Duration::from_nanos(1 << 20));
            let still: Vec<u64> = cache.iter().map(|(key, _)| *key.0).collect();
            cache.run_pending();
            assert!(still.iter().all(|key| cache.contains_key(key)));
            assert!(still.len() <= cache.len() && cache.len() <= alive.len());
            check_timed(cache, &live, &shown);
        }
    }
}

/// Checks the invariants once the threads have ended.
fn check_timed(cache: Shared, live: &Arc<AtomicIsize>, shown: &AtomicU64) {
    cache.run_pending();
    cache.validate();
    cache.iter().for_each(|(key, value)| _ = value.check(*key.0));
    cache.clear();
    let (shown, came) = (shown.load(Relaxed), cache.stats().insertions);
    assert_eq!(shown, came, "every entry that left was shown once");
    assert_eq!(cache.len(), 0);
    drop(cache);
    assert_eq!(live.load(Relaxed), 0, "nothing leaked");
}

/// Records in every new value its latest deadline: the cache has read the clock before it requests
/// a TTL.
struct Stamps(ManualClock);

impl Stamps {
    fn stamp(&self, key: u64, value: &AtomicU64) -> Option<Duration> {
        let life = Duration::from_micros(500 + 100 * key);
        value.store((self.0.now() + life).as_nanos() as u64, Relaxed);
        Some(life)
    }
}

impl Expiry<u64, Arc<AtomicU64>> for Stamps {
    fn after_create(&self, key: &u64, value: &Arc<AtomicU64>) -> Option<Duration> {
        self.stamp(*key, value)
    }
    fn after_update(&self, key: &u64, value: &Arc<AtomicU64>, _: Option<Duration>) -> Option<Duration> {
        self.stamp(*key, value)
    }
}

#[test]
fn stress_expired_values_are_never_returned() {
    let clock = ManualClock::new();
    let builder = Cache::builder().max_entries(100).clock(clock.clone());
    let cache: Cache<u64, Arc<AtomicU64>> = builder.expiry(Stamps(clock.clone())).build().unwrap();
    ticking(&clock, || {
        let (cache, clock) = (&cache, &clock);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut random = Random(91 << 32 | (thread + 1) << 16 | 1);
                    for _ in 0..rounds(40_000) {
                        let key = random.key(60);
                        let start = clock.now().as_nanos() as u64;
                        let found = match random.below(8) {
                            0 => (cache.insert(key, Arc::default()), None).1,
                            // It may have waited for a value that expired before its loader
                            // returned.
                            1 => (cache.get_or_insert_with(key, Arc::default), None).1,
                            2 => cache.remove(&key),
                            3 => {
                                let mut old = None;
                                cache.compute(key, |current| (old = current, Some(Arc::default())).1);
                                old
                            }
                            4 => cache.get_many([&key]).remove(0),
                            5 => cache.reader().get(&key).cloned(),
                            _ => cache.get(&key),
                        };
                        if let Some(end) = found.map(|value| value.load(Relaxed)) {
                            assert!(end > start, "key {key} was over at {end}, and found after {start}");
                        }
                    }
                });
            }
        });
    });
    cache.run_pending();
    cache.validate();
}

/// A read that sets the deadline.
struct OnceRead;

impl Expiry<u64, u64> for OnceRead {
    fn after_create(&self, _: &u64, _: &u64) -> Option<Duration> {
        None
    }
    fn after_read(&self, _: &u64, _: &u64, _: Option<Duration>) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}

#[test]
fn stress_read_that_shortens_a_ttl_sets_the_timer() {
    let clock = ManualClock::new();
    for _ in 0..rounds(10) {
        let builder = Cache::builder().max_entries(usize::MAX).clock(clock.clone());
        let cache = builder.expiry(OnceRead).build().unwrap();
        let keys = 4 * 250 * THREADS;
        (0..keys).for_each(|key| cache.insert(key, key));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let cache = &cache;
                scope.spawn(move || {
                    for key in (thread..keys).step_by(THREADS as usize) {
                        assert_eq!(cache.get(&key), Some(key));
                        cache.insert(keys + key, key);
                    }
                });
            }
        });
        cache.run_pending();
        cache.validate();
        clock.advance(Duration::from_secs(2));
        cache.run_pending();
        assert_eq!(cache.len() as u64, keys, "what was read is gone");
    }
}

/// A key that is overwritten repeatedly is never absent.
#[test]
fn stress_iteration_visits_an_overwritten_key() {
    let (cache, stop): (Cache<u64, u64>, _) = (Cache::new(8), AtomicBool::new(false));
    cache.insert(1, 0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                (0..)
                    .take_while(|_| !stop.load(Relaxed))
                    .for_each(|n| cache.insert(1, n))
            });
        }
        let missed = (0..rounds(200_000)).filter(|_| cache.iter().count() != 1).count();
        stop.store(true, Relaxed);
        assert_eq!(missed, 0);
    });
}
