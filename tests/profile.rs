//! The miss-ratio curve of a profiled cache, against caches of the sizes it estimates.

use hotset::{AdviseError, BuildError, Cache, Doubt, ManualClock, Policy};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::io::Read;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// The same in every run: with random seeds, the hit ratios of a loop vary by a point and more.
type FixedHasher = BuildHasherDefault<DefaultHasher>;

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

fn trace(name: &str) -> Option<Vec<u32>> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/traces"));
    let file = std::fs::File::open(root.join(format!("{name}.u32.gz"))).ok()?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).ok()?;
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
    let builder = Cache::builder_with_hasher(FixedHasher::default())
        .max_entries(capacity as usize)
        .policy(policy);
    let builder = if profile { builder.profile() } else { builder };
    builder.build().unwrap()
}

/// Returns the estimates that are further from replays than allowed, and prints all of them.
fn wrong(name: &str, stream: &[u32], capacity: u64, policy: Policy) -> Vec<String> {
    let cache = build(capacity, policy, true);
    replay(&cache, stream);
    let advice = cache.advise().unwrap();
    let (mut row, mut wrong) = (Vec::new(), Vec::new());
    for point in &advice.points {
        let error = 100.0 * (point.hit_ratio - replay(&build(point.capacity, policy, false), stream));
        row.push(format!("{error:+.2}"));
        let allowed = if point.capacity as f64 * advice.sample >= 450.0 {
            1.0
        } else {
            2.5
        };
        if error.abs() > allowed && advice.doubt.is_none() {
            wrong.push(format!("{name} {policy:?} {capacity} at {}: {error:.2}", point.factor));
        }
    }
    println!(
        "| {name} | {policy:?} | {capacity} | 1/{:.0} | {} | {} |",
        1.0 / advice.sample,
        row.join(" | "),
        advice.doubt.map_or("none".to_owned(), |doubt| format!("{doubt:?}"))
    );
    wrong
}

#[test]
fn synthetic_stream_is_estimated_within_a_point() {
    for (capacity, keys, len) in [(500, 10_000, 50_000), (6_000, 60_000, 100_000)] {
        for policy in [Policy::WTinyLfu, Policy::Lru] {
            let wrong = wrong("synthetic", &synthetic(keys, len), capacity, policy);
            assert_eq!(wrong, [""; 0]);
        }
    }
}

/// The traces are not part of the repository. `HOTSET_ALL_TRACES=1`, or a release build, adds the
/// long ones.
#[test]
fn traces_are_estimated_within_a_point() {
    let short = ["lirs_multi1", "lirs_gli", "c2k_web12"];
    let long = [
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
    let all = !cfg!(debug_assertions) || std::env::var_os("HOTSET_ALL_TRACES").is_some();
    let (long, parts) = if all {
        (&long[..], &[100, 30, 10][..])
    } else {
        (&[][..], &[30][..])
    };
    let mut errors = Vec::new();
    for name in short.iter().chain(long) {
        let Some(stream) = trace(name) else {
            println!("no traces here: skipped");
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
    // A quarter holds 250 of the 500 keys. Keys that are never inserted are misses at every size.
    assert!((at(8.0) - 2.0 / 3.0).abs() < 0.001, "{advice:?}");
    assert!((at(0.25) - 1.0 / 3.0).abs() < 0.02, "{advice:?}");
}

#[test]
fn hits_are_counted_once_in_a_profiled_cache() {
    for policy in [Policy::WTinyLfu, Policy::Lru, Policy::Lfu, Policy::Fifo, Policy::Random] {
        for capacity in [100, 10_000] {
            let cache = build(capacity, policy, true);
            for n in 0..50_000u32 {
                cache.get_or_insert_with(n % 150, || ());
            }
            let stats = cache.stats();
            assert_eq!(stats.hits + stats.misses, 50_000, "{policy:?}");
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
