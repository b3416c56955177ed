/* Why there is no GPU to be had: a driver, a device or rights are missing, and the runtime's word for it does not say what to do. */
#include "kernels/cuda/device_private.h"

#include <stdlib.h>

static espl_status no_driver(int driver, int runtime) {
    if (driver == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "there is no NVIDIA driver on this machine; start on a node with GPUs, or set run.device: cpu");
    ESPL_FAIL(ESPL_ERR_USAGE,
              "the NVIDIA driver of this machine is made for CUDA %d.%d, this build needs %d.%d: update the driver, build with an older "
              "CUDA, or set run.device: cpu",
              driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
}

static espl_status no_device(void) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    ESPL_FAIL(ESPL_ERR_USAGE,
              "there is an NVIDIA driver, but no GPU that this process may use (CUDA_VISIBLE_DEVICES is %s%s); ask the batch system for "
              "GPUs (srun --gpus-per-node), or set run.device: cpu",
              visible != NULL ? "set to " : "not set",
              visible != NULL && visible[0] == '\0' ? "nothing"
              : visible != NULL                     ? visible
                                                    : "");
}

static espl_status why_none(cudaError_t error) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    switch (error) {
    case cudaErrorInsufficientDriver: return no_driver(driver, runtime);
    case cudaErrorNoDevice: return no_device();
    case cudaErrorSystemDriverMismatch:
        ESPL_FAIL(ESPL_ERR_USAGE, "the NVIDIA driver's kernel module and its libraries are of different versions: the machine was updated "
                                  "and needs a reboot, or a container brings libraries of its own");
    case cudaErrorSystemNotReady:
        ESPL_FAIL(ESPL_ERR_USAGE, "the GPUs of this machine are not ready: its NVSwitch fabric manager does not run; tell who runs it");
    default: ESPL_FAIL(ESPL_ERR_USAGE, "CUDA cannot be used here: %s (%s)", cudaGetErrorString(error), cudaGetErrorName(error));
    }
}

espl_status espl__cuda_count(int *n) {
    *n = 0;
    cudaError_t error = cudaGetDeviceCount(n);
    if (error == cudaSuccess && *n == 0)
        error = cudaErrorNoDevice;
    if (error == cudaSuccess)
        return ESPL_OK;
    *n = 0;
    (void)cudaGetLastError(); /* told here */
    return why_none(error);
}
