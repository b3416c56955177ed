#include "tests/emu/simt/fiber.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

constexpr size_t stack_bytes = 256 * 1024, guard_bytes = 4096;
/* Stacks begin at different cache sets: all threads run the same code, so the same depth of all stacks is in use at once. */
constexpr size_t colours = 32, colour_bytes = 5 * 64;

static char *all_stacks;
static size_t all_stacks_bytes;

void fiber_stacks(fiber *const *fibers, int n) {
    size_t stride = stack_bytes + guard_bytes;
    all_stacks_bytes = stride * (size_t)n;
    void *memory = mmap(nullptr, all_stacks_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("emu: no memory for the stacks of threads");
        abort();
    }
    all_stacks = static_cast<char *>(memory);
    for (int i = 0; i < n; i++) {
        char *guard = all_stacks + (size_t)i * stride;
        mprotect(guard, guard_bytes, PROT_NONE);
        fibers[i]->stack = guard + guard_bytes;
        fibers[i]->stack_bytes = stack_bytes - (size_t)i % colours * colour_bytes;
    }
}

bool fiber_owns(const void *memory) { return (uintptr_t)memory - (uintptr_t)all_stacks < all_stacks_bytes; }

void fiber_of_caller(fiber *self) {
#ifdef __SANITIZE_ADDRESS__
    static thread_local void *stack;
    static thread_local size_t bytes;
    if (!stack) {
        pthread_attr_t attributes;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &stack, &bytes);
        pthread_attr_destroy(&attributes);
    }
    self->stack = static_cast<char *>(stack);
    self->stack_bytes = bytes;
#else
    (void)self;
#endif
}

void fiber_drop(fiber *self) {
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(self->stack, self->stack_bytes);
#else
    (void)self;
#endif
}

static void announce_switch(fiber *from, const fiber *to) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(from ? &from->fake_stack : nullptr, to->stack, to->stack_bytes);
#else
    (void)from, (void)to;
#endif
}

static void announce_arrival(fiber *self) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(self ? self->fake_stack : nullptr, nullptr, nullptr);
#else
    (void)self;
#endif
}

#if !defined(__x86_64__) || defined(EMU_UCONTEXT)
static void swap_stacks(fiber *from, fiber *to) { swapcontext(&from->saved, &to->saved); }

void fiber_prepare(fiber *self, void (*entry)()) {
    getcontext(&self->saved);
    self->saved.uc_stack.ss_sp = self->stack;
    self->saved.uc_stack.ss_size = self->stack_bytes;
    self->saved.uc_link = nullptr;
    makecontext(&self->saved, entry, 0);
}
#else
/* Saves what a called function must keep, on the stack that is left, and takes the same from the other. */
extern "C" void emu_swap_stacks(void **from, void *const *to);
asm(R"(
.text
.hidden emu_swap_stacks
.globl emu_swap_stacks
.type emu_swap_stacks, @function
emu_swap_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_swap_stacks, . - emu_swap_stacks
)");

static void swap_stacks(fiber *from, fiber *to) { emu_swap_stacks(&from->saved, &to->saved); }

void fiber_prepare(fiber *self, void (*entry)()) {
    constexpr int saved_registers = 6;
    uintptr_t top = ((uintptr_t)self->stack + self->stack_bytes) & ~(uintptr_t)63;
    void **frame = reinterpret_cast<void **>(top - 64);
    *--frame = nullptr; /* where entry would return to: so that its stack is aligned as after a call */
    *--frame = reinterpret_cast<void *>(entry);
    for (int i = 0; i < saved_registers; i++)
        *--frame = nullptr;
    self->saved = frame;
}
#endif

void fiber_begun() { announce_arrival(nullptr); }

void fiber_switch(fiber *from, fiber *to) {
    announce_switch(from, to);
    swap_stacks(from, to);
    announce_arrival(from);
}

void fiber_leave(fiber *from, fiber *to) {
    announce_switch(nullptr, to);
    swap_stacks(from, to);
    abort();
}

} // namespace simt
