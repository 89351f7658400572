//! Reads: look, lead a load or wait for another's.

use super::super::Rule;
use super::super::frame::{self, Frame, Kind, Parsed, Stamp, fingerprint, parse};
use super::super::node::{Failure, Link, MILLI, Retention};
use super::super::tier::{Lease, State};
use super::{Action, Namespace, Operation, Purpose, Reply, Tier, millis};

/// How often an operation may find that what it meant to replace has changed.
const MAX_ROUNDS: u32 = 4;
/// Leases that may vanish before a waiting caller loads for itself.
const MAX_VOIDED: u32 = 2;
const FIRST_POLL: u64 = 5 * MILLI;

/// By what right a value is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Right {
    #[default]
    None,
    /// A lease in the value's own key.
    Lease,
    /// A lease next to an expired value, which stays.
    Refresh,
    /// A marker states that each process loads for itself, and keeps the value in tier 1.
    Marker,
    /// Tier 2 is of no use now. `keep`: it is down, and tier 1 may keep the value.
    Alone { keep: bool },
}

/// A frame of the last reply.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) stamp: Stamp,
    pub(super) head: Vec<u8>,
    pub(super) soft_end: u64,
    pub(super) load_micros: u32,
    pub(super) generation: Stamp,
    pub(super) tags: Vec<(Box<[u8]>, Stamp)>,
    /// The generations are the current ones, as far as is known.
    pub(super) current: bool,
}

/// What happens when a lease is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    End(Action),
    Restart,
}

#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) right: Right,
    /// The stamp of the lease that is held.
    pub(super) lease: Option<Stamp>,
    /// The stamp of a lease that was requested, and of which the outcome is unknown.
    pub(super) perhaps: Option<Stamp>,
    pub(super) seen: Option<Seen>,
    /// The name of the tag whose generation is being read.
    pub(super) requested_tag: Option<Box<[u8]>>,
    pub(super) serves_stale: bool,
    /// The claim was lost, or is not to be tried again.
    pub(super) claimed: bool,
    pub(super) early: bool,
    pub(super) rounds: u32,
    pub(super) waited_for: Option<Stamp>,
    pub(super) waited_since: Option<u64>,
    pub(super) voided: u32,
    pub(super) polls: u32,
    pub(super) load_began: u64,
    pub(super) ttl: u64,
    pub(super) after: Option<After>,
}

impl Read {
    pub(super) fn is_unleased(&self) -> bool {
        matches!(self.right, Right::Alone { .. } | Right::Marker)
    }

    /// The tags of the frame that was seen.
    pub(super) fn tags(&self) -> impl Iterator<Item = &[u8]> {
        self.seen
            .iter()
            .flat_map(|seen| seen.tags.iter().map(|(tag, _)| &**tag))
    }
}

impl Seen {
    pub(super) fn new(frame: &Frame<'_>, bytes: &[u8]) -> Self {
        Self {
            kind: frame.kind,
            stamp: frame.stamp,
            head: fingerprint(bytes),
            soft_end: frame.soft_end,
            load_micros: frame.load_micros,
            generation: frame.generation,
            tags: frame.tags().map(|(tag, stamp)| (tag.into(), stamp)).collect(),
            current: false,
        }
    }
}

impl Operation {
    pub(crate) fn read(of: &Namespace, key: &[u8], node: u32, now: u64, load: bool, tags: Vec<Box<[u8]>>) -> Self {
        let mut this = Self::new(of.tier(), Some(of), Purpose::Read { load }, key.into(), node);
        this.tags = tags;
        this.start(of.tier(), now);
        this
    }

    pub(crate) fn touch(of: &Namespace, key: &[u8], node: u32, now: u64, ttl: u64) -> Self {
        let mut this = Self::new(of.tier(), Some(of), Purpose::Touch { ttl }, key.into(), node);
        this.start(of.tier(), now);
        this
    }

    pub(super) fn start(&mut self, tier: &Tier, now: u64) {
        let mut guard = tier.0.lock();
        guard.node(self.node, &tier.0.settings);
        self.begin_read(&mut guard, now);
    }

    pub(super) fn loads(&self) -> bool {
        matches!(self.purpose, Purpose::Read { load: true })
    }

    /// Looks the key up, now or after a wait.
    pub(super) fn begin_read(&mut self, state: &mut State, now: u64) {
        self.forget_known(state);
        self.read.seen = None;
        self.target = None;
        if self.is_blocked(state) {
            self.assign_node(state);
            return self.load_alone(state, now);
        }
        match state.known(self.node).link {
            Link::Up => self.issue(state, Action::Get, now),
            Link::Unknown => self.probe(),
            Link::Replaying { .. } | Link::Down { .. } => self.load_alone(state, now),
        }
    }

    /// Tier 2 is of no use for this read.
    pub(super) fn load_alone(&mut self, state: &mut State, now: u64) {
        // A lease that is held keeps others waiting: it is renewed, and given back after the load.
        let held = self.read.lease.is_some_and(|stamp| state.leases.contains_key(&stamp));
        if !held || !self.loads() {
            self.end_lease(state);
        }
        if let Purpose::Touch { .. } = self.purpose {
            self.action = Action::Unconfirmed;
            return;
        }
        if !self.loads() {
            return self.missed();
        }
        let one = state.known(self.node);
        let keep = matches!(one.link, Link::Down { .. }) && !self.is_blocked(state);
        self.marked(one.changes, now);
        self.load(Right::Alone { keep }, now);
    }

    pub(super) fn missed(&mut self) {
        if let Purpose::Touch { .. } = self.purpose {
            self.action = Action::Done;
            return;
        }
        self.namespace().0.stats.misses.one();
        self.action = Action::Miss;
    }

    pub(super) fn load(&mut self, right: Right, now: u64) {
        self.read.right = right;
        self.read.load_began = now;
        let stats = &self.namespace().0.stats;
        if self.read.is_unleased() {
            stats.unleased_loads.one();
        }
        stats.misses.one();
        self.action = Action::Load;
    }

    pub(super) fn read_reply(&mut self, state: &mut State, reply: Reply<'_>, now: u64) {
        // What came while the key was being journalled is not believed.
        if self.is_blocked(state) && !matches!(self.action, Action::Release | Action::Fill) {
            return self.load_alone(state, now);
        }
        match (self.action, reply) {
            (Action::Get | Action::Acquire, Reply::Value(value)) => self.examine(state, value, now),
            (Action::Swap, Reply::Flag(true)) => self.lead(state, now),
            (Action::Swap, Reply::Flag(false)) => {
                self.end_lease(state);
                self.retry_read(state, now);
            }
            (Action::Claim, Reply::Claim(won, value)) => self.claim_answered(state, won, value, now),
            (Action::ReadGeneration, Reply::Value(value)) => {
                if !self.learn_generation(state, value) {
                    self.load_alone(state, now);
                } else if self.read.lease.is_some() {
                    self.lead(state, now);
                } else {
                    self.check_generations(state, now);
                }
            }
            (Action::Fill, Reply::Flag(stored)) => self.filled(state, stored, now),
            (Action::Release, Reply::Flag(_)) => self.released(state, now),
            (Action::Touch, Reply::Flag(done)) => {
                self.stored = done;
                self.action = Action::DropLocal;
            }
            // A transport that answers something else: as if there were no answer.
            _ => self.read_failed(state, Failure::Other, now),
        }
    }

    pub(super) fn read_failed(&mut self, state: &mut State, failure: Failure, now: u64) {
        match self.action {
            Action::Fill => {
                self.count_refused();
                if failure.is_refusal() && !self.is_blocked(state) {
                    // No memory: the lease must not keep others waiting.
                    return self.release(state, After::End(Action::Deliver), now);
                }
                self.end_lease(state);
                self.action = Action::Deliver;
            }
            Action::Release => self.released(state, now),
            Action::Touch => self.action = Action::Unconfirmed,
            Action::Acquire | Action::Swap if !failure.is_definite() && state.known(self.node).is_up() => {
                // The request may have been executed, and may still be, after an invalidation: it
                // gives no right to fill until the lease is seen in a reply. Seen, it was executed,
                // and will not be again. Until then another stamp is used, else a late execution
                // would restore a lease that was voided.
                self.read.perhaps = self.read.lease;
                self.end_lease(state);
                self.retry_read(state, now);
            }
            _ => {
                self.end_lease(state);
                self.load_alone(state, now);
            }
        }
    }

    /// What lies under the key.
    pub(super) fn examine(&mut self, state: &mut State, value: Option<&[u8]>, now: u64) {
        let Some(bytes) = value else {
            if self.action == Action::Acquire {
                return self.lead(state, now);
            }
            if !self.loads() {
                return self.missed();
            }
            if self.lease_vanished(state, now) {
                return;
            }
            return self.acquire(state, Action::Acquire, now);
        };
        match parse(bytes) {
            Parsed::Frame(frame) => {
                self.end_lease(state);
                self.offset = frame.offset;
                self.flags = frame.flags;
                self.codec = frame.codec;
                self.read.seen = Some(Seen::new(&frame, bytes));
                if self.is_blocked(state) {
                    return self.load_alone(state, now);
                }
                self.check_generations(state, now);
            }
            Parsed::Lease(stamp) if self.action == Action::Acquire && self.read.lease == Some(stamp) => {
                self.lead(state, now)
            }
            Parsed::Lease(stamp)
                if self.loads() && self.read.perhaps == Some(stamp) && state.rule(Rule::OwnLeaseRecognized) =>
            {
                self.read.perhaps = None;
                self.read.lease = Some(stamp);
                self.lead(state, now)
            }
            Parsed::Lease(_) | Parsed::Tombstone if !self.loads() => self.missed(),
            Parsed::Lease(stamp) => {
                self.end_lease(state);
                if self.read.waited_for != Some(stamp) && self.lease_vanished(state, now) {
                    return;
                }
                self.read.waited_for = Some(stamp);
                self.wait(state, now);
            }
            Parsed::Tombstone => {
                self.end_lease(state);
                self.load_alone(state, now);
            }
            Parsed::Dead => {
                self.end_lease(state);
                self.namespace().0.stats.malformed.one();
                let expected = fingerprint(bytes);
                self.replace_unusable(state, expected, now);
            }
        }
    }

    /// A lease that this operation waited for is gone, and there is no value. Returns whether that
    /// is once too often.
    pub(super) fn lease_vanished(&mut self, state: &mut State, now: u64) -> bool {
        if self.read.waited_for.take().is_none() {
            return false;
        }
        self.read.voided += 1;
        if self.read.voided < MAX_VOIDED || !state.rule(Rule::VoidedLeases) {
            return false;
        }
        // Invalidations are faster than loads: only chance would end the waiting.
        self.namespace().0.stats.waits_given_up.one();
        self.load_alone(state, now);
        true
    }

    /// Something lies under the key that is no use.
    pub(super) fn replace_unusable(&mut self, state: &mut State, expected: Vec<u8>, now: u64) {
        if !self.loads() {
            return self.missed();
        }
        self.expected = expected;
        // Where it is there again and again, something else writes it.
        self.read.rounds += 1;
        if self.read.rounds > MAX_ROUNDS {
            return self.load_alone(state, now);
        }
        let action = if state.rule(Rule::LeadOverDead) {
            Action::Swap
        } else {
            Action::Acquire
        };
        self.acquire(state, action, now);
    }

    pub(super) fn acquire(&mut self, state: &mut State, action: Action, now: u64) {
        let namespace = self.namespace().clone();
        let stamp = match self.read.perhaps {
            Some(stamp) if !state.rule(Rule::FreshStamp) => stamp,
            _ => state.stamp(),
        };
        self.read.lease = Some(stamp);
        self.target = None;
        self.frame = frame::head(Kind::Lease, stamp, 0).to_vec();
        self.px = millis(namespace.lease(state.rule(Rule::LeaseByLoad)));
        self.issue(state, action, now);
    }

    /// The frame to replace no longer exists.
    pub(super) fn retry_read(&mut self, state: &mut State, now: u64) {
        self.read.rounds += 1;
        if self.read.rounds > MAX_ROUNDS {
            return self.load_alone(state, now);
        }
        self.begin_read(state, now);
    }

    /// The lease is this operation's: from here on invalidations of the key void it.
    pub(super) fn lead(&mut self, state: &mut State, now: u64) {
        let stamp = self.read.lease.expect("acquired");
        if !state.leases.contains_key(&stamp) {
            self.hold_lease(state, stamp, now);
        }
        let refresh = self.read.claimed && self.read.right == Right::Refresh;
        if !refresh {
            self.read.right = Right::Lease;
            // What was read so far is not of use any more, a value to serve if the load fails
            // aside.
            self.expected = frame::head(Kind::Lease, stamp, 0).to_vec();
        }
        // Generations are read before the load: a value is then not of the current generation if it
        // is bumped during the load.
        if self.collect_generations(state, now) {
            return;
        }
        let right = self.read.right;
        self.load(right, now);
    }

    /// Has the lease renewed while it is held.
    pub(super) fn hold_lease(&mut self, state: &mut State, stamp: Stamp, now: u64) {
        let namespace = self.namespace();
        namespace.0.stats.leases.one();
        if self.read.voided > 0 {
            namespace.0.stats.leases_taken_over.one();
        }
        let end = now.saturating_add(namespace.0.settings.load_timeout);
        let renew_at = self.request.sent.saturating_add(self.px * MILLI / 3);
        let lease = Lease {
            node: self.node,
            key: self.target().into(),
            px: self.px,
            renew_at,
            end,
            renewing: false,
        };
        state.leases.insert(stamp, lease);
    }

    pub(super) fn end_lease(&mut self, state: &mut State) {
        if let Some(stamp) = self.read.lease.take() {
            state.leases.remove(&stamp);
        }
    }

    pub(super) fn wait(&mut self, state: &mut State, now: u64) {
        let namespace = self.namespace().clone();
        let since = *self.read.waited_since.get_or_insert(now);
        if self.read.polls == 0 {
            namespace.0.stats.waits.one();
        }
        let patience = namespace.0.settings.lease_wait;
        if patience != 0 && now >= since.saturating_add(patience) {
            namespace.0.stats.waits_given_up.one();
            return self.load_alone(state, now);
        }
        // A message wakes the caller before that, where messages are received.
        let longest = if state.known(self.node).retention() == Retention::Synced {
            250
        } else {
            50
        } * MILLI;
        let step = (FIRST_POLL << (self.read.polls / 2).min(10)).min(longest);
        self.read.polls += 1;
        let mut until = now + step / 2 + state.random() % (step / 2);
        if patience != 0 {
            until = until.min(since.saturating_add(patience));
        }
        self.until = until;
        self.action = Action::Wait;
    }

    /// Whether the frame is of the current generations.
    pub(super) fn check_generations(&mut self, state: &mut State, now: u64) {
        let seen = self.read.seen.as_ref().expect("examined");
        for at in 0..=seen.tags.len() {
            let (tag, carried) = match at.checked_sub(1) {
                None => (None, seen.generation),
                Some(at) => (Some(&*seen.tags[at].0), seen.tags[at].1),
            };
            if self.generation(state, tag, now) == Some(carried) {
                continue;
            }
            // The frame may be newer than what is known: only an answer of now decides.
            if !self.known.iter().any(|(name, _)| name.as_deref() == tag) {
                let tag = tag.map(Into::into);
                return self.read_generation(state, tag, now);
            }
            self.namespace().0.stats.outdated.one();
            let expected = seen.head.clone();
            self.read.seen = None;
            return self.replace_unusable(state, expected, now);
        }
        self.classify_fresh_or_stale(state, now);
    }

    /// A frame of the current generations: fresh, stale, or expired.
    pub(super) fn classify_fresh_or_stale(&mut self, state: &mut State, now: u64) {
        let namespace = self.namespace().clone();
        let settings = &namespace.0.settings;
        let seen = self.read.seen.as_mut().expect("examined");
        seen.current = true;
        let (kind, soft_end, load_micros) = (seen.kind, seen.soft_end, seen.load_micros);
        let server_ms = state.known(self.node).server_ms_upper(now);
        self.target = None;
        if soft_end > server_ms {
            if let Purpose::Touch { ttl } = self.purpose {
                return self.issue_touch(state, ttl, now);
            }
            if kind == Kind::Local {
                // The mark of this GET, or of the claim, is the load's.
                return if self.loads() {
                    self.load(Right::Marker, now)
                } else {
                    self.missed()
                };
            }
            if self.loads() && !self.read.claimed && settings.early_reload > 0.0 {
                let unit = (state.random() >> 11) as f64 / (1u64 << 53) as f64;
                let early = f64::from(load_micros) / 1e3 * settings.early_reload * -unit.max(f64::MIN_POSITIVE).ln();
                if server_ms as f64 + early >= soft_end as f64 {
                    self.read.early = true;
                    return self.claim(state, now);
                }
            }
            return self.hit(state, server_ms, now);
        }
        let within = |grace: u64| grace > 0 && soft_end.saturating_add(millis(grace)) > server_ms;
        if self.loads()
            && kind != Kind::Local
            && (within(settings.stale_while_revalidate) || within(settings.stale_if_error))
        {
            self.read.early = false;
            return self.claim(state, now);
        }
        let expected = self.read.seen.take().expect("examined").head;
        self.replace_unusable(state, expected, now);
    }

    pub(super) fn hit(&mut self, state: &mut State, server_ms: u64, now: u64) {
        let seen = self.read.seen.as_ref().expect("examined");
        let fresh = seen.soft_end.saturating_sub(server_ms).saturating_mul(MILLI);
        self.keep_until = if seen.tags.is_empty() {
            self.keep_read(state, fresh, &[(None, seen.generation)], now)
        } else {
            let mut generations = vec![(None, seen.generation)];
            generations.extend(seen.tags.iter().map(|(tag, stamp)| (Some(&**tag), *stamp)));
            self.keep_read(state, fresh, &generations, now)
        };
        self.stored = true;
        let stats = &self.namespace().0.stats;
        if seen.kind == Kind::Negative {
            stats.negative_hits.one();
            self.action = Action::NegativeHit;
        } else {
            stats.hits.one();
            self.action = Action::Hit;
        }
    }
}
