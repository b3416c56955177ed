/* What ranks hand each other of a sum that travels as bf16. */
#ifndef ESPL_CORE_RANK_PARTS_H
#define ESPL_CORE_RANK_PARTS_H

#include "src/core/dtype.h"

/* A stage with a place for each of `size` ranks, n elements at data + r * stride of rank r; the place of `rank`, our own, is not used. */
typedef struct espl_rank_parts {
    espl_bf16 *data;
    int64_t stride, n;
    int rank, size;
} espl_rank_parts;

/* Local. to[r][i] = from[r * from_stride + i], rounded to nearest even, for every other rank r. */
typedef void espl_parts_round(const espl_rank_parts *to, const float *from, int64_t from_stride);

/* Local. own[i] = ((p0 + p1) + p2) + ... in fp32, p_r = from[r][i]; p_rank is own[i], which was never rounded. */
typedef void espl_parts_add(float *own, const espl_rank_parts *from);

#endif
