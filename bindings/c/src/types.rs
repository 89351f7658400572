//! Types that the header declares. The comments of this file are the header's.
//!
//! An enum that C passes is read as an integer ([`Status`], [`Policy`]): C may put any number
//! there.

use libc::{c_char, c_void};

/// Result of a call. HOTSET_OK is 0; every other status is nonzero.
///
/// hotset never returns statuses from 1000 on: they are for your own callbacks.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // Some are for callbacks to return.
pub enum hotset_status {
    /// Success.
    HOTSET_OK = 0,
    /// The key is absent or expired; the iteration has ended; the loader had no value.
    HOTSET_NOT_FOUND = 1,
    /// hotset_put_if_absent: the key is present, and its entry is unchanged.
    HOTSET_EXISTS = 2,
    /// hotset_cas: the entry has another version.
    HOTSET_CONFLICT = 3,
    /// An invalid argument: a NULL, a bad size, contradicting options.
    HOTSET_INVALID = 4,
    /// A key of 4 GiB or more; a key and value that together exceed the address space.
    HOTSET_TOO_LARGE = 5,
    /// Memory was refused. Nothing has changed.
    HOTSET_NO_MEMORY = 6,
    /// For loaders without a more precise status.
    HOTSET_LOAD_FAILED = 7,
    /// A loader requested the key that it was loading, directly or through loaders of other threads
    /// that wait for each other; or a callback closed the cache, or used the iterator, that had
    /// called it.
    HOTSET_REENTRANT = 8,
    /// The cache was closed. (See hotset_close for how many closed caches are recognized.)
    HOTSET_CLOSED = 9,
    /// The cache was opened before a fork, and this is the child, which may open caches of its own.
    HOTSET_FORKED = 10,
    /// hotset_add: the entry is not a counter: its value is not 8 bytes long.
    HOTSET_NOT_A_NUMBER = 11,
    /// hotset_add: the sum exceeds 64 bits; hotset_retain: more than 2^31 handles. Nothing has
    /// changed.
    HOTSET_OVERFLOW = 12,
    /// A defect in hotset: a panic was caught at the FFI boundary. Its text was written to stderr.
    /// The cache can still be used.
    HOTSET_PANIC = 13,
    /// The caller's buffer is too small; the required length was stored.
    HOTSET_BUFFER_TOO_SMALL = 14,
    /// The operating system refused the ticker's thread, or a file operation; errno has the reason.
    HOTSET_IO = 15,
    /// hotset_close: iterators of the cache are still open. Close them first; the cache is
    /// unchanged.
    HOTSET_BUSY = 16,
    /// hotset_load: not a snapshot: a directory, a pipe, a file that begins otherwise. hotset_save:
    /// the path is not that of a file.
    HOTSET_NOT_A_SNAPSHOT = 17,
    /// hotset_load: the snapshot is corrupt or incomplete.
    HOTSET_CORRUPT = 18,
    /// hotset_load: the snapshot has another version of the format, another schema, or does not
    /// hold bytes.
    HOTSET_INCOMPATIBLE = 19,
    /// A change of a cache with a second tier: the server has not confirmed it. The change is made
    /// in this process, and is made on the server once it answers.
    HOTSET_UNCONFIRMED = 20,
}

/// Eviction policy: the entry that makes room for others.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum hotset_policy {
    /// By frequency and recency: the best for nearly all programs. A scan does not flush it.
    HOTSET_POLICY_WTINYLFU = 0,
    /// The least recently used entry.
    HOTSET_POLICY_LRU = 1,
    /// The least frequently used entry.
    HOTSET_POLICY_LFU = 2,
    /// The entry that was inserted first.
    HOTSET_POLICY_FIFO = 3,
    /// A random entry.
    HOTSET_POLICY_RANDOM = 4,
}

/// Cause of a removal.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum hotset_cause {
    /// It had expired.
    HOTSET_REMOVED_EXPIRED = 0,
    /// It was evicted, or never admitted, to keep the cache within its capacity.
    HOTSET_REMOVED_SIZE = 1,
    /// It was removed by hotset_remove, hotset_take, hotset_compute or hotset_clear.
    HOTSET_REMOVED_EXPLICIT = 2,
    /// It was replaced by another value.
    HOTSET_REMOVED_REPLACED = 3,
}

/// A status as it comes from C: any number. In the header it is `hotset_status`.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub i32);

impl From<hotset_status> for Status {
    #[inline]
    fn from(status: hotset_status) -> Self {
        Self(status as i32)
    }
}

/// A policy as it comes from C. In the header it is `hotset_policy`.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy(pub i32);

/// Handle to one entry as it was when it was read: its key, its value and its version, all
/// immutable.
///
/// It is the caller's until it is passed to hotset_release. Until then its bytes stay valid, also
/// after the entry has left the cache and after the cache was closed. Any thread may use or release
/// it. A handle holds its memory, which the cache does not count once the entry has left.
pub struct hotset_value {
    _opaque: [u8; 0],
}

/// Bytes that the holder does not own. `data` may be NULL if `len` is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_slice {
    /// Their address.
    pub data: *const c_void,
    /// Their number.
    pub len: usize,
}

/// A value that was read, and the handle that keeps its bytes valid. Release `handle` after the
/// last use of `data`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_bytes {
    /// The value's bytes: never NULL where the key was found, even if `len` is 0. Aligned to 8.
    pub data: *const c_void,
    /// Their number.
    pub len: usize,
    /// For hotset_release.
    pub handle: *mut hotset_value,
}

/// Removal listener: called once for every entry that leaves the cache. The bytes are valid during
/// the call.
///
/// Runs in the call that removed the entry, or on the ticker's thread, under no lock, and in
/// several threads concurrently. Entries that are in a cache when it is closed are not reported.
pub type hotset_removal_fn = Option<
    unsafe extern "C" fn(
        arg: *mut c_void,
        key: *const c_void,
        key_len: usize,
        value: *const c_void,
        value_len: usize,
        cause: hotset_cause,
    ),
>;

/// Destructor: called when a value's memory is about to be freed, after its entry has left the
/// cache and its last handle was released. For values that are, or hold, pointers to memory of the
/// program. `value` may be written to. The preamble has the rules of ownership.
///
/// Runs on the thread that releases the value last: in any call on the cache, in hotset_release, in
/// hotset_close, on the ticker's thread; under no lock.
pub type hotset_destructor_fn = Option<unsafe extern "C" fn(arg: *mut c_void, value: *mut c_void, value_len: usize)>;

/// Clock: returns the nanoseconds since a fixed instant. Called by any thread, often more than once
/// per call. It must be monotonic, and must not call hotset.
pub type hotset_clock_fn = Option<unsafe extern "C" fn(arg: *mut c_void) -> u64>;

/// Progress of hotset_save: called every few hundred kilobytes, and at the end, with `done` equal
/// to `total`. Runs on the saving thread, under no lock.
pub type hotset_progress_fn = Option<unsafe extern "C" fn(arg: *mut c_void, done: u64, total: u64)>;

/// Options of hotset_save and hotset_load. Initialize it with hotset_snapshot_options_init, then
/// change fields.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_snapshot_options {
    /// The size of this struct, set by hotset_snapshot_options_init.
    pub size: usize,
    /// A number of your own for the meaning of keys and values: a file is loaded only with the
    /// schema that it was saved with.
    pub schema: u64,
    /// For hotset_load. Not 0: checks the whole file, and restores all entries before the call
    /// returns.
    pub eager: u32,
    /// For hotset_load. Not 0: reads the file into memory and checks all of it, instead of mapping
    /// it.
    pub copy: u32,
    /// For hotset_save. NULL: none.
    pub progress: hotset_progress_fn,
    /// First argument of progress.
    pub progress_arg: *mut c_void,
}

/// Options of a cache. Initialize it with hotset_options_init, then change fields.
///
/// hotset_open copies it. What the `.._arg` pointers point to must stay valid until hotset_close
/// has returned, and for the destructor until the last handle is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_options {
    /// The size of this struct, set by hotset_options_init: the fields that the program knows.
    pub size: usize,
    /// Capacity in entries. 0: not bounded in entries. Set this or max_bytes; with neither,
    /// max_bytes is 64 MiB.
    pub max_entries: u64,
    /// Capacity in bytes of real memory. Of each entry it counts key and value, and the overhead of
    /// library and malloc: about 140 bytes; with a time to live 24 more, with a time to idle 40
    /// more. Tables grow by doubling, so the real memory may be a tenth more, or a seventh less;
    /// briefly a quarter more, while large values are inserted and the entries that they displaced
    /// wait to be freed. Not counted: the 24 bytes of entries with a TTL of their own only, and
    /// what handles hold after their entry has left. 0: not bounded in bytes.
    pub max_bytes: u64,
    /// Eviction policy.
    pub policy: Policy,
    /// 1: the cache simulates itself at other sizes, for hotset_advise. A lookup or a change of a
    /// sampled key then takes longer, and the simulation takes about 1.5 MB. 0: it does not.
    pub profile: u32,
    /// With autosize_target, the cache profiles itself, and sets its capacity between these two, in
    /// the unit of max_entries or max_bytes. The capacity above, with which it begins, must lie
    /// between them. 0: it keeps its capacity.
    pub autosize_low: u64,
    /// See autosize_low.
    pub autosize_high: u64,
    /// The cache approaches the smallest capacity that gives this share, above 0 and at most 1, of
    /// the hits of a cache without a bound: 0.95 for 95% of them. 0: it keeps its capacity.
    pub autosize_target: f64,
    /// Time to live: milliseconds until an entry expires, counted from its put. 0: never.
    pub ttl_ms: u64,
    /// Time to idle: milliseconds until an entry expires, counted from its last put or hit. 0:
    /// never.
    pub tti_ms: u64,
    /// Subtracts a random part, of up to this fraction, from every time to live, so that entries
    /// that were loaded together do not expire together. From 0 to below 1.
    pub jitter: f64,
    /// Starts a thread that performs maintenance at this interval in milliseconds: see Ticker in
    /// the preamble. 0: no thread.
    pub ticker_ms: u64,
    /// Removal listener. NULL: none.
    pub on_removal: hotset_removal_fn,
    /// First argument of on_removal.
    pub on_removal_arg: *mut c_void,
    /// Destructor of values. NULL: none.
    pub destructor: hotset_destructor_fn,
    /// First argument of destructor.
    pub destructor_arg: *mut c_void,
    /// Clock. NULL: the system's monotonic clock.
    pub clock: hotset_clock_fn,
    /// First argument of clock.
    pub clock_arg: *mut c_void,
}

/// Why the advice of hotset_advise knows too little.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum hotset_doubt {
    /// It knows enough.
    HOTSET_DOUBT_NONE = 0,
    /// There were too few lookups of sampled keys: call again after more traffic.
    HOTSET_DOUBT_FEW_LOOKUPS = 1,
    /// The simulated caches hold too few entries: these are heavy compared with the capacity.
    HOTSET_DOUBT_FEW_ENTRIES = 2,
    /// More than one sample in twenty was lost under load: call again at a quieter time.
    HOTSET_DOUBT_LOST_SAMPLES = 3,
}

/// The most sizes that hotset_advise estimates.
pub const HOTSET_ADVICE_POINTS: usize = 8;

/// The size of the text of hotset_advise, with its NUL.
pub const HOTSET_ADVICE_TEXT: usize = 320;

/// The estimated hit ratio of a cache at one size.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct hotset_advice_point {
    /// The size as a multiple of the cache's capacity.
    pub factor: f64,
    /// The capacity, in the unit of hotset_capacity.
    pub capacity: u64,
    /// The share of lookups that would be hits, from 0 to 1. At factor 1 it is the measured one.
    pub hit_ratio: f64,
    /// Memory in bytes. With max_entries: of the entries without their keys and values.
    pub bytes: u64,
}

/// The hit ratio of a cache at other sizes, and what to do about it: see hotset_advise.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_advice {
    /// As hotset_capacity.
    pub capacity: u64,
    /// The number of lookups since profiling began, or since the simulations were filled after a
    /// change of the capacity. With autosize_target, those before each decision count half.
    pub lookups: u64,
    /// The measured hit ratio of these lookups.
    pub hit_ratio: f64,
    /// The share of the keys that is simulated at the cache's own size, from 0 to 1. Larger sizes
    /// are simulated with a smaller share, smaller ones with a larger share.
    pub sample: f64,
    /// The hit ratio of a cache without a bound. NaN if it is not known, and where entries expire.
    pub unbounded: f64,
    /// The hit ratio that the best possible policy would have at this capacity. NaN with max_bytes,
    /// and where entries expire.
    pub optimum: f64,
    /// The hit ratio that the policy adds to that of LRU. NaN if it is LRU.
    pub over_lru: f64,
    /// The hit ratio that a tenth more capacity adds.
    pub tenth_more: f64,
    /// The capacity that gives 95% of the hits of a cache without a bound, or, where that is not
    /// known, of the largest size in `points`. 0 if no size in `points` does.
    pub enough: u64,
    /// A hotset_doubt: the reason for which the other fields cannot be trusted, if there is one.
    pub doubt: u32,
    /// The number of elements of `points` that are set.
    pub point_count: u32,
    /// The estimates, ascending.
    pub points: [hotset_advice_point; HOTSET_ADVICE_POINTS],
    /// The advice as sentences for a person, in ASCII, with a NUL.
    pub text: [c_char; HOTSET_ADVICE_TEXT],
}

/// The number of buckets of the histogram of the durations of loads.
pub const HOTSET_LOAD_BUCKETS: usize = 23;

/// A bucket of the histogram of the durations of loads.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct hotset_load_bucket {
    /// Upper bound in nanoseconds, which belongs to the bucket; UINT64_MAX in the last bucket.
    pub upper_ns: u64,
    /// Number of loads that took at most `upper_ns`, and longer than the bound of the bucket
    /// before. Not cumulative.
    pub count: u64,
}

/// Statistics of a cache since it was opened. Counts may lag behind calls in progress.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct hotset_stats_data {
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Entries that were inserted, replacements included.
    pub insertions: u64,
    /// Entries that had been admitted and were removed to make room.
    pub evictions: u64,
    /// Entries that were removed because they had expired.
    pub expirations: u64,
    /// New entries that were not admitted: they lost against a resident entry, or were heavier than
    /// the capacity.
    pub rejections: u64,
    /// Loaders that returned a value.
    pub loads: u64,
    /// Loaders that failed, or had no value.
    pub load_failures: u64,
    /// Calls that waited for another caller's load of the same key.
    pub waits: u64,
    /// The time spent in loaders, in nanoseconds.
    pub load_time_ns: u64,
    /// As hotset_len.
    pub entries: u64,
    /// As hotset_weight.
    pub weight: u64,
    /// As hotset_capacity.
    pub capacity: u64,
    /// The weight of the entries that `evictions` counts, in the unit of the capacity.
    pub evicted_weight: u64,
    /// The durations of the loads that `loads` and `load_failures` count. The bounds are the same
    /// for all caches: 1, 2.5 and 5 in each power of ten from 10 microseconds to 100 seconds.
    pub load_buckets: [hotset_load_bucket; HOTSET_LOAD_BUCKETS],
}
