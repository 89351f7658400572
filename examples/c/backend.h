/* A source of data that is slow: 2 ms for a row, as a database over a network takes. It knows the
 * keys key:0 to key:9999. */
#ifndef BACKEND_H
#define BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { BACKEND_KEYS = 10000, BACKEND_ROW = 100, BACKEND_LATENCY_NS = 2000000 };

static atomic_ulong backend_calls;

/* Fills `row` with the key's BACKEND_ROW bytes; false where there is no such row. */
static bool backend_fetch(const char *key, size_t key_len, char *row) {
    atomic_fetch_add_explicit(&backend_calls, 1, memory_order_relaxed);
    struct timespec latency = {.tv_sec = 0, .tv_nsec = BACKEND_LATENCY_NS};
    nanosleep(&latency, NULL);
    if (key_len < 5 || key_len > 8 || memcmp(key, "key:", 4) != 0) return false;
    unsigned number = 0;
    for (size_t i = 4; i < key_len; i++) {
        if (key[i] < '0' || key[i] > '9') return false;
        number = number * 10 + (unsigned)(key[i] - '0');
    }
    if (number >= BACKEND_KEYS) return false;
    memset(row, '.', BACKEND_ROW);
    char head[32];
    int len = snprintf(head, sizeof head, "row %u ", number);
    memcpy(row, head, (size_t)len);
    return true;
}

#endif
