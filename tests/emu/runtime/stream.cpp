/* Streams. */
#include "tests/emu/runtime/emu_engine.h"

#include "tests/emu/simt/fault.h"

#include <map>

struct CUstream_st {
    std::shared_ptr<rt::queue> queue;
};

namespace rt {

static std::map<cudaStream_t, std::shared_ptr<queue>> &streams() {
    static auto *one = new std::map<cudaStream_t, std::shared_ptr<queue>>;
    return *one;
}

std::shared_ptr<queue> queue_of(cudaStream_t stream) {
    if (!stream)
        return null_queue();
    auto found = streams().find(stream);
    return found == streams().end() ? nullptr : found->second;
}

/* Nobody has a handle of it, but it still has work. */
static void leave_behind(const std::shared_ptr<queue> &q) {
    static auto *left = new std::vector<std::shared_ptr<queue>>;
    left->push_back(q);
}

} // namespace rt

using rt::result;

void emu_enqueue(cudaStream_t stream, const char *what, std::function<void()> work) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return;
    std::shared_ptr<rt::queue> on = rt::queue_of(stream);
    cudaError_t error = cudaErrorInvalidResourceHandle;
    if (on)
        error = rt::put_or_capture(on, what, [work = std::move(work)] {
            work();
            return true;
        });
    if (error != cudaSuccess)
        emu_note_error(error);
}

cudaError_t cudaStreamCreate(cudaStream_t *pStream) { return cudaStreamCreateWithPriority(pStream, cudaStreamDefault, 0); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *pStream, unsigned int flags) { return cudaStreamCreateWithPriority(pStream, flags, 0); }

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *pStream, unsigned int flags, int) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (!pStream || flags > cudaStreamNonBlocking)
        return result(cudaErrorInvalidValue);
    *pStream = new CUstream_st{std::make_shared<rt::queue>()};
    (*pStream)->queue->blocking = flags == cudaStreamDefault;
    rt::streams()[*pStream] = (*pStream)->queue;
    rt::know((*pStream)->queue);
    return cudaSuccess;
}

/* A GPU lets the work finish by itself. Here it is run now; what waits for other ranks is left behind. */
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::queue> q = stream ? rt::queue_of(stream) : nullptr;
    if (!q || q->capture)
        return result(cudaErrorInvalidResourceHandle);
    if (!rt::try_to_reach(rt::end_of(q)))
        rt::leave_behind(q);
    rt::streams().erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::queue> q = rt::queue_of(stream);
    if (!q)
        return result(cudaErrorInvalidResourceHandle);
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess || q->capture)
        return result(cudaErrorStreamCaptureUnsupported);
    rt::wait(rt::end_of(q));
    return result(emu_sticky_error());
}

cudaError_t cudaDeviceSynchronize(void) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess)
        return result(error);
    rt::wait_for_all();
    return result(emu_sticky_error());
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::queue> q = rt::queue_of(stream);
    if (!q)
        return result(cudaErrorInvalidResourceHandle);
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess || q->capture)
        return result(cudaErrorStreamCaptureUnsupported);
    bool there = rt::look(rt::end_of(q));
    return result(emu_sticky_error() != cudaSuccess ? emu_sticky_error() : there ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *userData) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::queue> q = rt::queue_of(stream);
    if (!q || !fn)
        return result(q ? cudaErrorInvalidValue : cudaErrorInvalidResourceHandle);
    return result(rt::put_or_capture(q, "a host function", [=] {
        fn(userData);
        return true;
    }));
}
