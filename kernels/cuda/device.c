/* GPUs as devices (kernels/device.h), over CUDA's runtime. */
#include "kernels/cuda/entries.h"

espl_device *espl__cuda;

const espl_device_calls espl__cuda_device = {
    .version = ESPL_DEVICE_VERSION,
    .kind = "cuda",
    .remote = true,
};
