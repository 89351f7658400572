/* hotset.h: an embedded cache. Byte keys to byte values, for any number of threads, with W-TinyLFU admission.
 *
 * Made by cbindgen of the sources in bindings/c: to be changed there.
 *
 * CAVEATS, before anything else
 *
 * - Threads. Every function may be called by any thread at any time, with the exceptions that its comment names: an iterator
 *   is for one thread at a time, a reply is for its callback, and hotset_close must be the last call on its cache. Reads
 *   never wait for a lock. Calls with no other order between them happen in some order.
 *
 * - Ownership. What you hand over (keys, values, options) is copied before the call returns, and stays yours. What you are
 *   handed by a pointer to a pointer is yours to give back: a cache by hotset_close, a value by hotset_release, an iterator by
 *   hotset_iter_close. Bytes that a callback is handed are valid during that call only.
 *
 * - Lifetime. A handle (hotset_value) keeps its bytes readable, unchanged and in their place until it is released: after the
 *   entry was evicted, replaced or removed, and after the cache was closed. Holding handles holds memory that no capacity
 *   bounds. Never write through a handle.
 *
 * - It is a cache. A put that returns HOTSET_OK may be evicted at once. What must not be lost has to be elsewhere too.
 *
 * - Fork. A cache does not cross a fork: in the child, every call on a cache that the parent opened returns HOTSET_FORKED,
 *   since other threads of the parent may have been at work in it. The child may open caches of its own, whatever the parent's
 *   threads were doing, and may read and release handles that it inherited. (That needs the handlers of pthread_atfork: a
 *   child of vfork, _Fork or a bare clone must make no call.)
 *
 * - Callbacks. No user code runs under a lock, so callbacks may call hotset, the same cache included; the exceptions are named
 *   where the callback is declared. They must return, in the process that called them: no longjmp and no
 *   pthread_exit, and no C++ exception may leave one (the process would be aborted); and a child that one forks must not
 *   return from it. What their arguments point to must be safe for several threads.
 *
 * - Cancellation. A thread is never canceled in the middle of a call: a request takes effect at the thread's next cancellation
 *   point. hotset_save, hotset_load and hotset_warm are such points when they are called, before they have done anything; no
 *   other call is one. In callbacks cancellation is disabled, and must stay so. So a thread that waits for another's load
 *   cannot be canceled before that load is done. The cancel type must be deferred, as it is by default: with asynchronous
 *   cancellation, disable cancellation around calls.
 *
 * - errno. A call that returns HOTSET_OK leaves errno as it was. After HOTSET_IO it says why; after other statuses it may have
 *   changed, and is what a callback left if the status is the callback's. (The clock, on_removal, the destructor and progress
 *   never change it.)
 *
 * - Signals. No function is safe in a signal handler.
 *
 * - Errors. Every function that can fail returns a hotset_status, and puts its results through its last arguments; after a
 *   failure those are NULL or 0. NULL where it makes no sense is HOTSET_INVALID, never a crash; a wrong pointer cannot be told.
 *   A NULL key or value with length 0 is empty. Every call may return HOTSET_PANIC, which is a defect to be reported.
 *
 * - Memory. All memory is malloc's: replace malloc to have another. (A hook for entries alone would leave out the tables, and
 *   could not be called where no memory may be had; so there is none.) A call that finds no memory returns
 *   HOTSET_NO_MEMORY, and has changed nothing. A table that cannot grow stays as it is: entries for which it has no room are
 *   evicted. For what a call needs in the middle of its work (a node, a list that grows) the library holds a reserve of 76 KiB,
 *   which it refills before every call that takes memory, or else refuses the call. The process is aborted, as is usual in
 *   Rust, only if calls in progress need more than that while malloc refuses: many threads at once, a list beyond 16 KiB
 *   that grows, a snapshot of many entries. Reads, releases, removals and closing work without memory.
 *
 * - Unloading. The shared library stays loaded after dlclose. A plugin that has the static library inside must be linked with
 *   -Wl,-z,nodelete, or stay loaded while threads that called it live. It exports the library's functions unless it is linked
 *   with -Wl,--exclude-libs,libhotset.a, as pkg-config --static says.
 *
 * THE LADDER: five calls are what most programs need, and each rung below adds some.
 *
 *   1. hotset_open, hotset_put, hotset_get, hotset_release, hotset_close
 *   2. other ways to read: bytes, copies, many at once
 *   3. other ways to write: times to live, put_if_absent, remove, take
 *   4. atomic changes: cas, counters, compute
 *   5. loading what is missing, once for all who ask
 *   6. all entries
 *   7. the cache as a whole: statistics, capacity, clear
 *   8. snapshots: a file for the next process to begin warm
 *   9. texts and versions
 */


#ifndef HOTSET_H
#define HOTSET_H

#include <stddef.h>
#include <stdint.h>

/* The version of this header: compare with hotset_version(), which is the library's. */
#define HOTSET_VERSION_MAJOR 0
#define HOTSET_VERSION_MINOR 1
#define HOTSET_VERSION_PATCH 0
#define HOTSET_VERSION (HOTSET_VERSION_MAJOR * 1000000 + HOTSET_VERSION_MINOR * 1000 + HOTSET_VERSION_PATCH)
#define HOTSET_VERSION_STRING "0.1.0"

/* Times to live are in milliseconds. These are not times: */
/* as the options of the cache say; */
#define HOTSET_TTL_DEFAULT ((uint64_t)0)
/* without end; */
#define HOTSET_TTL_NONE (UINT64_MAX - 1)
/* as long as the entry that is replaced; HOTSET_TTL_DEFAULT if there is none. */
#define HOTSET_TTL_KEEP UINT64_MAX

/**
 * Why an entry left the cache.
 */
enum hotset_cause
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Its time was over.
     */
    HOTSET_REMOVED_EXPIRED = 0,
    /**
     * It was evicted, or never admitted, to keep the cache within its capacity.
     */
    HOTSET_REMOVED_SIZE = 1,
    /**
     * It was removed by hotset_remove, hotset_take, hotset_compute or hotset_clear.
     */
    HOTSET_REMOVED_EXPLICIT = 2,
    /**
     * Another value was put for its key.
     */
    HOTSET_REMOVED_REPLACED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum hotset_cause hotset_cause;
#else
typedef int32_t hotset_cause;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a call came to. HOTSET_OK is 0, and everything else is not.
 *
 * Statuses from 1000 on are never made by hotset: they are for your own callbacks to return.
 */
enum hotset_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It is done.
     */
    HOTSET_OK = 0,
    /**
     * The key is not in the cache; the iteration is at its end; the loader had no value.
     */
    HOTSET_NOT_FOUND = 1,
    /**
     * hotset_put_if_absent: the key is in the cache, and was left as it is.
     */
    HOTSET_EXISTS = 2,
    /**
     * hotset_cas: the entry has another version.
     */
    HOTSET_CONFLICT = 3,
    /**
     * An argument cannot be right: a NULL, a bad size, an option that makes no sense.
     */
    HOTSET_INVALID = 4,
    /**
     * A key of 4 GiB or more; a key and value that together are longer than memory can be.
     */
    HOTSET_TOO_LARGE = 5,
    /**
     * There was no memory. Nothing has changed.
     */
    HOTSET_NO_MEMORY = 6,
    /**
     * For loaders that have nothing more precise to say.
     */
    HOTSET_LOAD_FAILED = 7,
    /**
     * A loader asked for the key it was loading, directly or through loaders of other threads that wait for each other; or a
     * callback closed the cache, or used the iterator, whose call had called it.
     */
    HOTSET_REENTRANT = 8,
    /**
     * The cache was closed. (See hotset_close for how long this is told.)
     */
    HOTSET_CLOSED = 9,
    /**
     * The cache was opened before a fork, and this is the child: it may open caches of its own.
     */
    HOTSET_FORKED = 10,
    /**
     * hotset_add: the entry is not a counter: its value is not 8 bytes long.
     */
    HOTSET_NOT_A_NUMBER = 11,
    /**
     * hotset_add: the sum does not fit 64 bits; hotset_retain: more than 2^31 handles. Nothing has changed.
     */
    HOTSET_OVERFLOW = 12,
    /**
     * A defect in hotset: a panic was caught at the border. Its text was written to stderr. The cache can still be used.
     */
    HOTSET_PANIC = 13,
    /**
     * The caller's buffer is too small; the length that is needed was stored.
     */
    HOTSET_BUFFER_TOO_SMALL = 14,
    /**
     * The operating system refused a thread for the ticker, or something with a file: errno says why.
     */
    HOTSET_IO = 15,
    /**
     * hotset_close: iterators of the cache are still open. Close them first; the cache is unchanged.
     */
    HOTSET_BUSY = 16,
    /**
     * hotset_load: what is there is no snapshot: a directory, a pipe, a file that begins otherwise. hotset_save: no place for a file.
     */
    HOTSET_NOT_A_SNAPSHOT = 17,
    /**
     * hotset_load: the snapshot is corrupt or incomplete.
     */
    HOTSET_CORRUPT = 18,
    /**
     * hotset_load: the snapshot is of another version of the format, another schema, or does not hold bytes.
     */
    HOTSET_INCOMPATIBLE = 19,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum hotset_status hotset_status;
#else
typedef int32_t hotset_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which entries make room for others.
 */
enum hotset_policy
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * By how often and how recently: the best for nearly all programs, and what a scan does not flush.
     */
    HOTSET_POLICY_WTINYLFU = 0,
    /**
     * The entry that was not used for the longest time.
     */
    HOTSET_POLICY_LRU = 1,
    /**
     * The entry that was used least often.
     */
    HOTSET_POLICY_LFU = 2,
    /**
     * The entry that came first.
     */
    HOTSET_POLICY_FIFO = 3,
    /**
     * Any entry.
     */
    HOTSET_POLICY_RANDOM = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum hotset_policy hotset_policy;
#else
typedef int32_t hotset_policy;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A cache, made by hotset_open. Any number of threads may use it at once.
 */
typedef struct hotset_cache hotset_cache;

/**
 * An iteration that is going on. One thread at a time may use it.
 */
typedef struct hotset_iter hotset_iter;

/**
 * Where a callback puts its answer: valid only during that call, on its thread.
 */
typedef struct hotset_reply hotset_reply;

/**
 * A handle to one entry as it was when it was read: its key, its value and its version, all unchangeable.
 *
 * It is yours until you give it to hotset_release, and its bytes stay valid that long, whatever becomes of the entry and of
 * the cache. Any thread may use or release it. Holding one holds its memory, which the cache no longer counts once the
 * entry has left.
 */
typedef struct hotset_value hotset_value;

/**
 * Told of every entry that leaves the cache, once. The bytes are valid during the call.
 *
 * Runs in the call that removed the entry, on that call's thread, under no lock; with a ticker also on the ticker's thread;
 * so in several threads at once. It may call everything but hotset_close for the same cache. The entries that are in a cache
 * when it is closed are not reported.
 */
typedef void (*hotset_removal_fn)(void *arg,
                                  const void *key,
                                  size_t key_len,
                                  const void *value,
                                  size_t value_len,
                                  hotset_cause cause);

/**
 * Told that a value's memory is about to go: the entry has left the cache and no handle is left. For values that are, or
 * hold, pointers to what you allocated: this is where to free it. `value` may be written to.
 *
 * Runs on whichever thread lets go last: in any call on the cache, in hotset_release, in hotset_close, on the ticker's
 * thread; under no lock. It may call everything but hotset_close for the same cache.
 */
typedef void (*hotset_destructor_fn)(void *arg, void *value, size_t value_len);

/**
 * The time in nanoseconds since a moment that never changes. Called by any thread, often more than once per call. It must not
 * go back, and must call nothing of hotset.
 */
typedef uint64_t (*hotset_clock_fn)(void *arg);

/**
 * How a cache is to be. Fill it with hotset_options_init, then set what you want otherwise.
 *
 * hotset_open copies it; what the `.._arg` pointers point to must live until hotset_close has returned, and for the
 * destructor until the last handle is released.
 */
typedef struct {
    /**
     * The size of this struct, set by hotset_options_init: it tells the library which fields your program knows.
     */
    size_t size;
    /**
     * At most so many entries. 0: not bounded so. Set this or max_bytes; with neither, max_bytes is 64 MiB.
     */
    uint64_t max_entries;
    /**
     * At most so many bytes of real memory: of each entry its key and value, and what the library and malloc need beside them:
     * about 140 bytes; with a time to live 24 more, with a time to idle 40 more. (Tables grow by doubling: it may be a tenth
     * more, or a seventh less; a quarter more for moments in which large values come in, and what they displaced waits to be
     * freed. The 24 bytes of entries that have a time to live only of their own are not counted, nor what handles hold after
     * their entry has left.) 0: not bounded so.
     */
    uint64_t max_bytes;
    /**
     * Which entries make room for others.
     */
    hotset_policy policy;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * How long an entry lives after it was put, in milliseconds. 0: without end.
     */
    uint64_t ttl_ms;
    /**
     * How long an entry lives after it was last put or found, in milliseconds. 0: without end.
     */
    uint64_t tti_ms;
    /**
     * Takes a random part, of up to this fraction, off every time to live, so that what was loaded together does not end
     * together. From 0 to below 1.
     */
    double jitter;
    /**
     * Starts a thread that does the housekeeping every so many milliseconds, so that what is over is freed also while nobody
     * uses the cache. All signals are blocked in it. 0: no thread; the calls on the cache do all housekeeping.
     */
    uint64_t ticker_ms;
    /**
     * Told of every entry that leaves the cache. NULL: nobody is.
     */
    hotset_removal_fn on_removal;
    /**
     * Handed to on_removal.
     */
    void *on_removal_arg;
    /**
     * Told of every value whose memory goes. NULL: nobody is.
     */
    hotset_destructor_fn destructor;
    /**
     * Handed to destructor.
     */
    void *destructor_arg;
    /**
     * The time. NULL: the system's monotonic clock.
     */
    hotset_clock_fn clock;
    /**
     * Handed to clock.
     */
    void *clock_arg;
} hotset_options;

/**
 * A value that was read, and the handle that keeps its bytes alive. Release `handle` when you are done with `data`.
 */
typedef struct {
    /**
     * The value's bytes: never NULL where the key was found, even if `len` is 0. Aligned to 8.
     */
    const void *data;
    /**
     * How many there are.
     */
    size_t len;
    /**
     * For hotset_release.
     */
    hotset_value *handle;
} hotset_bytes;

/**
 * Bytes that somebody else owns. `data` may be NULL if `len` is 0.
 */
typedef struct {
    /**
     * Where they begin.
     */
    const void *data;
    /**
     * How many there are.
     */
    size_t len;
} hotset_slice;

/**
 * Decides what becomes of an entry; for hotset_compute.
 *
 * `current` is the value, or NULL where the key is absent; its bytes are valid during the call. Answer with hotset_reply_set or
 * hotset_reply_remove (the last one counts), or with neither to leave the entry as it is. Any status but HOTSET_OK leaves it as
 * it is too, and is what hotset_compute returns.
 */
typedef hotset_status (*hotset_compute_fn)(void *arg, const hotset_slice *current, hotset_reply *reply);

/**
 * Loads the value of a key that is missing; for hotset_get_or_load.
 *
 * Answer with hotset_reply_set and HOTSET_OK. HOTSET_OK without a value stands for HOTSET_NOT_FOUND. Any other status is a failure:
 * it is what hotset_get_or_load returns, here and to all who waited for this load.
 */
typedef hotset_status (*hotset_loader_fn)(void *arg, const void *key, size_t key_len, hotset_reply *reply);

/**
 * What happened in a cache since it was opened, and what is in it now. Counts may lag behind calls that are going on.
 */
typedef struct {
    /**
     * Lookups that found their key.
     */
    uint64_t hits;
    /**
     * Lookups that did not.
     */
    uint64_t misses;
    /**
     * Entries that came in, replacements included.
     */
    uint64_t insertions;
    /**
     * Entries that had been admitted and left to make room.
     */
    uint64_t evictions;
    /**
     * Entries that left because their time was over.
     */
    uint64_t expirations;
    /**
     * New entries that were not admitted: lost against a resident entry, or heavier than the whole capacity.
     */
    uint64_t rejections;
    /**
     * Loaders that returned a value.
     */
    uint64_t loads;
    /**
     * Loaders that failed, or had no value.
     */
    uint64_t load_failures;
    /**
     * Callers that came while their key was being loaded, and were to wait for that.
     */
    uint64_t waits;
    /**
     * The time spent in loaders, in nanoseconds.
     */
    uint64_t load_time_ns;
    /**
     * As hotset_len.
     */
    uint64_t entries;
    /**
     * As hotset_weight.
     */
    uint64_t weight;
    /**
     * As hotset_capacity.
     */
    uint64_t capacity;
} hotset_stats_data;

/**
 * Told how far hotset_save has come: every few hundred kilobytes, and at the end, with `done` equal to `total`.
 *
 * Runs on the saving thread, under no lock. It may call everything but hotset_close for the same cache.
 */
typedef void (*hotset_progress_fn)(void *arg, uint64_t done, uint64_t total);

/**
 * How to save and load. Fill it with hotset_snapshot_options_init, then set what you want otherwise.
 */
typedef struct {
    /**
     * The size of this struct, set by hotset_snapshot_options_init.
     */
    size_t size;
    /**
     * A number of your own for what your keys and values mean: only who asks for the same can load the file.
     */
    uint64_t schema;
    /**
     * For hotset_load. Not 0: checks the whole file, and brings everything in before the call returns.
     */
    uint32_t eager;
    /**
     * For hotset_load. Not 0: reads the file into memory and checks all of it, instead of mapping
     * it.
     */
    uint32_t copy;
    /**
     * For hotset_save. NULL: nobody is told.
     */
    hotset_progress_fn progress;
    /**
     * Handed to progress.
     */
    void *progress_arg;
} hotset_snapshot_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* ---------------------------------------------------------------------------------------------------------------------
 * 1. What most programs need: open, put, get, release, close
 * --------------------------------------------------------------------------------------------------------------------- */

/**
 * Fills the options with the defaults; `size` is sizeof(hotset_options).
 *
 * Returns HOTSET_OK, or HOTSET_INVALID for NULL or a size that no version of the options has. Any thread may call it.
 */
hotset_status hotset_options_init(hotset_options *options, size_t size);

/**
 * Opens a cache; NULL for the options stands for the defaults (64 MiB, W-TinyLFU, no times). It is yours, to be closed by
 * hotset_close; all threads share it.
 *
 * Returns HOTSET_OK; HOTSET_INVALID (`*cache` is then NULL, as after all failures) if options do not go together: both
 * max_entries and max_bytes, a jitter outside of 0 to below 1, an unknown policy, a size that hotset_options_init did not
 * set; HOTSET_IO if there was no thread for the ticker (errno says why); HOTSET_NO_MEMORY, HOTSET_PANIC. Any thread may
 * call it, callbacks included.
 */
hotset_status hotset_open(const hotset_options *options, hotset_cache **cache);

/**
 * Puts a value under a key, in the place of whatever is there; key and value are copied. A key may be empty (NULL and 0), and
 * so may a value.
 *
 * The entry can be read at once, unless the policy does not admit it, or it is larger than the whole cache. Who holds a handle to
 * the former entry keeps that. A load of the key that is going on will not come into the cache.
 *
 * Returns HOTSET_OK, HOTSET_INVALID, HOTSET_TOO_LARGE, HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may
 * call it, callbacks included. With a destructor in the options: the value belongs to the library if it returns HOTSET_OK, and
 * to the caller otherwise.
 */
hotset_status hotset_put(hotset_cache *cache,
                         const void *key,
                         size_t key_len,
                         const void *value,
                         size_t value_len);

/**
 * Gets the entry of a key, as a handle that is yours until hotset_release: nothing is copied.
 *
 * Returns HOTSET_OK; HOTSET_NOT_FOUND (`*value` is then NULL, as after all failures); HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED,
 * HOTSET_PANIC. Any thread may call it, callbacks included; it never waits for a lock.
 */
hotset_status hotset_get(hotset_cache *cache,
                         const void *key,
                         size_t key_len,
                         hotset_value **value);

/**
 * The bytes of a value. They stay valid, and as they are, until the handle is released. Aligned to 8, so that they can be read
 * in place as pointers, 64-bit numbers and structs of such.
 *
 * Returns HOTSET_OK, HOTSET_INVALID. Any thread may call it, callbacks included, also after hotset_close and after a fork.
 */
hotset_status hotset_value_data(const hotset_value *value,
                                const void **data,
                                size_t *len);

/**
 * Gives a handle back. Its bytes must not be read any more through it.
 *
 * Returns HOTSET_OK, or HOTSET_INVALID for NULL; HOTSET_PANIC. Any thread may call it, callbacks included, also after hotset_close
 * and after a fork. Runs the destructor, if this was the last handle of an entry that has left the cache.
 */
hotset_status hotset_release(hotset_value *value);

/**
 * Closes a cache and frees its entries. Handles stay valid until they are released. No other call on the cache may be going on
 * or come later.
 *
 * Joins the ticker, and frees every entry that no handle holds: once it has returned, no thread of the library's runs for this
 * cache, no removal callback, and the destructor only for entries that handles hold. Returns HOTSET_OK; HOTSET_BUSY while iterators are open, HOTSET_REENTRANT in a callback of this cache, HOTSET_FORKED in a
 * child (the cache is unchanged by all three); HOTSET_INVALID for NULL; HOTSET_PANIC.
 *
 * A call on a closed cache is a mistake that the library tells (HOTSET_CLOSED) for the 1,024 caches that the process closed
 * last; beyond those it is as undefined as any use of freed memory.
 */
hotset_status hotset_close(hotset_cache *cache);

/* ---------------------------------------------------------------------------------------------------------------------
 * 2. Other ways to read
 * --------------------------------------------------------------------------------------------------------------------- */

/**
 * hotset_get and hotset_value_data in one call: the value's bytes, and the handle to release. The fastest way to read.
 *
 * Returns as hotset_get does; where there is nothing, all fields are 0. Any thread may call it, callbacks included.
 */
hotset_status hotset_get_bytes(hotset_cache *cache, const void *key, size_t key_len, hotset_bytes *value);

/**
 * Copies a value into your buffer: no handle to release. For small values. `buffer` may be NULL if `capacity` is 0.
 *
 * Returns HOTSET_OK, with the value's length in `*len`; HOTSET_BUFFER_TOO_SMALL, with the length that is needed, and nothing copied;
 * HOTSET_NOT_FOUND, HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC, with 0. Any thread may call it, callbacks included.
 */
hotset_status hotset_get_copy(hotset_cache *cache,
                              const void *key,
                              size_t key_len,
                              void *buffer,
                              size_t capacity,
                              size_t *len);

/**
 * Gets the entries of n keys: `values[i]` becomes the handle of `keys[i]`, to be released, or NULL where there is none; `*found` the
 * number of handles. `found` may be NULL. Faster than n calls of hotset_get where the cache is larger than the processor's: the
 * memory accesses overlap.
 *
 * Returns HOTSET_OK, however many were found; HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC, and then there are no handles.
 * Any thread may call it, callbacks included.
 */
hotset_status hotset_get_many(hotset_cache *cache,
                              const hotset_slice *keys,
                              size_t n,
                              hotset_value **values,
                              size_t *found);

/**
 * Whether the key is in the cache. Counts neither as a hit nor as a miss, and tells the policy nothing.
 *
 * Returns HOTSET_OK if it is, HOTSET_NOT_FOUND if not; HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call
 * it, callbacks included.
 */
hotset_status hotset_contains(hotset_cache *cache,
                              const void *key,
                              size_t key_len);

/**
 * How many milliseconds the entry of a key will live if it is not used again, rounded up; HOTSET_TTL_NONE if it has no end.
 *
 * Returns HOTSET_OK; HOTSET_NOT_FOUND, HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC, with 0. Any thread may call it,
 * callbacks included.
 */
hotset_status hotset_remaining(hotset_cache *cache,
                               const void *key,
                               size_t key_len,
                               uint64_t *ms);

/**
 * The bytes of a handle's key, as hotset_value_data tells those of the value; not aligned.
 *
 * Returns HOTSET_OK, HOTSET_INVALID. Any thread may call it, callbacks included, also after hotset_close and after a fork.
 */
hotset_status hotset_value_key(const hotset_value *value, const void **data, size_t *len);

/**
 * The version of a handle's entry, for hotset_cas: a number that no other entry of this process has. Versions have no order.
 *
 * Returns HOTSET_OK, HOTSET_INVALID. Any thread may call it, callbacks included, also after hotset_close and after a fork.
 */
hotset_status hotset_value_version(const hotset_value *value, uint64_t *version);

/**
 * Makes one more handle of a handle, which is the same pointer: it must be released once more.
 *
 * Returns HOTSET_OK, HOTSET_INVALID; HOTSET_OVERFLOW beyond 2^31 handles. Any thread may call it, callbacks included, also after
 * hotset_close and after a fork.
 */
hotset_status hotset_retain(hotset_value *value);

/* ---------------------------------------------------------------------------------------------------------------------
 * 3. Other ways to write
 * --------------------------------------------------------------------------------------------------------------------- */

/**
 * hotset_put for an entry that lives for ttl_ms milliseconds, or HOTSET_TTL_DEFAULT, HOTSET_TTL_NONE or HOTSET_TTL_KEEP.
 *
 * A time to idle still applies. All else is as for hotset_put.
 */
hotset_status hotset_put_ttl(hotset_cache *cache,
                             const void *key,
                             size_t key_len,
                             const void *value,
                             size_t value_len,
                             uint64_t ttl_ms);

/**
 * Puts a value if the key is absent. If it is not, `*existing` becomes a handle to the entry that is there, to be released.
 * `existing` may be NULL.
 *
 * Returns HOTSET_OK if it was put, HOTSET_EXISTS if not; HOTSET_INVALID, HOTSET_TOO_LARGE, HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED,
 * HOTSET_PANIC. But for HOTSET_EXISTS, `*existing` is NULL. Any thread may call it, callbacks included. With a destructor in the
 * options: the value belongs to the library if it returns HOTSET_OK, and to the caller otherwise.
 */
hotset_status hotset_put_if_absent(hotset_cache *cache,
                                   const void *key,
                                   size_t key_len,
                                   const void *value,
                                   size_t value_len,
                                   uint64_t ttl_ms,
                                   hotset_value **existing);

/**
 * Removes a key. A load of it that is going on will not come into the cache.
 *
 * Returns HOTSET_OK if it was there, HOTSET_NOT_FOUND if not; HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may
 * call it, callbacks included.
 */
hotset_status hotset_remove(hotset_cache *cache,
                            const void *key,
                            size_t key_len);

/**
 * Removes a key, and makes `*value` a handle to the entry that was there, to be released. Of several threads that take, one
 * gets it.
 *
 * Returns as hotset_remove does; after all but HOTSET_OK, `*value` is NULL. Any thread may call it, callbacks included.
 */
hotset_status hotset_take(hotset_cache *cache, const void *key, size_t key_len, hotset_value **value);

/* ---------------------------------------------------------------------------------------------------------------------
 * 4. Atomic changes
 * --------------------------------------------------------------------------------------------------------------------- */

/**
 * Replaces the entry of a key if it still is the one whose version you read with hotset_value_version.
 *
 * Returns HOTSET_OK; HOTSET_CONFLICT if it is another, HOTSET_NOT_FOUND if there is none; HOTSET_INVALID, HOTSET_TOO_LARGE,
 * HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks included. With a destructor in the
 * options: the value belongs to the library if it returns HOTSET_OK, and to the caller otherwise.
 */
hotset_status hotset_cas(hotset_cache *cache,
                         const void *key,
                         size_t key_len,
                         uint64_t version,
                         const void *value,
                         size_t value_len,
                         uint64_t ttl_ms);

/**
 * Adds to a counter: a value of 8 bytes, a signed little-endian number. An absent one begins at 0, and lives for ttl_ms; one that
 * is there keeps its end. `*sum` becomes what is there afterwards; `sum` may be NULL.
 *
 * Returns HOTSET_OK; HOTSET_NOT_A_NUMBER if the value is not 8 bytes long, HOTSET_OVERFLOW if the sum does not fit; HOTSET_INVALID,
 * HOTSET_TOO_LARGE, HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. After a failure nothing has changed, and `*sum` is 0.
 * Any thread may call it, callbacks included. The destructor is not called for the values that it makes.
 */
hotset_status hotset_add(hotset_cache *cache,
                         const void *key,
                         size_t key_len,
                         int64_t delta,
                         uint64_t ttl_ms,
                         int64_t *sum);

/**
 * Replaces the entry of a key by what `fn` answers, atomically: see hotset_compute_fn. `*value` becomes a handle to what is there
 * afterwards, to be released, or NULL if nothing is; `value` may be NULL.
 *
 * `fn` runs under no lock, and runs again if another thread changed the key meanwhile: so it should be short and have no other
 * effect. (While it runs, the cache frees no memory.) It may use the cache, but must not change this key.
 *
 * Returns HOTSET_OK; the status that `fn` returned, if not HOTSET_OK, and then nothing has changed; HOTSET_INVALID, HOTSET_CLOSED,
 * HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks included.
 */
hotset_status hotset_compute(hotset_cache *cache,
                             const void *key,
                             size_t key_len,
                             hotset_compute_fn fn,
                             void *arg,
                             hotset_value **value);

/* ---------------------------------------------------------------------------------------------------------------------
 * 5. Loading what is missing
 * --------------------------------------------------------------------------------------------------------------------- */

/**
 * Gets the entry of a key as hotset_get does; if it is missing, has `fn` load it, and puts what that answers: see hotset_loader_fn.
 *
 * While one caller loads, others that ask for the same key wait for it and get what it got, a failure included; calls for
 * other keys go on. A failure is not kept: the next caller loads again. If the key is put, removed or computed while it is
 * being loaded, the loaded value is returned but does not come into the cache. `fn` runs on the caller's thread, under no lock,
 * at most once in a call; it may take its time, and use the cache.
 *
 * Returns HOTSET_OK; HOTSET_NOT_FOUND if the loader had no value; the status that the loader returned, if not HOTSET_OK;
 * HOTSET_REENTRANT if waiting would never end; HOTSET_INVALID, HOTSET_TOO_LARGE, HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED,
 * HOTSET_PANIC. After all but HOTSET_OK, `*value` is NULL. Any thread may call it, callbacks included.
 */
hotset_status hotset_get_or_load(hotset_cache *cache,
                                 const void *key,
                                 size_t key_len,
                                 hotset_loader_fn fn,
                                 void *arg,
                                 hotset_value **value);

/**
 * In a callback: the value is to be these bytes, which are copied. It lives for ttl_ms milliseconds, or HOTSET_TTL_DEFAULT,
 * HOTSET_TTL_NONE or HOTSET_TTL_KEEP.
 *
 * Takes the place of an earlier answer. With a destructor in the options, a value that was set belongs to the library from now
 * on: the destructor runs also for one that does not come into the cache, because the callback returns another status, runs
 * again, or answers anew.
 *
 * Returns HOTSET_OK, HOTSET_INVALID, HOTSET_TOO_LARGE, HOTSET_NO_MEMORY, HOTSET_PANIC. After a failure the earlier answer stands; the
 * callback may return this status as its own.
 */
hotset_status hotset_reply_set(hotset_reply *reply,
                               const void *value,
                               size_t value_len,
                               uint64_t ttl_ms);

/**
 * In a callback of hotset_compute: the entry is to be removed. In a loader: there is no value.
 *
 * Takes the place of an earlier answer. Returns HOTSET_OK, HOTSET_INVALID, HOTSET_PANIC.
 */
hotset_status hotset_reply_remove(hotset_reply *reply);

/* ---------------------------------------------------------------------------------------------------------------------
 * 6. All entries
 * --------------------------------------------------------------------------------------------------------------------- */

/**
 * Begins an iteration over all entries, in no useful order; it is yours until hotset_iter_close, which must come before
 * hotset_close.
 *
 * An entry that is there all the time comes exactly once; one that comes or goes meanwhile may come or not. Nobody is held up,
 * nothing counts as a hit, and the cache may be changed meanwhile.
 *
 * Returns HOTSET_OK; HOTSET_INVALID, HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC, with NULL. Any thread may call it, callbacks included.
 */
hotset_status hotset_iter_open(hotset_cache *cache,
                               hotset_iter **iter);

/**
 * The next entry, as a handle to be released. One thread at a time may use an iterator.
 *
 * Returns HOTSET_OK; HOTSET_NOT_FOUND at the end, and from then on; HOTSET_REENTRANT in a callback that a step of this iterator
 * called; HOTSET_NO_MEMORY, after which it may be called again; HOTSET_INVALID, HOTSET_FORKED, HOTSET_PANIC. After all but HOTSET_OK, `*value` is NULL. Callbacks may call it.
 */
hotset_status hotset_iter_next(hotset_iter *iter,
                               hotset_value **value);

/**
 * Ends an iteration, at its end or before. Handles that it gave stay valid.
 *
 * Returns HOTSET_OK, or HOTSET_INVALID for NULL; HOTSET_REENTRANT in a callback that a step of this iterator called; HOTSET_PANIC. Any
 * thread may call it, callbacks included, also after a fork.
 */
hotset_status hotset_iter_close(hotset_iter *iter);

/* ---------------------------------------------------------------------------------------------------------------------
 * 7. The cache as a whole
 * --------------------------------------------------------------------------------------------------------------------- */

/**
 * What happened so far; `size` is sizeof(hotset_stats_data). Fields that this version does not know become 0.
 *
 * Returns HOTSET_OK; HOTSET_INVALID, also for a size that is no multiple of 8, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may
 * call it, callbacks included.
 */
hotset_status hotset_stats(hotset_cache *cache,
                           hotset_stats_data *stats,
                           size_t size);

/**
 * The number of entries, those included whose time is over and that have not been freed yet: exact when nothing else goes on.
 *
 * Returns HOTSET_OK; HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC, with 0. Any thread may call it, callbacks included.
 */
hotset_status hotset_len(hotset_cache *cache,
                         uint64_t *entries);

/**
 * What the cache holds, in what its capacity is counted in: bytes of real memory, or entries. As of the last housekeeping.
 *
 * Returns as hotset_len does. Any thread may call it, callbacks included.
 */
hotset_status hotset_weight(hotset_cache *cache, uint64_t *weight);

/**
 * The bound on hotset_weight.
 *
 * Returns as hotset_len does. Any thread may call it, callbacks included.
 */
hotset_status hotset_capacity(hotset_cache *cache, uint64_t *capacity);

/**
 * Changes the capacity: in bytes or entries, as the cache was opened. A smaller one evicts at once; 0 keeps nothing.
 *
 * Returns HOTSET_OK, HOTSET_INVALID, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks included.
 */
hotset_status hotset_set_capacity(hotset_cache *cache, uint64_t capacity);

/**
 * Removes all entries, and keeps loads that are going on out of the cache. Entries that others put meanwhile may stay.
 *
 * Returns as hotset_set_capacity does. Any thread may call it, callbacks included.
 */
hotset_status hotset_clear(hotset_cache *cache);

/**
 * Does all housekeeping that is due: afterwards the weight is within the capacity, and memory that nobody holds has been
 * freed. Never needed; good in tests and idle moments.
 *
 * Returns as hotset_set_capacity does. Any thread may call it, callbacks included.
 */
hotset_status hotset_run_pending(hotset_cache *cache);

/* ---------------------------------------------------------------------------------------------------------------------
 * 8. Snapshots: a file for the next process to begin warm
 * --------------------------------------------------------------------------------------------------------------------- */

/**
 * Fills the options with the defaults: schema 0, a mapped file, entries that are inserted when they
 * are first looked up, no progress function; `size` is sizeof(hotset_snapshot_options).
 *
 * Returns HOTSET_OK, or HOTSET_INVALID for NULL or a size that no version of the options has. Any thread may call it.
 */
hotset_status hotset_snapshot_options_init(hotset_snapshot_options *options, size_t size);

/**
 * Saves the cache to a file, in the place of what is there; NULL for the options stands for the defaults. Stores how many entries
 * it holds.
 *
 * Other threads may use the cache during the save; what they change may be saved or not. The file
 * takes the place of the previous one when it is complete and on the disk: a save that fails, or
 * is interrupted, leaves the previous file as it was, and any status but HOTSET_OK means that it
 * is in place. Two processes may save to one path: the last complete file wins. It is the file
 * that Rust's Cache<Vec<u8>, Vec<u8>> writes. Remaining times to live are kept, by the wall clock.
 *
 * A symbolic link is followed: the file that it leads to is replaced, or created. A new file may
 * be read and written by its owner only; one that replaces another keeps its mode, on Linux its
 * access control list, its group where the process may set that, and its owner where it may give
 * files away (as root may). Where the directory cannot be synced, the save succeeds all the same;
 * if the system crashes then, the previous file may be there afterwards. The path is any bytes but
 * 0: it need not be UTF-8.
 *
 * Returns HOTSET_OK; HOTSET_IO, and errno, if the operating system refused something (ENOSPC,
 * EACCES, ENOENT ..); HOTSET_NOT_A_SNAPSHOT if the path names no file, or is that of a directory,
 * a device, a pipe or a socket; HOTSET_TOO_LARGE for a value of 4 GiB or more; HOTSET_NO_MEMORY;
 * HOTSET_INVALID, also for a cache with a destructor, whose values are objects of this process;
 * HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks included.
 */
hotset_status hotset_save(hotset_cache *cache,
                          const char *path,
                          const hotset_snapshot_options *options,
                          uint64_t *entries);

/**
 * Loads a snapshot; NULL for the options stands for the defaults. Stores how many entries the file holds, of which not all may fit
 * into the cache, and some may have ended.
 *
 * By default the file is mapped, and must not be changed in place while it is. If another program
 * truncates it, the operating system kills this process (SIGBUS) when it next reads the part that
 * is gone. If another program overwrites it, entries are missed, and an entry that is overwritten
 * while it is being read may have a wrong value. Replacing the file by a rename, as hotset_save
 * does, or removing it, is harmless. The file is mapped until all its entries have been inserted or
 * removed, the cache is cleared or closed, or hotset_warm has returned. With `copy`, the file is
 * read into memory instead, and what happens to it afterwards does not matter.
 *
 * Header and index are checked before the call returns, with `copy` or `eager` the whole file.
 * Entries are inserted when they are first looked up, each verified by its checksum; a corrupt one
 * is a miss. Until then they count in no hotset_len, and no iterator visits them. With `eager` all
 * are inserted before the call returns. What is in the cache already, and what is put or removed
 * later, counts more than the snapshot.
 *
 * If it fails, the cache is as it was. Returns HOTSET_OK; HOTSET_IO, and errno (ENOENT: there is
 * no file); HOTSET_NOT_A_SNAPSHOT, HOTSET_CORRUPT, HOTSET_INCOMPATIBLE; HOTSET_TOO_LARGE for a file
 * that is too large for this machine; HOTSET_NO_MEMORY if there are no memory or addresses for the
 * file; HOTSET_INVALID, also for a cache with a destructor; HOTSET_CLOSED, HOTSET_FORKED,
 * HOTSET_PANIC. Any thread may call it, callbacks included.
 */
hotset_status hotset_load(hotset_cache *cache,
                          const char *path,
                          const hotset_snapshot_options *options,
                          uint64_t *entries);

/**
 * Brings in all that is still in a snapshot only, the hottest entries as far as there is room, and lets go of the file. Stores how
 * many came in, and how many could not, since their records are corrupt. Others may use the cache meanwhile.
 *
 * Returns HOTSET_OK; HOTSET_INVALID, HOTSET_NO_MEMORY, HOTSET_CLOSED, HOTSET_FORKED, HOTSET_PANIC. Any thread may call it, callbacks
 * included.
 */
hotset_status hotset_warm(hotset_cache *cache,
                          uint64_t *entries,
                          uint64_t *corrupt);

/* ---------------------------------------------------------------------------------------------------------------------
 * 9. Texts and versions
 * --------------------------------------------------------------------------------------------------------------------- */

/**
 * What a status means, in English: never NULL, for any number, and valid for ever. Any thread may call it, callbacks included.
 */
const char *hotset_strerror(hotset_status status);

/**
 * The version of the library that is linked, as HOTSET_VERSION is that of the header: major * 1000000 + minor * 1000 + patch.
 */
uint32_t hotset_version(void);

/**
 * The version of the library that is linked, as HOTSET_VERSION_STRING is that of the header; valid for ever.
 */
const char *hotset_version_string(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HOTSET_H */
