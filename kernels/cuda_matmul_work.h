/* Work that LINEAR, QKV, MLP and LINEAR_XENT need on a GPU, and the shapes it follows from; shared by the kernels and by who plans for
 * them. */
#ifndef ESPL_KERNELS_CUDA_MATMUL_WORK_H
#define ESPL_KERNELS_CUDA_MATMUL_WORK_H

#include "kernels/kernels.h"

enum {
    ESPL_GEMM_WORK = 32 << 20,  /* what cuBLASLt may use; NVIDIA advises 32 MiB for Hopper */
    ESPL_SUM_PIECES = 128,      /* a sum over tokens is cut into at most so many pieces */
    ESPL_SUM_ROWS = 64,         /* of at least so many tokens */
    ESPL_XENT_MOST_ROWS = 4096, /* tokens whose logits are held at a time: more makes products no faster */
    ESPL_XENT_LEAST_ROWS = 128,
    ESPL_XENT_UNIT = 64, /* chunks begin at multiples of it */
    ESPL_LOGITS_PAD = 8  /* rows of logits begin at multiples of it, so that they can be read by 16 bytes */
};

/* Bytes of logits held at a time, where ESPL_XENT_LEAST_ROWS rows are not more. Each chunk reads and writes all of the weight's gradient
 * (fp32), so few large chunks: for V = 128k, D = 4096 this is 2048 tokens, 4.2 GB of that traffic and a product of 2.2 TFLOP, on an H200
 * about 1 ms beside 3 ms. All logits of 32k tokens of GPT-2 would be 6.6 GB. */
#define ESPL_XENT_BYTES ((int64_t)1 << 30)

static inline int64_t espl__least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t espl__most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t espl__round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* Local. Tokens a piece of a sum over n tokens. */
static inline int64_t espl__sum_rows(int64_t n) { return espl__most((n + ESPL_SUM_PIECES - 1) / ESPL_SUM_PIECES, ESPL_SUM_ROWS); }

/* Local. Work of a product, and (not at the same time) of sums of pieces of the gradient of a bias of `width`. */
static inline size_t espl__product_work(int64_t width) {
    return (size_t)espl__round_up(espl__most(ESPL_SUM_PIECES * width * (int64_t)sizeof(float), ESPL_GEMM_WORK), 256);
}

/* Local. Of products with matrices that may be quantised: behind ESPL_GEMM_WORK is room for one, expanded. */
static inline size_t espl__expanding_work(const espl_attrs *attrs, espl_dtype real, size_t products) {
    int64_t most = espl__most(espl_quant_numel(&attrs->quant[0]), espl_quant_numel(&attrs->quant[1]));
    size_t expanding = most > 0 ? (size_t)espl__round_up(ESPL_GEMM_WORK + most * (real == ESPL_F32 ? 4 : 2), 256) : 0;
    return products > expanding ? products : expanding;
}

/* Local. Work of MAGNITUDE: the gains of the columns, then sums of pieces. */
static inline size_t espl__magnitude_work(const espl_attrs *attrs, espl_dtype real, int64_t n, int backward) {
    (void)real, (void)n;
    return (size_t)((espl__round_up(attrs->n_out, 64) + (backward ? ESPL_SUM_PIECES * attrs->n_out : 0)) * (int64_t)sizeof(float));
}

/* Local. Work of LINEAR and QKV. */
static inline size_t espl__linear_work(const espl_attrs *attrs, espl_dtype real, int64_t n, int backward) {
    (void)n;
    return espl__expanding_work(attrs, real, espl__product_work(backward ? attrs->n_out : 0));
}

/* Local. Of MLP, what its products need; its [N,F] begins behind. */
static inline size_t espl__mlp_products_work(const espl_attrs *attrs, espl_dtype real) {
    return espl__expanding_work(attrs, real, espl__product_work(espl__most(attrs->ffn, attrs->n_out)));
}

static inline size_t espl__mlp_work(const espl_attrs *attrs, espl_dtype real, int64_t n, int backward) {
    (void)backward;
    return espl__mlp_products_work(attrs, real) + (size_t)espl__round_up(n * attrs->ffn * (real == ESPL_F32 ? 4 : 2), 256);
}

/* Local. From one row of logits to the next, in floats. */
static inline int64_t espl__logits_ld(const espl_attrs *attrs) { return espl__round_up(attrs->vocab, ESPL_LOGITS_PAD); }

/* Local. Most tokens of a chunk. */
static inline int64_t espl__xent_most_rows(const espl_attrs *attrs) {
    int64_t fit = ESPL_XENT_BYTES / (espl__logits_ld(attrs) * (int64_t)sizeof(float)) / ESPL_XENT_UNIT * ESPL_XENT_UNIT;
    return espl__least(espl__most(fit, ESPL_XENT_LEAST_ROWS), ESPL_XENT_MOST_ROWS);
}

/* Local. Tokens of a chunk of n tokens: as few chunks as fit, about equal. */
static inline int64_t espl__xent_rows(const espl_attrs *attrs, int64_t n) {
    int64_t most = espl__xent_most_rows(attrs), chunks = (n + most - 1) / most;
    return chunks > 1 ? espl__round_up((n + chunks - 1) / chunks, ESPL_XENT_UNIT) : n;
}

/* Local. Work of LINEAR_XENT for up to n tokens: the product's, then the logits. */
static inline size_t espl__xent_work(const espl_attrs *attrs, espl_dtype real, int64_t n, int backward) {
    (void)real, (void)backward;
    int64_t logits = espl__least(n, espl__xent_most_rows(attrs)) * espl__logits_ld(attrs);
    return (size_t)espl__round_up(ESPL_GEMM_WORK + logits * (int64_t)sizeof(float), 256);
}

#endif
