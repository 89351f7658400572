//! What the jobs share: the caches behind one trait, the measured loops, random numbers, statistics.

pub mod measure;
pub mod peers;
pub mod report;
pub mod time;
pub mod workload;
