/* cuDNN's fused attention: the library, and plans of it for a shape. cuDNN is opened when it is asked for, and nothing is linked with it; a
 * machine without it is told of in words. Plans can be made for a GPU that is only described, so all of this but running is tested
 * on machines that have none.
 *
 * A plan takes a packed micro-batch as it lies: rows of q, k, v side by side, `segments` as the lengths and the places of sequences, read
 * when the plan runs, and log-sum-exps as [rows, heads]. Backward adds up dQ in one fixed order (cuDNN's STAGES = 4, engines of Hopper), so
 * bits do not change from run to run; a device for which cuDNN has no such engine gets no plan. */
#ifndef ESPL_KERNELS_CUDA_CUDNN_PLANS_H
#define ESPL_KERNELS_CUDA_CUDNN_PLANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first version whose plans were made in tests for shapes as ours; 9.19, which some PyTorch brings, lacks the operations. */
enum { ESPL__CUDNN_LEAST = 92800 };

/* What a plan depends on; no padding bytes, so that shapes can be compared by memcmp. */
typedef struct espl__cudnn_shape {
    int64_t rows;              /* of the micro-batch */
    int64_t segments, longest; /* at most so many, at most so long */
    int32_t heads, kv_heads, head_dim, causal;
} espl__cudnn_shape;

/* The tensors that a plan is given, all but the scale in device memory. Rows are those of kernels.h's ATTENTION; K and V begin inside a row
 * of qkv. */
typedef enum espl__cudnn_tensor {
    ESPL__CUDNN_Q = 1,
    ESPL__CUDNN_K,
    ESPL__CUDNN_V,
    ESPL__CUDNN_O,
    ESPL__CUDNN_LSE, /* [rows, heads] f32 */
    ESPL__CUDNN_DO,
    ESPL__CUDNN_DQ,
    ESPL__CUDNN_DK,
    ESPL__CUDNN_DV,
    ESPL__CUDNN_SEGMENTS,  /* [segments + 1] int32, as offsets */
    ESPL__CUDNN_LENGTHS_Q, /* the same array, as lengths */
    ESPL__CUDNN_LENGTHS_K,
    ESPL__CUDNN_SCALE, /* one float of the host */
    ESPL__CUDNN_BOUND, /* the rest is the plan's own */
    ESPL__CUDNN_FILL,
    ESPL__CUDNN_TENSORS
} espl__cudnn_tensor;

typedef struct espl__cudnn_plan {
    void *plan;
    int64_t work_bytes, engine;
    bool backward, causal;
    int n_made;
    void *made[256]; /* descriptors that live as long as the plan */
} espl__cudnn_plan;

/* Local. Opens the library: ESPL_CUDNN_LIBRARY, else libcudnn.so.9 where the loader finds it. Returns its version as 92800, or 0 where
 * there is none; opens once. */
size_t espl__cudnn_version(void);

/* Local. A handle on the current device, for a stream of it; false with the reason, when the library is missing, too old, or fails. */
bool espl__cudnn_open(void *stream, char *why, size_t room);
void espl__cudnn_shut(void);

/* Local. The plan of a pass for the open device, or for the one that `device` describes (cuDNN's JSON). Takes a second of the host. False
 * with the reason. free accepts a zeroed plan. */
bool espl__cudnn_make_plan(const espl__cudnn_shape *shape, bool backward, const char *device, espl__cudnn_plan *plan, char *why,
                           size_t room);
void espl__cudnn_free_plan(espl__cudnn_plan *plan);

/* Local. Puts the plan on the stream of espl__cudnn_open; `work`: plan->work_bytes, aligned to 256. False with the reason. */
bool espl__cudnn_run(const espl__cudnn_plan *plan, void *const tensors[ESPL__CUDNN_TENSORS], void *work, char *why, size_t room);

#endif
