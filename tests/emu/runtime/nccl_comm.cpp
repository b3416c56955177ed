/* NCCL: communicators come and go, and say how they are. */
#include "tests/emu/runtime/nccl_comm.h"

#include "tests/emu/simt/fault.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <set>
#include <unistd.h>

namespace nc {

static char last_error[512];

static std::set<ncclComm_t> &communicators() {
    static auto *one = new std::set<ncclComm_t>;
    return *one;
}

ncclResult_t fail(ncclResult_t error, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(last_error, sizeof last_error, format, values);
    va_end(values);
    return error;
}

bool fails(const char *kind, int rank, uint64_t number) {
    const char *text = rt::setting_text("EMU_NCCL_FAIL");
    size_t length = strlen(kind);
    if (!text || strncmp(text, kind, length) != 0 || text[length] != ':')
        return false;
    int its_rank = -1;
    unsigned long long its_number = 0;
    return sscanf(text + length + 1, "%d:%llu", &its_rank, &its_number) >= 1 && its_rank == rank && its_number == number;
}

bool is_live(ncclComm_t comm) { return communicators().count(comm) > 0; }

ncclResult_t check_ready(ncclComm_t comm) {
    if (!is_live(comm))
        return fail(ncclInvalidArgument, "no such communicator");
    if (comm->state == ncclInProgress)
        return fail(ncclInvalidArgument, "the communicator is used before its previous operation has returned ncclSuccess");
    return comm->state;
}

/* How far initialisation, finalisation or a launch has come. */
static ncclResult_t look(ncclComm_t comm) {
    if (comm->state != ncclInProgress || comm->absent)
        return comm->state;
    if (comm->shared && !comm->shared->everyone_joined())
        return ncclInProgress;
    if (comm->finalizing && comm->done < comm->put)
        rt::run_everything();
    if (comm->finalizing && (comm->done < comm->put || (comm->shared && !comm->shared->everyone_finalized())))
        return ncclInProgress;
    if (comm->polls_left-- > 0)
        return ncclInProgress;
    if (comm->shared && !comm->finalizing)
        comm->shared->forget_name();
    comm->state = ncclSuccess;
    launch_pending(comm);
    return ncclSuccess;
}

/* A blocking call: looks until it is over, and lets others in meanwhile. */
static ncclResult_t until_done(ncclComm_t comm) {
    for (;;) {
        {
            rt::call call(false);
            if (!is_live(comm) || look(comm) != ncclInProgress)
                return is_live(comm) ? comm->state : ncclInvalidUsage;
        }
        usleep(100);
    }
}

static ncclResult_t in_progress(ncclComm_t comm) {
    if (!comm->blocking)
        return ncclInProgress;
    return until_done(comm);
}

/* The communicator is there at once; it may be used when all have come. */
static ncclResult_t join(ncclComm_t comm, const ncclUniqueId &id) {
    comm->state = ncclInProgress;
    comm->polls_left = 1;
    if (comm->size > 1)
        comm->shared = segment::open(id.internal, comm->size);
    if (comm->size > 1 && !comm->shared)
        return comm->state = fail(ncclSystemError, "shared memory %s: %s", id.internal, strerror(errno));
    if (fails("init", comm->rank, 0))
        comm->state = fail(ncclSystemError, "initialisation fails, as EMU_NCCL_FAIL says");
    comm->absent = fails("absent", comm->rank, 0);
    if (comm->shared && !comm->absent && comm->state == ncclInProgress) {
        comm->shared->all().joined[comm->rank] = 1;
        start_helper();
    }
    return ncclSuccess;
}

static ncclResult_t make(ncclComm_t *made, int ranks, const ncclUniqueId &id, int rank, bool blocking) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return fail(ncclUnhandledCudaError, "Cuda failure '%s'", cudaGetErrorString(call.error()));
    if (!made || ranks < 1 || ranks > max_ranks || rank < 0 || rank >= ranks || memchr(id.internal, 0, sizeof id.internal) == nullptr)
        return fail(ncclInvalidArgument, "rank %d of %d", rank, ranks);
    auto *comm = new ncclComm;
    comm->rank = rank;
    comm->size = ranks;
    comm->blocking = blocking;
    cudaGetDevice(&comm->device);
    communicators().insert(comm);
    *made = comm;
    return join(comm, id);
}

/* The memory stays: work in streams may still name it, and other ranks may still read what we sent. */
static void bury(ncclComm_t comm) {
    static auto *buried = new std::vector<ncclComm_t>;
    communicators().erase(comm);
    buried->push_back(comm);
    if (comm->shared)
        comm->shared->forget_name();
    comm->pending.clear();
}

bool is_registered(const ncclComm &comm, const void *p, size_t bytes) {
    auto *first = static_cast<const char *>(p);
    for (const range &r : comm.registered)
        if (first >= r.begin && first + bytes <= r.begin + r.bytes)
            return true;
    return bytes == 0;
}

/* Whether a communicator that lives has registered some of the memory. */
static bool holds(const void *p, size_t bytes) {
    auto *first = static_cast<const char *>(p);
    for (ncclComm_t comm : communicators())
        for (const range &r : comm->registered)
            if (r.begin < first + bytes && first < r.begin + r.bytes)
                return true;
    return false;
}

bool wanted_by_others() {
    for (ncclComm_t comm : communicators())
        for (int p = 0; comm->shared && p < comm->size; p++)
            if (p != comm->rank && comm->shared->all().wanted[p][comm->rank])
                return true;
    return false;
}

} // namespace nc

using nc::fail;

ncclResult_t ncclGetVersion(int *version) {
    *version = (int)rt::setting("EMU_NCCL_VERSION", NCCL_VERSION_CODE);
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *uniqueId) {
    static int n;
    if (!uniqueId)
        return fail(ncclInvalidArgument, "ncclGetUniqueId: NULL");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(uniqueId, 0, sizeof *uniqueId);
    snprintf(uniqueId->internal, sizeof uniqueId->internal, "/emulated-nccl-%d-%d-%lld.%09ld", (int)getpid(), n++, (long long)now.tv_sec,
             now.tv_nsec);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error - please report this issue to the NCCL developers",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return result >= 0 && result < ncclNumResults ? texts[result] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t) { return nc::last_error; }

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank) {
    ncclResult_t result = nc::make(comm, nranks, commId, rank, true);
    return result == ncclSuccess ? nc::until_done(*comm) : result;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t *config) {
    if (config && (config->magic != 0xcafebeef || config->size != sizeof *config))
        return fail(ncclInvalidArgument, "the configuration was not initialised by NCCL_CONFIG_INITIALIZER");
    bool blocking = !config || config->blocking == NCCL_CONFIG_UNDEF_INT || config->blocking != 0;
    ncclResult_t result = nc::make(comm, nranks, commId, rank, blocking);
    return result == ncclSuccess ? nc::in_progress(*comm) : result;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *asyncError) {
    rt::call call(false);
    if (!nc::is_live(comm) || !asyncError)
        return fail(ncclInvalidArgument, "ncclCommGetAsyncError");
    *asyncError = nc::look(comm);
    return ncclSuccess;
}

static ncclResult_t begin_finalizing(ncclComm_t comm) {
    rt::call call(false);
    if (ncclResult_t error = nc::check_ready(comm); error != ncclSuccess)
        return error;
    if (comm->finalizing)
        return fail(ncclInvalidUsage, "ncclCommFinalize a second time");
    if (!comm->registered.empty())
        emu_fault(cudaErrorIllegalAddress, "ncclCommFinalize: %zu pieces of memory are still registered", comm->registered.size());
    comm->finalizing = true;
    comm->state = ncclInProgress;
    comm->polls_left = 1;
    if (comm->shared)
        comm->shared->all().finalized[comm->rank] = 1;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    ncclResult_t error = begin_finalizing(comm);
    return error == ncclSuccess ? nc::in_progress(comm) : error;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    {
        rt::call call(false);
        if (!nc::is_live(comm))
            return fail(ncclInvalidArgument, "ncclCommDestroy");
        if (!comm->finalizing && comm->state == ncclSuccess && comm->done < comm->put)
            rt::wait_for_all();
        if (comm->shared)
            comm->shared->all().finalized[comm->rank] = 1;
        nc::bury(comm);
    }
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    rt::call call(false);
    if (!nc::is_live(comm))
        return fail(ncclInvalidArgument, "ncclCommAbort");
    nc::bury(comm); /* operations that find no communicator are over */
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count) {
    rt::call call(false);
    if (!nc::is_live(comm))
        return fail(ncclInvalidArgument, "ncclCommCount");
    *count = comm->size;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
    rt::call call(false);
    if (!nc::is_live(comm))
        return fail(ncclInvalidArgument, "ncclCommUserRank");
    *rank = comm->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device) {
    rt::call call(false);
    if (!nc::is_live(comm))
        return fail(ncclInvalidArgument, "ncclCommCuDevice");
    *device = comm->device;
    return ncclSuccess;
}

ncclResult_t ncclMemAlloc(void **ptr, size_t size) {
    return cudaMalloc(ptr, size) == cudaSuccess ? ncclSuccess : fail(ncclUnhandledCudaError, "out of memory");
}

ncclResult_t ncclMemFree(void *ptr) { return cudaFree(ptr) == cudaSuccess ? ncclSuccess : fail(ncclUnhandledCudaError, "ncclMemFree"); }

ncclResult_t ncclCommRegister(const ncclComm_t comm, void *buff, size_t size, void **handle) {
    rt::call call(false);
    if (ncclResult_t error = nc::check_ready(comm); error != ncclSuccess)
        return error;
    if (!handle || size == 0 || !rt::in_device(buff, size))
        return fail(ncclInvalidArgument, "ncclCommRegister: %zu bytes at %p are not in one allocation of the device", size, buff);
    rt::is_held = nc::holds;
    comm->registered.push_back({static_cast<const char *>(buff), size});
    *handle = buff;
    return ncclSuccess;
}

ncclResult_t ncclCommDeregister(const ncclComm_t comm, void *handle) {
    rt::call call(false);
    if (!nc::is_live(comm))
        return fail(ncclInvalidArgument, "ncclCommDeregister");
    auto found = std::find_if(comm->registered.begin(), comm->registered.end(), [&](const nc::range &r) { return r.begin == handle; });
    if (found == comm->registered.end())
        return fail(ncclInvalidArgument, "ncclCommDeregister: not registered");
    comm->registered.erase(found);
    return ncclSuccess;
}
