/* No call can be canceled, and a call that succeeds keeps errno.
 *
 * Every call is made by a thread that has a request to cancel it pending, and again with every
 * function of libc that is a cancellation point, malloc replaced by ones that check and that set
 * errno. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static __thread int inside; /* the thread is in a call of hotset */
static __thread int quiet;  /* the replacements are at work themselves */
static __thread int cancel; /* the thread is to request its own cancellation at the next point */
static int points;          /* cancellation points that calls have reached */

/* At a cancellation point: the thread must not be cancelable. */
static void point(const char *name) {
    int before, mine = errno;
    if (!inside || quiet) return;
    quiet = 1;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    pthread_setcancelstate(before, &before);
    if (before != PTHREAD_CANCEL_DISABLE) {
        fprintf(stderr, "%s is called while the thread can be canceled\n", name);
        abort();
    }
    __atomic_fetch_add(&points, 1, __ATOMIC_RELAXED);
    if (cancel) pthread_cancel(pthread_self());
    cancel = 0;
    quiet = 0;
    errno = mine;
}

#define REPLACE(type, name, parameters, arguments)                                                                     \
    type name parameters {                                                                                             \
        static type(*real) parameters;                                                                                 \
        point(#name);                                                                                                  \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);                                                          \
        return real arguments;                                                                                         \
    }
REPLACE(ssize_t, read, (int fd, void *to, size_t len), (fd, to, len))
REPLACE(ssize_t, write, (int fd, const void *from, size_t len), (fd, from, len))
REPLACE(ssize_t, pread64, (int fd, void *to, size_t len, off64_t at), (fd, to, len, at))
REPLACE(ssize_t, pwrite64, (int fd, const void *from, size_t len, off64_t at), (fd, from, len, at))
REPLACE(int, close, (int fd), (fd))
REPLACE(int, fsync, (int fd), (fd))
REPLACE(int, fdatasync, (int fd), (fd))
REPLACE(int, nanosleep, (const struct timespec *time, struct timespec *left), (time, left))
REPLACE(int, clock_nanosleep, (clockid_t clock, int flags, const struct timespec *time, struct timespec *left),
        (clock, flags, time, left))
REPLACE(int, pthread_join, (pthread_t thread, void **result), (thread, result))
REPLACE(int, pthread_cond_wait, (pthread_cond_t * cond, pthread_mutex_t *mutex), (cond, mutex))
REPLACE(ssize_t, getrandom, (void *to, size_t len, unsigned flags), (to, len, flags))

int open64(const char *path, int flags, ...) {
    static int (*real)(const char *, int, ...);
    point("open");
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "open64");
    return real(path, flags, 0600);
}

/* A malloc that sets errno, as it may where it succeeds. (Not calloc, which libc itself calls when
 * a thread is new.) */
#ifndef __SANITIZE_ADDRESS__
extern void *__libc_malloc(size_t), *__libc_realloc(void *, size_t);
void *malloc(size_t size) {
    void *memory = __libc_malloc(size);
    if (inside) errno = EILSEQ;
    return memory;
}
void *realloc(void *old, size_t size) {
    void *memory = __libc_realloc(old, size);
    if (inside) errno = EILSEQ;
    return memory;
}
#endif

static char path[100];
static hotset_cache *cache, *owning, *idle;
static hotset_iter *iter;
static hotset_value *value;

/* A callback whose effects must differ from those of a call: it reaches cancellation points, with a
 * request pending, and sets errno. */
static void user(void) {
    pthread_testcancel();
    CHECK(write(-1, "", 0) == -1 && errno == EBADF);
    pthread_testcancel();
}

static void removed(void *arg, const void *key, size_t key_len, const void *data, size_t len, hotset_cause cause) {
    (void)arg, (void)key, (void)key_len, (void)data, (void)len, (void)cause;
    user();
}

static void destroyed(void *arg, void *data, size_t len) {
    (void)arg, (void)data, (void)len;
    user();
}

static uint64_t now(void *arg) {
    user();
    return __atomic_load_n((uint64_t *)arg, __ATOMIC_RELAXED);
}

static hotset_status computed(void *arg, const hotset_slice *current, hotset_reply *reply) {
    (void)arg, (void)current;
    user();
    return hotset_reply_set(reply, S("computed"), HOTSET_TTL_DEFAULT);
}

static hotset_status loaded(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    (void)arg, (void)key, (void)key_len;
    user();
    return hotset_reply_set(reply, S("loaded"), HOTSET_TTL_DEFAULT);
}

static void progress(void *arg, uint64_t done, uint64_t total) {
    (void)arg, (void)done, (void)total;
    user();
}

static hotset_snapshot_options snapshot_options(int eager) {
    hotset_snapshot_options options;
    OK(hotset_snapshot_options_init(&options, sizeof options));
    options.progress = progress;
    options.eager = eager;
    return options;
}

/* Opens a cache that calls back. */
static hotset_cache *calling(uint64_t *time, uint64_t ticker_ms) {
    hotset_options options = defaults();
    hotset_cache *made;
    options.max_entries = 20;
    options.on_removal = removed;
    options.destructor = destroyed;
    options.ticker_ms = ticker_ms;
    options.ttl_ms = 10;
    if (time) options.clock = now, options.clock_arg = time;
    OK(hotset_open(&options, &made));
    return made;
}

static uint64_t number;
static hotset_bytes bytes;
static char buffer[100];
static size_t len;
static int64_t sum;
static const void *data;
static uint64_t time_ns = 1;

/* The calls: each succeeds. */
static void open_it(void) { idle = calling(NULL, 1); }
static void close_it(void) { OK(hotset_close(idle)); }
static void open_clocked(void) { owning = calling(&time_ns, 0); }
static void close_clocked(void) { OK(hotset_close(owning)); }
static void put(void) { OK(hotset_put(cache, S("k"), S("v"))); }
static void put_owned(void) { OK(hotset_put(owning, S("k"), S("v"))); }
static void put_many(void) {
    for (int i = 0; i < 200; i++) OK(hotset_put(owning, &i, sizeof i, S("v")));
}
static void get_owned(void) { OK(hotset_get(owning, S("k"), &value)); OK(hotset_release(value)); }
static void get_expiring(void) { /* of a key that never expires, while others do */
    OK(hotset_put_ttl(owning, S("kept"), S("v"), HOTSET_TTL_NONE));
    time_ns += 1000000000;
    OK(hotset_get(owning, S("kept"), &value));
    OK(hotset_release(value));
}
static void put_ttl(void) { OK(hotset_put_ttl(cache, S("t"), S("v"), 100000)); }
static void put_if_absent(void) { OK(hotset_put_if_absent(cache, S("absent"), S("v"), 0, NULL)); }
static void get(void) { OK(hotset_get(cache, S("k"), &value)); }
static void value_data(void) { OK(hotset_value_data(value, &data, &len)); }
static void value_key(void) { OK(hotset_value_key(value, &data, &len)); }
static void value_version(void) { OK(hotset_value_version(value, &number)); }
static void retain(void) { OK(hotset_retain(value)); OK(hotset_release(value)); }
static void cas(void) { OK(hotset_cas(cache, S("k"), number, S("w"), 0)); }
static void release(void) { OK(hotset_release(value)); }
static void get_bytes(void) { OK(hotset_get_bytes(cache, S("k"), &bytes)); OK(hotset_release(bytes.handle)); }
static void get_copy(void) { OK(hotset_get_copy(cache, S("k"), buffer, sizeof buffer, &len)); }
static void get_many(void) {
    hotset_slice key = {"k", 1};
    OK(hotset_get_many(cache, &key, 1, &value, NULL));
    OK(hotset_release(value));
}
static void contains(void) { OK(hotset_contains(cache, S("k"))); }
static void remaining(void) { OK(hotset_remaining(cache, S("t"), &number)); }
static void add(void) { OK(hotset_add(cache, S("counter"), 2, 0, &sum)); }
static void compute(void) { OK(hotset_compute(cache, S("c"), computed, NULL, NULL)); }
static void load_one(void) {
    OK(hotset_get_or_load(cache, S("l"), loaded, NULL, &value));
    OK(hotset_release(value));
}
static void load_hit(void) {
    OK(hotset_get_or_load(cache, S("l"), loaded, NULL, &value));
    OK(hotset_release(value));
}
static void stats(void) {
    hotset_stats_data all;
    OK(hotset_stats(cache, &all, sizeof all));
}
static void numbers(void) {
    OK(hotset_len(cache, &number));
    OK(hotset_weight(cache, &number));
    OK(hotset_capacity(cache, &number));
}
static void iterate(void) {
    OK(hotset_iter_open(cache, &iter));
    while (hotset_iter_next(iter, &value) == HOTSET_OK) OK(hotset_release(value));
    OK(hotset_iter_close(iter));
}
static void save(void) {
    hotset_snapshot_options options = snapshot_options(0);
    OK(hotset_save(cache, path, &options, &number));
}
static void clear(void) { OK(hotset_clear(cache)); }
static void load(void) {
    hotset_snapshot_options options = snapshot_options(0);
    OK(hotset_load(cache, path, &options, &number));
}
static void get_restored(void) { get(), release(); }
static void warm(void) { OK(hotset_warm(cache, &number, &number)); }
static void load_eagerly(void) {
    hotset_snapshot_options options = snapshot_options(1);
    OK(hotset_load(cache, path, &options, &number));
}
static void set_capacity(void) { OK(hotset_set_capacity(cache, 500)); }
static void run_pending(void) { OK(hotset_run_pending(cache)); }
static void take(void) {
    OK(hotset_take(cache, S("k"), &value));
    OK(hotset_release(value));
}
static void remove_it(void) { OK(hotset_remove(cache, S("t"))); }

struct call {
    const char *name;
    void (*call)(void);
};
static struct call calls[] = {
#define CALL(name) {#name, name}
    CALL(open_it),      CALL(close_it),     CALL(open_clocked), CALL(put_owned), CALL(get_owned),    CALL(put_many),
    CALL(get_expiring), CALL(close_clocked), CALL(put),         CALL(put_ttl),   CALL(put_if_absent), CALL(get),
    CALL(value_data),   CALL(value_key),    CALL(value_version), CALL(retain),   CALL(cas),          CALL(release),
    CALL(get_bytes),    CALL(get_copy),     CALL(get_many),     CALL(contains),  CALL(remaining),    CALL(add),
    CALL(compute),      CALL(load_one),     CALL(load_hit),     CALL(stats),     CALL(numbers),      CALL(iterate),
    CALL(save),         CALL(clear),        CALL(load),         CALL(get_restored), CALL(warm),      CALL(clear),
    CALL(load_eagerly), CALL(set_capacity), CALL(run_pending),  CALL(take),      CALL(remove_it),
};

/* The calls that are cancellation points when they begin. */
static int begins_with_a_point(void (*call)(void)) {
    return call == save || call == load || call == load_eagerly || call == warm;
}

/* Makes one call with a request to cancel pending: it takes effect after the call, and not in it.
 */
static void *canceled(void *argument) {
    struct call *call = argument;
    int before, type;
    if (begins_with_a_point(call->call)) cancel = 1;
    else pthread_cancel(pthread_self());
    inside = 1;
    call->call();
    inside = 0;
    if (cancel) pthread_cancel(pthread_self());
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &type);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
    CHECK(before == PTHREAD_CANCEL_ENABLE && type == PTHREAD_CANCEL_DEFERRED);
    pthread_testcancel();
    return "it was not canceled";
}

static void *with_errno(void *call) {
    inside = 1;
    errno = EXDEV;
    ((struct call *)call)->call();
    if (errno != EXDEV) return "it changed errno";
    inside = 0;
    return NULL;
}

static void in_threads(void *(*thread)(void *), void *expected) {
    cache = cache_of(1000);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        pthread_t id;
        void *result;
        CHECK(pthread_create(&id, NULL, thread, &calls[i]) == 0);
        CHECK(pthread_join(id, &result) == 0);
        if (result != expected) {
            fprintf(stderr, "%s: %s\n", calls[i].name, result ? (const char *)result : "it was canceled");
            abort();
        }
    }
    OK(hotset_close(cache));
}

static void *canceled_at_once(void *argument) {
    pthread_cancel(pthread_self());
    ((struct call *)argument)->call();
    return "it was not canceled";
}

/* A thread that does nothing but save can be canceled, and then the last save was not begun. */
static void points_at_the_beginning(void) {
    cache = cache_of(10);
    CHECK(unlink(path) == 0);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        pthread_t id;
        void *result;
        if (!begins_with_a_point(calls[i].call)) continue;
        CHECK(pthread_create(&id, NULL, canceled_at_once, &calls[i]) == 0);
        CHECK(pthread_join(id, &result) == 0 && result == PTHREAD_CANCELED);
        CHECK(access(path, F_OK) == -1);
    }
    save();
    OK(hotset_close(cache));
}

/* A thread that cannot be canceled cannot be afterwards. */
static void disabled(void) {
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    cache = cache_of(10);
    put(), compute(), save(), load_one();
    OK(hotset_close(cache));
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
    CHECK(before == PTHREAD_CANCEL_DISABLE);
}

/* A failure of the system leaves its errno, and one of a loader the loader's. */
static hotset_status failing(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    (void)arg, (void)key, (void)key_len, (void)reply;
    errno = ERANGE;
    return HOTSET_LOAD_FAILED;
}

static void failures(void) {
    cache = cache_of(10);
    errno = 0;
    IS(HOTSET_IO, hotset_load(cache, "/no/such/file", NULL, &number));
    CHECK(errno == ENOENT);
    errno = 0;
    IS(HOTSET_LOAD_FAILED, hotset_get_or_load(cache, S("k"), failing, NULL, &value));
    CHECK(errno == ERANGE);
    OK(hotset_close(cache));
}

int main(void) {
    char directory[] = "/tmp/hotset-cancel-XXXXXX";
    CHECK(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/snapshot", directory);
    in_threads(with_errno, NULL);
    in_threads(canceled, PTHREAD_CANCELED);
    points_at_the_beginning();
    disabled();
    failures();
    CHECK(points > 20);
    CHECK(unlink(path) == 0 && rmdir(directory) == 0);
    puts("cancel: ok");
    return 0;
}
