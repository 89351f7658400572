//! The second tier, without I/O: one cache in front of a Redis or of memcached servers, coherent
//! over processes.
//!
//! Tier 1 is a cache in the process; tier 2 is a server that many processes share. This module
//! decides what is sent to the server, what its answers mean, and what tier 1 may keep and for how
//! long. It opens no socket, starts no thread, and reads no clock: a transport performs the
//! [`Action`]s of [`Operation`]s and the [`Task`]s of a background thread, and reports what
//! happened. Instants are nanoseconds of one clock that does not stop while the host sleeps, passed
//! in by the caller.
//!
//! # Types
//! - [`Tier`]: one server or cluster in one process. Its nodes (epoch, breaker, bus), journal,
//!   generations, leases.
//! - [`Namespace`]: one cache on a tier, with its [`NamespaceSettings`].
//! - [`Operation`]: one read, write or removal of a key, driven by its caller.
//! - [`Trust`]: until when tier 1 may be believed.
//!
//! # Tier 1
//! The caller's tier 1 opens a *mark* for the key before each action for which
//! [`Action::is_marked`] holds. Every removal of the key, and every invalidation of its loads,
//! voids the mark; a value is inserted only under a mark that is whole, in one step with that
//! check. (A load in flight of this crate's cache is such a mark.) A hit is served while
//! [`Trust::hits_until`] is not past; a load is joined while [`Trust::joins_until`] is not past.
#![forbid(unsafe_code)]

mod background;
mod frame;
mod generations;
mod journal;
pub mod memcached;
mod namespace;
mod node;
mod operation;
#[cfg(all(test, not(loom)))]
mod sim;
mod slots;
mod stats;
mod tier;
mod trust;

pub use background::{CANARY_PX, Task};
pub use frame::{Frame, HEAD, Kind, MAX_TAGS, Parsed, SOFT_END, Stamp, parse};
pub use namespace::Namespace;
pub use node::Failure;
pub use operation::{Action, Operation, Reply};
pub use slots::{SLOTS, slot};
pub use stats::{Counter, Latency, NamespaceStats, TierStats};
pub use tier::{NodeReport, Probe, Tier};
pub use trust::Trust;

/// Settings of a [`Tier`]. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A bus is wanted: the server announces changes to a tracking connection.
    pub bus: bool,
    /// Tier 1 is trusted for this time after the last sign that all invalidations arrived.
    pub max_lag: u64,
    /// Time between two canaries.
    pub canary_interval: u64,
    /// Most keys that the journal holds; beyond, whole namespaces are bumped.
    pub journal: usize,
    /// How long an unconditional write that cannot be fenced may take until the server refuses it.
    pub write_window: u64,
    /// Each node has its own copy of a namespace's generations, for the keys that it has: node n
    /// has the one at place n. For servers that never hand a key on to another one. Otherwise
    /// generations belong to ranges of a cluster's slots.
    pub generation_per_node: bool,
    /// The resolution of the servers' clocks in milliseconds. A clock of seconds is found out by
    /// reading it when it is expected to tick.
    pub clock_resolution: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bus: true,
            max_lag: 2_500_000_000,
            canary_interval: 1_000_000_000,
            journal: 10_000,
            write_window: 200_000_000,
            generation_per_node: false,
            clock_resolution: 1,
        }
    }
}

/// Settings of a [`Namespace`]. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceSettings {
    /// How long a value is fresh.
    pub ttl: u64,
    /// How long a value stays in tier 1 at most without a new answer of tier 2.
    pub local_ttl: u64,
    /// The same while the bus is wanted, and cannot be had.
    pub unsynced_ttl: u64,
    /// How long after its ttl a value may be served while one caller reloads it.
    pub stale_while_revalidate: u64,
    /// How long after its ttl a value may be served if its load fails.
    pub stale_if_error: u64,
    /// How long a lease is valid unless it is renewed.
    pub lease: u64,
    /// How long a caller waits for another process's load; 0: as long as that takes.
    pub lease_wait: u64,
    /// How long a lease is renewed at most.
    pub load_timeout: u64,
    /// Reloads before the ttl, more likely the longer loads take and the nearer the end is
    /// (XFetch); 0: never.
    pub early_reload: f64,
}

impl Default for NamespaceSettings {
    fn default() -> Self {
        Self {
            ttl: 300_000_000_000,
            local_ttl: 60_000_000_000,
            unsynced_ttl: 1_000_000_000,
            stale_while_revalidate: 0,
            stale_if_error: 0,
            lease: 1_500_000_000,
            lease_wait: 0,
            load_timeout: 60_000_000_000,
            early_reload: 0.0,
        }
    }
}

/// A rule of the protocol that the simulation can turn off, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(all(test, not(loom))), allow(dead_code))]
pub(crate) enum Rule {
    /// A late unconditional write is fenced before its key is written or replayed.
    Fence,
    /// A breaker that closes has tier 1 cleared.
    ClearOnBreaker,
    /// A journalled key is not read, filled or kept.
    JournalBlocks,
    /// What was not confirmed is replayed.
    JournalReplays,
    /// A frame that is no use, but there, is replaced by a lease.
    LeadOverDead,
    /// A generation is a unique stamp, not a counter.
    UniqueGenerations,
    /// A canary's message counts only if it has the canary's number.
    NumberedCanaries,
    /// Values that were requested while the bus was not armed are not kept as if it were.
    ArmedWhenSent,
    /// A node that refuses canaries is not down.
    UnsyncedByWrite,
    /// What was confirmed in the last 30 seconds is replayed at a new epoch.
    ReplayOnNewEpoch,
    /// A confirmation of an older epoch is none.
    EpochOfReply,
    /// New removals are sent from the first confirmed replay on.
    HalfOpen,
    /// The right to refresh is taken together with a second read of the key.
    ClaimReadsAgain,
    /// A caller that saw two leases vanish loads for itself.
    VoidedLeases,
    /// A lease is at least as long as loads take.
    LeaseByLoad,
    /// The tracking connection answers a PING behind the canary's message.
    PingBehindCanary,
    /// A generation that is about to be replaced is not remembered.
    BumpTwice,
    /// A generation that was requested before the bus armed is not remembered.
    GenerationWhenSent,
    /// A lease whose outcome is unknown is requested again with another stamp.
    FreshStamp,
    /// A lease that was taken by a request whose outcome was unknown is recognized.
    OwnLeaseRecognized,
    /// A late write is fenced where it was sent, and waited for by the clock of that server.
    LateWriteByNode,
    /// What is kept beside a key is in its slot.
    ClaimInSlot,
    /// Server times are those of the server that gets the command in the end.
    TimesByNode,
    /// A journalled key whose server is gone is replayed on the server that has its slot.
    JournalFollows,
    /// A generation whose server is gone is read where the key is, which answers where it moved.
    GenerationFollows,
}
