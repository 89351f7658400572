//! `Cache::get` in a loop, for `benches/c/reads.c`: the same keys and values as it gives to C.

use hotset::Cache;
use std::sync::Arc;

/// A key, as C hands it over.
#[repr(C)]
pub struct Key {
    data: *const u8,
    len: usize,
}

impl Key {
    /// # Safety
    /// `data` must point to `len` bytes that live as long as the result.
    unsafe fn bytes<'a>(&self) -> &'a [u8] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

type Bytes = Cache<Box<[u8]>, Arc<[u8]>>;

/// A cache that holds all the keys, each with `value_len` bytes. It lives until the program ends.
///
/// # Safety
/// `keys` must point to `count` valid keys.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rust_fill(keys: *const Key, count: usize, value_len: usize) -> *const Bytes {
    let cache = Bytes::new(count * 2);
    // SAFETY: the caller's promise.
    for key in unsafe { std::slice::from_raw_parts(keys, count) } {
        // SAFETY: the keys are valid, by the caller's promise.
        cache.insert(unsafe { key.bytes() }.into(), vec![b'v'; value_len].into());
    }
    Box::leak(Box::new(cache))
}

/// Gets the keys in the order of `picks`, and returns how many were there.
///
/// # Safety
/// `cache` comes from `rust_fill`; `keys` holds every index in `picks`, which holds `count` of
/// them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rust_gets(cache: *const Bytes, keys: *const Key, picks: *const u32, count: usize) -> usize {
    // SAFETY: the caller's promise.
    let (cache, picks) = unsafe { (&*cache, std::slice::from_raw_parts(picks, count)) };
    let mut found = 0;
    for &pick in picks {
        // SAFETY: the caller's promise: `keys` holds the index, and the key is valid.
        let key = unsafe { (*keys.add(pick as usize)).bytes() };
        if let Some(value) = cache.get(key) {
            found += usize::from(value[0] == b'v' && value[value.len() - 1] == b'v');
        }
    }
    found
}
