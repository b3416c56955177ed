/* What the files of the backend share: the open device, its streams, the micro-batch on it. Host code in C or in .cu files. */
#ifndef ESPL_KERNELS_CUDA_STATE_H
#define ESPL_KERNELS_CUDA_STATE_H

#include "kernels/backend.h"

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The micro-batch as kernels see it, in device memory at an address that never changes. */
typedef struct espl__batch {
    int32_t n, n_segments; /* real tokens */
    int32_t training;
    float loss_scale;
    espl_rng_key rng; /* the row's op number is filled in by the kernel */
} espl__batch;

/* The rows of one stream of the micro-batch under way; the arrays lie in device memory, at addresses that never change. */
typedef struct espl__rows {
    int64_t capacity; /* as reserved last; 0: there is no such stream */
    int64_t segment_capacity, longest;
    int64_t tokens; /* rows that kernels work on: capacity, or those of a batch with a cache */
    espl__batch *batch;
    int32_t *ids, *positions, *types; /* [tokens]; not of pooled rows */
    int32_t *targets;                 /* [tokens] */
    float *weights;                   /* [tokens] */
    int32_t *row_begin, *row_end; /* [tokens] the segment a token belongs to, as token offsets; both 0 for padding; not of pooled rows */
    int32_t *segments;            /* [n_segments + 1]; not of pooled rows */
    int32_t *cross_begin, *cross_end;  /* [tokens] source rows that a main one sees, main rows that see a source one; both 0: none */
    int32_t *cache_row, *cache_length; /* [n_segments] of the main stream of a batch with a cache */
} espl__rows;

struct espl_device {
    int ordinal;
    cudaStream_t compute, communication, copy; /* copy: snapshots, and nothing else */
    espl__rows rows[ESPL_N_STREAMS];
    struct espl__device_private *own; /* staging, events, marks: device.c */
};

/* The open device of this process; NULL before. */
extern espl_device *espl__cuda;

/* Local. The rows that a call works on. */
static inline const espl__rows *espl__rows_of(const espl_args *args) { return &espl__cuda->rows[args->attrs->stream]; }

/* Local. Whether kernels work on all rows that were reserved: not in generation. */
static inline bool espl__cuda_is_whole(void) {
    const espl__rows *main = &espl__cuda->rows[ESPL_STREAM_MAIN];
    return main->tokens == main->capacity;
}

/* Local. Notes the first failure of a kernel launch or library call, to be returned by the next read or sync. */
void espl__cuda_note(cudaError_t error, const char *what);
void espl__cuda_note_text(const char *what, const char *text);

/* Local. What a bulk operation must wait for on the communication stream: makes `stream` wait for the mark given by `after`, or for all
 * that is on the compute stream. */
espl_status espl__cuda_follow(espl_device *device, cudaStream_t stream);

/* Local. Whether the event is reached; asks, waits for nothing. Not inside a recording. */
bool espl__cuda_reached(cudaEvent_t event);

/* Local. What is called again and again while the host waits for the GPU, so that a failure of a library is seen where compute waits for it
 * and would wait for ever; NULL: nothing. */
void espl__cuda_while_waiting(espl_device *device, espl_status (*look)(void *state), void *state);

/* Local. The status of a call of the runtime; the message names the call. */
espl_status espl__cuda_check(cudaError_t error, const char *call);
#define ESPL__CUDA(call) ESPL_TRY(espl__cuda_check((call), #call))

#ifdef __cplusplus
}
#endif

#endif
