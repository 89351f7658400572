//! The capacity that a cache gives itself: the one that its advice calls for, within bounds.

use super::advice::{Advice, size_for};
use crate::error::BuildError;
use std::ops::RangeInclusive;

/// A hit ratio that differs from the wanted one by no more than this is no reason for another size:
/// estimates differ by as much.
const TOLERANCE: f64 = 0.005;

/// The bounds of the capacity, and the share of the possible hits that it is to give.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Autosize {
    low: u64,
    high: u64,
    target: f64,
}

impl Autosize {
    /// Checks the settings of a cache that starts with `capacity`.
    pub(crate) fn new(
        bounds: RangeInclusive<u64>,
        target: f64,
        capacity: u64,
        weighted: bool,
    ) -> Result<Self, BuildError> {
        let (low, high) = bounds.into_inner();
        let is_valid = low >= 1
            && (low..=high).contains(&capacity)
            && super::is_bound(high, weighted)
            && target > 0.0
            && target <= 1.0;
        if is_valid {
            Ok(Self { low, high, target })
        } else {
            Err(BuildError::Autosize)
        }
    }

    /// Returns the capacity to set, unless the current one is about right, or the advice is in
    /// doubt.
    pub(crate) fn goal(&self, advice: &Advice) -> Option<u64> {
        let last = advice.points.last().filter(|_| advice.doubt.is_none())?;
        let wanted = self.target * advice.unbounded.unwrap_or(last.hit_ratio);
        let goal = if (advice.hit_ratio - wanted).abs() <= TOLERANCE {
            advice.capacity
        } else {
            size_for(&advice.points, wanted).unwrap_or(last.capacity)
        };
        let goal = goal.clamp(self.low, self.high);
        (goal.abs_diff(advice.capacity) > advice.capacity / 10).then_some(goal)
    }
}
