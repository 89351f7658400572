//! Calls on a cache with a second tier.

use crate::blob::Blob;
use crate::callback;
use crate::closed::Closed;
use crate::ffi::{bytes, caught, ffi_guard, ffi_guard_slow, result};
use crate::fork::generation;
use crate::memory;
use crate::reply::{Answer, hotset_loader_fn, hotset_reply};
use crate::tier2::hotset_tier2;
use crate::tiered_options::{hotset_tiered_keys, hotset_tiered_options};
use crate::ttl::ttl;
use crate::types::{Status, hotset_slice, hotset_status, hotset_value};
use engine::tiered::{MAX_TAGS, TierKey, Tiered, is_tag};
use engine::{LoadError, Ttl};
use libc::{c_char, c_void};
use std::cell::UnsafeCell;
use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// A cache in front of a server that processes share, created by hotset_tiered_open. Any number of
/// threads may use it concurrently.
pub struct hotset_tiered {
    /// The generation of the process that opened it; [`CLOSED`] after the close.
    live: AtomicU32,
    /// A cell: `close` empties it while a callback on another thread may have a reference to the
    /// whole, to be refused.
    engine: UnsafeCell<Option<Engine>>,
    keys: u32,
    id: u64,
}

pub(crate) type Engine = Tiered<Key, Blob>;

const CLOSED: u32 = 0;

static CLOSED_CACHES: Closed<hotset_tiered> = Closed::new();

/// A key of the program's, valid for the call that made it.
pub(crate) struct Key {
    bytes: *const [u8],
    kind: u32,
}

impl TierKey for Key {
    fn write(&self, text: &mut String) {
        // SAFETY: the call that made it has the bytes.
        let bytes = unsafe { &*self.bytes };
        if self.kind == hotset_tiered_keys::HOTSET_KEYS_BYTES as u32 {
            bytes.write(text);
            return;
        }
        // `key` has checked it.
        let checked = std::str::from_utf8(bytes).unwrap_or_default();
        if self.kind == hotset_tiered_keys::HOTSET_KEYS_TEXT as u32 {
            checked.write(text);
        } else {
            text.push_str(checked);
        }
    }
}

impl hotset_tiered {
    pub(crate) fn new(engine: Engine, keys: u32, id: u64) -> Self {
        Self {
            live: AtomicU32::new(generation()),
            engine: UnsafeCell::new(Some(engine)),
            keys,
            id,
        }
    }

    /// The cache behind a pointer from C, if it is open.
    ///
    /// # Safety
    /// The pointer came from `hotset_tiered_open`, and its memory was not freed (see [`Closed`]);
    /// no other thread closes it during the call.
    unsafe fn get<'a>(tiered: *const Self) -> Result<&'a Self, Status> {
        // SAFETY: the caller's promise.
        let tiered = unsafe { tiered.as_ref() }.ok_or(hotset_status::HOTSET_INVALID)?;
        // Relaxed: as in `hotset_cache::get`.
        match tiered.live.load(Ordering::Relaxed) {
            live if live == generation() => Ok(tiered),
            CLOSED => Err(hotset_status::HOTSET_CLOSED.into()),
            _ => Err(hotset_status::HOTSET_FORKED.into()),
        }
    }

    fn engine(&self) -> &Engine {
        // SAFETY: only `close` changes it, and no call that it does not refuse is in progress then.
        unsafe { (*self.engine.get()).as_ref() }.expect("it is open")
    }

    fn key(&self, bytes: &[u8]) -> Result<Key, Status> {
        let is_written = self.keys == hotset_tiered_keys::HOTSET_KEYS_WRITTEN as u32;
        let is_text = self.keys == hotset_tiered_keys::HOTSET_KEYS_TEXT as u32;
        let printable = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
        if (is_text && std::str::from_utf8(bytes).is_err())
            || (is_written && (bytes.is_empty() || !bytes.iter().all(printable)))
        {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        Ok(Key { bytes, kind: self.keys })
    }

    /// # Safety
    /// As for [`get`](Self::get), and no other call on the cache is in progress.
    unsafe fn close(tiered: *mut Self) -> Result<(), Status> {
        // SAFETY: the caller's promise.
        let open = unsafe { Self::get(tiered) }?;
        if callback::is_within(open.id) {
            return Err(hotset_status::HOTSET_REENTRANT.into());
        }
        let live = open.live.load(Ordering::Relaxed);
        // Of several calls that close it, the one whose exchange succeeds does. Relaxed: no other
        // call is in progress, by the promise above.
        if open
            .live
            .compare_exchange(live, CLOSED, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
        {
            return Err(hotset_status::HOTSET_CLOSED.into());
        }
        // SAFETY: no other call uses it, and none passes the exchange.
        let engine = unsafe { open.engine.get().replace(None) };
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(engine)));
        // SAFETY: `hotset_tiered_open` leaked it, and it is closed.
        unsafe { CLOSED_CACHES.keep(tiered) };
        dropped.map_err(|panic| caught(panic).into())
    }
}

/// Runs a call on a cache with a key.
///
/// # Safety
/// The header's rules for callers.
unsafe fn with_key(
    tiered: *mut hotset_tiered,
    key: *const c_void,
    key_len: usize,
    call: impl FnOnce(&hotset_tiered, &Key) -> Result<(), Status>,
) -> Result<(), Status> {
    // SAFETY: the header's rules for callers.
    let (tiered, bytes) = unsafe { (hotset_tiered::get(tiered)?, bytes(key, key_len)?) };
    let key = tiered.key(bytes)?;
    memory::ready()?;
    call(tiered, &key)
}

/// The result of a change.
fn confirmed(confirmed: bool) -> Result<(), Status> {
    if confirmed {
        Ok(())
    } else {
        Err(hotset_status::HOTSET_UNCONFIRMED.into())
    }
}

/// # Safety
/// `tags` are `count` strings.
unsafe fn tags_of<'a>(tags: *const *const c_char, count: usize) -> Result<Vec<&'a str>, Status> {
    let invalid = || Status::from(hotset_status::HOTSET_INVALID);
    if count > MAX_TAGS || (tags.is_null() && count != 0) {
        return Err(invalid());
    }
    let tag = |at| {
        // SAFETY: the caller's promise.
        let tag = unsafe {
            let tag = tags.add(at).read();
            if tag.is_null() {
                return Err(invalid());
            }
            CStr::from_ptr(tag)
        };
        let tag = tag.to_str().map_err(|_| invalid())?;
        if is_tag(tag) { Ok(tag) } else { Err(invalid()) }
    };
    (0..count).map(tag).collect()
}

/// ----------------------------------------------------------------------------------------------
/// 9. A second tier
/// ----------------------------------------------------------------------------------------------
///
/// Writes the default options to `options`.
///
/// @param size sizeof(hotset_tiered_options).
/// @return HOTSET_OK; HOTSET_INVALID for NULL, or for a size that no version of the options has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_options_init(options: *mut hotset_tiered_options, size: usize) -> Status {
    // SAFETY: the header's rules for callers.
    ffi_guard(|| unsafe { hotset_tiered_options::init(options, size) })
}

/// Opens a cache with entries in this process (tier 1) in front of a server that many processes
/// share (tier 2), and stores it in `*tiered`. Close it with hotset_tiered_close.
///
/// A hit in tier 1 costs a lookup. A miss asks the server. A key that is missing there, too, is
/// loaded once over all processes, under a lease. A removal or a write reaches tier 1 of every
/// process, if the server announces changes; otherwise within `local_ttl_ms`. While the server does
/// not answer, values are loaded without it, and what was changed is removed on the server once it
/// answers, as long as this process lives. Programs in Python and Rust share the entries.
///
/// How the server is reached is the program's: see hotset_tier2. examples/c/tier2_redis.c and
/// examples/c/tier2_memcached.c are transports. Nothing is sent before it is needed: the server may
/// be down. The cache has a thread for each server, in which all signals are blocked.
///
/// @return HOTSET_OK; HOTSET_INVALID, also for missing callbacks; HOTSET_IO, with errno, if the
/// operating system refused the thread; HOTSET_NO_MEMORY. After a failure `*tiered` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_open(
    tier2: *const hotset_tier2,
    options: *const hotset_tiered_options,
    tiered: *mut *mut hotset_tiered,
) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        unsafe {
            let out = result(tiered, ptr::null_mut())?;
            let options = hotset_tiered_options::read(options)?;
            out.set(Box::into_raw(options.open(tier2)?));
        }
        Ok(())
    })
}

/// Stores a handle to the value of a key in `*value`, from tier 1 or from the server. Release it
/// with hotset_release. It has no key (see hotset_value_key).
///
/// @return HOTSET_OK; HOTSET_NOT_FOUND, also if the server does not answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_get(
    tiered: *mut hotset_tiered,
    key: *const c_void,
    key_len: usize,
    value: *mut *mut hotset_value,
) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        unsafe {
            let out = result(value, ptr::null_mut())?;
            with_key(tiered, key, key_len, |tiered, key| {
                let found = tiered.engine().get(key).ok_or(hotset_status::HOTSET_NOT_FOUND)?;
                out.set(found.into_handle());
                Ok(())
            })
        }
    })
}

/// Stores handles to the values of `count` keys in `values`, in their order; NULL for those that
/// have none. The requests to a server are sent in one packet.
///
/// @param found Receives the number of values; or NULL.
/// @return HOTSET_OK. After a failure all of `values` are NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_get_many(
    tiered: *mut hotset_tiered,
    keys: *const hotset_slice,
    count: usize,
    values: *mut *mut hotset_value,
    found: *mut usize,
) -> Status {
    ffi_guard_slow(|| {
        if (keys.is_null() || values.is_null()) && count != 0 || count > isize::MAX as usize / 16 {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        if !found.is_null() {
            // SAFETY: the header's rules for callers.
            unsafe { found.write(0) };
        }
        if count == 0 {
            // SAFETY: the header's rules for callers.
            return unsafe { hotset_tiered::get(tiered) }.map(drop);
        }
        // SAFETY: the header's rules for callers.
        let (tiered, keys) = unsafe {
            (0..count).for_each(|at| values.add(at).write(ptr::null_mut()));
            (hotset_tiered::get(tiered)?, std::slice::from_raw_parts(keys, count))
        };
        memory::ready()?;
        let key = |key: &hotset_slice| {
            // SAFETY: the header's rules for callers.
            tiered.key(unsafe { bytes(key.data, key.len) }?)
        };
        let keys: Vec<Key> = keys.iter().map(key).collect::<Result<_, _>>()?;
        let keys: Vec<&Key> = keys.iter().collect();
        let mut hits = 0;
        for (at, value) in tiered.engine().get_many(&keys).into_iter().enumerate() {
            if let Some(value) = value {
                hits += 1;
                // SAFETY: the header's rules for callers.
                unsafe { values.add(at).write(value.into_handle()) };
            }
        }
        if !found.is_null() {
            // SAFETY: the header's rules for callers.
            unsafe { found.write(hits) };
        }
        Ok(())
    })
}

/// Stores a handle to the value of a key in `*value`, as hotset_tiered_get does. If it is in
/// neither tier, calls `fn` to load it: one caller over all processes does, and the others wait for
/// it. See hotset_loader_fn; a reply's `ttl_ms` is how long the value is fresh.
///
/// If the server does not answer, `fn` is called without a lease: once per process.
///
/// @param tags Up to 16 tags of the loaded value, for hotset_tiered_invalidate_tag: strings in
/// UTF-8 of up to 255 bytes, where bytes other than ASCII letters, digits and _.-~/@+ count thrice.
/// @return HOTSET_OK; HOTSET_NOT_FOUND if the loader had no value; the status that the loader
/// returned, if not HOTSET_OK; HOTSET_REENTRANT if the key is requested inside its loader;
/// HOTSET_TOO_LARGE, HOTSET_NO_MEMORY. After a failure `*value` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_get_or_load(
    tiered: *mut hotset_tiered,
    key: *const c_void,
    key_len: usize,
    tags: *const *const c_char,
    tag_count: usize,
    r#fn: hotset_loader_fn,
    arg: *mut c_void,
    value: *mut *mut hotset_value,
) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        let (out, tags) = unsafe { (result(value, ptr::null_mut())?, tags_of(tags, tag_count)?) };
        let call = r#fn.ok_or(hotset_status::HOTSET_INVALID)?;
        // SAFETY: the header's rules for callers.
        unsafe {
            with_key(tiered, key, key_len, |tiered, key| {
                let load = || {
                    let bytes = &*key.bytes;
                    let (at, len) = (bytes.as_ptr().cast(), bytes.len());
                    // The value has no key of its own.
                    let reply = |reply| call(arg, at, len, reply);
                    match hotset_reply::collect_for(tiered.id, None, &[], reply)? {
                        Answer::Set(blob, ttl) => Ok((blob, ttl)),
                        Answer::Keep | Answer::Remove => Err(Status::from(hotset_status::HOTSET_NOT_FOUND)),
                    }
                };
                let loaded = tiered.engine().get_or_load_tagged(key, &tags, load);
                let loaded = loaded.map_err(|error| match error {
                    LoadError::Failed(status) => *status,
                    LoadError::Reentrant => hotset_status::HOTSET_REENTRANT.into(),
                    other => unreachable!("one key was requested: {other:?}"),
                })?;
                out.set(loaded.into_handle());
                Ok(())
            })
        }
    })
}

/// Stores a copy of a value on the server, then in tier 1. Other processes drop theirs.
///
/// @param ttl_ms How long it is fresh: milliseconds, HOTSET_TTL_DEFAULT or HOTSET_TTL_NONE.
/// @param tags As for hotset_tiered_get_or_load.
/// @return HOTSET_OK; HOTSET_UNCONFIRMED if the server did not confirm it: the key is removed
/// everywhere once it answers, and the value is nowhere (one that is too large for the server is in
/// tier 1); HOTSET_TOO_LARGE, HOTSET_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_put(
    tiered: *mut hotset_tiered,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    ttl_ms: u64,
    tags: *const *const c_char,
    tag_count: usize,
) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        unsafe {
            let (value, tags) = (bytes(value, value_len)?, tags_of(tags, tag_count)?);
            with_key(tiered, key, key_len, |tiered, key| {
                let blob = Blob::new(&[], value, None)?;
                confirmed(tiered.engine().set_tagged(key, blob, lifetime(ttl_ms)?, &tags))
            })
        }
    })
}

/// How long a value is fresh; there is no older one whose time it could keep.
fn lifetime(ttl_ms: u64) -> Result<Ttl, Status> {
    match ttl(ttl_ms) {
        Ttl::Keep => Err(hotset_status::HOTSET_INVALID.into()),
        ttl => Ok(ttl),
    }
}

/// Removes a key from both tiers, in all processes. To be called after the source has changed.
///
/// @return HOTSET_OK; HOTSET_UNCONFIRMED if the server did not confirm it: it is removed here, and
/// there once the server answers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_invalidate(
    tiered: *mut hotset_tiered,
    key: *const c_void,
    key_len: usize,
) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        unsafe {
            with_key(tiered, key, key_len, |tiered, key| {
                confirmed(tiered.engine().remove(key))
            })
        }
    })
}

/// Expires the value of a key in all processes: it may be returned stale, within the times that are
/// set, while it is loaded anew.
///
/// @return As hotset_tiered_invalidate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_expire(
    tiered: *mut hotset_tiered,
    key: *const c_void,
    key_len: usize,
) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        unsafe {
            with_key(tiered, key, key_len, |tiered, key| {
                confirmed(tiered.engine().expire(key))
            })
        }
    })
}

/// Gives the value of a key on the server another time to live, counted from now.
///
/// @param ttl_ms As for hotset_tiered_put.
/// @return HOTSET_OK; HOTSET_NOT_FOUND if there is no value, or the server did not answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_touch(
    tiered: *mut hotset_tiered,
    key: *const c_void,
    key_len: usize,
    ttl_ms: u64,
) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        unsafe {
            with_key(tiered, key, key_len, |tiered, key| {
                if tiered.engine().touch(key, lifetime(ttl_ms)?) {
                    Ok(())
                } else {
                    Err(hotset_status::HOTSET_NOT_FOUND.into())
                }
            })
        }
    })
}

/// Invalidates all values with a tag, in all processes: takes one request for each server.
///
/// @return As hotset_tiered_invalidate; HOTSET_INVALID for a tag that is too long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_invalidate_tag(tiered: *mut hotset_tiered, tag: *const c_char) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        let (tiered, tags) = unsafe { (hotset_tiered::get(tiered)?, tags_of(&tag, 1)?) };
        memory::ready()?;
        confirmed(tiered.engine().invalidate_tag(tags[0]))
    })
}

/// Invalidates all values, in all processes: takes one request for each server.
///
/// @return As hotset_tiered_invalidate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_clear(tiered: *mut hotset_tiered) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        let tiered = unsafe { hotset_tiered::get(tiered) }?;
        memory::ready()?;
        confirmed(tiered.engine().clear())
    })
}

/// Stores the name of a key on the server: where the program announces changes by means of its own.
/// A NUL follows it.
///
/// @param len Receives the name's length, without the NUL.
/// @return HOTSET_OK; HOTSET_BUFFER_TOO_SMALL if `len` is not less than `size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_name(
    tiered: *mut hotset_tiered,
    key: *const c_void,
    key_len: usize,
    buffer: *mut c_char,
    size: usize,
    len: *mut usize,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        unsafe {
            let out = result(len, 0)?;
            with_key(tiered, key, key_len, |tiered, key| {
                let name = tiered.engine().name(key);
                let name = name.as_bytes();
                out.set(name.len());
                if buffer.is_null() || name.len() >= size {
                    return Err(hotset_status::HOTSET_BUFFER_TOO_SMALL.into());
                }
                ptr::copy_nonoverlapping(name.as_ptr(), buffer.cast(), name.len());
                buffer.add(name.len()).write(0);
                Ok(())
            })
        }
    })
}

/// Informs the cache that another process changed what the server has under this name (see
/// hotset_tiered_name): tier 1 drops it. For programs that announce changes to each other
/// themselves, in their own event loop, where the server does not. Sends nothing. Such an
/// announcement may be lost or late: `local_ttl_ms` stays the bound.
///
/// @param name NULL, with length 0: all keys may have changed.
/// @return HOTSET_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_event(
    tiered: *mut hotset_tiered,
    name: *const c_void,
    name_len: usize,
) -> Status {
    ffi_guard_slow(|| {
        // SAFETY: the header's rules for callers.
        let (tiered, bytes) = unsafe { (hotset_tiered::get(tiered)?, bytes(name, name_len)?) };
        memory::ready()?;
        if name.is_null() {
            tiered.engine().all_changed();
        } else {
            tiered.engine().changed(bytes);
        }
        Ok(())
    })
}

/// Receives a counter, for hotset_tiered_stats. The name is valid during the call.
pub type hotset_tiered_counter_fn = Option<unsafe extern "C" fn(arg: *mut c_void, name: *const c_char, count: u64)>;

/// The state of a cache with a second tier.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_tiered_state {
    /// "unknown", "up", "replaying" or "down"; of several servers, the worst. Valid forever.
    pub link: *const c_char,
    /// "armed": the announcements of the servers are known to arrive. Otherwise "none", "lost" or
    /// "unsynced". Valid forever.
    pub bus: *const c_char,
    /// The number of keys whose change the server has not confirmed.
    pub unconfirmed: u64,
    /// The number of entries in tier 1.
    pub entries: u64,
}

/// Stores the state of a cache in `*state`, and calls `fn` with each counter: those of tier 1 begin
/// with "tier1_", those of the operations of tier 2 with "tier2_", those of what happened between
/// this process and the servers with "server_".
///
/// @param fn NULL: the counters are not wanted.
/// @return HOTSET_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_stats(
    tiered: *mut hotset_tiered,
    state: *mut hotset_tiered_state,
    r#fn: hotset_tiered_counter_fn,
    arg: *mut c_void,
) -> Status {
    ffi_guard_slow(|| {
        let none = hotset_tiered_state {
            link: ptr::null(),
            bus: ptr::null(),
            unconfirmed: 0,
            entries: 0,
        };
        // SAFETY: the header's rules for callers.
        let (out, tiered) = unsafe { (result(state, none)?, hotset_tiered::get(tiered)?) };
        memory::ready()?;
        let stats = tiered.engine().stats();
        out.set(hotset_tiered_state {
            link: state_text(stats.link),
            bus: state_text(stats.bus),
            unconfirmed: stats.unconfirmed as u64,
            entries: stats.entries,
        });
        let Some(call) = r#fn else {
            return Ok(());
        };
        let tier1 = [
            ("hits", stats.tier1.hits),
            ("misses", stats.tier1.misses),
            ("insertions", stats.tier1.insertions),
            ("evictions", stats.tier1.evictions),
            ("expirations", stats.tier1.expirations),
            ("rejections", stats.tier1.rejections),
        ];
        let tier1 = tier1.into_iter().map(|(name, count)| ("tier1_", name, count));
        let tier2 = stats.tier2.into_iter().map(|(name, count)| ("tier2_", name, count));
        let server = stats.server.into_iter().map(|(name, count)| ("server_", name, count));
        for (part, name, count) in tier1.chain(tier2).chain(server) {
            let Ok(name) = CString::new(format!("{part}{name}")) else {
                continue;
            };
            // SAFETY: the user's function, with the promised arguments.
            callback::within(tiered.id, || unsafe { call(arg, name.as_ptr(), count) });
        }
        Ok(())
    })
}

/// Returns a state as a string of C.
fn state_text(state: &str) -> *const c_char {
    let text = match state {
        "up" => c"up",
        "down" => c"down",
        "replaying" => c"replaying",
        "armed" => c"armed",
        "none" => c"none",
        "lost" => c"lost",
        "unsynced" => c"unsynced",
        _ => c"unknown",
    };
    text.as_ptr()
}

/// Closes a cache: replays what the server has not confirmed, for as long as one request may take,
/// disconnects, and frees the entries. Handles stay valid until they are released. It must be the
/// last call on the cache, and no other call on it may be in progress.
///
/// After it has returned, no thread of the library runs for this cache, and no callback is called.
/// A later call is refused as hotset_close describes.
///
/// @return HOTSET_OK; HOTSET_REENTRANT in a callback of this cache, HOTSET_FORKED in a child (after
/// these the cache is unchanged).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_tiered_close(tiered: *mut hotset_tiered) -> Status {
    // SAFETY: the header's rules for callers.
    ffi_guard_slow(|| unsafe { hotset_tiered::close(tiered) })
}
