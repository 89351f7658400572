//! Which entry should leave when the cache is full: sequential, safe and pure.
//!
//! A policy orders opaque [`Entries::Handle`]s. It knows no keys, atomics, locks or clocks: whoever drives it holds
//! it exclusively, tells it what came and went, and takes what it gives up. The same code therefore runs inside the
//! cache and, alone and at full speed, over a trace or against a naive oracle.
#![forbid(unsafe_code)]

pub(crate) mod fifo;
pub(crate) mod lfu;
pub(crate) mod lru;
pub(crate) mod random;
pub(crate) mod tinylfu;

/// What a policy may ask of the entries it orders, and the few bits it may keep in them.
///
/// Between [`Policy::insert`] (or `replace`, as `new`) and the moment a handle leaves (`remove`, `replace` as `old`, or
/// pushed to `out`), the policy may use it freely; never outside of that span.
pub(crate) trait Entries {
    /// Names one entry; as cheap to copy as a pointer.
    type Handle: Copy + Eq + std::fmt::Debug;

    /// 32 well-mixed bits of the key's hash; the same for the entry's whole life.
    fn hash(&self, handle: Self::Handle) -> u32;
    /// The entry's weight; 1 in a cache that counts entries. The same for the entry's whole life.
    fn weight(&self, handle: Self::Handle) -> u64;
    /// Hits since the last [`reset_hits`](Self::reset_hits), counted up to [`Policy::hit_limit`].
    fn hits(&self, handle: Self::Handle) -> u8;
    /// Sets the hits back to 0. A hit racing with this may be lost.
    fn reset_hits(&self, handle: Self::Handle);
    /// The value last given to [`set_place`](Self::set_place); only the policy interprets it.
    fn place(&self, handle: Self::Handle) -> u32;
    /// Keeps 24 bits with the entry: where in the policy's structures it is. `place <= MAX_PLACE`.
    fn set_place(&self, handle: Self::Handle, place: u32);
    /// Hints that the entry's hits, hash or weight will be asked for soon.
    fn prefetch(&self, handle: Self::Handle) {
        let _ = handle;
    }
}

/// The largest value [`Entries::set_place`] may be given (the two above it are the engine's own marks).
pub(crate) const MAX_PLACE: u32 = (1 << 24) - 3;

/// Why a policy gave an entry up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It had been admitted, and made room for others.
    Evicted,
    /// It was never admitted: it lost against a resident entry, or is heavier than the whole capacity.
    Rejected,
}

/// Entries given up by a policy, for the driver to take away, in order.
pub(crate) type Out<H> = Vec<(H, Verdict)>;

/// One replacement policy. After any call, `weight() <= capacity()`.
pub(crate) trait Policy<E: Entries> {
    /// Takes in a new entry (not yet known to the policy) and pushes to `out` what has to go, possibly `handle` itself.
    fn insert(&mut self, entries: &E, handle: E::Handle, out: &mut Out<E::Handle>);
    /// `new` takes the place of `old` (the same key with another value), which counts as a hit.
    /// `old` is gone afterwards. Their weights may differ, so others, or `new` itself, may be pushed to `out`.
    fn replace(&mut self, entries: &E, old: E::Handle, new: E::Handle, out: &mut Out<E::Handle>);
    /// Forgets an entry that was removed by someone else.
    fn remove(&mut self, entries: &E, handle: E::Handle);
    /// Told of a hit at the time it happens; only policies with [`eager_hits`](Self::eager_hits) are.
    fn hit(&mut self, entries: &E, handle: E::Handle) {
        let _ = (entries, handle);
    }
    /// Changes the capacity, and pushes to `out` what has to go.
    fn set_capacity(&mut self, entries: &E, capacity: u64, out: &mut Out<E::Handle>);
    /// Forgets all entries (and what is remembered of former ones), keeping the capacity.
    fn clear(&mut self);

    /// The bound on [`weight`](Self::weight).
    fn capacity(&self) -> u64;
    /// The number of entries held.
    fn len(&self) -> usize;
    /// The total weight of the entries held.
    fn weight(&self) -> u64;
    /// How far [`Entries::hits`] need count: 0 if the policy ignores hits, 1 if it only asks whether there was one.
    fn hit_limit(&self) -> u8;
    /// Whether [`hit`](Self::hit) must be called for every hit.
    fn eager_hits(&self) -> bool {
        false
    }
    /// Visits the entries from the one worth most to the one that would go first; stops when `visit` returns false.
    fn hottest(&self, entries: &E, visit: &mut dyn FnMut(E::Handle) -> bool);
    /// Panics if an invariant is broken. O(n).
    fn validate(&self, entries: &E);
}
