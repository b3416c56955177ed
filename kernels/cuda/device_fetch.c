/* Snapshots: copies to pinned memory of the host, on a stream of their own between two events. They begin behind what is on the compute
 * stream when they are asked for; the compute stream waits for their end before it changes what they read. So they travel under forward and
 * backward of the next step, and the only thread that waits for them is the one that writes them to a file. */
#include "kernels/cuda/device_private.h"

#include <time.h>

/* Pages of the system's, not of the runtime's: files can be written from them past the page cache. */
espl_status espl__cuda_pin(espl_device *device, void *memory, size_t bytes) {
    ESPL__CUDA(cudaSetDevice(device->ordinal)); /* a new thread has the first device, whatever this process has opened */
    cudaError_t error = cudaHostRegister(memory, bytes, cudaHostRegisterDefault);
    if (error == cudaSuccess)
        return ESPL_OK;
    (void)cudaGetLastError(); /* told here */
    ESPL_FAIL(ESPL_ERR_USAGE, "%.1f MiB of host memory cannot be pinned for copies from GPU %d: %s (%s)", (double)bytes / 1048576.0,
              device->ordinal, cudaGetErrorString(error), cudaGetErrorName(error));
}

void espl__cuda_unpin(espl_device *device, void *memory) {
    cudaError_t error = cudaSetDevice(device->ordinal);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(device->copy); /* of a snapshot that nobody wants any more */
    if (error != cudaSuccess || cudaHostUnregister(memory) != cudaSuccess)
        (void)cudaGetLastError(); /* the device has failed, and that was told */
}

espl_status espl__cuda_fetch(espl_device *device, void *to, const void *from, size_t bytes) {
    espl__device_private *own = device->own;
    ESPL_ASSERT(!own->recording, "a snapshot inside a recording");
    ESPL__CUDA(cudaEventRecord(own->here, device->compute));
    ESPL__CUDA(cudaStreamWaitEvent(device->copy, own->here, 0));
    ESPL__CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, device->copy));
    ESPL__CUDA(cudaEventRecord(own->arrived, device->copy));
    return ESPL_OK;
}

espl_status espl__cuda_let_fetch(espl_device *device) {
    ESPL_ASSERT(!device->own->recording, "a recording would wait for the same snapshot each time");
    ESPL__CUDA(cudaStreamWaitEvent(device->compute, device->own->arrived, 0));
    return ESPL_OK;
}

/* A failure is not noted: the thread that trains meets it as well, and it is that thread's to tell. */
espl_status espl__cuda_fetched(espl_device *device) {
    ESPL__CUDA(cudaSetDevice(device->ordinal));
    cudaError_t error;
    while ((error = cudaEventQuery(device->own->arrived)) == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* "not ready" is remembered as an error, too */
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    return espl__cuda_check(error, "a copy of a snapshot");
}
