/* Events: what was on a stream when the event was recorded last. */
#include "tests/emu/runtime/event.h"

#include "tests/emu/simt/fault.h"

#include <chrono>
#include <map>

namespace rt {

static std::map<cudaEvent_t, std::shared_ptr<event>> &events() {
    static auto *one = new std::map<cudaEvent_t, std::shared_ptr<event>>;
    return *one;
}

static std::shared_ptr<event> event_of(cudaEvent_t handle) {
    auto found = events().find(handle);
    return found == events().end() ? nullptr : found->second;
}

void record(const std::shared_ptr<event> &e, const std::shared_ptr<queue> &on) {
    auto time = std::make_shared<double>(0.0);
    e->time = time;
    e->captured = false;
    e->last = put(on, "an event", [time] {
        *time = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
        return true;
    });
}

void wait_on_stream(const std::shared_ptr<event> &e, const std::shared_ptr<queue> &on) {
    if (e->last.stream)
        put(on, "wait for an event", nullptr, e->last);
}

static cudaError_t record_or_capture(cudaEvent_t handle, cudaStream_t stream, unsigned flags) {
    std::shared_ptr<event> e = event_of(handle);
    std::shared_ptr<queue> on = queue_of(stream);
    if (!e || !on)
        return cudaErrorInvalidResourceHandle;
    if (flags > cudaEventRecordExternal || (flags == cudaEventRecordExternal && !on->capture))
        return cudaErrorInvalidValue; /* external: in captures alone */
    if (!on->capture) {
        record(e, on);
        return cudaSuccess;
    }
    if (flags == cudaEventRecordExternal)
        return capture_record(*on, e);
    e->captured = true; /* a place in the graph: on one stream all that follows is behind it anyway */
    e->last = {on, 0};
    return cudaSuccess;
}

static cudaError_t wait_or_capture(cudaStream_t stream, cudaEvent_t handle, unsigned flags) {
    std::shared_ptr<event> e = event_of(handle);
    std::shared_ptr<queue> on = queue_of(stream);
    if (!e || !on)
        return cudaErrorInvalidResourceHandle;
    if (flags > cudaEventWaitExternal || (flags == cudaEventWaitExternal && !on->capture))
        return cudaErrorInvalidValue;
    if (on->capture && flags == cudaEventWaitExternal)
        return capture_wait(*on, e);
    if (on->capture && e->captured && e->last.stream == on)
        return cudaSuccess;
    if (on->capture && !e->captured && !e->last.stream)
        return cudaSuccess; /* never recorded */
    if (on->capture) {
        on->capture->valid = false;
        return cudaErrorStreamCaptureIsolation;
    }
    if (e->captured) { /* would make this stream a part of the capture */
        if (e->last.stream->capture)
            e->last.stream->capture->valid = false;
        return cudaErrorStreamCaptureUnsupported;
    }
    wait_on_stream(e, on);
    return cudaSuccess;
}

} // namespace rt

using rt::result;

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (!event || flags > (cudaEventBlockingSync | cudaEventDisableTiming))
        return result(cudaErrorInvalidValue);
    *event = new CUevent_st;
    auto made = std::make_shared<rt::event>();
    made->timed = !(flags & cudaEventDisableTiming);
    rt::events()[*event] = made;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (rt::events().erase(event) == 0)
        return result(cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned int flags) {
    rt::call call;
    return call.error() != cudaSuccess ? call.error() : result(rt::record_or_capture(event, stream, flags));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags) {
    rt::call call;
    return call.error() != cudaSuccess ? call.error() : result(rt::wait_or_capture(stream, event, flags));
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::event> e = rt::event_of(event);
    if (!e || e->captured)
        return result(e ? cudaErrorCapturedEvent : cudaErrorInvalidResourceHandle);
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess)
        return result(error);
    bool there = !e->last.stream || rt::look(e->last);
    return result(emu_sticky_error() != cudaSuccess ? emu_sticky_error() : there ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::event> e = rt::event_of(event);
    if (!e || e->captured)
        return result(e ? cudaErrorCapturedEvent : cudaErrorInvalidResourceHandle);
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess)
        return result(error);
    if (e->last.stream)
        rt::wait(e->last);
    return result(emu_sticky_error());
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::event> from = rt::event_of(start), to = rt::event_of(end);
    if (!ms || !from || !to)
        return result(ms ? cudaErrorInvalidResourceHandle : cudaErrorInvalidValue);
    if (!from->timed || !to->timed || !from->last.stream || !to->last.stream || from->captured || to->captured)
        return result(cudaErrorInvalidResourceHandle);
    if (!from->last.reached() || !to->last.reached())
        return result(cudaErrorNotReady);
    *ms = (float)(*to->time - *from->time);
    return cudaSuccess;
}
