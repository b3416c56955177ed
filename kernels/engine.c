#include "kernels/engine.h"

#include "src/core/buffer.h"

#include <stdlib.h>

enum { PIECE = 1 << 20 }; /* elements converted at once on their way to or from a device */

void espl_engine_host(espl_dtype real, espl_engine *engine) {
    *engine = (espl_engine){.name = "cpu", .calls = espl_device_host(), .kernels = espl_kernels_cpu(real)};
    espl_status status = engine->calls->open(0, &engine->device);
    ESPL_ASSERT(status == ESPL_OK, "the host does not open");
    engine->calls->info(engine->device, &engine->info);
}

espl_status espl_engine_start(espl_engine *engine, int ordinal, espl_dtype real) {
    engine->calls = engine->backend->device;
    engine->kernels = real == ESPL_BF16 ? engine->backend->bf16 : engine->backend->fp32;
    if (engine->kernels == NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "run.dtype is %s, but the %s backend has no kernels for it", espl_dtype_name(real), engine->name);
    ESPL_TRY(engine->calls->open(ordinal, &engine->device));
    engine->calls->info(engine->device, &engine->info);
    return ESPL_OK;
}

void espl_engine_close(espl_engine *engine) {
    if (engine->device != NULL)
        engine->calls->close(&engine->device);
    *engine = (espl_engine){0};
}

typedef espl_status alloc_call(espl_device *device, const char *name, size_t bytes, void **memory);
typedef void release_call(espl_device *device, void *memory, size_t bytes);

static espl_status take(const espl_engine *engine, alloc_call *alloc, espl_arena *arena, const char *name, size_t bytes) {
    void *memory = NULL;
    if (bytes > 0)
        ESPL_TRY(alloc(engine->device, name, bytes, &memory));
    espl_arena_adopt(arena, name, memory, bytes, !engine->calls->remote);
    return ESPL_OK;
}

static void give_back(const espl_engine *engine, release_call *release, espl_arena *arena) {
    void *memory = arena->base;
    size_t bytes = arena->capacity;
    espl_arena_free(arena);
    if (memory != NULL)
        release(engine->device, memory, bytes);
}

espl_status espl_engine_take(const espl_engine *engine, espl_arena *arena, const char *name, size_t bytes) {
    return take(engine, engine->calls->alloc, arena, name, bytes);
}

void espl_engine_give_back(const espl_engine *engine, espl_arena *arena) { give_back(engine, engine->calls->release, arena); }

espl_status espl_engine_take_far(const espl_engine *engine, espl_arena *arena, const char *name, size_t bytes) {
    return take(engine, engine->calls->alloc_far, arena, name, bytes);
}

void espl_engine_give_back_far(const espl_engine *engine, espl_arena *arena) { give_back(engine, engine->calls->release_far, arena); }

espl_status espl_engine_put(const espl_engine *engine, void *to, espl_dtype to_dtype, const void *from, espl_dtype from_dtype, size_t n) {
    if (engine == NULL || !engine->calls->remote) {
        espl_dtype_convert(to, to_dtype, from, from_dtype, n);
        return ESPL_OK;
    }
    size_t to_size = espl_dtype_size(to_dtype), from_size = espl_dtype_size(from_dtype), room = n < PIECE ? n : PIECE;
    char *piece = espl_malloc(room * to_size);
    espl_status status = ESPL_OK;
    for (size_t at = 0; at < n && status == ESPL_OK; at += PIECE) {
        size_t count = n - at < PIECE ? n - at : PIECE;
        espl_dtype_convert(piece, to_dtype, (const char *)from + at * from_size, from_dtype, count);
        status = engine->calls->write(engine->device, (char *)to + at * to_size, piece, count * to_size);
    }
    free(piece);
    return status;
}

espl_status espl_engine_convert(const espl_engine *engine, void *to, espl_dtype to_dtype, const void *from, espl_dtype from_dtype,
                                size_t n) {
    if (engine == NULL || !engine->calls->remote)
        return espl_engine_put(engine, to, to_dtype, from, from_dtype, n);
    size_t to_size = espl_dtype_size(to_dtype), from_size = espl_dtype_size(from_dtype), room = n < PIECE ? n : PIECE;
    char *piece = espl_malloc(room * from_size);
    espl_status status = ESPL_OK;
    for (size_t at = 0; at < n && status == ESPL_OK; at += PIECE) {
        size_t count = n - at < PIECE ? n - at : PIECE;
        status = engine->calls->read(engine->device, piece, (const char *)from + at * from_size, count * from_size);
        if (status == ESPL_OK)
            status = espl_engine_put(engine, (char *)to + at * to_size, to_dtype, piece, from_dtype, count);
    }
    free(piece);
    return status;
}

int64_t espl_engine_rows(const espl_engine *engine, int64_t n, int64_t planned) { return engine->calls->remote ? planned : n; }
