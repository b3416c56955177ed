/* GPUs as devices (kernels/device.h), over CUDA's runtime: opening, memory. Copies, recordings and marks: device_stream.c; micro-batches:
 * device_batch.c; snapshots: device_fetch.c. */
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/device_private.h"
#include "kernels/cuda/gemm_lt.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_CAPABILITY = 80 };

espl_device *espl__cuda;

espl_status espl__cuda_check(cudaError_t error, const char *call) {
    if (error == cudaSuccess)
        return ESPL_OK;
    (void)cudaGetLastError(); /* told here */
    ESPL_FAIL(ESPL_ERR_IO, "CUDA failed: %s (%s) from %.160s", cudaGetErrorString(error), cudaGetErrorName(error), call);
}

static espl_status take_device(int ordinal, struct cudaDeviceProp *properties) {
    int n;
    ESPL_TRY(espl__cuda_count(&n));
    if (ordinal < 0 || ordinal >= n)
        ESPL_FAIL(ESPL_ERR_USAGE, "GPU %d is asked for, this process may use %d (numbered from 0)", ordinal, n);
    cudaError_t error = cudaSetDevice(ordinal);
    if (error == cudaSuccess)
        error = cudaFree(NULL); /* makes the context, where older versions only remember the number */
    if (error == cudaSuccess)
        error = cudaGetDeviceProperties(properties, ordinal);
    if (error == cudaSuccess)
        return ESPL_OK;
    (void)cudaGetLastError();
    if (error == cudaErrorDevicesUnavailable)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "GPU %d is taken: another process uses it, and it is set to exclusive use; nvidia-smi shows which. Choose another with "
                  "CUDA_VISIBLE_DEVICES, or start fewer ranks on this node",
                  ordinal);
    if (error == cudaErrorMemoryAllocation)
        ESPL_FAIL(ESPL_ERR_USAGE, "GPU %d has no memory left for CUDA itself: another process holds it; nvidia-smi shows which", ordinal);
    ESPL_FAIL(ESPL_ERR_USAGE, "GPU %d does not open: %s (%s)", ordinal, cudaGetErrorString(error), cudaGetErrorName(error));
}

static espl_status check_capability(int ordinal, const struct cudaDeviceProp *properties) {
    if (10 * properties->major + properties->minor < LEAST_CAPABILITY)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "GPU %d, %s, has compute capability %d.%d; the kernels need %d.%d or newer (A100, L40, H100, ...); set run.device: cpu",
                  ordinal, properties->name, properties->major, properties->minor, LEAST_CAPABILITY / 10, LEAST_CAPABILITY % 10);
    return ESPL_OK;
}

/* Communication goes first: its kernels are few and short, and others wait for them. */
static espl_status make_streams(espl_device *device) {
    int least, greatest;
    ESPL__CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    ESPL__CUDA(cudaStreamCreateWithPriority(&device->compute, cudaStreamNonBlocking, least));
    ESPL__CUDA(cudaStreamCreateWithPriority(&device->communication, cudaStreamNonBlocking, greatest));
    ESPL__CUDA(cudaStreamCreateWithPriority(&device->copy, cudaStreamNonBlocking, least));
    ESPL__CUDA(cudaEventCreateWithFlags(&device->own->here, cudaEventDisableTiming));
    ESPL__CUDA(cudaEventCreateWithFlags(&device->own->arrived, cudaEventDisableTiming));
    return espl__cuda_make_slots(device->own->stage, ESPL__STAGE_BYTES);
}

static void free_streams(espl_device *device) {
    cudaStream_t streams[] = {device->compute, device->communication, device->copy};
    cudaEvent_t events[] = {device->own->here, device->own->arrived};
    for (int i = 0; i < ESPL_MAX_MARKS; i++)
        if (device->own->marks[i] != NULL)
            cudaEventDestroy(device->own->marks[i]);
    for (int i = 0; i < 2; i++)
        if (events[i] != NULL)
            cudaEventDestroy(events[i]);
    for (int i = 0; i < 3; i++)
        if (streams[i] != NULL)
            cudaStreamDestroy(streams[i]);
}

static void cuda_close(espl_device **address) {
    espl_device *device = *address;
    *address = NULL;
    if (device == NULL)
        return;
    if (device->compute != NULL)
        cudaStreamSynchronize(device->compute); /* a failure was told before, or is nobody's concern any more */
    espl__cuda_gemm_close();
    espl__cudnn_close();
    espl__cuda_free_batch(device);
    espl__cuda_free_slots(device->own->stage);
    free_streams(device);
    free(device->own);
    free(device);
    espl__cuda = NULL;
}

static espl_status cuda_open(int ordinal, espl_device **opened) {
    struct cudaDeviceProp properties;
    ESPL_ASSERT(espl__cuda == NULL, "a process has one device, and GPU %d is open", espl__cuda->ordinal);
    *opened = NULL;
    ESPL_TRY(take_device(ordinal, &properties));
    ESPL_TRY(check_capability(ordinal, &properties));
    espl_device *device = espl_calloc(1, sizeof *device);
    device->own = espl_calloc(1, sizeof *device->own);
    device->ordinal = ordinal;
    device->own->after = -1;
    snprintf(device->own->name, sizeof device->own->name, "%.95s", properties.name);
    espl__cuda = device;
    espl_status status = make_streams(device);
    if (status != ESPL_OK) {
        cuda_close(&device);
        return espl_status_frame(status, __FILE__, __LINE__, "make_streams");
    }
    *opened = device;
    return ESPL_OK;
}

static void describe_libraries(char *text, size_t room) {
    int driver = 0, runtime = 0;
    char cudnn[64];
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    espl__cudnn_describe(cudnn, sizeof cudnn);
    int blas = (int)espl__cuda_gemm_version();
    snprintf(text, room, "CUDA %d.%d, driver for %d.%d, cuBLASLt %d.%d.%d, %s%s", runtime / 1000, runtime % 1000 / 10, driver / 1000,
             driver % 1000 / 10, blas / 10000, blas / 100 % 100, blas % 100, espl__cuda_bulk_version(), cudnn);
}

static void cuda_info(const espl_device *device, espl_device_info *info) {
    *info = (espl_device_info){.ordinal = device->ordinal};
    memcpy(info->name, device->own->name, sizeof info->name);
    describe_libraries(info->libraries, sizeof info->libraries);
    espl__cudnn_tell(info->attention, sizeof info->attention);
    espl__cuda_note(cudaGetDeviceCount(&info->n_devices), "cudaGetDeviceCount");
    espl__cuda_note(cudaMemGetInfo(&info->bytes_free, &info->bytes_total), "cudaMemGetInfo");
    espl__cuda_note(cudaDeviceGetPCIBusId(info->address, sizeof info->address, device->ordinal), "cudaDeviceGetPCIBusId");
}

static espl_status out_of_memory(const espl_device *device, const char *name, size_t bytes) {
    size_t bytes_free = 0, total = 0;
    (void)cudaGetLastError();
    cudaMemGetInfo(&bytes_free, &total);
    const double mib = 1048576.0;
    ESPL_FAIL(ESPL_ERR_USAGE,
              "GPU %d: arena %s needs %.1f MiB, of %.1f MiB only %.1f MiB are free: %.1f MiB too little. Less is needed with a smaller "
              "train.micro_batch_tokens, with model.recompute: full, with run.sharding: optimizer on more ranks; `espalier plan` "
              "shows what would fit",
              device->ordinal, name, (double)bytes / mib, (double)total / mib, (double)bytes_free / mib,
              bytes > bytes_free ? (double)(bytes - bytes_free) / mib : 0.0);
}

static espl_status cuda_alloc(espl_device *device, const char *name, size_t bytes, void **memory) {
    *memory = NULL;
    if (bytes == 0)
        return ESPL_OK;
    cudaError_t error = cudaMalloc(memory, bytes);
    if (error == cudaErrorMemoryAllocation)
        return out_of_memory(device, name, bytes);
    ESPL__CUDA(error);
    ESPL__CUDA(cudaMemsetAsync(*memory, 0, bytes, device->compute));
    return ESPL_OK;
}

static void cuda_release(espl_device *device, void *memory, size_t bytes) {
    (void)device, (void)bytes;
    if (memory != NULL)
        cudaFree(memory);
}

/* With one address space for host and devices (CUDA C++ Programming Guide, "Unified Virtual Addressing") kernels reach it by the same
 * pointer. Accesses of a warp that are one run of memory use the bus as a copy does, in both directions at once. */
static espl_status cuda_alloc_far(espl_device *device, const char *name, size_t bytes, void **memory) {
    *memory = NULL;
    if (bytes == 0)
        return ESPL_OK;
    cudaError_t error = cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
    if (error != cudaSuccess) {
        (void)cudaGetLastError(); /* told here */
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "GPU %d: arena %s needs %.1f MiB of pinned host memory (run.offload), which cannot be had: %s; use more ranks with "
                  "run.sharding: optimizer, or set run.offload: none",
                  device->ordinal, name, (double)bytes / 1048576.0, cudaGetErrorString(error));
    }
    memset(*memory, 0, bytes);
    return ESPL_OK;
}

static void cuda_release_far(espl_device *device, void *memory, size_t bytes) {
    (void)device, (void)bytes;
    if (memory != NULL)
        cudaFreeHost(memory);
}

const espl_device_calls espl__cuda_device = {
    .version = ESPL_DEVICE_VERSION,
    .kind = ESPL_BACKEND_KIND,
    .remote = true,
    .count = espl__cuda_count,
    .open = cuda_open,
    .close = cuda_close,
    .info = cuda_info,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .alloc_far = cuda_alloc_far,
    .release_far = cuda_release_far,
    .reserve = espl__cuda_reserve,
    .write = espl__cuda_write,
    .read = espl__cuda_read,
    .sync = espl__cuda_sync,
    .begin = espl__cuda_begin,
    .record = espl__cuda_record,
    .recorded = espl__cuda_recorded,
    .replay = espl__cuda_replay,
    .forget = espl__cuda_forget,
    .mark = espl__cuda_mark,
    .after = espl__cuda_after,
    .pin = espl__cuda_pin,
    .unpin = espl__cuda_unpin,
    .fetch = espl__cuda_fetch,
    .let_fetch = espl__cuda_let_fetch,
    .fetched = espl__cuda_fetched,
};
