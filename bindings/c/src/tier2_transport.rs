//! The callbacks of a second tier as the engine's traits. What a callback must not do is a failure
//! of its command.

use crate::callback;
use crate::tier2::{
    Failure as Outcome, NO_BYTES, hotset_tier2, hotset_tier2_answer, hotset_tier2_command, hotset_tier2_greeting,
    hotset_tier2_kind, hotset_tier2_message,
};
use crate::types::{Status, hotset_slice, hotset_status};
use engine::tier2::memcached::node_of;
use engine::tiered::{
    Answer, Bus, Command, Connection, Failure, Greeting, Message, Tier2, Traits, execute_each, generation_tag,
    short_key,
};
use libc::c_void;
use std::borrow::Cow;
use std::ffi::CStr;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The size of the struct in its first version.
const FIRST_SIZE: usize = size_of::<hotset_tier2>();

/// The most servers.
const MOST_SERVERS: u32 = 4_096;

/// Callbacks that were checked, and what the program gave with them.
struct Shared {
    calls: hotset_tier2,
    names: Vec<String>,
    name_bytes: Vec<Box<[u8]>>,
    /// For [`callback`].
    id: u64,
    /// The cache is open, so that `release` is the library's to call.
    is_open: AtomicBool,
}

// SAFETY: the header states that several threads call the callbacks concurrently, with `user`. The
// pointer to the names is not used after they were copied.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // Relaxed: the last reference is dropped behind the call that opened the cache.
        if let Some(release) = self.calls.release.filter(|_| self.is_open.load(Ordering::Relaxed)) {
            // SAFETY: the user's function, with the promised argument, once.
            callback::notify(self.id, || unsafe { release(self.calls.user) });
        }
    }
}

/// The second tier of the program.
pub(crate) struct Transport(Arc<Shared>);

impl Transport {
    /// Checks the callbacks.
    ///
    /// # Safety
    /// `from` is NULL, or points to as many bytes as its field `size` states, and the names are
    /// readable strings.
    pub(crate) unsafe fn new(from: *const hotset_tier2, id: u64) -> Result<Self, Status> {
        let invalid = || Status::from(hotset_status::HOTSET_INVALID);
        if from.is_null() {
            return Err(invalid());
        }
        // SAFETY: the caller's promise; `size` is the first field.
        let size = unsafe { from.cast::<usize>().read() };
        if !(FIRST_SIZE..=1 << 16).contains(&size) {
            return Err(invalid());
        }
        // SAFETY: the caller's promise.
        let (calls, unknown) = unsafe {
            let unknown = std::slice::from_raw_parts(from.cast::<u8>().add(FIRST_SIZE), size - FIRST_SIZE);
            (from.read_unaligned(), unknown)
        };
        let has_bus = calls.bus_next.is_some() && calls.bus_ping.is_some() && calls.unsubscribe.is_some();
        let has_calls = calls.connect.is_some()
            && calls.execute.is_some()
            && calls.ping.is_some()
            && calls.disconnect.is_some()
            && (calls.subscribe.is_none() || has_bus);
        let has_names = calls.server_names.is_null() == (calls.server_count == 0);
        if unknown.iter().any(|byte| *byte != 0) || !has_calls || !has_names || calls.server_count > MOST_SERVERS {
            return Err(invalid());
        }
        let mut names = Vec::new();
        for at in 0..calls.server_count as usize {
            // SAFETY: the caller's promise.
            let name = unsafe {
                let name = calls.server_names.add(at).read();
                if name.is_null() {
                    return Err(invalid());
                }
                CStr::from_ptr(name)
            };
            names.push(name.to_str().map_err(|_| invalid())?.to_owned());
        }
        let name_bytes = names.iter().map(|name| name.as_bytes().into()).collect();
        Ok(Self(Arc::new(Shared {
            calls,
            names,
            name_bytes,
            id,
            is_open: AtomicBool::new(false),
        })))
    }

    /// Returns a handle by which the caller reports that the cache is open.
    pub(crate) fn opening(&self) -> Opening {
        Opening(self.0.clone())
    }
}

/// A cache that is being opened.
pub(crate) struct Opening(Arc<Shared>);

impl Opening {
    /// The cache is open.
    pub(crate) fn done(self) {
        self.0.is_open.store(true, Ordering::Relaxed);
    }
}

/// Milliseconds until then, rounded up; 1 if it has passed.
fn millis(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    let rounded = left + Duration::from_nanos(999_999);
    u64::try_from(rounded.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Returns the failure of a callback, if it failed.
fn failure_of(outcome: Outcome) -> Result<(), Failure> {
    match outcome.0 {
        0 => Ok(()),
        number => {
            let known = u8::try_from(number).ok().and_then(Failure::from_number);
            // It is no failure of this interface: there are no scripts, and no clusters.
            let known = known.filter(|failure| !matches!(failure, Failure::NoScript | Failure::Moved));
            Err(known.unwrap_or(Failure::Other))
        }
    }
}

impl Tier2 for Transport {
    fn traits(&self) -> Traits {
        let calls = &self.0.calls;
        let mut traits = Traits::default();
        traits.announces = calls.subscribe.is_some();
        traits.is_fixed = !self.0.names.is_empty();
        traits.clock_resolution = calls.clock_resolution_ms.max(1);
        if calls.max_value != 0 {
            traits.max_value = usize::try_from(calls.max_value).unwrap_or(usize::MAX);
        }
        traits
    }

    fn servers(&self) -> u32 {
        (self.0.names.len() as u32).max(1)
    }

    fn server_of(&self, key: &[u8]) -> u32 {
        if self.0.names.is_empty() {
            return 0;
        }
        node_of(&self.0.name_bytes, key) as u32
    }

    fn generation_tags(&self) -> Vec<Vec<u8>> {
        if self.0.names.is_empty() {
            return vec![Vec::new()];
        }
        self.0.names.iter().map(|name| generation_tag(name)).collect()
    }

    fn connect(&self, server: u32, deadline: Instant) -> Result<(Box<dyn Connection>, Greeting), Failure> {
        let calls = &self.0.calls;
        let connect = calls.connect.ok_or(Failure::Refused)?;
        let mut greeting = hotset_tier2_greeting::new();
        let mut connection = ptr::null_mut();
        // SAFETY: the user's function, with the promised arguments.
        let outcome = callback::within(self.0.id, || unsafe {
            connect(calls.user, server, millis(deadline), &mut greeting, &mut connection)
        });
        failure_of(outcome)?;
        // Disconnected if there was no greeting.
        let connection = CConnection {
            shared: self.0.clone(),
            connection,
        };
        let greeting = greeting.into_greeting().ok_or(Failure::Other)?;
        Ok((Box::new(connection), greeting))
    }

    fn subscribe(&self, server: u32, prefixes: &[&[u8]], deadline: Instant) -> Result<Box<dyn Bus>, Failure> {
        let calls = &self.0.calls;
        let subscribe = calls.subscribe.ok_or(Failure::Refused)?;
        let prefixes: Vec<_> = prefixes.iter().map(|prefix| slice_of(prefix)).collect();
        let mut bus = ptr::null_mut();
        // SAFETY: the user's function, with the promised arguments.
        let outcome = callback::within(self.0.id, || unsafe {
            let (prefixes, count) = (prefixes.as_ptr(), prefixes.len());
            subscribe(calls.user, server, prefixes, count, millis(deadline), &mut bus)
        });
        failure_of(outcome)?;
        Ok(Box::new(CBus {
            shared: self.0.clone(),
            bus,
        }))
    }
}

/// A connection of the program's.
struct CConnection {
    shared: Arc<Shared>,
    connection: *mut c_void,
}

// SAFETY: the header states that any thread uses it, one at a time.
unsafe impl Send for CConnection {}

impl Drop for CConnection {
    fn drop(&mut self) {
        let calls = &self.shared.calls;
        if let Some(disconnect) = calls.disconnect {
            // SAFETY: the user's function, with what `connect` stored, for the last time.
            callback::notify(self.shared.id, || unsafe { disconnect(calls.user, self.connection) });
        }
    }
}

fn slice_of(bytes: &[u8]) -> hotset_slice {
    hotset_slice {
        data: bytes.as_ptr().cast(),
        len: bytes.len(),
    }
}

/// A command as C has it, and the keys that it refers to.
struct CCommand<'a> {
    command: hotset_tier2_command,
    _keys: [Cow<'a, [u8]>; 2],
}

impl<'a> CCommand<'a> {
    fn new(command: &Command<'a>, longest_key: u32) -> Option<Self> {
        use hotset_tier2_kind::*;
        let none: &[u8] = &[];
        // Kind, key, claim, value, expected.
        let (kind, key, claim, value, expected) = match *command {
            Command::Get { key } => (HOTSET_TIER2_GET, key, none, none, none),
            Command::Acquire { key, frame, .. } => (HOTSET_TIER2_ACQUIRE, key, none, frame, none),
            Command::Swap {
                key, expected, frame, ..
            } => (HOTSET_TIER2_SWAP, key, none, frame, expected),
            Command::Put { key, frame, .. } => (HOTSET_TIER2_PUT, key, none, frame, none),
            Command::Release { key, expected } => (HOTSET_TIER2_RELEASE, key, none, none, expected),
            Command::Remove { key } => (HOTSET_TIER2_REMOVE, key, none, none, none),
            Command::Expire { key, stamp, .. } => (HOTSET_TIER2_EXPIRE, key, none, stamp, none),
            Command::Touch {
                key, expected, stamp, ..
            } => (HOTSET_TIER2_TOUCH, key, none, stamp, expected),
            Command::Bump { key, stamp } => (HOTSET_TIER2_BUMP, key, none, stamp, none),
            Command::Claim { claim, stamp, key, .. } => (HOTSET_TIER2_CLAIM, key, claim, stamp, none),
            Command::Fence { .. } => (HOTSET_TIER2_FENCE, none, none, none, none),
            Command::Canary { key, .. } => (HOTSET_TIER2_CANARY, key, none, none, none),
            // A newer engine's: it is not there.
            _ => return None,
        };
        let (px, not_after, soft_end, connection) = match *command {
            Command::Acquire { px, .. }
            | Command::Swap { px, .. }
            | Command::Claim { px, .. }
            | Command::Canary { px, .. } => (px, 0, 0, 0),
            Command::Put { px, not_after, .. } => (px, not_after, 0, 0),
            Command::Expire { soft_end, .. } => (0, 0, soft_end, 0),
            Command::Touch { soft_end, px, .. } => (px, 0, soft_end, 0),
            Command::Fence { connection } => (0, 0, 0, connection),
            _ => (0, 0, 0, 0),
        };
        let longest = if longest_key == 0 {
            usize::MAX
        } else {
            longest_key as usize
        };
        let keys = [short_key(key, longest), short_key(claim, longest)];
        let command = hotset_tier2_command {
            size: size_of::<hotset_tier2_command>(),
            kind: kind as u32,
            reserved: 0,
            key: slice_of(&keys[0]),
            claim: if claim.is_empty() { NO_BYTES } else { slice_of(&keys[1]) },
            value: slice_of(value),
            expected: slice_of(expected),
            px,
            not_after,
            soft_end,
            connection,
        };
        Some(Self { command, _keys: keys })
    }
}

/// Makes the answer of what a callback answered.
fn answer_of(command: &Command<'_>, answer: hotset_tier2_answer) -> Option<Result<Answer, Failure>> {
    let parts = answer.into_parts();
    if let Some(failure) = parts.failure {
        return Some(Err(failure_of(failure).err().unwrap_or(Failure::Other)));
    }
    let answered = match command {
        Command::Get { .. } | Command::Acquire { .. } => parts.value.map(Answer::Value),
        Command::Claim { .. } => parts
            .flag
            .zip(parts.value)
            .map(|(won, value)| Answer::Claim(won, value)),
        _ => parts.flag.map(Answer::Flag),
    };
    answered.map(Ok)
}

impl Connection for CConnection {
    fn execute(&mut self, command: &Command<'_>, deadline: Instant) -> Result<Answer, Failure> {
        let calls = &self.shared.calls;
        let execute = calls.execute.ok_or(Failure::NotSent)?;
        let given = CCommand::new(command, calls.longest_key).ok_or(Failure::NotSent)?;
        let mut answer = hotset_tier2_answer::new();
        // SAFETY: the user's function, with the promised arguments.
        let outcome = callback::within(self.shared.id, || unsafe {
            execute(
                calls.user,
                self.connection,
                &given.command,
                millis(deadline),
                &mut answer,
            )
        });
        failure_of(outcome)?;
        // It may have been executed.
        answer_of(command, answer).unwrap_or(Err(Failure::Timeout))
    }

    fn execute_many(&mut self, commands: &[Command<'_>], deadline: Instant) -> Vec<Result<Answer, Failure>> {
        let calls = &self.shared.calls;
        let given: Option<Vec<_>> = commands
            .iter()
            .map(|command| CCommand::new(command, calls.longest_key))
            .collect();
        let (Some(execute_many), Some(given)) = (calls.execute_many, given) else {
            return execute_each(self, commands, deadline);
        };
        let mut answers: Vec<_> = commands.iter().map(|_| hotset_tier2_answer::new()).collect();
        let to_commands: Vec<_> = given.iter().map(|given| ptr::from_ref(&given.command)).collect();
        let to_answers: Vec<_> = answers.iter_mut().map(ptr::from_mut).collect();
        // SAFETY: the user's function, with the promised arguments.
        let outcome = callback::within(self.shared.id, || unsafe {
            execute_many(
                calls.user,
                self.connection,
                to_commands.as_ptr(),
                to_commands.len(),
                millis(deadline),
                to_answers.as_ptr(),
            )
        });
        let failure = failure_of(outcome).err().unwrap_or(Failure::Timeout);
        let answers = commands.iter().zip(answers);
        answers
            .map(|(command, answer)| answer_of(command, answer).unwrap_or(Err(failure)))
            .collect()
    }

    fn ping(&mut self, deadline: Instant) -> Result<(), Failure> {
        let calls = &self.shared.calls;
        let ping = calls.ping.ok_or(Failure::NotSent)?;
        // SAFETY: the user's function, with the promised arguments.
        let outcome = callback::within(self.shared.id, || unsafe {
            ping(calls.user, self.connection, millis(deadline))
        });
        failure_of(outcome)
    }
}

/// A bus of the program's.
struct CBus {
    shared: Arc<Shared>,
    bus: *mut c_void,
}

// SAFETY: the header states that any thread uses it, one at a time.
unsafe impl Send for CBus {}

impl Drop for CBus {
    fn drop(&mut self) {
        let calls = &self.shared.calls;
        if let Some(unsubscribe) = calls.unsubscribe {
            // SAFETY: the user's function, with what `subscribe` stored, for the last time.
            callback::notify(self.shared.id, || unsafe { unsubscribe(calls.user, self.bus) });
        }
    }
}

impl Bus for CBus {
    fn next(&mut self, deadline: Instant) -> Result<Message, Failure> {
        let calls = &self.shared.calls;
        let next = calls.bus_next.ok_or(Failure::Refused)?;
        let mut message = hotset_tier2_message::new();
        let began = Instant::now();
        let wait = millis(deadline);
        // SAFETY: the user's function, with the promised arguments.
        let outcome = callback::within(self.shared.id, || unsafe {
            next(calls.user, self.bus, wait, &mut message)
        });
        failure_of(outcome)?;
        let message = message.into_message();
        // A callback that returns immediately, without a message, would have the thread turn.
        if message == Message::Nothing && began.elapsed() < Duration::from_millis(1) && wait > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(message)
    }

    fn ping(&mut self, deadline: Instant) -> Result<(), Failure> {
        let calls = &self.shared.calls;
        let ping = calls.bus_ping.ok_or(Failure::Refused)?;
        // SAFETY: the user's function, with the promised arguments.
        let outcome = callback::within(self.shared.id, || unsafe {
            ping(calls.user, self.bus, millis(deadline))
        });
        failure_of(outcome)
    }
}
