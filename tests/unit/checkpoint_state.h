/* A state to save: tensors of odd shapes in every format, cut over any number of ranks, whose bytes are a function of a generation.
 */
#ifndef ESPL_TESTS_CHECKPOINT_STATE_H
#define ESPL_TESTS_CHECKPOINT_STATE_H

#include "io/checkpoint/checkpoint.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

typedef enum state_cut { CUT_EVEN, CUT_WHOLE } state_cut; /* over all ranks; whole on one rank, the others empty */

static const struct state_row {
    espl_state_tensor tensor;
    state_cut cut;
} state_rows[] = {
    {{.group = "model", .name = "wte.weight", .dtype = ESPL_F32, .n_dims = 2, .shape = {37, 5}}, CUT_EVEN},
    {{.group = "model", .name = "h.0.attn.weight", .dtype = ESPL_F32, .n_dims = 3, .shape = {3, 7, 11}}, CUT_EVEN},
    {{.group = "model", .name = "h.0.ln.bias", .dtype = ESPL_BF16, .n_dims = 1, .shape = {13}}, CUT_EVEN},
    {{.group = "model", .name = "conv.weight", .dtype = ESPL_F16, .n_dims = 4, .shape = {2, 3, 5, 7}}, CUT_EVEN},
    {{.group = "model", .name = "scale", .dtype = ESPL_F64, .n_dims = 0}, CUT_EVEN},
    {{.group = "model", .name = "nothing", .dtype = ESPL_F32, .n_dims = 2, .shape = {0, 4}}, CUT_EVEN},
    {{.group = "model", .name = "a.first", .dtype = ESPL_I32, .n_dims = 1, .shape = {2}}, CUT_WHOLE},
    {{.group = "exp_avg", .name = "wte.weight", .dtype = ESPL_F32, .n_dims = 2, .shape = {37, 5}}, CUT_EVEN},
    {{.group = "exp_avg", .name = "big.weight", .dtype = ESPL_F32, .n_dims = 2, .shape = {1277, 511}}, CUT_EVEN},
    {{.group = "counters", .name = "steps", .dtype = ESPL_I64, .n_dims = 1, .shape = {3}}, CUT_WHOLE},
    {{.group = "counters", .name = "flags", .dtype = ESPL_U8, .n_dims = 1, .shape = {9}}, CUT_EVEN},
};

enum { STATE_TENSORS = sizeof state_rows / sizeof state_rows[0] };

typedef struct state {
    espl_state_tensor tensors[STATE_TENSORS];
} state;

static inline int64_t state_count(int i) {
    int64_t n = 1;
    for (int d = 0; d < state_rows[i].tensor.n_dims; d++)
        n *= state_rows[i].tensor.shape[d];
    return n;
}

/* Byte k of tensor i in a generation; odd multipliers, so that no shift of the data looks like the data. */
static inline unsigned char state_byte(int i, int64_t k, int generation) {
    uint64_t x = ((uint64_t)k + 1) * 0x9E3779B97F4A7C15u ^ ((uint64_t)i * 131 + (uint64_t)generation * 65537 + 7) * 0xC2B2AE3D27D4EB4Fu;
    return (unsigned char)(x >> 56 ^ x >> 29);
}

static inline void state_fill(state *s, int generation) {
    for (int i = 0; i < STATE_TENSORS; i++) {
        espl_state_tensor *t = &s->tensors[i];
        int64_t size = (int64_t)espl_dtype_size(t->dtype);
        for (int64_t k = t->begin * size; k < t->end * size; k++)
            ((unsigned char *)t->data)[k - t->begin * size] = state_byte(i, k, generation);
    }
}

/* The first byte that is not the generation's: its tensor, or -1 when all are. */
static inline int state_differs(const state *s, int generation) {
    for (int i = 0; i < STATE_TENSORS; i++) {
        const espl_state_tensor *t = &s->tensors[i];
        int64_t size = (int64_t)espl_dtype_size(t->dtype);
        for (int64_t k = t->begin * size; k < t->end * size; k++)
            if (((unsigned char *)t->data)[k - t->begin * size] != state_byte(i, k, generation))
                return i;
    }
    return -1;
}

static inline void state_make(state *s, int rank, int size) {
    for (int i = 0; i < STATE_TENSORS; i++) {
        espl_state_tensor *t = &s->tensors[i];
        int64_t n = state_count(i);
        bool owner = rank == i % size;
        *t = state_rows[i].tensor;
        t->begin = state_rows[i].cut == CUT_EVEN ? n * rank / size : 0;
        t->end = state_rows[i].cut == CUT_EVEN ? n * (rank + 1) / size : owner ? n : 0;
        t->data = espl_calloc((size_t)(t->end - t->begin), espl_dtype_size(t->dtype));
    }
}

static inline void state_free(state *s) {
    for (int i = 0; i < STATE_TENSORS; i++)
        free(s->tensors[i].data);
}

#endif
