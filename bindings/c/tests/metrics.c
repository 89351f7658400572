/* hotset_metrics: the text, the buffer's contract, names, bad arguments. With an argument, prints a
 * text for promtool. */
#include "check.h"

static char text[1 << 16];

static size_t lines_with(const char *part) {
    size_t n = 0;
    const char *at;
    for (at = text; (at = strstr(at, part)) != NULL; at++) n++;
    return n;
}

static hotset_status load(void *arg, const void *key, size_t len, hotset_reply *reply) {
    (void)key, (void)len;
    return arg ? hotset_reply_set(reply, "v", 1, HOTSET_TTL_DEFAULT) : 1000;
}

static void figures(void) {
    hotset_named_cache caches[2];
    hotset_value *value;
    size_t len;
    caches[0].name = "pages", caches[0].cache = cache_of(100);
    caches[1].name = "users", caches[1].cache = cache_of(7);
    OK(hotset_get_or_load(caches[0].cache, S("a"), load, text, &value));
    OK(hotset_release(value));
    OK(hotset_get_or_load(caches[0].cache, S("a"), load, text, &value));
    OK(hotset_release(value));
    IS(1000, hotset_get_or_load(caches[0].cache, S("b"), load, NULL, &value));
    OK(hotset_run_pending(caches[0].cache));
    OK(hotset_metrics(caches, 2, text, sizeof text, &len));
    CHECK(strlen(text) == len && text[len - 1] == '\n');
    CHECK(lines_with("# HELP ") == 13 && lines_with("# TYPE ") == 13);
    CHECK(lines_with("# TYPE hotset_cache_requests_total counter\n") == 1);
    CHECK(lines_with("# TYPE hotset_cache_load_duration_seconds histogram\n") == 1);
    CHECK(lines_with("# TYPE hotset_cache_entries gauge\n") == 1);
    CHECK(lines_with("hotset_cache_requests_total{cache=\"pages\",result=\"hit\"} 1\n") == 1);
    CHECK(lines_with("hotset_cache_requests_total{cache=\"pages\",result=\"miss\"} 2\n") == 1);
    CHECK(lines_with("hotset_cache_requests_total{cache=\"users\",result=\"hit\"} 0\n") == 1);
    CHECK(lines_with("hotset_cache_loads_total{cache=\"pages\",result=\"success\"} 1\n") == 1);
    CHECK(lines_with("hotset_cache_loads_total{cache=\"pages\",result=\"failure\"} 1\n") == 1);
    CHECK(lines_with("hotset_cache_load_duration_seconds_bucket{cache=\"pages\",le=\"") == HOTSET_LOAD_BUCKETS);
    CHECK(lines_with("hotset_cache_load_duration_seconds_bucket{cache=\"pages\",le=\"+Inf\"} 2\n") == 1);
    CHECK(lines_with("hotset_cache_load_duration_seconds_count{cache=\"pages\"} 2\n") == 1);
    CHECK(lines_with("hotset_cache_load_duration_seconds_sum{cache=\"pages\"} 0.") == 1);
    CHECK(lines_with("hotset_cache_entries{cache=\"pages\"} 1\n") == 1);
    CHECK(lines_with("hotset_cache_capacity{cache=\"pages\"} 100\n") == 1);
    CHECK(lines_with("hotset_cache_capacity{cache=\"users\"} 7\n") == 1);
    /* The series of a metric follow each other. */
    CHECK(strstr(text, "{cache=\"users\",result=\"hit\"}") < strstr(text, "# TYPE hotset_cache_stale_hits_total"));
    OK(hotset_close(caches[0].cache));
    OK(hotset_close(caches[1].cache));
}

static void buffers(void) {
    hotset_named_cache one;
    size_t len, needed;
    one.name = "c", one.cache = cache_of(10);
    IS(HOTSET_BUFFER_TOO_SMALL, hotset_metrics(&one, 1, NULL, 0, &needed));
    CHECK(needed > 1000 && needed < sizeof text - 8);
    memset(text, 'x', sizeof text);
    IS(HOTSET_BUFFER_TOO_SMALL, hotset_metrics(&one, 1, text, 1, &len));
    CHECK(len == needed && text[0] == 0 && text[1] == 'x');
    memset(text, 'x', sizeof text);
    IS(HOTSET_BUFFER_TOO_SMALL, hotset_metrics(&one, 1, text, needed, &len));
    CHECK(len == needed && text[0] == 0 && text[needed] == 'x');
    OK(hotset_metrics(&one, 1, text, needed + 1, &len));
    CHECK(len == needed && text[needed] == 0 && text[needed + 1] == 'x' && strlen(text) == needed);
    memset(text, 'x', sizeof text);
    OK(hotset_metrics(NULL, 0, text, 1, &len));
    CHECK(len == 0 && text[0] == 0 && text[1] == 'x');
    IS(HOTSET_BUFFER_TOO_SMALL, hotset_metrics(NULL, 0, NULL, 0, &len));
    CHECK(len == 0);
    OK(hotset_close(one.cache));
}

static const char hostile[] = "quote\" back\\slash\nline {le=\"1\"} \xc3\xa9 bad\xff\xc3.";

static void names(void) {
    hotset_named_cache caches[2];
    size_t len;
    caches[0].name = hostile, caches[0].cache = cache_of(10);
    caches[1].name = "", caches[1].cache = caches[0].cache;
    OK(hotset_metrics(caches, 2, text, sizeof text, &len));
    CHECK(lines_with("hotset_cache_entries{cache=\"quote\\\" back\\\\slash\\nline {le=\\\"1\\\"} \xc3\xa9 bad"
                     "\xef\xbf\xbd\xef\xbf\xbd.\"} 0\n") == 1);
    CHECK(lines_with("hotset_cache_entries{cache=\"\"} 0\n") == 1);
    caches[1].name = hostile;
    len = 99;
    IS(HOTSET_INVALID, hotset_metrics(caches, 2, text, sizeof text, &len));
    CHECK(len == 0 && text[0] == 0);
    OK(hotset_close(caches[0].cache));
}

static void bad_arguments(void) {
    hotset_named_cache one;
    hotset_cache *closed = cache_of(10);
    size_t len = 99;
    one.name = "c", one.cache = cache_of(10);
    IS(HOTSET_INVALID, hotset_metrics(&one, 1, text, sizeof text, NULL));
    IS(HOTSET_INVALID, hotset_metrics(NULL, 1, text, sizeof text, &len));
    CHECK(len == 0);
    IS(HOTSET_INVALID, hotset_metrics(&one, 1, NULL, 1, &len));
    IS(HOTSET_INVALID, hotset_metrics(&one, (size_t)-1, text, sizeof text, &len));
    IS(HOTSET_INVALID, hotset_metrics(&one, 1, text, (size_t)-1, &len));
    one.name = NULL;
    IS(HOTSET_INVALID, hotset_metrics(&one, 1, text, sizeof text, &len));
    one.name = "c";
    OK(hotset_close(one.cache));
    one.cache = NULL;
    IS(HOTSET_INVALID, hotset_metrics(&one, 1, text, sizeof text, &len));
    OK(hotset_close(closed));
    one.cache = closed;
    IS(HOTSET_CLOSED, hotset_metrics(&one, 1, text, sizeof text, &len));
    CHECK(len == 0 && text[0] == 0);
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) {
        hotset_named_cache caches[2];
        size_t len;
        caches[0].name = hostile, caches[0].cache = cache_of(10);
        caches[1].name = "plain", caches[1].cache = cache_of(10);
        OK(hotset_metrics(caches, 2, text, sizeof text, &len));
        fputs(text, stdout);
        return 0;
    }
    figures();
    buffers();
    names();
    bad_arguments();
    puts("metrics: ok");
    return 0;
}
