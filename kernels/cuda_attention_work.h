/* The scratch of attention on GPUs; shared by the kernels and by who plans for it. */
#ifndef ESPL_KERNELS_CUDA_ATTENTION_WORK_H
#define ESPL_KERNELS_CUDA_ATTENTION_WORK_H

#include "kernels/relative_bias.h"

/* Queries that share a part of the biases' gradient, at least: those of the smallest tile. */
enum { ESPL_BIAS_ROWS = 64 };

/* Rows of queries, padded so that a tile of them may be read whole. */
static inline int64_t espl__attention_padded_rows(int64_t n) { return (n + 127) / 128 * 128; }

/* Where the parts lie, in floats; those that a call has not are empty. */
typedef struct espl__attention_layout {
    int64_t lse2, delta; /* [H, padded rows] each: lse log2(e), and rowsum(dO * O) */
    int64_t bias;        /* [H, entries] */
    int64_t slopes;      /* [H, padded rows / ESPL_BIAS_ROWS, entries] */
    int64_t end;
} espl__attention_layout;

static inline espl__attention_layout espl__attention_layout_of(const espl_attrs *attrs, int64_t n, int backward) {
    int64_t padded = espl__attention_padded_rows(n), rows = backward ? attrs->heads * padded : 0;
    int64_t tables = attrs->heads * espl__rel_entries(attrs), slopes = backward ? padded / ESPL_BIAS_ROWS * tables : 0;
    espl__attention_layout layout = {0, rows, 2 * rows, 2 * rows + tables, 2 * rows + tables + slopes};
    return layout;
}

static inline size_t espl__attention_work(const espl_attrs *attrs, espl_dtype real, int64_t n, int backward) {
    (void)real;
    return (size_t)((espl__attention_layout_of(attrs, n, backward).end * (int64_t)sizeof(float) + 255) / 256 * 256);
}

#endif
