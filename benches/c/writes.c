/* Puts of 100-byte values with new keys into full caches: hotset, and an LRU behind a mutex
 * (lru.h). Usage: writes [ROUNDS]. Both hold as many entries and take turns in each round. */
#include "contest.h"
#include "lru.h"
#include <hotset.h>
#include <stdint.h>

enum { ENTRIES = 100000, VALUE_LEN = 100, PUTS = 1 << 17 };

/* What a thread puts next. Keys of different threads differ by their first word. */
typedef struct {
    uint64_t key[2];
    char value[VALUE_LEN];
} source;

static hotset_cache *cache;
static lru mutex_lru = {.lock = PTHREAD_MUTEX_INITIALIZER, .capacity = ENTRIES};

static size_t put_hotset(void *arg, size_t count) {
    source *from = arg;
    size_t done = 0;
    for (size_t i = 0; i < count; i++, from->key[1]++)
        done += hotset_put(cache, from->key, sizeof from->key, from->value, VALUE_LEN) == HOTSET_OK;
    return done;
}

static size_t put_lru(void *arg, size_t count) {
    source *from = arg;
    for (size_t i = 0; i < count; i++, from->key[1]++)
        lru_put(&mutex_lru, from->key, sizeof from->key, from->value, VALUE_LEN);
    return count;
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 21;
    static source sources[THREADS];
    void *args[THREADS];
    if (rounds < 1 || rounds > ROUNDS_MAX) die("usage: writes [ROUNDS, up to 101]");
    for (int t = 0; t < THREADS; t++) {
        sources[t].key[0] = (uint64_t)t;
        memset(sources[t].value, 'v', VALUE_LEN);
        args[t] = &sources[t];
    }
    hotset_options options;
    hotset_options_init(&options, sizeof options);
    options.max_entries = ENTRIES;
    if (hotset_open(&options, &cache) != HOTSET_OK) die("no cache");
    /* Two whole turnovers, so that both are full and their memory is as scattered as it gets. */
    if (put_hotset(args[0], 2 * ENTRIES) != 2 * ENTRIES || put_lru(args[0], 2 * ENTRIES) != 2 * ENTRIES) die("no room");

    contestant all[] = {{"hotset_put", put_hotset, PUTS}, {"uthash LRU behind a mutex", put_lru, PUTS}};
    compete("new keys into a full cache of 100,000", "put", args, 1, rounds, all, 2);
    compete("new keys into a full cache of 100,000", "put", args, 4, rounds, all, 2);
    hotset_close(cache);
    return 0;
}
