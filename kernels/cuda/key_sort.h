/* Tokens of the micro-batch in the order of a key, on the device. */
#ifndef ESPL_KERNELS_CUDA_KEY_SORT_H
#define ESPL_KERNELS_CUDA_KEY_SORT_H

#include "kernels/cuda/state.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct espl__sorted {
    const int32_t *index, *keys; /* [rows->tokens] on the device: token numbers by (key, token number), and their keys */
} espl__sorted;

/* Local. Puts a stable sort of all tokens of a stream by keys[token] - first on the compute stream; padding, and what is below 0 or not
 * below n_keys then, gets the key n_keys and comes last. `work`: espl__sort_bytes(tokens) bytes of the device (kernels/cuda_rows_work.h),
 * where the result lies. */
espl__sorted espl__cuda_sort_keys(const espl__rows *rows, const int32_t *keys, int64_t first, int64_t n_keys, void *work);

#ifdef __cplusplus
}
#endif

#endif
