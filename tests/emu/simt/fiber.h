/* Fibers: stacks that are switched by hand, in a few instructions on x86-64, with ucontext elsewhere. A sanitizer that knows stacks is
 * told. */
#ifndef ESPL_TESTS_EMU_SIMT_FIBER_H
#define ESPL_TESTS_EMU_SIMT_FIBER_H

#include <stddef.h>

#if !defined(__x86_64__) || defined(EMU_UCONTEXT)
#include <ucontext.h>
#endif

namespace simt {

struct fiber {
    char *stack; /* lowest byte */
    size_t stack_bytes;
    void *fake_stack; /* of ASan, while the fiber rests */
#if !defined(__x86_64__) || defined(EMU_UCONTEXT)
    ucontext_t saved;
#else
    void *saved; /* stack pointer */
#endif
};

/* Maps the stacks of n fibers, each with a guard page below; one range of memory, never freed. */
void fiber_stacks(fiber *const *fibers, int n);
/* The fiber that the caller is, for coming back to. */
void fiber_of_caller(fiber *self);
/* The fiber begins in entry(), which never returns, when it is switched to. */
void fiber_prepare(fiber *self, void (*entry)());
/* What entry() calls first. */
void fiber_begun();
void fiber_switch(fiber *from, fiber *to);
/* `from` is over: nothing switches to it before it is prepared anew. */
[[noreturn]] void fiber_leave(fiber *from, fiber *to);
/* The fiber rests and will not be switched to before it is prepared anew. */
void fiber_drop(fiber *self);
/* Whether an address lies in a stack of fiber_stacks. */
bool fiber_owns(const void *memory);

} // namespace simt

#endif
