//! The advice: what the simulated sizes mean, as numbers and as a sentence.

use super::optimum::optimal_hits;
use super::{Counts, Figures, LRU, OWN, QUARTERS, SizeFigures, Truth, quarters_of, replay};
use std::fmt;

/// With fewer sampled lookups, differences between sizes are noise.
const FEW: f64 = 2_000.0;
/// A mini of fewer entries than this is unreliable.
const SMALL: usize = 100;
/// The share of samples that may be lost.
const LOST: f64 = 0.05;
/// Sizes beyond this number of entries are left out: keys that share 32 bits of their hash, of
/// which there are more than one in a hundred, look like hits.
const MOST: u64 = 40_000_000;
/// A change of the hit ratio that is worth a change of the size.
const WORTH: f64 = 0.01;
/// A loss of hits that a smaller cache may cost.
const LOSS: f64 = 0.002;

/// The estimated hit ratio at one size.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Point {
    /// The size as a multiple of the cache's capacity.
    pub factor: f64,
    /// The capacity: a number of entries, or a weight in a cache with a weigher.
    pub capacity: u64,
    /// The share of lookups that would be hits, from 0 to 1. At factor 1 it is the measured one.
    pub hit_ratio: f64,
    /// Memory in bytes. With a weigher, the capacity itself. Without, entries and table, but not
    /// what keys and values point to.
    pub bytes: u64,
}

/// A reason why an [`Advice`] knows too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Doubt {
    /// There were too few lookups of sampled keys, at some size. Ask again after more traffic.
    FewLookups,
    /// The simulation of a weighted cache holds too few entries: their weights are large compared
    /// with the capacity.
    FewEntries,
    /// Threads dropped more than one in twenty samples, since another thread was simulating.
    LostSamples,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FewLookups => "too few lookups so far: ask again after more traffic",
            Self::FewEntries => "the simulated caches hold too few entries: the entries are too heavy for a sample",
            Self::LostSamples => "too many samples were lost under load: ask again at a quieter time",
        })
    }
}

/// The hit ratio of a cache at other sizes, and what to do about it. Returned by
/// [`Cache::advise`](crate::Cache::advise).
///
/// `Display` writes it as sentences for a person.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Advice {
    /// The cache's capacity.
    pub capacity: u64,
    /// The measured hit ratio of [`lookups`](Self::lookups).
    pub hit_ratio: f64,
    /// The number of lookups since profiling began, or since the simulations were filled after a
    /// change of the capacity. With [`autosize`](crate::Builder::autosize), those before each
    /// decision count half.
    pub lookups: u64,
    /// The share of the keys that is simulated at the cache's own size, from 0 to 1. Larger sizes
    /// are simulated with a smaller share, smaller ones with a larger share.
    pub sample: f64,
    /// The estimates, from a quarter of the capacity to eight times of it, ascending. Sizes above
    /// 40 million entries are left out.
    pub points: Vec<Point>,
    /// The hit ratio of a cache without a bound. `None` if there are too many keys to
    /// distinguish, and in a cache with an expiration.
    pub unbounded: Option<f64>,
    /// The capacity that gives 95% of the hits of a cache without a bound, or, where that is not
    /// known, of the largest size in [`points`](Self::points). `None` if no size in `points` does.
    pub enough: Option<u64>,
    /// The hit ratio that a tenth more capacity adds.
    pub tenth_more: f64,
    /// The hit ratio that the best possible policy would have at this capacity, from the last
    /// 32,768 lookups of sampled keys. `None` with a weigher or an expiration.
    pub optimum: Option<f64>,
    /// The hit ratio that the cache's policy adds to that of LRU. `None` if its policy is LRU.
    pub over_lru: Option<f64>,
    /// The reason for which the other fields cannot be trusted, if there is one.
    pub doubt: Option<Doubt>,
    /// Whether capacities are weights.
    pub weighted: bool,
}

impl Figures {
    /// Returns the advice. Replays the last lookups for the optimum: some milliseconds.
    pub(crate) fn advice(&self, truth: Truth) -> Advice {
        let ratio = |hits: u64, of: u64| if of == 0 { 0.0 } else { hits as f64 / of as f64 };
        let hit_ratio = ratio(truth.hits, truth.lookups);
        // The expected number of lookups that a size sees: see the module's "Corrections".
        let total = (truth.lookups as f64 - self.lost).max(0.0);
        let expected = |size: &SizeFigures| (total * size.share).max(1.0);
        // How far a size, in the keys that it sees, is above the real cache.
        let more = |size: &SizeFigures| (size.counts.hits - size.counts.real) / expected(size);
        // What the miniature differs by at the same size is an error of all miniatures.
        let own = more(&self.sizes[OWN]);
        let counts_cold = self.counts_new_keys && !self.timed;
        // No size has more hits than a cache without a bound, whose misses are the new keys. They
        // are a part of the real cache's misses, so their share of those has the least noise. The
        // size that sees the most keys counts best.
        let most_seen = self.sizes.iter().max_by(|a, b| a.share.total_cmp(&b.share));
        let unbounded = most_seen.filter(|_| counts_cold).map(|size| {
            let Counts {
                lookups, real, cold, ..
            } = size.counts;
            let misses = if lookups > real { cold / (lookups - real) } else { 0.0 };
            (1.0 - misses * (1.0 - hit_ratio)).clamp(hit_ratio.min(1.0), 1.0)
        });
        let relative = |size: &SizeFigures| {
            let Counts {
                lookups, real, cold, ..
            } = size.counts;
            let (most, cold) = unbounded.map_or((1.0, 0.0), |most| (most, cold));
            let (more, room) = (more(size) - own, (lookups - cold - real) / expected(size) - own);
            if more > 0.0 && room > 0.0 {
                // Between two ratios that are known.
                hit_ratio + (more / room).min(1.0) * (most - hit_ratio)
            } else {
                (hit_ratio + more).clamp(0.0, most)
            }
        };
        let (mut points, mut few_lookups, mut few_entries) = (Vec::new(), !self.is_warm, false);
        for (quarters, size) in QUARTERS.into_iter().zip(&self.sizes) {
            let capacity = quarters_of(self.capacity, quarters);
            if capacity > 0 && (self.weighted || quarters == 4 || capacity <= MOST) {
                few_lookups |= size.counts.lookups < FEW;
                few_entries |= self.weighted && size.share < 1.0 && size.entries < SMALL;
                points.push(Point {
                    factor: quarters as f64 / 4.0,
                    capacity,
                    hit_ratio: relative(size),
                    bytes: if self.weighted {
                        capacity
                    } else {
                        capacity.saturating_mul(truth.entry_bytes)
                    },
                });
            }
        }
        let most = unbounded.or(points.last().map(|point: &Point| point.hit_ratio));
        let optimum = (!self.weighted && !self.timed && !self.recent.is_empty()).then(|| {
            let best = optimal_hits(&self.recent, usize::try_from(self.own_entries).unwrap_or(usize::MAX));
            let ours = replay(self.kind, &self.recent, self.own_entries);
            // Both start empty, so only their difference counts.
            (hit_ratio + (best as f64 - ours as f64) / self.recent.len() as f64).clamp(0.0, 1.0)
        });
        let doubt = if few_lookups {
            Some(Doubt::FewLookups)
        } else if self.lost > LOST * truth.lookups as f64 {
            Some(Doubt::LostSamples)
        } else if few_entries {
            Some(Doubt::FewEntries)
        } else {
            None
        };
        Advice {
            capacity: self.capacity,
            hit_ratio,
            lookups: truth.lookups,
            sample: self.sizes[OWN].share,
            unbounded,
            enough: most.and_then(|most| size_for(&points, 0.95 * most)),
            tenth_more: tenth_more(&points),
            optimum,
            over_lru: self.sizes.get(LRU).map(|lru| hit_ratio - relative(lru)),
            doubt,
            weighted: self.weighted,
            points,
        }
    }
}

/// Returns the smallest capacity with this hit ratio, interpolated on a logarithmic scale.
pub(super) fn size_for(points: &[Point], ratio: f64) -> Option<u64> {
    let first = points.iter().position(|point| point.hit_ratio >= ratio)?;
    let above = points[first];
    let Some(below) = first.checked_sub(1).map(|before| points[before]) else {
        return Some(above.capacity);
    };
    let part = (ratio - below.hit_ratio) / (above.hit_ratio - below.hit_ratio);
    let growth = (above.factor / below.factor).powf(part);
    Some((below.capacity as f64 * growth).ceil() as u64)
}

/// Returns what a tenth more capacity adds, from the difference that doubling makes.
fn tenth_more(points: &[Point]) -> f64 {
    let at = |factor| points.iter().find(|point| point.factor == factor);
    match (at(1.0), at(2.0)) {
        (Some(one), Some(two)) => (two.hit_ratio - one.hit_ratio) * 1.1f64.log2(),
        _ => 0.0,
    }
}

impl Advice {
    fn at(&self, factor: f64) -> Option<&Point> {
        self.points.iter().find(|point| point.factor == factor)
    }

    /// Returns the smallest simulated size that loses almost no hits.
    fn smaller(&self) -> Option<&Point> {
        let smaller = |point: &&Point| point.factor < 1.0 && point.hit_ratio >= self.hit_ratio - LOSS;
        self.points.iter().find(smaller)
    }
}

/// A number with commas.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.weighted { "of weight" } else { "entries" };
        if let Some(doubt) = self.doubt {
            return write!(f, "No advice yet: {doubt}.");
        }
        let percent = |ratio: f64| format!("{:.1}%", 100.0 * ratio);
        let now = format!("{} at {} {unit}", percent(self.hit_ratio), grouped(self.capacity));
        match (self.smaller(), self.at(2.0)) {
            (_, Some(double)) if double.hit_ratio - self.hit_ratio >= WORTH => write!(
                f,
                "Make it larger: the hit ratio is {now}, and would be {} at {}.",
                percent(double.hit_ratio),
                grouped(double.capacity)
            )?,
            (Some(smaller), _) => write!(
                f,
                "Make it smaller: the hit ratio is {now}, and would be {} at {}.",
                percent(smaller.hit_ratio),
                grouped(smaller.capacity)
            )?,
            (None, Some(double)) => write!(
                f,
                "Keep the size: the hit ratio is {now}, and would be only {} at {}.",
                percent(double.hit_ratio),
                grouped(double.capacity)
            )?,
            (None, None) => write!(f, "The hit ratio is {now}.")?,
        }
        match (self.enough, self.points.last()) {
            (Some(enough), _) => {
                write!(
                    f,
                    " About {} {unit} give 95% of the hits that any size can give.",
                    grouped(enough)
                )
            }
            (None, Some(last)) => write!(
                f,
                " Even {} {unit} give less than 95% of the hits of a cache without a bound.",
                grouped(last.capacity)
            ),
            (None, None) => Ok(()),
        }
    }
}
