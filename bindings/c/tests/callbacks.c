/* User code that the library calls: compute, loaders, removal callbacks, destructors, the ticker.
 */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define MINE ((hotset_status)1234)

/* ---- compute */

typedef struct {
    const char *expected; /* NULL: absent */
    const char *value;    /* NULL: see below */
    int remove, calls;
    hotset_status status;
} plan;

static hotset_status follow(void *arg, const hotset_slice *current, hotset_reply *reply) {
    plan *p = arg;
    p->calls++;
    if (p->expected == NULL) CHECK(current == NULL);
    else CHECK(current && current->len == strlen(p->expected) && !memcmp(current->data, p->expected, current->len));
    if (p->value) OK(hotset_reply_set(reply, p->value, strlen(p->value), HOTSET_TTL_DEFAULT));
    if (p->remove) OK(hotset_reply_remove(reply));
    return p->status;
}

static hotset_status bad_replies(void *arg, const hotset_slice *current, hotset_reply *reply) {
    (void)current;
    IS(HOTSET_INVALID, hotset_reply_set(NULL, "v", 1, 0));
    IS(HOTSET_INVALID, hotset_reply_set(reply, NULL, 1, 0));
    IS(HOTSET_INVALID, hotset_reply_set(reply, "v", (size_t)-1, 0));
    IS(HOTSET_INVALID, hotset_reply_remove(NULL));
    IS(HOTSET_REENTRANT, hotset_close(*(hotset_cache **)arg));
    OK(hotset_put(*(hotset_cache **)arg, S("elsewhere"), S("v")));
    OK(hotset_reply_set(reply, "first", 5, 0));
    OK(hotset_reply_set(reply, "last", 4, 0));
    return hotset_reply_set(reply, "v", (size_t)-1 >> 2, 0);
}

static void computes(void) {
    hotset_cache *cache = cache_of(1000);
    hotset_value *value;
    plan p = {NULL, "one", 0, 0, HOTSET_OK};
    OK(hotset_compute(cache, S("k"), follow, &p, &value));
    CHECK(holds(value, "one") && p.calls == 1);
    p.expected = "one", p.value = NULL;
    OK(hotset_compute(cache, S("k"), follow, &p, &value));
    CHECK(holds(value, "one") && has(cache, "k", "one"));
    p.value = "two", p.status = MINE;
    IS(MINE, hotset_compute(cache, S("k"), follow, &p, &value));
    CHECK(value == NULL && has(cache, "k", "one"));
    p.status = HOTSET_OK;
    OK(hotset_compute(cache, S("k"), follow, &p, NULL));
    CHECK(has(cache, "k", "two"));
    p.expected = "two", p.remove = 1;
    OK(hotset_compute(cache, S("k"), follow, &p, &value));
    CHECK(value == NULL && !has(cache, "k", "two"));
    p.expected = NULL, p.value = NULL;
    OK(hotset_compute(cache, S("k"), follow, &p, &value));
    CHECK(value == NULL);
    p.remove = 0;
    OK(hotset_compute(cache, S("k"), follow, &p, &value));
    CHECK(value == NULL && p.calls == 7);
    IS(HOTSET_NO_MEMORY, hotset_compute(cache, S("k"), bad_replies, &cache, &value));
    CHECK(value == NULL && has(cache, "elsewhere", "v") && hotset_contains(cache, S("k")) == HOTSET_NOT_FOUND);
    IS(HOTSET_INVALID, hotset_compute(NULL, S("k"), follow, &p, &value));
    IS(HOTSET_INVALID, hotset_compute(cache, NULL, 1, follow, &p, &value));
    IS(HOTSET_INVALID, hotset_compute(cache, S("k"), NULL, &p, &value));
    OK(hotset_close(cache));
}

/* ---- loaders */

static hotset_cache *loading;

static hotset_status load(void *arg, const void *key, size_t len, hotset_reply *reply) {
    plan *p = arg;
    CHECK(len == 1 && memcmp(key, "k", 1) == 0);
    p->calls++;
    if (p->value) OK(hotset_reply_set(reply, p->value, strlen(p->value), 60000));
    if (p->remove) OK(hotset_reply_remove(reply));
    return p->status;
}

static hotset_status load_itself(void *arg, const void *key, size_t len, hotset_reply *reply) {
    hotset_value *value;
    (void)reply;
    return hotset_get_or_load(loading, key, len, load_itself, arg, &value);
}

static hotset_status load_overtaken(void *arg, const void *key, size_t len, hotset_reply *reply) {
    (void)arg;
    OK(hotset_put(loading, key, len, "newer", 5));
    return hotset_reply_set(reply, "older", 5, 0);
}

static void loads(void) {
    hotset_cache *cache = loading = cache_of(1000);
    hotset_value *value;
    hotset_stats_data stats;
    uint64_t ms;
    plan p = {NULL, "v", 0, 0, MINE};
    IS(MINE, hotset_get_or_load(cache, S("k"), load, &p, &value));
    CHECK(value == NULL && p.calls == 1);
    p.status = (hotset_status)-5;
    IS((hotset_status)-5, hotset_get_or_load(cache, S("k"), load, &p, &value));
    p.status = HOTSET_OK, p.value = NULL;
    IS(HOTSET_NOT_FOUND, hotset_get_or_load(cache, S("k"), load, &p, &value));
    p.value = "v", p.remove = 1;
    IS(HOTSET_NOT_FOUND, hotset_get_or_load(cache, S("k"), load, &p, &value));
    CHECK(value == NULL && p.calls == 4);
    p.remove = 0;
    OK(hotset_get_or_load(cache, S("k"), load, &p, &value));
    CHECK(holds(value, "v") && p.calls == 5);
    OK(hotset_get_or_load(cache, S("k"), load, &p, &value));
    CHECK(holds(value, "v") && p.calls == 5);
    OK(hotset_get(cache, S("k"), &value));
    {
        /* Key and value lie in one place, as of any entry. */
        const void *key;
        size_t len;
        OK(hotset_value_key(value, &key, &len));
        CHECK(len == 1 && memcmp(key, "k", 1) == 0 && holds(value, "v"));
    }
    OK(hotset_remaining(cache, S("k"), &ms));
    CHECK(ms > 0 && ms <= 60000);
    OK(hotset_stats(cache, &stats, sizeof stats));
    CHECK(stats.loads == 1 && stats.load_failures == 4 && stats.hits == 2);
    {
        /* The bounds ascend, and every load is in one bucket. */
        uint64_t loads = 0, last = 0;
        int i;
        for (i = 0; i < HOTSET_LOAD_BUCKETS; i++) {
            CHECK(stats.load_buckets[i].upper_ns > last);
            last = stats.load_buckets[i].upper_ns;
            loads += stats.load_buckets[i].count;
        }
        CHECK(stats.load_buckets[0].upper_ns == 10000 && last == UINT64_MAX);
        CHECK(stats.load_buckets[HOTSET_LOAD_BUCKETS - 2].upper_ns == UINT64_C(100000000000));
        CHECK(loads == 5);
    }
    IS(HOTSET_REENTRANT, hotset_get_or_load(cache, S("self"), load_itself, NULL, &value));
    CHECK(value == NULL);
    OK(hotset_get_or_load(cache, S("new"), load_overtaken, NULL, &value));
    CHECK(holds(value, "older") && has(cache, "new", "newer"));
    IS(HOTSET_INVALID, hotset_get_or_load(NULL, S("k"), load, &p, &value));
    IS(HOTSET_INVALID, hotset_get_or_load(cache, NULL, 1, load, &p, &value));
    IS(HOTSET_INVALID, hotset_get_or_load(cache, S("k"), NULL, &p, &value));
    IS(HOTSET_INVALID, hotset_get_or_load(cache, S("k"), load, &p, NULL));
    OK(hotset_close(cache));
}

/* ---- removal callbacks */

typedef struct {
    hotset_cache *cache;
    int causes[4];
} heard;

static void hear(void *arg, const void *key, size_t key_len, const void *value, size_t value_len, hotset_cause cause) {
    heard *h = arg;
    uint64_t len;
    CHECK(key_len == 8 && value_len == 8 && memcmp(key, value, 8) == 0);
    h->causes[cause]++;
    OK(hotset_len(h->cache, &len));
    IS(HOTSET_REENTRANT, hotset_close(h->cache));
    OK(hotset_contains(h->cache, NULL, 0));
}

static uint64_t now_ns = 1;
static uint64_t clock_of_test(void *arg) {
    (void)arg;
    return now_ns;
}

static void removals(void) {
    hotset_options options = defaults();
    heard h = {0};
    uint64_t i;
    options.max_entries = 101;
    options.on_removal = hear;
    options.on_removal_arg = &h;
    options.clock = clock_of_test;
    OK(hotset_open(&options, &h.cache));
    OK(hotset_put(h.cache, NULL, 0, S("stays")));
    for (i = 0; i < 50; i++) OK(hotset_put(h.cache, &i, 8, &i, 8));
    for (i = 0; i < 10; i++) OK(hotset_put_ttl(h.cache, &i, 8, &i, 8, 10));
    for (i = 10; i < 20; i++) OK(hotset_remove(h.cache, &i, 8));
    now_ns += 1000000000;
    OK(hotset_run_pending(h.cache));
    CHECK(h.causes[HOTSET_REMOVED_REPLACED] == 10 && h.causes[HOTSET_REMOVED_EXPLICIT] == 10);
    CHECK(h.causes[HOTSET_REMOVED_EXPIRED] == 10 && h.causes[HOTSET_REMOVED_SIZE] == 0);
    for (i = 0; i < 300; i++) {
        CHECK(has(h.cache, "", "stays"));
        OK(hotset_put(h.cache, &i, 8, &i, 8));
    }
    CHECK(h.causes[HOTSET_REMOVED_SIZE] >= 190);
    OK(hotset_close(h.cache));
}

/* ---- an iterator whose step calls back: the callback can neither use nor close it */

static hotset_iter *stepping;

static void disturb(void *arg, const void *key, size_t key_len, const void *value, size_t value_len, hotset_cause cause) {
    hotset_value *other;
    (void)key, (void)key_len, (void)value, (void)value_len, (void)cause;
    IS(HOTSET_REENTRANT, hotset_iter_next(stepping, &other));
    CHECK(other == NULL);
    IS(HOTSET_REENTRANT, hotset_iter_close(stepping));
    ++*(int *)arg;
}

static void iterators(void) {
    hotset_options options = defaults();
    hotset_cache *cache;
    hotset_value *value;
    int i, called = 0, entries = 0;
    options.max_entries = 1000;
    options.clock = clock_of_test;
    options.on_removal = disturb;
    options.on_removal_arg = &called;
    OK(hotset_open(&options, &cache));
    for (i = 0; i < 100; i++) OK(hotset_put_ttl(cache, &i, sizeof i, NULL, 0, i < 3 ? 10 : HOTSET_TTL_NONE));
    OK(hotset_run_pending(cache));
    OK(hotset_iter_open(cache, &stepping));
    now_ns += 1000000000;
    for (; hotset_iter_next(stepping, &value) == HOTSET_OK; entries++) OK(hotset_release(value));
    CHECK(called == 3 && entries == 97);
    OK(hotset_iter_close(stepping));
    OK(hotset_close(cache));
}

/* ---- destructors: caches of pointers */

static int destroyed;
static hotset_cache *owner;

static void destroy(void *arg, void *value, size_t len) {
    CHECK(arg == &destroyed && len == sizeof(char *));
    free(*(char **)value);
    *(char **)value = NULL;
    if (owner) IS(HOTSET_REENTRANT, hotset_close(owner));
    destroyed++;
}

static char *pointer(const char *text) {
    char *copy = malloc(strlen(text) + 1);
    CHECK(copy);
    return strcpy(copy, text);
}

static hotset_status set_pointers(void *arg, const hotset_slice *current, hotset_reply *reply) {
    char *first = pointer("first"), *last = pointer("last");
    (void)current;
    OK(hotset_reply_set(reply, &first, sizeof first, 0));
    OK(hotset_reply_set(reply, &last, sizeof last, 0));
    return *(hotset_status *)arg;
}

static void destructors(void) {
    hotset_options options = defaults();
    hotset_cache *cache;
    hotset_bytes bytes;
    hotset_value *value;
    hotset_status mine = MINE, fine = HOTSET_OK;
    char *p = pointer("one"), *unused = pointer("unused");
    int64_t sum;
    options.max_entries = 100;
    options.destructor = destroy;
    options.destructor_arg = &destroyed;
    OK(hotset_open(&options, &cache));
    owner = cache;

    /* What is refused stays the caller's. */
    OK(hotset_put(cache, S("k"), &p, sizeof p));
    IS(HOTSET_EXISTS, hotset_put_if_absent(cache, S("k"), &unused, sizeof unused, 0, NULL));
    IS(HOTSET_CONFLICT, hotset_cas(cache, S("k"), 0, &unused, sizeof unused, 0));
    IS(HOTSET_NOT_FOUND, hotset_cas(cache, S("none"), 0, &unused, sizeof unused, 0));
    IS(HOTSET_INVALID, hotset_put(cache, NULL, 1, &unused, sizeof unused));
    OK(hotset_run_pending(cache));
    CHECK(destroyed == 0 && strcmp(unused, "unused") == 0);
    free(unused);

    /* Not before the last handle is gone. */
    OK(hotset_get_bytes(cache, S("k"), &bytes));
    OK(hotset_remove(cache, S("k")));
    OK(hotset_run_pending(cache));
    CHECK(destroyed == 0 && strcmp(*(char *const *)bytes.data, "one") == 0 && (uintptr_t)bytes.data % 8 == 0);
    OK(hotset_release(bytes.handle));
    CHECK(destroyed == 1);

    /* A value that was set in a callback belongs to the library immediately. */
    IS(MINE, hotset_compute(cache, S("k"), set_pointers, &mine, NULL));
    CHECK(destroyed == 3);
    OK(hotset_compute(cache, S("k"), set_pointers, &fine, &value));
    CHECK(destroyed == 4);
    p = pointer("absent");
    OK(hotset_put_if_absent(cache, S("a"), &p, sizeof p, 0, NULL));
    OK(hotset_add(cache, S("n"), 1, 0, &sum));
    OK(hotset_clear(cache));
    CHECK(destroyed == 5);
    p = pointer("closed");
    OK(hotset_put(cache, S("c"), &p, sizeof p));
    owner = NULL;
    OK(hotset_close(cache));
    CHECK(destroyed == 6);
    OK(hotset_release(value));
    CHECK(destroyed == 7);
}

/* A destructor that runs because a callback answers anew, and answers itself. */

static void answer_too(void *arg, void *value, size_t len) {
    hotset_reply **reply = arg;
    (void)value, (void)len;
    destroyed++;
    if (*reply) {
        hotset_reply *once = *reply;
        *reply = NULL;
        OK(hotset_reply_set(once, "third", 5, 0));
    }
}

static hotset_status answer_twice(void *arg, const hotset_slice *current, hotset_reply *reply) {
    (void)current;
    OK(hotset_reply_set(reply, "first", 5, 0));
    *(hotset_reply **)arg = reply;
    return hotset_reply_set(reply, "second", 6, 0);
}

static void answers(void) {
    hotset_options options = defaults();
    hotset_cache *cache;
    hotset_value *value;
    hotset_reply *reply = NULL;
    destroyed = 0;
    options.max_entries = 100;
    options.destructor = answer_too;
    options.destructor_arg = &reply;
    OK(hotset_open(&options, &cache));
    OK(hotset_compute(cache, S("k"), answer_twice, &reply, &value));
    CHECK(destroyed == 2 && holds(value, "third"));
    OK(hotset_close(cache));
    CHECK(destroyed == 3);
}

/* ---- the ticker: entries expire in an idle cache; no callback after hotset_close */

static int ticks;
static void tick(void *arg, const void *key, size_t key_len, const void *value, size_t value_len, hotset_cause cause) {
    (void)arg, (void)key, (void)key_len, (void)value, (void)value_len;
    CHECK(cause == HOTSET_REMOVED_EXPIRED);
    __atomic_fetch_add(&ticks, 1, __ATOMIC_SEQ_CST);
}

static void ticker(void) {
    hotset_options options = defaults();
    hotset_cache *cache;
    struct timespec moment = {0, 1000000};
    sigset_t signals, before;
    int i;
    options.max_entries = 100;
    options.ticker_ms = 1;
    options.ttl_ms = 5;
    options.on_removal = tick;
    OK(hotset_open(&options, &cache));
    OK(hotset_put(cache, S("k"), S("v")));
    while (__atomic_load_n(&ticks, __ATOMIC_SEQ_CST) == 0) nanosleep(&moment, NULL);
    /* A signal for the process, which this thread waits for, is not taken by the ticker, whose
     * action would be to end it. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    CHECK(pthread_sigmask(SIG_BLOCK, &signals, &before) == 0 && !sigismember(&before, SIGTERM));
    CHECK(kill(getpid(), SIGTERM) == 0 && sigwait(&signals, &i) == 0 && i == SIGTERM);
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    OK(hotset_close(cache));
    for (i = 0; i < 50; i++) {
        OK(hotset_open(&options, &cache));
        OK(hotset_put(cache, S("k"), S("v")));
        OK(hotset_close(cache));
    }
}

int main(void) {
    computes();
    loads();
    removals();
    iterators();
    destructors();
    answers();
    ticker();
    puts("callbacks: ok");
    return 0;
}
