/* Every function, with good and with bad arguments. (Callbacks: callbacks.c.) */
#include "check.h"

/* Lengths and numbers that no call may believe. */
#define HUGE_LEN ((size_t)-1)

static void versions(void) {
    char text[32];
    sprintf(text, "%d.%d.%d", HOTSET_VERSION_MAJOR, HOTSET_VERSION_MINOR, HOTSET_VERSION_PATCH);
    CHECK(strcmp(hotset_version_string(), text) == 0 && strcmp(HOTSET_VERSION_STRING, text) == 0);
    CHECK(hotset_version() == HOTSET_VERSION);
}

static void texts(void) {
    int status, other;
    for (status = HOTSET_OK; status <= HOTSET_UNCONFIRMED; status++)
        for (other = HOTSET_OK; other < status; other++)
            CHECK(strcmp(hotset_strerror((hotset_status)status), hotset_strerror((hotset_status)other)) != 0);
    CHECK(strlen(hotset_strerror((hotset_status)-1)) > 0);
    CHECK(strcmp(hotset_strerror((hotset_status)-1), hotset_strerror((hotset_status)(HOTSET_UNCONFIRMED + 1))) == 0);
    CHECK(strcmp(hotset_strerror((hotset_status)1000), hotset_strerror((hotset_status)-1)) != 0);
}

static void refused(hotset_options options) {
    hotset_cache *cache = (hotset_cache *)&options;
    IS(HOTSET_INVALID, hotset_open(&options, &cache));
    CHECK(cache == NULL);
}

static void options(void) {
    struct {
        hotset_options known;
        uint64_t newer;
    } later;
    hotset_options good = defaults(), bad;
    hotset_cache *cache;
    uint64_t number;
    int policy;

    IS(HOTSET_INVALID, hotset_options_init(NULL, sizeof good));
    IS(HOTSET_INVALID, hotset_options_init(&bad, 0));
    IS(HOTSET_INVALID, hotset_options_init(&bad, sizeof bad - 1));
    IS(HOTSET_INVALID, hotset_options_init(&bad, HUGE_LEN));
    IS(HOTSET_INVALID, hotset_open(&good, NULL));
    OK(hotset_open(NULL, &cache));
    OK(hotset_capacity(cache, &number));
    CHECK(number == 64 << 20);
    OK(hotset_close(cache));

    bad = good, bad.size = 0, refused(bad);
    bad = good, bad.size = HUGE_LEN, refused(bad);
    bad = good, bad.max_entries = 1, bad.max_bytes = 1, refused(bad);
    bad = good, bad.profile = 2, refused(bad);
    bad = good, bad.jitter = 1.0, refused(bad);
    bad = good, bad.jitter = -0.1, refused(bad);
    bad = good, bad.policy = (hotset_policy)5, refused(bad);
    bad = good, bad.policy = (hotset_policy)-1, refused(bad);

    for (policy = HOTSET_POLICY_WTINYLFU; policy <= HOTSET_POLICY_RANDOM; policy++) {
        good.policy = (hotset_policy)policy;
        OK(hotset_open(&good, &cache));
        OK(hotset_put(cache, S("k"), S("v")));
        CHECK(has(cache, "k", "v"));
        OK(hotset_close(cache));
    }

    /* A program that was compiled with a later header: its new fields are 0, or the call returns an
     * error. */
    OK(hotset_options_init(&later.known, sizeof later));
    CHECK(later.newer == 0);
    OK(hotset_open(&later.known, &cache));
    OK(hotset_close(cache));
    later.newer = 1;
    IS(HOTSET_INVALID, hotset_open(&later.known, &cache));
}

static void puts_and_gets(void) {
    hotset_cache *cache = cache_of(1000);
    hotset_value *value, *same;
    hotset_bytes bytes;
    const void *data;
    char buffer[8];
    size_t len;
    uint64_t version, other;

    IS(HOTSET_NOT_FOUND, hotset_get(cache, S("k"), &value));
    CHECK(value == NULL);
    OK(hotset_put(cache, S("k"), S("value")));
    OK(hotset_get(cache, S("k"), &value));
    OK(hotset_get(cache, S("k"), &same));
    CHECK(value == same);
    OK(hotset_release(same));
    OK(hotset_value_data(value, &data, &len));
    CHECK(len == 5 && memcmp(data, "value", 5) == 0 && (uintptr_t)data % 8 == 0);
    OK(hotset_value_key(value, &data, &len));
    CHECK(len == 1 && memcmp(data, "k", 1) == 0);
    OK(hotset_value_version(value, &version));
    OK(hotset_retain(value));
    OK(hotset_release(value));

    /* A handle is of what was there. */
    OK(hotset_put(cache, S("k"), S("another")));
    OK(hotset_get_bytes(cache, S("k"), &bytes));
    CHECK(bytes.len == 7 && memcmp(bytes.data, "another", 7) == 0 && (uintptr_t)bytes.data % 8 == 0);
    OK(hotset_value_version(bytes.handle, &other));
    CHECK(other != version);
    OK(hotset_release(bytes.handle));

    OK(hotset_get_copy(cache, S("k"), buffer, sizeof buffer, &len));
    CHECK(len == 7 && memcmp(buffer, "another", 7) == 0);
    OK(hotset_get_copy(cache, S("k"), buffer, 7, &len));
    IS(HOTSET_BUFFER_TOO_SMALL, hotset_get_copy(cache, S("k"), buffer, 6, &len));
    CHECK(len == 7);
    IS(HOTSET_BUFFER_TOO_SMALL, hotset_get_copy(cache, S("k"), NULL, 0, &len));
    CHECK(len == 7);
    IS(HOTSET_NOT_FOUND, hotset_get_copy(cache, S("none"), buffer, sizeof buffer, &len));
    CHECK(len == 0);

    /* Empty keys and values, and bytes that are no text. */
    OK(hotset_put(cache, NULL, 0, NULL, 0));
    OK(hotset_get_bytes(cache, "", 0, &bytes));
    CHECK(bytes.len == 0 && bytes.data != NULL);
    OK(hotset_release(bytes.handle));
    OK(hotset_get_copy(cache, NULL, 0, NULL, 0, &len));
    OK(hotset_put(cache, S("a\0b"), S("\0\0")));
    IS(HOTSET_NOT_FOUND, hotset_contains(cache, S("a")));
    OK(hotset_contains(cache, S("a\0b")));

    IS(HOTSET_INVALID, hotset_put(NULL, S("k"), S("v")));
    IS(HOTSET_INVALID, hotset_put(cache, NULL, 1, S("v")));
    IS(HOTSET_INVALID, hotset_put(cache, S("k"), NULL, 1));
    IS(HOTSET_INVALID, hotset_put(cache, "k", HUGE_LEN, S("v")));
    IS(HOTSET_INVALID, hotset_put(cache, S("k"), "v", HUGE_LEN));
    IS(HOTSET_TOO_LARGE, hotset_put(cache, "k", HUGE_LEN >> 1, S("v")));
    IS(HOTSET_TOO_LARGE, hotset_put(cache, S("k"), "v", HUGE_LEN >> 1));
    IS(HOTSET_NO_MEMORY, hotset_put(cache, S("k"), "v", HUGE_LEN >> 2));
    CHECK(has(cache, "k", "another"));
    IS(HOTSET_INVALID, hotset_get(NULL, S("k"), &same));
    CHECK(same == NULL);
    IS(HOTSET_INVALID, hotset_get(cache, NULL, 1, &same));
    IS(HOTSET_INVALID, hotset_get(cache, "k", HUGE_LEN, &same));
    IS(HOTSET_INVALID, hotset_get(cache, S("k"), NULL));
    IS(HOTSET_INVALID, hotset_get_bytes(NULL, S("k"), &bytes));
    CHECK(bytes.data == NULL && bytes.len == 0 && bytes.handle == NULL);
    IS(HOTSET_INVALID, hotset_get_bytes(cache, NULL, 1, &bytes));
    IS(HOTSET_INVALID, hotset_get_bytes(cache, S("k"), NULL));
    IS(HOTSET_NOT_FOUND, hotset_get_bytes(cache, S("none"), &bytes));
    IS(HOTSET_INVALID, hotset_get_copy(NULL, S("k"), buffer, 8, &len));
    IS(HOTSET_INVALID, hotset_get_copy(cache, NULL, 1, buffer, 8, &len));
    len = 99;
    IS(HOTSET_INVALID, hotset_get_copy(cache, S("k"), NULL, 8, &len));
    CHECK(len == 0);
    IS(HOTSET_INVALID, hotset_get_copy(cache, S("k"), buffer, HUGE_LEN, &len));
    IS(HOTSET_INVALID, hotset_get_copy(cache, S("k"), buffer, 8, NULL));
    IS(HOTSET_INVALID, hotset_contains(NULL, S("k")));
    IS(HOTSET_INVALID, hotset_contains(cache, NULL, 1));
    IS(HOTSET_INVALID, hotset_value_data(NULL, &data, &len));
    len = 99;
    IS(HOTSET_INVALID, hotset_value_data(value, NULL, &len));
    CHECK(len == 0);
    IS(HOTSET_INVALID, hotset_value_data(value, &data, NULL));
    IS(HOTSET_INVALID, hotset_value_key(NULL, &data, &len));
    IS(HOTSET_INVALID, hotset_value_key(value, NULL, &len));
    IS(HOTSET_INVALID, hotset_value_key(value, &data, NULL));
    IS(HOTSET_INVALID, hotset_value_version(NULL, &version));
    IS(HOTSET_INVALID, hotset_value_version(value, NULL));
    IS(HOTSET_INVALID, hotset_retain(NULL));
    IS(HOTSET_INVALID, hotset_release(NULL));

    OK(hotset_close(cache));
    CHECK(holds(value, "value"));
}

static void many(void) {
    hotset_cache *cache = cache_of(1000);
    hotset_slice keys[200];
    hotset_value *values[200];
    char names[200];
    size_t i, found;
    for (i = 0; i < 200; i++) {
        names[i] = (char)i;
        keys[i].data = &names[i];
        keys[i].len = 1;
        if (i % 2) OK(hotset_put(cache, &names[i], 1, &names[i], 1));
    }
    OK(hotset_get_many(cache, keys, 200, values, &found));
    CHECK(found == 100);
    for (i = 0; i < 200; i++) {
        char text[2] = {(char)i, 0};
        CHECK((values[i] != NULL) == (i % 2 == 1));
        if (values[i]) CHECK(holds(values[i], text));
    }
    OK(hotset_get_many(cache, keys + 1, 1, values, NULL));
    OK(hotset_release(values[0]));
    OK(hotset_get_many(cache, NULL, 0, NULL, &found));
    CHECK(found == 0);
    IS(HOTSET_INVALID, hotset_get_many(NULL, NULL, 0, NULL, NULL));
    IS(HOTSET_INVALID, hotset_get_many(NULL, keys, 2, values, &found));
    CHECK(values[0] == NULL && values[1] == NULL);
    values[0] = values[1] = (hotset_value *)keys;
    found = 99;
    IS(HOTSET_INVALID, hotset_get_many(cache, NULL, 2, values, &found));
    CHECK(values[0] == NULL && values[1] == NULL && found == 0);
    found = 99;
    IS(HOTSET_INVALID, hotset_get_many(cache, keys, 2, NULL, &found));
    CHECK(found == 0);
    found = 99;
    IS(HOTSET_INVALID, hotset_get_many(cache, keys, HUGE_LEN, values, &found));
    CHECK(found == 0);
    values[1] = (hotset_value *)keys;
    keys[199].data = NULL;
    IS(HOTSET_INVALID, hotset_get_many(cache, keys, 200, values, &found));
    CHECK(values[1] == NULL && found == 0);
    OK(hotset_close(cache));
}

static void removals(void) {
    hotset_cache *cache = cache_of(1000);
    hotset_value *value;
    OK(hotset_put(cache, S("k"), S("v")));
    OK(hotset_remove(cache, S("k")));
    IS(HOTSET_NOT_FOUND, hotset_remove(cache, S("k")));
    OK(hotset_put(cache, S("k"), S("v")));
    OK(hotset_take(cache, S("k"), &value));
    CHECK(holds(value, "v"));
    IS(HOTSET_NOT_FOUND, hotset_take(cache, S("k"), &value));
    CHECK(value == NULL);
    IS(HOTSET_INVALID, hotset_remove(NULL, S("k")));
    IS(HOTSET_INVALID, hotset_remove(cache, NULL, 1));
    IS(HOTSET_INVALID, hotset_take(NULL, S("k"), &value));
    IS(HOTSET_INVALID, hotset_take(cache, NULL, 1, &value));
    IS(HOTSET_INVALID, hotset_take(cache, S("k"), NULL));
    OK(hotset_close(cache));
}

static void if_absent(void) {
    hotset_cache *cache = cache_of(1000);
    hotset_value *there;
    OK(hotset_put_if_absent(cache, S("k"), S("one"), HOTSET_TTL_DEFAULT, &there));
    CHECK(there == NULL);
    IS(HOTSET_EXISTS, hotset_put_if_absent(cache, S("k"), S("two"), HOTSET_TTL_DEFAULT, NULL));
    IS(HOTSET_EXISTS, hotset_put_if_absent(cache, S("k"), S("two"), HOTSET_TTL_DEFAULT, &there));
    CHECK(holds(there, "one"));
    IS(HOTSET_INVALID, hotset_put_if_absent(NULL, S("k"), S("v"), 0, &there));
    CHECK(there == NULL);
    IS(HOTSET_INVALID, hotset_put_if_absent(cache, NULL, 1, S("v"), 0, NULL));
    IS(HOTSET_INVALID, hotset_put_if_absent(cache, S("k"), NULL, 1, 0, NULL));
    IS(HOTSET_NO_MEMORY, hotset_put_if_absent(cache, S("none"), "v", HUGE_LEN >> 2, 0, NULL));
    IS(HOTSET_NOT_FOUND, hotset_contains(cache, S("none")));
    OK(hotset_close(cache));
}

static void swaps(void) {
    hotset_cache *cache = cache_of(1000);
    hotset_value *value;
    uint64_t version;
    IS(HOTSET_NOT_FOUND, hotset_cas(cache, S("k"), 1, S("v"), HOTSET_TTL_KEEP));
    OK(hotset_put(cache, S("k"), S("one")));
    OK(hotset_get(cache, S("k"), &value));
    OK(hotset_value_version(value, &version));
    OK(hotset_release(value));
    IS(HOTSET_CONFLICT, hotset_cas(cache, S("k"), version + 1, S("no"), HOTSET_TTL_KEEP));
    IS(HOTSET_NO_MEMORY, hotset_cas(cache, S("k"), version, "v", HUGE_LEN >> 2, HOTSET_TTL_KEEP));
    OK(hotset_cas(cache, S("k"), version, S("two"), HOTSET_TTL_KEEP));
    IS(HOTSET_CONFLICT, hotset_cas(cache, S("k"), version, S("three"), HOTSET_TTL_KEEP));
    CHECK(has(cache, "k", "two"));
    /* The same bytes again are another version. */
    OK(hotset_get(cache, S("k"), &value));
    OK(hotset_value_version(value, &version));
    OK(hotset_put(cache, S("k"), S("two")));
    OK(hotset_release(value));
    IS(HOTSET_CONFLICT, hotset_cas(cache, S("k"), version, S("three"), HOTSET_TTL_KEEP));
    IS(HOTSET_INVALID, hotset_cas(NULL, S("k"), 1, S("v"), 0));
    IS(HOTSET_INVALID, hotset_cas(cache, NULL, 1, 1, S("v"), 0));
    IS(HOTSET_INVALID, hotset_cas(cache, S("k"), 1, NULL, 1, 0));
    OK(hotset_close(cache));
}

static void counters(void) {
    hotset_cache *cache = cache_of(1000);
    hotset_bytes bytes;
    int64_t sum;
    OK(hotset_add(cache, S("n"), 5, HOTSET_TTL_DEFAULT, &sum));
    CHECK(sum == 5);
    OK(hotset_add(cache, S("n"), -263, HOTSET_TTL_DEFAULT, NULL));
    OK(hotset_get_bytes(cache, S("n"), &bytes));
    CHECK(bytes.len == 8 && memcmp(bytes.data, "\xfe\xfe\xff\xff\xff\xff\xff\xff", 8) == 0);
    OK(hotset_release(bytes.handle));
    OK(hotset_add(cache, S("max"), INT64_MAX, HOTSET_TTL_DEFAULT, &sum));
    IS(HOTSET_OVERFLOW, hotset_add(cache, S("max"), 1, HOTSET_TTL_DEFAULT, &sum));
    CHECK(sum == 0);
    OK(hotset_add(cache, S("max"), 0, HOTSET_TTL_DEFAULT, &sum));
    CHECK(sum == INT64_MAX);
    OK(hotset_put(cache, S("text"), S("17")));
    IS(HOTSET_NOT_A_NUMBER, hotset_add(cache, S("text"), 1, HOTSET_TTL_DEFAULT, &sum));
    CHECK(has(cache, "text", "17"));
    IS(HOTSET_INVALID, hotset_add(NULL, S("n"), 1, 0, &sum));
    IS(HOTSET_INVALID, hotset_add(cache, NULL, 1, 1, 0, &sum));
    OK(hotset_close(cache));
}

static uint64_t now_ns;
static uint64_t clock_of_test(void *arg) {
    CHECK(arg == &now_ns);
    return now_ns;
}

static void times(void) {
    hotset_options options = defaults();
    hotset_cache *cache;
    uint64_t ms;
    int64_t sum;
    options.max_entries = 1000;
    options.ttl_ms = 1000;
    options.clock = clock_of_test;
    options.clock_arg = &now_ns;
    OK(hotset_open(&options, &cache));
    OK(hotset_put(cache, S("default"), S("v")));
    OK(hotset_put_ttl(cache, S("short"), S("v"), 10));
    OK(hotset_put_ttl(cache, S("never"), S("v"), HOTSET_TTL_NONE));
    OK(hotset_put_ttl(cache, S("same"), S("v"), HOTSET_TTL_DEFAULT));
    OK(hotset_add(cache, S("n"), 1, 300, NULL));
    OK(hotset_remaining(cache, S("default"), &ms));
    CHECK(ms == 1000);
    OK(hotset_remaining(cache, S("never"), &ms));
    CHECK(ms == HOTSET_TTL_NONE);
    now_ns += 5 * 1000000 + 1;
    OK(hotset_remaining(cache, S("short"), &ms));
    CHECK(ms == 5);
    OK(hotset_put_ttl(cache, S("short"), S("w"), HOTSET_TTL_KEEP));
    OK(hotset_remaining(cache, S("short"), &ms));
    CHECK(ms == 5);
    OK(hotset_add(cache, S("n"), 1, 9000, &sum));
    OK(hotset_remaining(cache, S("n"), &ms));
    CHECK(sum == 2 && ms == 295);
    now_ns += 5 * 1000000;
    IS(HOTSET_NOT_FOUND, hotset_remaining(cache, S("short"), &ms));
    IS(HOTSET_NOT_FOUND, hotset_contains(cache, S("short")));
    now_ns += 1000 * 1000000;
    IS(HOTSET_NOT_FOUND, hotset_contains(cache, S("default")));
    IS(HOTSET_NOT_FOUND, hotset_contains(cache, S("same")));
    OK(hotset_contains(cache, S("never")));
    OK(hotset_add(cache, S("n"), 7, 0, &sum));
    CHECK(sum == 7);
    IS(HOTSET_INVALID, hotset_put_ttl(NULL, S("k"), S("v"), 1));
    IS(HOTSET_INVALID, hotset_put_ttl(cache, NULL, 1, S("v"), 1));
    IS(HOTSET_INVALID, hotset_put_ttl(cache, S("k"), NULL, 1, 1));
    IS(HOTSET_INVALID, hotset_remaining(NULL, S("k"), &ms));
    IS(HOTSET_INVALID, hotset_remaining(cache, NULL, 1, &ms));
    IS(HOTSET_INVALID, hotset_remaining(cache, S("k"), NULL));
    OK(hotset_close(cache));

    options.ttl_ms = 0;
    options.tti_ms = 100;
    options.jitter = 0.5;
    OK(hotset_open(&options, &cache));
    OK(hotset_put(cache, S("k"), S("v")));
    now_ns += 60 * 1000000;
    CHECK(has(cache, "k", "v"));
    now_ns += 60 * 1000000;
    CHECK(has(cache, "k", "v"));
    now_ns += 101 * 1000000;
    IS(HOTSET_NOT_FOUND, hotset_contains(cache, S("k")));
    OK(hotset_close(cache));
}

static void walks(void) {
    hotset_cache *cache = cache_of(1000);
    hotset_iter *iter;
    hotset_value *value;
    char seen[100] = {0}, i;
    int count = 0;
    for (i = 0; i < 100; i++) OK(hotset_put(cache, &i, 1, "v", 1));
    OK(hotset_iter_open(cache, &iter));
    while (hotset_iter_next(iter, &value) == HOTSET_OK) {
        const void *key;
        size_t len;
        OK(hotset_value_key(value, &key, &len));
        CHECK(len == 1 && !seen[*(const unsigned char *)key]++);
        CHECK(holds(value, "v"));
        count++;
    }
    CHECK(count == 100 && value == NULL);
    IS(HOTSET_NOT_FOUND, hotset_iter_next(iter, &value));
    IS(HOTSET_BUSY, hotset_close(cache));
    OK(hotset_iter_close(iter));
    /* One that is left in the middle. */
    OK(hotset_iter_open(cache, &iter));
    OK(hotset_iter_next(iter, &value));
    OK(hotset_iter_close(iter));
    OK(hotset_release(value));
    IS(HOTSET_INVALID, hotset_iter_open(NULL, &iter));
    CHECK(iter == NULL);
    IS(HOTSET_INVALID, hotset_iter_open(cache, NULL));
    IS(HOTSET_INVALID, hotset_iter_next(NULL, &value));
    OK(hotset_iter_open(cache, &iter));
    IS(HOTSET_INVALID, hotset_iter_next(iter, NULL));
    OK(hotset_iter_close(iter));
    IS(HOTSET_INVALID, hotset_iter_close(NULL));
    OK(hotset_close(cache));
}

static void whole(void) {
    hotset_cache *cache = cache_of(100);
    struct {
        hotset_stats_data known;
        uint64_t newer;
    } later;
    hotset_stats_data stats;
    uint64_t number, i;
    for (i = 0; i < 1000; i++) OK(hotset_put(cache, &i, sizeof i, "v", 1));
    OK(hotset_run_pending(cache));
    OK(hotset_len(cache, &number));
    CHECK(number == 100);
    OK(hotset_weight(cache, &number));
    CHECK(number == 100);
    OK(hotset_capacity(cache, &number));
    CHECK(number == 100);
    CHECK(!has(cache, "none", ""));
    OK(hotset_stats(cache, &stats, sizeof stats));
    CHECK(stats.insertions == 1000 && stats.misses == 1 && stats.hits == 0 && stats.evictions + stats.rejections == 900);
    CHECK(stats.entries == 100 && stats.weight == 100 && stats.capacity == 100);
    CHECK(stats.evicted_weight == stats.evictions);
    later.newer = 1;
    OK(hotset_stats(cache, &later.known, sizeof later));
    CHECK(later.newer == 0 && later.known.capacity == 100);
    stats.misses = 77;
    OK(hotset_stats(cache, &stats, sizeof stats.hits));
    CHECK(stats.misses == 77);
    OK(hotset_set_capacity(cache, 10));
    OK(hotset_run_pending(cache));
    OK(hotset_len(cache, &number));
    CHECK(number == 10);
    OK(hotset_clear(cache));
    OK(hotset_len(cache, &number));
    CHECK(number == 0);

    stats.capacity = 99;
    IS(HOTSET_INVALID, hotset_stats(NULL, &stats, sizeof stats));
    CHECK(stats.capacity == 0);
    IS(HOTSET_INVALID, hotset_stats(cache, NULL, sizeof stats));
    IS(HOTSET_INVALID, hotset_stats(cache, &stats, 0));
    IS(HOTSET_INVALID, hotset_stats(cache, &stats, 7));
    IS(HOTSET_INVALID, hotset_stats(cache, &stats, HUGE_LEN));
    IS(HOTSET_INVALID, hotset_len(NULL, &number));
    IS(HOTSET_INVALID, hotset_len(cache, NULL));
    IS(HOTSET_INVALID, hotset_weight(NULL, &number));
    IS(HOTSET_INVALID, hotset_weight(cache, NULL));
    IS(HOTSET_INVALID, hotset_capacity(NULL, &number));
    IS(HOTSET_INVALID, hotset_capacity(cache, NULL));
    IS(HOTSET_INVALID, hotset_set_capacity(NULL, 1));
    IS(HOTSET_INVALID, hotset_clear(NULL));
    IS(HOTSET_INVALID, hotset_run_pending(NULL));
    IS(HOTSET_INVALID, hotset_close(NULL));
    OK(hotset_close(cache));

    /* The library recognizes a cache that was closed recently. */
    IS(HOTSET_CLOSED, hotset_close(cache));
    IS(HOTSET_CLOSED, hotset_put(cache, S("k"), S("v")));
    IS(HOTSET_CLOSED, hotset_len(cache, &number));
    CHECK(number == 0);
    for (i = 0; i < 3000; i++) OK(hotset_close(cache_of(10)));
}

int main(void) {
    versions();
    texts();
    options();
    puts_and_gets();
    many();
    removals();
    if_absent();
    swaps();
    counters();
    times();
    walks();
    whole();
    puts("api: ok");
    return 0;
}
