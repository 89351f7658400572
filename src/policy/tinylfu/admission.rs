//! Admission: whether a candidate from the window takes the place of the main part's victim.
#![forbid(unsafe_code)]

use super::{ONE_IN_128, PROBATION, RIVAL_USES, TinyLfu, WARM};
use crate::policy::{Entries, Evictions, Verdict, weigh, xorshift};

impl<H: Copy + Eq> TinyLfu<H> {
    /// Returns whether the candidate takes the victim's place.
    #[inline]
    fn wins<E: Entries<Handle = H>>(&mut self, entries: &E, ours: u8, victim: H) -> bool {
        // Ties lose, and a key used once never displaces another. So a scan cannot displace the
        // main part.
        let theirs = self.sketch.estimate(entries.hash(victim));
        let wins = ours > theirs || (ours >= WARM && xorshift(&mut self.random) & ONE_IN_128 == 0);
        if !wins {
            self.rival = entries.hash(victim) as u16;
            self.rivalry = RIVAL_USES << 3 | theirs.clamp(1, WARM - 1);
        }
        wins
    }

    /// Reduces the window to its target weight, and the total weight to the capacity.
    #[inline(always)]
    pub(super) fn rebalance<E: Entries<Handle = H>>(&mut self, entries: &E, weighted: bool, out: &mut Evictions<H>) {
        while self.window.weight() > self.window_max {
            // The common case in a full cache: a candidate with no more uses at its insertion than
            // the victim, and no hit since, is rejected without reading the sketch.
            let min_winning_uses = self.min_winning_uses(entries);
            let cannot_win = |handle, uses| {
                let cannot_win = uses < min_winning_uses && entries.hits(handle) == 0;
                cannot_win.then(|| weigh(entries, handle, weighted))
            };
            match self.chunks.pop_back_if(&mut self.window, entries, cannot_win) {
                Some(tail) => self.evict_window(entries, tail, Verdict::Rejected, out),
                None => self.evaluate_candidate(entries, out),
            }
        }
        if self.total > self.capacity {
            self.evict_excess(entries, out);
        }
        // Prefetches the next candidate's counters, and the bucket of its ghost.
        if let Some(candidate) = self.chunks.peek_ahead(&self.window) {
            self.prefetch_history(entries.hash(candidate));
        }
    }

    /// Returns the uses below which a candidate without a mark cannot win: one more than the
    /// victim's estimate.
    #[inline(always)]
    fn min_winning_uses<E: Entries<Handle = H>>(&mut self, entries: &E) -> u8 {
        if !self.exceeds_capacity() {
            return 0;
        }
        if self.rivalry >> 3 > 0
            && let Some((tail, _)) = self.chunks.back(&self.probation)
            && entries.hits(tail) == 0
            && self.rival == entries.hash(tail) as u16
        {
            self.rivalry -= 1 << 3;
            return (self.rivalry & 7) + 1;
        }
        2
    }

    /// Returns whether an entry must leave, and there is a main part to compete with.
    #[inline(always)]
    fn exceeds_capacity(&self) -> bool {
        self.total > self.capacity && self.total > self.window.weight()
    }

    /// Moves the tail of the window, which is not empty, to the main part, or evicts it.
    #[inline(never)]
    fn evaluate_candidate<E: Entries<Handle = H>>(&mut self, entries: &E, out: &mut Evictions<H>) {
        let (candidate, _) = self.chunks.back(&self.window).expect("it weighs too much");
        let weight = self.weigh(entries, candidate);
        let hit = self.take_hit(entries, candidate);
        let verdict = if self.total > self.capacity {
            let ours = hit.unwrap_or_else(|| self.sketch.estimate(entries.hash(candidate)));
            self.compete(entries, ours, out)
        } else {
            None
        };
        let verdict = match verdict {
            None if !self.chunks.reserve(&self.probation) => Some(Verdict::Evicted),
            verdict => verdict,
        };
        self.chunks.pop_back(&mut self.window, entries, weight);
        match verdict {
            Some(verdict) => self.evict_window(entries, (candidate, weight), verdict, out),
            None => self.push_reserved(PROBATION, entries, candidate, weight),
        }
    }

    /// Makes room for a candidate with the estimate `ours`, or returns why it must leave itself.
    #[inline]
    fn compete<E: Entries<Handle = H>>(&mut self, entries: &E, ours: u8, out: &mut Evictions<H>) -> Option<Verdict> {
        // With weights, the candidate may have to win several times, and an evicted victim does not
        // come back.
        while self.total > self.capacity {
            // No victim is searched for a candidate that cannot win. This saves the steps and two
            // cache misses; over the traces the hit ratios stay within 0.005 points on average.
            if ours <= 1 && self.exceeds_capacity() {
                return Some(Verdict::Rejected);
            }
            let Some(victim) = self.victim(entries) else {
                return Some(Verdict::Evicted);
            };
            if !self.wins(entries, ours, victim) {
                return Some(Verdict::Rejected);
            }
            self.evict(entries, victim, out);
        }
        None
    }

    /// Evicts entries until the total weight is within the capacity, if the window is within its
    /// target.
    #[inline(never)]
    pub(super) fn evict_excess<E: Entries<Handle = H>>(&mut self, entries: &E, out: &mut Evictions<H>) {
        while self.total > self.capacity {
            if let Some(victim) = self.victim(entries) {
                self.evict(entries, victim, out);
            } else if let Some((tail, _)) = self.chunks.back(&self.window) {
                self.take_hit(entries, tail);
                let weight = self.weigh(entries, tail);
                self.chunks.pop_back(&mut self.window, entries, weight);
                self.evict_window(entries, (tail, weight), Verdict::Evicted, out);
            }
        }
    }
}
