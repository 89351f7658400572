/* The five calls that most programs need.
 * cc hello.c $(pkg-config --cflags --libs hotset) && ./a.out */
#include <hotset.h>
#include <stdio.h>

static int failed(const char *what, hotset_status status) {
    fprintf(stderr, "%s: %s\n", what, hotset_strerror(status));
    return 1;
}

int main(void) {
    hotset_options options;
    hotset_options_init(&options, sizeof options);
    options.max_bytes = 64 << 20; /* of real memory: keys, values and the overhead */
    options.ttl_ms = 60 * 1000;

    hotset_cache *cache;
    hotset_status status = hotset_open(&options, &cache);
    if (status != HOTSET_OK) return failed("hotset_open", status);

    status = hotset_put(cache, "greeting", 8, "hello, world", 12);
    if (status != HOTSET_OK) return failed("hotset_put", status);

    hotset_bytes found;
    status = hotset_get_bytes(cache, "greeting", 8, &found);
    if (status != HOTSET_OK) return failed("hotset_get_bytes", status);

    hotset_close(cache); /* the value stays readable until it is released */
    printf("%.*s\n", (int)found.len, (const char *)found.data);
    hotset_release(found.handle);
    return 0;
}
