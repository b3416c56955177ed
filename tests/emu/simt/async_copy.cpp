/* Asynchronous copies, made as late as they may be, so that whoever reads without a wait reads poison; or at once, so that whoever still
 * reads what is overwritten is found out. */
#include "tests/emu/simt/block.h"
#include "tests/emu/simt/checker.h"
#include "tests/emu/simt/fault.h"
#include "tests/emu/simt/simt_schedule.h"

#include <string.h>

namespace simt {

constexpr size_t copy_bytes = 16;

static bool aligned(const void *memory) { return (uintptr_t)memory % copy_bytes == 0; }

static void make_copy(const copy16 &copy, const void *code) {
    check_access(copy.to, copy_bytes, access::write, code);
    if (copy.valid) {
        check_access(copy.from, copy_bytes, access::read, code);
        memcpy(copy.to, copy.from, copy_bytes);
    } else
        memset(copy.to, 0, copy_bytes);
}

void async_copy(void *to, const void *from, bool valid, place at) {
    if (!aligned(to) || !aligned(from)) {
        emu_fault(cudaErrorMisalignedAddress, "cp.async at %s:%d: addresses %p and %p are not both multiples of 16", at.file, at.line, to,
                  from);
        return;
    }
    if (!is_shared(to, copy_bytes)) {
        emu_fault(cudaErrorIllegalAddress, "cp.async at %s:%d: the destination is not in shared memory", at.file, at.line);
        return;
    }
    copy16 copy = {to, from, valid};
    check_access(to, copy_bytes, access::write, EMU_CALLER);
    check_undefined(to, copy_bytes);
    if (schedule().copies_early)
        make_copy(copy, EMU_CALLER);
    else
        self().asynchronous.copies.push_back(copy);
}

void async_commit() {
    copy_queue &queue = self().asynchronous;
    queue.ends.push_back(queue.copies.size());
}

void async_wait(int groups_left) {
    copy_queue &queue = self().asynchronous;
    while (queue.ends.size() - queue.groups_done > (size_t)groups_left) {
        for (size_t end = queue.ends[queue.groups_done++]; queue.copies_done < end; queue.copies_done++)
            make_copy(queue.copies[queue.copies_done], EMU_CALLER);
    }
    if (queue.groups_done == queue.ends.size() && queue.copies_done == queue.copies.size()) {
        queue.copies.clear();
        queue.ends.clear();
        queue.groups_done = queue.copies_done = 0;
    }
}

} // namespace simt
