//! Shared code of the jobs: the caches behind one trait, the measured loops, random keys,
//! statistics.

pub mod measure;
pub mod peers;
pub mod report;
pub mod time;
pub mod workload;
