/* The advice of a profiled cache. */
#include "check.h"
#include <math.h>

/* Reads through the cache: `count` keys in a loop. */
static void loop(hotset_cache *cache, int lookups, int count) {
    for (int i = 0; i < lookups; i++) {
        int key = i % count;
        char page[8];
        size_t len;
        hotset_status status = hotset_get_copy(cache, &key, sizeof key, page, sizeof page, &len);
        if (status == HOTSET_NOT_FOUND) OK(hotset_put(cache, &key, sizeof key, S("page")));
    }
}

static void knows_what_a_larger_cache_gives(void) {
    hotset_options options = defaults();
    hotset_cache *cache;
    hotset_advice advice;
    options.max_entries = 500;
    options.profile = 1;
    OK(hotset_open(&options, &cache));
    OK(hotset_advise(cache, &advice, sizeof advice));
    CHECK(advice.doubt == HOTSET_DOUBT_FEW_LOOKUPS && advice.lookups == 0);
    CHECK(strncmp(advice.text, "No advice yet: ", 15) == 0);

    loop(cache, 20000, 800);
    OK(hotset_advise(cache, &advice, sizeof advice));
    CHECK(advice.doubt == HOTSET_DOUBT_NONE && advice.lookups == 20000 && advice.capacity == 500);
    CHECK(advice.sample == 1.0 && advice.point_count == 6);
    for (uint32_t i = 0; i < advice.point_count; i++) {
        const hotset_advice_point *point = &advice.points[i];
        CHECK((double)point->capacity == 500 * point->factor && point->bytes > point->capacity);
        CHECK(i == 0 || point->factor == 2 * point[-1].factor);
    }
    CHECK(advice.points[2].hit_ratio == advice.hit_ratio && advice.hit_ratio < 0.7);
    CHECK(advice.points[3].hit_ratio > 0.95 && advice.enough > 500 && advice.enough < 1000);
    CHECK(advice.unbounded > 0.95 && advice.optimum > advice.hit_ratio && advice.over_lru > 0);
    CHECK(strncmp(advice.text, "Make it larger: the hit ratio is ", 33) == 0);

    /* A change of the capacity begins anew. */
    OK(hotset_set_capacity(cache, 1000));
    OK(hotset_advise(cache, &advice, sizeof advice));
    CHECK(advice.capacity == 1000 && advice.lookups == 0);
    OK(hotset_close(cache));
}

static void unknown_figures_are_nan(void) {
    hotset_options options = defaults();
    hotset_cache *cache;
    hotset_advice advice;
    options.max_bytes = 1 << 20;
    options.ttl_ms = 60000;
    options.policy = HOTSET_POLICY_LRU;
    options.profile = 1;
    OK(hotset_open(&options, &cache));
    loop(cache, 20000, 100);
    OK(hotset_advise(cache, &advice, sizeof advice));
    CHECK(isnan(advice.unbounded) && isnan(advice.optimum) && isnan(advice.over_lru));
    OK(hotset_close(cache));
}

static void autosize_grows_within_its_bounds(void) {
    hotset_options options = defaults();
    hotset_cache *cache;
    hotset_stats_data stats;
    options.max_entries = 100;
    options.autosize_low = 50;
    options.autosize_high = 2000;
    options.autosize_target = 0.95;
    OK(hotset_open(&options, &cache));
    loop(cache, 200000, 800);
    OK(hotset_stats(cache, &stats, sizeof stats));
    CHECK(stats.capacity >= 700 && stats.capacity <= 2000);
    OK(hotset_close(cache));

    options.autosize_high = 99;
    IS(HOTSET_INVALID, hotset_open(&options, &cache));
    options.autosize_high = 2000;
    options.autosize_target = 1.5;
    IS(HOTSET_INVALID, hotset_open(&options, &cache));
    options.autosize_target = 0;
    IS(HOTSET_INVALID, hotset_open(&options, &cache));
}

static void errors_are_reported(void) {
    union {
        hotset_advice known;
        uint64_t words[sizeof(hotset_advice) / 8 + 1];
    } later;
    hotset_options options = defaults();
    hotset_cache *cache = cache_of(100);
    hotset_advice advice;
    IS(HOTSET_INVALID, hotset_advise(cache, &advice, sizeof advice));
    CHECK(advice.point_count == 0);
    IS(HOTSET_INVALID, hotset_advise(cache, NULL, sizeof advice));
    IS(HOTSET_INVALID, hotset_advise(NULL, &advice, sizeof advice));
    OK(hotset_close(cache));

    options.max_entries = UINT64_MAX;
    options.profile = 1;
    IS(HOTSET_INVALID, hotset_open(&options, &cache));

    options.max_entries = 100;
    OK(hotset_open(&options, &cache));
    IS(HOTSET_INVALID, hotset_advise(cache, &advice, 0));
    IS(HOTSET_INVALID, hotset_advise(cache, &advice, sizeof advice - 1));
    /* Programs of older and newer headers. */
    memset(&later, 1, sizeof later);
    OK(hotset_advise(cache, &later.known, sizeof later));
    CHECK(later.words[sizeof later / 8 - 1] == 0);
    memset(&later, 1, sizeof later);
    OK(hotset_advise(cache, &later.known, 8));
    CHECK(later.known.capacity == 100 && later.known.lookups != 0);
    OK(hotset_close(cache));
}

int main(void) {
    knows_what_a_larger_cache_gives();
    unknown_figures_are_nan();
    autosize_grows_within_its_bounds();
    errors_are_reported();
    puts("advice: ok");
    return 0;
}
