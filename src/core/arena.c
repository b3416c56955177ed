#include "src/core/arena.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
enum { RED_ZONE = 256 };
#define POISON(at, bytes) ASAN_POISON_MEMORY_REGION((at), (bytes))
#define UNPOISON(at, bytes) ASAN_UNPOISON_MEMORY_REGION((at), (bytes))
#else
enum { RED_ZONE = 0 };
#define POISON(at, bytes) ((void)(at), (void)(bytes))
#define UNPOISON(at, bytes) ((void)(at), (void)(bytes))
#endif

enum { POPULATE_BYTES = 16 << 20 };

static size_t round_up_to(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }
static size_t round_up(size_t bytes) { return round_up_to(bytes, ESPL_ALIGN); }

espl_arena espl_arena_measure(const char *name) { return (espl_arena){.name = name}; }

espl_status espl_arena_map(const char *name, size_t bytes, void **memory) {
    *memory = NULL;
    if (bytes == 0)
        return ESPL_OK;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        ESPL_FAIL(ESPL_ERR_USAGE, "arena %s: the system refused %.1f MiB (%s); see `espalier plan` for what would fit", name,
                  (double)bytes / 1048576.0, strerror(errno));
    madvise(base, bytes, MADV_HUGEPAGE);
    *memory = base;
    return ESPL_OK;
}

espl_status espl_arena_bind(espl_arena *arena, const char *name, size_t capacity) {
    void *base;
    *arena = (espl_arena){.name = name, .capacity = capacity, .mapped = true};
    ESPL_TRY(espl_arena_map(name, capacity, &base));
    arena->base = base;
    if (capacity > 0)
        POISON(base, capacity);
    return ESPL_OK;
}

void espl_arena_adopt(espl_arena *arena, const char *name, void *memory, size_t capacity, bool mapped) {
    *arena = (espl_arena){.name = name, .base = memory, .capacity = capacity, .adopted = true, .mapped = mapped};
    if (mapped && capacity > 0)
        POISON(memory, capacity);
}

void *espl_arena_take(espl_arena *arena, size_t bytes) {
    size_t start = arena->used;
    arena->used = start + round_up(bytes) + RED_ZONE;
    if (arena->base == NULL)
        return NULL;
    ESPL_ASSERT(arena->used <= arena->capacity, "arena %s overflows: %zu of %zu bytes", arena->name, arena->used, arena->capacity);
    if (arena->mapped)
        UNPOISON(arena->base + start, bytes);
    return arena->base + start;
}

void espl_arena_align(espl_arena *arena, size_t bytes) {
    ESPL_ASSERT(bytes % ESPL_ALIGN == 0 && !arena->adopted, "arena %s: pieces aligned to %zu bytes", arena->name, bytes);
    arena->used = round_up_to(arena->used, bytes);
}

/* In steps, for other threads that map memory wait meanwhile. */
void espl_arena_populate(const espl_arena *arena) {
#ifdef MADV_POPULATE_WRITE
    for (size_t at = 0; at < arena->capacity; at += POPULATE_BYTES)
        if (madvise(arena->base + at, arena->capacity - at < POPULATE_BYTES ? arena->capacity - at : POPULATE_BYTES, MADV_POPULATE_WRITE) !=
            0)
            return;
#else
    (void)arena;
#endif
}

void espl_arena_free(espl_arena *arena) {
    if (arena->base != NULL && arena->mapped)
        UNPOISON(arena->base, arena->capacity);
    if (arena->base != NULL && !arena->adopted)
        munmap(arena->base, arena->capacity);
    *arena = (espl_arena){.name = arena->name};
}
