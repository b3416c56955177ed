#include "tests/emu/simt/fault.h"
#include "tests/emu/simt/block.h"

#include <stdarg.h>
#include <stdio.h>

static cudaError_t sticky;
static thread_local cudaError_t last; /* of this thread's calls */
static int printed;

enum { MOST_PRINTED = 20 };

void emu_fault(cudaError_t error, const char *format, ...) {
    if (sticky == cudaSuccess)
        sticky = error;
    if (++printed > MOST_PRINTED)
        return;
    const simt::position &now = simt::now;
    char text[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    if (now.thread)
        fprintf(stderr, "emu: %s, block (%u, %u, %u), thread (%u, %u, %u): %s\n", simt::kernel_name(), now.block.x, now.block.y,
                now.block.z, now.thread->index.x, now.thread->index.y, now.thread->index.z, text);
    else
        fprintf(stderr, "emu: %s: %s\n", simt::kernel_name(), text);
    if (printed == MOST_PRINTED)
        fprintf(stderr, "emu: further faults are not printed\n");
}

cudaError_t emu_note_error(cudaError_t error) {
    if (error != cudaSuccess)
        last = error;
    return error;
}

cudaError_t emu_last_error(int forget) {
    cudaError_t error = sticky != cudaSuccess ? sticky : last;
    if (forget)
        last = cudaSuccess;
    return error;
}

cudaError_t emu_sticky_error(void) { return sticky; }

void emu_forget_faults(void) {
    sticky = last = cudaSuccess;
    printed = 0;
}
