//! Eviction policies: which entry leaves when the cache is full. Sequential, safe and pure.
//!
//! A [`Policy`] orders opaque [handles](Places::Handle). It knows no keys, atomics, locks or
//! clocks. Its driver has exclusive access, reports insertions and removals, and takes what the
//! policy evicts. So the same code runs inside the cache and, at full speed, over a trace or
//! against a naive oracle.
#![forbid(unsafe_code)]

pub(crate) mod fifo;
pub(crate) mod lfu;
pub(crate) mod lru;
pub(crate) mod random;
pub(crate) mod tinylfu;

#[cfg(all(test, not(loom)))]
mod replay_tests;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use crate::prim::list::{MAX_PLACE, Places};

/// What a policy reads of the entries it orders, and the few bits it keeps in them.
///
/// From [`Policy::insert`] (or `replace`, as `new`) until a handle leaves (by `remove`, by
/// `replace` as `old`, or pushed to `out`), the policy may use the handle freely; never outside of
/// that span.
///
/// Places (positions in the policy's structures) belong to the policy. The largest numbers above
/// [`MAX_PLACE`] are marks of the engine.
pub(crate) trait Entries: Places {
    /// Returns 32 well-mixed bits of the key's hash; constant for the entry's lifetime.
    fn hash(&self, handle: Self::Handle) -> u32;
    /// Returns the entry's weight; 1 in a cache that counts entries. Constant for the entry's
    /// lifetime.
    fn weight(&self, handle: Self::Handle) -> u64;
    /// Returns the last argument of [`set_hits`](Self::set_hits), or 0, plus the hits since then,
    /// up to [`Policy::hit_limit`].
    fn hits(&self, handle: Self::Handle) -> u8;
    /// Sets the hits. A concurrent hit may be lost.
    fn set_hits(&self, handle: Self::Handle, hits: u8);
    /// Resets the hits to 0. A concurrent hit may be lost.
    #[inline]
    fn reset_hits(&self, handle: Self::Handle) {
        self.set_hits(handle, 0);
    }
}

/// The reason for an eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The entry had been admitted, and made room for others.
    Evicted,
    /// The entry was not admitted: it lost against a resident entry, or is heavier than the
    /// capacity.
    Rejected,
}

/// The policy's state of an entry, as a snapshot stores it.
#[cfg_attr(not(feature = "snapshot"), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rank {
    /// The recent uses, estimated.
    pub(crate) uses: u8,
    /// The number of the policy's queue that holds the entry.
    pub(crate) queue: u8,
    /// Whether the entry was hit since the policy last checked it.
    pub(crate) marked: bool,
}

/// Entries that a policy evicted, in order, for the driver to remove.
pub(crate) type Evictions<H> = Vec<(H, Verdict)>;

/// An eviction policy. After any call, `weight() <= capacity()`.
#[cfg_attr(not(feature = "snapshot"), allow(dead_code))]
pub(crate) trait Policy<E: Entries> {
    /// Inserts a new entry, and pushes evicted entries to `out`, possibly `handle` itself.
    fn insert(&mut self, entries: &E, handle: E::Handle, out: &mut Evictions<E::Handle>);
    /// Inserts new entries, one after another, as [`insert`](Self::insert) does.
    #[inline]
    fn insert_all<I>(&mut self, entries: &E, handles: I, out: &mut Evictions<E::Handle>)
    where
        I: Iterator<Item = E::Handle>,
    {
        handles.for_each(|handle| self.insert(entries, handle, out));
    }
    /// Replaces `old` by `new` (the same key with another value), which counts as a hit. `old`
    /// leaves the policy. Their weights may differ, so other entries, or `new` itself, may be
    /// pushed to `out`.
    fn replace(&mut self, entries: &E, old: E::Handle, new: E::Handle, out: &mut Evictions<E::Handle>);
    /// Removes an entry that the driver has removed.
    fn remove(&mut self, entries: &E, handle: E::Handle);
    /// Records a hit when it happens. Called only if [`eager_hits`](Self::eager_hits).
    fn hit(&mut self, entries: &E, handle: E::Handle) {
        let _ = (entries, handle);
    }
    /// Prefetches what the insertion of entries with these hashes needs.
    #[inline]
    fn prefetch(&self, hashes: impl Iterator<Item = u32>) {
        let _ = hashes;
    }
    /// Sets the capacity, and pushes evicted entries to `out`.
    fn set_capacity(&mut self, entries: &E, capacity: u64, out: &mut Evictions<E::Handle>);

    /// Returns the bound on [`weight`](Self::weight).
    fn capacity(&self) -> u64;
    /// Returns the number of entries.
    fn len(&self) -> usize;
    /// Returns the total weight of the entries.
    fn weight(&self) -> u64;
    /// Returns up to which number [`Entries::hits`] must count: 0 if the policy ignores hits, 1 if
    /// it only checks for any. Below 255.
    fn hit_limit(&self) -> u8;
    /// Returns whether [`hit`](Self::hit) must be called for every hit.
    fn eager_hits(&self) -> bool {
        false
    }
    /// Visits the entries from the most to the least valuable. Stops when `visit` returns false.
    fn hottest(&self, entries: &E, visit: &mut dyn FnMut(E::Handle) -> bool);
    /// Returns the entry that would be evicted first, or nearly first. O(1), while
    /// [`hottest`](Self::hottest) visits all.
    fn coldest(&mut self, entries: &E) -> Option<E::Handle>;
    /// Returns the rank of an entry that the policy holds.
    fn rank(&mut self, entries: &E, handle: E::Handle) -> Rank {
        Rank {
            marked: entries.hits(handle) != 0,
            ..Rank::default()
        }
    }
    /// Inserts an entry restored from a snapshot with its rank. Entries restored later are more
    /// valuable.
    fn restore(&mut self, entries: &E, handle: E::Handle, rank: Rank, out: &mut Evictions<E::Handle>) {
        entries.set_hits(handle, u8::from(rank.marked && self.hit_limit() > 0));
        self.insert(entries, handle, out);
    }
    /// Returns the window's share of the capacity in 2^-32; 0 if the policy has no window.
    fn window(&self) -> u32 {
        0
    }
    /// Sets the window's share of the capacity; 0 leaves it unchanged.
    fn set_window(&mut self, entries: &E, share: u32, out: &mut Evictions<E::Handle>) {
        let _ = (entries, share, out);
    }
    /// Panics if an invariant is broken. O(n).
    fn validate(&self, entries: &E);
}

/// The eviction policy of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PolicyKind {
    /// Frequency and recency combined (W-TinyLFU with an adaptive window). The best hit ratio on
    /// almost any workload, and next to no work on a hit.
    #[default]
    WTinyLfu,
    /// Least recently used, exact as long as one thread at a time uses the cache.
    ///
    /// A hit moves its entry to the front under the maintenance lock, if that is free. If another
    /// thread holds the lock, the hit only marks the entry, which is moved to the front when it
    /// would be evicted. So with several threads the order is approximate: an entry hit since it
    /// was last checked is not evicted, but the order of evictions may differ.
    ///
    /// How many hits only mark depends on how often another thread holds the lock, or is preempted
    /// while it does. Two million lookups of 10,000 entries on two cores, four runs of `cargo test
    /// --release --lib lru_hits -- --ignored --nocapture`:
    ///
    /// | threads | lookups only | with a thousand additions after each lookup |
    /// |---|---|---|
    /// | 1 | 0 | 0 |
    /// | 2 | 0.3% to 1.8% | 0 to 0.5% |
    /// | 4 | 3.3% to 4.2% | 3% to 14% |
    /// | 8 | 4.3% to 4.9% | 31% to 44% |
    Lru,
    /// Least frequently used (counted up to 255); among equals, the entry that has been there
    /// longest.
    Lfu,
    /// First in, first out: the oldest entry is evicted, used or not.
    Fifo,
    /// Random: any entry is evicted, with equal probability.
    Random,
}

/// Any of the policies, chosen at run time. Dispatched by `match`, so that the calls can be
/// inlined.
// The explicit tag avoids a niche in another field, which would cost each dispatch five
// instructions.
#[repr(u8)]
#[derive(Debug)]
pub(crate) enum AnyPolicy<E: Entries> {
    TinyLfu(tinylfu::TinyLfu<E::Handle>),
    Lru(lru::Lru<E::Handle>),
    Lfu(lfu::Lfu<E::Handle>),
    Fifo(fifo::Fifo<E::Handle>),
    Random(random::Random<E::Handle>),
}

impl<E: Entries> AnyPolicy<E> {
    /// Returns an empty policy. If not `weighted`, all weights are 1.
    pub(crate) fn new(kind: PolicyKind, capacity: u64, weighted: bool) -> Self {
        match kind {
            PolicyKind::WTinyLfu => Self::TinyLfu(tinylfu::TinyLfu::new(capacity, weighted)),
            PolicyKind::Lru => Self::Lru(lru::Lru::new(capacity, weighted)),
            PolicyKind::Lfu => Self::Lfu(lfu::Lfu::new(capacity, weighted)),
            PolicyKind::Fifo => Self::Fifo(fifo::Fifo::new(capacity, weighted)),
            PolicyKind::Random => Self::Random(random::Random::new(capacity, weighted)),
        }
    }
}

/// Marks a branch as rare.
#[cold]
fn rare() {}

/// Calls a method of the policy as a [`Policy<E>`]. Tests for the default first, instead of a jump
/// table.
macro_rules! dispatch {
    ($self:ident, $policy:ident => $call:expr) => {
        if let AnyPolicy::TinyLfu($policy) = $self {
            $call
        } else {
            rare();
            dispatch!(@rare $self, $policy => $call)
        }
    };
    (@rare $self:ident, $policy:ident => $call:expr) => {
        match $self {
            AnyPolicy::TinyLfu($policy) => $call,
            AnyPolicy::Lru($policy) => $call,
            AnyPolicy::Lfu($policy) => $call,
            AnyPolicy::Fifo($policy) => $call,
            AnyPolicy::Random($policy) => $call,
        }
    };
}

impl<E: Entries> Policy<E> for AnyPolicy<E> {
    #[inline]
    fn insert(&mut self, entries: &E, handle: E::Handle, out: &mut Evictions<E::Handle>) {
        dispatch!(self, policy => policy.insert(entries, handle, out))
    }
    #[inline]
    fn insert_all<I>(&mut self, entries: &E, handles: I, out: &mut Evictions<E::Handle>)
    where
        I: Iterator<Item = E::Handle>,
    {
        match self {
            Self::TinyLfu(policy) => policy.insert_all(entries, handles, out),
            // Without a copy of each policy's insertion: most caches have the default.
            others => handles.for_each(|handle| others.insert(entries, handle, out)),
        }
    }
    fn replace(&mut self, entries: &E, old: E::Handle, new: E::Handle, out: &mut Evictions<E::Handle>) {
        dispatch!(self, policy => policy.replace(entries, old, new, out))
    }
    fn remove(&mut self, entries: &E, handle: E::Handle) {
        dispatch!(self, policy => policy.remove(entries, handle))
    }
    #[inline]
    fn hit(&mut self, entries: &E, handle: E::Handle) {
        dispatch!(self, policy => policy.hit(entries, handle))
    }
    #[inline]
    fn prefetch(&self, hashes: impl Iterator<Item = u32>) {
        dispatch!(self, policy => Policy::<E>::prefetch(policy, hashes))
    }
    fn set_capacity(&mut self, entries: &E, capacity: u64, out: &mut Evictions<E::Handle>) {
        dispatch!(self, policy => policy.set_capacity(entries, capacity, out))
    }
    #[inline]
    fn capacity(&self) -> u64 {
        dispatch!(self, policy => Policy::<E>::capacity(policy))
    }
    #[inline]
    fn len(&self) -> usize {
        dispatch!(self, policy => Policy::<E>::len(policy))
    }
    #[inline]
    fn weight(&self) -> u64 {
        dispatch!(self, policy => Policy::<E>::weight(policy))
    }
    fn hit_limit(&self) -> u8 {
        dispatch!(self, policy => Policy::<E>::hit_limit(policy))
    }
    fn eager_hits(&self) -> bool {
        dispatch!(self, policy => Policy::<E>::eager_hits(policy))
    }
    fn coldest(&mut self, entries: &E) -> Option<E::Handle> {
        dispatch!(self, policy => policy.coldest(entries))
    }
    fn hottest(&self, entries: &E, visit: &mut dyn FnMut(E::Handle) -> bool) {
        dispatch!(self, policy => policy.hottest(entries, visit))
    }
    fn rank(&mut self, entries: &E, handle: E::Handle) -> Rank {
        dispatch!(self, policy => policy.rank(entries, handle))
    }
    fn restore(&mut self, entries: &E, handle: E::Handle, rank: Rank, out: &mut Evictions<E::Handle>) {
        dispatch!(self, policy => policy.restore(entries, handle, rank, out))
    }
    fn window(&self) -> u32 {
        dispatch!(self, policy => Policy::<E>::window(policy))
    }
    fn set_window(&mut self, entries: &E, share: u32, out: &mut Evictions<E::Handle>) {
        dispatch!(self, policy => Policy::<E>::set_window(policy, entries, share, out))
    }
    fn validate(&self, entries: &E) {
        dispatch!(self, policy => policy.validate(entries))
    }
}

/// Returns the weight of an entry, which is read only if `weighted`.
#[inline]
pub(crate) fn weigh<E: Entries>(entries: &E, handle: E::Handle, weighted: bool) -> u64 {
    if weighted { entries.weight(handle) } else { 1 }
}

/// Marsaglia's xorshift (2003): sufficient to break ties unpredictably; never 0.
#[inline]
pub(crate) fn xorshift(state: &mut u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state
}
