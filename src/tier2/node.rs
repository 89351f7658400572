//! One server, or one master of a cluster, as this process knows it: identity, clock, breaker, bus.

use super::Settings;

pub(crate) const MILLI: u64 = 1_000_000;
/// How long a breaker stays open at first, and at most.
const BACKOFF: (u64, u64) = (250 * MILLI, 2_000 * MILLI);
/// After this time, a reading of the server's clock is replaced by a less exact one.
const CLOCK_AGE: u64 = 60_000 * MILLI;
/// A reading that took longer is replaced soon: it makes values seem older than they are by as
/// much.
const GOOD_ROUND_TRIP: u64 = 20 * MILLI;

/// By how much a clock of a coarse resolution may tick late.
const TICK_DELAY: u64 = 50;
/// Shortest time between two readings of a clock that is being found out.
const BETWEEN_READINGS: u64 = 200 * MILLI;

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// Sent, or perhaps sent, and not answered: the outcome is unknown.
    Timeout = 1,
    /// Not sent, for a reason of this process.
    NotSent,
    /// The connection could not be opened, or broke before anything was sent.
    Refused,
    /// The server has no memory for it.
    OutOfMemory,
    /// The server is a replica.
    ReadOnly,
    /// The script is not known.
    NoScript,
    /// The user may not do this.
    NoPermission,
    /// The server loads its data.
    Loading,
    /// The cluster is down.
    ClusterDown,
    /// The key is on another node.
    Moved,
    /// Any other error reply.
    Other,
}

impl Failure {
    /// Returns the failure with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        use Failure::*;
        let all = [
            Timeout,
            NotSent,
            Refused,
            OutOfMemory,
            ReadOnly,
            NoScript,
            NoPermission,
            Loading,
            ClusterDown,
            Moved,
            Other,
        ];
        all.into_iter().find(|&kind| kind as u8 == number)
    }

    /// Returns whether the server executed nothing of the command.
    pub(crate) fn is_definite(self) -> bool {
        self != Self::Timeout
    }

    /// Returns whether the server itself answered that it will not do this one thing.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::OutOfMemory | Self::NoScript | Self::NoPermission | Self::Other
        )
    }
}

/// Whether commands may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing is known about the node.
    Unknown,
    Up,
    /// The node answers, but the journal has keys of it: only replays are sent, and from the first
    /// confirmed one on also new writes and removals, else a steady stream of these would keep the
    /// journal from ever becoming empty.
    Replaying {
        confirmed: bool,
    },
    Down {
        retry_at: u64,
    },
}

/// Whether invalidations are known to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Lost {
        since: u64,
    },
    Armed,
    /// The node answers, but the bus cannot be had.
    Unsynced,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Canary {
    pub(crate) number: u64,
    pub(crate) sent: u64,
    /// The node confirmed the write.
    pub(crate) written: bool,
    /// The bus delivered its message.
    pub(crate) back: bool,
    /// A PING was sent behind the message.
    pub(crate) pinged: bool,
}

/// Whether a node of a cluster has slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Serving,
    /// It has none any more, and what tier 1 holds of it has not been cleared.
    Draining,
    Idle,
}

/// The state of the node after tier 1 has been cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterClear {
    Arm { synced_at: u64 },
    Unsync,
}

#[derive(Debug)]
pub(crate) struct Bus {
    pub(crate) wanted: bool,
    pub(crate) sync: Sync,
    pub(crate) connected: bool,
    pub(crate) connect_at: u64,
    pub(crate) connect_backoff: u64,
    /// The tracking connection has to be closed.
    pub(crate) close: bool,
    pub(crate) number: u64,
    pub(crate) canary: Option<Canary>,
    pub(crate) canary_at: u64,
    pub(crate) canary_prefix: Box<[u8]>,
    /// When a canary's write was last confirmed, or refused by a node that answers.
    pub(crate) written_at: u64,
    /// Every invalidation that the node executed before this was delivered.
    pub(crate) synced_at: u64,
    pub(crate) clear: Option<AfterClear>,
    pub(crate) drop_loads: bool,
}

#[derive(Debug)]
pub(crate) struct Node {
    /// 0 until the node was probed.
    pub(crate) epoch: u32,
    pub(crate) role: Role,
    identity: Box<[u8]>,
    pub(crate) can_fence: bool,
    /// Server time less local time, nanoseconds: upper and lower bounds.
    upper: i64,
    lower: i64,
    round_trip: u64,
    /// Of its clock, in milliseconds.
    resolution: u64,
    read_at: u64,
    tried_at: u64,
    pub(crate) link: Link,
    timeouts: u32,
    backoff: u64,
    /// No replay before this.
    pub(crate) replay_at: u64,
    /// Grows with every change after which values that were requested before must not enter tier 1.
    pub(crate) changes: u64,
    pub(crate) bus: Bus,
}

/// How values of a node may be kept in tier 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    Nowhere,
    /// The bus delivers changes.
    Synced,
    /// Nothing does, and the node answers.
    Unsynced,
    /// Nothing does: the node does not answer, or no bus is wanted.
    Alone,
}

impl Node {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            epoch: 0,
            role: Role::Serving,
            identity: [].into(),
            can_fence: false,
            upper: 0,
            lower: 0,
            round_trip: u64::MAX,
            resolution: settings.clock_resolution.max(1),
            read_at: 0,
            tried_at: 0,
            link: Link::Unknown,
            timeouts: 0,
            backoff: 0,
            replay_at: 0,
            changes: 0,
            bus: Bus {
                wanted: settings.bus,
                sync: Sync::Lost { since: 0 },
                connected: false,
                connect_at: 0,
                connect_backoff: 0,
                close: false,
                number: 0,
                canary: None,
                canary_at: 0,
                canary_prefix: [].into(),
                written_at: 0,
                synced_at: 0,
                clear: None,
                drop_loads: false,
            },
        }
    }

    /// Returns whether reads may be sent.
    pub(crate) fn is_up(&self) -> bool {
        self.link == Link::Up
    }

    /// Returns whether writes and removals may be sent.
    pub(crate) fn takes_writes(&self) -> bool {
        matches!(self.link, Link::Up | Link::Replaying { confirmed: true })
    }

    pub(crate) fn retention(&self) -> Retention {
        if self.role != Role::Serving {
            return Retention::Nowhere;
        }
        match (self.link, self.bus.wanted) {
            (Link::Unknown | Link::Replaying { .. }, _) => Retention::Nowhere,
            (Link::Down { .. }, _) | (Link::Up, false) => Retention::Alone,
            (Link::Up, true) => match self.bus.sync {
                Sync::Lost { .. } => Retention::Nowhere,
                Sync::Armed => Retention::Synced,
                Sync::Unsynced => Retention::Unsynced,
            },
        }
    }

    /// Until when tier 1 may serve what it holds of this node.
    pub(crate) fn trusted_until(&self, settings: &Settings) -> u64 {
        match self.role {
            Role::Serving => {}
            Role::Draining if self.bus.wanted => return 0,
            Role::Draining | Role::Idle => return u64::MAX,
        }
        match (self.link, self.bus.wanted) {
            (Link::Down { .. }, _) | (_, false) => u64::MAX,
            // Unknown: what a fork inherited is not trusted either.
            (Link::Unknown | Link::Replaying { .. }, true) => 0,
            (Link::Up, true) => match self.bus.sync {
                Sync::Unsynced => u64::MAX,
                // Lost: what was true until then stays true, and nothing is added.
                Sync::Armed | Sync::Lost { .. } if self.bus.synced_at == 0 => 0,
                Sync::Armed | Sync::Lost { .. } => self.bus.synced_at.saturating_add(settings.max_lag),
            },
        }
    }

    /// Server milliseconds at `now`, at least: what is written may expire early, and not late.
    pub(crate) fn server_ms_lower(&self, now: u64) -> u64 {
        server_ms(now, self.lower)
    }

    /// Server milliseconds at `now`, at most.
    pub(crate) fn server_ms_upper(&self, now: u64) -> u64 {
        server_ms(now, self.upper)
    }

    fn read_clock(&mut self, server_ms: u64, sent: u64, now: u64) {
        if self.resolution > 1 {
            return self.read_coarse_clock(server_ms, sent, now);
        }
        let round_trip = now.saturating_sub(sent);
        self.tried_at = now;
        if round_trip > self.round_trip && now < self.read_at.saturating_add(CLOCK_AGE) {
            return;
        }
        self.round_trip = round_trip;
        self.read_at = now;
        // The server read its clock after `sent` and before `now`, and sent it without its
        // fraction.
        self.upper = offset(server_ms.saturating_add(1), sent);
        self.lower = offset(server_ms, now);
    }

    /// By how many milliseconds the server's clock may be late: one of a coarse resolution is, for
    /// a while after the server was stopped. A value that was expired now must not become fresh by
    /// that.
    pub(crate) fn clock_shift(&self) -> u64 {
        if self.resolution > 1 { 10 * self.resolution } else { 0 }
    }

    /// Narrows the bounds by a reading of a clock that ticks once per `resolution`.
    fn read_coarse_clock(&mut self, server_ms: u64, sent: u64, now: u64) {
        let upper = offset(
            server_ms.saturating_add(self.resolution).saturating_add(TICK_DELAY),
            sent,
        );
        let lower = offset(server_ms, now);
        let is_first = self.round_trip == u64::MAX;
        self.tried_at = now;
        self.read_at = now;
        (self.lower, self.upper) = if is_first {
            (lower, upper)
        } else if lower <= self.upper && self.lower <= upper {
            (lower.max(self.lower), upper.min(self.upper))
        } else {
            // A tick was late, as after a stop of the server: wide bounds, which only shorten
            // lifetimes, until further readings narrow them.
            (lower.min(self.lower), upper.max(self.upper))
        };
        self.round_trip = self.upper.abs_diff(self.lower);
    }

    /// When the server's clock should be read again.
    pub(crate) fn read_clock_at(&self) -> u64 {
        let resolution = self.resolution * MILLI;
        if self.resolution > 1 && self.tried_at != 0 && self.round_trip > resolution / 5 && self.is_up() {
            // At the tick, if it is in the middle of the bounds: each reading halves them.
            let earliest = self.tried_at.saturating_add(BETWEEN_READINGS);
            let middle = self.lower.midpoint(self.upper);
            let since_tick = i64::try_from(earliest).unwrap_or(0).saturating_add(middle);
            let rest = resolution - since_tick.rem_euclid(resolution as i64) as u64;
            return earliest.saturating_add(rest);
        }
        let age = if self.round_trip > GOOD_ROUND_TRIP {
            CLOCK_AGE / 60
        } else {
            CLOCK_AGE
        };
        self.tried_at.saturating_add(age)
    }

    /// A new connection read the node's identity. Returns whether it is another one than before.
    pub(crate) fn identify(&mut self, identity: &[u8], can_fence: bool, clock: (u64, u64), now: u64) -> bool {
        self.can_fence = can_fence;
        let another = self.epoch == 0 || *self.identity != *identity;
        if another {
            self.identity = identity.into();
            self.epoch += 1;
            self.round_trip = u64::MAX;
            self.changes += 1;
        }
        let (server_ms, sent) = clock;
        self.read_clock(server_ms, sent, now);
        another
    }

    /// Has the node's identity and clock read soon.
    pub(crate) fn probe_soon(&mut self) {
        self.tried_at = 0;
    }

    /// The node answers again, or it is another one.
    pub(crate) fn reopen(&mut self, replay: bool, now: u64) {
        self.changes += 1;
        self.timeouts = 0;
        self.link = if replay {
            Link::Replaying { confirmed: false }
        } else {
            Link::Up
        };
        self.replay_at = now;
        self.lose(now);
        self.bus.sync = Sync::Lost { since: now };
        // What was inserted while the node was down, or answered by the node that it was before, is
        // not trusted.
        self.bus.synced_at = 0;
        self.bus.canary_at = now;
        self.bus.connect_at = now;
        if !replay {
            self.backoff = 0;
        }
    }

    /// All that had to be replayed is confirmed.
    pub(crate) fn replayed(&mut self, now: u64) {
        self.link = Link::Up;
        self.backoff = 0;
        self.changes += 1;
        self.bus.sync = Sync::Lost { since: now };
        self.bus.canary_at = now;
    }

    /// An answer came.
    pub(crate) fn answered(&mut self) {
        self.timeouts = 0;
    }

    /// A command failed. Returns whether the breaker opened.
    pub(crate) fn failed(&mut self, failure: Failure, now: u64) -> bool {
        let opens = match failure {
            Failure::Timeout => {
                self.timeouts += 1;
                self.timeouts >= 2 || matches!(self.link, Link::Replaying { .. } | Link::Unknown)
            }
            Failure::Refused | Failure::ReadOnly | Failure::Loading | Failure::ClusterDown => true,
            Failure::NotSent => false,
            _ => {
                self.answered();
                false
            }
        };
        if !opens || matches!(self.link, Link::Down { .. }) {
            return false;
        }
        self.open(now);
        true
    }

    /// A probe failed. Returns whether the breaker opened, or stays open for longer.
    pub(crate) fn probe_failed(&mut self, failure: Failure, now: u64) -> bool {
        self.tried_at = now;
        if self.is_up() {
            return self.failed(failure, now);
        }
        self.open(now);
        true
    }

    fn open(&mut self, now: u64) {
        self.backoff = (self.backoff * 2).clamp(BACKOFF.0, BACKOFF.1);
        if !matches!(self.link, Link::Down { .. }) {
            self.changes += 1;
            // What is loaded from now on is not in tier 2, so that no message will tell of its end.
            self.lose(now);
        }
        self.link = Link::Down {
            retry_at: now.saturating_add(self.backoff),
        };
        self.bus.canary = None;
        self.bus.clear = None;
    }

    /// The bus can no longer be relied upon. Returns whether it could before.
    pub(crate) fn lose(&mut self, now: u64) -> bool {
        self.bus.clear = None;
        let lost = !matches!(self.bus.sync, Sync::Lost { .. });
        if lost {
            self.changes += 1;
            self.bus.sync = Sync::Lost { since: now };
            self.bus.drop_loads = self.bus.wanted;
            self.bus.canary_at = now;
        }
        lost
    }
}

/// Returns server time less local time, nanoseconds.
fn offset(server_ms: u64, local: u64) -> i64 {
    let server = i64::try_from(server_ms.saturating_mul(MILLI)).unwrap_or(i64::MAX / 2);
    server.saturating_sub(i64::try_from(local).unwrap_or(i64::MAX / 2))
}

fn server_ms(now: u64, offset: i64) -> u64 {
    let server = i64::try_from(now).unwrap_or(i64::MAX).saturating_add(offset);
    u64::try_from(server).unwrap_or(0) / MILLI
}
