/* Contestants that take turns, in one thread or several. Ratios are medians of the rounds' ratios:
 * on a shared machine trust those alone. */
#ifndef CONTEST_H
#define CONTEST_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS = 4, ROUNDS_MAX = 101, CONTESTANTS_MAX = 8 };

typedef struct {
    const char *name;
    /* Performs this many operations for a thread, and returns how many did what they should. */
    size_t (*run)(void *arg, size_t count);
    size_t count;
} contestant;

typedef struct {
    const contestant *who;
    void *arg;
    size_t done;
    pthread_barrier_t *start;
} job;

static void die(const char *what) {
    fprintf(stderr, "benchmark: %s\n", what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *work(void *arg) {
    job *j = arg;
    pthread_barrier_wait(j->start);
    j->done = j->who->run(j->arg, j->who->count);
    return NULL;
}

/* Nanoseconds per operation, of all threads together. Each thread gets its own argument. */
static double timed(const contestant *who, void *const *args, int threads) {
    pthread_t ids[THREADS];
    job jobs[THREADS];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, (unsigned)threads + 1);
    for (int t = 0; t < threads; t++) {
        jobs[t] = (job){who, args[t], 0, &start};
        if (pthread_create(&ids[t], NULL, work, &jobs[t]) != 0) die("no thread");
    }
    double begun = now();
    pthread_barrier_wait(&start);
    for (int t = 0; t < threads; t++) {
        pthread_join(ids[t], NULL);
        if (jobs[t].done != who->count) die("an operation failed");
    }
    double each = (now() - begun) / ((double)who->count * threads);
    pthread_barrier_destroy(&start);
    return each;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n) {
    double sorted[ROUNDS_MAX];
    memcpy(sorted, values, (size_t)n * sizeof *values);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    return sorted[n / 2];
}

/* Times the contestants in turn; the first is hotset. Prints medians and, per contestant, the ratio
 * and the difference to the first. `what`: the operation. */
static void compete(const char *title, const char *what, void *const *args, int threads, int rounds,
                    const contestant *them, int n) {
    static double took[CONTESTANTS_MAX][ROUNDS_MAX];
    for (int r = -1; r < rounds; r++) /* one to warm up */
        for (int c = 0; c < n; c++) {
            int at = (c + r + 1) % n; /* each is first as often as last */
            double each = timed(&them[at], args, threads);
            if (r >= 0) took[at][r] = each;
        }
    printf("\n%s, %d thread%s, medians of %d rounds\n\n| cache | ns per %s | times the first | more than the first |\n"
           "|---|---|---|---|\n", title, threads, threads == 1 ? "" : "s", rounds, what);
    for (int c = 0; c < n; c++) {
        double ratio[ROUNDS_MAX], more[ROUNDS_MAX];
        for (int r = 0; r < rounds; r++) {
            ratio[r] = took[c][r] / took[0][r];
            more[r] = took[c][r] - took[0][r];
        }
        printf("| %s | %.1f | %.2f | %+.1f ns |\n", them[c].name, median(took[c], rounds), median(ratio, rounds),
               median(more, rounds));
    }
    fflush(stdout);
}

#endif
