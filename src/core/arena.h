/* Arenas: memory that is planned before it is taken.
 *
 * A layout function takes its pieces from an arena in a fixed order. Run with a measuring arena
 * (base NULL) it finds the size; run again with a bound arena it gets the same offsets in real
 * memory. One allocation an arena a run, none in the training loop. Under AddressSanitizer a red
 * zone stands between pieces. Not thread-safe: layouts are made by one thread. */
#ifndef ESPL_CORE_ARENA_H
#define ESPL_CORE_ARENA_H

#include "src/core/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { ESPL_ALIGN = 64 }; /* bytes; a cache line and an AVX-512 register */

typedef struct espl_arena {
    const char *name; /* borrowed; shown in messages and by `espalier plan` */
    char *base;       /* NULL while measuring */
    size_t used;      /* bytes taken so far, including padding */
    size_t capacity;  /* bytes behind base; 0 while measuring */
    bool adopted;     /* the memory is somebody else's */
    bool mapped;      /* this process can address it */
} espl_arena;

/* Local. A measuring arena: takes succeed, return NULL, and only `used` grows. */
espl_arena espl_arena_measure(const char *name);

/* Local. Zeroed, page-aligned memory, which takes pages when they are touched (huge ones are asked for), for munmap; of 0 bytes NULL.
 * Errors: usage, when the system refuses; `name` is said to be the arena that wants it. */
espl_status espl_arena_map(const char *name, size_t bytes, void **memory);

/* Local. Takes `capacity` such bytes for a real pass. Errors: the same. */
espl_status espl_arena_bind(espl_arena *arena, const char *name, size_t capacity);

/* Local. An arena of `capacity` bytes that somebody else took: zeroed, aligned to ESPL_ALIGN. They are his again after espl_arena_free.
 * `mapped`: this process can address them, so that red zones can be set. */
void espl_arena_adopt(espl_arena *arena, const char *name, void *memory, size_t capacity, bool mapped);

/* Local. Returns the next `bytes` aligned to ESPL_ALIGN (NULL while measuring); asserts on overflow. */
void *espl_arena_take(espl_arena *arena, size_t bytes);

/* Local. Makes the next take begin at a multiple of `bytes`, a multiple of ESPL_ALIGN and at most a page: for arenas that were bound. */
void espl_arena_align(espl_arena *arena, size_t bytes);

/* Local. Has the system give all memory behind a bound arena now, where it otherwise would at each page's first use. An advice: it may do
 * nothing. Takes its time, and may run beside everything but espl_arena_free. */
void espl_arena_populate(const espl_arena *arena);

/* Local. Gives the memory back, unless it was adopted, and nulls the arena; accepts an arena never bound. */
void espl_arena_free(espl_arena *arena);

#endif
