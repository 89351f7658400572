/* Every call survives a malloc that refuses memory: it returns HOTSET_NO_MEMORY, or needs none.
 * malloc is replaced by one that refuses the n-th allocation of a mixed workload, for every n, and
 * then every later one too.
 *
 * `no_memory` prints how many of the runs were aborted, and fails if more were than ABORTS;
 * `no_memory trace` also writes the call stacks of the allocations that aborted. */
#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

/* Allocations that the engine does not survive yet. */
#ifndef ABORTS
#define ABORTS 0
#endif

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static __thread int counted; /* the thread is in the workload, and not in libc's own business */
static long refuse_at, allocations;
static int refuse_later, trace;

static int refused(void) {
    if (!counted) return 0;
    allocations++;
    if (allocations < refuse_at || (allocations > refuse_at && !refuse_later)) return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) { return refused() ? NULL : __libc_malloc(size); }
/* (What libc itself allocates so, when a thread's first destructor is registered, it cannot do
 * without; hotset's sizes are 1.) */
void *calloc(size_t count, size_t size) { return size == 1 && refused() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return refused() ? NULL : __libc_realloc(old, size); }
void *memalign(size_t align, size_t size) { return refused() ? NULL : __libc_memalign(align, size); }
void *aligned_alloc(size_t align, size_t size) { return refused() ? NULL : __libc_memalign(align, size); }
int posix_memalign(void **memory, size_t align, size_t size) {
    if (refused()) return ENOMEM;
    *memory = __libc_memalign(align, size);
    return *memory ? 0 : ENOMEM;
}

/* The files are of no concern here, and a thousand times on a disk they take long. */
int fsync(int fd) { return fd < 0 ? -1 : 0; }
int fdatasync(int fd) { return fd < 0 ? -1 : 0; }

static int done(hotset_status status, const char *call, int line) {
    if (status == HOTSET_OK) return 1;
    if (status != HOTSET_NO_MEMORY && !(status == HOTSET_IO && errno == ENOMEM)) {
        fprintf(stderr, "%d: %s: %d, %s\n", line, call, (int)status, hotset_strerror(status));
        _exit(3);
    }
    return 0;
}
/* Whether a call was done; if it was not, then for want of memory. */
#define DONE(call) done((call), #call, __LINE__)

static int owned, freed;

static void destroyed(void *arg, void *data, size_t len) {
    (void)arg, (void)data, (void)len;
    freed++;
}
static void removed(void *arg, const void *key, size_t key_len, const void *data, size_t len, hotset_cause cause) {
    (void)arg, (void)key, (void)key_len, (void)data, (void)len, (void)cause;
}
static uint64_t now(void *arg) { return *(uint64_t *)arg; }
static hotset_status computed(void *arg, const hotset_slice *current, hotset_reply *reply) {
    (void)arg, (void)current;
    return hotset_reply_set(reply, S("computed"), HOTSET_TTL_DEFAULT);
}
static hotset_status loaded(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    (void)arg, (void)key, (void)key_len;
    return hotset_reply_set(reply, S("loaded"), HOTSET_TTL_DEFAULT);
}

/* What is there is what was put, whatever was refused. */
static void gets(hotset_cache *cache, uint64_t key) {
    hotset_value *value;
    hotset_status status = hotset_get(cache, &key, sizeof key, &value);
    if (status == HOTSET_NOT_FOUND || !DONE(status)) return;
    const void *data;
    size_t len;
    OK(hotset_value_data(value, &data, &len));
    CHECK(len == sizeof key && memcmp(data, &key, sizeof key) == 0);
    OK(hotset_release(value));
}

static void workload(hotset_options options, const char *path) {
    hotset_cache *cache;
    hotset_value *value, *values[70];
    hotset_slice keys[70];
    hotset_iter *iter;
    uint64_t numbers[70], number, i;
    int64_t sum;
    hotset_status status;
    owned = freed = 0;
    if (!DONE(hotset_open(&options, &cache))) return;
    for (i = 0; i < 150; i++) {
        if (DONE(hotset_put(cache, &i, sizeof i, &i, sizeof i))) owned++;
        gets(cache, i / 2);
    }
    for (i = 0; i < 70; i++) numbers[i] = i * 2, keys[i].data = &numbers[i], keys[i].len = sizeof *numbers;
    OK(hotset_get_many(cache, keys, 70, values, NULL));
    for (i = 0; i < 70; i++)
        if (values[i]) OK(hotset_release(values[i]));
    for (i = 0; i < 5; i++) {
        DONE(hotset_add(cache, &i, 4, 1, 0, &sum));
        if (DONE(hotset_compute(cache, &i, 5, computed, NULL, NULL))) owned++;
        if (DONE(hotset_get_or_load(cache, &i, 6, loaded, NULL, &value))) OK(hotset_release(value));
        if (DONE(hotset_put_ttl(cache, &i, 7, S("ttl"), 100000 + i))) owned++;
        status = hotset_put_if_absent(cache, &i, sizeof i, S("absent"), 0, NULL);
        if (status != HOTSET_EXISTS) DONE(status);
        status = hotset_remove(cache, &i, sizeof i);
        if (status != HOTSET_NOT_FOUND) DONE(status);
    }
    if (DONE(hotset_iter_open(cache, &iter))) {
        while ((status = hotset_iter_next(iter, &value)) == HOTSET_OK) OK(hotset_release(value));
        if (status != HOTSET_NOT_FOUND) DONE(status);
        OK(hotset_iter_close(iter));
    }
    if (!options.destructor) {
        if (DONE(hotset_save(cache, path, NULL, &number))) {
            DONE(hotset_clear(cache));
            DONE(hotset_load(cache, path, NULL, &number));
            gets(cache, 140);
            DONE(hotset_warm(cache, &number, &number));
        }
    }
    DONE(hotset_set_capacity(cache, 20));
    DONE(hotset_run_pending(cache));
    OK(hotset_close(cache));
}

static const char *aborted(int status) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return NULL;
    return WIFSIGNALED(status) ? "aborted" : "failed";
}

/* The runs of one workload; how many were aborted. */
static int runs(const char *name, hotset_options options, const char *path, int later) {
    int status, count = 0;
    for (long n = 1;; n++) {
        long pipes[2], *reached = pipes;
        int ends[2];
        CHECK(pipe(ends) == 0);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            if (!trace) CHECK(freopen("/dev/null", "w", stderr));
            refuse_at = n;
            refuse_later = later;
            counted = 1;
            workload(options, path);
            counted = 0;
            CHECK(write(ends[1], &allocations, sizeof allocations) == sizeof allocations);
            _exit(0);
        }
        close(ends[1]);
        CHECK(waitpid(pid, &status, 0) == pid);
        *reached = 0;
        if (read(ends[0], reached, sizeof *reached) != sizeof *reached) *reached = 0;
        close(ends[0]);
        if (aborted(status)) {
            count++;
            if (trace) dprintf(trace, "%s: %s, allocation %ld\n", name, aborted(status), n);
            if (WIFEXITED(status)) {
                fprintf(stderr, "%s: allocation %ld: exit %d\n", name, n, WEXITSTATUS(status));
                exit(1);
            }
        } else if (*reached < n) {
            printf("%s, %s: %d of %ld runs were aborted\n", name, later ? "all later ones refused" : "one refused", count, n);
            return count;
        }
    }
}

int main(int argc, char **argv) {
    hotset_options plain = defaults(), timed = plain, owning = plain;
    static uint64_t time = 1;
    char path[] = "/tmp/hotset-memory-XXXXXX";
    int count = 0;
    (void)argv;
    CHECK(mkstemp(path) >= 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    trace = argc > 1 ? 2 : 0;
    CHECK(setenv("RUST_BACKTRACE", trace ? "1" : "0", 1) == 0);
    plain.max_entries = 80;
    timed.max_bytes = 12000;
    timed.ttl_ms = 1000000;
    timed.clock = now;
    timed.clock_arg = &time;
    owning.max_entries = 30;
    owning.on_removal = removed;
    owning.destructor = destroyed;
    for (int later = 0; later < 2; later++) {
        count += runs("entries", plain, path, later);
        count += runs("bytes and times", timed, path, later);
        count += runs("callbacks", owning, path, later);
    }
    CHECK(unlink(path) == 0);
    if (count > ABORTS) return printf("%d runs were aborted, at most %d may be\n", count, ABORTS), 1;
    puts("no_memory: ok");
    return 0;
}
