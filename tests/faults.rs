//! Faults around a cache, one kind a module: user code that panics, at every place and at each of
//! its calls; clocks that leap; threads that end, stall or fork.

#[path = "faults/clocks.rs"]
mod clocks;
#[cfg(unix)]
#[path = "faults/forks.rs"]
mod forks;
#[path = "faults/panics.rs"]
mod panics;
#[cfg(feature = "snapshot")]
#[path = "faults/snapshots.rs"]
mod snapshots;
#[path = "faults/threads.rs"]
mod threads;
#[path = "faults/traps.rs"]
mod traps;

const POLICIES: [hotset::Policy; 5] = [
    hotset::Policy::WTinyLfu,
    hotset::Policy::Lru,
    hotset::Policy::Lfu,
    hotset::Policy::Fifo,
    hotset::Policy::Random,
];
