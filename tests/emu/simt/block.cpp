#include "tests/emu/simt/block.h"
#include "tests/emu/simt/checker.h"
#include "tests/emu/simt/fault.h"
#include "tests/emu/simt/simt_schedule.h"

#include <algorithm>
#include <map>
#include <stdio.h>
#include <string>

namespace simt {

position now;
counters counted;
block_state running;

static void (*thread_body)(void *arguments);
static void *thread_arguments;

const char *meeting_name(meeting kind) {
    switch (kind) {
    case meeting::none: return "nothing";
    case meeting::sync_warp: return "__syncwarp";
    case meeting::shuffle: return "a shuffle";
    case meeting::vote: return "a vote";
    case meeting::reduce: return "a reduction";
    case meeting::match: return "a match";
    case meeting::mma: return "mma";
    case meeting::ldmatrix: return "ldmatrix";
    case meeting::barrier: return "__syncthreads";
    }
    return "?";
}

void make_ready(strand *thread) {
    ready_queue &ready = running.ready;
    ready.list[(ready.first + ready.n++) % max_threads] = thread;
}

static strand *next_ready() {
    ready_queue &ready = running.ready;
    if (ready.n == 0)
        return nullptr;
    if (schedule().order == order::random) {
        int chosen = (ready.first + (int)(schedule_random() % (unsigned)ready.n)) % max_threads;
        std::swap(ready.list[ready.first], ready.list[chosen]);
    }
    strand *next = ready.list[ready.first];
    ready.first = (ready.first + 1) % max_threads;
    ready.n--;
    return next;
}

static void report_deadlock() {
    std::map<std::string, int> places;
    for (int i = 0; i < running.n; i++) {
        const strand &thread = running.strands[i];
        char text[512] = "have left the kernel";
        if (!thread.left)
            snprintf(text, sizeof text, "wait for %s at %s:%d, mask %08x", meeting_name(thread.waits_for), thread.waits_at.file,
                     thread.waits_at.line, thread.waits_mask);
        places[text]++;
    }
    std::string all;
    for (const auto &[text, n] : places)
        all += "\n    " + std::to_string(n) + " thread(s) " + text;
    emu_fault(cudaErrorLaunchFailure, "deadlock: no thread can go on%s", all.c_str());
}

/* The thread to run next, or the host when the block is over. */
static fiber *next_fiber() {
    strand *next = running.abandoned ? nullptr : next_ready();
    if (next) {
        now.thread = next;
        return &next->context;
    }
    if (running.n_live > 0 && !running.abandoned) {
        report_deadlock();
        running.abandoned = true;
    }
    return &running.host;
}

void wait_for_turn(meeting kind, place at, uint32_t mask) {
    strand &me = self();
    me.waits_for = kind;
    me.waits_at = at;
    me.waits_mask = mask;
    fiber *next = next_fiber();
    if (next == &me.context)
        return;
    counted.switches++;
    fiber_switch(&me.context, next);
}

void abandon() {
    running.abandoned = true;
    fiber_leave(&self().context, &running.host);
}

static void thread_main() {
    fiber_begun();
    thread_body(thread_arguments);
    strand &me = self();
    copy_queue &copies = me.asynchronous;
    if (copies.copies_done < copies.copies.size())
        emu_fault(cudaErrorLaunchFailure, "the thread leaves with %zu asynchronous copies under way",
                  copies.copies.size() - copies.copies_done);
    me.left = true;
    running.n_live--;
    running.warps[me.warp].live &= ~(1u << me.lane);
    barrier_without_me();
    fiber_leave(&me.context, next_fiber());
}

static void make_strands() {
    static strand strands[max_threads];
    running.strands = strands;
    fiber *contexts[max_threads];
    for (int i = 0; i < max_threads; i++)
        contexts[i] = &running.strands[i].context;
    fiber_stacks(contexts, max_threads);
}

static void prepare_strand(unsigned linear) {
    strand &thread = running.strands[linear];
    dim3 block = now.block_dim;
    thread.index = {linear % block.x, linear / block.x % block.y, linear / (block.x * block.y)};
    thread.linear = linear;
    thread.lane = linear % warp_size;
    thread.warp = linear / warp_size;
    thread.left = false;
    thread.asynchronous.copies.clear();
    thread.asynchronous.ends.clear();
    thread.asynchronous.groups_done = thread.asynchronous.copies_done = 0;
    running.warps[thread.warp].live |= 1u << thread.lane;
    fiber_prepare(&thread.context, thread_main);
}

static void prepare_block() {
    if (!running.strands)
        make_strands();
    running.n = running.n_live = (int)(now.block_dim.x * now.block_dim.y * now.block_dim.z);
    running.abandoned = false;
    running.ready.first = running.ready.n = 0;
    running.barrier.arrived = running.barrier.yes = 0;
    running.barrier.waiting.clear();
    for (int w = 0; w * warp_size < running.n; w++) {
        running.warps[w].live = 0;
        for (gathering &g : running.warps[w].gatherings)
            g.arrived = 0;
    }
    for (int i = 0; i < running.n; i++)
        prepare_strand((unsigned)i);
    for (int i = 0; i < running.n; i++)
        make_ready(&running.strands[schedule().order == order::reverse ? running.n - 1 - i : i]);
}

void run_block(void (*body)(void *arguments), void *arguments) {
    thread_body = body;
    thread_arguments = arguments;
    prepare_block();
    check_block_begins();
    counted.blocks++;
    fiber_of_caller(&running.host);
    fiber *first = next_fiber();
    fiber_switch(&running.host, first);
    now.thread = nullptr;
    for (int i = 0; running.abandoned && i < running.n; i++)
        fiber_drop(&running.strands[i].context);
}

} // namespace simt
