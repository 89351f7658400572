//! What a callback answers, through functions.

use crate::blob::Blob;
use crate::cache::hotset_cache;
use crate::ffi::{bytes, ffi_guard};
use crate::ttl::ttl;
use crate::types::{Status, hotset_slice, hotset_status};
use engine::Ttl;
use libc::c_void;
use std::cell::RefCell;

/// What is to become of an entry.
pub(crate) enum Answer {
    Keep,
    Remove,
    Set(Blob, Ttl),
}

/// Where a callback puts its answer: valid only during that call, on its thread.
pub struct hotset_reply {
    cache: *const hotset_cache,
    key: *const [u8],
    answer: RefCell<Answer>,
}

/// Decides what becomes of an entry; for hotset_compute.
///
/// `current` is the value, or NULL where the key is absent; its bytes are valid during the call. Answer with hotset_reply_set or
/// hotset_reply_remove (the last one counts), or with neither to leave the entry as it is. Any status but HOTSET_OK leaves it as
/// it is too, and is what hotset_compute returns.
pub type hotset_compute_fn =
    Option<unsafe extern "C" fn(arg: *mut c_void, current: *const hotset_slice, reply: *mut hotset_reply) -> Status>;

/// Loads the value of a key that is missing; for hotset_get_or_load.
///
/// Answer with hotset_reply_set and HOTSET_OK. HOTSET_OK without a value stands for HOTSET_NOT_FOUND. Any other status is a failure:
/// it is what hotset_get_or_load returns, here and to all who waited for this load.
pub type hotset_loader_fn = Option<
    unsafe extern "C" fn(arg: *mut c_void, key: *const c_void, key_len: usize, reply: *mut hotset_reply) -> Status,
>;

impl hotset_reply {
    /// Lets `call` answer for the key.
    pub(crate) fn collect(
        cache: &hotset_cache,
        key: &[u8],
        call: impl FnOnce(*mut Self) -> Status,
    ) -> Result<Answer, Status> {
        let mut reply = Self {
            cache,
            key,
            answer: RefCell::new(Answer::Keep),
        };
        let status = crate::callback::within(cache.id, || call(&mut reply));
        if status == hotset_status::HOTSET_OK.into() {
            Ok(reply.answer.into_inner())
        } else {
            Err(status)
        }
    }

    /// # Safety
    /// The pointer is what a callback was given, and that callback has not returned.
    unsafe fn get<'a>(reply: *mut Self) -> Result<&'a Self, Status> {
        // SAFETY: the caller's promise.
        unsafe { reply.as_ref() }.ok_or(hotset_status::HOTSET_INVALID.into())
    }

    /// Answers. What was answered before is dropped when nothing here is borrowed: its destructor may answer, too.
    fn put(&self, answer: Answer) {
        drop(self.answer.replace(answer));
    }
}

/// In a callback: the value is to be these bytes, which are copied. It lives for ttl_ms milliseconds, or HOTSET_TTL_DEFAULT,
/// HOTSET_TTL_NONE or HOTSET_TTL_KEEP.
///
/// Takes the place of an earlier answer. With a destructor in the options, a value that was set belongs to the library from now
/// on: the destructor runs also for one that does not come into the cache, because the callback returns another status, runs
/// again, or answers anew.
///
/// Returns HOTSET_OK, HOTSET_INVALID, HOTSET_TOO_LARGE, HOTSET_NO_MEMORY, HOTSET_PANIC. After a failure the earlier answer stands; the
/// callback may return this status as its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_reply_set(
    reply: *mut hotset_reply,
    value: *const c_void,
    value_len: usize,
    ttl_ms: u64,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers; cache and key outlive the callback.
        let (reply, cache, key, value) = unsafe {
            let reply = hotset_reply::get(reply)?;
            let (cache, key) = (&*reply.cache, &*reply.key);
            (reply, cache, key, bytes(value, value_len)?)
        };
        let blob = cache.blob(key, value)?;
        blob.arm(true);
        reply.put(Answer::Set(blob, ttl(ttl_ms)));
        Ok(())
    })
}

/// In a callback of hotset_compute: the entry is to be removed. In a loader: there is no value.
///
/// Takes the place of an earlier answer. Returns HOTSET_OK, HOTSET_INVALID, HOTSET_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_reply_remove(reply: *mut hotset_reply) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        unsafe { hotset_reply::get(reply) }?.put(Answer::Remove);
        Ok(())
    })
}
