/* The memcached text protocol (get, gets, set, add, cas, delete, incr, decr, stats, version, quit)
 * over a hotset cache in front of the slow backend. One thread serves one connection; the cache is
 * shared and needs no lock around it. */
#ifndef SERVICE_H
#define SERVICE_H

#include "backend.h"
#include "wire.h"
#include <hotset.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>

enum { KEY_MAX = 250, VALUE_MAX = 1 << 20, WORDS_MAX = 128 };

/* A value in the cache: the client's flags, 4 bytes as they are in memory, then the data. */
enum { FLAGS = sizeof(uint32_t) };

typedef struct {
    hotset_cache *cache; /* NULL: every get asks the backend */
} service;

typedef struct {
    char *at;
    size_t len;
} word;

static size_t split(char *line, size_t len, word *words) {
    size_t count = 0, i = 0;
    while (i < len) {
        while (i < len && line[i] == ' ') i++;
        size_t start = i;
        while (i < len && line[i] != ' ') i++;
        if (i == start) break;
        if (count == WORDS_MAX) return 0;
        words[count++] = (word){line + start, i - start};
    }
    return count;
}

static bool is(word w, const char *text) { return w.len == strlen(text) && memcmp(w.at, text, w.len) == 0; }

static bool parse_number(const char *text, size_t len, uint64_t *out) {
    if (len == 0 || len > 20) return false;
    uint64_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (n > (UINT64_MAX - digit) / 10) return false;
        n = n * 10 + digit;
    }
    *out = n;
    return true;
}

static bool valid_key(word key) {
    if (key.len == 0 || key.len > KEY_MAX) return false;
    for (size_t i = 0; i < key.len; i++)
        if ((unsigned char)key.at[i] < 33 || key.at[i] == 127) return false;
    return true;
}

/* memcached's time: 0 is never, up to 30 days is relative, more is a date; a past one expires
 * immediately (`gone`). */
static bool parse_time(word w, uint64_t *ttl_ms, bool *gone) {
    uint64_t seconds;
    *gone = w.len > 1 && w.at[0] == '-';
    if (*gone) return parse_number(w.at + 1, w.len - 1, &seconds);
    if (!parse_number(w.at, w.len, &seconds) || seconds > UINT32_MAX) return false;
    *ttl_ms = HOTSET_TTL_NONE;
    if (seconds == 0) return true;
    if (seconds > 60 * 60 * 24 * 30) {
        uint64_t now = (uint64_t)time(NULL);
        *gone = seconds <= now;
        seconds -= *gone ? 0 : now;
    }
    *ttl_ms = seconds * 1000;
    return true;
}

static bool answer_failure(wire *w, hotset_status status) {
    if (status == HOTSET_TOO_LARGE) return wire_puts(w, "SERVER_ERROR object too large for cache\r\n");
    return wire_puts(w, "SERVER_ERROR ") && wire_puts(w, hotset_strerror(status)) && wire_puts(w, "\r\n");
}

/* Called by one thread per missing key; concurrent requests for that key wait for its answer. */
static hotset_status load_row(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    (void)arg;
    char value[FLAGS + BACKEND_ROW] = {0};
    if (!backend_fetch(key, key_len, value + FLAGS)) return HOTSET_NOT_FOUND;
    return hotset_reply_set(reply, value, sizeof value, HOTSET_TTL_DEFAULT);
}

static bool write_value(wire *w, word key, const char *data, size_t len, const uint64_t *version) {
    uint32_t flags;
    memcpy(&flags, data, FLAGS);
    char head[80];
    int n = version ? snprintf(head, sizeof head, " %" PRIu32 " %zu %" PRIu64 "\r\n", flags, len - FLAGS, *version)
                    : snprintf(head, sizeof head, " %" PRIu32 " %zu\r\n", flags, len - FLAGS);
    return wire_puts(w, "VALUE ") && wire_write(w, key.at, key.len) && wire_write(w, head, (size_t)n) &&
           wire_write(w, data + FLAGS, len - FLAGS) && wire_puts(w, "\r\n");
}

static bool get_one(service *s, wire *w, word key, bool with_version) {
    if (!s->cache) {
        char value[FLAGS + BACKEND_ROW] = {0};
        uint64_t version = 0;
        if (!backend_fetch(key.at, key.len, value + FLAGS)) return true;
        return write_value(w, key, value, sizeof value, with_version ? &version : NULL);
    }
    hotset_value *value;
    hotset_status status = hotset_get_or_load(s->cache, key.at, key.len, load_row, NULL, &value);
    if (status == HOTSET_NOT_FOUND) return true; /* a miss is said by saying nothing */
    if (status != HOTSET_OK) return answer_failure(w, status);
    const void *data;
    size_t len;
    uint64_t version;
    hotset_value_data(value, &data, &len);
    hotset_value_version(value, &version);
    bool alive = write_value(w, key, data, len, with_version ? &version : NULL);
    hotset_release(value); /* until here the bytes were valid, also after an eviction */
    return alive;
}

static bool do_get(service *s, wire *w, word *words, size_t count, bool with_version) {
    if (count < 2) return wire_puts(w, "ERROR\r\n");
    for (size_t i = 1; i < count; i++)
        if (!valid_key(words[i])) return wire_puts(w, "CLIENT_ERROR bad key\r\n");
    /* The line lies in the buffer of what was received, which does not change while only answers
     * are written. */
    for (size_t i = 1; i < count; i++)
        if (!get_one(s, w, words[i], with_version)) return false;
    return wire_puts(w, "END\r\n");
}

/* set, add: KEY FLAGS TIME BYTES [noreply]; cas: KEY FLAGS TIME BYTES VERSION [noreply]; then a
 * line of data. */
static bool do_store(service *s, wire *w, word *words, size_t count) {
    bool cas = is(words[0], "cas");
    bool add = is(words[0], "add");
    size_t needed = cas ? 6 : 5;
    bool quiet = count == needed + 1 && is(words[needed], "noreply");
    uint64_t flags, size, version = 0, ttl_ms = 0;
    bool gone = false;
    if (count != needed + (quiet ? 1 : 0)) return wire_puts(w, "ERROR\r\n");
    /* Without a size the end of the data is unknown: the connection cannot continue. */
    if (!parse_number(words[4].at, words[4].len, &size) || size > UINT32_MAX)
        return wire_puts(w, "CLIENT_ERROR bad data chunk\r\n") && wire_flush(w) && false;
    const char *wrong = NULL;
    if (!valid_key(words[1])) wrong = "CLIENT_ERROR bad key\r\n";
    else if (!parse_number(words[2].at, words[2].len, &flags) || flags > UINT32_MAX ||
             !parse_time(words[3], &ttl_ms, &gone) || (cas && !parse_number(words[5].at, words[5].len, &version)))
        wrong = "CLIENT_ERROR bad command line format\r\n";
    else if (size > VALUE_MAX) wrong = "SERVER_ERROR object too large for cache\r\n";
    else if (!s->cache) wrong = "SERVER_ERROR no cache\r\n";

    char key[KEY_MAX]; /* receiving the data moves the line */
    size_t key_len = words[1].len;
    char *value = wrong ? NULL : malloc(FLAGS + size);
    if (!wrong && !value) wrong = "SERVER_ERROR out of memory storing object\r\n";
    if (!wrong) {
        uint32_t narrow = (uint32_t)flags;
        memcpy(key, words[1].at, key_len);
        memcpy(value, &narrow, FLAGS);
    }
    char end[2] = {0};
    bool alive = wire_block(w, value ? value + FLAGS : NULL, size) && wire_block(w, end, 1);
    if (alive && end[0] == '\r') alive = wire_block(w, end + 1, 1);
    if (!alive) {
        free(value);
        return false;
    }
    if (end[0] != '\n' && end[1] != '\n') {
        free(value); /* the size was a lie: what follows would be taken for commands */
        return wire_puts(w, "CLIENT_ERROR bad data chunk\r\n") && wire_flush(w) && false;
    }
    if (wrong) {
        free(value);
        return quiet || wire_puts(w, wrong);
    }
    hotset_status status;
    if (gone) ttl_ms = 1; /* expires immediately: the shortest TTL */
    if (cas) status = hotset_cas(s->cache, key, key_len, version, value, FLAGS + size, ttl_ms);
    else if (add) status = hotset_put_if_absent(s->cache, key, key_len, value, FLAGS + size, ttl_ms, NULL);
    else status = hotset_put_ttl(s->cache, key, key_len, value, FLAGS + size, ttl_ms);
    free(value);
    if (quiet) return true;
    switch (status) {
    case HOTSET_OK: return wire_puts(w, "STORED\r\n");
    case HOTSET_EXISTS: return wire_puts(w, "NOT_STORED\r\n");
    case HOTSET_CONFLICT: return wire_puts(w, "EXISTS\r\n");
    case HOTSET_NOT_FOUND: return wire_puts(w, "NOT_FOUND\r\n");
    default: return answer_failure(w, status);
    }
}

typedef struct {
    uint64_t delta, result;
    bool down;
} step;

/* memcached counts in decimal digits: upwards it wraps at 64 bits, downwards it stops at 0. */
static hotset_status count_in_digits(void *arg, const hotset_slice *current, hotset_reply *reply) {
    step *st = arg;
    if (!current) return HOTSET_NOT_FOUND;
    const char *digits = (const char *)current->data + FLAGS;
    uint64_t n;
    if (!parse_number(digits, current->len - FLAGS, &n)) return HOTSET_NOT_A_NUMBER;
    st->result = !st->down ? n + st->delta : n > st->delta ? n - st->delta : 0;
    char value[FLAGS + 24];
    memcpy(value, current->data, FLAGS);
    int len = snprintf(value + FLAGS, sizeof value - FLAGS, "%" PRIu64, st->result);
    return hotset_reply_set(reply, value, FLAGS + (size_t)len, HOTSET_TTL_KEEP);
}

static bool do_count(service *s, wire *w, word *words, size_t count) {
    step st = {.down = is(words[0], "decr")};
    bool quiet = count == 4 && is(words[3], "noreply");
    if (count != (quiet ? 4 : 3)) return wire_puts(w, "ERROR\r\n");
    if (!valid_key(words[1])) return wire_puts(w, "CLIENT_ERROR bad key\r\n");
    if (!parse_number(words[2].at, words[2].len, &st.delta))
        return wire_puts(w, "CLIENT_ERROR invalid numeric delta argument\r\n");
    if (!s->cache) return quiet || wire_puts(w, "SERVER_ERROR no cache\r\n");
    hotset_status status = hotset_compute(s->cache, words[1].at, words[1].len, count_in_digits, &st, NULL);
    if (quiet) return true;
    if (status == HOTSET_NOT_FOUND) return wire_puts(w, "NOT_FOUND\r\n");
    if (status == HOTSET_NOT_A_NUMBER)
        return wire_puts(w, "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
    if (status != HOTSET_OK) return answer_failure(w, status);
    char line[32];
    snprintf(line, sizeof line, "%" PRIu64 "\r\n", st.result);
    return wire_puts(w, line);
}

static bool do_delete(service *s, wire *w, word *words, size_t count) {
    bool quiet = count == 3 && is(words[2], "noreply");
    if (count != (quiet ? 3 : 2)) return wire_puts(w, "ERROR\r\n");
    if (!valid_key(words[1])) return wire_puts(w, "CLIENT_ERROR bad key\r\n");
    hotset_status status = s->cache ? hotset_remove(s->cache, words[1].at, words[1].len) : HOTSET_NOT_FOUND;
    if (quiet) return true;
    if (status == HOTSET_OK) return wire_puts(w, "DELETED\r\n");
    return status == HOTSET_NOT_FOUND ? wire_puts(w, "NOT_FOUND\r\n") : answer_failure(w, status);
}

static bool write_stat(wire *w, const char *name, uint64_t value) {
    char line[96];
    int len = snprintf(line, sizeof line, "STAT %s %" PRIu64 "\r\n", name, value);
    return wire_write(w, line, (size_t)len);
}

static bool do_stats(service *s, wire *w) {
    hotset_stats_data stats = {0};
    hotset_status status = s->cache ? hotset_stats(s->cache, &stats, sizeof stats) : HOTSET_OK;
    if (status != HOTSET_OK) return answer_failure(w, status);
    return write_stat(w, "get_hits", stats.hits) && write_stat(w, "get_misses", stats.misses) &&
           write_stat(w, "evictions", stats.evictions) && write_stat(w, "backend_calls", atomic_load(&backend_calls)) &&
           wire_puts(w, "END\r\n");
}

/* One command, its answer queued; false ends the connection. */
static bool serve_one(service *s, wire *w) {
    char *line;
    size_t len;
    word words[WORDS_MAX];
    if (!wire_line(w, &line, &len)) {
        if (w->tail - w->head == WIRE_BUFFER) (void)(wire_puts(w, "CLIENT_ERROR line too long\r\n") && wire_flush(w));
        return false;
    }
    size_t count = split(line, len, words);
    if (count == 0) return wire_puts(w, "ERROR\r\n");
    if (is(words[0], "get")) return do_get(s, w, words, count, false);
    if (is(words[0], "gets")) return do_get(s, w, words, count, true);
    if (is(words[0], "set") || is(words[0], "add") || is(words[0], "cas")) return do_store(s, w, words, count);
    if (is(words[0], "incr") || is(words[0], "decr")) return do_count(s, w, words, count);
    if (is(words[0], "delete")) return do_delete(s, w, words, count);
    if (is(words[0], "stats") && count == 1) return do_stats(s, w);
    if (is(words[0], "version") && count == 1)
        return wire_puts(w, "VERSION hotset ") && wire_puts(w, hotset_version_string()) && wire_puts(w, "\r\n");
    if (is(words[0], "quit")) return false;
    return wire_puts(w, "ERROR\r\n");
}

#endif
