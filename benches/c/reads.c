/* Reads of 100-byte values: hotset, an LRU behind a mutex (lru.h), memcached over loopback, and
 * Rust's Cache::get. Usage: reads MEMCACHED-PORT [ROUNDS]. All are filled alike, take turns in each
 * round, and ratios are medians of the rounds' ratios: on a shared machine trust those alone. Every
 * value is read, and must be there. */
#define _GNU_SOURCE
#include "../../examples/c/wire.h"
#include "contest.h"
#include "lru.h"
#include <hotset.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>

enum { KEYS = 100000, KEY_LEN = 12, VALUE_LEN = 100, PICKS = 1 << 18 };

typedef struct {
    const void *data;
    size_t len;
} key;
extern void *rust_fill(const key *keys, size_t count, size_t value_len);
extern size_t rust_gets(void *cache, const key *keys, const uint32_t *picks, size_t count);

static char names[KEYS][KEY_LEN + 1];
static key keys[KEYS];
static uint32_t zipf_picks[THREADS][PICKS], uniform_picks[THREADS][PICKS];
static void *zipf[THREADS], *uniform[THREADS]; /* their rows */
static hotset_cache *cache;
static lru mutex_lru = {.lock = PTHREAD_MUTEX_INITIALIZER, .capacity = KEYS * 2};
static void *rust_cache;
static uint16_t port;

static size_t good(const char *value, size_t len) {
    return len == VALUE_LEN && value[0] == 'v' && value[VALUE_LEN - 1] == 'v';
}

/* The contestants: each gets `count` picks and returns how many were there. */
static size_t read_hotset(void *arg, size_t count) {
    const uint32_t *picks = arg;
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        hotset_bytes value;
        if (hotset_get_bytes(cache, names[picks[i]], KEY_LEN, &value) != HOTSET_OK) continue;
        found += good(value.data, value.len);
        hotset_release(value.handle);
    }
    return found;
}

/* The four calls that hotset_get_bytes is one of. */
static size_t read_handle(void *arg, size_t count) {
    const uint32_t *picks = arg;
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        hotset_value *value;
        const void *data;
        size_t len;
        if (hotset_get(cache, names[picks[i]], KEY_LEN, &value) != HOTSET_OK) continue;
        hotset_value_data(value, &data, &len);
        found += good(data, len);
        hotset_release(value);
    }
    return found;
}

static size_t read_copy(void *arg, size_t count) {
    const uint32_t *picks = arg;
    size_t found = 0, len;
    char value[VALUE_LEN];
    for (size_t i = 0; i < count; i++)
        if (hotset_get_copy(cache, names[picks[i]], KEY_LEN, value, sizeof value, &len) == HOTSET_OK)
            found += good(value, len);
    return found;
}

static size_t read_lru(void *arg, size_t count) {
    const uint32_t *picks = arg;
    size_t found = 0, len;
    char value[VALUE_LEN];
    for (size_t i = 0; i < count; i++)
        if (lru_get(&mutex_lru, names[picks[i]], KEY_LEN, value, sizeof value, &len)) found += good(value, len);
    return found;
}

static size_t read_rust(void *arg, size_t count) { return rust_gets(rust_cache, keys, arg, count); }

static wire *dial(void) {
    wire *w = malloc(sizeof *w);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    if (!w) die("no memory");
    w->head = w->tail = w->queued = 0;
    w->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (w->fd < 0 || connect(w->fd, (struct sockaddr *)&at, sizeof at) != 0) die("memcached does not answer");
    setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return w;
}

static size_t read_memcached(void *arg, size_t count) {
    const uint32_t *picks = arg;
    wire *w = dial();
    size_t found = 0, len;
    char *line, value[VALUE_LEN + 2];
    for (size_t i = 0; i < count; i++) {
        if (!wire_puts(w, "get ") || !wire_write(w, names[picks[i]], KEY_LEN) || !wire_puts(w, "\r\n") ||
            !wire_line(w, &line, &len))
            die("memcached is gone");
        if (len == 3) continue; /* END: a miss */
        if (!wire_block(w, value, sizeof value) || !wire_line(w, &line, &len)) die("memcached is gone");
        found += good(value, VALUE_LEN);
    }
    close(w->fd);
    free(w);
    return found;
}

static void fill_memcached(void) {
    wire *w = dial();
    char value[VALUE_LEN + 2], *line;
    size_t len;
    memset(value, 'v', VALUE_LEN);
    memcpy(value + VALUE_LEN, "\r\n", 2);
    for (int i = 0; i < KEYS; i++) {
        bool last = i == KEYS - 1;
        char head[64];
        snprintf(head, sizeof head, "set %.*s 0 0 %d%s\r\n", KEY_LEN, names[i], VALUE_LEN, last ? "" : " noreply");
        if (!wire_puts(w, head) || !wire_write(w, value, sizeof value)) die("memcached is gone");
    }
    if (!wire_line(w, &line, &len) || len != 6) die("memcached did not store");
    close(w->fd);
    free(w);
}

static uint64_t random_state = 0x9E3779B97F4A7C15u;
static double chance(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(random_state >> 11) / 9007199254740992.0;
}

static void choose(void) {
    static double upto[KEYS];
    static uint32_t shuffled[KEYS]; /* so that often used keys do not lie side by side */
    double sum = 0;
    for (int i = 0; i < KEYS; i++) {
        upto[i] = sum += 1 / pow(i + 1, 0.99);
        uint32_t j = (uint32_t)(chance() * (i + 1));
        shuffled[i] = shuffled[j];
        shuffled[j] = (uint32_t)i;
    }
    for (int t = 0; t < THREADS; t++)
        for (int p = 0; p < PICKS; p++) {
            double c = chance() * sum;
            int low = 0, high = KEYS - 1;
            while (low < high) {
                int mid = (low + high) / 2;
                if (upto[mid] < c) low = mid + 1;
                else high = mid;
            }
            zipf_picks[t][p] = shuffled[low];
            uniform_picks[t][p] = (uint32_t)(chance() * KEYS);
        }
    for (int t = 0; t < THREADS; t++) zipf[t] = zipf_picks[t], uniform[t] = uniform_picks[t];
}

int main(int argc, char **argv) {
    int rounds = argc > 2 ? atoi(argv[2]) : 21;
    port = argc > 1 ? (uint16_t)atoi(argv[1]) : 0;
    if (port == 0 || rounds < 1 || rounds > ROUNDS_MAX) die("usage: reads MEMCACHED-PORT [ROUNDS, up to 101]");
    char value[VALUE_LEN];
    memset(value, 'v', VALUE_LEN);
    hotset_options options;
    hotset_options_init(&options, sizeof options);
    options.max_entries = KEYS * 2;
    if (hotset_open(&options, &cache) != HOTSET_OK) die("no cache");
    for (int i = 0; i < KEYS; i++) {
        snprintf(names[i], sizeof names[i], "key:%08d", i);
        keys[i] = (key){names[i], KEY_LEN};
        if (hotset_put(cache, names[i], KEY_LEN, value, VALUE_LEN) != HOTSET_OK) die("a put failed");
    }
    /* One after another: filled in turns, the caches' entries would lie interleaved in memory,
     * farther from each other than alone. */
    for (int i = 0; i < KEYS; i++) lru_put(&mutex_lru, names[i], KEY_LEN, value, VALUE_LEN);
    rust_cache = rust_fill(keys, KEYS, VALUE_LEN);
    fill_memcached();
    choose();

    contestant all[] = {{"hotset_get_bytes, hotset_release", read_hotset, PICKS},
                        {"hotset_get_copy", read_copy, PICKS},
                        {"uthash LRU behind a mutex", read_lru, PICKS / 2},
                        {"memcached, loopback", read_memcached, 2500}};
    contestant face[] = {{"Rust Cache::get", read_rust, PICKS},
                         {"hotset_get, hotset_value_data, hotset_release", read_handle, PICKS},
                         {"hotset_get_bytes, hotset_release", read_hotset, PICKS},
                         {"hotset_get_copy", read_copy, PICKS}};
    compete("zipf 0.99 over 100,000 keys", "get", zipf, 4, rounds, all, 4);
    compete("uniform over 100,000 keys", "get", uniform, 4, rounds, all, 4);
    compete("zipf 0.99 over 100,000 keys", "get", zipf, 1, rounds, all, 4);
    compete("what the C face costs, zipf", "get", zipf, 1, rounds, face, 4);
    compete("what the C face costs, uniform", "get", uniform, 1, rounds, face, 4);
    hotset_close(cache);
    return 0;
}
