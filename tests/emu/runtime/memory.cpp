/* Memory of the emulated device, pinned memory, copies. */
#include "tests/emu/runtime/emu_engine.h"

#include "tests/emu/simt/device_memory.h"
#include "tests/emu/simt/fault.h"

#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace rt {

namespace {

enum class kind { device, pinned, registered };

struct block {
    size_t bytes, mapped; /* mapped: 0 when it came from malloc */
    kind what;
};

constexpr size_t alignment = 256;
constexpr long long default_memory = 8LL << 30;

std::map<uintptr_t, block> &blocks() {
    static auto *one = new std::map<uintptr_t, block>;
    return *one;
}

size_t used;
bool memory_open;
struct sigaction before_us;

const block *block_of(const void *p, size_t bytes) {
    auto address = (uintptr_t)p;
    auto after = blocks().upper_bound(address);
    if (after == blocks().begin())
        return nullptr;
    auto found = std::prev(after);
    return address + bytes <= found->first + found->second.bytes ? &found->second : nullptr;
}

/* Runs in a signal handler: what it does must be allowed there. */
void on_fault(int, siginfo_t *info, void *) {
    static const char message[] = "the host touched device memory: only kernels and copies may (EMU_PROTECT)\n";
    if (block_of(info->si_addr, 1) && write(STDERR_FILENO, message, sizeof message - 1) < 0)
        _exit(EXIT_FAILURE);
    sigaction(SIGSEGV, &before_us, nullptr); /* it comes again, to whoever had it before */
}

bool protecting() {
    static const bool wanted = [] {
        bool set = setting("EMU_PROTECT", 0) != 0;
        if (set) {
            struct sigaction ours = {};
            ours.sa_sigaction = on_fault;
            ours.sa_flags = SA_SIGINFO;
            sigaction(SIGSEGV, &ours, &before_us);
        }
        return set;
    }();
    return wanted;
}

void protect(int how) {
    for (const auto &[address, b] : blocks())
        if (b.what == kind::device && b.mapped)
            mprotect((void *)address, b.mapped, how);
}

void *take(size_t bytes, size_t *mapped) {
    void *p = nullptr;
    *mapped = 0;
    if (!protecting())
        return posix_memalign(&p, alignment, bytes) == 0 ? p : nullptr;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *mapped = (bytes + page - 1) / page * page;
    p = mmap(nullptr, *mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? nullptr : p;
}

cudaError_t allocate(void **p, size_t bytes) {
    *p = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    if (bytes > memory_total() - used)
        return cudaErrorMemoryAllocation;
    block b = {bytes, 0, kind::device};
    void *memory = take(bytes, &b.mapped);
    if (!memory)
        return cudaErrorMemoryAllocation;
    memset(memory, 0xff, bytes);
    emu_memory_begins(memory, bytes, b.mapped ? b.mapped : bytes);
    if (b.mapped && !memory_open)
        mprotect(memory, b.mapped, PROT_NONE);
    blocks()[(uintptr_t)memory] = b;
    used += bytes;
    *p = memory;
    return cudaSuccess;
}

cudaError_t release(void *p, kind what) {
    if (!p)
        return cudaSuccess;
    auto found = blocks().find((uintptr_t)p);
    if (found == blocks().end() || found->second.what != what)
        return cudaErrorInvalidValue;
    block b = found->second;
    if (is_held && is_held(p, b.bytes))
        emu_fault(cudaErrorIllegalAddress, "%zu bytes at %p are freed, but NCCL still has memory in them registered", b.bytes, p);
    blocks().erase(found);
    if (what == kind::device) {
        used -= b.bytes;
        emu_memory_ends(p, b.mapped ? b.mapped : b.bytes);
    }
    if (what == kind::registered)
        return cudaSuccess;
    if (b.mapped)
        munmap(p, b.mapped);
    else
        free(p);
    return cudaSuccess;
}

/* Whether the addresses are what `how` says they are; real copies between wrong sides fail in the same way. */
bool sides_fit(const void *to, const void *from, size_t bytes, cudaMemcpyKind how) {
    bool device_to = in_device(to, bytes), device_from = in_device(from, bytes);
    switch (how) {
    case cudaMemcpyHostToHost: return !device_to && !device_from;
    case cudaMemcpyHostToDevice: return device_to && !device_from;
    case cudaMemcpyDeviceToHost: return !device_to && device_from;
    case cudaMemcpyDeviceToDevice: return device_to && device_from;
    case cudaMemcpyDefault: return true;
    }
    return false;
}

void written(void *to, size_t bytes) {
    if (in_device(to, bytes))
        emu_memory_written(to, bytes);
}

bool in_registered(const void *p, size_t bytes) {
    const block *b = block_of(p, bytes);
    return b && b->what == kind::registered;
}

attempt copying(void *to, const void *from, size_t bytes) {
    return [=] {
        memmove(to, from, bytes);
        written(to, bytes);
        return true;
    };
}

/* From memory that is not pinned the driver takes a copy before it returns. */
attempt copying_now(void *to, const void *from, size_t bytes) {
    auto *first = static_cast<const char *>(from);
    auto taken = std::make_shared<std::vector<char>>(first, first + bytes);
    return [=] {
        memcpy(to, taken->data(), bytes);
        written(to, bytes);
        return true;
    };
}

cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind how, cudaStream_t stream) {
    std::shared_ptr<queue> on = queue_of(stream);
    if (!on)
        return cudaErrorInvalidResourceHandle;
    if (bytes == 0)
        return cudaSuccess;
    if (!to || !from || !sides_fit(to, from, bytes, how))
        return cudaErrorInvalidValue;
    bool pageable_from = !in_device(from, bytes) && !in_pinned(from, bytes), pageable_to = !in_device(to, bytes) && !in_pinned(to, bytes);
    attempt work = copying(to, from, bytes);
    if (in_registered(to, bytes))
        work = [on, work] { return !put_off(*on) && work(); };
    if (on->capture || (!pageable_from && !pageable_to))
        return put_or_capture(on, "a copy", work);
    if (pageable_to) { /* then it has been done when the call returns */
        wait(put(on, "a copy to pageable memory", work));
        return emu_sticky_error();
    }
    return put_or_capture(on, "a copy from pageable memory", copying_now(to, from, bytes));
}

cudaError_t fill(void *p, int value, size_t bytes, cudaStream_t stream) {
    std::shared_ptr<queue> on = queue_of(stream);
    if (!on)
        return cudaErrorInvalidResourceHandle;
    if (bytes == 0)
        return cudaSuccess;
    if (!in_device(p, bytes))
        return cudaErrorInvalidValue;
    return put_or_capture(on, "a memset", [=] {
        memset(p, value, bytes);
        written(p, bytes);
        return true;
    });
}

} // namespace

bool (*is_held)(const void *p, size_t bytes);

size_t memory_total() { return (size_t)setting("EMU_MEMORY", default_memory); }

bool in_device(const void *p, size_t bytes) {
    const block *b = block_of(p, bytes);
    return b && b->what == kind::device;
}

bool in_pinned(const void *p, size_t bytes) {
    const block *b = block_of(p, bytes);
    return b && b->what != kind::device;
}

void open_memory() {
    if (memory_open || !protecting())
        return;
    memory_open = true;
    protect(PROT_READ | PROT_WRITE);
}

void close_memory() {
    if (!memory_open)
        return;
    memory_open = false;
    protect(PROT_NONE);
}

} // namespace rt

using rt::result;

cudaError_t cudaMalloc(void **devPtr, size_t size) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess)
        return result(error);
    return result(devPtr ? rt::allocate(devPtr, size) : cudaErrorInvalidValue);
}

cudaError_t cudaFree(void *devPtr) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess)
        return result(error);
    rt::wait_for_all();
    return result(rt::release(devPtr, rt::kind::device));
}

cudaError_t cudaMallocHost(void **ptr, size_t size) { return cudaHostAlloc(ptr, size, cudaHostAllocDefault); }

cudaError_t cudaHostAlloc(void **pHost, size_t size, unsigned int) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess)
        return result(error);
    if (!pHost)
        return result(cudaErrorInvalidValue);
    *pHost = nullptr;
    if ((long long)size > rt::setting("EMU_HOST", LLONG_MAX))
        return result(cudaErrorMemoryAllocation);
    if (size > 0 && posix_memalign(pHost, 4096, size) != 0)
        return result(cudaErrorMemoryAllocation);
    if (size == 0)
        return cudaSuccess;
    memset(*pHost, 0xff, size);
    rt::blocks()[(uintptr_t)*pHost] = {size, 0, rt::kind::pinned};
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *ptr) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess)
        return result(error);
    rt::wait_for_all();
    return result(rt::release(ptr, rt::kind::pinned));
}

cudaError_t cudaHostRegister(void *ptr, size_t size, unsigned int) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (!ptr || size == 0)
        return result(cudaErrorInvalidValue);
    if (rt::block_of(ptr, 1))
        return result(cudaErrorHostMemoryAlreadyRegistered);
    if ((long long)size > rt::setting("EMU_PINNED", LLONG_MAX))
        return result(cudaErrorMemoryAllocation);
    rt::blocks()[(uintptr_t)ptr] = {size, 0, rt::kind::registered};
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *ptr) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    rt::wait_for_all();
    return result(ptr && rt::release(ptr, rt::kind::registered) == cudaSuccess ? cudaSuccess : cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    *total = rt::memory_total();
    *free = *total - rt::used;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t count, cudaMemcpyKind kind, cudaStream_t stream) {
    rt::call call;
    return call.error() != cudaSuccess ? call.error() : result(rt::copy(dst, src, count, kind, stream));
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t count, cudaMemcpyKind kind) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess)
        return result(error);
    cudaError_t error = rt::copy(dst, src, count, kind, nullptr);
    rt::wait(rt::end_of(rt::null_queue()));
    return result(error != cudaSuccess ? error : emu_sticky_error());
}

cudaError_t cudaMemsetAsync(void *devPtr, int value, size_t count, cudaStream_t stream) {
    rt::call call;
    return call.error() != cudaSuccess ? call.error() : result(rt::fill(devPtr, value, count, stream));
}

cudaError_t cudaMemset(void *devPtr, int value, size_t count) {
    rt::call call;
    if (call.error() != cudaSuccess)
        return call.error();
    if (cudaError_t error = rt::forbidden_in_capture(); error != cudaSuccess)
        return result(error);
    return result(rt::fill(devPtr, value, count, nullptr)); /* it may return before it is done */
}
