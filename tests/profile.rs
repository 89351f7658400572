//! The miss-ratio curve of a profiled cache, against caches of the sizes it estimates.

use hotset::{Advice, AdviseError, BuildError, Cache, Doubt, ManualClock, Policy};
use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// The same in every run: with random seeds, the hit ratios of a loop vary by a point and more.
#[derive(Clone, Copy, Default)]
struct FixedHasher(u64);

impl BuildHasher for FixedHasher {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// A skewed stream: the least of three numbers, whose range moves.
fn synthetic(keys: u32, len: u32) -> Vec<u32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |n: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as u32 % n
    };
    (0..len)
        .map(|n| below(keys).min(below(keys)).min(below(keys)) + n / 500)
        .collect()
}

/// The entries of the simulated caches, in the order of the sizes, if the cache is large enough.
const ENTRIES: [u64; 6] = [160, 320, 640, 1_280, 3_072, 3_072];

/// Returns the contents of a file of traces, which are not part of the repository. `HOTSET_TRACES`
/// names their directory.
fn read_trace(file: &str) -> Option<Vec<u8>> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/traces").into();
    let root = PathBuf::from(std::env::var_os("HOTSET_TRACES").unwrap_or(beside));
    let mut bytes = Vec::new();
    let compressed = std::fs::File::open(root.join(file)).ok()?;
    flate2::read::GzDecoder::new(compressed).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn trace(name: &str) -> Option<Vec<u32>> {
    let bytes = read_trace(&format!("{name}.u32.gz"))?;
    Some(
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&key| u32::from_le_bytes(key))
            .collect(),
    )
}

fn replay(cache: &Cache<u32, (), FixedHasher>, stream: &[u32]) -> f64 {
    for &key in stream {
        cache.get_or_insert_with(key, || ());
    }
    cache.stats().hit_ratio()
}

fn build(capacity: u64, policy: Policy, profile: bool) -> Cache<u32, (), FixedHasher> {
    build_seeded(capacity, policy, profile, 0)
}

fn build_seeded(capacity: u64, policy: Policy, profile: bool, seed: u64) -> Cache<u32, (), FixedHasher> {
    let builder = Cache::builder_with_hasher(FixedHasher(seed))
        .max_entries(capacity as usize)
        .policy(policy);
    let builder = if profile { builder.profile() } else { builder };
    builder.build().unwrap()
}

/// Compares the advice of a profiled cache with `exact`, the hit ratio of a cache of a capacity.
/// Prints the differences, and returns those that are larger than allowed.
fn wrong_estimates(name: &str, advice: &Advice, exact: impl Fn(u64) -> f64) -> Vec<String> {
    let (mut row, mut wrong) = (Vec::new(), Vec::new());
    for (point, most) in advice.points.iter().zip(ENTRIES) {
        let error = 100.0 * (point.hit_ratio - exact(point.capacity));
        row.push(format!("{error:+.2}"));
        // The number of entries of a simulated cache with a weigher is not known.
        let allowed = if !advice.weighted && point.capacity.min(most) >= 450 {
            1.0
        } else {
            2.5
        };
        if error.abs() > allowed && advice.doubt.is_none() {
            wrong.push(format!("{name} {} at {}: {error:.2}", advice.capacity, point.factor));
        }
    }
    println!(
        "| {name} | {} | {:.1}% | {} | {} |",
        advice.capacity,
        100.0 * advice.hit_ratio,
        row.join(" | "),
        advice.doubt.map_or("none".to_owned(), |doubt| format!("{doubt:?}"))
    );
    wrong
}

fn wrong(name: &str, stream: &[u32], capacity: u64, policy: Policy) -> Vec<String> {
    let cache = build(capacity, policy, true);
    replay(&cache, stream);
    // Replays of a short stream differ by up to a point with the seed.
    let seeds = if stream.len() < 100_000 { 5 } else { 1 };
    let seeded = |capacity, seed| replay(&build_seeded(capacity, policy, false, seed), stream);
    let exact = |capacity| (0..seeds).map(|seed| seeded(capacity, seed)).sum::<f64>() / seeds as f64;
    wrong_estimates(&format!("{name} {policy:?}"), &cache.advise().unwrap(), exact)
}

#[test]
fn synthetic_stream_is_estimated_within_a_point() {
    for (capacity, keys, len) in [(500, 10_000, 100_000), (6_000, 60_000, 100_000)] {
        for policy in [Policy::WTinyLfu, Policy::Lru] {
            let wrong = wrong("synthetic", &synthetic(keys, len), capacity, policy);
            assert_eq!(wrong, [""; 0]);
        }
    }
}

const SHORT_TRACES: [&str; 3] = ["lirs_multi1", "lirs_gli", "c2k_web12"];
const LONG_TRACES: [&str; 11] = [
    "lirs_sprite",
    "lirs_2_pools",
    "lirs_cs",
    "lirs_loop",
    "lirs_multi3",
    "arc_oltp",
    "addr_gcc",
    "addr_twolf",
    "corda_vaultservice",
    "c2k_orm_night",
    "arc_p3",
];

/// `HOTSET_ALL_TRACES=1`, which `make check-estimates` sets, adds the long traces.
#[test]
fn traces_are_estimated_within_the_bars() {
    let all = std::env::var_os("HOTSET_ALL_TRACES").is_some();
    let (long, parts) = if all {
        (&LONG_TRACES[..], &[100, 30, 10][..])
    } else {
        (&[][..], &[30][..])
    };
    println!("| trace, policy | capacity | hit ratio | 1/4 | 1/2 | 1 | 2 | 4 | 8 | doubt |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut errors = Vec::new();
    for name in SHORT_TRACES.iter().chain(long) {
        let Some(stream) = trace(name) else {
            println!("skipped: {name} is not in the directory of traces (HOTSET_TRACES)");
            continue;
        };
        let keys = u64::from(*stream.iter().max().unwrap()) + 1;
        for part in parts {
            errors.extend(wrong(name, &stream, (keys / part).max(40), Policy::WTinyLfu));
        }
    }
    assert_eq!(errors, [""; 0]);
}

#[test]
fn weighted_trace_is_estimated_within_the_bars() {
    let Some(text) = read_trace("adapt_size_weighted.txt.gz") else {
        println!("skipped: adapt_size_weighted is not in the directory of traces (HOTSET_TRACES)");
        return;
    };
    let number = |text: &str| text.parse().unwrap();
    let requests: Vec<(u32, u64)> = String::from_utf8(text)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(key, size)| (number(key) as u32, number(size)))
        .collect();
    let run = |capacity, profile| {
        let builder = Cache::builder_with_hasher(FixedHasher::default())
            .max_weight(capacity)
            .weigher(|_: &u32, size: &u64| *size);
        let cache = if profile { builder.profile() } else { builder }.build().unwrap();
        for &(key, size) in &requests {
            cache.get_or_insert_with(key, || size);
        }
        cache
    };
    let sizes: HashMap<u32, u64> = requests.iter().copied().collect();
    let total: u64 = sizes.values().sum();
    let mut errors = Vec::new();
    for part in [100, 30, 10] {
        let advice = run(total / part, true).advise().unwrap();
        let exact = |capacity| run(capacity, false).stats().hit_ratio();
        errors.extend(wrong_estimates("adapt_size WTinyLfu", &advice, exact));
    }
    assert_eq!(errors, [""; 0]);
}

#[test]
fn profile_counts_lookups_of_every_kind() {
    let cache = build(1_000, Policy::WTinyLfu, true);
    (0..500).for_each(|key| cache.insert(key, ()));
    for _ in 0..10 {
        let keys: Vec<u32> = (0..500).collect();
        assert!(cache.get_many(&keys).iter().all(Option::is_some));
        assert!(keys.iter().all(|key| cache.get(key).is_some()));
        assert!(keys.iter().all(|key| cache.get(&(key + 1_000)).is_none()));
    }
    let advice = cache.advise().unwrap();
    assert_eq!((advice.lookups, advice.doubt), (15_000, None));
    let at = |factor| {
        advice
            .points
            .iter()
            .find(|point| point.factor == factor)
            .unwrap()
            .hit_ratio
    };
    // A quarter holds 250 of the 500 keys, and is simulated with 160 entries. Keys that are never
    // inserted are misses at every size.
    assert!((at(8.0) - 2.0 / 3.0).abs() < 0.001, "{advice:?}");
    assert!((at(0.25) - 1.0 / 3.0).abs() < 0.05, "{advice:?}");
}

#[test]
fn hits_are_counted_once_in_a_profiled_cache() {
    for policy in [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random] {
        for capacity in [100, 10_000] {
            let cache = build(capacity, policy, true);
            for n in 0..20_000u32 {
                cache.get_or_insert_with(n % 150, || ());
            }
            let stats = cache.stats();
            assert_eq!(stats.hits + stats.misses, 20_000, "{policy:?}");
            cache.validate();
            assert!(cache.len() as u64 <= capacity);
        }
    }
}

#[test]
fn many_threads_leave_a_sound_estimate() {
    let cache = build(1_000, Policy::WTinyLfu, true);
    thread::scope(|scope| {
        for part in 0..4 {
            let cache = &cache;
            scope.spawn(move || replay(cache, &synthetic(4_000 + part, 20_000)));
        }
    });
    let advice = cache.advise().unwrap();
    assert_eq!(advice.lookups, 80_000);
    assert!(
        advice
            .points
            .windows(2)
            .all(|pair| pair[1].hit_ratio >= pair[0].hit_ratio - 0.02),
        "{advice:?}"
    );
}

#[test]
fn ttl_makes_larger_sizes_useless() {
    let clock = ManualClock::new();
    let cache: Cache<u32, ()> = Cache::builder()
        .max_entries(500)
        .time_to_live(Duration::from_secs(1))
        .clock(clock.clone())
        .profile()
        .build()
        .unwrap();
    // 700 keys in turn, each again after 1.4 seconds.
    for n in 0..30_000u32 {
        cache.get_or_insert_with(n % 700, || ());
        clock.advance(Duration::from_millis(2));
    }
    let advice = cache.advise().unwrap();
    assert!(advice.points.iter().all(|point| point.hit_ratio < 0.01), "{advice:?}");
    assert_eq!((advice.unbounded, advice.optimum), (None, None));
}

#[test]
fn weighted_cache_is_estimated_by_weight() {
    let weights: HashMap<u32, u64> = (0..10_000).map(|key| (key, u64::from(key % 7 + 1) * 100)).collect();
    let stream: Vec<u32> = synthetic(9_000, 60_000).iter().map(|key| key % 10_000).collect();
    let run = |capacity, profile| {
        let of = weights.clone();
        let builder = Cache::builder_with_hasher(FixedHasher::default())
            .max_weight(capacity)
            .weigher(move |key: &u32, (): &()| of[key]);
        let cache = if profile { builder.profile() } else { builder }.build().unwrap();
        replay(&cache, &stream);
        cache
    };
    let advice = run(400_000, true).advise().unwrap();
    assert!(advice.weighted && advice.doubt.is_none());
    let heavy = run(1 << 60, true).advise().unwrap();
    assert!(
        heavy
            .points
            .iter()
            .all(|point| point.capacity as f64 == point.factor * (1u64 << 60) as f64)
    );
    for point in &advice.points {
        let error = 100.0 * (point.hit_ratio - run(point.capacity, false).stats().hit_ratio());
        assert!(error.abs() <= 1.0, "{}: {error:+.2}", point.factor);
        assert_eq!(point.bytes, point.capacity);
    }
}

#[test]
fn new_capacity_begins_a_new_profile() {
    let cache = build(1_000, Policy::WTinyLfu, true);
    replay(&cache, &synthetic(5_000, 20_000));
    cache.set_capacity(3_000);
    let advice = cache.advise().unwrap();
    assert_eq!((advice.capacity, advice.lookups), (3_000, 0));
    assert_eq!(advice.doubt, Some(Doubt::FewLookups));
    cache.set_capacity(0);
    assert_eq!(cache.advise().unwrap_err(), AdviseError::NoBound);
}

#[test]
fn profile_without_a_bound_says_what_to_do() {
    let build = |entries| Cache::<u32, u32>::builder().max_entries(entries).profile().build();
    for entries in [0, usize::MAX] {
        let error = build(entries).unwrap_err();
        assert_eq!(error, BuildError::ProfileWithoutBound);
        assert!(error.to_string().contains("set a capacity"));
    }
    let error = Cache::<u32, u32>::new(10).advise().unwrap_err();
    assert_eq!(error, AdviseError::NotProfiled);
    assert!(error.to_string().contains("Builder::profile"));
}

#[test]
fn optimum_and_lru_frame_the_policy() {
    // A loop over more keys than fit: LRU never hits, the optimum keeps part of them.
    let cache = build(500, Policy::WTinyLfu, true);
    replay(&cache, &(0..40_000).map(|n| n % 800).collect::<Vec<_>>());
    let advice = cache.advise().unwrap();
    let optimum = advice.optimum.unwrap();
    assert!(optimum >= advice.hit_ratio && optimum < 0.65, "{advice:?}");
    assert!((advice.over_lru.unwrap() - advice.hit_ratio).abs() < 0.01, "{advice:?}");
    assert!((advice.unbounded.unwrap() - 0.98).abs() < 0.005, "{advice:?}");
    assert!((500..=1_000).contains(&advice.enough.unwrap()), "{advice:?}");
    assert!(advice.tenth_more > 0.0);
}

fn autosized(capacity: u64, bounds: std::ops::RangeInclusive<u64>, target: f64) -> Cache<u32, (), FixedHasher> {
    let builder = Cache::builder_with_hasher(FixedHasher::default()).max_entries(capacity as usize);
    builder.autosize(bounds, target).build().unwrap()
}

/// Looks keys up at random: small keys are more popular.
fn serve(cache: &Cache<u32, (), FixedHasher>, keys: u32, lookups: u32) {
    synthetic_of(keys, lookups)
        .into_iter()
        .for_each(|key| cache.get_or_insert_with(key, || ()));
}

/// Same as `synthetic`, of the same keys all the time.
fn synthetic_of(keys: u32, len: u32) -> Vec<u32> {
    let stream = synthetic(keys, len);
    stream.into_iter().zip(0..).map(|(key, n)| key - n / 500).collect()
}

#[test]
fn estimates_after_a_resize_are_those_of_warm_caches() {
    let (before, after) = (synthetic_of(8_000, 60_000), synthetic_of(8_000, 100_000));
    for (from, to) in [(1_000, 2_500), (2_500, 1_000), (400, 500)] {
        let cache = build(from, Policy::WTinyLfu, true);
        replay(&cache, &before);
        cache.set_capacity(to);
        replay(&cache, &after[..2_000]);
        assert_eq!(cache.advise().unwrap().doubt, Some(Doubt::FewLookups), "not warm yet");
        replay(&cache, &after[2_000..]);
        let advice = cache.advise().unwrap();
        assert_eq!(advice.doubt, None);
        let counted = advice.lookups as usize;
        assert!(counted > after.len() / 2, "{counted}");
        let exact = |capacity: u64| {
            let cache = build(capacity * from / to, Policy::WTinyLfu, false);
            replay(&cache, &before);
            cache.set_capacity(capacity);
            replay(&cache, &after[..after.len() - counted]);
            let hits = cache.stats().hits;
            replay(&cache, &after[after.len() - counted..]);
            (cache.stats().hits - hits) as f64 / counted as f64
        };
        assert_eq!(wrong_estimates(&format!("{from} to {to}"), &advice, exact), [""; 0]);
    }
}

#[test]
fn autosize_finds_the_size_that_the_target_needs() {
    let ratio_at = |capacity| {
        let cache = build(capacity, Policy::WTinyLfu, false);
        serve(&cache, 10_000, 300_000);
        let before = cache.stats();
        serve(&cache, 10_000, 100_000);
        (cache.stats().hits - before.hits) as f64 / 100_000.0
    };
    for (first, target) in [(200, 0.8), (9_000, 0.8), (1_000, 0.5)] {
        let cache = autosized(first, 100..=20_000, target);
        serve(&cache, 10_000, 600_000);
        cache.validate();
        let capacity = cache.capacity();
        let ratio = ratio_at(capacity);
        // All keys have been seen, so a cache without a bound has hits only.
        assert!((ratio - target).abs() < 0.02, "{first} -> {capacity}: {ratio}");
        assert!(cache.len() as u64 <= capacity);
    }
}

#[test]
fn autosize_stays_within_its_bounds() {
    let cache = autosized(1_000, 800..=1_500, 0.99);
    serve(&cache, 20_000, 200_000);
    assert_eq!(cache.capacity(), 1_500);
    // A handful of keys needs less than the lower bound.
    serve(&cache, 20, 200_000);
    assert_eq!(cache.capacity(), 1_500, "only insertions carry a decision out");
    let advice = cache.advise().unwrap();
    assert_eq!(
        (advice.capacity, advice.doubt),
        (1_500, None),
        "a decision that waits leaves the advice valid"
    );
    for key in 30_000..60_000 {
        serve(&cache, 20, 20);
        cache.insert(key, ());
    }
    assert_eq!(cache.capacity(), 800);
    assert_eq!(cache.len(), 800);
    cache.validate();
}

#[test]
fn autosize_starts_from_the_capacity_that_the_user_sets() {
    let cache = autosized(1_000, 500..=4_000, 0.9);
    cache.set_capacity(10);
    serve(&cache, 3_000, 60_000);
    assert!((500..=4_000).contains(&cache.capacity()), "{}", cache.capacity());
    for capacity in [0, u64::MAX] {
        cache.set_capacity(capacity);
        serve(&cache, 3_000, 60_000);
        assert_eq!(cache.capacity(), capacity, "a cache without a bound has no size");
    }
    cache.validate();
}

#[test]
fn autosize_shrinks_in_steps_and_notifies_the_listener() {
    static EVICTED: AtomicUsize = AtomicUsize::new(0);
    let cache: Cache<u32, (), FixedHasher> = Cache::builder_with_hasher(FixedHasher::default())
        .max_entries(8_000)
        .on_removal(|_, (), _| _ = EVICTED.fetch_add(1, Ordering::Relaxed))
        .autosize(1_000..=8_000, 0.5)
        .build()
        .unwrap();
    let mut most = 0;
    for key in synthetic_of(100, 800_000)
        .into_iter()
        .zip(0..)
        .map(|(key, n)| if n % 4 == 0 { n } else { key })
    {
        let before = EVICTED.load(Ordering::Relaxed);
        cache.get_or_insert_with(key, || ());
        most = most.max(EVICTED.load(Ordering::Relaxed) - before);
    }
    cache.run_pending();
    assert_eq!(cache.capacity(), 1_000);
    let evicted = EVICTED.load(Ordering::Relaxed);
    assert_eq!(evicted as u64 + cache.len() as u64, cache.stats().insertions);
    assert!(most <= 8_000 / 256 + 130, "one call evicted {most}");
    cache.validate();
}

#[test]
fn autosize_with_a_weigher_counts_weight() {
    let cache: Cache<u32, (), FixedHasher> = Cache::builder_with_hasher(FixedHasher::default())
        .max_weight(50_000)
        .weigher(|key: &u32, (): &()| u64::from(key % 7 + 1) * 100)
        .autosize(10_000..=2_000_000, 0.9)
        .build()
        .unwrap();
    serve(&cache, 2_000, 400_000);
    let ratio = (cache.capacity(), cache.weight());
    assert!(
        (200_000..=800_000).contains(&ratio.0) && ratio.1 <= ratio.0,
        "{ratio:?}"
    );
    cache.validate();
    cache.set_capacity(u64::MAX);
    serve(&cache, 4_000, 60_000);
    assert_eq!(cache.capacity(), u64::MAX, "a cache without a bound has no size");
}

#[test]
fn autosize_beside_threads_keeps_the_cache_sound() {
    let cache = autosized(500, 100..=5_000, 0.9);
    thread::scope(|scope| {
        for part in 0..4 {
            let cache = &cache;
            scope.spawn(move || {
                for round in 0..20 {
                    serve(cache, if (round / 5) % 2 == 0 { 8_000 } else { 50 + part }, 10_000);
                    if part == 0 && round % 7 == 6 {
                        cache.set_capacity(700);
                    }
                }
            });
        }
    });
    assert!((100..=5_000).contains(&cache.capacity()));
    cache.validate();
}

#[test]
fn autosize_refuses_settings_that_make_no_sense() {
    let build = |bounds, target| {
        let builder = Cache::<u32, u32>::builder().max_entries(100).autosize(bounds, target);
        builder.build().map(drop)
    };
    assert_eq!(build(100..=100, 1.0), Ok(()));
    #[allow(clippy::reversed_empty_ranges)]
    let wrong = [
        (0..=200, 0.9),
        (101..=200, 0.9),
        (10..=99, 0.9),
        (200..=10, 0.9),
        (10..=(1 << 28) + 1, 0.9),
        (10..=200, 0.0),
        (10..=200, 1.01),
        (10..=200, f64::NAN),
    ];
    for (bounds, target) in wrong {
        let error = build(bounds, target).unwrap_err();
        assert_eq!(error, BuildError::Autosize);
        assert!(error.to_string().contains("low <= capacity <= high"));
    }
}

#[test]
fn removed_keys_are_misses_of_larger_caches_too() {
    let run = |capacity, profile| {
        let cache = build(capacity, Policy::WTinyLfu, profile);
        let mut keys = synthetic_of(4_000, 400_000).into_iter();
        while let (Some(key), Some(other)) = (keys.next(), keys.next()) {
            cache.get_or_insert_with(key, || ());
            if key % 3 == 0 {
                cache.remove(&other);
            }
        }
        cache
    };
    let advice = run(1_000, true).advise().unwrap();
    let exact = |capacity| run(capacity, false).stats().hit_ratio();
    assert_eq!(wrong_estimates("removals", &advice, exact), [""; 0]);
    let unbounded = advice.unbounded.unwrap();
    assert!(
        (unbounded - exact(100_000)).abs() < 0.01,
        "{unbounded} {}",
        exact(100_000)
    );
}

type ProfileBuilder = hotset::Builder<u32, (), FixedHasher>;

/// A cache of 100,000, whose entries have the weight that the second value has.
fn weighing(builder: fn(ProfileBuilder) -> ProfileBuilder) -> (Cache<u32, (), FixedHasher>, Arc<AtomicU64>) {
    let weight = Arc::new(AtomicU64::new(2_000));
    let of = weight.clone();
    let cache = Cache::builder_with_hasher(FixedHasher::default())
        .max_weight(100_000)
        .weigher(move |_: &u32, (): &()| of.load(Ordering::Relaxed));
    (builder(cache).build().unwrap(), weight)
}

fn scatter(cache: &Cache<u32, (), FixedHasher>, keys: u32, lookups: u32) {
    (0..lookups).for_each(|n| cache.get_or_insert_with(n.wrapping_mul(0x9e37_79b9) % keys, || ()));
}

#[test]
fn autosize_of_few_heavy_entries_grows_more_than_once() {
    let (cache, _) = weighing(|builder| builder.autosize(1_000..=1_000_000_000, 0.95));
    scatter(&cache, 1_000, 400_000);
    assert!(
        (1_900_000..=4_000_000).contains(&cache.capacity()),
        "{}",
        cache.capacity()
    );
    cache.validate();
}

#[test]
fn new_capacity_enlarges_samples_of_entries_that_became_heavier() {
    let (cache, weight) = weighing(hotset::Builder::profile);
    weight.store(1, Ordering::Relaxed);
    scatter(&cache, 100_000, 200_000);
    weight.store(1_000, Ordering::Relaxed);
    cache.clear();
    scatter(&cache, 1_000, 400_000);
    assert_eq!(cache.advise().unwrap().doubt, Some(Doubt::FewEntries));
    cache.set_capacity(100_000);
    scatter(&cache, 1_000, 100_000);
    assert_eq!(cache.advise().unwrap().doubt, None);
}
