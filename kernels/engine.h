/* The engine: a device that is open, its kernels in one compute format, and what is made of the two: arenas on it, weights into it.
 * Everything above the kernels reaches memory of tensors through here. */
#ifndef ESPL_KERNELS_ENGINE_H
#define ESPL_KERNELS_ENGINE_H

#include "kernels/backend.h"
#include "src/core/arena.h"

typedef struct espl_engine {
    const char *name; /* of the backend: "cpu", "cuda", "emu" */
    const espl_backend *backend;
    const espl_device_calls *calls;
    const espl_kernels *kernels; /* of the compute format */
    espl_device *device;
    espl_device_info info;
} espl_engine;

/* Local. The host, with the CPU's kernels; close is not needed. */
void espl_engine_host(espl_dtype real, espl_engine *engine);

/* Local. Opens device `ordinal` of the backend that engine->backend is. Errors: usage, when it cannot, or lacks the format. */
espl_status espl_engine_start(espl_engine *engine, int ordinal, espl_dtype real);

/* Local. Closes the device and zeroes; accepts one that was never opened. */
void espl_engine_close(espl_engine *engine);

/* Local. Takes an arena of zeroed memory on the device, and gives it back (accepts a zeroed arena). Errors: usage, when it does not fit. */
espl_status espl_engine_take(const espl_engine *engine, espl_arena *arena, const char *name, size_t bytes);
void espl_engine_give_back(const espl_engine *engine, espl_arena *arena);

/* Local. The same of memory that is the host's, and the device reaches (device.h, alloc_far). */
espl_status espl_engine_take_far(const espl_engine *engine, espl_arena *arena, const char *name, size_t bytes);
void espl_engine_give_back_far(const espl_engine *engine, espl_arena *arena);

/* Local. Converts n elements of host memory into memory of the device, in bounded pieces. NULL engine: plain memory. */
espl_status espl_engine_put(const espl_engine *engine, void *to, espl_dtype to_dtype, const void *from, espl_dtype from_dtype, size_t n);

/* Local. The same between two places on the device, through the host. */
espl_status espl_engine_convert(const espl_engine *engine, void *to, espl_dtype to_dtype, const void *from, espl_dtype from_dtype,
                                size_t n);

/* Local. Rows that kernels work on when a micro-batch of n tokens is under way and `planned` were reserved (device.h: GPUs take all). */
int64_t espl_engine_rows(const espl_engine *engine, int64_t n, int64_t planned);

#endif
