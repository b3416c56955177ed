/* What the files of the device share, and nobody else knows. */
#ifndef ESPL_KERNELS_CUDA_DEVICE_PRIVATE_H
#define ESPL_KERNELS_CUDA_DEVICE_PRIVATE_H

#include "kernels/cuda/entries.h"
#include "kernels/cuda_batch_work.h"

enum { ESPL__SLOTS = 2, ESPL__STAGE_BYTES = 4 << 20 };

/* Pinned memory that a copy may still be reading or writing. */
typedef struct espl__slot {
    char *pinned;
    cudaEvent_t free; /* reached when the copy is done */
} espl__slot;

typedef struct espl__device_private {
    char name[96];
    char failure[512]; /* the first one; from then on nothing works; "" while there is none */
    espl__slot stage[ESPL__SLOTS];
    int next_stage;
    espl_capacity room[ESPL_N_STREAMS]; /* that memory is there for */
    espl__layout layout[ESPL_N_STREAMS];
    size_t block_bytes;
    char *block; /* of the micro-batch, on the device */
    espl__slot batch[ESPL__SLOTS];
    int next_batch;
    bool recording;
    int n_graphs;
    cudaEvent_t marks[ESPL_MAX_MARKS]; /* made when they are first set */
    cudaEvent_t here;                  /* what follow (without a mark) and fetch wait for */
    cudaEvent_t arrived;               /* reached when the last copy of a snapshot is done */
    int after;                         /* -1: none */
    espl_status (*look)(void *state);
    void *look_state;
} espl__device_private;

/* Local. Waits on the host for an event or a stream, asking again and again: a rank that blocks in the driver sees no failure. */
espl_status espl__cuda_wait_event(espl_device *device, cudaEvent_t event);
espl_status espl__cuda_wait_stream(espl_device *device, cudaStream_t stream);

/* Local. The failure that was noted, as a status. */
espl_status espl__cuda_noted(const espl_device *device);

/* Local. Pinned memory and events of both slots. Accepts slots that were never made. */
espl_status espl__cuda_make_slots(espl__slot slots[ESPL__SLOTS], size_t bytes);
void espl__cuda_free_slots(espl__slot slots[ESPL__SLOTS]);

/* Calls of the table that stand in other files than device.c: contracts in kernels/device.h. */
espl_status espl__cuda_count(int *n);
espl_status espl__cuda_reserve(espl_device *device, const espl_capacity capacity[ESPL_N_STREAMS]);
void espl__cuda_free_batch(espl_device *device);
espl_status espl__cuda_begin(espl_device *device, const espl_batch *batch);
espl_status espl__cuda_write(espl_device *device, void *to, const void *from, size_t bytes);
espl_status espl__cuda_read(espl_device *device, void *to, const void *from, size_t bytes);
espl_status espl__cuda_sync(espl_device *device);
espl_status espl__cuda_record(espl_device *device);
espl_status espl__cuda_recorded(espl_device *device, espl_graph **graph);
espl_status espl__cuda_replay(espl_device *device, espl_graph *graph);
void espl__cuda_forget(espl_device *device, espl_graph **graph);
espl_status espl__cuda_mark(espl_device *device, int mark);
void espl__cuda_after(espl_device *device, int mark);
espl_status espl__cuda_pin(espl_device *device, void *memory, size_t bytes);
void espl__cuda_unpin(espl_device *device, void *memory);
espl_status espl__cuda_fetch(espl_device *device, void *to, const void *from, size_t bytes);
espl_status espl__cuda_let_fetch(espl_device *device);
espl_status espl__cuda_fetched(espl_device *device);

#endif
