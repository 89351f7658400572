/* An example of every section of hotset.h.
 * cc tour.c $(pkg-config --cflags --libs hotset) && ./a.out */
#define _POSIX_C_SOURCE 200809L
#include <hotset.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check(const char *what, hotset_status status) {
    if (status == HOTSET_OK) return;
    fprintf(stderr, "%s: %s\n", what, hotset_strerror(status));
    exit(1);
}

/* Replies with the current value, and one more exclamation mark. */
static hotset_status exclaim(void *arg, const hotset_slice *current, hotset_reply *reply) {
    (void)arg;
    char text[64];
    size_t len = current == NULL ? 0 : current->len;
    if (len >= sizeof text) return HOTSET_TOO_LARGE;
    if (len > 0) memcpy(text, current->data, len);
    text[len] = '!';
    return hotset_reply_set(reply, text, len + 1, HOTSET_TTL_KEEP);
}

/* Loads a key's value from a slow place: here the key itself. */
static hotset_status load(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    ++*(int *)arg;
    return hotset_reply_set(reply, key, key_len, HOTSET_TTL_DEFAULT);
}

int main(void) {
    hotset_cache *cache, *restarted;
    check("open", hotset_open(NULL, &cache));
    check("put", hotset_put(cache, "tea", 3, "green", 5));

    /* 2. Other ways to read: a copy, and several keys in one call. */
    char buffer[16];
    size_t len, found;
    check("get_copy", hotset_get_copy(cache, "tea", 3, buffer, sizeof buffer, &len));
    printf("tea is %.*s\n", (int)len, buffer);
    hotset_slice keys[] = {{"tea", 3}, {"coffee", 6}};
    hotset_value *values[2];
    check("get_many", hotset_get_many(cache, keys, 2, values, &found));
    for (int i = 0; i < 2; i++)
        if (values[i] != NULL) hotset_release(values[i]); /* NULL: the key is absent */
    printf("%zu of 2 keys are present\n", found);

    /* 3. Other ways to write: a TTL in milliseconds, and only if the key is absent. */
    check("put_ttl", hotset_put_ttl(cache, "offer", 5, "today", 5, 60 * 1000));
    hotset_status status = hotset_put_if_absent(cache, "tea", 3, "black", 5, HOTSET_TTL_DEFAULT, NULL);
    printf("put_if_absent: %s\n", status == HOTSET_EXISTS ? "tea is unchanged" : hotset_strerror(status));

    /* 4. Atomic changes: a counter, a replacement of the version that was read, a callback. */
    int64_t sum;
    check("add", hotset_add(cache, "visits", 6, 2, HOTSET_TTL_DEFAULT, &sum));
    printf("%lld visits\n", (long long)sum);
    hotset_value *value;
    uint64_t version;
    check("get", hotset_get(cache, "tea", 3, &value));
    check("value_version", hotset_value_version(value, &version));
    hotset_release(value);
    check("cas", hotset_cas(cache, "tea", 3, version, "white", 5, HOTSET_TTL_KEEP));
    check("compute", hotset_compute(cache, "tea", 3, exclaim, NULL, NULL));

    /* 5. Loading: the second call finds the value. */
    int loads = 0;
    for (int i = 0; i < 2; i++) {
        check("get_or_load", hotset_get_or_load(cache, "cake", 4, load, &loads, &value));
        hotset_release(value);
    }
    printf("loaded %d time\n", loads);

    /* 6. All entries, in no useful order. Close the iterator before the cache. */
    hotset_iter *iter;
    size_t bytes = 0, visited = 0;
    check("iter_open", hotset_iter_open(cache, &iter));
    while ((status = hotset_iter_next(iter, &value)) == HOTSET_OK) {
        const void *data;
        check("value_data", hotset_value_data(value, &data, &len));
        bytes += len;
        visited++;
        hotset_release(value);
    }
    check("iter_close", hotset_iter_close(iter));
    if (status != HOTSET_NOT_FOUND) check("iter_next", status);
    printf("%zu entries hold %zu bytes\n", visited, bytes);

    /* 7. The cache as a whole. */
    hotset_stats_data stats;
    check("stats", hotset_stats(cache, &stats, sizeof stats));
    printf("%llu load, %llu load failures\n", (unsigned long long)stats.loads, (unsigned long long)stats.load_failures);

    /* 8. A snapshot: a cache of the next process begins warm. */
    char folder[] = "/tmp/hotset-tour-XXXXXX", path[64];
    if (mkdtemp(folder) == NULL) return perror("mkdtemp"), 1;
    snprintf(path, sizeof path, "%s/cache", folder);
    uint64_t saved, in_file;
    status = hotset_save(cache, path, NULL, &saved);
    hotset_close(cache);
    check("open", hotset_open(NULL, &restarted));
    hotset_status loaded = status == HOTSET_OK ? hotset_load(restarted, path, NULL, &in_file) : status;
    unlink(path);
    rmdir(folder);
    check("save or load", loaded);
    check("get_copy", hotset_get_copy(restarted, "tea", 3, buffer, sizeof buffer, &len));
    printf("%llu entries saved; after a restart tea is %.*s\n", (unsigned long long)saved, (int)len, buffer);
    hotset_close(restarted);

    /* 9. Texts and versions: a library of another major version has another interface. */
    return hotset_version() / 1000000 == HOTSET_VERSION_MAJOR ? 0 : 1;
}
