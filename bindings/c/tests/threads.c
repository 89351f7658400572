/* Several threads make all calls concurrently, in a cache that is too small. A value contains its
 * key, so a wrong one is found. */
#include "check.h"
#include <pthread.h>

enum { THREADS = 4, KEYS = 200 };
static hotset_cache *cache;
static int rounds = 20000;
static long live; /* values with a destructor that has not run */

typedef struct {
    uint64_t key, twice;
} record;

static record *make(uint64_t key) {
    record *r = malloc(sizeof *r);
    CHECK(r);
    r->key = key;
    r->twice = 2 * key;
    __atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
    return r;
}

static void destroy(void *arg, void *value, size_t len) {
    (void)arg;
    CHECK(len == sizeof(record *));
    free(*(record **)value);
    __atomic_fetch_sub(&live, 1, __ATOMIC_RELAXED);
}

static void discard(record *r) {
    free(r);
    __atomic_fetch_sub(&live, 1, __ATOMIC_RELAXED);
}

static void right(const hotset_slice *slice, uint64_t key) {
    record *const *r = slice->data;
    CHECK(slice->len == sizeof *r && (*r)->key == key && (*r)->twice == 2 * key);
}

static hotset_status load(void *arg, const void *key, size_t len, hotset_reply *reply) {
    record *r = make(*(const uint64_t *)arg);
    hotset_status status;
    CHECK(len == 8 && memcmp(key, arg, 8) == 0);
    if (*(const uint64_t *)arg % 7 == 0) {
        discard(r);
        return (hotset_status)1007;
    }
    status = hotset_reply_set(reply, &r, sizeof r, HOTSET_TTL_DEFAULT);
    CHECK(status == HOTSET_OK);
    return status;
}

static hotset_status change(void *arg, const hotset_slice *current, hotset_reply *reply) {
    uint64_t key = *(const uint64_t *)arg;
    record *r;
    if (current) {
        right(current, key);
        return key % 2 ? hotset_reply_remove(reply) : HOTSET_OK;
    }
    r = make(key);
    return hotset_reply_set(reply, &r, sizeof r, HOTSET_TTL_NONE);
}

static void look(hotset_status status, hotset_value *value, uint64_t key) {
    hotset_slice slice;
    if (status != HOTSET_OK || !value) return;
    OK(hotset_value_data(value, &slice.data, &slice.len));
    right(&slice, key);
    OK(hotset_release(value));
}

static void *work(void *arg) {
    uint64_t random = 88172645463325252u + (uint64_t)(uintptr_t)arg;
    hotset_value *held = NULL;
    uint64_t held_key = 0;
    int i;
    for (i = 0; i < rounds; i++) {
        uint64_t key, version;
        hotset_value *value = NULL;
        hotset_status status;
        record *r;
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        key = random / 16 % KEYS;
        switch (random % 16) {
        case 0:
            r = make(key);
            OK(hotset_put(cache, &key, 8, &r, sizeof r));
            break;
        case 1:
            r = make(key);
            OK(hotset_put_ttl(cache, &key, 8, &r, sizeof r, 1));
            break;
        case 2:
            r = make(key);
            status = hotset_put_if_absent(cache, &key, 8, &r, sizeof r, 1000, &value);
            CHECK(status == HOTSET_OK || status == HOTSET_EXISTS);
            if (status != HOTSET_OK) discard(r);
            look(HOTSET_OK, value, key);
            break;
        case 3: hotset_remove(cache, &key, 8); break;
        case 4:
            status = hotset_take(cache, &key, 8, &value);
            look(status, value, key);
            break;
        case 5:
            OK(hotset_compute(cache, &key, 8, change, &key, &value));
            look(HOTSET_OK, value, key);
            break;
        case 6:
            if (hotset_get(cache, &key, 8, &value) != HOTSET_OK) break;
            OK(hotset_value_version(value, &version));
            look(HOTSET_OK, value, key);
            r = make(key);
            status = hotset_cas(cache, &key, 8, version, &r, sizeof r, HOTSET_TTL_KEEP);
            CHECK(status == HOTSET_OK || status == HOTSET_NOT_FOUND || status == HOTSET_CONFLICT);
            if (status != HOTSET_OK) discard(r);
            break;
        case 7:
        case 8:
            status = hotset_get_or_load(cache, &key, 8, load, &key, &value);
            CHECK(status == HOTSET_OK || status == 1007);
            look(status, value, key);
            break;
        case 9: /* Holds on for a while. */
            look(HOTSET_OK, held, held_key);
            held = NULL;
            hotset_get(cache, &key, 8, &held);
            held_key = key;
            break;
        case 10:
            if (i % 64 == 0) {
                hotset_iter *iter;
                OK(hotset_iter_open(cache, &iter));
                while (hotset_iter_next(iter, &value) == HOTSET_OK) OK(hotset_release(value));
                OK(hotset_iter_close(iter));
            }
            break;
        case 11:
            if (i % 512 == 0) OK(hotset_clear(cache));
            break;
        default:
            status = hotset_get(cache, &key, 8, &value);
            look(status, value, key);
        }
    }
    look(HOTSET_OK, held, held_key);
    return NULL;
}

/* Each of these adds is seen once. */
static void *count(void *arg) {
    int i;
    (void)arg;
    for (i = 0; i < rounds; i++) OK(hotset_add(cache, S("n"), 1, HOTSET_TTL_NONE, NULL));
    return NULL;
}

/* One load for all callers. */
static int loaded;
static hotset_status load_once(void *arg, const void *key, size_t len, hotset_reply *reply) {
    (void)arg, (void)key, (void)len;
    __atomic_fetch_add(&loaded, 1, __ATOMIC_SEQ_CST);
    return hotset_reply_set(reply, "v", 1, 0);
}
static void *ask(void *arg) {
    hotset_value *value;
    uint64_t key;
    (void)arg;
    for (key = 0; key < 500; key++) {
        OK(hotset_get_or_load(cache, &key, 8, load_once, NULL, &value));
        OK(hotset_release(value));
    }
    return NULL;
}

static void together(void *(*what)(void *)) {
    pthread_t threads[THREADS];
    int i;
    for (i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, what, (void *)(uintptr_t)i) == 0);
    for (i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char **argv) {
    hotset_options options = defaults();
    int64_t sum;
    if (argc > 1) rounds = atoi(argv[1]);
    options.max_entries = KEYS / 2;
    options.destructor = destroy;
    options.ticker_ms = 1;
    OK(hotset_open(&options, &cache));
    together(work);
    OK(hotset_close(cache));
    CHECK(live == 0);

    cache = cache_of(1000);
    together(count);
    OK(hotset_add(cache, S("n"), 0, 0, &sum));
    CHECK(sum == (int64_t)THREADS * rounds);
    OK(hotset_close(cache));

    cache = cache_of(1000);
    together(ask);
    CHECK(loaded == 500);
    OK(hotset_close(cache));
    puts("threads: ok");
    return 0;
}
