//! The caches under test behind one trait, and the measured loops, compiled once per cache.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::report::Latencies;

/// A cache of `u64` to `u64`.
pub trait Peer: Send + Sync + 'static {
    const NAME: &'static str;
    fn new(capacity: usize) -> Self;
    fn get(&self, key: u64) -> Option<u64>;
    fn insert(&self, key: u64, value: u64);
    fn get_or_insert_with(&self, key: u64, load: impl FnOnce() -> u64) -> u64;
    fn entries(&self) -> usize;
    /// Gets a batch of keys; a loop where the cache has no call for it.
    fn get_many(&self, keys: &[u64]) -> Vec<Option<u64>> {
        keys.iter().map(|k| self.get(*k)).collect()
    }
    /// Runs the maintenance that the cache has deferred.
    fn settle(&self) {}
}

/// With a time to live that is too long for an entry to expire.
pub struct Hotset<const TIMED: bool>(hotset::Cache<u64, u64>);

impl<const TIMED: bool> Peer for Hotset<TIMED> {
    const NAME: &'static str = if TIMED { "hotset-ttl" } else { "hotset" };
    fn new(capacity: usize) -> Self {
        let mut builder = hotset::Cache::builder().max_entries(capacity);
        if TIMED {
            builder = builder.time_to_live(Duration::from_secs(24 * 3600));
        }
        Hotset(builder.build().expect("settings that go together"))
    }
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key)
    }
    #[inline]
    fn insert(&self, key: u64, value: u64) {
        self.0.insert(key, value);
    }
    #[inline]
    fn get_or_insert_with(&self, key: u64, load: impl FnOnce() -> u64) -> u64 {
        self.0.get_or_insert_with(key, load)
    }
    fn entries(&self) -> usize {
        self.0.len()
    }
    #[inline]
    fn get_many(&self, keys: &[u64]) -> Vec<Option<u64>> {
        self.0.get_many(keys)
    }
    fn settle(&self) {
        self.0.run_pending();
    }
}

/// quick_cache, whose default hasher is foldhash.
pub struct QuickCache(quick_cache::sync::Cache<u64, u64>);

impl Peer for QuickCache {
    const NAME: &'static str = "quick_cache";
    fn new(capacity: usize) -> Self {
        QuickCache(quick_cache::sync::Cache::new(capacity))
    }
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key)
    }
    #[inline]
    fn insert(&self, key: u64, value: u64) {
        self.0.insert(key, value);
    }
    #[inline]
    fn get_or_insert_with(&self, key: u64, load: impl FnOnce() -> u64) -> u64 {
        match self
            .0
            .get_or_insert_with(&key, || Ok::<u64, std::convert::Infallible>(load()))
        {
            Ok(v) => v,
        }
    }
    fn entries(&self) -> usize {
        self.0.len()
    }
}

pub struct Moka(moka::sync::Cache<u64, u64, RandomState>);

impl Peer for Moka {
    const NAME: &'static str = "moka";
    fn new(capacity: usize) -> Self {
        Moka(
            moka::sync::Cache::builder()
                .max_capacity(capacity as u64)
                .build_with_hasher(RandomState::default()),
        )
    }
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key)
    }
    #[inline]
    fn insert(&self, key: u64, value: u64) {
        self.0.insert(key, value);
    }
    #[inline]
    fn get_or_insert_with(&self, key: u64, load: impl FnOnce() -> u64) -> u64 {
        self.0.get_with(key, load)
    }
    fn entries(&self) -> usize {
        self.0.entry_count() as usize
    }
    fn settle(&self) {
        self.0.run_pending_tasks();
    }
}

/// schnellru, which is not concurrent: the whole map is behind one lock.
pub struct Schnellru(Mutex<schnellru::LruMap<u64, u64, schnellru::ByLength, RandomState>>);

impl Peer for Schnellru {
    const NAME: &'static str = "schnellru";
    fn new(capacity: usize) -> Self {
        let limit = schnellru::ByLength::new(u32::try_from(capacity).unwrap());
        Schnellru(Mutex::new(schnellru::LruMap::with_hasher(
            limit,
            RandomState::default(),
        )))
    }
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.lock().unwrap().get(&key).map(|v| *v)
    }
    #[inline]
    fn insert(&self, key: u64, value: u64) {
        self.0.lock().unwrap().insert(key, value);
    }
    #[inline]
    fn get_or_insert_with(&self, key: u64, load: impl FnOnce() -> u64) -> u64 {
        *self.0.lock().unwrap().get_or_insert(key, load).unwrap()
    }
    fn entries(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Does nothing: shows the cost of the measuring loop itself (instruction counts only).
pub struct Loop;

impl Peer for Loop {
    const NAME: &'static str = "loop";
    fn new(_: usize) -> Self {
        Loop
    }
    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        black_box(Some(key))
    }
    #[inline]
    fn insert(&self, key: u64, value: u64) {
        black_box((key, value));
    }
    #[inline]
    fn get_or_insert_with(&self, key: u64, _: impl FnOnce() -> u64) -> u64 {
        black_box(key)
    }
    fn entries(&self) -> usize {
        0
    }
}

/// The value every job stores under a key.
#[inline]
pub fn value_of(key: u64) -> u64 {
    !key
}

/// The measured loops of one cache. Dynamic dispatch happens once per loop; inside, all is static.
pub trait Subject: Send + Sync {
    fn name(&self) -> &'static str;
    fn entries(&self) -> usize;
    fn settle(&self);
    fn lookup(&self, key: u64) -> Option<u64>;
    /// Gets every key; returns how many were missing.
    fn get16(&self, ids: &[u16]) -> u64;
    fn get32(&self, ids: &[u32]) -> u64;
    fn get64(&self, keys: &[u64]) -> u64;
    /// The same in batches of `batch` keys.
    fn get_many(&self, keys: &[u64], batch: usize) -> u64;
    /// Gets one key `n` times.
    fn get_one(&self, key: u64, n: u64) -> u64;
    /// Inserts new keys: `first`, `first + 1`, .. spread over the 64 bits.
    fn insert_new(&self, first: u64, n: u64);
    fn insert_ids(&self, ids: &[u32]);
    /// Calls `get_or_insert_with` for every key; returns the misses.
    fn read_through(&self, ids: &[u32]) -> u64;
    /// Calls `get`, and `insert` after a miss; returns the misses.
    fn cache_aside(&self, ids: &[u32]) -> u64;
    /// Records the time of each get in `latencies`.
    fn timed_gets(&self, ids: &[u32], latencies: &mut Latencies);
}

#[inline(always)]
fn gets<P: Peer, I: Copy + Into<u64>>(p: &P, ids: &[I]) -> u64 {
    let (mut sum, mut missing) = (0, 0);
    for id in ids {
        match p.get((*id).into()) {
            Some(v) => sum ^= v,
            None => missing += 1,
        }
    }
    black_box(sum);
    missing
}

impl<P: Peer> Subject for P {
    fn name(&self) -> &'static str {
        P::NAME
    }
    fn entries(&self) -> usize {
        Peer::entries(self)
    }
    fn settle(&self) {
        Peer::settle(self);
    }
    fn lookup(&self, key: u64) -> Option<u64> {
        self.get(key)
    }
    #[inline(never)]
    fn get16(&self, ids: &[u16]) -> u64 {
        gets(self, ids)
    }
    #[inline(never)]
    fn get32(&self, ids: &[u32]) -> u64 {
        gets(self, ids)
    }
    #[inline(never)]
    fn get64(&self, keys: &[u64]) -> u64 {
        gets(self, keys)
    }
    #[inline(never)]
    fn get_many(&self, keys: &[u64], batch: usize) -> u64 {
        let (mut sum, mut missing) = (0, 0);
        for some in keys.chunks_exact(batch) {
            for found in Peer::get_many(self, some) {
                match found {
                    Some(v) => sum ^= v,
                    None => missing += 1,
                }
            }
        }
        black_box(sum);
        missing
    }
    #[inline(never)]
    fn get_one(&self, key: u64, n: u64) -> u64 {
        let (mut sum, mut missing) = (0, 0);
        for _ in 0..n {
            match self.get(black_box(key)) {
                Some(v) => sum ^= v,
                None => missing += 1,
            }
        }
        black_box(sum);
        missing
    }
    #[inline(never)]
    fn insert_new(&self, first: u64, n: u64) {
        for i in first..first + n {
            let key = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.insert(key, value_of(key));
        }
    }
    #[inline(never)]
    fn insert_ids(&self, ids: &[u32]) {
        for id in ids {
            let key = u64::from(*id);
            self.insert(key, value_of(key));
        }
    }
    #[inline(never)]
    fn read_through(&self, ids: &[u32]) -> u64 {
        let (mut sum, mut misses) = (0, 0);
        for id in ids {
            let key = u64::from(*id);
            sum ^= self.get_or_insert_with(key, || {
                misses += 1;
                value_of(key)
            });
        }
        black_box(sum);
        misses
    }
    #[inline(never)]
    fn cache_aside(&self, ids: &[u32]) -> u64 {
        let (mut sum, mut misses) = (0, 0);
        for id in ids {
            let key = u64::from(*id);
            match self.get(key) {
                Some(v) => sum ^= v,
                None => {
                    misses += 1;
                    self.insert(key, value_of(key));
                }
            }
        }
        black_box(sum);
        misses
    }
    #[inline(never)]
    fn timed_gets(&self, ids: &[u32], latencies: &mut Latencies) {
        for id in ids {
            let start = Instant::now();
            black_box(self.get(u64::from(*id)));
            latencies.record(start.elapsed());
        }
    }
}

/// The caches that `--peers` may name.
pub const NAMES: [&str; 6] = [
    Hotset::<false>::NAME,
    Hotset::<true>::NAME,
    QuickCache::NAME,
    Moka::NAME,
    Schnellru::NAME,
    Loop::NAME,
];

/// Builds the cache called `name`.
pub fn build(name: &str, capacity: usize) -> Box<dyn Subject> {
    match name {
        Hotset::<false>::NAME => Box::new(Hotset::<false>::new(capacity)),
        Hotset::<true>::NAME => Box::new(Hotset::<true>::new(capacity)),
        QuickCache::NAME => Box::new(QuickCache::new(capacity)),
        Moka::NAME => Box::new(Moka::new(capacity)),
        Schnellru::NAME => Box::new(Schnellru::new(capacity)),
        Loop::NAME => Box::new(Loop),
        other => unreachable!("no cache named {other}"),
    }
}
