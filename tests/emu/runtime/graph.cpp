/* Captures and graphs: a graph is the list of what was put on the stream while it captured. */
#include "tests/emu/runtime/event.h"

#include "tests/emu/simt/fault.h"

#include <set>

namespace {

struct node {
    enum { work, record, wait } kind;
    const char *what;
    rt::attempt attempt;
    std::shared_ptr<rt::event> event;
};

} // namespace

struct CUgraph_st {
    std::vector<node> nodes;
};

struct CUgraphExec_st {
    std::vector<node> nodes;
};

namespace rt {

static std::set<cudaGraph_t> &graphs() {
    static auto *one = new std::set<cudaGraph_t>;
    return *one;
}

static std::set<cudaGraphExec_t> &executables() {
    static auto *one = new std::set<cudaGraphExec_t>;
    return *one;
}

static cudaError_t append(queue &on, node added) {
    if (!on.capture->valid)
        return cudaErrorStreamCaptureInvalidated;
    on.capture->graph->nodes.push_back(std::move(added));
    return cudaSuccess;
}

cudaError_t capture_record(queue &on, const std::shared_ptr<event> &e) { return append(on, {node::record, "an event", nullptr, e}); }

cudaError_t capture_wait(queue &on, const std::shared_ptr<event> &e) { return append(on, {node::wait, "wait for an event", nullptr, e}); }

cudaError_t put_or_capture(const std::shared_ptr<queue> &on, const char *what, attempt work) {
    if (on->capture)
        return append(*on, {node::work, what, std::move(work), nullptr});
    put(on, what, std::move(work));
    return cudaSuccess;
}

static void launch(const std::vector<node> &nodes, const std::shared_ptr<queue> &on) {
    for (const node &n : nodes)
        if (n.kind == node::work)
            put(on, n.what, n.attempt);
        else if (n.kind == node::record)
            record(n.event, on);
        else
            wait_on_stream(n.event, on);
}

} // namespace rt

using rt::result;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::queue> q = rt::queue_of(stream);
    if (!q)
        return result(cudaErrorInvalidResourceHandle);
    if (!stream || q->capture)
        return result(stream ? cudaErrorInvalidValue : cudaErrorStreamCaptureUnsupported);
    auto *graph = new CUgraph_st;
    rt::graphs().insert(graph);
    q->capture = std::make_unique<rt::recording>(rt::recording{graph, mode, std::this_thread::get_id(), true});
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *pGraph) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::queue> q = rt::queue_of(stream);
    if (!q || !pGraph || !q->capture)
        return result(!q ? cudaErrorInvalidResourceHandle : !pGraph ? cudaErrorInvalidValue : cudaErrorStreamCaptureUnmatched);
    std::unique_ptr<rt::recording> capture = std::move(q->capture);
    *pGraph = capture->graph;
    if (capture->valid)
        return cudaSuccess;
    rt::graphs().erase(capture->graph);
    delete capture->graph;
    *pGraph = nullptr;
    return result(cudaErrorStreamCaptureInvalidated);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *pCaptureStatus) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::queue> q = rt::queue_of(stream);
    if (!q || !pCaptureStatus)
        return result(q ? cudaErrorInvalidValue : cudaErrorInvalidResourceHandle);
    *pCaptureStatus = !q->capture         ? cudaStreamCaptureStatusNone
                      : q->capture->valid ? cudaStreamCaptureStatusActive
                                          : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *pGraphExec, cudaGraph_t graph, unsigned long long) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (!pGraphExec || rt::graphs().count(graph) == 0)
        return result(cudaErrorInvalidValue);
    *pGraphExec = new CUgraphExec_st{graph->nodes};
    rt::executables().insert(*pGraphExec);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graphExec, cudaStream_t stream) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    std::shared_ptr<rt::queue> q = rt::queue_of(stream);
    if (!q || rt::executables().count(graphExec) == 0)
        return result(q ? cudaErrorInvalidValue : cudaErrorInvalidResourceHandle);
    if (q->capture) { /* a graph in a graph: not what we do */
        q->capture->valid = false;
        return result(cudaErrorStreamCaptureUnsupported);
    }
    rt::launch(graphExec->nodes, q);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (rt::graphs().erase(graph) == 0)
        return result(cudaErrorInvalidValue);
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graphExec) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (rt::executables().erase(graphExec) == 0)
        return result(cudaErrorInvalidValue);
    delete graphExec;
    return cudaSuccess;
}
