/* NCCL: operations, groups of them, and how they go on. */
#include "tests/emu/runtime/nccl_comm.h"

#include "tests/emu/simt/device_memory.h"
#include "tests/emu/simt/fault.h"

#include <cstdio>
#include <cstring>

namespace nc {

const char *name_of(what kind) {
    static const char *const names[] = {"ncclAllReduce", "ncclReduceScatter", "ncclAllGather", "ncclBroadcast", "ncclSend/ncclRecv"};
    return names[(int)kind];
}

/* ---- What each kind sends and receives, and what it does at the end. */

struct shape {
    size_t bytes, from, to; /* of a part; what must lie behind the pointers */
};

static shape shape_of(const ncclComm &comm, const request &r) {
    size_t part = r.count * size_of(r.type), all = part * (size_t)comm.size;
    switch (r.kind) {
    case what::all_reduce: return {part, part, part};
    case what::reduce_scatter: return {part, all, part};
    case what::all_gather: return {part, part, all};
    case what::broadcast: return {part, comm.rank == r.peer ? part : 0, part};
    case what::send_recv: return {part, r.sends ? part : 0, r.sends ? 0 : part};
    }
    return {};
}

static bool reduces(what kind) { return kind == what::all_reduce || kind == what::reduce_scatter; }

static char *part_of(const void *base, size_t bytes, int rank) {
    return static_cast<char *>(const_cast<void *>(base)) + bytes * (size_t)rank;
}

/* To and from one other rank. */
static void plan_peer(const ncclComm &comm, operation &o, size_t bytes, int peer) {
    const request &r = o.asked;
    auto send = [&](char *data) { o.transfers.push_back({peer, true, data, bytes, (uint32_t)r.kind}); };
    auto receive = [&](char *data) { o.transfers.push_back({peer, false, data, bytes, (uint32_t)r.kind}); };
    switch (r.kind) {
    case what::all_reduce:
    case what::reduce_scatter:
        o.parts[(size_t)peer].resize(bytes);
        send(part_of(r.from, r.kind == what::reduce_scatter ? bytes : 0, peer));
        receive(o.parts[(size_t)peer].data());
        break;
    case what::all_gather:
        send(part_of(r.from, 0, 0));
        receive(part_of(r.to, bytes, peer));
        break;
    case what::broadcast:
        if (comm.rank == r.peer)
            send(part_of(r.from, 0, 0));
        else if (peer == r.peer)
            receive(part_of(r.to, 0, 0));
        break;
    case what::send_recv:
        if (peer == r.peer && r.sends)
            send(part_of(r.from, 0, 0));
        else if (peer == r.peer)
            receive(part_of(r.to, 0, 0));
        break;
    }
}

static void begin(const ncclComm &comm, operation &o) {
    size_t bytes = shape_of(comm, o.asked).bytes;
    const request &r = o.asked;
    o.begun = true;
    o.parts.resize((size_t)comm.size);
    if (reduces(r.kind)) {
        const char *mine = part_of(r.from, r.kind == what::reduce_scatter ? bytes : 0, comm.rank);
        o.parts[(size_t)comm.rank].assign(mine, mine + bytes);
    } else if (r.kind == what::all_gather) {
        memmove(part_of(r.to, bytes, comm.rank), r.from, bytes);
    } else if (r.kind == what::broadcast && comm.rank == r.peer) {
        memmove(r.to, r.from, bytes);
    }
    for (int i = 1; i < comm.size; i++)
        plan_peer(comm, o, bytes, (comm.rank + i) % comm.size);
}

static void finish(const ncclComm &comm, operation &o) {
    const request &r = o.asked;
    o.finished = true;
    if (reduces(r.kind)) {
        std::vector<char> &sum = o.parts[0];
        for (size_t rank = 1; rank < (size_t)comm.size; rank++)
            reduce(sum.data(), o.parts[rank].data(), r.count, r.type, r.op);
        if (r.op == ncclAvg)
            divide(sum.data(), r.count, r.type, comm.size);
        memcpy(r.to, sum.data(), sum.size());
    }
    if (size_t bytes = shape_of(comm, r).to; bytes > 0)
        emu_memory_written(r.to, bytes);
    o.parts.clear();
}

/* ---- How batches go on. */

static bool in_reach(const ncclComm &comm, const request &r) {
    shape s = shape_of(comm, r);
    bool from = s.from == 0 || rt::in_device(r.from, s.from), to = s.to == 0 || rt::in_device(r.to, s.to);
    if (!from || !to)
        emu_fault(cudaErrorIllegalAddress, "%s: %zu bytes at %p do not lie in one allocation of the device", name_of(r.kind),
                  from ? s.to : s.from, from ? r.to : r.from);
    return from && to;
}

static void tell_mismatch(ncclComm &comm, const transfer &t, const announcement &theirs) {
    comm.state =
        fail(ncclInvalidUsage, "rank %d is in %s of %zu bytes, rank %d in %s of %zu", comm.rank, name_of((what)t.what), t.bytes, t.peer,
             theirs.what <= (uint32_t)what::send_recv ? name_of((what)theirs.what) : "something else", (size_t)theirs.bytes);
    fprintf(stderr, "emu: NCCL: %s\n", ncclGetLastError(&comm));
}

/* The first unfinished transfer to and from each rank moves; the others wait for their turn. */
static bool move_all(ncclComm &comm, std::vector<operation> &stage) {
    bool busy[2][max_ranks] = {}, progress = false;
    for (operation &o : stage)
        for (transfer &t : o.transfers) {
            if (t.finished() || busy[t.sends][t.peer])
                continue;
            announcement theirs = {};
            outcome out = move(*comm.shared, comm.rank, t, &theirs);
            if (out == outcome::mismatch)
                tell_mismatch(comm, t, theirs);
            progress = progress || out == outcome::moved;
            busy[t.sends][t.peer] = !t.finished();
        }
    for (int peer = 0; peer < comm.size; peer++)
        comm.shared->all().wanted[comm.rank][peer] = busy[0][peer] || busy[1][peer];
    return progress;
}

/* Sends of a rank to itself reach its receives in the order of both. */
static void exchange_with_self(const ncclComm &comm, std::vector<operation> &stage) {
    std::vector<operation *> sends, receives;
    for (operation &o : stage)
        if (o.asked.kind == what::send_recv && o.asked.peer == comm.rank)
            (o.asked.sends ? sends : receives).push_back(&o);
    for (size_t i = 0; i < sends.size() && i < receives.size(); i++)
        memmove(receives[i]->asked.to, sends[i]->asked.from, shape_of(comm, receives[i]->asked).bytes);
}

static bool begin_stage(ncclComm &comm, std::vector<operation> &stage) {
    if (stage.empty() || stage[0].begun)
        return true;
    for (operation &o : stage)
        if (!in_reach(comm, o.asked))
            return false;
    for (operation &o : stage)
        begin(comm, o);
    exchange_with_self(comm, stage);
    return true;
}

static bool advance_stage(ncclComm &comm, std::vector<operation> &stage) {
    if (!begin_stage(comm, stage))
        return true; /* the device has failed */
    while (comm.shared && comm.state == ncclSuccess && move_all(comm, stage))
        ;
    for (operation &o : stage)
        for (const transfer &t : o.transfers)
            if (!t.finished())
                return false;
    for (operation &o : stage)
        finish(comm, o);
    return true;
}

bool advance(batch &b) {
    if (!is_live(b.comm))
        return true;
    ncclComm &comm = *b.comm;
    if (b.number != comm.done || fails("hang", comm.rank, b.number))
        return false;
    if (fails("async", comm.rank, b.number)) {
        comm.state = fail(ncclRemoteError, "operation %llu fails, as EMU_NCCL_FAIL says", (unsigned long long)b.number);
        return false;
    }
    while (!b.stages.empty()) {
        if (!advance_stage(comm, b.stages.front()))
            return false;
        b.stages.erase(b.stages.begin());
    }
    comm.done++;
    return true;
}

/* ---- Calls and groups. */

static thread_local int depth;
static thread_local std::vector<std::shared_ptr<batch>> group;

void launch_pending(ncclComm_t comm) {
    for (const auto &b : comm->pending) {
        const char *name = b->stages.size() == 1 ? name_of(b->stages[0][0].asked.kind) : "a group of NCCL";
        b->number = comm->put++;
        if (auto on = rt::queue_of(b->stream))
            rt::put(on, name, [b] { return advance(*b); });
    }
    comm->pending.clear();
}

/* The group becomes one item a communicator and stream. A communicator that does not block puts it on the stream when it is asked after. */
static ncclResult_t launch_group() {
    ncclResult_t result = ncclSuccess;
    std::vector<ncclComm_t> comms;
    for (const auto &b : group) {
        b->comm->pending.push_back(b);
        if (comms.empty() || comms.back() != b->comm)
            comms.push_back(b->comm);
    }
    group.clear();
    for (ncclComm_t comm : comms) {
        if (comm->blocking) {
            launch_pending(comm);
            continue;
        }
        comm->state = result = ncclInProgress;
        comm->polls_left = 1;
    }
    return result;
}

static void add_to_group(ncclComm_t comm, cudaStream_t stream, const request &r) {
    std::shared_ptr<batch> into;
    for (const auto &b : group)
        if (b->comm == comm && b->stream == stream)
            into = b;
    if (!into) {
        into = std::make_shared<batch>();
        into->comm = comm;
        into->stream = stream;
        group.push_back(into);
    }
    auto &stages = into->stages;
    bool beside = r.kind == what::send_recv && !stages.empty() && stages.back()[0].asked.kind == what::send_recv;
    if (!beside)
        stages.emplace_back();
    stages.back().emplace_back();
    stages.back().back().asked = r;
}

static ncclResult_t check(ncclComm_t comm, cudaStream_t stream, const request &r) {
    if (ncclResult_t error = check_ready(comm); error != ncclSuccess)
        return error;
    shape s = shape_of(*comm, r);
    if (size_of(r.type) == 0 || (reduces(r.kind) && (!can_reduce(r.type) || r.op < ncclSum || r.op >= ncclNumOps)))
        return fail(ncclInvalidArgument, "%s: type %d, operation %d", name_of(r.kind), (int)r.type, (int)r.op);
    if (r.peer < 0 || r.peer >= comm->size || (s.from > 0 && !r.from) || (s.to > 0 && !r.to))
        return fail(ncclInvalidArgument, "%s: rank %d of %d, buffers %p and %p", name_of(r.kind), r.peer, comm->size, r.from, r.to);
    if (rt::setting("EMU_NCCL_REGISTERED", 0) && !(is_registered(*comm, r.from, s.from) && is_registered(*comm, r.to, s.to)))
        return fail(ncclInvalidUsage, "%s: memory that is not registered (EMU_NCCL_REGISTERED)", name_of(r.kind));
    auto on = rt::queue_of(stream);
    if (!on)
        return fail(ncclInvalidArgument, "%s: no such stream", name_of(r.kind));
    if (on->capture) {
        on->capture->valid = false;
        return fail(ncclInvalidUsage, "%s in a capture is not emulated", name_of(r.kind));
    }
    if (emu_sticky_error() != cudaSuccess)
        return fail(ncclUnhandledCudaError, "Cuda failure '%s'", cudaGetErrorString(emu_sticky_error()));
    return ncclSuccess;
}

static ncclResult_t submit(ncclComm_t comm, cudaStream_t stream, const request &r) {
    rt::call call(false);
    if (ncclResult_t error = check(comm, stream, r); error != ncclSuccess)
        return error;
    add_to_group(comm, stream, r);
    return depth > 0 ? ncclSuccess : launch_group();
}

} // namespace nc

using nc::what;

ncclResult_t ncclAllReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream) {
    return nc::submit(comm, stream, {what::all_reduce, sendbuff, recvbuff, count, datatype, op, 0, false});
}

ncclResult_t ncclReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount, ncclDataType_t datatype, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
    return nc::submit(comm, stream, {what::reduce_scatter, sendbuff, recvbuff, recvcount, datatype, op, 0, false});
}

ncclResult_t ncclAllGather(const void *sendbuff, void *recvbuff, size_t sendcount, ncclDataType_t datatype, ncclComm_t comm,
                           cudaStream_t stream) {
    return nc::submit(comm, stream, {what::all_gather, sendbuff, recvbuff, sendcount, datatype, ncclSum, 0, false});
}

ncclResult_t ncclBroadcast(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
                           cudaStream_t stream) {
    return nc::submit(comm, stream, {what::broadcast, sendbuff, recvbuff, count, datatype, ncclSum, root, false});
}

ncclResult_t ncclSend(const void *sendbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream) {
    return nc::submit(comm, stream, {what::send_recv, sendbuff, nullptr, count, datatype, ncclSum, peer, true});
}

ncclResult_t ncclRecv(void *recvbuff, size_t count, ncclDataType_t datatype, int peer, ncclComm_t comm, cudaStream_t stream) {
    return nc::submit(comm, stream, {what::send_recv, nullptr, recvbuff, count, datatype, ncclSum, peer, false});
}

ncclResult_t ncclGroupStart(void) {
    nc::depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    rt::call call(false);
    if (nc::depth == 0)
        return nc::fail(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    return --nc::depth == 0 ? nc::launch_group() : ncclSuccess;
}
