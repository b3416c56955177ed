/* Micro-batches on the device: one block of memory whose address never changes, filled by one copy for each micro-batch. The copy goes
 * along the compute stream, so it comes behind the kernels of the micro-batch before; the pinned block it is taken from is one of two. */
#include "kernels/cuda/device_private.h"

#include <string.h>

static size_t part(size_t *at, int64_t n) {
    size_t start = *at;
    *at += ((size_t)n * sizeof(int32_t) + 255) / 256 * 256;
    return start;
}

static espl__layout layout_of(int64_t tokens, int64_t n_segments) {
    size_t at = 256;
    _Static_assert(sizeof(espl__batch) <= 256, "the header has its own 256 bytes");
    espl__layout layout;
    layout.ids = part(&at, tokens);
    layout.positions = part(&at, tokens);
    layout.targets = part(&at, tokens);
    layout.row_begin = part(&at, tokens);
    layout.row_end = part(&at, tokens);
    layout.segments = part(&at, n_segments + 1);
    layout.cache_row = part(&at, n_segments);
    layout.cache_length = part(&at, n_segments);
    layout.bytes = at;
    return layout;
}

static int32_t *at(char *block, size_t offset) { return (int32_t *)(block + offset); }

static void point_into(espl_device *device, char *block) {
    const espl__layout *layout = &device->own->layout;
    device->batch = (espl__batch *)block;
    device->ids = at(block, layout->ids);
    device->positions = at(block, layout->positions);
    device->targets = at(block, layout->targets);
    device->row_begin = at(block, layout->row_begin);
    device->row_end = at(block, layout->row_end);
    device->segments = at(block, layout->segments);
    device->cache_row = at(block, layout->cache_row);
    device->cache_length = at(block, layout->cache_length);
}

void espl__cuda_free_batch(espl_device *device) {
    espl__cuda_free_slots(device->own->batch);
    if (device->batch != NULL)
        cudaFree(device->batch);
    device->batch = NULL;
    device->own->room = device->own->segment_room = 0;
}

espl_status espl__cuda_reserve(espl_device *device, int64_t tokens, int64_t n_segments) {
    espl__device_private *own = device->own;
    device->capacity = device->tokens = device->max_seqlen = tokens;
    if (tokens <= own->room && n_segments <= own->segment_room)
        return ESPL_OK;
    ESPL_ASSERT(own->n_graphs == 0, "%d recordings hold the addresses of smaller micro-batches", own->n_graphs);
    ESPL_TRY(espl__cuda_sync(device));
    int64_t room = tokens > own->room ? tokens : own->room;
    int64_t segment_room = n_segments > own->segment_room ? n_segments : own->segment_room;
    espl__cuda_free_batch(device);
    own->layout = layout_of(room, segment_room);
    ESPL_TRY(espl__cuda_make_slots(own->batch, own->layout.bytes));
    void *block;
    ESPL_TRY(espl__cuda_device.alloc(device, "micro-batch", own->layout.bytes, &block));
    point_into(device, block);
    own->room = room;
    own->segment_room = segment_room;
    return ESPL_OK;
}

static void fill(int32_t *to, int64_t n, int64_t end, int32_t value) {
    for (int64_t i = n; i < end; i++)
        to[i] = value;
}

static void put(int32_t *to, const int32_t *from, int64_t n, int64_t end, int32_t padding) {
    memcpy(to, from, (size_t)n * sizeof *to);
    fill(to, n, end, padding);
}

static void put_rows(int32_t *begin, int32_t *end, const espl_batch *batch, int64_t tokens) {
    for (int32_t s = 0; s < batch->n_segments; s++)
        for (int32_t i = batch->segments[s]; i < batch->segments[s + 1]; i++) {
            begin[i] = batch->segments[s];
            end[i] = batch->segments[s + 1];
        }
    fill(begin, batch->n, tokens, 0);
    fill(end, batch->n, tokens, 0);
}

/* `tokens` rows; segments that are not there are empty ones at the end. */
static void pack(const espl__device_private *own, char *block, const espl_batch *batch, int64_t tokens) {
    const espl__layout *layout = &own->layout;
    *(espl__batch *)block = (espl__batch){.n = (int32_t)batch->n,
                                          .n_segments = batch->n_segments,
                                          .training = batch->training,
                                          .loss_scale = batch->loss_scale,
                                          .rng = batch->rng};
    put(at(block, layout->ids), batch->ids, batch->n, tokens, 0);
    put(at(block, layout->positions), batch->positions, batch->n, tokens, 0);
    put(at(block, layout->targets), batch->targets, batch->n, tokens, -1);
    put_rows(at(block, layout->row_begin), at(block, layout->row_end), batch, tokens);
    put(at(block, layout->segments), batch->segments, batch->n_segments + 1, own->segment_room + 1, (int32_t)batch->n);
    if (batch->cache != NULL) {
        put(at(block, layout->cache_row), batch->cache->row, batch->n_segments, own->segment_room, 0);
        put(at(block, layout->cache_length), batch->cache->length, batch->n_segments, own->segment_room, 0);
    }
}

static int64_t longest_segment(const espl_batch *batch) {
    int64_t longest = 0;
    for (int32_t s = 0; s < batch->n_segments; s++)
        if (batch->segments[s + 1] - batch->segments[s] > longest)
            longest = batch->segments[s + 1] - batch->segments[s];
    return longest;
}

espl_status espl__cuda_begin(espl_device *device, const espl_batch *batch) {
    espl__device_private *own = device->own;
    ESPL_ASSERT(!own->recording, "a micro-batch begins inside a recording, which would repeat it");
    ESPL_ASSERT(batch->n <= device->capacity, "%lld tokens in a micro-batch of at most %lld", (long long)batch->n,
                (long long)device->capacity);
    ESPL_ASSERT(batch->n_segments <= own->segment_room, "%d segments where %lld were reserved", batch->n_segments,
                (long long)own->segment_room);
    device->tokens = batch->cache != NULL ? batch->n : device->capacity;
    device->max_seqlen = batch->cache != NULL ? longest_segment(batch) : device->capacity;
    espl__slot *slot = &own->batch[own->next_batch];
    own->next_batch = (own->next_batch + 1) % ESPL__SLOTS;
    ESPL_TRY(espl__cuda_wait_event(device, slot->free));
    pack(own, slot->pinned, batch, device->tokens);
    ESPL__CUDA(cudaMemcpyAsync(device->batch, slot->pinned, own->layout.bytes, cudaMemcpyHostToDevice, device->compute));
    ESPL__CUDA(cudaEventRecord(slot->free, device->compute));
    return ESPL_OK;
}
