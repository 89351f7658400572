/* A plugin that has the static library inside, and the program that loads two of them.
 * `-DPLUGIN=name` makes the plugin. */
#ifdef PLUGIN
#include <hotset.h>

int PLUGIN(void);
int PLUGIN(void) {
    hotset_cache *cache;
    hotset_value *value;
    int same;
    if (hotset_open(NULL, &cache) || hotset_put(cache, "k", 1, "v", 1) || hotset_get(cache, "k", 1, &value)) return 1;
    same = hotset_release(value) == HOTSET_OK && hotset_remove(cache, "k", 1) == HOTSET_OK;
    return hotset_close(cache) != HOTSET_OK || !same;
}
#else
#include <dlfcn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Loads the plugins PATH NAME PATH NAME, runs both, and again in a child, which neither refuses. */
int main(int argc, char **argv) {
    int (*plugins[2])(void), status;
    pid_t pid;
    if (argc != 5) return 2;
    for (int i = 0; i < 2; i++) {
        void *library = dlopen(argv[1 + 2 * i], RTLD_NOW | RTLD_GLOBAL);
        if (!library) return fprintf(stderr, "%s\n", dlerror()), 3;
        *(void **)&plugins[i] = dlsym(library, argv[2 + 2 * i]);
        if (!plugins[i] || plugins[i]()) return 4;
    }
    pid = fork();
    if (pid == 0) _exit(plugins[0]() || plugins[1]());
    return waitpid(pid, &status, 0) != pid || status != 0;
}
#endif
