//! Replies of callbacks, made through functions.

use crate::blob::{Blob, Destructor};
use crate::cache::hotset_cache;
use crate::ffi::{bytes, ffi_guard};
use crate::memory;
use crate::ttl::ttl;
use crate::types::{Status, hotset_slice, hotset_status};
use engine::Ttl;
use libc::c_void;
use std::cell::RefCell;

/// A callback's decision about an entry.
pub(crate) enum Answer {
    Keep,
    Remove,
    Set(Blob, Ttl),
}

/// Receives a callback's reply. Valid only during that callback, on its thread.
pub struct hotset_reply {
    key: *const [u8],
    destructor: Option<Destructor>,
    answer: RefCell<Answer>,
}

/// Decides how an entry is changed; for hotset_compute.
///
/// `current` is the value, or NULL if the key is absent or expired; its bytes are valid during the
/// call. Reply with hotset_reply_set or hotset_reply_remove (the last one counts), or with neither
/// to leave the entry unchanged. Any status but HOTSET_OK also leaves it unchanged, and is returned
/// by hotset_compute.
pub type hotset_compute_fn =
    Option<unsafe extern "C" fn(arg: *mut c_void, current: *const hotset_slice, reply: *mut hotset_reply) -> Status>;

/// Loads the value of an absent key; for hotset_get_or_load.
///
/// Reply with hotset_reply_set and HOTSET_OK. HOTSET_OK without a value stands for
/// HOTSET_NOT_FOUND. Any other status is a failure: hotset_get_or_load returns it, also to all
/// callers that waited for this load.
pub type hotset_loader_fn = Option<
    unsafe extern "C" fn(arg: *mut c_void, key: *const c_void, key_len: usize, reply: *mut hotset_reply) -> Status,
>;

impl hotset_reply {
    /// Runs the callback `call` for the key, and returns its reply.
    pub(crate) fn collect(
        cache: &hotset_cache,
        key: &[u8],
        call: impl FnOnce(*mut Self) -> Status,
    ) -> Result<Answer, Status> {
        Self::collect_for(cache.id, cache.destructor, key, call)
    }

    /// [`collect`](Self::collect) for what has the number of a cache, and this destructor.
    pub(crate) fn collect_for(
        id: u64,
        destructor: Option<Destructor>,
        key: &[u8],
        call: impl FnOnce(*mut Self) -> Status,
    ) -> Result<Answer, Status> {
        let mut reply = Self {
            key,
            destructor,
            answer: RefCell::new(Answer::Keep),
        };
        let status = crate::callback::within(id, || call(&mut reply));
        if status == hotset_status::HOTSET_OK.into() {
            Ok(reply.answer.into_inner())
        } else {
            Err(status)
        }
    }

    /// # Safety
    /// A callback received the pointer, and has not returned.
    unsafe fn get<'a>(reply: *mut Self) -> Result<&'a Self, Status> {
        // SAFETY: the caller's promise.
        unsafe { reply.as_ref() }.ok_or(hotset_status::HOTSET_INVALID.into())
    }

    /// Stores the reply. The previous one is dropped after the borrow has ended: its destructor may
    /// reply, too.
    fn put(&self, answer: Answer) {
        drop(self.answer.replace(answer));
    }
}

/// Replies, in a callback, with a value, which is copied. Replaces an earlier reply.
///
/// @param ttl_ms Milliseconds, HOTSET_TTL_DEFAULT, HOTSET_TTL_NONE or HOTSET_TTL_KEEP.
/// @return HOTSET_OK; HOTSET_TOO_LARGE, HOTSET_NO_MEMORY. After a failure the earlier reply stands;
/// the callback may return this status as its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_reply_set(
    reply: *mut hotset_reply,
    value: *const c_void,
    value_len: usize,
    ttl_ms: u64,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers; the key outlives the callback.
        let (reply, key, value) = unsafe {
            let reply = hotset_reply::get(reply)?;
            (reply, &*reply.key, bytes(value, value_len)?)
        };
        memory::ready()?;
        let blob = Blob::new(key, value, reply.destructor)?;
        blob.arm(true);
        reply.put(Answer::Set(blob, ttl(ttl_ms)));
        Ok(())
    })
}

/// Replies, in a callback of hotset_compute, that the entry must be removed; in a loader, that
/// there is no value. Replaces an earlier reply.
///
/// @return HOTSET_OK; HOTSET_INVALID.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_reply_remove(reply: *mut hotset_reply) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        unsafe { hotset_reply::get(reply) }?.put(Answer::Remove);
        Ok(())
    })
}
