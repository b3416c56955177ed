/* Inside the emulated NCCL: communicators and operations. Everything here runs under the lock of the runtime (emu_engine.h). */
#ifndef ESPL_TESTS_EMU_RUNTIME_NCCL_COMM_H
#define ESPL_TESTS_EMU_RUNTIME_NCCL_COMM_H

#include "tests/emu/runtime/emu_engine.h"
#include "tests/emu/runtime/nccl_segment.h"

#include <nccl.h>

namespace nc {

enum class what : uint32_t { all_reduce, reduce_scatter, all_gather, broadcast, send_recv };
const char *name_of(what kind);

/* A call of NCCL, as it was made. */
struct request {
    what kind;
    const void *from;
    void *to;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    int peer; /* or root */
    bool sends;
};

/* Memory that was registered. */
struct range {
    const char *begin;
    size_t bytes;
};

/* A request under way. */
struct operation {
    request asked;
    std::vector<transfer> transfers;
    std::vector<std::vector<char>> parts; /* what other ranks sent to be reduced, by rank */
    bool begun = false, finished = false;
};

/* What becomes one item of a stream: operations that go on side by side, after those of the stage before. */
struct batch {
    ncclComm_t comm;
    cudaStream_t stream;
    std::vector<std::vector<operation>> stages;
    uint64_t number = 0; /* of the communicator's batches; they run in this order on whatever streams */
};

size_t size_of(ncclDataType_t type);
bool can_reduce(ncclDataType_t type);
/* to = op(to, from), element by element. */
void reduce(void *to, const void *from, size_t count, ncclDataType_t type, ncclRedOp_t op);
void divide(void *to, size_t count, ncclDataType_t type, int by);

/* Goes on with a batch; true when it is done. */
bool advance(batch &b);

/* Text for ncclGetLastError; returns `error`. */
ncclResult_t fail(ncclResult_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* EMU_NCCL_FAIL=kind:rank[:number] is meant for this rank, and this operation when it names one. */
bool fails(const char *kind, int rank, uint64_t number);

bool is_live(ncclComm_t comm);
/* Whether all of the memory is registered with the communicator. */
bool is_registered(const ncclComm &comm, const void *p, size_t bytes);
/* Checks a handle and that nothing of it is in progress. */
ncclResult_t check_ready(ncclComm_t comm);
/* Puts what was launched without blocking on its streams. */
void launch_pending(ncclComm_t comm);
/* Starts the thread that goes on for hosts that are elsewhere. */
void start_helper();
/* Whether another rank needs this one to go on; whether one of our own operations is under way. */
bool wanted_by_others();

} // namespace nc

struct ncclComm {
    std::unique_ptr<nc::segment> shared;
    int rank = 0, size = 1, device = 0;
    bool blocking = true, absent = false, finalizing = false;
    ncclResult_t state = ncclSuccess;
    int polls_left = 0; /* until what is in progress is done */
    std::vector<std::shared_ptr<nc::batch>> pending;
    uint64_t put = 0, done = 0; /* batches */
    std::vector<nc::range> registered;
};

#endif
