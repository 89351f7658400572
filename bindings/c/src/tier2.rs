//! What a program gives hotset to reach a server: the callbacks of a second tier, and the functions
//! by which they answer. The comments of this file are the header's.

use crate::ffi::{bytes, ffi_guard};
use crate::memory;
use crate::types::{Status, hotset_slice, hotset_status};
use engine::tiered::{Greeting, Message};
use libc::{c_char, c_void};
use std::cell::RefCell;
use std::ptr;

/// The outcome of a callback of a second tier. Any other number counts as HOTSET_TIER2_OTHER.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // For callbacks to return.
pub enum hotset_tier2_failure {
    /// It did what it was called for.
    HOTSET_TIER2_OK = 0,
    /// A part of the command may have been sent, and there was no whole answer in time: its outcome
    /// is unknown. The library disconnects.
    HOTSET_TIER2_TIMEOUT = 1,
    /// Nothing was sent, for a reason of this process.
    HOTSET_TIER2_NOT_SENT = 2,
    /// There is no connection, or it broke before anything was sent.
    HOTSET_TIER2_REFUSED = 3,
    /// The server has no memory for it.
    HOTSET_TIER2_OUT_OF_MEMORY = 4,
    /// The server is a replica.
    HOTSET_TIER2_READ_ONLY = 5,
    /// The user may not do this.
    HOTSET_TIER2_NO_PERMISSION = 7,
    /// The server is loading its data.
    HOTSET_TIER2_LOADING = 8,
    /// Any other error that the server answered.
    HOTSET_TIER2_OTHER = 11,
}

/// A failure as it comes from C: any number. In the header it is `hotset_tier2_failure`.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure(pub i32);

/// What a command asks the server to do. "Flag" and "value" are what must be answered: by
/// hotset_tier2_answer_flag, and by hotset_tier2_answer_value or hotset_tier2_answer_nothing.
///
/// "Begins with expected" means: the first 24 bytes of the key's value (all of a shorter one) are
/// equal to `expected`; an absent key's value is empty. Comparison and change must be one step on
/// the server. A kind that is not listed here is answered by HOTSET_TIER2_OTHER.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum hotset_tier2_kind {
    /// GET key. Value.
    HOTSET_TIER2_GET = 1,
    /// If there is no key: SET it to `value`, for `px` ms (0: for ever). The old value: value.
    HOTSET_TIER2_ACQUIRE = 2,
    /// If the key begins with expected: SET it to `value`, for `px` ms. Whether it did: flag.
    HOTSET_TIER2_SWAP = 3,
    /// SET key to `value`, for `px` ms; nothing if `not_after` is not 0 and the server's clock is
    /// past it. Whether it was done: flag.
    HOTSET_TIER2_PUT = 4,
    /// If the key begins with expected: delete it. Whether it did: flag.
    HOTSET_TIER2_RELEASE = 5,
    /// Delete the key. Where the server announces changes: if there is no key, SET it and delete
    /// it, so that the removal is announced. Flag.
    HOTSET_TIER2_REMOVE = 6,
    /// If the key's value has at least 54 bytes and begins with F1 68 01 01: overwrite its bytes
    /// from 4 on by `value`, which are 16, and those from 24 on by `soft_end`, as 8 bytes, the
    /// lowest first. Otherwise as HOTSET_TIER2_REMOVE. Flag.
    HOTSET_TIER2_EXPIRE = 7,
    /// If the key begins with expected: overwrite as HOTSET_TIER2_EXPIRE does, and let it expire
    /// after `px` ms. Whether it did: flag.
    HOTSET_TIER2_TOUCH = 8,
    /// SET key to `value`, for ever. Flag.
    HOTSET_TIER2_BUMP = 9,
    /// If there is no `claim`: SET it to `value`, for `px` ms; then GET key. Whether it was set:
    /// flag; and the key's value: value.
    HOTSET_TIER2_CLAIM = 10,
    /// Close the connection with the number `connection`, so that nothing that was sent on it is
    /// executed after the answer. Flag, also if it was closed before.
    HOTSET_TIER2_FENCE = 11,
    /// SET key to nothing, for `px` ms. Flag.
    HOTSET_TIER2_CANARY = 12,
}

/// A command. All bytes are valid during the callback.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_tier2_command {
    /// The size of this struct: a newer library has more fields.
    pub size: usize,
    /// A hotset_tier2_kind.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// The key: printable ASCII without blanks.
    pub key: hotset_slice,
    /// Of HOTSET_TIER2_CLAIM: the key beside it.
    pub claim: hotset_slice,
    /// The new value, or what a part of it is overwritten by.
    pub value: hotset_slice,
    /// What the beginning of the value is compared with.
    pub expected: hotset_slice,
    /// After how many milliseconds the key must expire: not sooner. 0: never.
    pub px: u64,
    /// Milliseconds since 1970 by the server's clock.
    pub not_after: u64,
    /// Milliseconds since 1970 by the server's clock.
    pub soft_end: u64,
    /// A number that hotset_tier2_greet was given.
    pub connection: u64,
}

/// Takes the answer to a command. Valid only during the callback.
pub struct hotset_tier2_answer {
    parts: RefCell<Parts>,
}

/// Takes how a server describes itself. Valid only during the callback.
pub struct hotset_tier2_greeting {
    greeting: RefCell<Option<Greeting>>,
}

/// Takes what was announced. Valid only during the callback.
pub struct hotset_tier2_message {
    message: RefCell<Message>,
}

#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) flag: Option<bool>,
    pub(crate) value: Option<Option<Vec<u8>>>,
    pub(crate) failure: Option<Failure>,
}

impl hotset_tier2_answer {
    pub(crate) fn new() -> Self {
        Self {
            parts: RefCell::new(Parts::default()),
        }
    }

    pub(crate) fn into_parts(self) -> Parts {
        self.parts.into_inner()
    }
}

impl hotset_tier2_greeting {
    pub(crate) fn new() -> Self {
        Self {
            greeting: RefCell::new(None),
        }
    }

    pub(crate) fn into_greeting(self) -> Option<Greeting> {
        self.greeting.into_inner()
    }
}

impl hotset_tier2_message {
    pub(crate) fn new() -> Self {
        Self {
            message: RefCell::new(Message::Nothing),
        }
    }

    pub(crate) fn into_message(self) -> Message {
        self.message.into_inner()
    }
}

/// How a program reaches the servers of a second tier: a struct of callbacks. Set it to zeros,
/// `size` to its size, and the other fields.
///
/// hotset_tiered_open copies it. Several threads call the callbacks, concurrently, but one
/// connection or bus is used by one thread at a time. They must return within `timeout_ms`: the
/// library does not interrupt them. See Callbacks in the preamble: they must not close the cache
/// that they are called for. A callback that must be set is not NULL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_tier2 {
    /// sizeof(hotset_tier2): the fields that the program knows.
    pub size: usize,
    /// The first argument of all callbacks.
    pub user: *mut c_void,
    /// The names of the servers, in UTF-8, if keys are distributed over several that never hand a
    /// key on to another one, as with memcached: a key is on the server whose name and key have the
    /// highest hash (rendezvous hashing by MurmurHash3, as pymemcache's HashClient does it).
    /// "host:port" is what the Python package names them. The other callbacks name a server by its
    /// index. NULL: there is one server.
    pub server_names: *const *const c_char,
    /// The number of names. 0: there is one server.
    pub server_count: u32,
    /// The most bytes of a key: longer ones are replaced by a hash. 250 for memcached. 0: no bound.
    pub longest_key: u32,
    /// The resolution of the servers' clocks in milliseconds. 1000 for memcached. 0: 1.
    pub clock_resolution_ms: u64,
    /// The most bytes of a value that a server takes, without some 800 bytes for hotset's own use.
    /// Larger ones stay in tier 1. 0: no bound.
    pub max_value: u64,
    /// Opens a connection and stores it in `*connection`, after the server has described itself:
    /// see hotset_tier2_greet. Must be set.
    pub connect: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            server: u32,
            timeout_ms: u64,
            greeting: *mut hotset_tier2_greeting,
            connection: *mut *mut c_void,
        ) -> Failure,
    >,
    /// Executes a command, and answers it. Must be set.
    pub execute: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            connection: *mut c_void,
            command: *const hotset_tier2_command,
            timeout_ms: u64,
            answer: *mut hotset_tier2_answer,
        ) -> Failure,
    >,
    /// Executes several commands in their order, best in one packet: command `n` is
    /// `commands[n]`, a pointer, and its answer `answers[n]`. The failure counts for all commands
    /// that have no answer; hotset_tier2_answer_failure sets that of one. NULL: `execute` is
    /// called for each.
    pub execute_many: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            connection: *mut c_void,
            commands: *const *const hotset_tier2_command,
            count: usize,
            timeout_ms: u64,
            answers: *const *mut hotset_tier2_answer,
        ) -> Failure,
    >,
    /// Exchanges a PING with the server, on a connection that was idle. Must be set.
    pub ping: Option<unsafe extern "C" fn(user: *mut c_void, connection: *mut c_void, timeout_ms: u64) -> Failure>,
    /// Closes a connection. Must be set.
    pub disconnect: Option<unsafe extern "C" fn(user: *mut c_void, connection: *mut c_void)>,
    /// Opens a bus: a connection on which the server announces every change of a key that begins
    /// with one of the prefixes, by any client, and stores it in `*bus`. NULL: the server announces
    /// nothing.
    pub subscribe: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            server: u32,
            prefixes: *const hotset_slice,
            count: usize,
            timeout_ms: u64,
            bus: *mut *mut c_void,
        ) -> Failure,
    >,
    /// Waits until the bus has a message, or for `timeout_ms`: see hotset_tier2_message_changed. A
    /// failure means that the bus broke. Must be set if subscribe is.
    pub bus_next: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            bus: *mut c_void,
            timeout_ms: u64,
            message: *mut hotset_tier2_message,
        ) -> Failure,
    >,
    /// Sends a PING on the bus. Its answer, which bus_next reports by hotset_tier2_message_pong,
    /// must come behind the messages of all changes that the server executed before it. Must be set
    /// if subscribe is.
    pub bus_ping: Option<unsafe extern "C" fn(user: *mut c_void, bus: *mut c_void, timeout_ms: u64) -> Failure>,
    /// Closes a bus. Must be set if subscribe is.
    pub unsubscribe: Option<unsafe extern "C" fn(user: *mut c_void, bus: *mut c_void)>,
    /// Called once, in hotset_tiered_close, after the last use of the callbacks. Not called if
    /// hotset_tiered_open fails: then `user` is still the caller's. NULL: nothing is.
    pub release: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

// The header's types of answers are opaque: nothing else makes or reads them.

/// # Safety
/// A callback received the pointer, and has not returned.
unsafe fn given<'a, T>(pointer: *mut T) -> Result<&'a T, Status> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or(hotset_status::HOTSET_INVALID.into())
}

/// Answers a command by a value: a copy of these bytes. Replaces an earlier value.
///
/// @return HOTSET_OK; HOTSET_INVALID, HOTSET_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tier2_answer_value(
    answer: *mut hotset_tier2_answer,
    value: *const c_void,
    value_len: usize,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let (answer, value) = unsafe { (given(answer)?, bytes(value, value_len)?) };
        let copy = copy_of(value)?;
        answer.parts.borrow_mut().value = Some(Some(copy));
        Ok(())
    })
}

/// Answers a command by no value: there is no such key.
///
/// @return HOTSET_OK; HOTSET_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tier2_answer_nothing(answer: *mut hotset_tier2_answer) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        unsafe { given(answer) }?.parts.borrow_mut().value = Some(None);
        Ok(())
    })
}

/// Answers a command by a flag: 0, or anything else.
///
/// @return HOTSET_OK; HOTSET_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tier2_answer_flag(answer: *mut hotset_tier2_answer, flag: u32) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        unsafe { given(answer) }?.parts.borrow_mut().flag = Some(flag != 0);
        Ok(())
    })
}

/// Answers one of several commands by a failure.
///
/// @return HOTSET_OK; HOTSET_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tier2_answer_failure(answer: *mut hotset_tier2_answer, failure: Failure) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        unsafe { given(answer) }?.parts.borrow_mut().failure = Some(failure);
        Ok(())
    })
}

/// Describes the server of a new connection: to be called in `connect`.
///
/// @param identity Bytes that differ after a failover, and after a restart that lost data: such as
/// Redis' run_id and master_replid, or memcached's pid and start time.
/// @param server_ms The server's clock: milliseconds since 1970.
/// @param connection The server's number of this connection; 0 if it has none.
/// @param can_fence Not 0: HOTSET_TIER2_FENCE works.
/// @return HOTSET_OK; HOTSET_INVALID, HOTSET_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tier2_greet(
    greeting: *mut hotset_tier2_greeting,
    identity: *const c_void,
    identity_len: usize,
    server_ms: u64,
    connection: u64,
    can_fence: u32,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let (to, identity) = unsafe { (given(greeting)?, bytes(identity, identity_len)?) };
        let identity = copy_of(identity)?;
        *to.greeting.borrow_mut() = Some(Greeting {
            identity,
            server_ms,
            connection,
            can_fence: can_fence != 0,
        });
        Ok(())
    })
}

/// Reports a changed key: to be called in `bus_next`, for each key that a message names, in their
/// order.
///
/// @return HOTSET_OK; HOTSET_INVALID, HOTSET_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tier2_message_changed(
    message: *mut hotset_tier2_message,
    key: *const c_void,
    key_len: usize,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let (message, key) = unsafe { (given(message)?, bytes(key, key_len)?) };
        let key = copy_of(key)?;
        let mut message = message.message.borrow_mut();
        match &mut *message {
            Message::Changed(keys) => keys.push(key),
            // It includes the key.
            Message::Flushed => {}
            _ => *message = Message::Changed(vec![key]),
        }
        Ok(())
    })
}

/// Reports that all keys were removed: to be called in `bus_next`.
///
/// @return HOTSET_OK; HOTSET_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tier2_message_flushed(message: *mut hotset_tier2_message) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        *unsafe { given(message) }?.message.borrow_mut() = Message::Flushed;
        Ok(())
    })
}

/// Reports the answer to a PING: to be called in `bus_next`, and alone in it.
///
/// @return HOTSET_OK; HOTSET_INVALID, also if a change was reported.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tier2_message_pong(message: *mut hotset_tier2_message) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let mut message = unsafe { given(message) }?.message.borrow_mut();
        if matches!(*message, Message::Changed(_) | Message::Flushed) {
            // A PONG that took the place of a change would hide it.
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        *message = Message::Pong;
        Ok(())
    })
}

fn copy_of(from: &[u8]) -> Result<Vec<u8>, Status> {
    memory::ready()?;
    let mut copy = Vec::new();
    copy.try_reserve_exact(from.len())
        .map_err(|_| hotset_status::HOTSET_NO_MEMORY)?;
    copy.extend_from_slice(from);
    Ok(copy)
}

/// No bytes.
pub(crate) const NO_BYTES: hotset_slice = hotset_slice {
    data: ptr::null(),
    len: 0,
};
