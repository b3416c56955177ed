/* The block that runs, for the parts of the emulator: its threads, who of them can go on, and what each waits for. */
#ifndef ESPL_TESTS_EMU_SIMT_BLOCK_H
#define ESPL_TESTS_EMU_SIMT_BLOCK_H

#include "tests/emu/simt/fiber.h"
#include "tests/emu/simt/machine.h"

#include <vector>

namespace simt {

struct copy16 {
    void *to;
    const void *from;
    bool valid;
};

/* Copies that a thread has started: group g ends before copies[ends[g]]; what lies behind the last end is not closed yet. */
struct copy_queue {
    std::vector<copy16> copies;
    std::vector<size_t> ends;
    size_t groups_done, copies_done;
};

struct strand : thread {
    fiber context;
    bool left; /* the kernel */
    meeting waits_for;
    place waits_at;
    uint32_t waits_mask;
    copy_queue asynchronous;
};

/* Lanes of a mask on their way to meet; free when none has arrived. */
struct gathering {
    uint32_t mask, arrived;
    meeting kind;
    place at;
    void *argument[warp_size];
};

struct warp_state {
    gathering gatherings[warp_size]; /* every one under way has a lane of its own that waits */
    uint32_t live;                   /* lanes still in the kernel */
};

struct barrier_state {
    int arrived, yes;
    votes result;
    place at;
    std::vector<strand *> waiting;
};

/* Threads that can go on, in the order in which they became so. */
struct ready_queue {
    strand *list[max_threads];
    int first, n;
};

struct block_state {
    strand *strands; /* [max_threads] */
    int n, n_live;
    bool abandoned;
    warp_state warps[max_warps];
    barrier_state barrier;
    ready_queue ready;
    fiber host;
};

extern block_state running;

inline strand &self() { return *static_cast<strand *>(now.thread); }
const char *kernel_name();
const char *meeting_name(meeting kind);

/* Runs the block now.block to its end. */
void run_block(void (*body)(void *arguments), void *arguments);

/* The thread can go on when its turn comes. */
void make_ready(strand *thread);
/* Lets others run until someone makes this thread ready. Deadlock is a fault. */
void wait_for_turn(meeting kind, place at, uint32_t mask);
/* Ends the kernel after a fault that leaves its threads in no sensible state. */
[[noreturn]] void abandon();
/* The thread has left the kernel: barriers no longer wait for it. */
void barrier_without_me();

} // namespace simt

#endif
