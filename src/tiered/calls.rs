//! The calls of a cache with a second tier: reads, writes, and operations without a value.

use super::Ttl;
use super::clock::now;
use super::codec::{self, Codec};
use super::keys::Name;
use super::session::Session;
use super::steps::{Call, LoadEnd};
use crate::cache::Cache;
use crate::flight::{ActorId, Joined, Leader, Outcome};
use crate::tier2::{Action, Kind, Operation};
use std::any::Any;
use std::cell::RefCell;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// The full key precedes the value, since the key's name is a hash.
const NAMED: u16 = 4;

/// Returns whether another caller's read has found no value.
pub(super) fn is_no_value<V>(outcome: Option<&Outcome<V>>) -> bool {
    matches!(outcome, Some(Outcome::Failed(error)) if error.is::<NoValue>())
}

/// The error by which callers that wait for a read learn that there is no value.
pub(super) struct NoValue;

thread_local! {
    /// The names that this thread loads, with the address of their session, and whether the number
    /// of such loads is limited. Never dropped, so that destructors of other thread-locals may
    /// load; without a load it has no memory.
    static LOADING: RefCell<ManuallyDrop<Vec<(usize, Name, bool)>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// Returns whether this thread is inside a loader of the key.
pub(super) fn is_loading(session: &Session, name: &Name) -> bool {
    let this = std::ptr::from_ref(session) as usize;
    LOADING.with_borrow(|all| {
        all.iter()
            .any(|(session, loading, _)| *session == this && loading == name)
    })
}

/// Returns whether a limited load needs a permit: inside another limited one it does not, since
/// that waits for it. Otherwise loads that nest could hold all permits and wait for more.
pub(super) fn needs_permit(session: &Session) -> bool {
    let this = std::ptr::from_ref(session) as usize;
    LOADING.with_borrow(|all| !all.iter().any(|(session, _, limited)| *session == this && *limited))
}

/// Ends when the loader does, also by a panic.
pub(super) struct Loading;

impl Loading {
    pub(super) fn new(session: &Session, name: &Name, is_limited: bool) -> Self {
        let this = std::ptr::from_ref(session) as usize;
        LOADING.with_borrow_mut(|all| all.push((this, name.clone(), is_limited)));
        Self
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        LOADING.with_borrow_mut(|all| {
            all.pop();
            if all.is_empty() {
                drop(mem::take(&mut **all));
            }
        });
    }
}

/// A value as it is on the server.
pub(super) struct Payload {
    flags: u16,
    codec: u8,
    bytes: Vec<u8>,
}

/// What is the same for all calls of a cache.
pub(super) struct Shared<'a, V> {
    pub(super) cache: &'a Cache<Name, V>,
    pub(super) codec: &'a dyn Codec<V>,
    pub(super) max_value: usize,
    pub(super) name: &'a Name,
    pub(super) full_key: Option<&'a [u8]>,
}

impl<V: 'static> Shared<'_, V> {
    /// Returns the payload of a value, and whether that is all of it: otherwise it stays in the
    /// first tier.
    pub(super) fn encode(&self, value: &V) -> (Payload, bool) {
        let encoded = self.codec.encode(value).filter(|bytes| bytes.len() <= self.max_value);
        let whole = encoded.is_some();
        let (mut flags, mut bytes) = (0, Vec::new());
        if let Some(full_key) = self.full_key {
            flags = NAMED;
            bytes.extend_from_slice(&(full_key.len() as u32).to_be_bytes());
            bytes.extend_from_slice(full_key);
        }
        bytes.extend(encoded.unwrap_or_default());
        let codec = codec::number(self.codec.name());
        (Payload { flags, codec, bytes }, whole)
    }

    /// Returns the encoded value of a payload that was written for this key.
    fn open<'r>(&self, operation: &Operation, reply: &'r [u8]) -> Option<&'r [u8]> {
        let bytes = reply.get(operation.offset()..)?;
        match (operation.flags(), self.full_key) {
            (0, None) => Some(bytes),
            (NAMED, Some(full_key)) => {
                let (length, rest) = bytes.split_first_chunk::<4>()?;
                let (named, value) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
                (named == full_key).then_some(value)
            }
            _ => None,
        }
    }
}

/// The loads in flight by which one call keeps the first tier from holding anything older than what
/// it inserts.
pub(super) struct Marks<'a, V> {
    cache: &'a Cache<Name, V>,
    name: &'a Name,
    hash: u64,
    actor: ActorId,
    /// All that the call led: earlier ones have left the table, and callers wait for them.
    leaders: Vec<Leader<'a, Name, V>>,
    /// The last leader's load is in the table, so that it can be invalidated.
    is_open: bool,
}

impl<'a, V: Clone> Marks<'a, V> {
    pub(super) fn new(cache: &'a Cache<Name, V>, name: &'a Name, hash: u64, actor: ActorId) -> Self {
        Self {
            cache,
            name,
            hash,
            actor,
            leaders: Vec::new(),
            is_open: false,
        }
    }

    pub(super) fn push(&mut self, leader: Leader<'a, Name, V>) {
        self.leaders.push(leader);
        self.is_open = true;
    }

    fn is_whole(&self) -> bool {
        self.is_open && self.leaders.last().is_some_and(|leader| !leader.invalidated())
    }

    /// Begins another load of the key, if no other caller has begun one in between: then the first
    /// tier does not get the value of this call.
    fn begin(&mut self) {
        if let Some(last) = self.leaders.last_mut() {
            // Its callers still get the value. Otherwise an invalidated load stays in the table, so
            // that this caller would join it.
            drop(last.leave_on_drop());
        }
        self.is_open = false;
        let equal = |other: &Name| other == self.name;
        let flights = &self.cache.0.flights;
        let joined = flights.join(self.hash, equal, self.name.clone(), self.actor);
        if let Joined::Lead { leader, .. } = joined {
            self.push(leader);
        }
    }

    /// Ends the last load without an outcome: its callers read again.
    fn abandon_last(&mut self) {
        if self.is_open {
            drop(self.leaders.pop());
            self.is_open = false;
        }
    }

    /// Ends the loads with a value, which the first tier may keep until then (0: not at all).
    fn finish(&mut self, value: &V, keep_until: u64) {
        let left = keep_until.saturating_sub(now());
        if left > 0
            && self.is_open
            && let Some(mut last) = self.leaders.pop()
        {
            let loaded = Ok::<_, Arc<NoValue>>((value.clone(), Ttl::After(Duration::from_nanos(left))));
            _ = self
                .cache
                .lead(self.hash, self.name.clone(), &mut last, loaded, |name, _| name);
        }
        for mut leader in self.leaders.drain(..) {
            leader.complete(|| Outcome::Loaded(value.clone()));
        }
    }

    /// Ends the loads without a value. Callers that wait for them with an error of this type get
    /// it; others read again.
    fn fail(&mut self, error: &Arc<dyn Any + Send + Sync>) {
        for mut leader in self.leaders.drain(..) {
            leader.complete(|| Outcome::Failed(error.clone()));
        }
    }
}

/// A read, with or without a loader.
pub(super) struct Reading<'a, V, E> {
    pub(super) shared: Shared<'a, V>,
    marks: Marks<'a, V>,
    /// There is a loader that has not been called.
    can_load: bool,
    /// The mark of a fill was begun by this call after the load: callers that joined it get the
    /// value only if the server confirms it.
    confirmed_only: bool,
    loaded: bool,
    value: Option<V>,
    payload: Option<Payload>,
    error: Option<Arc<E>>,
    panic: Option<Box<dyn Any + Send>>,
}

/// How a loader ended: with a value, an error, or a panic.
pub(super) type Loaded<V, E> = Result<Result<(V, Ttl), Arc<E>>, Box<dyn Any + Send>>;

impl<'a, V: Clone + 'static, E> Reading<'a, V, E> {
    pub(super) fn new(shared: Shared<'a, V>, marks: Marks<'a, V>, can_load: bool) -> Self {
        Self {
            shared,
            marks,
            can_load,
            confirmed_only: false,
            loaded: false,
            value: None,
            payload: None,
            error: None,
            panic: None,
        }
    }

    /// Takes what the loader returned. A panic, also one of the codec, ends the lease as an error
    /// does, before it continues.
    pub(super) fn loaded(&mut self, loaded: Loaded<V, E>) -> LoadEnd {
        self.can_load = false;
        match loaded {
            Ok(Ok((value, ttl))) => match catch_unwind(AssertUnwindSafe(|| self.shared.encode(&value))) {
                Ok((payload, whole)) => {
                    (self.value, self.payload, self.loaded) = (Some(value), Some(payload), true);
                    LoadEnd::Loaded(ttl_nanos(ttl), if whole { Kind::Value } else { Kind::Local })
                }
                Err(panic) => {
                    self.panic = Some(panic);
                    LoadEnd::Failed
                }
            },
            Ok(Err(error)) => {
                self.error = Some(error);
                LoadEnd::Failed
            }
            Err(panic) => {
                self.panic = Some(panic);
                LoadEnd::Failed
            }
        }
    }
}

impl<V, E> Reading<'_, V, E> {
    /// There is no outcome of the loader for this key.
    pub(super) fn gave_up(&mut self) -> LoadEnd {
        self.can_load = false;
        LoadEnd::Failed
    }

    /// Takes the panic of the loader, so that [`end`](Self::end) does not continue it.
    pub(super) fn take_panic(&mut self) -> Option<Box<dyn Any + Send>> {
        self.panic.take()
    }
}

impl<V: Clone + 'static, E> Call for Reading<'_, V, E> {
    fn mark(&mut self) {
        if !self.marks.is_whole() {
            self.marks.begin();
            self.confirmed_only = self.loaded && self.marks.is_open;
        }
    }

    fn drop_local(&mut self) {
        self.shared.cache.invalidate::<Name>(self.shared.name);
    }

    fn accept(&mut self, operation: &Operation, reply: &[u8]) -> bool {
        let Some(bytes) = self.shared.open(operation, reply) else {
            return false;
        };
        if operation.action() == Action::NegativeHit {
            // A caller with a loader wants a value: it loads one.
            return !self.can_load;
        }
        let shared = &self.shared;
        if operation.codec() != codec::number(shared.codec.name()) {
            return false;
        }
        self.value = shared.codec.decode(bytes);
        self.value.is_some()
    }

    fn payload(&self) -> (u16, u8, &[u8]) {
        let payload = self.payload.as_ref().expect("loaded before");
        (payload.flags, payload.codec, &payload.bytes)
    }
}

impl<V: Clone, E: Send + Sync + 'static> Reading<'_, V, E> {
    /// Ends the loads in flight. Returns the value.
    pub(super) fn end(mut self, end: Action, operation: &Operation) -> Result<Option<V>, Arc<E>> {
        if let Some(panic) = self.panic.take() {
            // The callers that wait read again.
            drop(self);
            std::panic::resume_unwind(panic);
        }
        match (end, self.value.take()) {
            (Action::Hit | Action::Stale | Action::Deliver, Some(value)) => {
                let kept = if end == Action::Stale {
                    0
                } else {
                    operation.keep_until()
                };
                if self.confirmed_only && end == Action::Deliver && !operation.is_stored() {
                    self.marks.abandon_last();
                }
                self.marks.finish(&value, kept);
                Ok(Some(value))
            }
            _ => match self.error.take() {
                Some(error) => {
                    let shared: Arc<dyn Any + Send + Sync> = error.clone();
                    self.marks.fail(&shared);
                    Err(error)
                }
                None => {
                    let none: Arc<dyn Any + Send + Sync> = Arc::new(NoValue);
                    self.marks.fail(&none);
                    Ok(None)
                }
            },
        }
    }
}

/// A write.
pub(super) struct Writing<'a, V> {
    pub(super) shared: Shared<'a, V>,
    pub(super) marks: Marks<'a, V>,
    pub(super) payload: Payload,
}

impl<V: Clone> Call for Writing<'_, V> {
    fn mark(&mut self) {
        self.marks.abandon_last();
        self.shared.cache.invalidate::<Name>(self.shared.name);
        self.marks.begin();
    }

    fn drop_local(&mut self) {
        self.shared.cache.invalidate::<Name>(self.shared.name);
    }

    fn accept(&mut self, _: &Operation, _: &[u8]) -> bool {
        true
    }

    fn payload(&self) -> (u16, u8, &[u8]) {
        (self.payload.flags, self.payload.codec, &self.payload.bytes)
    }
}

impl<V: Clone> Writing<'_, V> {
    /// Stores the value in the first tier unless the key was invalidated since it was sent. Returns
    /// whether the server confirmed it.
    pub(super) fn end(mut self, end: Action, operation: &Operation, value: &V) -> bool {
        let confirmed = end == Action::Done && operation.is_stored();
        if !self.marks.is_whole() {
            // All loads were invalidated while the request was on its way. Another caller may have
            // read, and stored, the previous value since then.
            self.shared.cache.invalidate::<Name>(self.shared.name);
        }
        if confirmed && operation.keep_until() > now() {
            self.marks.finish(value, operation.keep_until());
        }
        // Otherwise the callers that joined read again: they must not get an unconfirmed value.
        confirmed
    }
}

/// An operation without a value: of one key, or of all.
pub(super) struct Removing<'a, V> {
    pub(super) cache: &'a Cache<Name, V>,
    /// `None`: all keys.
    pub(super) name: Option<&'a Name>,
}

impl<V> Call for Removing<'_, V> {
    fn mark(&mut self) {}

    fn drop_local(&mut self) {
        match self.name {
            Some(name) => _ = self.cache.invalidate::<Name>(name),
            None => self.cache.clear(),
        }
    }

    fn accept(&mut self, _: &Operation, _: &[u8]) -> bool {
        true
    }

    fn payload(&self) -> (u16, u8, &[u8]) {
        (0, 0, &[])
    }
}

/// Ten years stand for "never": the server's keys expire.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(super) fn ttl_nanos(ttl: Ttl) -> u64 {
    match ttl {
        Ttl::Default | Ttl::Keep => 0,
        Ttl::After(ttl) => nanos(ttl).max(1),
        Ttl::Never => nanos(NEVER),
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    duration.min(NEVER).as_nanos() as u64
}
