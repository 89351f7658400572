//! Random sequences of calls, and of steps of the clock, against a `HashMap` of values with
//! deadlines.
//!
//! The model learns of evictions from the removal listener and predicts all else: what every call
//! returns, when each entry expires, and which entries are removed in a call and why.

use hotset::{Cache, Cause, Expiry, ManualClock, Policy, Ttl};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The wheel's tick. Also the smallest difference by which a hit moves a deadline, unless the time
/// to idle itself is that short.
const TICK: u64 = 1 << 20;
const NEVER: u64 = u64::MAX;
const YEAR: u64 = 365 * 24 * 3600;

#[derive(Debug, Clone)]
enum Call {
    Advance(Duration),
    /// The largest change of a TTL, in percent.
    AdvanceInLife(u32),
    Insert(u8),
    InsertWithTtl(u8, Ttl),
    Get(u8),
    GetWith(u8),
    ReaderGet(u8),
    GetMany(Vec<u8>),
    Contains(u8),
    Remaining(u8),
    Remove(u8),
    RemoveIf(u8, bool),
    Compute(u8, bool),
    ComputeWithTtl(u8, Ttl),
    Load(u8),
    LoadWithTtl(u8, Ttl),
    Fail(u8),
    Clear,
    SetCapacity(u64),
    RunPending,
    Iter,
    Hottest,
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        1 => Just(0),
        1 => 1..2 * TICK,
        1 => Just(1_000_000),
        2 => (1..3000u64).prop_map(|ms| ms * 1_000_000),
        2 => (1..20u64).prop_map(|secs| secs * 1_000_000_000),
        1 => 1..400_000_000_000_000u64, // days
        1 => (1..60 * YEAR).prop_map(|secs| secs * 1_000_000_000),
    ]
    .prop_map(Duration::from_nanos)
}

fn ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![
        6 => duration().prop_map(Ttl::After),
        1 => Just(Ttl::After(Duration::MAX)),
        1 => Just(Ttl::Never),
        2 => Just(Ttl::Keep),
        1 => Just(Ttl::Default),
    ]
}

fn call(keys: u8) -> impl Strategy<Value = Call> {
    let key = move || 0..keys;
    prop_oneof![
        8 => duration().prop_map(Call::Advance),
        16 => (1..150u32).prop_map(Call::AdvanceInLife),
        6 => key().prop_map(Call::Insert),
        12 => (key(), ttl()).prop_map(|(k, ttl)| Call::InsertWithTtl(k, ttl)),
        8 => key().prop_map(Call::Get),
        2 => key().prop_map(Call::GetWith),
        2 => key().prop_map(Call::ReaderGet),
        1 => prop::collection::vec(key(), 0..80).prop_map(Call::GetMany),
        2 => key().prop_map(Call::Contains),
        3 => key().prop_map(Call::Remaining),
        3 => key().prop_map(Call::Remove),
        2 => (key(), any::<bool>()).prop_map(|(k, agrees)| Call::RemoveIf(k, agrees)),
        3 => (key(), any::<bool>()).prop_map(|(k, keeps)| Call::Compute(k, keeps)),
        5 => (key(), ttl()).prop_map(|(k, ttl)| Call::ComputeWithTtl(k, ttl)),
        3 => key().prop_map(Call::Load),
        3 => (key(), ttl()).prop_map(|(k, ttl)| Call::LoadWithTtl(k, ttl)),
        1 => key().prop_map(Call::Fail),
        1 => Just(Call::Clear),
        2 => (0..40u64).prop_map(Call::SetCapacity),
        4 => Just(Call::RunPending),
        1 => Just(Call::Iter),
        1 => Just(Call::Hottest),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![
        Policy::WTinyLfu,
        Policy::Lru,
        Policy::Lfu,
        Policy::Fifo,
        Policy::Random,
    ])
}

/// A custom expiry with every case: no deadline, expired immediately, an earlier deadline, a later
/// one, the same.
struct Whims;

impl Expiry<u8, u64> for Whims {
    fn after_create(&self, _: &u8, id: &u64) -> Option<Duration> {
        [
            None,
            Some(Duration::ZERO),
            Some(Duration::from_millis(700)),
            Some(Duration::from_secs(id % 50)),
            Some(Duration::from_secs(40 * YEAR)),
        ][*id as usize % 5]
    }

    fn after_update(&self, _: &u8, id: &u64, remaining: Option<Duration>) -> Option<Duration> {
        match id % 4 {
            0 => None,
            1 => Some(Duration::from_secs(5)),
            2 => remaining.map(|left| left / 2),
            _ => remaining,
        }
    }

    fn after_read(&self, key: &u8, id: &u64, remaining: Option<Duration>) -> Option<Duration> {
        match (u64::from(*key) + id) % 8 {
            0 => None,
            1 => Some(Duration::ZERO),
            2 => Some(Duration::from_millis(1)),
            3 => Some(Duration::from_secs(30)),
            4 => remaining.map(|left| left.saturating_add(Duration::from_nanos(TICK / 2))),
            5 => remaining.map(|left| left / 3),
            _ => remaining,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    time_to_live: Option<u64>,
    time_to_idle: Option<u64>,
    expiry: bool,
}

fn settings() -> impl Strategy<Value = Settings> {
    let life = || prop_oneof![Just(None), duration().prop_map(|life| Some(nanos(life).max(1)))];
    (life(), life(), prop::bool::weighted(0.4)).prop_map(|(time_to_live, time_to_idle, expiry)| Settings {
        time_to_live,
        time_to_idle,
        expiry,
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Weights, by the value; many are zero.
fn some(id: u64) -> u64 {
    (id % 9).saturating_sub(2)
}

/// An entry of the model. Its value is a number that no other entry has.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: u64,
    deadline: u64,
    limit: u64,
}

type Log = Arc<Mutex<Vec<(u8, u64, Cause)>>>;

struct Pair {
    cache: Cache<u8, u64>,
    log: Log,
    clock: ManualClock,
    settings: Settings,
    weighted: bool,
    bounded: bool,
    /// The live entries.
    alive: HashMap<u8, Known>,
    /// The deadlines of expired entries, by value, that the listener has not been called with yet.
    ended: HashMap<u64, u64>,
    /// In nanoseconds of the cache's time: one more than the clock shows.
    now: u64,
    last: u64,
}

impl Pair {
    fn new(settings: Settings, policy: Policy, capacity: Option<u64>, weighted: bool) -> Self {
        let (log, clock) = (Log::default(), ManualClock::new());
        let seen = log.clone();
        let mut builder = Cache::builder()
            .policy(policy)
            .clock(clock.clone())
            .on_removal(move |key: &u8, id: &u64, cause| seen.lock().unwrap().push((*key, *id, cause)));
        builder = match (capacity, weighted) {
            (capacity, false) => builder.max_entries(capacity.map_or(1000, |entries| entries as usize)),
            (capacity, true) => builder
                .max_weight(capacity.unwrap_or(10_000))
                .weigher(|_, id| some(*id)),
        };
        if let Some(ttl) = settings.time_to_live {
            builder = builder.time_to_live(Duration::from_nanos(ttl));
        }
        if let Some(idle) = settings.time_to_idle {
            builder = builder.time_to_idle(Duration::from_nanos(idle));
        }
        if settings.expiry {
            builder = builder.expiry(Whims);
        }
        Self {
            cache: builder.build().unwrap(),
            log,
            clock,
            settings,
            weighted,
            bounded: capacity.is_some(),
            alive: HashMap::new(),
            ended: HashMap::new(),
            now: 1,
            last: 0,
        }
    }

    /// Returns the instant `after` from now.
    fn after(&self, life: Option<Duration>) -> u64 {
        life.map_or(NEVER, |life| self.now.saturating_add(nanos(life)))
    }

    fn idle_end(&self) -> u64 {
        self.after(self.settings.time_to_idle.map(Duration::from_nanos))
    }

    fn left(&self, deadline: u64) -> Option<Duration> {
        (deadline != NEVER).then(|| Duration::from_nanos(deadline - self.now))
    }

    /// Returns a new entry that replaces `old`.
    fn made(&self, key: u8, id: u64, ttl: Ttl, old: Option<Known>) -> Known {
        let default = self.after(self.settings.time_to_live.map(Duration::from_nanos));
        let limit = match (ttl, old) {
            (Ttl::Keep, Some(old)) => old.limit,
            (Ttl::Default | Ttl::Keep, _) => default,
            (Ttl::After(ttl), _) => self.after(Some(ttl)),
            (Ttl::Never, _) => NEVER,
        };
        let mut deadline = limit.min(self.idle_end());
        if self.settings.expiry {
            let life = match old {
                None => Whims.after_create(&key, &id),
                Some(old) => Whims.after_update(&key, &id, self.left(old.deadline)),
            };
            deadline = deadline.min(self.after(life));
        }
        Known { id, deadline, limit }
    }

    /// Checks a lookup that returned `got`. An entry that was not found must be removed by the end
    /// of the call.
    fn found(&mut self, key: u8, got: Option<u64>) {
        let Some(got) = got else {
            if let Some(known) = self.alive.get(&key) {
                assert!(self.bounded, "{known:?} is alive at {}", self.now);
            }
            return;
        };
        let mut known = *self.alive.get(&key).expect("only what is alive is found");
        assert_eq!(got, known.id);
        let mut deadline = known.limit.min(self.idle_end());
        if self.settings.expiry {
            let life = Whims.after_read(&key, &got, self.left(known.deadline));
            deadline = deadline.min(self.after(life));
        }
        let grain = self.settings.time_to_idle.map_or(TICK, |idle| TICK.min(idle / 8));
        if deadline.abs_diff(known.deadline) >= grain {
            known.deadline = deadline;
        }
        self.enter(key, known);
    }

    fn enter(&mut self, key: u8, known: Known) {
        if known.deadline <= self.now {
            self.alive.remove(&key);
            self.ended.insert(known.id, known.deadline);
        } else {
            self.alive.insert(key, known);
        }
    }

    /// Checks an entry that the call removed, if it was there and had not been evicted before.
    fn leaves(&mut self, key: u8, cause: Cause, events: &mut Vec<(u8, u64, Cause)>) -> Option<Known> {
        let known = self.alive.remove(&key)?;
        let at = events.iter().position(|(_, id, _)| *id == known.id);
        let (of, _, shown) = events.remove(at.unwrap_or_else(|| panic!("the listener was not shown {known:?}")));
        assert_eq!(of, key);
        if self.bounded && shown == Cause::Size {
            return None;
        }
        assert_eq!(shown, cause, "{known:?}");
        Some(known)
    }

    /// A new value was inserted.
    fn put(&mut self, key: u8, id: u64, ttl: Ttl, events: &mut Vec<(u8, u64, Cause)>) {
        let old = self.alive.contains_key(&key);
        let old = old.then(|| self.leaves(key, Cause::Replaced, events)).flatten();
        self.enter(key, self.made(key, id, ttl, old));
    }

    /// Checks the listener's calls besides the removal by the call itself.
    fn settle(&mut self, events: Vec<(u8, u64, Cause)>) {
        for (key, id, cause) in events {
            match cause {
                Cause::Expired => {
                    let over = self.ended.remove(&id);
                    assert!(over.is_some(), "{id} of {key} was not over, or was shown before");
                }
                Cause::Size if self.bounded => {
                    let known = self.alive.remove(&key);
                    assert_eq!(known.map(|known| known.id), Some(id), "alive until then");
                }
                _ => panic!("{id} of {key} left: {cause:?}"),
            }
        }
    }

    /// Returns the listener's calls since the last check.
    fn seen(&self) -> Vec<(u8, u64, Cause)> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.now = (self.now - 1)
            .saturating_add(nanos(by))
            .saturating_add(1)
            .min(u64::MAX - 1);
        for (key, known) in std::mem::take(&mut self.alive) {
            self.enter(key, known);
        }
    }

    fn run_pending(&mut self) {
        self.cache.run_pending();
        let events = self.seen();
        self.settle(events);
        self.cache.validate();
        // No tick begins after the largest timestamp.
        if self.now < u64::MAX - TICK {
            let late = self.ended.values().find(|over| **over + TICK <= self.now);
            assert_eq!(late, None, "a tick later, expired entries are gone (now: {})", self.now);
        }
        let entries: HashMap<u8, u64> = self.cache.iter().collect();
        let alive: HashMap<u8, u64> = self.alive.iter().map(|(key, known)| (*key, known.id)).collect();
        assert_eq!(entries, alive);
        assert_eq!(self.cache.len(), self.alive.len() + self.ended.len());
        let ids = self.alive.values().map(|known| &known.id).chain(self.ended.keys());
        let weight: u64 = ids.map(|id| if self.weighted { some(*id) } else { 1 }).sum();
        assert_eq!(self.cache.weight(), weight);
        assert!(weight <= self.cache.capacity());
    }

    fn call(&mut self, call: Call) {
        self.last += 1;
        let (id, now_in) = (self.last, self.alive.clone());
        let before = |key: u8| now_in.get(&key).map(|known| known.id);
        let cache = self.cache.clone();
        // An entry that is absent though not expired was evicted: `settle` removes it from the
        // model, and the end of the test checks that.
        let mut missed = Vec::new();
        let mut events = Vec::new();
        match call {
            Call::Advance(by) => self.advance(by),
            Call::AdvanceInLife(percent) => {
                let life = self.settings.time_to_idle.or(self.settings.time_to_live);
                self.advance(Duration::from_nanos(
                    life.unwrap_or(10_000_000_000) / 100 * u64::from(percent),
                ));
            }
            Call::Insert(key) => {
                cache.insert(key, id);
                events = self.seen();
                self.put(key, id, Ttl::Default, &mut events);
            }
            Call::InsertWithTtl(key, ttl) => {
                cache.insert_with_ttl(key, id, ttl);
                events = self.seen();
                self.put(key, id, ttl, &mut events);
            }
            Call::Get(key) => {
                let got = cache.get(&key);
                missed.extend(got.is_none().then_some(key));
                self.found(key, got);
            }
            Call::GetWith(key) => {
                let got = cache.get_with(&key, |id| *id);
                missed.extend(got.is_none().then_some(key));
                self.found(key, got);
            }
            Call::ReaderGet(key) => {
                let got = cache.reader().get(&key).copied();
                missed.extend(got.is_none().then_some(key));
                self.found(key, got);
            }
            Call::GetMany(keys) => {
                let got = cache.get_many(&keys);
                assert_eq!(got.len(), keys.len());
                for (key, got) in keys.into_iter().zip(got) {
                    missed.extend(got.is_none().then_some(key));
                    self.found(key, got);
                }
            }
            Call::Contains(key) => {
                let there = cache.contains_key(&key);
                assert!(!there || before(key).is_some(), "only what is alive is seen");
                missed.extend((!there).then_some(key));
            }
            Call::Remaining(key) => {
                let left = cache.remaining(&key);
                let known = now_in.get(&key).map(|known| self.left(known.deadline));
                assert!(left.is_none() || left == known, "{left:?}, {known:?}");
                missed.extend(left.is_none().then_some(key));
            }
            Call::Remove(key) => {
                let removed = cache.remove(&key);
                events = self.seen();
                let known = self.leaves(key, Cause::Explicit, &mut events);
                assert_eq!(removed, known.map(|known| known.id));
            }
            Call::RemoveIf(key, agrees) => {
                let mut asked = None;
                let removed = cache.remove_if(&key, |_, id| (asked = Some(*id), agrees).1);
                assert!(
                    asked.is_none() || asked == before(key),
                    "the condition sees only what is alive"
                );
                assert_eq!(removed, asked.filter(|_| agrees));
                events = self.seen();
                if removed.is_some() {
                    self.leaves(key, Cause::Explicit, &mut events);
                } else {
                    missed.extend(asked.is_none().then_some(key));
                }
            }
            Call::Compute(key, keeps) => {
                let mut current = None;
                let after = cache.compute(key, |id_in| (current = id_in, keeps.then_some(id)).1);
                assert_eq!(after, keeps.then_some(id));
                events = self.seen();
                let old = if keeps {
                    self.put(key, id, Ttl::Default, &mut events);
                    before(key)
                } else {
                    self.leaves(key, Cause::Explicit, &mut events).map(|known| known.id)
                };
                assert!(current == old || self.bounded && current.is_none());
            }
            Call::ComputeWithTtl(key, ttl) => {
                let mut current = None;
                let after = cache.compute_with_ttl(key, |id_in| (current = id_in, Some((id, ttl))).1);
                assert_eq!(after, Some(id));
                events = self.seen();
                self.put(key, id, ttl, &mut events);
                assert!(current == before(key) || self.bounded && current.is_none());
            }
            Call::Load(key) => {
                let got = cache.get_or_insert_with(key, || id);
                events = self.seen();
                self.loaded(key, got, Ttl::Default, &mut events);
            }
            Call::LoadWithTtl(key, ttl) => {
                let got = cache.get_or_insert_with_ttl(key, || (id, ttl));
                events = self.seen();
                self.loaded(key, got, ttl, &mut events);
            }
            Call::Fail(key) => {
                let got = cache.try_get_or_insert_with(key, || Err(id)).ok();
                missed.extend(got.is_none().then_some(key));
                self.found(key, got);
            }
            Call::Clear => {
                cache.clear();
                events = self.seen();
                let keys: Vec<u8> = self.alive.keys().copied().collect();
                for key in keys {
                    self.leaves(key, Cause::Explicit, &mut events);
                }
            }
            Call::SetCapacity(capacity) => {
                let capacity = if self.bounded { capacity } else { 1000 + capacity };
                cache.set_capacity(capacity);
                assert!(cache.weight() <= capacity);
            }
            Call::RunPending => self.run_pending(),
            Call::Iter => {
                for (key, id) in cache.iter() {
                    assert_eq!(Some(id), before(key), "only what is alive is seen");
                }
            }
            Call::Hottest => {
                let reader = cache.reader();
                for (key, id) in reader.hottest() {
                    assert_eq!(Some(*id), before(*key), "only what is alive is seen");
                }
            }
        }
        events.append(&mut self.seen());
        self.settle(events);
        for key in missed {
            assert!(!self.alive.contains_key(&key), "{key} was missed, and is alive");
        }
    }

    fn loaded(&mut self, key: u8, got: u64, ttl: Ttl, events: &mut Vec<(u8, u64, Cause)>) {
        if got == self.last {
            // If it was there before, it must have been evicted first.
            if let Some(known) = self.alive.get(&key) {
                assert!(self.bounded, "{known:?} is alive");
            }
            self.put(key, got, ttl, events);
        } else {
            self.found(key, Some(got));
        }
    }

    fn run(mut self, calls: Vec<Call>) {
        for call in calls {
            self.call(call);
        }
        self.run_pending();
        self.advance(Duration::from_nanos(TICK));
        self.run_pending();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn roomy(settings in settings(), policy in policy(), weighted: bool, calls in prop::collection::vec(call(6), 0..300)) {
        Pair::new(settings, policy, None, weighted).run(calls);
    }

    #[test]
    fn cache_with_entry_ttls_only_matches_model(policy in policy(), calls in prop::collection::vec(call(6), 0..300)) {
        let none = Settings { time_to_live: None, time_to_idle: None, expiry: false };
        Pair::new(none, policy, None, false).run(calls);
    }

    #[test]
    fn bounded_cache_matches_model(
        settings in settings(),
        policy in policy(),
        capacity in 0..40u64,
        weighted: bool,
        calls in prop::collection::vec(call(60), 0..300),
    ) {
        Pair::new(settings, policy, Some(capacity), weighted).run(calls);
    }
}
