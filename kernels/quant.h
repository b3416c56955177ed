/* Matrices that are held quantised, because nothing trains them: how they lie in memory, into it and out of it. Kernels expand what they
 * multiply with, into their work; the product itself is the one of reals.
 *
 *   INT8        q s / 127                 s: the largest magnitude of an output of the matrix (Dettmers et al. 2022, LLM.int8)
 *   NF4         level[q] s                s: that of a block of 64 elements, as the tensor lies (Dettmers et al. 2023, QLoRA)
 *   NF4_DOUBLE  level[q] (map[c] t + o)   scales of blocks less their mean o, quantised to 8 bits by the dynamic map in groups of 256,
 *                                         whose largest magnitude is t
 *
 * Every step is rounded to fp32 by itself, so all backends expand to the same bits, then to the format of the product. These are the values
 * of bitsandbytes' kernels. Only how codes lie in a block is our own, chosen so that a vector register unpacks them: byte i of a block
 * has element i in its lower half and element i + 32 in its upper one. A last block that is not full takes as much as a full one.
 *
 * A matrix of an op may be several tensors, one behind the other (q, k, v): its parts. Each is quantised by itself. */
#ifndef ESPL_KERNELS_QUANT_H
#define ESPL_KERNELS_QUANT_H

#include "src/core/dtype.h"
#include "src/core/export.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ESPL_QUANT_NONE, ESPL_QUANT_INT8, ESPL_QUANT_NF4, ESPL_QUANT_NF4_DOUBLE };

enum {
    ESPL_QUANT_BLOCK = 64,  /* elements that share a scale */
    ESPL_QUANT_GROUP = 256, /* scales that share one of theirs */
    ESPL_QUANT_PARTS = 3,
    ESPL_QUANT_ALIGN = 64 /* of what a part consists of, in bytes */
};

/* A matrix of an op, rows by columns as files have it. */
typedef struct espl_quant {
    int32_t format; /* ESPL_QUANT_*; NONE: it lies as reals */
    int32_t n_parts;
    int32_t outputs_across; /* the op's outputs are its columns (ESPL_IN_OUT), not its rows */
    int32_t unused;
    int64_t rows[ESPL_QUANT_PARTS], columns;
} espl_quant;

/* The levels of NF4: quantiles of a normal distribution, its largest at 1, one of them 0 (QLoRA, appendix E). */
#define ESPL_NF4_LEVELS                                                                                                                    \
    {                                                                                                                                      \
        -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,            \
            -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,           \
            0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f                                                           \
    }

#define ESPL_INT8_STEP 7.874015718698502e-3f /* 1 / 127 */

/* A part's pieces; all in one stretch of memory, that begins at a multiple of ESPL_QUANT_ALIGN. */
typedef struct espl_quant_places {
    int64_t n;         /* elements */
    size_t scales;     /* where scales begin: float of outputs or blocks, or bytes of blocks (DOUBLE) */
    size_t second;     /* DOUBLE: where those of groups begin; behind them the mean */
    int64_t n_scales;  /* of the first kind */
    int64_t n_seconds; /* groups */
    size_t bytes;      /* of it all, a multiple of ESPL_QUANT_ALIGN */
} espl_quant_places;

static inline ESPL_ANYWHERE size_t espl_quant_round_up(size_t bytes) {
    return (bytes + ESPL_QUANT_ALIGN - 1) / ESPL_QUANT_ALIGN * ESPL_QUANT_ALIGN;
}

/* Local. Where a part's pieces lie, counted from its beginning. */
static inline ESPL_ANYWHERE espl_quant_places espl_quant_places_of(const espl_quant *p, int part) {
    bool bytes = p->format == ESPL_QUANT_INT8, twice = p->format == ESPL_QUANT_NF4_DOUBLE;
    espl_quant_places at;
    at.n = p->rows[part] * p->columns;
    int64_t blocks = (at.n + ESPL_QUANT_BLOCK - 1) / ESPL_QUANT_BLOCK;
    at.n_scales = !bytes ? blocks : p->outputs_across ? p->columns : p->rows[part];
    at.n_seconds = twice ? (blocks + ESPL_QUANT_GROUP - 1) / ESPL_QUANT_GROUP : 0;
    at.scales = espl_quant_round_up(bytes ? (size_t)at.n : (size_t)blocks * (ESPL_QUANT_BLOCK / 2));
    at.second = at.scales + espl_quant_round_up((size_t)at.n_scales * (twice ? 1 : sizeof(float)));
    at.bytes = at.second + (twice ? espl_quant_round_up((size_t)(at.n_seconds + 1) * sizeof(float)) : 0);
    return at;
}

/* Local. Bytes of a whole matrix, and its elements. */
static inline ESPL_ANYWHERE size_t espl_quant_bytes(const espl_quant *p) {
    size_t bytes = 0;
    for (int part = 0; part < p->n_parts; part++)
        bytes += espl_quant_places_of(p, part).bytes;
    return bytes;
}

static inline ESPL_ANYWHERE int64_t espl_quant_numel(const espl_quant *p) {
    int64_t n = 0;
    for (int part = 0; part < p->n_parts; part++)
        n += p->rows[part] * p->columns;
    return n;
}

/* Local. Quantises one tensor, finite numbers of any float format, that is part `part`, to `to` (the part's own beginning, aligned to
 * ESPL_QUANT_ALIGN). As bitsandbytes: of two levels that are equally near, the lower one. Uses all threads; allocates four bytes a scale.
 */
void espl_quantise(const espl_quant *quant, int part, const void *from, espl_dtype dtype, void *to);

/* Local. A format's name, as records have it: as_is, int8, nf4, nf4_double; and the format of a name, -1 when there is none. */
const char *espl_quant_name(int format);
int espl_quant_format(const char *name);

/* Local. The values of a part again, as float [n]. */
void espl_dequantise(const espl_quant *quant, int part, const void *from, float *to);

#endif
