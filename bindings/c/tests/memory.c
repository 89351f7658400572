/* max_bytes is real memory: malloc has allocated the bytes that the cache reports, at most a tenth
 * more, and a seventh less. */
#include "check.h"
#include <malloc.h>

static size_t used(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void measure(size_t value_len, uint64_t max_bytes, hotset_options options, const char *what) {
    char value[1000] = {0};
    hotset_cache *cache;
    uint64_t weight, len, i;
    size_t before = used(), after;
    double ratio;
    options.max_bytes = max_bytes;
    OK(hotset_open(&options, &cache));
    for (i = 0; i < max_bytes / 100; i++) OK(hotset_put(cache, &i, sizeof i, value, value_len));
    OK(hotset_run_pending(cache));
    OK(hotset_weight(cache, &weight));
    OK(hotset_len(cache, &len));
    after = used() - before;
    ratio = (double)after / (double)max_bytes;
    printf("%4d bytes, %s, %3d MiB: %6d entries, %.3f of max_bytes\n", (int)value_len, what, (int)(max_bytes >> 20), (int)len,
           ratio);
    CHECK(weight <= max_bytes && ratio > 0.85 && ratio < 1.1);
    OK(hotset_close(cache));
    CHECK(used() < before + max_bytes / 100);
}

/* Few entries, large ones: what they displace does not pile up until there are many. */
static void large(size_t value_len) {
    hotset_options options = defaults();
    char *value = calloc(1, value_len);
    hotset_cache *cache;
    size_t before = used(), most = 0;
    int i;
    CHECK(value);
    options.max_bytes = 64 << 20;
    OK(hotset_open(&options, &cache));
    for (i = 0; i < 1000; i++) {
        OK(hotset_put(cache, &i, sizeof i, value, value_len));
        if (used() - before > most) most = used() - before;
    }
    printf("%d bytes: at most %.3f of max_bytes\n", (int)value_len, (double)most / (64 << 20));
    CHECK(most < (size_t)80 << 20);
    OK(hotset_close(cache));
    free(value);
}

int main(void) {
    hotset_options plain = defaults(), ttl = plain, tti = plain;
    static const size_t lens[] = {0, 20, 100, 1000};
    size_t i;
    /* What the library keeps from the first cache on is no cache's memory. */
    OK(hotset_close(cache_of(10)));
    ttl.ttl_ms = 3600000;
    tti.tti_ms = 3600000;
    for (i = 0; i < sizeof lens / sizeof *lens; i++) {
        measure(lens[i], 8 << 20, plain, "no times    ");
        measure(lens[i], 64 << 20, plain, "no times    ");
        measure(lens[i], 100 << 20, plain, "no times    ");
        measure(lens[i], 64 << 20, ttl, "time to live");
        measure(lens[i], 64 << 20, tti, "time to idle");
    }
    large(140000);
    large(1500000);
    puts("memory: ok");
    return 0;
}
