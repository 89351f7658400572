/* The statistics of two caches, as Prometheus reads them.
 * cc metrics.c $(pkg-config --cflags --libs hotset) && ./a.out | promtool check metrics */
#include <hotset.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(const char *what, hotset_status status) {
    fprintf(stderr, "%s: %s\n", what, hotset_strerror(status));
    return 1;
}

/* Returns the answer to a scrape, to be freed, or NULL. A server sends it as
 * Content-Type: text/plain; version=0.0.4 */
static char *scrape(const hotset_named_cache *caches, size_t n, size_t *len) {
    char *text = NULL;
    hotset_status status = hotset_metrics(caches, n, NULL, 0, len);
    /* Counts may grow between two calls, and with them the text: so there is some room to spare,
     * and another attempt. */
    while (status == HOTSET_BUFFER_TOO_SMALL) {
        size_t capacity = *len + 256;
        free(text);
        text = malloc(capacity);
        if (text == NULL) return NULL;
        status = hotset_metrics(caches, n, text, capacity, len);
    }
    if (status != HOTSET_OK) {
        failed("hotset_metrics", status);
        free(text);
        return NULL;
    }
    return text;
}

static hotset_status load(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    (void)arg;
    return hotset_reply_set(reply, key, key_len, HOTSET_TTL_DEFAULT);
}

int main(void) {
    hotset_options options;
    hotset_named_cache caches[] = {{"pages", NULL}, {"users", NULL}};
    hotset_options_init(&options, sizeof options);
    options.max_bytes = 1 << 20;
    for (int i = 0; i < 2; i++) {
        hotset_status status = hotset_open(&options, &caches[i].cache);
        if (status != HOTSET_OK) return failed("hotset_open", status);
    }
    for (int i = 0; i < 10; i++) {
        hotset_value *value;
        char key = (char)('a' + i % 4);
        hotset_status status = hotset_get_or_load(caches[0].cache, &key, 1, load, NULL, &value);
        if (status != HOTSET_OK) return failed("hotset_get_or_load", status);
        hotset_release(value);
    }

    size_t len;
    char *text = scrape(caches, 2, &len);
    if (text == NULL) return 1;
    fwrite(text, 1, len, stdout);
    free(text);
    hotset_close(caches[0].cache);
    hotset_close(caches[1].cache);
    return 0;
}
