#include "io/checkpoint/checkpoint_saver.h"

#include "io/fsio.h"
#include "src/core/log.h"

#include <stdlib.h>
#include <string.h>

/* Tensors that the host cannot address go to their writer in pieces. */
enum { SNAPSHOT_TAG = 700, SENT_BYTES = 4 << 20 };

/* What the host cannot address goes to its writer through MPI, and training waits for it; a rank that writes its own just fetches it. */
static int count_writers(const espl_ranks *ranks, const espl_checkpoint_options *options) {
    int n = options->writers > 0 ? options->writers : options->memory != NULL ? ranks->size : ranks->n_nodes;
    return n < ranks->size ? n : ranks->size;
}

int espl__group_first(int group, int n_writers, int size) { return (int)((int64_t)group * size / n_writers); }

static int group_of(int rank, int n_writers, int size) {
    int group = 0;
    while (espl__group_first(group + 1, n_writers, size) <= rank)
        group++;
    return group;
}

bool espl__is_writer(const espl_checkpoints *s) { return s->ranks.rank == espl__group_first(s->group, s->n_writers, s->ranks.size); }

static const int64_t *bounds_of(const espl_checkpoints *s, int rank, int64_t i) {
    return s->bounds + ((int64_t)rank * s->n_tensors + i) * 2;
}

void espl__group_range(const espl_checkpoints *s, int64_t i, int group, int64_t *begin, int64_t *end) {
    *begin = *end = 0;
    for (int rank = espl__group_first(group, s->n_writers, s->ranks.size); rank < espl__group_first(group + 1, s->n_writers, s->ranks.size);
         rank++) {
        const int64_t *b = bounds_of(s, rank, i);
        if (b[0] == b[1])
            continue;
        if (*begin == *end)
            *begin = b[0];
        *end = b[1];
    }
}

static espl_status check_tiling(const espl_checkpoints *s, int64_t i) {
    const espl_state_tensor *t = &s->tensors[i];
    int64_t cursor = 0, count = espl_manifest_count(t->n_dims, t->shape);
    for (int rank = 0; rank < s->ranks.size; rank++) {
        const int64_t *b = bounds_of(s, rank, i);
        if (b[0] == b[1])
            continue;
        if (b[0] != cursor || b[1] < b[0])
            ESPL_FAIL(ESPL_ERR_BUG, "tensor %s/%s: rank %d owns elements [%lld, %lld), expected them to begin at %lld", t->group, t->name,
                      rank, (long long)b[0], (long long)b[1], (long long)cursor);
        cursor = b[1];
    }
    if (cursor != count)
        ESPL_FAIL(ESPL_ERR_BUG, "tensor %s/%s: the ranks own %lld of %lld elements", t->group, t->name, (long long)cursor,
                  (long long)count);
    return ESPL_OK;
}

static espl_status share_bounds(espl_checkpoints *s) {
    size_t n = (size_t)s->n_tensors * 2;
    int64_t *mine = espl_calloc(n, sizeof *mine);
    s->bounds = espl_calloc(n * (size_t)s->ranks.size, sizeof *s->bounds);
    for (int64_t i = 0; i < s->n_tensors; i++) {
        mine[2 * i] = s->tensors[i].begin;
        mine[2 * i + 1] = s->tensors[i].end;
    }
    espl_status status = espl_comm_allgather(s->comm, mine, n * sizeof *mine, s->bounds);
    free(mine);
    ESPL_TRY(status);
    for (int64_t i = 0; i < s->n_tensors; i++)
        ESPL_TRY(check_tiling(s, i));
    return ESPL_OK;
}

/* Behind training's back one thread is enough; while it waits, two keep a disk busy. */
static int count_lanes(const espl_checkpoint_options *options) { return options->background ? 1 : 2; }

/* A rank that writes its own tensors before training goes on needs no copy of them, if it can address them. */
static bool copies(const espl_checkpoint_options *options, int members) {
    return options->background || options->memory != NULL || members > 1;
}

static bool needs_snapshot(const espl_checkpoints *s) {
    return copies(&s->options,
                  espl__group_first(s->group + 1, s->n_writers, s->ranks.size) - espl__group_first(s->group, s->n_writers, s->ranks.size));
}

/* Long ranges begin where a direct write may. */
static void *take_range(espl_arena *arena, size_t bytes) {
    if (bytes >= ESPL_FS_DIRECT)
        espl_arena_align(arena, ESPL_FS_BLOCK);
    return espl_arena_take(arena, bytes);
}

/* Without a snapshot tensors lie where training wants them; long ones then are written through a stage. */
static char *take_stage(espl_arena *arena, const espl_checkpoint_options *options, size_t longest) {
    return longest < ESPL_FS_DIRECT ? NULL : take_range(arena, (size_t)count_lanes(options) * ESPL_SHARD_WRITE);
}

static size_t longest_range(const espl_checkpoints *s) {
    int64_t longest = 0;
    for (int64_t k = 0; k < s->n_ranges; k++)
        longest = espl_shard_range_bytes(&s->ranges[k]) > longest ? espl_shard_range_bytes(&s->ranges[k]) : longest;
    return (size_t)longest;
}

/* Run twice: to measure, and to bind. */
static void lay_snapshot(espl_checkpoints *s, espl_arena *arena) {
    if (!espl__is_writer(s))
        s->sent = espl_arena_take(arena, SENT_BYTES);
    else if (!needs_snapshot(s))
        s->means.stage = take_stage(arena, &s->options, longest_range(s));
    for (int64_t k = 0; k < s->n_ranges && needs_snapshot(s); k++)
        s->ranges[k].data = take_range(arena, (size_t)espl_shard_range_bytes(&s->ranges[k]));
}

static void make_ranges(espl_checkpoints *s) {
    s->ranges = espl_calloc((size_t)s->n_tensors, sizeof *s->ranges);
    for (int64_t i = 0; i < s->n_tensors; i++) {
        int64_t begin, end;
        espl__group_range(s, i, s->group, &begin, &end);
        if (begin < end)
            s->ranges[s->n_ranges++] = (espl_shard_range){.tensor = &s->tensors[i], .begin = begin, .end = end, .data = s->tensors[i].data};
    }
}

/* Fresh pages cost several times what the copy into them does; training does not wait for them. */
static espl_status populate(void *saver) {
    espl_checkpoints *s = saver;
    const espl_state_memory *memory = s->options.memory;
    espl_arena_populate(&s->snapshot);
    if (memory == NULL || !espl__is_writer(s))
        return ESPL_OK;
    ESPL_TRY(memory->pin(memory->context, s->snapshot.base, s->snapshot.capacity));
    s->pinned = true;
    return ESPL_OK;
}

espl_status espl__plan_make(espl_checkpoints *s) {
    s->n_writers = count_writers(&s->ranks, &s->options);
    s->group = group_of(s->ranks.rank, s->n_writers, s->ranks.size);
    ESPL_TRY(share_bounds(s));
    if (espl__is_writer(s))
        make_ranges(s);
    s->means.lanes = count_lanes(&s->options);
    if (!espl__is_writer(s) && s->options.memory == NULL)
        return ESPL_OK;
    espl_arena measure = espl_arena_measure("snapshot");
    lay_snapshot(s, &measure);
    ESPL_TRY(espl_arena_bind(&s->snapshot, "snapshot", measure.used));
    lay_snapshot(s, &s->snapshot);
    if (s->snapshot.base != NULL && (s->options.background || s->options.memory != NULL))
        espl_background_start(&s->populate, true, populate, s);
    return ESPL_OK;
}

size_t espl_checkpoint_snapshot_bytes(const espl_ranks *ranks, const espl_checkpoint_options *options, const espl_state_tensor *tensors,
                                      int64_t n) {
    int n_writers = count_writers(ranks, options), group = group_of(ranks->rank, n_writers, ranks->size);
    int first = espl__group_first(group, n_writers, ranks->size), members = espl__group_first(group + 1, n_writers, ranks->size) - first;
    if (ranks->rank != first)
        return options->memory != NULL ? SENT_BYTES : 0;
    espl_arena measure = espl_arena_measure("snapshot");
    bool snapshot = copies(options, members);
    size_t longest = 0;
    for (int64_t i = 0; i < n; i++) {
        size_t bytes = (size_t)(tensors[i].end - tensors[i].begin) * (size_t)members * espl_dtype_size(tensors[i].dtype);
        longest = bytes > longest ? bytes : longest;
        if (snapshot && bytes > 0)
            take_range(&measure, bytes);
    }
    if (!snapshot)
        take_stage(&measure, options, longest);
    return measure.used;
}

static size_t piece_at(const espl_checkpoints *s, size_t at, size_t bytes) {
    return s->options.memory != NULL && bytes - at > SENT_BYTES ? SENT_BYTES : bytes - at;
}

static espl_status send_tensor(espl_checkpoints *s, const char *data, size_t bytes, int writer) {
    const espl_state_memory *memory = s->options.memory;
    for (size_t at = 0, n; at < bytes; at += n) {
        n = piece_at(s, at, bytes);
        if (memory != NULL)
            ESPL_TRY(memory->read(memory->context, s->sent, data + at, n));
        ESPL_TRY(espl_comm_send(s->comm, memory != NULL ? s->sent : data + at, n, writer, SNAPSHOT_TAG));
    }
    return ESPL_OK;
}

static espl_status send_mine(espl_checkpoints *s, int writer) {
    for (int64_t i = 0; i < s->n_tensors; i++) {
        const espl_state_tensor *t = &s->tensors[i];
        ESPL_TRY(send_tensor(s, t->data, (size_t)(t->end - t->begin) * espl_dtype_size(t->dtype), writer));
    }
    return ESPL_OK;
}

static espl_status receive(espl_checkpoints *s, char *to, size_t bytes, int rank) {
    for (size_t at = 0, n; at < bytes; at += n) {
        n = piece_at(s, at, bytes);
        ESPL_TRY(espl_comm_recv(s->comm, to + at, n, rank, SNAPSHOT_TAG));
    }
    return ESPL_OK;
}

static espl_status copy_own(const espl_checkpoints *s, char *to, const void *data, size_t bytes) {
    const espl_state_memory *memory = s->options.memory;
    if (memory != NULL)
        return memory->fetch(memory->context, to, data, bytes);
    memcpy(to, data, bytes);
    return ESPL_OK;
}

static espl_status fill_range(espl_checkpoints *s, const espl_shard_range *r) {
    const espl_state_tensor *t = r->tensor;
    size_t size = espl_dtype_size(t->dtype);
    for (int rank = s->ranks.rank; rank < espl__group_first(s->group + 1, s->n_writers, s->ranks.size); rank++) {
        const int64_t *b = bounds_of(s, rank, t - s->tensors);
        if (b[0] == b[1])
            continue;
        char *to = (char *)r->data + (size_t)(b[0] - r->begin) * size;
        size_t bytes = (size_t)(b[1] - b[0]) * size;
        ESPL_TRY(rank == s->ranks.rank ? copy_own(s, to, t->data, bytes) : receive(s, to, bytes, rank));
    }
    return ESPL_OK;
}

espl_status espl__snapshot_take(espl_checkpoints *s) {
    if (espl_background_join(&s->populate) != ESPL_OK) {
        ESPL_WARN("%s; training waits at each checkpoint until its snapshot is copied", espl_status_message());
        espl_status_clear();
    }
    if (!espl__is_writer(s))
        return send_mine(s, espl__group_first(s->group, s->n_writers, s->ranks.size));
    if (!needs_snapshot(s))
        return ESPL_OK;
    for (int64_t k = 0; k < s->n_ranges; k++)
        ESPL_TRY(fill_range(s, &s->ranges[k]));
    return ESPL_OK;
}
