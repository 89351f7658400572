/* A cache does not cross a fork, but the child opens caches of its own, whatever other threads were
 * doing: it is refused what it inherited, hangs nowhere, and its handles stay good. */
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

static hotset_cache *cache;
static hotset_value *value;
static hotset_iter *iter;
static char path[] = "/tmp/hotset-fork-XXXXXX";
static int stop, freed;

static void count_freed(void *arg, void *data, size_t len) {
    (void)arg, (void)data, (void)len;
    __atomic_fetch_add(&freed, 1, __ATOMIC_SEQ_CST);
}

static hotset_status load_slowly(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    (void)key, (void)key_len;
    for (int i = 0; i < 20; i++) sched_yield();
    return hotset_reply_set(reply, arg, sizeof(uint64_t), HOTSET_TTL_DEFAULT);
}

/* Loads keys that others load too: so some calls wait. */
static void load_all(hotset_cache *from, uint64_t base) {
    for (uint64_t key = base; key < base + 20; key++) {
        hotset_value *got;
        OK(hotset_get_or_load(from, &key, sizeof key, load_slowly, &key, &got));
        OK(hotset_release(got));
    }
}

static void *load_in_child(void *own) {
    for (uint64_t base = 0; base < 400; base += 20) load_all(own, base);
    return NULL;
}

/* What a process without a past can do: caches, threads, loads that wait, a ticker, snapshots; and
 * memory is freed. */
static void use_caches(void) {
    hotset_options options = defaults();
    hotset_cache *own;
    hotset_value *got;
    pthread_t threads[3];
    uint64_t i, number;
    freed = 0;
    options.max_entries = 10;
    options.destructor = count_freed;
    OK(hotset_open(&options, &own));
    for (i = 0; i < 1000; i++) OK(hotset_put(own, &i, sizeof i, &i, sizeof i));
    OK(hotset_run_pending(own));
    CHECK(__atomic_load_n(&freed, __ATOMIC_SEQ_CST) >= 900);
    OK(hotset_close(own));
    CHECK(__atomic_load_n(&freed, __ATOMIC_SEQ_CST) == 1000);
    options.max_entries = 1000;
    options.destructor = NULL;
    OK(hotset_open(&options, &own));
    /* They have the stacks of the threads that the fork left behind, and must not be taken for
     * them. */
    for (i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, load_in_child, own) == 0);
    for (i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    i = 7;
    OK(hotset_get(own, &i, sizeof i, &got));
    OK(hotset_release(got));
    OK(hotset_close(own));
    options.ticker_ms = 1;
    options.ttl_ms = 100000;
    OK(hotset_open(&options, &own));
    OK(hotset_load(own, path, NULL, &number));
    OK(hotset_warm(own, &number, &i));
    CHECK(has(own, "kept", "value") && i == 0);
    OK(hotset_close(own));
}

static void refuses_the_inherited(void) {
    hotset_value *out;
    uint64_t number;
    IS(HOTSET_FORKED, hotset_put(cache, S("k"), S("v")));
    IS(HOTSET_FORKED, hotset_get(cache, S("kept"), &out));
    CHECK(out == NULL);
    IS(HOTSET_FORKED, hotset_remove(cache, S("kept")));
    IS(HOTSET_FORKED, hotset_len(cache, &number));
    IS(HOTSET_FORKED, hotset_clear(cache));
    IS(HOTSET_FORKED, hotset_iter_next(iter, &out));
    IS(HOTSET_FORKED, hotset_close(cache));
    OK(hotset_retain(value));
    OK(hotset_release(value));
}

/* Forks, and runs `child` there. */
static void in_child(void (*child)(void)) {
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        child();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void grandchild(void) {
    refuses_the_inherited();
    use_caches();
}

static void child(void) {
    hotset_cache *own;
    refuses_the_inherited();
    use_caches();
    own = cache_of(10);
    in_child(grandchild);
    OK(hotset_put(own, S("k"), S("v")));
    CHECK(has(own, "k", "v"));
    OK(hotset_close(own));
    CHECK(holds(value, "value"));
    OK(hotset_iter_close(iter));
}

/* In callbacks, which the child never leaves. */
static hotset_status fork_in_compute(void *arg, const hotset_slice *current, hotset_reply *reply) {
    (void)arg, (void)current, (void)reply;
    in_child(grandchild);
    return HOTSET_OK;
}

static hotset_status fork_in_loader(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    (void)arg, (void)key, (void)key_len, (void)reply;
    in_child(grandchild);
    return HOTSET_NOT_FOUND;
}

static void fork_in_destructor(void *arg, void *data, size_t len) {
    (void)arg, (void)data, (void)len;
    in_child(grandchild);
}

static void in_callbacks(void) {
    hotset_options options = defaults();
    hotset_cache *destroying;
    hotset_value *none;
    OK(hotset_compute(cache, S("k"), fork_in_compute, NULL, NULL));
    IS(HOTSET_NOT_FOUND, hotset_get_or_load(cache, S("absent"), fork_in_loader, NULL, &none));
    options.destructor = fork_in_destructor;
    OK(hotset_open(&options, &destroying));
    OK(hotset_put(destroying, S("k"), S("v")));
    OK(hotset_close(destroying));
}

static void *in_thread(void *none) {
    (void)none;
    in_child(child);
    in_callbacks();
    return NULL;
}

/* Threads at work: in the map, in loads that wait for each other, opening and closing caches,
 * saving. */
static void *work(void *arg) {
    uint64_t key = (uint64_t)(uintptr_t)arg, number;
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
        hotset_cache *own;
        OK(hotset_put(cache, &key, sizeof key, &key, sizeof key));
        load_all(cache, key << 32 >> 33);
        if (key % 10 == 0) {
            own = cache_of(10);
            OK(hotset_put(own, S("kept"), S("value")));
            OK(hotset_save(own, path, NULL, &number));
            OK(hotset_close(own));
        }
        key += 2;
    }
    return NULL;
}

/* A thread that stays where it is, inside of a call: pinned, or waiting for another's load. */
static pthread_barrier_t held;

static hotset_status hold(void *arg, const hotset_slice *current, hotset_reply *reply) {
    (void)arg, (void)current, (void)reply;
    pthread_barrier_wait(&held);
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) sched_yield();
    return HOTSET_OK;
}

static void *stay_in_compute(void *none) {
    (void)none;
    OK(hotset_compute(cache, S("held"), hold, NULL, NULL));
    return NULL;
}

static hotset_status hold_load(void *arg, const void *key, size_t key_len, hotset_reply *reply) {
    (void)key, (void)key_len;
    hold(arg, NULL, reply);
    return hotset_reply_set(reply, S("loaded"), HOTSET_TTL_DEFAULT);
}

static void *stay_in_load(void *none) {
    hotset_value *got;
    (void)none;
    OK(hotset_get_or_load(cache, S("load"), hold_load, NULL, &got));
    OK(hotset_release(got));
    return NULL;
}

static void *wait_for_load(void *none) {
    hotset_value *got;
    (void)none;
    OK(hotset_get_or_load(cache, S("load"), hold_load, NULL, &got));
    OK(hotset_release(got));
    return NULL;
}

static void while_threads_stay(void) {
    hotset_stats_data stats = {0};
    pthread_t threads[3];
    int i;
    stop = 0;
    CHECK(pthread_barrier_init(&held, NULL, 3) == 0);
    CHECK(pthread_create(&threads[0], NULL, stay_in_compute, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, stay_in_load, NULL) == 0);
    pthread_barrier_wait(&held);
    CHECK(pthread_create(&threads[2], NULL, wait_for_load, NULL) == 0);
    while (stats.waits == 0) OK(hotset_stats(cache, &stats, sizeof stats));
    in_child(child);
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    for (i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(pthread_barrier_destroy(&held) == 0);
}

static void while_threads_work(int forks) {
    pthread_t threads[2];
    int i;
    stop = 0;
    for (i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i) == 0);
    for (i = 0; i < forks; i++) in_child(child);
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    for (i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

/* Before the parent has had a cache. */
static void early(void) {
    hotset_cache *own = cache_of(10);
    OK(hotset_put(own, S("k"), S("v")));
    CHECK(has(own, "k", "v"));
    OK(hotset_close(own));
}

/* With an argument, no other threads are in caches at the forks: what they held would be leaks of
 * the child. */
int main(int argc, char **argv) {
    pthread_t thread;
    uint64_t number;
    (void)argv;
    in_child(early);
    CHECK(mkstemp(path) >= 0);
    cache = cache_of(100);
    OK(hotset_put(cache, S("kept"), S("value")));
    OK(hotset_get(cache, S("kept"), &value));
    OK(hotset_iter_open(cache, &iter));
    OK(hotset_save(cache, path, NULL, &number));
    in_child(child);
    if (argc == 1) {
        in_callbacks();
        CHECK(pthread_create(&thread, NULL, in_thread, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        while_threads_stay();
        while_threads_work(50);
    }
    /* The parent continues as if it had not forked. */
    OK(hotset_put(cache, S("kept"), S("newer")));
    CHECK(holds(value, "value"));
    OK(hotset_iter_close(iter));
    OK(hotset_close(cache));
    CHECK(unlink(path) == 0);
    puts("fork: ok");
    return 0;
}
