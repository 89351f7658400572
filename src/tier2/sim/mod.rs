//! A deterministic simulation: processes that run the real core, a model of Redis, and a network
//! that delays, reorders across connections, cuts, and delivers late.
//!
//! `schedules` and `cluster` have one schedule for each rule of the protocol, which passes, and
//! which the `oracle` is seen to reject when the rule is turned off. `random` has random schedules
//! with every kind of fault; each reports its seed. `exhaustive` tries every schedule of a small
//! scenario that differs from the usual one in a few places. `HOTSET_SIM_SEEDS=n` takes more seeds,
//! `HOTSET_SIM_SEED=s` one alone, and `HOTSET_SIM_LOG=1` shows what happened.

mod answers;
mod background;
mod cluster;
mod exhaustive;
pub(super) mod memcached;

mod on_memcached;
mod oracle;
mod process;
mod random;
mod schedules;
mod script;
mod server;
mod transport;
mod world;

use super::Rule;
#[cfg(test)]
pub(super) use server::Item;
use std::collections::BTreeSet;

/// Which rules are turned off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Controls {
    off: BTreeSet<Rule>,
}

impl Controls {
    pub(crate) fn has(&self, rule: Rule) -> bool {
        !self.off.contains(&rule)
    }

    fn turn_off(&mut self, off: &BTreeSet<Rule>) {
        self.off.clone_from(off);
    }
}
