//! Entries for tests of policies, and checks that hold for each policy.

use super::*;
use crate::prim::ghost::{Ghost, Now, Region};
use crate::prim::list::with_limit;
use crate::prim::memory::refusal::with_most;
use crate::prim::sketch::naive;
use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;

pub(crate) type Handle = NonZeroU64;

#[derive(Debug, Default)]
struct Entry {
    hash: u32,
    weight: u64,
    hits: Cell<u8>,
    place: Cell<u32>,
}

/// Entries in a vector, named by their index plus 1.
#[derive(Debug, Default)]
pub(crate) struct Store(Vec<Entry>);

impl Store {
    pub(crate) fn add(&mut self, hash: u32, weight: u64) -> Handle {
        self.0.push(Entry {
            hash,
            weight,
            ..Default::default()
        });
        NonZeroU64::new(self.0.len() as u64).unwrap()
    }

    /// Replaces the entry at a handle by a new one.
    pub(crate) fn reuse(&mut self, handle: Handle, hash: u32) -> Handle {
        *self.at_mut(handle) = Entry {
            hash,
            weight: 1,
            ..Default::default()
        };
        handle
    }

    pub(crate) fn touch(&self, handle: Handle, limit: u8) {
        let hits = &self.at(handle).hits;
        hits.set((hits.get().saturating_add(1)).min(limit));
    }

    fn at(&self, handle: Handle) -> &Entry {
        &self.0[handle.get() as usize - 1]
    }

    fn at_mut(&mut self, handle: Handle) -> &mut Entry {
        &mut self.0[handle.get() as usize - 1]
    }
}

impl Places for Store {
    type Handle = Handle;

    fn place(&self, handle: Handle) -> u32 {
        self.at(handle).place.get()
    }
    fn set_place(&self, handle: Handle, place: u32) {
        assert!(place <= MAX_PLACE);
        self.at(handle).place.set(place);
    }
}

impl Entries for Store {
    fn hash(&self, handle: Handle) -> u32 {
        self.at(handle).hash
    }
    fn weight(&self, handle: Handle) -> u64 {
        self.at(handle).weight
    }
    fn hits(&self, handle: Handle) -> u8 {
        self.at(handle).hits.get()
    }
    fn set_hits(&self, handle: Handle, hits: u8) {
        self.at(handle).hits.set(hits);
    }
}

pub(crate) struct XorShift(pub(crate) u32);

impl XorShift {
    pub(crate) fn next(&mut self) -> u32 {
        xorshift(&mut self.0)
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.next().wrapping_mul(0x9E37_79B9)) * u64::from(bound)) >> 32) as u32
    }
}

pub(crate) const KINDS: [PolicyKind; 5] = [
    PolicyKind::WTinyLfu,
    PolicyKind::Lru,
    PolicyKind::Lfu,
    PolicyKind::Fifo,
    PolicyKind::Random,
];

fn same(policy: &AnyPolicy<Store>, store: &Store, live: &[Handle]) {
    policy.validate(store);
    assert!(policy.weight() <= policy.capacity());
    assert_eq!(policy.len(), live.len());
    assert_eq!(
        policy.weight(),
        live.iter().map(|&handle| store.weight(handle)).sum::<u64>()
    );
    let (mut seen, mut live) = (Vec::new(), live.to_vec());
    policy.hottest(store, &mut |handle| {
        seen.push(handle);
        true
    });
    seen.sort_unstable();
    live.sort_unstable();
    assert_eq!(seen, live);
}

/// Runs random operations on a policy. It must hold exactly the entries that were inserted and have
/// not left.
fn exercise(kind: PolicyKind, weighted: bool, capacity: u64, seed: u32, steps: u32) {
    let mut rng = XorShift(seed);
    let mut store = Store::default();
    let mut policy = AnyPolicy::<Store>::new(kind, capacity, weighted);
    let (mut live, mut out) = (Vec::<Handle>::new(), Vec::new());
    for _ in 0..steps {
        let top = [2, 9, 60][rng.below(3) as usize];
        let weight = if weighted { u64::from(rng.below(top)) } else { 1 };
        let any = (!live.is_empty()).then(|| rng.below(live.len() as u32) as usize);
        match (rng.below(24), any) {
            (0..8, _) => {
                let handle = store.add(rng.below(300).wrapping_mul(0x9E37_79B9), weight);
                if rng.below(6) > 0 {
                    policy.insert(&store, handle, &mut out);
                } else {
                    let rank = Rank {
                        uses: rng.below(20) as u8,
                        queue: rng.below(4) as u8,
                        marked: rng.below(2) > 0,
                    };
                    policy.restore(&store, handle, rank, &mut out);
                }
                live.push(handle);
                if weight > policy.capacity() {
                    assert_eq!(
                        out,
                        [(handle, Verdict::Rejected)],
                        "an entry that cannot fit evicts no other"
                    );
                }
            }
            (8..20, Some(at)) => {
                store.touch(live[at], policy.hit_limit());
                if policy.eager_hits() && rng.below(4) > 0 {
                    policy.hit(&store, live[at]);
                }
            }
            (20..22, Some(at)) => {
                let new = store.add(store.hash(live[at]), weight);
                policy.replace(&store, live[at], new, &mut out);
                live[at] = new;
            }
            (22, Some(at)) => policy.remove(&store, live.swap_remove(at)),
            (23, _) if rng.below(8) == 0 => {
                let capacity = u64::from(rng.below(2 * capacity.min(1000) as u32 + 2));
                policy.set_capacity(&store, capacity, &mut out);
            }
            _ => {}
        }
        for (gone, _) in out.drain(..) {
            let at = live.iter().position(|&handle| handle == gone).expect("given up once");
            live.swap_remove(at);
        }
        same(&policy, &store, &live);
    }
}

#[test]
fn every_policy_counts_exactly() {
    for kind in KINDS {
        for (seed, capacity) in [0, 1, 2, 7, 100, 400].into_iter().enumerate() {
            for weighted in [false, true] {
                exercise(kind, weighted, capacity, seed as u32 + 1, 1200);
            }
        }
    }
}

/// With slabs that cannot grow and sketches without memory, entries make room, and the counts are
/// right.
#[test]
fn policy_without_memory_evicts_and_counts_exactly() {
    for kind in KINDS {
        for (seed, chunks) in [0, 1, 2, 3, 5, 9].into_iter().enumerate() {
            for (weighted, bytes) in [(false, usize::MAX), (true, usize::MAX), (false, 100), (true, 100)] {
                let run = || exercise(kind, weighted, 5_000, seed as u32 + 40, 1_000);
                with_most(bytes, || with_limit(chunks, run));
                let run = || exercise(kind, weighted, 60, seed as u32 + 50, 500);
                with_most(bytes, || with_limit(chunks, run));
            }
        }
    }
}

/// A heavier value that replaces another and fits the capacity is not evicted to make room for
/// itself.
#[test]
fn policy_replace_by_heavier_value_keeps_entry() {
    for kind in KINDS {
        for (seed, capacity) in [1, 5, 20, 100, 1000].into_iter().enumerate() {
            let mut rng = XorShift(seed as u32 + 70);
            let mut store = Store::default();
            let (mut policy, mut out) = (AnyPolicy::<Store>::new(kind, capacity, true), Vec::new());
            let mut live = Vec::<Handle>::new();
            for _ in 0..3_000 {
                let replaces = !live.is_empty() && rng.below(3) == 0;
                if replaces {
                    let at = rng.below(live.len() as u32) as usize;
                    let weight = u64::from(rng.below(capacity as u32 + 1));
                    let new = store.add(store.hash(live[at]), weight);
                    policy.replace(&store, live[at], new, &mut out);
                    live[at] = new;
                    assert!(out.iter().all(|&(gone, _)| gone != new), "{kind:?}, {capacity}");
                } else {
                    let handle = store.add(rng.below(3000).wrapping_mul(0x9E37_79B9), u64::from(rng.below(4)));
                    policy.insert(&store, handle, &mut out);
                    live.push(handle);
                }
                live.retain(|&handle| out.iter().all(|&(gone, _)| gone != handle));
                out.clear();
                same(&policy, &store, &live);
            }
        }
    }
}

/// Under FIFO a replaced entry keeps its position, also if other entries had to make room for it.
#[test]
fn policy_fifo_replace_keeps_position() {
    let mut store = Store::default();
    let (mut policy, mut out) = (AnyPolicy::<Store>::new(PolicyKind::Fifo, 10, true), Vec::new());
    let entries: Vec<Handle> = (0..5).map(|n| store.add(n, 2)).collect();
    for &entry in &entries {
        policy.insert(&store, entry, &mut out);
    }
    let heavier = store.add(0, 5);
    policy.replace(&store, entries[0], heavier, &mut out);
    assert_eq!(out, [(entries[1], Verdict::Evicted), (entries[2], Verdict::Evicted)]);
    out.clear();
    let next = store.add(9, 2);
    policy.insert(&store, next, &mut out);
    assert_eq!(out, [(heavier, Verdict::Evicted)]);
    policy.validate(&store);
}

/// A full slab admits new entries one for one.
#[test]
fn policy_with_full_slab_admits_new_entries() {
    for kind in KINDS {
        let chunks = 4;
        let most = if kind == PolicyKind::Random { 32 } else { 28 } * chunks as usize;
        with_limit(chunks, || {
            let mut store = Store::default();
            let (mut policy, mut out) = (AnyPolicy::<Store>::new(kind, 1 << 30, false), Vec::new());
            let mut gone = HashSet::new();
            for n in 0..3_000u32 {
                let handle = store.add(n.wrapping_mul(0x9E37_79B9), 1);
                policy.insert(&store, handle, &mut out);
                assert!(out.len() <= 28, "{kind:?}: at most a chunk is given up at a time");
                gone.extend(out.drain(..).map(|(gone, _)| gone));
                assert!(!gone.contains(&handle), "{kind:?}: the new one stays");
                assert_eq!(policy.len() + gone.len(), n as usize + 1);
                assert!(policy.len() <= most);
                assert!((n as usize) < most || policy.len() >= most - 28, "{kind:?}");
            }
            policy.validate(&store);
        });
    }
}

#[test]
fn huge_capacities_and_weights_do_not_overflow() {
    for kind in KINDS {
        let mut store = Store::default();
        let (mut policy, mut out) = (AnyPolicy::<Store>::new(kind, u64::MAX, true), Vec::new());
        let mut live = Vec::new();
        for n in 0..100u32 {
            let weight = [1, u64::MAX, u64::MAX / 3, 0, u64::MAX - 5][n as usize % 5];
            let handle = store.add(n.wrapping_mul(0x9E37_79B9), weight);
            live.push(handle);
            policy.insert(&store, handle, &mut out);
            if n % 7 == 0 && policy.len() > 0 {
                let old = live
                    .iter()
                    .rev()
                    .find(|&&handle| out.iter().all(|gone| gone.0 != handle));
                if let Some(&old) = old {
                    let new = store.add(n, u64::MAX - u64::from(n));
                    live.retain(|&handle| handle != old);
                    live.push(new);
                    policy.replace(&store, old, new, &mut out);
                }
            }
            live.retain(|&handle| out.iter().all(|gone| gone.0 != handle));
            out.clear();
            policy.validate(&store);
            assert_eq!(policy.len(), live.len());
        }
        let mut policy = AnyPolicy::<Store>::new(kind, u64::MAX, false);
        for n in 0..5000u32 {
            let handle = store.add(n.wrapping_mul(0x9E37_79B9), 1);
            policy.insert(&store, handle, &mut out);
        }
        assert!(out.is_empty());
        assert_eq!(policy.len(), 5000);
    }
}

#[test]
fn policy_of_capacity_one_holds_the_newest() {
    for kind in KINDS {
        let mut store = Store::default();
        let (mut policy, mut out) = (AnyPolicy::<Store>::new(kind, 1, false), Vec::new());
        let mut last = store.add(0, 1);
        policy.insert(&store, last, &mut out);
        for n in 1..50u32 {
            let next = store.add(n.wrapping_mul(0x9E37_79B9), 1);
            policy.insert(&store, next, &mut out);
            assert_eq!(out, [(last, Verdict::Evicted)], "{kind:?}");
            out.clear();
            last = next;
        }
    }
}

#[test]
fn simple_policies_evict_in_their_order() {
    for (kind, capacity) in KINDS[1..]
        .iter()
        .flat_map(|&kind| [3, 40, 200].map(|capacity| (kind, capacity)))
    {
        let mut rng = XorShift(capacity);
        let mut store = Store::default();
        let (mut policy, mut out) = (AnyPolicy::<Store>::new(kind, capacity.into(), false), Vec::new());
        // In the order of insertion (or use, for LRU), with the uses of each.
        let mut model: Vec<(Handle, u32)> = Vec::new();
        for _ in 0..6000 {
            let skewed = rng.below(capacity) * rng.below(capacity) / capacity;
            if rng.below(3) > 0 && model.len() == capacity as usize {
                let handle = model[skewed as usize].0;
                store.touch(handle, policy.hit_limit());
                if policy.eager_hits() {
                    policy.hit(&store, handle);
                }
                model[skewed as usize].1 += 1;
                if kind == PolicyKind::Lru {
                    let used = model.remove(skewed as usize);
                    model.push(used);
                }
                continue;
            }
            let handle = store.add(rng.next(), 1);
            policy.insert(&store, handle, &mut out);
            for (gone, _) in out.drain(..) {
                let at = model.iter().position(|&(other, _)| other == gone).expect("a resident");
                match kind {
                    PolicyKind::Fifo | PolicyKind::Lru => assert_eq!(at, 0),
                    PolicyKind::Lfu => {
                        let least = model.iter().map(|&(_, uses)| uses.min(255)).min();
                        assert_eq!(Some(model[at].1.min(255)), least);
                    }
                    _ => {}
                }
                model.remove(at);
            }
            model.push((handle, 0));
        }
        policy.validate(&store);
    }
}

/// W-TinyLFU as in `tinylfu`, in the simplest form. The front of a queue is its head.
pub(crate) struct Naive {
    cap: usize,
    pub(crate) window: VecDeque<Handle>,
    pub(crate) probation: VecDeque<Handle>,
    pub(crate) protected: VecDeque<Handle>,
    pub(crate) marks: HashSet<Handle>,
    /// The estimated uses of each entry at its insertion.
    uses: HashMap<Handle, u8>,
    /// The victim that won against the last candidate: its hash, its estimate, and the number of
    /// candidates left to compare with it.
    rival: Option<(u16, u8, u8)>,
    pub(crate) w: usize,
    sketch: Option<naive::Sketch>,
    ghost: Ghost,
    arrivals: u32,
    departures: u32,
    random: u32,
    pub(crate) out: Vec<Handle>,
}

impl Naive {
    pub(crate) fn new(cap: usize) -> Self {
        Self {
            cap,
            window: VecDeque::new(),
            probation: VecDeque::new(),
            protected: VecDeque::new(),
            marks: HashSet::new(),
            uses: HashMap::new(),
            rival: None,
            w: (cap / 20).max(1),
            sketch: None,
            ghost: Ghost::new(),
            arrivals: 0,
            departures: 0,
            random: 0x9E37_79B9,
            out: Vec::new(),
        }
    }

    fn tick(&self) -> u32 {
        (self.cap / 10 / 32).max(1) as u32
    }

    fn now(&self) -> Now {
        [self.arrivals / self.tick(), self.departures / self.tick()]
    }

    fn total(&self) -> usize {
        self.window.len() + self.probation.len() + self.protected.len()
    }

    fn flush(&mut self, store: &Store, handle: Handle) -> bool {
        let hit = self.marks.remove(&handle);
        if let (true, Some(sketch)) = (hit, &mut self.sketch) {
            sketch.add(store.hash(handle));
        }
        hit
    }

    fn estimate(&self, store: &Store, handle: Handle) -> u8 {
        self.sketch
            .as_ref()
            .map_or(0, |sketch| sketch.estimate(store.hash(handle)))
    }

    fn record_departure(&mut self, store: &Store, handle: Handle, region: Region) {
        self.departures += u32::from(region == Region::Main);
        for queue in [&mut self.window, &mut self.probation, &mut self.protected] {
            queue.retain(|&other| other != handle);
        }
        self.ghost.put(store.hash(handle), region, self.now());
        self.uses.remove(&handle);
        self.out.push(handle);
    }

    fn victim(&mut self, store: &Store) -> Option<Handle> {
        let mut g = 0;
        loop {
            if let Some(&v) = self.probation.back() {
                g += 1;
                if !(self.flush(store, v) && g < 64) {
                    return Some(v);
                }
                self.probation.pop_back();
                self.protected.push_front(v);
                while self.protected.len() > (self.cap - self.w) * 7 / 10 && g < 64 {
                    let t = self.protected.pop_back().unwrap();
                    g += 1;
                    if self.flush(store, t) {
                        &mut self.protected
                    } else {
                        &mut self.probation
                    }
                    .push_front(t);
                }
            } else {
                let &t = self.protected.back()?;
                g += 1;
                if !(self.flush(store, t) && g < 64) {
                    return Some(t);
                }
                self.protected.rotate_right(1);
            }
        }
    }

    pub(crate) fn insert(&mut self, store: &Store, handle: Handle) {
        let (least, most) = ((self.cap / 100).max(1), (self.cap * 99 / 100).max(1));
        let begin = if self.cap <= 1024 { self.cap / 32 } else { self.cap };
        if self.total() >= begin && self.sketch.is_none() {
            self.sketch = Some(naive::Sketch::new(self.cap as u64));
            assert!(self.ghost.reset(self.cap as u64));
            (self.arrivals, self.departures) = (self.fill_arrivals(), 0);
        }
        let count = self.sketch.as_mut().map_or(0, |sketch| sketch.add(store.hash(handle)));
        self.arrivals += 1;
        let found = self.ghost.take(store.hash(handle), self.now());
        self.uses.insert(handle, if found.is_none() { count } else { 15 });
        let age = found.map_or(0, |(_, ticks)| (ticks * self.tick()) as usize);
        let mut destination = &mut self.window;
        match found {
            Some((Region::Window, _)) => {
                if age <= self.cap / 10 {
                    self.w = (self.w + 1).min(most);
                }
                if age <= self.cap * 3 / 10 {
                    destination = &mut self.probation;
                }
            }
            Some((Region::Main, _)) if age <= self.cap / 10 => self.w = (self.w - 1).max(least),
            _ => {}
        }
        destination.push_front(handle);
        while self.window.len() > self.w {
            let c = *self.window.back().unwrap();
            let main = self.probation.len() + self.protected.len();
            let mut bar = 0;
            if self.total() > self.cap && main > 0 {
                bar = 1;
                let tail = self.probation.back().copied();
                if let Some((rival, uses, left)) = &mut self.rival
                    && *left > 0
                    && tail.is_some_and(|tail| store.hash(tail) as u16 == *rival && !self.marks.contains(&tail))
                {
                    *left -= 1;
                    bar = *uses;
                }
            }
            let hit = self.flush(store, c);
            if self.total() > self.cap {
                let hopeless = bar > 0 && self.uses[&c] <= bar && !hit;
                let ours = if hopeless { 0 } else { self.estimate(store, c) };
                let victim = if ours <= 1 && main > 0 {
                    None
                } else {
                    self.victim(store)
                };
                let Some(v) = victim else {
                    self.record_departure(store, c, Region::Window);
                    continue;
                };
                let theirs = self.estimate(store, v);
                if ours > theirs || (ours >= 6 && xorshift(&mut self.random).is_multiple_of(128)) {
                    self.rival = None;
                    self.record_departure(store, v, Region::Main);
                } else {
                    self.rival = Some((store.hash(v) as u16, theirs.clamp(1, 5), 31));
                    self.record_departure(store, c, Region::Window);
                    continue;
                }
            }
            self.window.pop_back();
            self.probation.push_front(c);
        }
        while self.total() > self.cap {
            if let Some(v) = self.victim(store) {
                self.rival = None;
                self.record_departure(store, v, Region::Main);
            } else {
                let tail = *self.window.back().unwrap();
                self.flush(store, tail);
                self.record_departure(store, tail, Region::Window);
            }
        }
    }

    /// The clock counts single events until the cache is full, and ticks from then on, in step with
    /// the policy.
    fn fill_arrivals(&self) -> u32 {
        self.arrivals * self.tick()
    }
}
