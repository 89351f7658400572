//! The optimum: Belady's policy, which evicts the entry whose next use is farthest away (IBM
//! Systems Journal, 1966), over a recorded stream.

use std::collections::{BTreeSet, HashMap};

/// Returns the number of hits that the best policy has on `stream` with `capacity` entries of equal
/// weight, starting empty. An entry need not be admitted.
pub(crate) fn optimal_hits(stream: &[u32], capacity: usize) -> u64 {
    let mut next = vec![usize::MAX; stream.len()];
    let mut last: HashMap<u32, usize> = HashMap::new();
    for (n, &hash) in stream.iter().enumerate().rev() {
        next[n] = last.insert(hash, n).unwrap_or(usize::MAX);
    }
    // The resident entries by the position of their next use, which no two of them share.
    let mut resident: BTreeSet<usize> = BTreeSet::new();
    let mut hits = 0;
    for (n, &next) in next.iter().enumerate() {
        hits += u64::from(resident.remove(&n));
        if next != usize::MAX {
            resident.insert(next);
            if resident.len() > capacity {
                resident.pop_last();
            }
        }
    }
    hits
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn optimum_of_a_loop_keeps_part_of_it() {
        let stream: Vec<u32> = (0..10).flat_map(|_| 0..4).collect();
        assert_eq!(optimal_hits(&stream, 4), 36);
        assert_eq!(optimal_hits(&stream, 0), 0);
        // Two of four always stay: two hits in each of the nine later rounds.
        assert_eq!(optimal_hits(&stream, 2), 18);
    }

    /// The most hits of any policy, by trying all of them.
    fn exhaustive(stream: &[u32], resident: u32, capacity: u32) -> u64 {
        let Some((&key, rest)) = stream.split_first() else {
            return 0;
        };
        let hit = u64::from(resident >> key & 1 == 1);
        let with = resident | 1 << key;
        let drop_one = (0..8).filter(|n| with >> n & 1 == 1).map(|n| with & !(1 << n));
        let choices = drop_one.chain([with]).filter(|set| set.count_ones() <= capacity);
        hit + choices.map(|set| exhaustive(rest, set, capacity)).max().unwrap_or(0)
    }

    #[test]
    fn optimum_of_short_streams_is_that_of_all_policies() {
        let mut state = 7u32;
        for _ in 0..60 {
            let stream: Vec<u32> = (0..8).map(|_| crate::policy::xorshift(&mut state) >> 9 & 3).collect();
            for capacity in 0..3 {
                assert_eq!(
                    optimal_hits(&stream, capacity as usize),
                    exhaustive(&stream, 0, capacity),
                    "{stream:?} {capacity}"
                );
            }
        }
    }
}
