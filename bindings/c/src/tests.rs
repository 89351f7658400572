//! For Miri, under both borrow models: the accesses of the C programs in `tests` to memory that C
//! and the library share. (They find wrong results; Miri finds undefined behavior.)

use crate::admin::*;
use crate::basic::*;
use crate::compute::*;
use crate::iter::*;
use crate::load::*;
use crate::read::*;
use crate::reply::*;
use crate::types::*;
use libc::c_void;
use std::ptr;

const OK: Status = Status(0);

fn open(options: Option<hotset_options>) -> *mut crate::cache::hotset_cache {
    let mut cache = ptr::null_mut();
    let options = options.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: valid arguments.
    assert_eq!(unsafe { hotset_open(options, &mut cache) }, OK);
    cache
}

fn options() -> hotset_options {
    let mut options = hotset_options::DEFAULT;
    let size = size_of::<hotset_options>();
    // SAFETY: valid arguments.
    assert_eq!(unsafe { hotset_options_init(&mut options, size) }, OK);
    options.max_entries = 8;
    options
}

fn put(cache: *mut crate::cache::hotset_cache, key: u64) {
    let bytes = key.to_ne_bytes();
    let at = bytes.as_ptr().cast();
    // SAFETY: valid arguments.
    assert_eq!(unsafe { hotset_put(cache, at, 8, at, 8) }, OK);
}

/// Where a call puts its result; callbacks read it while the call runs.
struct Shared {
    value: *mut hotset_value,
    calls: u32,
}

unsafe extern "C" fn load(arg: *mut c_void, key: *const c_void, len: usize, reply: *mut hotset_reply) -> Status {
    // SAFETY: the argument is a `Shared`, to which there are only raw pointers during the call.
    unsafe {
        let shared = arg.cast::<Shared>();
        assert!((*shared).value.is_null());
        (*shared).calls += 1;
        hotset_reply_set(reply, key, len, 0)
    }
}

unsafe extern "C" fn compute(arg: *mut c_void, current: *const hotset_slice, reply: *mut hotset_reply) -> Status {
    // SAFETY: as above; `current` is NULL or valid.
    unsafe {
        let shared = arg.cast::<Shared>();
        assert!((*shared).value.is_null());
        match current.as_ref() {
            None => hotset_reply_set(reply, c"new".as_ptr().cast(), 3, 0),
            Some(slice) => {
                assert_eq!(hotset_reply_set(reply, slice.data, slice.len, 0), OK);
                hotset_reply_remove(reply)
            }
        }
    }
}

unsafe extern "C" fn destroy(arg: *mut c_void, value: *mut c_void, len: usize) {
    // SAFETY: the value is the destructor's; the argument is a number.
    unsafe {
        value.cast::<u8>().write_bytes(0, len);
        *arg.cast::<u32>() += 1;
    }
}

#[test]
fn closed_caches_are_refused_and_then_freed() {
    let caches: Vec<_> = (0..10).map(|_| open(None)).collect();
    for cache in &caches {
        put(*cache, 1);
        // SAFETY: it is open, and then remembered.
        unsafe {
            assert_eq!(hotset_close(*cache), OK);
            assert_eq!(hotset_close(*cache), hotset_status::HOTSET_CLOSED.into());
            assert_eq!(hotset_clear(*cache), hotset_status::HOTSET_CLOSED.into());
        }
    }
}

#[test]
fn results_may_be_read_by_callbacks() {
    let cache = open(Some(options()));
    let mut shared = Shared {
        value: ptr::null_mut(),
        calls: 0,
    };
    let shared = &raw mut shared;
    let (key, arg) = (7u64.to_ne_bytes(), shared.cast());
    let at: *const c_void = key.as_ptr().cast();
    // SAFETY: valid arguments.
    unsafe {
        let out = &raw mut (*shared).value;
        for _ in 0..2 {
            assert_eq!(hotset_get_or_load(cache, at, 8, Some(load), arg, out), OK);
            assert_eq!(hotset_release(*out), OK);
            *out = ptr::null_mut();
        }
        assert_eq!((*shared).calls, 1);
        for key in [1, 1, 2] {
            assert_eq!(
                hotset_compute(cache, (&raw const key).cast(), 4, Some(compute), arg, out),
                OK
            );
            if !(*out).is_null() {
                assert_eq!(hotset_release(*out), OK);
            }
            *out = ptr::null_mut();
        }
        assert_eq!(hotset_close(cache), OK);
    }
}

#[test]
fn entries_are_read_iterated_and_destroyed() {
    let mut destroyed = 0;
    let mut options = options();
    options.destructor = Some(destroy);
    options.destructor_arg = (&raw mut destroyed).cast();
    let cache = open(Some(options));
    (0..20).for_each(|key| put(cache, key));
    let numbers: [u64; 70] = std::array::from_fn(|n| n as u64);
    let slices = numbers.each_ref().map(|number| hotset_slice {
        data: ptr::from_ref(number).cast(),
        len: 8,
    });
    let mut values = [ptr::null_mut(); 70];
    let mut found = 0;
    // SAFETY: valid arguments.
    unsafe {
        assert_eq!(
            hotset_get_many(cache, slices.as_ptr(), 70, values.as_mut_ptr(), &mut found),
            OK
        );
        assert!(found > 0 && found <= 8);
        for value in values.into_iter().filter(|value| !value.is_null()) {
            let (mut data, mut len) = (ptr::null(), 0);
            assert_eq!(hotset_value_data(value, &mut data, &mut len), OK);
            assert!(!data.is_null() && len == 8);
            assert_eq!(hotset_release(value), OK);
        }
        let mut buffer = std::mem::MaybeUninit::<[u8; 8]>::uninit();
        let (mut len, mut absent) = (0, 0);
        for number in &numbers {
            let at = ptr::from_ref(number).cast();
            absent += u32::from(hotset_get_copy(cache, at, 8, buffer.as_mut_ptr().cast(), 8, &mut len) != OK);
        }
        assert_eq!(absent as usize, 70 - found);
        let (mut iter, mut value) = (ptr::null_mut(), ptr::null_mut());
        assert_eq!(hotset_iter_open(cache, &mut iter), OK);
        while hotset_iter_next(iter, &mut value) == OK {
            assert_eq!(hotset_release(value), OK);
        }
        assert_eq!(hotset_iter_close(iter), OK);
        assert_eq!(hotset_close(cache), OK);
    }
    assert_eq!(destroyed, 20);
}
