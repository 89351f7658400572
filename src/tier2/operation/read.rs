//! Reads: look, lead a load or wait for another's, fill.

use super::super::Mend;
use super::super::frame::{self, Frame, Kind, Parsed, Stamp, fingerprint, parse};
use super::super::node::{Failure, Keep, Link, MILLI};
use super::super::tier::{Lease, State};
use super::{Action, Namespace, Operation, Purpose, Reply, Tier, millis};
use std::sync::atomic::Ordering;

/// How often an operation may find that what it meant to replace has changed.
const MAX_ROUNDS: u32 = 4;
/// Leases that may vanish before a waiting caller loads for itself.
const MAX_VOIDED: u32 = 2;
const FIRST_POLL: u64 = 5 * MILLI;

/// By what right a value is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Right {
    #[default]
    None,
    /// A lease in the value's own key.
    Lease,
    /// A lease next to an expired value, which stays.
    Refresh,
    /// A marker says that each process loads for itself, and keeps the value in tier 1.
    Marker,
    /// Tier 2 is of no use now. `keep`: it is down, and tier 1 may keep the value.
    Alone { keep: bool },
}

/// A frame of the last reply.
#[derive(Debug)]
struct Seen {
    kind: Kind,
    stamp: Stamp,
    head: Vec<u8>,
    soft_end: u64,
    load_micros: u32,
    generation: Stamp,
    tags: Vec<(Box<[u8]>, Stamp)>,
    /// The generations are the present ones, as far as is known.
    current: bool,
}

/// What happens when a lease is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    End(Action),
    Restart,
}

#[derive(Debug, Default)]
pub(super) struct Read {
    right: Right,
    /// The stamp of the lease that is held.
    lease: Option<Stamp>,
    seen: Option<Seen>,
    /// The name of the tag whose generation is being read.
    pub(super) asked: Option<Box<[u8]>>,
    pub(super) serves_stale: bool,
    /// The claim was lost, or is not to be tried again.
    claimed: bool,
    early: bool,
    rounds: u32,
    waited_for: Option<Stamp>,
    waited_since: Option<u64>,
    voided: u32,
    polls: u32,
    load_began: u64,
    ttl: u64,
    after: Option<After>,
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
    fn new(frame: &Frame<'_>, bytes: &[u8]) -> Self {
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

    fn start(&mut self, tier: &Tier, now: u64) {
        let mut guard = tier.0.lock();
        guard.node(self.node, &tier.0.settings);
        self.begin_read(&mut guard, now);
    }

    fn loads(&self) -> bool {
        matches!(self.purpose, Purpose::Read { load: true })
    }

    /// Looks the key up, now or after a wait.
    pub(super) fn begin_read(&mut self, state: &mut State, now: u64) {
        self.forget_known(state);
        self.read.seen = None;
        self.target = None;
        if self.is_blocked(state) {
            return self.load_alone(state, now);
        }
        match state.known(self.node).link {
            Link::Up => self.issue(state, Action::Get, now),
            Link::Unknown => self.action = Action::Probe,
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

    fn missed(&mut self) {
        if let Purpose::Touch { .. } = self.purpose {
            self.action = Action::Done;
            return;
        }
        self.namespace().0.stats.misses.one();
        self.action = Action::Miss;
    }

    fn load(&mut self, right: Right, now: u64) {
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
                self.again(state, now);
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
            _ => {
                // An unknown ACQUIRE may come into force later than an invalidation: it gives no right to fill.
                self.end_lease(state);
                self.load_alone(state, now);
            }
        }
    }

    /// What lies under the key.
    fn examine(&mut self, state: &mut State, value: Option<&[u8]>, now: u64) {
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
                self.dead(state, expected, now);
            }
        }
    }

    /// A lease that this operation waited for is gone, and there is no value. Returns whether that is once too often.
    fn lease_vanished(&mut self, state: &mut State, now: u64) -> bool {
        if self.read.waited_for.take().is_none() {
            return false;
        }
        self.read.voided += 1;
        if self.read.voided < MAX_VOIDED || !state.mend(Mend::VoidedLeases) {
            return false;
        }
        // Invalidations are faster than loads: only chance would end the waiting.
        self.namespace().0.stats.waits_given_up.one();
        self.load_alone(state, now);
        true
    }

    /// Something lies under the key that is no use.
    fn dead(&mut self, state: &mut State, expected: Vec<u8>, now: u64) {
        if !self.loads() {
            return self.missed();
        }
        self.expected = expected;
        // Where it is there again and again, something else writes it.
        self.read.rounds += 1;
        if self.read.rounds > MAX_ROUNDS {
            return self.load_alone(state, now);
        }
        let action = if state.mend(Mend::LeadOverDead) {
            Action::Swap
        } else {
            Action::Acquire
        };
        self.acquire(state, action, now);
    }

    fn acquire(&mut self, state: &mut State, action: Action, now: u64) {
        let namespace = self.namespace().clone();
        let stamp = state.stamp();
        self.read.lease = Some(stamp);
        self.target = None;
        self.frame = frame::head(Kind::Lease, stamp, 0).to_vec();
        self.px = millis(namespace.lease(state.mend(Mend::LeaseByLoad)));
        self.issue(state, action, now);
    }

    /// What was to be replaced is not there any more.
    fn again(&mut self, state: &mut State, now: u64) {
        self.read.rounds += 1;
        if self.read.rounds > MAX_ROUNDS {
            return self.load_alone(state, now);
        }
        self.begin_read(state, now);
    }

    /// The lease is this operation's: from here on invalidations of the key void it.
    fn lead(&mut self, state: &mut State, now: u64) {
        let stamp = self.read.lease.expect("acquired");
        if !state.leases.contains_key(&stamp) {
            self.hold_lease(state, stamp, now);
        }
        let refresh = self.read.claimed && self.read.right == Right::Refresh;
        if !refresh {
            self.read.right = Right::Lease;
            // What was read so far is not of use any more, a value to serve if the load fails aside.
            self.expected = frame::head(Kind::Lease, stamp, 0).to_vec();
        }
        // Generations are read before the load: what is bumped during it is then not of the present generation.
        if self.collect_generations(state, now) {
            return;
        }
        let right = self.read.right;
        self.load(right, now);
    }

    /// Has the lease renewed while it is held.
    fn hold_lease(&mut self, state: &mut State, stamp: Stamp, now: u64) {
        let namespace = self.namespace();
        namespace.0.stats.leases.one();
        if self.read.voided > 0 {
            namespace.0.stats.leases_taken_over.one();
        }
        let end = now.saturating_add(namespace.0.settings.load_timeout);
        let renew_at = self.issued.saturating_add(self.px * MILLI / 3);
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

    fn wait(&mut self, state: &mut State, now: u64) {
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
        // A message wakes the caller before that, where messages are to be had.
        let longest = if state.known(self.node).keep() == Keep::Synced {
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

    /// Whether the frame is of the present generations.
    fn check_generations(&mut self, state: &mut State, now: u64) {
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
            return self.dead(state, expected, now);
        }
        self.judge(state, now);
    }

    /// A frame of the present generations: fresh, stale, or expired.
    fn judge(&mut self, state: &mut State, now: u64) {
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
        self.dead(state, expected, now);
    }

    fn hit(&mut self, state: &mut State, server_ms: u64, now: u64) {
        let seen = self.read.seen.as_ref().expect("examined");
        let fresh = seen.soft_end.saturating_sub(server_ms).saturating_mul(MILLI);
        self.keep_until = if seen.tags.is_empty() {
            self.keep(state, fresh, &[(None, seen.generation)], now)
        } else {
            let mut generations = vec![(None, seen.generation)];
            generations.extend(seen.tags.iter().map(|(tag, stamp)| (Some(&**tag), *stamp)));
            self.keep(state, fresh, &generations, now)
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

    // Reloading what is there: a lease in a key of its own, since the old value stays.

    fn claim(&mut self, state: &mut State, now: u64) {
        let namespace = self.namespace().clone();
        let stamp = state.stamp();
        self.read.lease = Some(stamp);
        self.read.right = Right::Refresh;
        self.target = Some([&*self.key, b":r"].concat().into());
        self.frame = frame::head(Kind::Lease, stamp, 0).to_vec();
        self.px = millis(namespace.lease(state.mend(Mend::LeaseByLoad)));
        self.issue(state, Action::Claim, now);
    }

    fn claim_answered(&mut self, state: &mut State, won: bool, value: Option<&[u8]>, now: u64) {
        self.read.claimed = true;
        let parsed = value.map(parse);
        let seen = self.read.seen.as_ref().expect("claimed for");
        let same = matches!(&parsed, Some(Parsed::Frame(frame)) if frame.stamp == seen.stamp);
        if won && (same || !state.mend(Mend::ClaimReadsAgain)) {
            self.expected = seen.head.clone();
            let server_ms = state.known(self.node).server_ms_upper(now);
            let grace = self.namespace().0.settings.stale_while_revalidate;
            self.read.serves_stale = seen.soft_end.saturating_add(millis(grace)) > server_ms;
            return self.lead(state, now);
        }
        if won {
            // Another caller reloaded the value, or removed it.
            self.expected = self.frame.clone();
            return self.release(state, After::Restart, now);
        }
        let soft_end = seen.soft_end;
        self.end_lease(state);
        self.read.right = Right::None;
        if !same {
            // The answer of the claim is as good as that of a GET.
            self.forget_known(state);
            return self.examine(state, value, now);
        }
        let server_ms = state.known(self.node).server_ms_upper(now);
        let grace = self.namespace().0.settings.stale_while_revalidate;
        if soft_end > server_ms {
            self.hit(state, server_ms, now);
        } else if soft_end.saturating_add(millis(grace)) > server_ms {
            self.namespace().0.stats.stale_while_revalidate.one();
            self.action = Action::Stale;
        } else {
            self.wait(state, now);
        }
    }

    fn issue_touch(&mut self, state: &mut State, ttl: u64, now: u64) {
        let head = self.read.seen.as_ref().expect("examined").head.clone();
        self.prepare(state, ttl, Kind::Value, 0, now);
        self.expected = head;
        self.frame = self.meta.stamp.to_vec();
        self.soft_end = self.meta.soft_end;
        self.issue(state, Action::Touch, now);
    }

    // The end of a load.

    pub(super) fn load_returned(&mut self, state: &mut State, ttl: u64, kind: Kind, now: u64) {
        let namespace = self.namespace().clone();
        let took = now.saturating_sub(self.read.load_began);
        // Relaxed: an estimate.
        namespace.0.last_load.store(took, Ordering::Relaxed);
        namespace.0.stats.loads.one();
        namespace.0.stats.load_micros.add(took / 1_000);
        let ttl = if ttl == 0 { namespace.0.settings.ttl } else { ttl };
        self.read.ttl = ttl;
        self.read.serves_stale = false;
        match self.read.right {
            Right::Alone { keep } => {
                let one = state.known(self.node);
                if keep
                    && one.changes == self.changes
                    && matches!(one.link, Link::Down { .. })
                    && !self.is_blocked(state)
                {
                    let bound = state.bound(namespace.0.number, self.node).unwrap_or(0);
                    self.keep_until = self.marked_at.saturating_add(bound.min(ttl));
                }
                self.release_after_load(state, Action::Deliver, now);
            }
            Right::Marker => {
                let seen = self.read.seen.take().expect("the marker");
                let server_ms = state.known(self.node).server_ms_upper(now);
                let fresh = millis(ttl)
                    .min(seen.soft_end.saturating_sub(server_ms))
                    .saturating_mul(MILLI);
                let mut generations = vec![(None, seen.generation)];
                generations.extend(seen.tags.iter().map(|(tag, stamp)| (Some(&**tag), *stamp)));
                self.keep_until = self.keep(state, fresh, &generations, now);
                self.action = Action::Deliver;
            }
            Right::Lease | Right::Refresh | Right::None => {
                if self.is_blocked(state) {
                    // An invalidation of this process is not confirmed: the lease may be there still, though it is void.
                    self.count_refused();
                    return self.release_after_load(state, Action::Deliver, now);
                }
                if kind == Kind::Local {
                    namespace.0.stats.local_values.one();
                }
                self.target = None;
                self.prepare(state, ttl, kind, took, now);
                self.issue(state, Action::Fill, now);
            }
        }
    }

    pub(super) fn load_gave_error(&mut self, state: &mut State, now: u64) {
        let namespace = self.namespace().clone();
        namespace.0.stats.load_failures.one();
        let server_ms = state.known(self.node).server_ms_upper(now);
        let grace = millis(namespace.0.settings.stale_if_error);
        let usable = |seen: &Seen| seen.current && seen.kind != Kind::Local && seen.soft_end.saturating_add(grace) > server_ms;
        let stale = grace > 0 && !self.read.serves_stale && self.read.seen.as_ref().is_some_and(usable);
        let end = if stale && !self.is_blocked(state) {
            namespace.0.stats.stale_if_error.one();
            Action::Stale
        } else {
            Action::Failed
        };
        self.read.serves_stale = false;
        self.release_after_load(state, end, now);
    }

    fn release_after_load(&mut self, state: &mut State, end: Action, now: u64) {
        self.release(state, After::End(end), now);
    }

    /// Gives the lease back, so that the next caller need not wait for its end.
    fn release(&mut self, state: &mut State, after: After, now: u64) {
        let Some(stamp) = self.read.lease else {
            return self.after(state, after, now);
        };
        // In a key of its own: that of a claim.
        let key = state.leases.get(&stamp).map(|lease| lease.key.clone());
        self.target = key.or(self.target.take());
        self.expected = frame::head(Kind::Lease, stamp, 0).to_vec();
        self.read.after = Some(after);
        self.end_lease(state);
        if !state.known(self.node).takes_writes() {
            return self.released(state, now);
        }
        self.issue(state, Action::Release, now);
        if self.action == Action::Probe {
            self.resume = None;
            self.released(state, now);
        }
    }

    fn released(&mut self, state: &mut State, now: u64) {
        let after = self.read.after.take().expect("set by `release`");
        self.after(state, after, now);
    }

    fn after(&mut self, state: &mut State, after: After, now: u64) {
        match after {
            After::End(action) => self.action = action,
            After::Restart => {
                self.read.right = Right::None;
                self.again(state, now);
            }
        }
    }

    fn filled(&mut self, state: &mut State, stored: bool, now: u64) {
        if stored {
            self.namespace().0.stats.fills.one();
            // A bump does not void leases: a value of a generation that ended during the load is in tier 2, and is no use.
            self.stored = self.collected == state.forgotten;
            self.keep_until = self.keep_written(state, self.read.ttl, now);
        } else {
            self.count_refused();
        }
        if self.read.right == Right::Refresh {
            return self.release(state, After::End(Action::Deliver), now);
        }
        self.end_lease(state);
        self.action = Action::Deliver;
    }

    fn count_refused(&self) {
        self.namespace().0.stats.fills_refused.one();
    }

    pub(super) fn rejected(&mut self, state: &mut State, now: u64) {
        self.namespace().0.stats.rejected.one();
        self.keep_until = 0;
        self.stored = false;
        let Some(seen) = self.read.seen.take().filter(|_| state.known(self.node).is_up()) else {
            return self.load_alone(state, now);
        };
        self.dead(state, seen.head, now);
    }
}
