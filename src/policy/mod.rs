//! Which entry should leave when the cache is full: sequential, safe and pure.
//!
//! A policy orders opaque [handles](Places::Handle). It knows no keys, atomics, locks or clocks: whoever drives it holds
//! it exclusively, tells it what came and went, and takes what it gives up. The same code therefore runs inside the
//! cache and, alone and at full speed, over a trace or against a naive oracle.
#![forbid(unsafe_code)]

pub(crate) mod fifo;
pub(crate) mod lfu;
pub(crate) mod lru;
pub(crate) mod random;
pub(crate) mod tinylfu;

#[cfg(test)]
mod replay_tests;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use crate::prim::list::{MAX_PLACE, Places};

/// What a policy may ask of the entries it orders, and the few bits it may keep in them.
///
/// Between [`Policy::insert`] (or `replace`, as `new`) and the moment a handle leaves (`remove`, `replace` as `old`, or
/// pushed to `out`), the policy may use it freely; never outside of that span.
///
/// Its places (where in the policy's structures an entry is) are the policy's alone; the largest numbers above
/// [`MAX_PLACE`] are the engine's own marks.
pub(crate) trait Entries: Places {
    /// 32 well-mixed bits of the key's hash; the same for the entry's whole life.
    fn hash(&self, handle: Self::Handle) -> u32;
    /// The entry's weight; 1 in a cache that counts entries. The same for the entry's whole life.
    fn weight(&self, handle: Self::Handle) -> u64;
    /// The value last given to [`set_hits`](Self::set_hits), or 0, and the hits since then, up to [`Policy::hit_limit`].
    fn hits(&self, handle: Self::Handle) -> u8;
    /// Sets the hits. A hit racing with this may be lost.
    fn set_hits(&self, handle: Self::Handle, hits: u8);
    /// Sets the hits back to 0. A hit racing with this may be lost.
    #[inline]
    fn reset_hits(&self, handle: Self::Handle) {
        self.set_hits(handle, 0);
    }
}

/// Why a policy gave an entry up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It had been admitted, and made room for others.
    Evicted,
    /// It was never admitted: it lost against a resident entry, or is heavier than the whole capacity.
    Rejected,
}

/// What a policy thinks of an entry, as a snapshot keeps it.
#[cfg_attr(not(feature = "snapshot"), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rank {
    /// How often it was used lately.
    pub(crate) uses: u8,
    /// Which of the policy's queues it is in.
    pub(crate) queue: u8,
    /// It was hit since the policy last looked at it.
    pub(crate) marked: bool,
}

/// Entries given up by a policy, for the driver to take away, in order.
pub(crate) type Evictions<H> = Vec<(H, Verdict)>;

/// One replacement policy. After any call, `weight() <= capacity()`.
#[cfg_attr(not(feature = "snapshot"), allow(dead_code))]
pub(crate) trait Policy<E: Entries> {
    /// Takes in a new entry (not yet known to the policy) and pushes to `out` what has to go, possibly `handle` itself.
    fn insert(&mut self, entries: &E, handle: E::Handle, out: &mut Evictions<E::Handle>);
    /// `new` takes the place of `old` (the same key with another value), which counts as a hit.
    /// `old` is gone afterwards. Their weights may differ, so others, or `new` itself, may be pushed to `out`.
    fn replace(&mut self, entries: &E, old: E::Handle, new: E::Handle, out: &mut Evictions<E::Handle>);
    /// Forgets an entry that was removed by someone else.
    fn remove(&mut self, entries: &E, handle: E::Handle);
    /// Told of a hit at the time it happens; only policies with [`eager_hits`](Self::eager_hits) are.
    fn hit(&mut self, entries: &E, handle: E::Handle) {
        let _ = (entries, handle);
    }
    /// Hints that an entry with this hash may soon be inserted.
    #[inline]
    fn prefetch(&self, hash: u32) {
        let _ = hash;
    }
    /// Changes the capacity, and pushes to `out` what has to go.
    fn set_capacity(&mut self, entries: &E, capacity: u64, out: &mut Evictions<E::Handle>);

    /// The bound on [`weight`](Self::weight).
    fn capacity(&self) -> u64;
    /// The number of entries held.
    fn len(&self) -> usize;
    /// The total weight of the entries held.
    fn weight(&self) -> u64;
    /// How far [`Entries::hits`] need count: 0 if the policy ignores hits, 1 if it only asks whether there was one.
    /// Below 255.
    fn hit_limit(&self) -> u8;
    /// Whether [`hit`](Self::hit) must be called for every hit.
    fn eager_hits(&self) -> bool {
        false
    }
    /// Visits the entries from the one worth most to the one that would go first; stops when `visit` returns false.
    fn hottest(&self, entries: &E, visit: &mut dyn FnMut(E::Handle) -> bool);
    /// The entry that would go first, or near to that: O(1), where [`hottest`](Self::hottest) looks at all.
    fn coldest(&mut self, entries: &E) -> Option<E::Handle>;
    /// What the policy thinks of an entry that it holds.
    fn rank(&mut self, entries: &E, handle: E::Handle) -> Rank {
        Rank {
            marked: entries.hits(handle) != 0,
            ..Rank::default()
        }
    }
    /// Takes in an entry that comes back from a snapshot, as one of this rank. Those that come later are worth more.
    fn restore(&mut self, entries: &E, handle: E::Handle, rank: Rank, out: &mut Evictions<E::Handle>) {
        entries.set_hits(handle, u8::from(rank.marked && self.hit_limit() > 0));
        self.insert(entries, handle, out);
    }
    /// The share of the capacity that new entries have to themselves, in 2^-32; 0 if there is none.
    fn window(&self) -> u32 {
        0
    }
    /// Sets that share; 0 says nothing.
    fn set_window(&mut self, entries: &E, share: u32, out: &mut Evictions<E::Handle>) {
        let _ = (entries, share, out);
    }
    /// Panics if an invariant is broken. O(n).
    fn validate(&self, entries: &E);
}

/// Which entries a full cache keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PolicyKind {
    /// Frequency and recency together (W-TinyLFU with an adaptive window): the best hit ratio on almost any workload, and
    /// next to no work on a hit.
    #[default]
    WTinyLfu,
    /// The least recently used entry goes first: exactly, as long as one thread at a time uses the cache.
    ///
    /// A hit moves its entry to the front under the maintenance lock, if that is free. If another thread holds it, the hit only
    /// marks the entry, which is moved to the front when it would be evicted. So with several threads the order is approximate:
    /// an entry is not evicted without having been passed over since its last hit, but entries may be evicted in another order.
    ///
    /// How many hits only mark depends on how often a thread meets another that holds the lock, or that was preempted while it
    /// did. Two million lookups of 10,000 entries on two cores, four runs of
    /// `cargo test --release --lib lru_hits -- --ignored --nocapture`:
    ///
    /// | threads | which only look up | with a thousand additions after each lookup |
    /// |---|---|---|
    /// | 1 | 0 | 0 |
    /// | 2 | 0.3% to 1.8% | 0 to 0.5% |
    /// | 4 | 3.3% to 4.2% | 3% to 14% |
    /// | 8 | 4.3% to 4.9% | 31% to 44% |
    Lru,
    /// The least frequently used entry goes first (counted up to 255), among equals the one that has been there longest.
    Lfu,
    /// The entry that came first goes first, used or not.
    Fifo,
    /// Any entry may go, with equal probability.
    Random,
}

/// Any of the policies, chosen at run time; dispatched by `match`, so that the calls can be inlined.
// A tag of its own: taking it out of some capacity's spare values would cost each dispatch five instructions.
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
    /// An empty policy. If not `weighted`, all weights are taken to be 1 without asking.
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

/// Says that a branch is rare.
#[cold]
fn rare() {}

/// Calls a method of whichever policy it is, as a [`Policy<E>`]. The default is tried first, instead of by a jump table.
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
    fn prefetch(&self, hash: u32) {
        dispatch!(self, policy => Policy::<E>::prefetch(policy, hash))
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

/// The weight of an entry, asked for only where weights may differ from 1.
#[inline]
pub(crate) fn weigh<E: Entries>(entries: &E, handle: E::Handle, weighted: bool) -> u64 {
    if weighted { entries.weight(handle) } else { 1 }
}

/// Marsaglia's xorshift (2003): enough to break ties unpredictably, never 0.
#[inline]
pub(crate) fn xorshift(state: &mut u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state
}
