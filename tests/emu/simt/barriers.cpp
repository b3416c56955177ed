/* Where threads meet: lanes of a warp, and the block. */
#include "tests/emu/simt/block.h"
#include "tests/emu/simt/checker.h"
#include "tests/emu/simt/fault.h"
#include "tests/emu/simt/simt_schedule.h"

#include <algorithm>
#include <string.h>

namespace simt {

static uint32_t existing_lanes(unsigned warp) {
    int lanes = running.n - (int)warp * warp_size;
    return lanes >= warp_size ? full_mask : (1u << lanes) - 1;
}

/* The mask without lanes that the block does not have, which a GPU ignores as well. */
static uint32_t checked_mask(uint32_t mask, meeting kind, place at) {
    const strand &me = self();
    if (!(mask >> me.lane & 1)) {
        emu_fault(cudaErrorLaunchFailure, "%s at %s:%d: lane %u is not in its own mask %08x", meeting_name(kind), at.file, at.line, me.lane,
                  mask);
        abandon();
    }
    mask &= existing_lanes(me.warp);
    uint32_t live = running.warps[me.warp].live;
    if (mask & ~live) {
        emu_fault(cudaErrorLaunchFailure, "%s at %s:%d: mask %08x names lanes that have left the kernel: %08x", meeting_name(kind), at.file,
                  at.line, mask, mask & ~live);
        abandon();
    }
    if (mask != full_mask && (kind == meeting::mma || kind == meeting::ldmatrix)) {
        emu_fault(cudaErrorLaunchFailure, "%s at %s:%d needs a whole warp, not the lanes %08x", meeting_name(kind), at.file, at.line, mask);
        abandon();
    }
    return mask;
}

/* Mostly the very same text: only a place in a header has one in each object. */
static bool same_place(place a, place b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

/* The gathering of these lanes, or a new one. Lanes of other masks may be on their way at the same time. */
static gathering &gathering_of(warp_state &warp, uint32_t mask, meeting kind, place at) {
    gathering *unused = nullptr;
    for (gathering &group : warp.gatherings) {
        if (group.arrived && group.mask == mask)
            return group;
        if (!group.arrived && !unused)
            unused = &group;
    }
    unused->mask = mask;
    unused->kind = kind;
    unused->at = at;
    return *unused;
}

static void check_same(const gathering &group, meeting kind, place at) {
    if (group.kind == kind && (same_place(group.at, at) || kind == meeting::sync_warp))
        return;
    emu_fault(cudaErrorLaunchFailure, "lanes of a warp part: of the mask %08x, some are in %s at %s:%d and some in %s at %s:%d", group.mask,
              meeting_name(kind), at.file, at.line, meeting_name(group.kind), group.at.file, group.at.line);
    abandon();
}

static void release_lanes(unsigned warp, uint32_t lanes) {
    bool reverse = schedule().order == order::reverse;
    for (int i = 0; i < warp_size; i++) {
        int lane = reverse ? warp_size - 1 - i : i;
        if (lanes >> lane & 1)
            make_ready(&running.strands[(int)warp * warp_size + lane]);
    }
}

void meet(uint32_t mask, meeting kind, void *argument, warp_work work, place at) {
    counted.meetings++;
    strand &me = self();
    mask = checked_mask(mask, kind, at);
    warp_state &warp = running.warps[me.warp];
    gathering &group = gathering_of(warp, mask, kind, at);
    check_same(group, kind, at);
    group.argument[me.lane] = argument;
    group.arrived |= 1u << me.lane;
    if (group.arrived != group.mask) {
        wait_for_turn(kind, at, mask);
        return;
    }
    group.arrived = 0;
    work(group.argument, group.mask);
    if (kind == meeting::sync_warp && group.mask == warp.live)
        check_warp_barrier(me.warp);
    release_lanes(me.warp, group.mask & ~(1u << me.lane));
}

static void open_barrier() {
    barrier_state &b = running.barrier;
    b.result = {b.arrived, b.yes};
    b.arrived = b.yes = 0;
    check_barrier();
    if (schedule().order == order::reverse)
        std::reverse(b.waiting.begin(), b.waiting.end());
    for (strand *thread : b.waiting)
        make_ready(thread);
    b.waiting.clear();
}

votes barrier(bool predicate, place at) {
    counted.barriers++;
    barrier_state &b = running.barrier;
    if (b.arrived == 0)
        b.at = at;
    else if (!same_place(b.at, at)) {
        emu_fault(cudaErrorLaunchFailure, "divergent barrier: __syncthreads at %s:%d meets %s:%d", at.file, at.line, b.at.file, b.at.line);
        abandon();
    }
    b.arrived++;
    b.yes += predicate;
    if (b.arrived < running.n_live) {
        b.waiting.push_back(&self());
        wait_for_turn(meeting::barrier, at, 0);
    } else
        open_barrier();
    return b.result;
}

void barrier_without_me() {
    if (running.barrier.arrived > 0 && running.barrier.arrived == running.n_live)
        open_barrier();
}

} // namespace simt
