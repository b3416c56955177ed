/* The scratch of ATTENTION by cuDNN's kernels. Whether a run finds cuDNN is not known when memory is planned, so where it might be used
 * there is room for it: an upper bound of what its version 9.28 asks for. */
#ifndef ESPL_KERNELS_CUDA_CUDNN_WORK_H
#define ESPL_KERNELS_CUDA_CUDNN_WORK_H

#include "kernels/kernels.h"

/* What cuDNN's kernels hold a segment and a place for a row, used or not, must stay a small part of the rows there are. */
enum { ESPL_CUDNN_LEAST_ROWS_A_SEGMENT = 16, ESPL_CUDNN_MOST_PLACES_A_ROW = 4 };

/* Local. Whether the op is one that cuDNN's kernels are asked for; shapes and the device have a say, too. */
static inline bool espl__cudnn_may_do(const espl_attrs *attrs, espl_dtype real) {
    return real == ESPL_BF16 && attrs->dropout == 0.0f && attrs->window == 0 && attrs->rel_buckets == 0 && attrs->head_dim % 8 == 0;
}

/* Local. Bytes for n rows. Gradients are summed in fp32 for queries, and where heads share keys in bf16 for each head, in rows as far apart
 * as those of qkv; then a float a row and head; the rest is by segments, heads and tiles of 64 queries. */
static inline size_t espl__cudnn_work(const espl_attrs *attrs, espl_dtype real, int64_t n, int backward) {
    int64_t heads = attrs->heads, more = 65536;
    if (!espl__cudnn_may_do(attrs, real))
        return 0;
    int64_t group = heads / attrs->kv_heads, width = (heads + 2 * attrs->kv_heads) * attrs->head_dim;
    int64_t sums = 4 * width + (group > 1 ? 4 * group * width : 0) + 4 * heads;
    return (size_t)(backward ? n * (sums + 33 * heads + 128) + more : 32 * n + more) / 256 * 256;
}

#endif
