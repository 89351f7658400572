//! Every function of the C library, called in this process with arbitrary bytes, numbers, null
//! pointers, callbacks and orders of calls, as far as the header allows: statuses are valid and no
//! panic, bytes read are the bytes written, and the destructor gets each value once.
#![no_main]
#![allow(non_camel_case_types, clippy::missing_safety_doc, unused, unreachable_pub)]

extern crate hotset as engine;

use arbitrary::Arbitrary;
use libc::c_void;
use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;
use std::ptr;

// The library's own sources: a library for C cannot be linked to as a crate.
#[path = "../../bindings/c/src/admin.rs"]
mod admin;
#[path = "../../bindings/c/src/basic.rs"]
mod basic;
#[path = "../../bindings/c/src/blob.rs"]
mod blob;
#[path = "../../bindings/c/src/cache.rs"]
mod cache;
#[path = "../../bindings/c/src/callback.rs"]
mod callback;
#[path = "../../bindings/c/src/change.rs"]
mod change;
#[path = "../../bindings/c/src/compute.rs"]
mod compute;
#[path = "../../bindings/c/src/ffi.rs"]
mod ffi;
#[path = "../../bindings/c/src/fork.rs"]
mod fork;
#[path = "../../bindings/c/src/iter.rs"]
mod iter;
#[path = "../../bindings/c/src/load.rs"]
mod load;
#[path = "../../bindings/c/src/memory.rs"]
mod memory;
#[path = "../../bindings/c/src/options.rs"]
mod options;
#[path = "../../bindings/c/src/read.rs"]
mod read;
#[path = "../../bindings/c/src/reply.rs"]
mod reply;
#[path = "../../bindings/c/src/strings.rs"]
mod strings;
#[path = "../../bindings/c/src/thread.rs"]
mod thread;
#[path = "../../bindings/c/src/ticker.rs"]
mod ticker;
#[path = "../../bindings/c/src/ttl.rs"]
mod ttl;
#[path = "../../bindings/c/src/types.rs"]
mod types;
#[path = "../../bindings/c/src/write.rs"]
mod write;

use cache::hotset_cache;
use reply::{hotset_compute_fn, hotset_loader_fn, hotset_reply};
use types::*;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Which of the two bounds there are; mostly one.
    bounds: u8,
    max_entries: u16,
    max_bytes: u32,
    policy: i8,
    ttl_ms: u16,
    tti_ms: u16,
    jitter: u8,
    /// Which of destructor, listener and clock there are.
    callbacks: u8,
    /// Of the structure, more or less than it is.
    size: i8,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
struct Call {
    which: u8,
    key: Bytes,
    value: Bytes,
    ttl: u16,
    number: i64,
    /// Which pointers are null.
    nulls: u8,
    answer: u8,
}

#[derive(Arbitrary, Debug)]
enum Bytes {
    Few(u8),
    Some(Vec<u8>),
}

impl Bytes {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Few(byte) => vec![byte % 16],
            Self::Some(bytes) => bytes.clone(),
        }
    }
}

/// What callbacks see.
struct World {
    now: u64,
    made: u64,
    destroyed: HashSet<u64>,
    removed: u64,
    cache: *mut hotset_cache,
}

/// What a callback is to answer.
struct Plan<'w> {
    world: &'w mut World,
    key: Vec<u8>,
    value: Vec<u8>,
    ttl: u64,
    answer: u8,
}

/// A value that identifies itself and its key, so that readers can check it: `number 8 | length of
/// the key 2 | key | rest`.
fn value_of(world: &mut World, key: &[u8], rest: &[u8]) -> Vec<u8> {
    world.made += 1;
    let mut value = world.made.to_le_bytes().to_vec();
    value.extend((key.len() as u16).to_le_bytes());
    value.extend(key);
    value.extend(rest);
    value
}

fn check_value(value: &[u8], key: &[u8]) {
    // Counters are eight bytes.
    if value.len() != 8 {
        let len = usize::from(u16::from_le_bytes([value[8], value[9]]));
        assert_eq!((len, &value[10..10 + len]), (key.len(), key), "another key's value");
    }
}

unsafe extern "C" fn destroy(arg: *mut c_void, value: *mut c_void, len: usize) {
    // SAFETY: `arg` is the world, the value is alive.
    let (world, value) = unsafe { (&mut *arg.cast::<World>(), slice(value, len)) };
    if value.len() != 8 {
        let number = u64::from_le_bytes(value[..8].try_into().unwrap());
        assert!(
            number <= world.made && world.destroyed.insert(number),
            "destroyed twice"
        );
    }
}

unsafe extern "C" fn removed(
    arg: *mut c_void,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    len: usize,
    _: hotset_cause,
) {
    // SAFETY: as above.
    let (world, key, value) = unsafe { (&mut *arg.cast::<World>(), slice(key, key_len), slice(value, len)) };
    check_value(value, key);
    world.removed += 1;
}

unsafe extern "C" fn clock(arg: *mut c_void) -> u64 {
    // SAFETY: as above.
    unsafe { (*arg.cast::<World>()).now }
}

unsafe extern "C" fn compute(arg: *mut c_void, current: *const hotset_slice, reply: *mut hotset_reply) -> Status {
    // SAFETY: `arg` is the plan; `current` is null or valid.
    let (plan, current) = unsafe { (&mut *arg.cast::<Plan<'_>>(), current.as_ref()) };
    if let Some(current) = current {
        // SAFETY: as the header documents.
        check_value(unsafe { slice(current.data, current.len) }, &plan.key);
    }
    answer(plan, reply)
}

unsafe extern "C" fn load(arg: *mut c_void, key: *const c_void, key_len: usize, reply: *mut hotset_reply) -> Status {
    // SAFETY: as above.
    let (plan, key) = unsafe { (&mut *arg.cast::<Plan<'_>>(), slice(key, key_len)) };
    assert_eq!(key, plan.key);
    answer(plan, reply)
}

fn answer(plan: &mut Plan<'_>, reply: *mut hotset_reply) -> Status {
    // SAFETY: during the callback; the cache is open.
    unsafe {
        if plan.answer & 1 != 0 {
            let value = value_of(plan.world, &plan.key, &plan.value);
            known(reply::hotset_reply_set(
                reply,
                value.as_ptr().cast(),
                value.len(),
                plan.ttl,
            ));
        }
        if plan.answer & 2 != 0 {
            known(reply::hotset_reply_remove(reply));
        }
        if plan.answer & 4 != 0 {
            // Calls back, to the same cache and perhaps the same key.
            let key = [plan.answer % 16];
            let (cache, mut found) = (plan.world.cache, ptr::null_mut());
            known(basic::hotset_get(cache, key.as_ptr().cast(), 1, &mut found));
            if !found.is_null() {
                known(basic::hotset_release(found));
            }
            assert_ne!(
                basic::hotset_close(cache),
                hotset_status::HOTSET_OK.into(),
                "from inside"
            );
        }
    }
    // Any number may come from there.
    Status(if plan.answer & 8 != 0 {
        i32::from(plan.answer) - 128
    } else {
        0
    })
}

/// # Safety
/// `data` is not null and points to `len` readable bytes.
unsafe fn slice<'a>(data: *const c_void, len: usize) -> &'a [u8] {
    assert!(!data.is_null());
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data.cast(), len) }
}

fn known(status: Status) -> bool {
    assert_ne!(status, hotset_status::HOTSET_PANIC.into());
    status == hotset_status::HOTSET_OK.into()
}

/// Reads a handle through all that there is for it.
///
/// # Safety
/// The handle is held.
unsafe fn look(handle: *mut hotset_value, key: Option<&[u8]>) {
    let (mut data, mut len, mut version) = (ptr::null(), 0, 0);
    // SAFETY: the caller's promise.
    unsafe {
        assert!(known(read::hotset_value_key(handle, &mut data, &mut len)));
        let own = slice(data, len);
        assert!(key.is_none_or(|key| key == own));
        assert!(known(basic::hotset_value_data(handle, &mut data, &mut len)));
        check_value(slice(data, len), own);
        assert!(known(read::hotset_value_version(handle, &mut version)));
    }
}

fuzz_target!(|input: Input| {
    let mut world = World {
        now: 1,
        made: 0,
        destroyed: HashSet::new(),
        removed: 0,
        cache: ptr::null_mut(),
    };
    let arg = (&raw mut world).cast::<c_void>();
    let mut options = hotset_options {
        max_entries: if input.bounds % 8 < 5 {
            input.max_entries.into()
        } else {
            0
        },
        max_bytes: if input.bounds % 8 > 3 {
            input.max_bytes.into()
        } else {
            0
        },
        // Mostly one that there is, and settings that can be.
        policy: Policy((input.policy % 6).into()),
        ttl_ms: input.ttl_ms.into(),
        tti_ms: input.tti_ms.into(),
        jitter: f64::from(input.jitter % 110) / 100.0 - 0.05,
        ..hotset_options::DEFAULT
    };
    if input.callbacks & 1 != 0 {
        options.destructor = Some(destroy);
        options.destructor_arg = arg;
    }
    if input.callbacks & 2 != 0 {
        options.on_removal = Some(removed);
        options.on_removal_arg = arg;
    }
    if input.callbacks & 4 != 0 {
        options.clock = Some(clock);
        options.clock_arg = arg;
    }
    // (Larger ones would be read beyond the end here.)
    options.size = options
        .size
        .saturating_add_signed(isize::from((input.size / 32).min(0)));
    let mut cache = ptr::null_mut();
    // SAFETY: the options are there.
    if !known(unsafe { basic::hotset_open(&options, &mut cache) }) {
        assert!(cache.is_null());
        return;
    }
    world.cache = cache;
    let (mut held, mut walks) = (Vec::new(), Vec::new());
    for call in &input.calls {
        // SAFETY: pointers are null, or valid as the header requires; handles are held, the cache
        // is open.
        unsafe { one(call, &mut world, &mut held, &mut walks) };
    }
    let close_first = input.callbacks & 8 != 0;
    let close = || {
        // SAFETY: it is open, and no other thread uses it.
        assert!(known(unsafe { basic::hotset_close(cache) }));
        let key = [1u8];
        // SAFETY: a call on a closed cache returns an error.
        let late = unsafe { read::hotset_contains(cache, key.as_ptr().cast(), 1) };
        assert_eq!(late, hotset_status::HOTSET_CLOSED.into());
    };
    // SAFETY: each was opened.
    walks
        .into_iter()
        .for_each(|walk| assert!(known(unsafe { iter::hotset_iter_close(walk) })));
    if close_first {
        close();
    }
    for handle in held {
        // SAFETY: each is held once, and outlives the cache.
        unsafe {
            look(handle, None);
            assert!(known(basic::hotset_release(handle)));
        }
    }
    if !close_first {
        close();
    }
});

/// # Safety
/// The world's cache is open, and what is held is.
unsafe fn one(
    call: &Call,
    world: &mut World,
    held: &mut Vec<*mut hotset_value>,
    walks: &mut Vec<*mut iter::hotset_iter>,
) {
    let (cache, key_bytes) = (world.cache, call.key.bytes());
    let value_bytes = value_of(world, &key_bytes, &call.value.bytes());
    let null = |bit: u8| call.nulls >> bit & 1 != 0 && call.nulls & 0x80 != 0;
    let at = if null(0) { ptr::null_mut() } else { cache };
    let key: *const c_void = if null(1) {
        ptr::null()
    } else {
        key_bytes.as_ptr().cast()
    };
    let value: *const c_void = if null(2) {
        ptr::null()
    } else {
        value_bytes.as_ptr().cast()
    };
    let (key_len, len) = (key_bytes.len(), value_bytes.len());
    let ttl = match call.ttl {
        0xffff => u64::MAX,
        0xfffe => u64::MAX - 1,
        ttl => ttl.into(),
    };
    let mut found = ptr::null_mut();
    let out = if null(3) { ptr::null_mut() } else { &raw mut found };
    let (mut number, mut sum, mut size) = (0u64, 0i64, 0usize);
    // SAFETY: the caller's promise, and what was put together above.
    unsafe {
        match call.which % 25 {
            0..3 => _ = known(basic::hotset_put(at, key, key_len, value, len)),
            3 => _ = known(write::hotset_put_ttl(at, key, key_len, value, len, ttl)),
            4 => _ = known(write::hotset_put_if_absent(at, key, key_len, value, len, ttl, out)),
            5..7 => _ = known(basic::hotset_get(at, key, key_len, out)),
            7 => {
                let mut bytes = hotset_bytes {
                    data: ptr::null(),
                    len: 0,
                    handle: ptr::null_mut(),
                };
                let out = if null(3) { ptr::null_mut() } else { &raw mut bytes };
                if known(read::hotset_get_bytes(at, key, key_len, out)) {
                    check_value(slice(bytes.data, bytes.len), &key_bytes);
                    found = bytes.handle;
                }
            }
            8 => {
                let mut buffer = vec![0u8; (call.ttl % 64).into()];
                let status =
                    read::hotset_get_copy(at, key, key_len, buffer.as_mut_ptr().cast(), buffer.len(), &mut size);
                if known(status) {
                    check_value(&buffer[..size], &key_bytes);
                }
            }
            9 => {
                let keys: Vec<_> = (0..u8::try_from(call.ttl % 80).unwrap()).map(|n| [n % 16]).collect();
                let slices: Vec<_> = keys
                    .iter()
                    .map(|key| hotset_slice {
                        data: key.as_ptr().cast(),
                        len: 1,
                    })
                    .collect();
                let mut values = vec![ptr::null_mut(); keys.len()];
                if known(read::hotset_get_many(
                    at,
                    slices.as_ptr(),
                    slices.len(),
                    values.as_mut_ptr(),
                    &mut size,
                )) {
                    assert_eq!(values.iter().filter(|value| !value.is_null()).count(), size);
                    for (value, key) in values.into_iter().zip(&keys).filter(|(value, _)| !value.is_null()) {
                        look(value, Some(key));
                        held.push(value);
                    }
                }
            }
            10 => _ = known(read::hotset_contains(at, key, key_len)),
            11 => _ = known(read::hotset_remaining(at, key, key_len, &mut number)),
            12 => _ = known(write::hotset_remove(at, key, key_len)),
            13 => _ = known(write::hotset_take(at, key, key_len, out)),
            14 => {
                let mut version = call.number as u64;
                if known(basic::hotset_get(at, key, key_len, out)) && !found.is_null() {
                    known(read::hotset_value_version(found, &mut version));
                }
                known(compute::hotset_cas(at, key, key_len, version, value, len, ttl));
            }
            15 => {
                let sum = if null(3) { ptr::null_mut() } else { &raw mut sum };
                known(compute::hotset_add(at, key, key_len, call.number, ttl, sum));
            }
            16 | 17 => {
                let (answer, value) = (call.answer, call.value.bytes());
                let mut plan = Plan {
                    world,
                    key: key_bytes.clone(),
                    value,
                    ttl,
                    answer,
                };
                let arg = (&raw mut plan).cast();
                if call.which % 25 == 16 {
                    let compute: hotset_compute_fn = if null(4) { None } else { Some(compute) };
                    compute::hotset_compute(at, key, key_len, compute, arg, out);
                } else {
                    let load: hotset_loader_fn = if null(4) { None } else { Some(load) };
                    load::hotset_get_or_load(at, key, key_len, load, arg, out);
                }
            }
            18 => {
                let mut walk = ptr::null_mut();
                if known(iter::hotset_iter_open(at, &mut walk)) {
                    walks.push(walk);
                }
            }
            19 => {
                if let Some(walk) = walks.last() {
                    known(iter::hotset_iter_next(*walk, out));
                } else {
                    assert!(!known(iter::hotset_iter_next(ptr::null_mut(), out)));
                }
            }
            20 => {
                if let Some(walk) = walks.pop() {
                    assert!(known(iter::hotset_iter_close(walk)));
                }
            }
            21 => {
                let mut stats = hotset_stats_data::default();
                known(admin::hotset_stats(at, &mut stats, size_of_val(&stats)));
                known(admin::hotset_len(at, &mut number));
                known(admin::hotset_weight(at, &mut number));
                known(admin::hotset_capacity(at, &mut number));
            }
            22 => match call.answer % 4 {
                0 => _ = known(admin::hotset_clear(at)),
                1 => _ = known(admin::hotset_set_capacity(at, call.ttl.into())),
                _ => _ = known(admin::hotset_run_pending(at)),
            },
            23 => world.now = world.now.wrapping_add(u64::from(call.ttl) << (call.answer % 48)),
            _ => {
                let text = strings::hotset_strerror(Status(call.number as i32));
                assert!(!std::ffi::CStr::from_ptr(text).is_empty());
                if let Some(handle) = held.last()
                    && known(read::hotset_retain(*handle))
                {
                    held.push(*handle);
                }
                if let Some(handle) = held.pop() {
                    look(handle, None);
                    assert!(known(basic::hotset_release(handle)));
                }
                assert!(!known(basic::hotset_release(ptr::null_mut())));
            }
        }
        if !found.is_null() {
            let walked = call.which % 25 == 19;
            look(found, (!walked).then_some(&key_bytes[..]));
            held.push(found);
        }
    }
}
