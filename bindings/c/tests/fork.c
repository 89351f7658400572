/* A cache does not cross a fork: the child is told, and hangs nowhere; its handles stay good. */
#include "check.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static hotset_cache *cache, *other;
static hotset_value *value;
static hotset_iter *iter;
static int stop;

static void *work(void *arg) {
    uint64_t key = (uint64_t)(uintptr_t)arg;
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
        OK(hotset_put(cache, &key, sizeof key, &key, sizeof key));
        key += 2;
    }
    return NULL;
}

static void child(void) {
    hotset_value *out;
    uint64_t number;
    IS(HOTSET_FORKED, hotset_put(cache, S("k"), S("v")));
    IS(HOTSET_FORKED, hotset_get(cache, S("kept"), &out));
    CHECK(out == NULL);
    IS(HOTSET_FORKED, hotset_remove(cache, S("kept")));
    IS(HOTSET_FORKED, hotset_len(cache, &number));
    IS(HOTSET_FORKED, hotset_clear(cache));
    IS(HOTSET_FORKED, hotset_iter_next(iter, &out));
    IS(HOTSET_FORKED, hotset_open(NULL, &other));
    CHECK(other == NULL);
    IS(HOTSET_FORKED, hotset_close(cache));
    OK(hotset_retain(value));
    OK(hotset_release(value));
    CHECK(holds(value, "value"));
    OK(hotset_iter_close(iter));
}

static void forks(void) {
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        child();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Who forks before there is a cache opens one in the child. */
static void early(void) {
    int status;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        cache = cache_of(10);
        OK(hotset_put(cache, S("k"), S("v")));
        CHECK(has(cache, "k", "v"));
        OK(hotset_close(cache));
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* With an argument, no threads are at work meanwhile: what they held at the fork would be leaks of the child. */
int main(int argc, char **argv) {
    pthread_t threads[2];
    int i, count = argc > 1 ? 0 : 2;
    (void)argv;
    early();
    cache = cache_of(100);
    OK(hotset_put(cache, S("kept"), S("value")));
    OK(hotset_get(cache, S("kept"), &value));
    OK(hotset_iter_open(cache, &iter));
    for (i = 0; i < count; i++) CHECK(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i) == 0);
    for (i = 0; i < 10; i++) forks();
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    for (i = 0; i < count; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    /* The parent goes on as if nothing had been. */
    OK(hotset_put(cache, S("kept"), S("newer")));
    CHECK(holds(value, "value"));
    OK(hotset_iter_close(iter));
    OK(hotset_close(cache));
    puts("fork: ok");
    return 0;
}
