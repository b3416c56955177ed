/* ATTENTION by cuDNN's fused kernels, which use Hopper's own matrix instructions, where ours use those that every GPU has.
 *
 * They are used where both passes have a plan for the shape and give the same bits every time (cudnn_plans.h): bf16, no dropout, no window,
 * no bias, few segments of bounded length. The choice is made at the first forward call of a shape, outside a recording, and does not
 * change afterwards. The first forward and the first backward call of a shape run both ways and twice, on the call's own operands: results
 * that are not ours up to rounding, or not the same bits again, end the use of cuDNN for that shape.
 *
 * ESPL_CUDA_ATTENTION: auto (the default), own, or cudnn, which makes it an error, with the reason, where ours would be used. */
#ifndef ESPL_KERNELS_CUDA_CUDNN_ATTENTION_H
#define ESPL_KERNELS_CUDA_CUDNN_ATTENTION_H

#include "kernels/cuda/state.h"
#include "src/core/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Local. Puts the pass on the compute stream; false where `own`, our kernel for it, must. `own` is also what the first call is compared
 * with. Needs attrs->dropout and so on as the plan saw them (kernels/cuda_cudnn_work.h). */
bool espl__cudnn_forward(const espl_args *args, espl_kernel *own);
bool espl__cudnn_backward(const espl_args *args, espl_kernel *own);

/* Local. What was found, as ", cuDNN 9.28.0", for the line of libraries; "" where cuDNN is not asked for or not there. */
void espl__cudnn_describe(char *text, size_t room);

/* Local. Whose kernels run, and why; "" while no call was one to choose for. */
void espl__cudnn_tell(char *text, size_t room);

/* Local. Forgets plans and choices, for the device that closes. */
void espl__cudnn_close(void);

/* What became of the shapes so far, for tests and logs. */
typedef struct espl__cudnn_counts {
    int64_t shapes, chosen, refused; /* refused: by the comparison of the first calls */
    char why[256];                   /* why the last shape is not cuDNN's; "" while all are */
} espl__cudnn_counts;

/* Local. Since the device was opened. */
ESPL_EXPORT espl__cudnn_counts espl__cudnn_count(void);

/* Local. Zeroes the rows behind the micro-batch's own. */
void espl__cuda_zero_padding(const espl__rows *rows, void *x, int64_t row_bytes);

#ifdef __cplusplus
}
#endif

#endif
