//! Simulation.
use super::Mend;
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default)]
pub(crate) struct Controls {
    off: BTreeSet<Mend>,
}

impl Controls {
    pub(crate) fn has(&self, mend: Mend) -> bool {
        !self.off.contains(&mend)
    }
}
