/* Who runs the work of streams, and when. */
#include "tests/emu/runtime/emu_engine.h"

#include "tests/emu/simt/fault.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sched.h>
#include <unistd.h>

namespace rt {

namespace {

constexpr int turns_awake = 200;

enum class schedule { early, late, random };

std::recursive_mutex lock;
std::atomic<uint64_t> calls{0};

struct machinery {
    schedule when = schedule::early;
    uint64_t random = 0;
    std::shared_ptr<queue> null_stream = std::make_shared<queue>();
    std::vector<std::weak_ptr<queue>> queues;
    int depth = 0;                                   /* calls within calls: a host function may ask for errors */
    std::chrono::steady_clock::time_point last_work; /* that was put or run, on queues that are not slow */
};

machinery &all() {
    static machinery *one = [] { /* never freed: work may stand in streams when the process ends */
                                 auto *made = new machinery;
                                 made->queues.push_back(made->null_stream);
                                 return made;
    }();
    return *one;
}

uint64_t next_random() {
    uint64_t &x = all().random; /* splitmix64 */
    uint64_t z = (x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void read_schedule() {
    const char *text = setting_text("EMU_STREAMS");
    static char known[64] = "early";
    if (!text)
        text = "early";
    if (strcmp(text, known) == 0)
        return;
    snprintf(known, sizeof known, "%s", text);
    if (strncmp(text, "random:", 7) == 0) {
        all().when = schedule::random;
        all().random = strtoull(text + 7, nullptr, 10);
    } else if (strcmp(text, "late") == 0) {
        all().when = schedule::late;
    } else if (strcmp(text, "early") == 0) {
        all().when = schedule::early;
    } else {
        fprintf(stderr, "EMU_STREAMS is '%s', expected early, late or random:SEED\n", text);
        abort();
    }
}

bool runnable(const queue &q) { return !q.items.empty() && (!q.items.front().after.stream || q.items.front().after.reached()); }

bool fails_by_order(const item &work) {
    const char *name = setting_text("EMU_LAUNCH_FAIL");
    return name && work.work && strstr(work.what, name);
}

void note_work(const queue &q) {
    if (!q.slow)
        all().last_work = std::chrono::steady_clock::now();
}

/* Tries the first item; true when it is done. After a fault nothing runs any more, as on a GPU. */
bool run_head(queue &q) {
    item &head = q.items.front();
    if (emu_sticky_error() == cudaSuccess) {
        open_memory();
        if (fails_by_order(head))
            emu_fault(cudaErrorIllegalAddress, "%s fails, as EMU_LAUNCH_FAIL says", head.what);
        else if (head.work && !head.work()) {
            head.tried = true;
            return false;
        }
    }
    q.items.pop_front();
    q.done++;
    note_work(q);
    return true;
}

std::vector<std::shared_ptr<queue>> with_runnable_heads() {
    std::vector<std::shared_ptr<queue>> found;
    auto &queues = all().queues;
    queues.erase(std::remove_if(queues.begin(), queues.end(), [](const auto &q) { return q.expired(); }), queues.end());
    for (const auto &weak : queues)
        if (std::shared_ptr<queue> q = weak.lock(); runnable(*q))
            found.push_back(q);
    return found;
}

/* All that can run, until nothing more can. */
void run_all() {
    for (bool progress = true; progress;) {
        progress = false;
        for (const auto &q : with_runnable_heads())
            while (runnable(*q) && run_head(*q))
                progress = true;
    }
}

bool run_random_one() {
    auto heads = with_runnable_heads();
    while (!heads.empty()) {
        size_t i = next_random() % heads.size();
        if (run_head(*heads[i]))
            return true;
        heads.erase(heads.begin() + (long)i);
    }
    return false;
}

/* Runs what must have run before `until`, and nothing else. False when an attempt did not succeed. */
bool run_needed(const position &until) {
    queue &q = *until.stream;
    while (q.done < until.number) {
        if (!runnable(q) && !run_needed(q.items.front().after))
            return false;
        if (!run_head(q))
            return false;
    }
    return true;
}

bool run_towards(const position &until) {
    switch (all().when) {
    case schedule::early: run_all(); return until.reached();
    case schedule::late: return run_needed(until);
    case schedule::random: break;
    }
    while (!until.reached())
        if (!run_random_one())
            return false;
    return true;
}

/* Others may be on the same core. */
void rest(int *turns) {
    constexpr useconds_t sleep_us = 100;
    if ((*turns)++ < turns_awake)
        sched_yield();
    else
        usleep(sleep_us);
}

} // namespace

long long setting(const char *name, long long otherwise) {
    const char *text = setting_text(name);
    return text ? strtoll(text, nullptr, 10) : otherwise;
}

const char *setting_text(const char *name) {
    const char *text = getenv(name);
    return text && *text ? text : nullptr;
}

bool position::reached() const { return stream->done >= number; }

call::call(bool device) {
    lock.lock();
    all().depth++;
    calls++;
    read_schedule();
    if (device) {
        failed = device_trouble();
        if (failed == cudaSuccess)
            failed = emu_sticky_error();
    }
}

call::~call() {
    if (all().depth == 1) {
        if (all().when == schedule::early)
            run_all();
        else if (all().when == schedule::random)
            for (uint64_t n = next_random() % 4; n > 0 && run_random_one(); n--)
                ;
        close_memory();
    }
    all().depth--;
    lock.unlock();
}

cudaError_t result(cudaError_t error) { return error == cudaSuccess ? error : emu_note_error(error); }

uint64_t calls_so_far() { return calls; }

void know(const std::shared_ptr<queue> &q) { all().queues.push_back(q); }

std::shared_ptr<queue> null_queue() {
    if (all().queues.empty() || all().queues.front().lock() != all().null_stream)
        all().queues.insert(all().queues.begin(), all().null_stream);
    return all().null_stream;
}

position end_of(const std::shared_ptr<queue> &on) { return {on, on->put}; }

position put(const std::shared_ptr<queue> &on, const char *what, attempt work, position after) {
    auto append = [&](const char *name, attempt how, position behind) {
        on->items.push_back({name, std::move(how), std::move(behind)});
        on->put++;
    };
    std::shared_ptr<queue> null = null_queue();
    if (on == null) {
        for (const auto &weak : all().queues)
            if (std::shared_ptr<queue> q = weak.lock(); q && q != null && q->blocking)
                append("wait for a blocking stream", nullptr, end_of(q));
    } else if (on->blocking && null->done < null->put) {
        append("wait for the NULL stream", nullptr, end_of(null));
    }
    append(what, std::move(work), std::move(after));
    note_work(*on);
    return end_of(on);
}

bool put_off(queue &on) {
    const char *text = setting_text("EMU_COPIES");
    on.slow = true;
    if (!text || strncmp(text, "late:", 5) != 0)
        return false;
    for (const auto &weak : all().queues)
        if (std::shared_ptr<queue> q = weak.lock(); q && !q->items.empty() && q->items.front().after.stream.get() == &on)
            return false;
    return std::chrono::steady_clock::now() - all().last_work < std::chrono::milliseconds(strtoll(text + 5, nullptr, 10));
}

void wait(const position &until) {
    for (int turns = 0; !until.reached() && !run_towards(until) && !until.reached();) {
        if (turns > turns_awake)
            run_all(); /* even when late: what is waited for may in turn need work of other streams on other ranks */
        close_memory();
        all().depth--;
        lock.unlock(); /* for the thread that aborts */
        rest(&turns);
        lock.lock();
        all().depth++;
    }
}

void run_everything() {
    run_all();
    close_memory();
}

bool try_to_reach(const position &until) { return until.reached() || run_towards(until); }

bool look(const position &until) {
    if (until.reached())
        return true;
    if (all().when == schedule::late)
        run_needed({until.stream, until.stream->done + 1});
    return false;
}

void wait_for_all() {
    for (size_t i = 0; i < all().queues.size(); i++)
        if (std::shared_ptr<queue> q = all().queues[i].lock())
            wait(end_of(q));
}

void run_from_outside(bool (*all_of_it)()) {
    if (!lock.try_lock())
        return;
    if (all().depth == 0) {
        if (all_of_it())
            run_all();
        else
            for (const auto &q : with_runnable_heads())
                if (q->items.front().tried)
                    run_head(*q);
        close_memory();
    }
    lock.unlock();
}

cudaError_t forbidden_in_capture() {
    cudaError_t error = cudaSuccess;
    for (const auto &weak : all().queues) {
        std::shared_ptr<queue> q = weak.lock();
        if (!q || !q->capture)
            continue;
        cudaStreamCaptureMode mode = q->capture->mode;
        bool here = q->capture->thread == std::this_thread::get_id();
        if (mode == cudaStreamCaptureModeGlobal || (mode == cudaStreamCaptureModeThreadLocal && here)) {
            q->capture->valid = false;
            error = cudaErrorStreamCaptureUnsupported;
        }
    }
    return error;
}

} // namespace rt
