/* Launches: what nvcc makes of kernel<<<>>>. */
#ifndef ESPL_TESTS_EMU_SIMT_LAUNCH_H
#define ESPL_TESTS_EMU_SIMT_LAUNCH_H

#include "tests/emu/runtime/stream.h"
#include "tests/emu/simt/machine.h"

#include <tuple>
#include <type_traits>

namespace simt {

/* Of one block, as on sm_80: without asking, and at most. */
constexpr size_t shared_default = 48 * 1024, shared_most = 163 * 1024;

struct launch_shape {
    const char *name;
    const void *kernel;
    dim3 grid, block;
    size_t shared;
};

/* Whether a GPU would take the launch; if not, the error is for cudaGetLastError. */
bool launch_possible(const launch_shape &shape);
/* Runs all threads of all blocks: each calls body(arguments). */
void run(const launch_shape &shape, void (*body)(void *arguments), void *arguments, size_t argument_bytes);
/* Allows the kernel up to `bytes` of dynamic shared memory. */
cudaError_t allow_shared(const void *kernel, size_t bytes);

template <class... P> struct kernel_call {
    void (*kernel)(P...);
    std::tuple<std::decay_t<P>...> arguments;

    static void body(void *self) {
        auto *call = static_cast<kernel_call *>(self);
        std::apply(call->kernel, call->arguments);
    }
};

template <class... P, class... A>
inline void launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A &&...arguments) {
    using call = kernel_call<P...>;
    static_assert(sizeof(call::arguments) <= 4096, "parameters of a kernel have at most 4 KiB");
    launch_shape shape = {name, reinterpret_cast<const void *>(kernel), grid, block, shared};
    if (!launch_possible(shape))
        return;
    call copied = {kernel, std::tuple<std::decay_t<P>...>(static_cast<P>(arguments)...)};
    emu_enqueue(stream, name, [shape, copied]() mutable { run(shape, call::body, &copied, sizeof copied); });
}

} // namespace simt

#define ESPL_SHARED(T, name, dims)                                                                                                         \
    using name##_array = T dims;                                                                                                           \
    static char name##_key;                                                                                                                \
    name##_array &name = *static_cast<name##_array *>(simt::shared_array(&name##_key, sizeof(name##_array), alignof(name##_array), #name))
#define ESPL_SHARED_DYN(T, name) T *name = static_cast<T *>(simt::shared_dynamic())
#define ESPL_LAUNCH(kernel, grid, block, shared, stream, ...) simt::launch(#kernel, kernel, grid, block, shared, stream, __VA_ARGS__)
#define ESPL_ALLOW_SHARED(kernel, bytes) simt::allow_shared(reinterpret_cast<const void *>(kernel), (bytes))

#endif
