//! The Rust examples of the README and of the pages in `docs` are tests.

#[doc = include_str!("../README.md")]
struct Readme;

#[doc = include_str!("../docs/how-to/expire.md")]
struct HowToExpire;

#[doc = include_str!("../docs/how-to/how-big.md")]
struct HowToHowBig;

#[doc = include_str!("../docs/how-to/load-once.md")]
struct HowToLoadOnce;

#[cfg(feature = "metrics")]
#[doc = include_str!("../docs/how-to/metrics-rust.md")]
struct HowToMetricsRust;

#[doc = include_str!("../docs/how-to/refresh-ahead.md")]
struct HowToRefreshAhead;

#[doc = include_str!("../docs/how-to/restart-warm.md")]
struct HowToRestartWarm;

#[cfg(feature = "redis")]
#[doc = include_str!("../docs/how-to/second-tier-rust.md")]
struct HowToSecondTierRust;

#[doc = include_str!("../docs/how-to/size-and-weigh.md")]
struct HowToSizeAndWeigh;

#[doc = include_str!("../docs/how-to/statistics.md")]
struct HowToStatistics;

#[doc = include_str!("../docs/how-to/stats-file.md")]
struct HowToStatsFile;

#[doc = include_str!("../docs/how-to/test-clock.md")]
struct HowToTestClock;

#[doc = include_str!("../docs/tutorials/rust-service.md")]
struct TutorialsRustService;
