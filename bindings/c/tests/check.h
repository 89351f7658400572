/* What the tests share. */
#ifndef CHECK_H
#define CHECK_H

#include <hotset.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The status of a call, which is named if it is another. */
#define IS(status, call)                                                                                               \
    do {                                                                                                               \
        hotset_status got_ = (call);                                                                                   \
        if (got_ != (status)) {                                                                                        \
            fprintf(stderr, "%s:%d: %s: %d, %s\n", __FILE__, __LINE__, #call, (int)got_, hotset_strerror(got_));       \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)
#define OK(call) IS(HOTSET_OK, call)

/* A text as an argument pair: bytes and length, without the 0. */
#define S(text) (text), (sizeof(text) - 1)

static inline hotset_options defaults(void) {
    hotset_options options;
    OK(hotset_options_init(&options, sizeof options));
    return options;
}

static inline hotset_cache *cache_of(uint64_t entries) {
    hotset_options options = defaults();
    hotset_cache *cache;
    options.max_entries = entries;
    OK(hotset_open(&options, &cache));
    return cache;
}

/* Whether the value of a handle is this text; releases the handle. */
static inline int holds(hotset_value *value, const char *text) {
    const void *data;
    size_t len;
    int same;
    OK(hotset_value_data(value, &data, &len));
    same = len == strlen(text) && memcmp(data, text, len) == 0;
    OK(hotset_release(value));
    return same;
}

/* Whether the cache holds this text under the key. */
static inline int has(hotset_cache *cache, const char *key, const char *text) {
    hotset_value *value;
    return hotset_get(cache, key, strlen(key), &value) == HOTSET_OK && holds(value, text);
}

#endif
