//! What the header declares besides functions. The comments of this file are the header's.
//!
//! An enum that C hands over is read as an integer ([`Status`], [`Policy`]): C may put any number there.

use libc::c_void;

/// What a call came to. HOTSET_OK is 0, and everything else is not.
///
/// Statuses from 1000 on are never made by hotset: they are for your own callbacks to return.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // Some are for callbacks to return.
pub enum hotset_status {
    /// It is done.
    HOTSET_OK = 0,
    /// The key is not in the cache; the iteration is at its end; the loader had no value.
    HOTSET_NOT_FOUND = 1,
    /// hotset_put_if_absent: the key is in the cache, and was left as it is.
    HOTSET_EXISTS = 2,
    /// hotset_cas: the entry has another version.
    HOTSET_CONFLICT = 3,
    /// An argument cannot be right: a NULL, a bad size, an option that makes no sense.
    HOTSET_INVALID = 4,
    /// A key of 4 GiB or more; a key and value that together are longer than memory can be.
    HOTSET_TOO_LARGE = 5,
    /// There was no memory. Nothing has changed.
    HOTSET_NO_MEMORY = 6,
    /// For loaders that have nothing more precise to say.
    HOTSET_LOAD_FAILED = 7,
    /// A loader asked for the key it was loading, directly or through loaders of other threads that wait for each other; or a
    /// callback closed the cache, or used the iterator, whose call had called it.
    HOTSET_REENTRANT = 8,
    /// The cache was closed. (See hotset_close for how long this is told.)
    HOTSET_CLOSED = 9,
    /// The cache was opened before a fork, and this is the child: it may open caches of its own.
    HOTSET_FORKED = 10,
    /// hotset_add: the entry is not a counter: its value is not 8 bytes long.
    HOTSET_NOT_A_NUMBER = 11,
    /// hotset_add: the sum does not fit 64 bits; hotset_retain: more than 2^31 handles. Nothing has changed.
    HOTSET_OVERFLOW = 12,
    /// A defect in hotset: a panic was caught at the border. Its text was written to stderr. The cache can still be used.
    HOTSET_PANIC = 13,
    /// The caller's buffer is too small; the length that is needed was stored.
    HOTSET_BUFFER_TOO_SMALL = 14,
    /// The operating system refused a thread for the ticker, or something with a file: errno says why.
    HOTSET_IO = 15,
    /// hotset_close: iterators of the cache are still open. Close them first; the cache is unchanged.
    HOTSET_BUSY = 16,
    /// hotset_load: what is there is no snapshot: a directory, a pipe, a file that begins otherwise. hotset_save: no place for a file.
    HOTSET_NOT_A_SNAPSHOT = 17,
    /// hotset_load: the snapshot is corrupt or incomplete.
    HOTSET_CORRUPT = 18,
    /// hotset_load: the snapshot is of another version of the format, another schema, or does not hold bytes.
    HOTSET_INCOMPATIBLE = 19,
}

/// Which entries make room for others.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum hotset_policy {
    /// By how often and how recently: the best for nearly all programs, and what a scan does not flush.
    HOTSET_POLICY_WTINYLFU = 0,
    /// The entry that was not used for the longest time.
    HOTSET_POLICY_LRU = 1,
    /// The entry that was used least often.
    HOTSET_POLICY_LFU = 2,
    /// The entry that came first.
    HOTSET_POLICY_FIFO = 3,
    /// Any entry.
    HOTSET_POLICY_RANDOM = 4,
}

/// Why an entry left the cache.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum hotset_cause {
    /// Its time was over.
    HOTSET_REMOVED_EXPIRED = 0,
    /// It was evicted, or never admitted, to keep the cache within its capacity.
    HOTSET_REMOVED_SIZE = 1,
    /// It was removed by hotset_remove, hotset_take, hotset_compute or hotset_clear.
    HOTSET_REMOVED_EXPLICIT = 2,
    /// Another value was put for its key.
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

/// A handle to one entry as it was when it was read: its key, its value and its version, all unchangeable.
///
/// It is yours until you give it to hotset_release, and its bytes stay valid that long, whatever becomes of the entry and of
/// the cache. Any thread may use or release it. Holding one holds its memory, which the cache no longer counts once the
/// entry has left.
pub struct hotset_value {
    _opaque: [u8; 0],
}

/// Bytes that somebody else owns. `data` may be NULL if `len` is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_slice {
    /// Where they begin.
    pub data: *const c_void,
    /// How many there are.
    pub len: usize,
}

/// A value that was read, and the handle that keeps its bytes alive. Release `handle` when you are done with `data`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_bytes {
    /// The value's bytes: never NULL where the key was found, even if `len` is 0. Aligned to 8.
    pub data: *const c_void,
    /// How many there are.
    pub len: usize,
    /// For hotset_release.
    pub handle: *mut hotset_value,
}

/// Told of every entry that leaves the cache, once. The bytes are valid during the call.
///
/// Runs in the call that removed the entry, on that call's thread, under no lock; with a ticker also on the ticker's thread;
/// so in several threads at once. It may call everything but hotset_close for the same cache. The entries that are in a cache
/// when it is closed are not reported.
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

/// Told that a value's memory is about to go: the entry has left the cache and no handle is left. For values that are, or
/// hold, pointers to what you allocated: this is where to free it. `value` may be written to.
///
/// Runs on whichever thread lets go last: in any call on the cache, in hotset_release, in hotset_close, on the ticker's
/// thread; under no lock. It may call everything but hotset_close for the same cache.
pub type hotset_destructor_fn = Option<unsafe extern "C" fn(arg: *mut c_void, value: *mut c_void, value_len: usize)>;

/// The time in nanoseconds since a moment that never changes. Called by any thread, often more than once per call. It must not
/// go back, and must call nothing of hotset.
pub type hotset_clock_fn = Option<unsafe extern "C" fn(arg: *mut c_void) -> u64>;

/// Told how far hotset_save has come: every few hundred kilobytes, and at the end, with `done` equal to `total`.
///
/// Runs on the saving thread, under no lock. It may call everything but hotset_close for the same cache.
pub type hotset_progress_fn = Option<unsafe extern "C" fn(arg: *mut c_void, done: u64, total: u64)>;

/// How to save and load. Fill it with hotset_snapshot_options_init, then set what you want otherwise.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_snapshot_options {
    /// The size of this struct, set by hotset_snapshot_options_init.
    pub size: usize,
    /// A number of your own for what your keys and values mean: only who asks for the same can load the file.
    pub schema: u64,
    /// For hotset_load. Not 0: checks the whole file, and brings everything in before the call returns.
    pub eager: u32,
    /// For hotset_load. Not 0: reads the file into memory and checks all of it, instead of mapping
    /// it.
    pub copy: u32,
    /// For hotset_save. NULL: nobody is told.
    pub progress: hotset_progress_fn,
    /// Handed to progress.
    pub progress_arg: *mut c_void,
}

/// How a cache is to be. Fill it with hotset_options_init, then set what you want otherwise.
///
/// hotset_open copies it; what the `.._arg` pointers point to must live until hotset_close has returned, and for the
/// destructor until the last handle is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_options {
    /// The size of this struct, set by hotset_options_init: it tells the library which fields your program knows.
    pub size: usize,
    /// At most so many entries. 0: not bounded so. Set this or max_bytes; with neither, max_bytes is 64 MiB.
    pub max_entries: u64,
    /// At most so many bytes of real memory: of each entry its key and value, and what the library and malloc need beside them:
    /// about 140 bytes; with a time to live 24 more, with a time to idle 40 more. (Tables grow by doubling: it may be a tenth
    /// more, or a seventh less; a quarter more for moments in which large values come in, and what they displaced waits to be
    /// freed. The 24 bytes of entries that have a time to live only of their own are not counted, nor what handles hold after
    /// their entry has left.) 0: not bounded so.
    pub max_bytes: u64,
    /// Which entries make room for others.
    pub policy: Policy,
    /// Must be 0.
    pub reserved: u32,
    /// How long an entry lives after it was put, in milliseconds. 0: without end.
    pub ttl_ms: u64,
    /// How long an entry lives after it was last put or found, in milliseconds. 0: without end.
    pub tti_ms: u64,
    /// Takes a random part, of up to this fraction, off every time to live, so that what was loaded together does not end
    /// together. From 0 to below 1.
    pub jitter: f64,
    /// Starts a thread that does the housekeeping every so many milliseconds, so that what is over is freed also while nobody
    /// uses the cache. All signals are blocked in it. 0: no thread; the calls on the cache do all housekeeping.
    pub ticker_ms: u64,
    /// Told of every entry that leaves the cache. NULL: nobody is.
    pub on_removal: hotset_removal_fn,
    /// Handed to on_removal.
    pub on_removal_arg: *mut c_void,
    /// Told of every value whose memory goes. NULL: nobody is.
    pub destructor: hotset_destructor_fn,
    /// Handed to destructor.
    pub destructor_arg: *mut c_void,
    /// The time. NULL: the system's monotonic clock.
    pub clock: hotset_clock_fn,
    /// Handed to clock.
    pub clock_arg: *mut c_void,
}

/// What happened in a cache since it was opened, and what is in it now. Counts may lag behind calls that are going on.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct hotset_stats_data {
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Entries that came in, replacements included.
    pub insertions: u64,
    /// Entries that had been admitted and left to make room.
    pub evictions: u64,
    /// Entries that left because their time was over.
    pub expirations: u64,
    /// New entries that were not admitted: lost against a resident entry, or heavier than the whole capacity.
    pub rejections: u64,
    /// Loaders that returned a value.
    pub loads: u64,
    /// Loaders that failed, or had no value.
    pub load_failures: u64,
    /// Callers that came while their key was being loaded, and were to wait for that.
    pub waits: u64,
    /// The time spent in loaders, in nanoseconds.
    pub load_time_ns: u64,
    /// As hotset_len.
    pub entries: u64,
    /// As hotset_weight.
    pub weight: u64,
    /// As hotset_capacity.
    pub capacity: u64,
}
