//! Tests of the simulation: against replays of the same policy, and of its corrections.

use super::*;

fn hash(key: u32) -> u32 {
    mix(key.wrapping_add(0x1234_5678))
}

/// A skewed stream over `keys` keys, in which the popular ones change slowly.
fn stream(keys: u32, len: u32) -> impl Iterator<Item = u32> {
    let mut state = 0x9e37_79b9;
    (0..len).map(move |n| {
        let a = crate::policy::xorshift(&mut state) % keys;
        let b = crate::policy::xorshift(&mut state) % keys;
        let c = crate::policy::xorshift(&mut state) % keys;
        (a.min(b).min(c) + n / 1000) % keys
    })
}

const PLAIN: Traits = Traits::PLAIN;

/// Drives a simulation as a cache of that capacity would, and returns its advice.
fn advise(kind: PolicyKind, capacity: u64, stream: impl Iterator<Item = u32>) -> Advice {
    let mut simulation = Simulation::new(kind, capacity, false, NEVER);
    let mut real = Mini::new(kind, capacity, false);
    let mut truth = Truth::default();
    for key in stream {
        let hash = hash(key);
        truth.lookups += 1;
        let mut apply = |what| simulation.apply(Sample { hash, now: 0, what });
        if real.access(hash, 0, NEVER) == Access::Miss {
            apply(What::Miss);
            apply(What::Inserted(PLAIN));
            real.insert(hash, PLAIN, 0);
        } else {
            truth.hits += 1;
            apply(What::Hit(PLAIN));
        }
    }
    simulation.sizes.iter().for_each(|size| size.mini.validate());
    simulation.figures().advice(truth)
}

#[test]
fn estimates_are_close_to_replays() {
    for (capacity, keys, len) in [(1_000, 20_000, 60_000), (6_000, 50_000, 100_000)] {
        for kind in [PolicyKind::WTinyLfu, PolicyKind::Fifo] {
            let advice = advise(kind, capacity, stream(keys, len));
            assert_eq!((advice.doubt, advice.points.len()), (None, QUARTERS.len()));
            for point in &advice.points {
                let all: Vec<u32> = stream(keys, len).map(hash).collect();
                let exact = replay(kind, &all, point.capacity) as f64 / f64::from(len);
                let error = 100.0 * (point.hit_ratio - exact);
                // Within a point on longer streams; this one is short.
                assert!(error.abs() <= 1.5, "{kind:?} {capacity} {}: {error:+.2}", point.factor);
            }
            let best = advice.optimum.unwrap();
            assert!(best >= advice.hit_ratio, "{best} {advice:?}");
        }
    }
}

#[test]
fn ttl_keeps_larger_caches_from_hitting() {
    // Each key comes back after the TTL: no size helps. Without TTLs, twice the capacity would.
    let (keys, ttl) = (1_500u32, 1_000);
    let mut simulation = Simulation::new(PolicyKind::WTinyLfu, 1_000, false, NEVER);
    let mut truth = Truth::default();
    for n in 0..60_000u32 {
        let (hash, now) = (hash(n % keys), u64::from(n) + 1);
        truth.lookups += 1;
        let mut apply = |what| simulation.apply(Sample { hash, now, what });
        apply(What::Miss);
        apply(What::Inserted(Traits {
            ttl,
            max_ttl: ttl,
            ..PLAIN
        }));
    }
    let advice = simulation.figures().advice(truth);
    assert!(advice.points.iter().all(|point| point.hit_ratio < 0.001), "{advice:?}");
}

#[test]
fn removed_key_is_a_miss_at_every_size() {
    let mut simulation = Simulation::new(PolicyKind::WTinyLfu, 100, false, NEVER);
    for n in 0..1_000u32 {
        let hash = hash(n % 10);
        for what in [What::Miss, What::Inserted(PLAIN), What::Removed] {
            simulation.apply(Sample { hash, now: 0, what });
        }
    }
    assert!(
        simulation
            .sizes
            .iter()
            .all(|size| size.counts.hits == 0.0 && size.mini.len() == 0)
    );
}

#[test]
fn hits_extend_the_deadline_up_to_the_latest() {
    let traits = Traits {
        ttl: 10,
        max_ttl: 25,
        ..PLAIN
    };
    let mut mini = Mini::new(PolicyKind::Lru, 10, false);
    mini.insert(7, traits, 0);
    assert_eq!(mini.access(7, 9, 10), Access::Hit(traits));
    assert_eq!(mini.access(7, 18, 10), Access::Hit(traits));
    // Without the bound, the deadline would be 28.
    assert_eq!(mini.access(7, 25, 10), Access::Expired(traits));
    assert_eq!(mini.access(7, 25, 10), Access::Miss);
}

#[test]
fn cleared_simulation_holds_nothing() {
    let mut simulation = Simulation::new(PolicyKind::WTinyLfu, 100, false, NEVER);
    (1..50).for_each(|key| {
        simulation.apply(Sample {
            hash: hash(key),
            now: 0,
            what: What::Inserted(PLAIN),
        });
    });
    simulation.clear();
    assert!(simulation.sizes.iter().all(|size| size.mini.len() == 0));
    (1..50).for_each(|key| {
        simulation.apply(Sample {
            hash: hash(key),
            now: 0,
            what: What::Miss,
        })
    });
    assert!(simulation.sizes.iter().all(|size| size.counts.hits == 0.0));
}

#[test]
fn light_entries_halve_the_share_and_keep_the_estimate() {
    // A weight of 10 each, and a capacity of 60,000 of them: the number of entries is not known.
    let mut simulation = Simulation::new(PolicyKind::WTinyLfu, 600_000, true, NEVER);
    let mut real = Mini::new(PolicyKind::WTinyLfu, 600_000, true);
    let traits = Traits { weight: 10, ..PLAIN };
    let mut truth = Truth::default();
    for key in stream(300_000, 400_000) {
        let hash = hash(key);
        truth.lookups += 1;
        let hit = real.access(hash, 0, NEVER) != Access::Miss;
        truth.hits += u64::from(hit);
        let mut apply = |what| simulation.apply(Sample { hash, now: 0, what });
        if hit {
            apply(What::Hit(traits));
        } else {
            apply(What::Miss);
            apply(What::Inserted(traits));
            real.insert(hash, traits, 0);
        }
    }
    assert!(simulation.threshold() < u32::MAX / 8);
    let advice = simulation.figures().advice(truth);
    let mut half = Mini::new(PolicyKind::WTinyLfu, 300_000, true);
    let mut hits = 0u32;
    for key in stream(300_000, 400_000) {
        match half.access(hash(key), 0, NEVER) {
            Access::Hit(_) => hits += 1,
            _ => half.insert(hash(key), traits, 0),
        }
    }
    let error = 100.0 * (advice.points[1].hit_ratio - f64::from(hits) / 4e5);
    assert!(error.abs() <= 2.5, "{error:+.2}");
}

#[test]
fn few_lookups_are_a_doubt() {
    let advice = advise(PolicyKind::WTinyLfu, 1_000, stream(100, 50));
    assert_eq!(advice.doubt, Some(Doubt::FewLookups));
    assert!(advice.to_string().starts_with("No advice yet: too few lookups"));
}
