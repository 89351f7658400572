//! Random sequences of calls against a `HashMap`.

use hotset::{Cache, Policy};
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Debug, Clone)]
enum Call {
    Insert(u8, u64),
    Get(u8),
    GetMany(Vec<u8>),
    Contains(u8),
    Remove(u8),
    RemoveIf(u8, u64),
    Add(u8, u64),
    Cancel(u8),
    Load(u8, u64),
    Fail(u8),
    Clear,
    SetCapacity(u64),
    RunPending,
    Iter,
    Hottest,
}

fn call() -> impl Strategy<Value = Call> {
    let key = || prop_oneof![0..8u8, any::<u8>()];
    let value = || prop_oneof![0..30u64, 0..3000u64];
    prop_oneof![
        12 => (key(), value()).prop_map(|(k, v)| Call::Insert(k, v)),
        10 => key().prop_map(Call::Get),
        1 => prop::collection::vec(key(), 0..150).prop_map(Call::GetMany),
        2 => key().prop_map(Call::Contains),
        4 => key().prop_map(Call::Remove),
        2 => (key(), value()).prop_map(|(k, v)| Call::RemoveIf(k, v)),
        3 => (key(), value()).prop_map(|(k, v)| Call::Add(k, v)),
        1 => key().prop_map(Call::Cancel),
        4 => (key(), value()).prop_map(|(k, v)| Call::Load(k, v)),
        1 => key().prop_map(Call::Fail),
        1 => Just(Call::SetCapacity(0)),
        2 => (0..200u64).prop_map(Call::SetCapacity),
        1 => Just(Call::Clear),
        2 => Just(Call::RunPending),
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

/// The cache and the latest value of every key that was not removed. A bounded
/// cache may have evicted some of them.
struct Pair {
    cache: Cache<u8, u64>,
    model: HashMap<u8, u64>,
    exact: bool,
    weigh: fn(u64) -> u64,
}

impl Pair {
    /// The cache's value of the key is the latest one, or (if bounded) absent.
    fn agree(&self, key: u8, got: Option<u64>) {
        let latest = self.model.get(&key).copied();
        if self.exact || got.is_some() {
            assert_eq!(got, latest, "key {key}");
        }
    }

    fn check(&self) {
        self.cache.run_pending();
        self.cache.validate();
        let entries: Vec<(u8, u64)> = self.cache.iter().collect();
        let unique: HashMap<u8, u64> = entries.iter().copied().collect();
        assert_eq!(unique.len(), entries.len(), "each key once");
        assert_eq!(entries.len(), self.cache.len());
        assert_eq!(
            entries.iter().map(|entry| (self.weigh)(entry.1)).sum::<u64>(),
            self.cache.weight()
        );
        assert!(self.cache.weight() <= self.cache.capacity());
        entries.iter().for_each(|&(key, value)| self.agree(key, Some(value)));
        if self.exact {
            assert_eq!(unique, self.model);
        }
    }

    fn call(&mut self, call: Call) {
        let cache = &self.cache;
        match call {
            Call::Insert(key, value) => {
                cache.insert(key, value);
                self.model.insert(key, value);
                self.agree(key, self.cache.get(&key));
            }
            Call::Get(key) => self.agree(key, cache.get(&key)),
            Call::GetMany(keys) => {
                let got = cache.get_many(&keys);
                assert_eq!(got.len(), keys.len());
                keys.iter().zip(got).for_each(|(key, got)| self.agree(*key, got));
            }
            Call::Contains(key) => {
                let there = cache.contains_key(&key);
                assert_eq!(there, cache.get(&key).is_some());
                assert_eq!(there, cache.reader().get(&key).is_some());
            }
            Call::Remove(key) => {
                self.agree(key, cache.remove(&key));
                self.model.remove(&key);
                assert_eq!(self.cache.get(&key), None);
            }
            Call::RemoveIf(key, below) => {
                let there = cache.get(&key);
                let removed = cache.remove_if(&key, |of, value| *of == key && *value < below);
                assert_eq!(removed, there.filter(|value| *value < below));
                if removed.is_some() {
                    self.agree(key, removed);
                    self.model.remove(&key);
                    assert_eq!(self.cache.get(&key), None);
                }
            }
            Call::Add(key, value) => {
                let mut before = None;
                let after = cache.compute(key, |old| {
                    before = old;
                    Some((old.unwrap_or(0) + value) % 3000)
                });
                self.agree(key, before);
                assert_eq!(after, Some((before.unwrap_or(0) + value) % 3000));
                self.model.insert(key, after.unwrap());
            }
            Call::Cancel(key) => {
                let mut before = None;
                assert_eq!(cache.compute(key, |old| (before = old, None).1), None);
                self.agree(key, before);
                self.model.remove(&key);
                assert!(!self.cache.contains_key(&key));
            }
            Call::Load(key, value) => {
                let mut loaded = false;
                let got = cache.get_or_insert_with(key, || (loaded = true, value).1);
                if loaded {
                    self.agree(key, None);
                    assert_eq!(got, value);
                    self.model.insert(key, value);
                } else {
                    self.agree(key, Some(got));
                }
            }
            Call::Fail(key) => match cache.try_get_or_insert_with(key, || Err(key)) {
                Ok(got) => self.agree(key, Some(got)),
                Err(_) => {
                    self.agree(key, None);
                    assert!(!cache.contains_key(&key));
                }
            },
            Call::Clear => {
                cache.clear();
                self.model.clear();
                assert_eq!((self.cache.len(), self.cache.weight()), (0, 0));
            }
            Call::SetCapacity(capacity) if !self.exact => {
                cache.set_capacity(capacity);
                assert!(cache.weight() <= capacity);
            }
            Call::SetCapacity(_) | Call::RunPending => self.check(),
            Call::Iter => cache.iter().for_each(|(key, value)| self.agree(key, Some(value))),
            Call::Hottest => {
                let reader = cache.reader();
                let order: Vec<_> = reader.hottest().map(|(key, value)| (*key, *value)).collect();
                assert_eq!(order.len(), cache.len());
                order.iter().for_each(|&(key, value)| self.agree(key, Some(value)));
            }
        }
    }

    fn run(mut self, calls: Vec<Call>) {
        for call in calls {
            self.call(call);
        }
        self.check();
    }
}

fn one(_: u64) -> u64 {
    1
}

/// Many values have weight zero.
fn some(value: u64) -> u64 {
    (value % 40).saturating_sub(5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unbounded(policy in policy(), calls in prop::collection::vec(call(), 0..300)) {
        let cache = Cache::builder().max_entries(usize::MAX).policy(policy).build().unwrap();
        Pair { cache, model: HashMap::new(), exact: true, weigh: one }.run(calls);
    }

    #[test]
    fn unbounded_weighted_cache_matches_model(policy in policy(), calls in prop::collection::vec(call(), 0..300)) {
        let builder = Cache::builder().max_weight(u64::MAX).weigher(|_, value| some(*value));
        let cache = builder.policy(policy).build().unwrap();
        Pair { cache, model: HashMap::new(), exact: true, weigh: some }.run(calls);
    }

    #[test]
    fn bounded(policy in policy(), entries in 0..120usize, calls in prop::collection::vec(call(), 0..300)) {
        let cache = Cache::builder().max_entries(entries).policy(policy).build().unwrap();
        Pair { cache, model: HashMap::new(), exact: false, weigh: one }.run(calls);
    }

    #[test]
    fn bounded_weighted_cache_matches_model(policy in policy(), weight in 0..1500u64, calls in prop::collection::vec(call(), 0..300)) {
        let cache = Cache::builder().max_weight(weight).weigher(|_, value| some(*value)).policy(policy).build().unwrap();
        Pair { cache, model: HashMap::new(), exact: false, weigh: some }.run(calls);
    }

    /// With room for all keys, nothing is evicted.
    #[test]
    fn roomy(policy in policy(), calls in prop::collection::vec(call(), 0..300)) {
        let cache = Cache::builder().max_entries(256).policy(policy).build().unwrap();
        Pair { cache, model: HashMap::new(), exact: true, weigh: one }.run(calls);
    }
}
