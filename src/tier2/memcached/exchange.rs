//! One action as requests and replies.

use super::super::frame::{HEAD, Kind, SOFT_END, Stamp, head};
use super::super::node::Failure;
use super::super::operation::{Action, Operation};
use super::expiration;
use super::reply::Response;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How often a comparison is repeated because the item was replaced between its two requests.
const ROUNDS: u32 = 8;
/// How long a placeholder lives whose value never arrives, in milliseconds.
const PLACEHOLDER_MS: u64 = 1_500;
/// Most CAS numbers that are remembered.
const MOST_NUMBERS: usize = 4_096;
/// Where the stamp is in a head.
const STAMP: std::ops::Range<usize> = 4..20;
/// Length of a value's frame without tags and payload.
const SHORTEST_VALUE: usize = 54;

/// The commands that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `mg`, `ms` and `md`, as of memcached 1.6.13.
    Meta,
    /// `get`, `gets`, `add`, `set`, `cas` and `delete`.
    Classic,
}

/// What an action came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// [`Reply::Value`](super::super::Reply::Value).
    Value(Option<Vec<u8>>),
    /// [`Reply::Flag`](super::super::Reply::Flag).
    Flag(bool),
    /// [`Reply::Claim`](super::super::Reply::Claim).
    Claim(bool, Option<Vec<u8>>),
    /// The server refused it.
    Failed(Failure),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send [`Exchange::requests`] again, which are others now.
    Again,
    /// The action has ended.
    End(Outcome),
}

/// The CAS numbers of frames that this process wrote or read: by stamp, the number, and which
/// connection it was read on. For any thread.
#[derive(Debug, Default)]
pub struct CasNumbers(Mutex<HashMap<Stamp, Numbered>>);

/// A CAS number, and the serial number of the connection on which it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbered {
    cas: u64,
    serial: u64,
}

impl CasNumbers {
    fn put(&self, frame: &[u8], numbered: Numbered) {
        if let Some(stamp) = stamp_of(frame) {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= MOST_NUMBERS {
                // Without its number, a frame is read again before it is replaced.
                all.clear();
            }
            all.insert(stamp, numbered);
        }
    }

    fn take(&self, frame: &[u8]) -> Option<Numbered> {
        let stamp = stamp_of(frame)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&stamp)
    }
}

fn stamp_of(frame: &[u8]) -> Option<Stamp> {
    frame.get(STAMP)?.try_into().ok()
}

/// Which commands were sent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Nothing,
    /// One command, whose reply is the outcome.
    Single,
    /// An `add`, and a read behind it.
    AddAndRead,
    /// A read of the item, to be compared.
    Read,
    /// A store or removal under this CAS number.
    Conditional,
    /// The removal that an expiration ends in.
    Removal,
}

/// One action of an operation on memcached, from its first request to its outcome.
#[derive(Debug)]
pub struct Exchange {
    action: Action,
    target: Vec<u8>,
    /// Of a claim: the key beside the target.
    key: Vec<u8>,
    expected: Vec<u8>,
    /// The new value, or the new stamp.
    frame: Vec<u8>,
    soft_end: u64,
    /// The expiration time of what is stored, and of a placeholder.
    expires: u64,
    sent: Sent,
    serial: u64,
    rounds: u32,
    /// What was read and found to be as expected.
    read: Option<(Numbered, Vec<u8>, u64)>,
}

/// What an action is about. See [`Operation`] for what each action has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operands<'a> {
    /// The key, as it is sent. Of a claim: the claim.
    pub target: &'a [u8],
    /// Of a claim: the key beside it.
    pub key: &'a [u8],
    /// What the beginning of the value is compared with.
    pub expected: &'a [u8],
    /// The whole new value, or the new stamp, which has 16 bytes.
    pub frame: &'a [u8],
    /// Milliseconds since 1970 by the server's clock.
    pub soft_end: u64,
    /// The expiration time, by [`expiration`]; 0: none.
    pub expires: u64,
}

impl Exchange {
    /// Begins the action that `operation` is at. `target` and `key` are the keys of the operation,
    /// as they are sent; `value` is the whole frame of [`Action::Fill`] and [`Action::Put`].
    pub fn new(operation: &Operation, target: &[u8], key: &[u8], value: Option<&[u8]>) -> Self {
        let action = operation.action();
        let endless = matches!(action, Action::Bump | Action::ReadGeneration);
        let operands = Operands {
            target,
            key,
            expected: operation.expected(),
            frame: value.unwrap_or(operation.frame()),
            soft_end: operation.soft_end(),
            expires: if endless {
                0
            } else {
                expiration(operation.px(), operation.server_ms())
            },
        };
        Self::with_operands(action, operands)
    }

    /// Begins an action that an operation was at, or will be.
    pub fn with_operands(action: Action, operands: Operands<'_>) -> Self {
        Self {
            action,
            target: operands.target.into(),
            key: operands.key.into(),
            expected: operands.expected.into(),
            frame: operands.frame.into(),
            soft_end: operands.soft_end,
            expires: operands.expires,
            sent: Sent::Nothing,
            serial: 0,
            rounds: 0,
            read: None,
        }
    }

    /// Returns the next commands, each of which has one reply. `serial` is the number of the
    /// connection that they are sent on: the connections of a server are numbered in the order in
    /// which they were opened.
    pub fn requests(&mut self, protocol: Protocol, serial: u64, numbers: &CasNumbers) -> Vec<Vec<u8>> {
        let wire = Wire { protocol };
        self.serial = serial;
        if let Some(read) = self.read.take() {
            // On a connection that was opened later, the number may be that of another item, which
            // was stored since the server was restarted.
            if serial <= read.0.serial {
                self.sent = Sent::Conditional;
                return vec![self.conditional(wire, read)];
            }
            self.rounds += 1;
        }
        let (commands, sent) = match self.action {
            Action::Get => (vec![wire.get(&self.target)], Sent::Single),
            Action::Acquire | Action::ReadGeneration | Action::Claim => {
                let read = if self.action == Action::Claim {
                    &self.key
                } else {
                    &self.target
                };
                let add = wire.add(&self.target, &self.frame, self.expires);
                (vec![add, wire.read(read, true)], Sent::AddAndRead)
            }
            Action::Put => {
                let stamp = stamp_of(&self.frame).unwrap_or_default();
                let placeholder = head(Kind::Lease, stamp, 0);
                let add = wire.add(&self.target, &placeholder, expiration(PLACEHOLDER_MS, 0));
                (vec![add, wire.read(&self.target, false)], Sent::AddAndRead)
            }
            Action::Bump => (vec![wire.set(&self.target, &self.frame, 0)], Sent::Single),
            Action::Swap | Action::Fill | Action::Release => match numbers.take(&self.expected) {
                Some(numbered) if serial <= numbered.serial && self.rounds == 0 => {
                    let read = (numbered, Vec::new(), self.expires);
                    (vec![self.conditional(wire, read)], Sent::Conditional)
                }
                _ => (vec![wire.read(&self.target, true)], Sent::Read),
            },
            Action::Touch => (vec![wire.read(&self.target, true)], Sent::Read),
            // Without meta commands, the remaining lifetime of an item cannot be read.
            Action::Expire if protocol == Protocol::Meta && self.rounds < ROUNDS => {
                (vec![wire.read(&self.target, true)], Sent::Read)
            }
            _ => (vec![wire.delete(&self.target)], Sent::Removal),
        };
        self.sent = sent;
        commands
    }

    /// Returns the command that replaces what was read, or removes it.
    fn conditional(&self, wire: Wire, (numbered, old, expires): (Numbered, Vec<u8>, u64)) -> Vec<u8> {
        match self.action {
            Action::Release => wire.delete_if(&self.target, numbered.cas),
            Action::Touch | Action::Expire => {
                let mut frame = old;
                frame[STAMP].copy_from_slice(&self.frame);
                frame[SOFT_END..SOFT_END + 8].copy_from_slice(&self.soft_end.to_le_bytes());
                wire.store_if(&self.target, &frame, expires, numbered.cas)
            }
            _ => wire.store_if(&self.target, &self.frame, expires, numbered.cas),
        }
    }

    /// Takes the replies to [`Self::requests`], in their order.
    pub fn replies(&mut self, replies: &[&[u8]], numbers: &CasNumbers) -> Step {
        let responses: Vec<_> = replies.iter().map(|reply| Response::of(reply)).collect();
        for response in &responses {
            if let Response::Failed(failure) = response {
                return Step::End(Outcome::Failed(*failure));
            }
        }
        match (self.sent, &responses[..]) {
            (Sent::Single, [one]) => self.single(one),
            (Sent::Removal, [Response::Done { .. } | Response::NotFound]) => flag(true),
            (Sent::AddAndRead, [added, read]) => self.added(added, read, numbers),
            (Sent::Read, [read]) => self.compare(read),
            (Sent::Conditional, [one]) => self.stored(one, numbers),
            _ => failed(Failure::Other),
        }
    }

    fn single(&self, response: &Response<'_>) -> Step {
        match (self.action, response) {
            (Action::Get, Response::Value { data, .. }) => Step::End(Outcome::Value(Some(data.to_vec()))),
            (Action::Get, Response::Absent) => Step::End(Outcome::Value(None)),
            (Action::Bump, Response::Done { .. }) => flag(true),
            _ => failed(Failure::Other),
        }
    }

    fn added(&mut self, added: &Response<'_>, read: &Response<'_>, numbers: &CasNumbers) -> Step {
        let won = match added {
            Response::Done { .. } => true,
            Response::NotStored => false,
            _ => return failed(Failure::Other),
        };
        let (data, cas) = match *read {
            Response::Value { data, cas, .. } => (Some(data), cas),
            Response::Done { cas } => (None, cas),
            Response::Absent => (None, None),
            _ => return failed(Failure::Other),
        };
        let numbered = cas.map(|cas| Numbered {
            cas,
            serial: self.serial,
        });
        if numbered.is_some_and(|numbered| numbered.cas == 0) {
            return without_cas();
        }
        match self.action {
            Action::Put => {
                if let Some(numbered) = numbered {
                    self.read = Some((numbered, Vec::new(), self.expires));
                }
                // Without an item, it was removed behind the placeholder.
                self.again()
            }
            Action::Claim => {
                if let (Some(data), Some(numbered)) = (data, numbered) {
                    numbers.put(data, numbered);
                }
                Step::End(Outcome::Claim(won, data.map(Into::into)))
            }
            _ => {
                if won {
                    if let (Some(data), Some(numbered)) = (data, numbered)
                        && data == self.frame
                        && data.len() >= HEAD
                    {
                        numbers.put(data, numbered);
                    }
                    return Step::End(Outcome::Value(None));
                }
                match data {
                    Some(data) => Step::End(Outcome::Value(Some(data.into()))),
                    // It was removed between the two commands.
                    None => self.again(),
                }
            }
        }
    }

    fn compare(&mut self, read: &Response<'_>) -> Step {
        let Response::Value { data, cas, ttl } = *read else {
            // An absent value has expired.
            let absent = matches!(read, Response::Absent);
            return if absent {
                flag(self.action == Action::Expire)
            } else {
                failed(Failure::Other)
            };
        };
        let Some(cas) = cas.filter(|&cas| cas != 0) else {
            return without_cas();
        };
        let numbered = Numbered {
            cas,
            serial: self.serial,
        };
        if self.action == Action::Expire {
            let is_value = data.starts_with(&head(Kind::Value, [0; 16], 0)[..4]) && data.len() >= SHORTEST_VALUE;
            if is_value {
                let rest = match ttl {
                    Some(seconds @ 1..) => seconds as u64,
                    Some(0) => 1,
                    _ => 0,
                };
                self.read = Some((numbered, data.into(), expiration_kept(rest)));
            } else {
                // A lease, or what is no frame: removed.
                self.rounds = ROUNDS;
            }
            return Step::Again;
        }
        if data[..data.len().min(HEAD)] != self.expected[..] || (self.patches() && data.len() < SHORTEST_VALUE) {
            return flag(false);
        }
        if self.rounds >= ROUNDS {
            // Each time on a younger connection, or replaced each time.
            return flag(false);
        }
        let old = if self.patches() { data.into() } else { Vec::new() };
        self.read = Some((numbered, old, self.expires));
        Step::Again
    }

    fn patches(&self) -> bool {
        self.action == Action::Touch
    }

    fn stored(&mut self, response: &Response<'_>, numbers: &CasNumbers) -> Step {
        match response {
            Response::Done { cas } => {
                if let (Action::Swap, Some(cas @ 1..)) = (self.action, *cas) {
                    let serial = self.serial;
                    numbers.put(&self.frame, Numbered { cas, serial });
                }
                flag(true)
            }
            // Replaced, perhaps by the renewal of the same lease: it is read again.
            Response::Exists | Response::NotFound | Response::NotStored => self.again(),
            _ => failed(Failure::Other),
        }
    }

    /// Begins anew, unless that was often enough.
    fn again(&mut self) -> Step {
        self.rounds += 1;
        if self.rounds < ROUNDS || self.action == Action::Expire {
            return Step::Again;
        }
        match self.action {
            Action::Swap | Action::Fill | Action::Release | Action::Touch => flag(false),
            _ => failed(Failure::Other),
        }
    }
}

/// The remaining seconds of an item as a new expiration time.
fn expiration_kept(seconds: u64) -> u64 {
    seconds.min(super::MONTH)
}

fn flag(done: bool) -> Step {
    Step::End(Outcome::Flag(done))
}

fn failed(failure: Failure) -> Step {
    Step::End(Outcome::Failed(failure))
}

/// The server was started with `-C`: a comparison would not be one.
fn without_cas() -> Step {
    failed(Failure::NoPermission)
}

/// Writes commands.
#[derive(Clone, Copy)]
struct Wire {
    protocol: Protocol,
}

impl Wire {
    fn is_meta(self) -> bool {
        self.protocol == Protocol::Meta
    }

    /// A read without a CAS number: every server has this command.
    fn get(self, key: &[u8]) -> Vec<u8> {
        line(b"get ", key, "")
    }

    /// Reads an item with its CAS number, and with `value` or without its value.
    fn read(self, key: &[u8], value: bool) -> Vec<u8> {
        match (self.is_meta(), value) {
            (true, true) => line(b"mg ", key, " v c t"),
            (true, false) => line(b"mg ", key, " c"),
            (false, _) => line(b"gets ", key, ""),
        }
    }

    fn add(self, key: &[u8], value: &[u8], expires: u64) -> Vec<u8> {
        let length = value.len();
        if self.is_meta() {
            return block(b"ms ", key, &format!(" {length} T{expires} ME"), value);
        }
        block(b"add ", key, &format!(" 0 {expires} {length}"), value)
    }

    fn set(self, key: &[u8], value: &[u8], expires: u64) -> Vec<u8> {
        let length = value.len();
        if self.is_meta() {
            return block(b"ms ", key, &format!(" {length} T{expires}"), value);
        }
        block(b"set ", key, &format!(" 0 {expires} {length}"), value)
    }

    fn store_if(self, key: &[u8], value: &[u8], expires: u64, cas: u64) -> Vec<u8> {
        let length = value.len();
        if self.is_meta() {
            return block(b"ms ", key, &format!(" {length} T{expires} C{cas} c"), value);
        }
        block(b"cas ", key, &format!(" 0 {expires} {length} {cas}"), value)
    }

    fn delete(self, key: &[u8]) -> Vec<u8> {
        if self.is_meta() {
            line(b"md ", key, "")
        } else {
            line(b"delete ", key, "")
        }
    }

    fn delete_if(self, key: &[u8], cas: u64) -> Vec<u8> {
        if self.is_meta() {
            return line(b"md ", key, &format!(" C{cas}"));
        }
        // There is no such command: an empty value that has expired.
        block(b"cas ", key, &format!(" 0 -1 0 {cas}"), b"")
    }
}

fn line(command: &[u8], key: &[u8], rest: &str) -> Vec<u8> {
    [command, key, rest.as_bytes(), b"\r\n"].concat()
}

fn block(command: &[u8], key: &[u8], rest: &str, value: &[u8]) -> Vec<u8> {
    [command, key, rest.as_bytes(), b"\r\n", value, b"\r\n"].concat()
}
