/* What there is: driver, devices, their properties; errors by name. */
#include "tests/emu/runtime/emu_engine.h"

#include "tests/emu/simt/fault.h"
#include "tests/emu/simt/simt_launch.h"

#include <cstdio>
#include <cstring>

namespace {

const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorAssert, "cudaErrorAssert", "device-side assert triggered"},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered", "pointer does not correspond to a registered memory region"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorSystemNotReady, "cudaErrorSystemNotReady", "system not yet initialized"},
    {cudaErrorSystemDriverMismatch, "cudaErrorSystemDriverMismatch", "system has unsupported display driver / cuda driver combination"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched", "capture was not initiated in this stream"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

constexpr int threads_of_sm = 2048, registers_of_sm = 65536, first_bus = 0x1a;

thread_local int current;

int driver() { return rt::setting("EMU_DEVICES", 1) < 0 ? 0 : (int)rt::setting("EMU_DRIVER", CUDART_VERSION); }

/* How many devices there are, or why none can be used. */
cudaError_t count_devices(int *n) {
    long long there = rt::setting("EMU_DEVICES", 1);
    *n = 0;
    if (driver() < CUDART_VERSION / 1000 * 1000) /* a driver of the same major version will do */
        return cudaErrorInsufficientDriver;
    if (there == 0)
        return cudaErrorNoDevice;
    *n = (int)there;
    return cudaSuccess;
}

cudaError_t known(int device) {
    int n;
    cudaError_t error = count_devices(&n);
    return error != cudaSuccess ? error : device < 0 || device >= n ? cudaErrorInvalidDevice : cudaSuccess;
}

int capability() { return (int)rt::setting("EMU_CAPABILITY", 80); }

int attribute(cudaDeviceAttr name, int device) {
    switch (name) {
    case cudaDevAttrMaxSharedMemoryPerBlock: return (int)simt::shared_default;
    case cudaDevAttrWarpSize: return simt::warp_size;
    case cudaDevAttrClockRate: return 1410000;
    case cudaDevAttrMultiProcessorCount: return 108;
    case cudaDevAttrComputeMode:
    case cudaDevAttrPciDeviceId:
    case cudaDevAttrPciDomainId:
    case cudaDevAttrHostNumaId: return 0;
    case cudaDevAttrPciBusId: return first_bus + device;
    case cudaDevAttrMemoryClockRate: return 1215000;
    case cudaDevAttrGlobalMemoryBusWidth: return 5120;
    case cudaDevAttrL2CacheSize: return 40 << 20;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return threads_of_sm;
    case cudaDevAttrComputeCapabilityMajor: return capability() / 10;
    case cudaDevAttrComputeCapabilityMinor: return capability() % 10;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return (int)simt::shared_most + 1024;
    case cudaDevAttrMaxRegistersPerMultiprocessor: return registers_of_sm;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return (int)simt::shared_most;
    }
    return -1;
}

void describe(cudaDeviceProp *prop, int device) {
    const char *name = rt::setting_text("EMU_DEVICE_NAME");
    *prop = {};
    snprintf(prop->name, sizeof prop->name, "%s", name ? name : "Emulated GPU");
    snprintf(prop->uuid.bytes, sizeof prop->uuid.bytes, "emulated-%d", device);
    prop->totalGlobalMem = rt::memory_total();
    prop->sharedMemPerBlock = simt::shared_default;
    prop->sharedMemPerBlockOptin = simt::shared_most;
    prop->sharedMemPerMultiprocessor = (size_t)attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, device);
    prop->regsPerBlock = prop->regsPerMultiprocessor = registers_of_sm;
    prop->warpSize = simt::warp_size;
    prop->maxThreadsPerBlock = simt::max_threads;
    prop->maxThreadsDim[0] = prop->maxThreadsDim[1] = simt::max_threads;
    prop->maxThreadsDim[2] = 64;
    prop->maxGridSize[0] = 0x7fffffff;
    prop->maxGridSize[1] = prop->maxGridSize[2] = 65535;
    prop->major = capability() / 10;
    prop->minor = capability() % 10;
    prop->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount, device);
    prop->concurrentKernels = 1;
    prop->pciBusID = attribute(cudaDevAttrPciBusId, device);
    prop->asyncEngineCount = 3;
    prop->memoryBusWidth = attribute(cudaDevAttrGlobalMemoryBusWidth, device);
    prop->l2CacheSize = attribute(cudaDevAttrL2CacheSize, device);
    prop->maxThreadsPerMultiProcessor = threads_of_sm;
}

} // namespace

namespace rt {

cudaError_t device_trouble() {
    cudaError_t error = known(current);
    return error != cudaSuccess ? error : setting("EMU_BUSY", 0) ? cudaErrorDevicesUnavailable : cudaSuccess;
}

} // namespace rt

using rt::result;

const char *cudaGetErrorName(cudaError_t error) {
    for (const auto &e : errors)
        if (e.error == error)
            return e.name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
    for (const auto &e : errors)
        if (e.error == error)
            return e.text;
    return "unrecognized error code";
}

cudaError_t cudaGetLastError(void) {
    rt::call call(false);
    return emu_last_error(1);
}

cudaError_t cudaPeekAtLastError(void) {
    rt::call call(false);
    return emu_last_error(0);
}

cudaError_t cudaDriverGetVersion(int *driverVersion) {
    rt::call call(false);
    *driverVersion = driver();
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *runtimeVersion) {
    *runtimeVersion = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    rt::call call(false);
    return result(count ? count_devices(count) : cudaErrorInvalidValue);
}

cudaError_t cudaSetDevice(int device) {
    rt::call call(false);
    if (cudaError_t error = known(device); error != cudaSuccess)
        return result(error);
    current = device; /* CUDA 12 and later create the context here */
    return result(rt::device_trouble());
}

cudaError_t cudaInitDevice(int device, unsigned int, unsigned int) {
    rt::call call(false);
    if (cudaError_t error = known(device); error != cudaSuccess)
        return result(error);
    return result(rt::setting("EMU_BUSY", 0) ? cudaErrorDevicesUnavailable : cudaSuccess);
}

cudaError_t cudaGetDevice(int *device) {
    rt::call call(false);
    *device = current;
    return result(known(current));
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device) {
    rt::call call(false);
    if (cudaError_t error = prop ? known(device) : cudaErrorInvalidValue; error != cudaSuccess)
        return result(error);
    describe(prop, device);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attr, int device) {
    rt::call call(false);
    if (cudaError_t error = value ? known(device) : cudaErrorInvalidValue; error != cudaSuccess)
        return result(error);
    *value = attribute(attr, device);
    return result(*value >= 0 ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaDeviceGetPCIBusId(char *pciBusId, int len, int device) {
    rt::call call(false);
    if (cudaError_t error = pciBusId && len > 12 ? known(device) : cudaErrorInvalidValue; error != cudaSuccess)
        return result(error);
    snprintf(pciBusId, (size_t)len, "0000:%02X:00.0", (unsigned)(first_bus + device) & 0xff);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *leastPriority, int *greatestPriority) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (leastPriority)
        *leastPriority = 0;
    if (greatestPriority)
        *greatestPriority = -5;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *func, cudaFuncAttribute attr, int value) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (!func || value < 0)
        return result(func ? cudaErrorInvalidValue : cudaErrorInvalidDeviceFunction);
    return attr == cudaFuncAttributeMaxDynamicSharedMemorySize ? simt::allow_shared(func, (size_t)value) : cudaSuccess;
}
