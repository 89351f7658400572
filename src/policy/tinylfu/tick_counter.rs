//! Event counters of the TinyLFU policy.
#![forbid(unsafe_code)]

/// Counts departures or arrivals in ticks, without a division per event.
#[derive(Debug, Clone, Copy)]
pub(super) struct TickCounter {
    pub(super) ticks: u32,
    /// Events until the next tick.
    pub(super) left: u64,
}

impl TickCounter {
    #[inline(always)]
    pub(super) fn advance(&mut self, tick: u64) {
        self.left -= 1;
        if self.left == 0 {
            self.left = tick;
            self.ticks = self.ticks.wrapping_add(1);
        }
    }
}
