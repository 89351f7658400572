/* Clients of the proxy, over sockets: the time of each request, and how many of them reached the
 * backend. */
#ifndef DEMO_H
#define DEMO_H

#include "backend.h"
#include "wire.h"
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum { DEMO_CLIENTS = 4 };

typedef struct {
    uint16_t port;
    size_t requests;
    bool same_key;
    uint64_t random;
    const double *zipf;
    uint64_t *nanos;
    bool good;
} client;

static uint64_t demo_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double demo_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (double)(*state >> 11) / 9007199254740992.0;
}

/* Cumulative: the chance that a key's rank is at most i. */
static double *demo_zipf(void) {
    double *upto = malloc(BACKEND_KEYS * sizeof *upto), sum = 0;
    if (!upto) return NULL;
    for (int i = 0; i < BACKEND_KEYS; i++) upto[i] = sum += 1 / pow(i + 1, 0.99);
    for (int i = 0; i < BACKEND_KEYS; i++) upto[i] /= sum;
    return upto;
}

static unsigned demo_pick(const double *upto, double chance) {
    unsigned low = 0, high = BACKEND_KEYS - 1;
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (upto[mid] < chance) low = mid + 1;
        else high = mid;
    }
    return low;
}

/* One get; the answer must be the requested row. */
static bool demo_get(wire *w, unsigned number) {
    char text[64], *line;
    size_t len;
    snprintf(text, sizeof text, "get key:%u\r\n", number);
    if (!wire_puts(w, text) || !wire_line(w, &line, &len) || len < 6 || memcmp(line, "VALUE ", 6) != 0) return false;
    int head = snprintf(text, sizeof text, "row %u ", number);
    if (!wire_line(w, &line, &len) || len != BACKEND_ROW || memcmp(line, text, (size_t)head) != 0) return false;
    return wire_line(w, &line, &len) && len == 3 && memcmp(line, "END", 3) == 0;
}

static void *demo_client(void *arg) {
    client *c = arg;
    wire *w = malloc(sizeof *w);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(c->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    if (!w) return NULL;
    w->head = w->tail = w->queued = 0;
    w->fd = socket(AF_INET, SOCK_STREAM, 0);
    c->good = w->fd >= 0 && connect(w->fd, (struct sockaddr *)&at, sizeof at) == 0;
    if (c->good) setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (size_t i = 0; c->good && i < c->requests; i++) {
        unsigned key = c->same_key ? BACKEND_KEYS - 1 - (unsigned)i : demo_pick(c->zipf, demo_random(&c->random));
        uint64_t start = demo_now();
        c->good = demo_get(w, key);
        c->nanos[i] = demo_now() - start;
    }
    if (w->fd >= 0) close(w->fd);
    free(w);
    return NULL;
}

static int demo_compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Runs the clients and sorts what the requests took; false where any got a wrong answer. */
static bool demo_drive(uint16_t port, size_t requests, bool same_key, uint64_t *nanos, const double *zipf) {
    client clients[DEMO_CLIENTS];
    pthread_t threads[DEMO_CLIENTS];
    int started = 0;
    for (; started < DEMO_CLIENTS; started++) {
        clients[started] = (client){.port = port, .requests = requests, .same_key = same_key, .zipf = zipf,
                                    .random = 0x9E3779B97F4A7C15u * (uint64_t)(started + 1) + requests,
                                    .nanos = nanos + (size_t)started * requests};
        if (pthread_create(&threads[started], NULL, demo_client, &clients[started]) != 0) break;
    }
    bool good = started == DEMO_CLIENTS;
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        good = good && clients[i].good;
    }
    if (!good) fprintf(stderr, "demo: a client was cut off or got a wrong answer\n");
    qsort(nanos, requests * DEMO_CLIENTS, sizeof *nanos, demo_compare);
    return good;
}

static bool demo_run(const char *name, uint16_t port, size_t requests, bool cached) {
    size_t all = requests * DEMO_CLIENTS;
    uint64_t *nanos = calloc(all, sizeof *nanos);
    double *zipf = demo_zipf();
    unsigned long before = atomic_load(&backend_calls);
    uint64_t start = demo_now();
    bool good = nanos && zipf && demo_drive(port, requests, false, nanos, zipf);
    double seconds = (double)(demo_now() - start) / 1e9;
    unsigned long calls = atomic_load(&backend_calls) - before;
    if (good) {
        printf("%-14s %7zu gets by %d clients, %8.0f/s: backend calls %6lu", name, all, DEMO_CLIENTS,
               (double)all / seconds, calls);
        if (cached) printf(" (%.1f%% of the gets did without)", 100 * (1 - (double)calls / (double)all));
        printf("\n%-14s p50 %.0f us, p90 %.0f us, p99 %.0f us, p99.9 %.0f us\n\n", "", (double)nanos[all / 2] / 1e3,
               (double)nanos[all * 9 / 10] / 1e3, (double)nanos[all * 99 / 100] / 1e3,
               (double)nanos[all * 999 / 1000] / 1e3);
    }
    free(nanos);
    free(zipf);
    return good;
}

/* All clients request the same cold keys concurrently: each key is loaded a single time, and all
 * get it. */
static bool demo_stampede(uint16_t port) {
    enum { KEYS = 50 };
    uint64_t nanos[KEYS * DEMO_CLIENTS];
    unsigned long before = atomic_load(&backend_calls);
    if (!demo_drive(port, KEYS, true, nanos, NULL)) return false;
    unsigned long calls = atomic_load(&backend_calls) - before;
    printf("%-14s %7d gets of %d cold keys by %d clients: backend calls %lu\n\n", "stampede", KEYS * DEMO_CLIENTS, KEYS,
           DEMO_CLIENTS, calls);
    return calls == KEYS;
}

#endif
