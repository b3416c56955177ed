/* Micro-batches on the device: one block of memory whose address never changes, filled by one copy for each micro-batch. The copy goes
 * along the compute stream, so it comes behind the kernels of the micro-batch before; the pinned block it is taken from is one of two. */
#include "kernels/cuda/device_private.h"

#include <string.h>

static int32_t *at(char *block, size_t offset) { return (int32_t *)(block + offset); }

static void point_into(espl__rows *rows, const espl__layout *layout, char *block) {
    rows->batch = (espl__batch *)(block + layout->header);
    rows->ids = at(block, layout->ids);
    rows->positions = at(block, layout->positions);
    rows->types = at(block, layout->types);
    rows->targets = at(block, layout->targets);
    rows->weights = (float *)(block + layout->weights);
    rows->row_begin = at(block, layout->row_begin);
    rows->row_end = at(block, layout->row_end);
    rows->segments = at(block, layout->segments);
    rows->cross_begin = at(block, layout->cross_begin);
    rows->cross_end = at(block, layout->cross_end);
    rows->cache_row = at(block, layout->cache_row);
    rows->cache_length = at(block, layout->cache_length);
}

void espl__cuda_free_batch(espl_device *device) {
    espl__device_private *own = device->own;
    espl__cuda_free_slots(own->batch);
    if (own->block != NULL)
        cudaFree(own->block);
    own->block = NULL;
    memset(own->room, 0, sizeof own->room);
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static espl_status make_room(espl_device *device, const espl_capacity room[ESPL_N_STREAMS]) {
    espl__device_private *own = device->own;
    size_t bytes = 0;
    void *block;
    ESPL_TRY(espl__cuda_sync(device));
    espl__cuda_free_batch(device);
    for (int s = 0; s < ESPL_N_STREAMS; s++)
        own->layout[s] = espl__layout_of((espl_stream)s, room, &bytes);
    ESPL_TRY(espl__cuda_make_slots(own->batch, bytes));
    ESPL_TRY(espl__cuda_device.alloc(device, "micro-batch", bytes, &block));
    for (int s = 0; s < ESPL_N_STREAMS; s++)
        point_into(&device->rows[s], &own->layout[s], block);
    own->block = block;
    own->block_bytes = bytes;
    memcpy(own->room, room, sizeof own->room);
    return ESPL_OK;
}

espl_status espl__cuda_reserve(espl_device *device, const espl_capacity capacity[ESPL_N_STREAMS]) {
    espl__device_private *own = device->own;
    espl_capacity room[ESPL_N_STREAMS];
    bool fits = own->block != NULL;
    for (int s = 0; s < ESPL_N_STREAMS; s++) {
        espl__rows *rows = &device->rows[s];
        rows->capacity = rows->tokens = capacity[s].rows;
        rows->segment_capacity = capacity[s].segments;
        rows->longest = capacity[s].longest > 0 ? capacity[s].longest : capacity[s].rows;
        room[s].rows = larger(capacity[s].rows, own->room[s].rows);
        room[s].segments = larger(capacity[s].segments, own->room[s].segments);
        fits = fits && room[s].rows == own->room[s].rows && room[s].segments == own->room[s].segments;
    }
    ESPL_ASSERT(fits || own->n_graphs == 0, "%d recordings hold the addresses of smaller micro-batches", own->n_graphs);
    return fits ? ESPL_OK : make_room(device, room);
}

/* ---- Filling: what a batch has not got, and rows behind its own, become `padding`. */

static void fill(int32_t *to, int64_t n, int64_t end, int32_t padding) {
    for (int64_t i = n; i < end; i++)
        to[i] = padding;
}

static void put(int32_t *to, const int32_t *from, int64_t n, int64_t end, int32_t padding) {
    if (from != NULL)
        memcpy(to, from, (size_t)n * sizeof *to);
    fill(to, from != NULL ? n : 0, end, padding);
}

static void put_weights(float *to, const float *from, int64_t n, int64_t end) {
    if (from != NULL)
        memcpy(to, from, (size_t)n * sizeof *to);
    for (int64_t i = from != NULL ? n : 0; i < end; i++)
        to[i] = 1.0f;
}

/* Each token gets the range of a segment of `seen`: its own one, or the other stream's that goes with it; none where nothing is seen. */
static void put_ranges(int32_t *begin, int32_t *end, const espl_batch *batch, const espl_batch *seen, const int32_t *which, int64_t rows) {
    for (int32_t s = 0; seen != NULL && s < batch->n_segments; s++) {
        int32_t segment = which != NULL ? which[s] : s;
        bool there = segment < seen->n_segments;
        for (int32_t i = batch->segments[s]; i < batch->segments[s + 1]; i++) {
            begin[i] = there ? seen->segments[segment] : 0;
            end[i] = there ? seen->segments[segment + 1] : 0;
        }
    }
    fill(begin, seen != NULL ? batch->n : 0, rows, 0);
    fill(end, seen != NULL ? batch->n : 0, rows, 0);
}

static void pack_tokens(char *block, const espl__layout *layout, const espl_batch *batch, int64_t tokens, int64_t segment_room) {
    put(at(block, layout->ids), batch->ids, batch->n, tokens, 0);
    put(at(block, layout->positions), batch->positions, batch->n, tokens, 0);
    put(at(block, layout->types), batch->types, batch->n, tokens, 0);
    put_ranges(at(block, layout->row_begin), at(block, layout->row_end), batch, batch, NULL, tokens);
    put(at(block, layout->segments), batch->segments, batch->n_segments + 1, segment_room + 1, (int32_t)batch->n);
}

/* One stream: `rows->tokens` rows; segments that are not there are empty ones at the end. */
static void pack(char *block, const espl__layout *layout, const espl_batch *batch, espl_stream stream, int64_t tokens,
                 int64_t segment_room) {
    *(espl__batch *)(block + layout->header) = (espl__batch){.n = (int32_t)batch->n,
                                                             .n_segments = batch->n_segments,
                                                             .training = batch->training,
                                                             .loss_scale = batch->loss_scale,
                                                             .rng = batch->rng};
    put(at(block, layout->targets), batch->targets, batch->n, tokens, -1);
    put_weights((float *)(block + layout->weights), batch->weights, batch->n, tokens);
    if (stream != ESPL_STREAM_POOLED)
        pack_tokens(block, layout, batch, tokens, segment_room);
}

/* The ranges of rows of main stream and source that belong together. A source that segments choose from has no ranges: who chooses it
 * need not stand side by side. */
static void pack_cross(const espl_device *device, char *block, const espl_batch *batch, const espl_batch *source) {
    const espl__layout *main = &device->own->layout[ESPL_STREAM_MAIN], *other = &device->own->layout[ESPL_STREAM_SOURCE];
    put_ranges(at(block, main->cross_begin), at(block, main->cross_end), batch, batch->source, batch->source_segment,
               device->rows[ESPL_STREAM_MAIN].tokens);
    put_ranges(at(block, other->cross_begin), at(block, other->cross_end), source, batch->source_segment != NULL ? NULL : batch, NULL,
               device->rows[ESPL_STREAM_SOURCE].tokens);
}

static void pack_cache(char *block, const espl__layout *layout, const espl_batch *batch, int64_t segment_room) {
    put(at(block, layout->cache_row), batch->cache->row, batch->n_segments, segment_room, 0);
    put(at(block, layout->cache_length), batch->cache->length, batch->n_segments, segment_room, 0);
}

static void check_lengths(const espl_batch *batch, int64_t longest) {
    for (int32_t s = 0; s < batch->n_segments; s++)
        ESPL_ASSERT(batch->segments[s + 1] - batch->segments[s] <= longest, "segment %d has %d tokens, where %lld are the most", s,
                    batch->segments[s + 1] - batch->segments[s], (long long)longest);
}

/* How many rows of each stream kernels work on from now on. */
static void set_rows(espl_device *device, const espl_batch *const batch[ESPL_N_STREAMS], bool cached) {
    for (int s = 0; s < ESPL_N_STREAMS; s++) {
        espl__rows *rows = &device->rows[s];
        ESPL_ASSERT(batch[s]->n <= rows->capacity, "%lld rows of stream %d in a micro-batch of at most %lld", (long long)batch[s]->n, s,
                    (long long)rows->capacity);
        ESPL_ASSERT(s == ESPL_STREAM_POOLED || batch[s]->n_segments <= rows->segment_capacity,
                    "%d segments of stream %d where %lld were reserved", batch[s]->n_segments, s, (long long)rows->segment_capacity);
        if (!cached && s != ESPL_STREAM_POOLED)
            check_lengths(batch[s], rows->longest);
        rows->tokens = cached ? batch[s]->n : rows->capacity;
    }
}

espl_status espl__cuda_begin(espl_device *device, const espl_batch *batch) {
    static const int32_t no_segments[1];
    static const espl_batch none = {.segments = no_segments};
    espl__device_private *own = device->own;
    const espl_batch *of[ESPL_N_STREAMS] = {[ESPL_STREAM_MAIN] = batch,
                                            [ESPL_STREAM_SOURCE] = batch->source != NULL ? batch->source : &none,
                                            [ESPL_STREAM_POOLED] = batch->pooled != NULL ? batch->pooled : &none};
    ESPL_ASSERT(!own->recording, "a micro-batch begins inside a recording, which would repeat it");
    set_rows(device, of, batch->cache != NULL);
    espl__slot *slot = &own->batch[own->next_batch];
    own->next_batch = (own->next_batch + 1) % ESPL__SLOTS;
    ESPL_TRY(espl__cuda_wait_event(device, slot->free));
    for (int s = 0; s < ESPL_N_STREAMS; s++)
        if (device->rows[s].capacity > 0)
            pack(slot->pinned, &own->layout[s], of[s], (espl_stream)s, device->rows[s].tokens, own->room[s].segments);
    if (device->rows[ESPL_STREAM_MAIN].capacity > 0 && device->rows[ESPL_STREAM_SOURCE].capacity > 0)
        pack_cross(device, slot->pinned, batch, of[ESPL_STREAM_SOURCE]);
    if (batch->cache != NULL)
        pack_cache(slot->pinned, &own->layout[ESPL_STREAM_MAIN], batch, own->room[ESPL_STREAM_MAIN].segments);
    ESPL__CUDA(cudaMemcpyAsync(own->block, slot->pinned, own->block_bytes, cudaMemcpyHostToDevice, device->compute));
    ESPL__CUDA(cudaEventRecord(slot->free, device->compute));
    return ESPL_OK;
}
