//! One miniature cache: the policy over a sample of the keys, at a sample of the capacity.

use crate::policy::{AnyPolicy, Entries, Evictions, MAX_PLACE, Places, Policy, PolicyKind};
use hashbrown::HashTable;
use std::cell::Cell;
use std::num::NonZeroU32;

/// A deadline, or a TTL, that never comes.
pub(crate) const NEVER: u64 = u64::MAX;
/// Slots that one access checks for expired entries. Without this, expired entries that are not
/// accessed again would take the room of others until they are evicted.
const SWEEP: usize = 4;

/// An entry by the number of its slot, plus 1.
type Handle = NonZeroU32;

/// What an insertion carries: the weight, and the times after which the entry expires: if it is not
/// used again, and at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) weight: u64,
    pub(crate) ttl: u64,
    pub(crate) max_ttl: u64,
}

impl Traits {
    /// Those of an entry without a weight or an expiration.
    pub(crate) const PLAIN: Self = Self {
        weight: 1,
        ttl: NEVER,
        max_ttl: NEVER,
    };
}

/// The deadline of an entry, the latest one that hits may set, and what both were computed from.
#[derive(Debug, Clone, Copy)]
struct Times {
    deadline: u64,
    max_deadline: u64,
    ttl: u64,
    max_ttl: u64,
}

impl Times {
    const NEVER: Self = Self {
        deadline: NEVER,
        max_deadline: NEVER,
        ttl: NEVER,
        max_ttl: NEVER,
    };
}

/// The state of a slot that every cache needs: 12 bytes.
#[derive(Debug, Default)]
struct Slot {
    hash: u32,
    place: Cell<u32>,
    hits: Cell<u8>,
    used: bool,
}

/// The entries, in slots. Weights and deadlines are kept only where entries have any.
#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    weights: Vec<u64>,
    times: Vec<Times>,
    free: Vec<Handle>,
}

fn at(handle: Handle) -> usize {
    handle.get() as usize - 1
}

impl Slots {
    fn traits(&self, handle: Handle) -> Traits {
        let Times { ttl, max_ttl, .. } = self.times(handle);
        Traits {
            weight: self.weight(handle),
            ttl,
            max_ttl,
        }
    }

    fn times(&self, handle: Handle) -> Times {
        self.times.get(at(handle)).copied().unwrap_or(Times::NEVER)
    }

    fn set_times(&mut self, handle: Handle, times: Times) {
        if self.times.is_empty() && times.ttl != NEVER {
            self.times.resize(self.slots.len(), Times::NEVER);
        }
        if let Some(place) = self.times.get_mut(at(handle)) {
            *place = times;
        }
    }

    fn add(&mut self, hash: u32, traits: Traits, now: u64, weighted: bool) -> Handle {
        let handle = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            if weighted {
                self.weights.push(0);
            }
            if !self.times.is_empty() {
                self.times.push(Times::NEVER);
            }
            // A mini has far fewer slots than 2^32; the policy evicts long before.
            Handle::new(self.slots.len() as u32).expect("slots are numbered from 1")
        });
        self.slots[at(handle)] = Slot {
            hash,
            used: true,
            ..Slot::default()
        };
        if weighted {
            self.weights[at(handle)] = traits.weight;
        }
        let Traits { ttl, max_ttl, .. } = traits;
        let (deadline, max_deadline) = (now.saturating_add(ttl), now.saturating_add(max_ttl));
        let times = Times {
            deadline,
            max_deadline,
            ttl,
            max_ttl,
        };
        self.set_times(handle, times);
        handle
    }

    fn release(&mut self, handle: Handle) {
        self.slots[at(handle)].used = false;
        self.free.push(handle);
    }
}

impl Places for Slots {
    type Handle = Handle;

    fn place(&self, handle: Handle) -> u32 {
        self.slots[at(handle)].place.get()
    }
    fn set_place(&self, handle: Handle, place: u32) {
        debug_assert!(place <= MAX_PLACE);
        self.slots[at(handle)].place.set(place);
    }
}

impl Entries for Slots {
    fn hash(&self, handle: Handle) -> u32 {
        mix(self.slots[at(handle)].hash)
    }
    fn weight(&self, handle: Handle) -> u64 {
        self.weights.get(at(handle)).copied().unwrap_or(1)
    }
    fn hits(&self, handle: Handle) -> u8 {
        self.slots[at(handle)].hits.get()
    }
    fn set_hits(&self, handle: Handle, hits: u8) {
        self.slots[at(handle)].hits.set(hits);
    }
}

/// Spreads the hash of a sampled key, which is below a threshold, over 32 bits. A bijection
/// (Murmur3's finalizer), so keys stay distinct.
pub(crate) fn mix(mut x: u32) -> u32 {
    x = (x ^ x >> 16).wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

/// The outcome of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Hit(Traits),
    Expired(Traits),
    Miss,
}

/// A miniature cache.
#[derive(Debug)]
pub(crate) struct Mini {
    kind: PolicyKind,
    policy: AnyPolicy<Slots>,
    slots: Slots,
    index: HashTable<Handle>,
    out: Evictions<Handle>,
    weighted: bool,
    /// The next slot to check for an expired entry.
    hand: usize,
}

impl Mini {
    pub(crate) fn new(kind: PolicyKind, capacity: u64, weighted: bool) -> Self {
        Self {
            kind,
            policy: AnyPolicy::new(kind, capacity, weighted),
            slots: Slots::default(),
            index: HashTable::new(),
            out: Vec::new(),
            weighted,
            hand: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether any entry has ever had a TTL.
    pub(crate) fn is_timed(&self) -> bool {
        !self.slots.times.is_empty()
    }

    fn find(&self, hash: u32) -> Option<Handle> {
        let is = |handle: &Handle| self.slots.slots[at(*handle)].hash == hash;
        self.index.find(u64_of(hash), is).copied()
    }

    /// Looks a key up. `idle` is the time to idle, by which a hit extends the deadline.
    pub(crate) fn access(&mut self, hash: u32, now: u64, idle: u64) -> Access {
        // The sweep comes second: it might remove this entry, whose traits the caller needs.
        let access = self.look_up(hash, now, idle);
        self.sweep(now);
        access
    }

    fn look_up(&mut self, hash: u32, now: u64, idle: u64) -> Access {
        let Some(handle) = self.find(hash) else {
            return Access::Miss;
        };
        let traits = self.slots.traits(handle);
        let times = self.slots.times(handle);
        if times.deadline <= now {
            self.drop_entry(handle);
            return Access::Expired(traits);
        }
        if idle != NEVER {
            let deadline = now.saturating_add(idle).min(times.max_deadline);
            self.slots.set_times(handle, Times { deadline, ..times });
        }
        let limit = self.policy.hit_limit();
        let hits = self.slots.hits(handle);
        if self.policy.eager_hits() {
            self.policy.hit(&self.slots, handle);
        } else if hits < limit {
            self.slots.set_hits(handle, hits + 1);
        }
        Access::Hit(traits)
    }

    /// Inserts a key, or replaces it.
    pub(crate) fn insert(&mut self, hash: u32, traits: Traits, now: u64) {
        let old = self.find(hash);
        let new = self.slots.add(hash, traits, now, self.weighted);
        match old {
            Some(old) => {
                self.unindex(old);
                self.policy.replace(&self.slots, old, new, &mut self.out);
                self.slots.release(old);
            }
            None => self.policy.insert(&self.slots, new, &mut self.out),
        }
        let Self { index, slots, .. } = self;
        index.insert_unique(u64_of(hash), new, |handle| u64_of(slots.slots[at(*handle)].hash));
        self.drop_evicted();
    }

    /// Whether the key is present and has not expired.
    pub(crate) fn contains(&self, hash: u32, now: u64) -> bool {
        self.find(hash)
            .is_some_and(|handle| self.slots.times(handle).deadline > now)
    }

    pub(crate) fn remove(&mut self, hash: u32) {
        if let Some(handle) = self.find(hash) {
            self.drop_entry(handle);
        }
    }

    /// Removes the keys whose hash is not below `threshold`, and sets the capacity.
    pub(crate) fn thin_out(&mut self, threshold: u32, capacity: u64) {
        for n in 0..self.slots.slots.len() {
            if self.slots.slots[n].used && self.slots.slots[n].hash >= threshold {
                self.drop_entry(Handle::new(n as u32 + 1).expect("slots are numbered from 1"));
            }
        }
        self.policy.set_capacity(&self.slots, capacity, &mut self.out);
        self.drop_evicted();
    }

    /// Removes all keys.
    pub(crate) fn clear(&mut self, capacity: u64) {
        *self = Self::new(self.kind, capacity, self.weighted);
    }

    fn sweep(&mut self, now: u64) {
        if self.slots.times.is_empty() {
            return;
        }
        for _ in 0..SWEEP.min(self.slots.slots.len()) {
            self.hand = (self.hand + 1) % self.slots.slots.len();
            if self.slots.slots[self.hand].used && self.slots.times[self.hand].deadline <= now {
                self.drop_entry(Handle::new(self.hand as u32 + 1).expect("slots are numbered from 1"));
            }
        }
    }

    fn drop_entry(&mut self, handle: Handle) {
        self.policy.remove(&self.slots, handle);
        self.unindex(handle);
        self.slots.release(handle);
    }

    fn drop_evicted(&mut self) {
        while let Some((gone, _)) = self.out.pop() {
            self.unindex(gone);
            self.slots.release(gone);
        }
    }

    fn unindex(&mut self, handle: Handle) {
        let hash = self.slots.slots[at(handle)].hash;
        if let Ok(found) = self.index.find_entry(u64_of(hash), |&other| other == handle) {
            found.remove();
        }
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn validate(&self) {
        self.policy.validate(&self.slots);
        assert_eq!(self.policy.len(), self.index.len());
    }
}

/// The hash by which the index finds a key.
fn u64_of(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
