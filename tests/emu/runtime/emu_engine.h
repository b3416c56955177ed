/* Inside the emulated runtime: streams as queues of work, and who runs it when.
 *
 * Every place in a stream is a number: `put` items have been put, `done` of them have run. An event is a pair (stream, number), so "wait
 * for the event" is "done has reached the number", whatever is recorded later. Items run on the thread that called the runtime, under one
 * lock; only when other ranks wait for this one while its host is elsewhere, a helper thread goes on in its place (nccl_progress.cpp). */
#ifndef ESPL_TESTS_EMU_RUNTIME_EMU_ENGINE_H
#define ESPL_TESTS_EMU_RUNTIME_EMU_ENGINE_H

#include "tests/emu/runtime/stream.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

namespace rt {

struct queue;

struct position {
    std::shared_ptr<queue> stream;
    uint64_t number = 0;
    bool reached() const;
};

/* Returns false when it cannot be finished yet, and is called again. */
using attempt = std::function<bool()>;

struct item {
    const char *what;
    attempt work;
    position after; /* its stream NULL: nothing to wait for */
    bool tried = false;
};

struct recording {
    cudaGraph_t graph;
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool valid;
};

struct queue {
    std::deque<item> items;
    uint64_t put = 0, done = 0;
    bool blocking = true; /* synchronizes with the NULL stream */
    bool slow = false;    /* has held a copy that may be put off */
    std::unique_ptr<recording> capture;
};

/* Held by every function of the API: the lock, and what the schedule does at each call. */
class call {
  public:
    explicit call(bool device = true); /* device: needs one, and fails when it has failed */
    ~call();
    call(const call &) = delete;
    call &operator=(const call &) = delete;
    cudaError_t error() const { return failed; }

  private:
    cudaError_t failed = cudaSuccess;
};

/* Ends a call of the API: errors are remembered for cudaGetLastError. */
cudaError_t result(cudaError_t error);

/* Makes the queue of a new stream known to the schedule. */
void know(const std::shared_ptr<queue> &q);
std::shared_ptr<queue> null_queue();
/* The queue behind a handle, NULL for none; the NULL stream has one, too (stream.cpp). */
std::shared_ptr<queue> queue_of(cudaStream_t stream);

/* Puts an item behind all that is on the queue; the NULL stream and blocking streams wait for each other. Not for capturing queues. */
position put(const std::shared_ptr<queue> &on, const char *what, attempt work, position after = {});
/* As put, or into the graph that the queue captures (graph.cpp). */
cudaError_t put_or_capture(const std::shared_ptr<queue> &on, const char *what, attempt work);
/* The place behind all that is on the queue now. */
position end_of(const std::shared_ptr<queue> &on);

/* Runs work until `until` is reached, as little else as the schedule says. */
void wait(const position &until);
/* As wait, but comes back when it cannot go on; false then. */
bool try_to_reach(const position &until);
/* Somebody looks whether it is there: runs a little. */
bool look(const position &until);
void wait_for_all();
/* Whether a copy that stands first on the queue should wait, as EMU_COPIES says. */
bool put_off(queue &on);
/* Runs all that may run now, whatever the schedule. */
void run_everything();
/* For the helper thread, when nobody is in a call: goes on with what has been tried already, and with all that may run if `all_of_it` says
 * so under the lock. */
void run_from_outside(bool (*all_of_it)());
/* Changes with every call of the API. */
uint64_t calls_so_far();

/* Fails, and breaks the captures, when a call is made that is not allowed while one is under way. */
cudaError_t forbidden_in_capture();

/* A number from the environment, or what it is without. Read at each use: tests change it. */
long long setting(const char *name, long long otherwise);
const char *setting_text(const char *name);

/* Device memory may be touched between these. */
void open_memory();
void close_memory();
/* Whether [p, p + bytes) lies in one allocation of the device, or in pinned memory of the host. */
bool in_device(const void *p, size_t bytes);
bool in_pinned(const void *p, size_t bytes);
size_t memory_total();
/* Asked when memory of the device is freed: whether a library still holds it. NULL: nobody does. */
extern bool (*is_held)(const void *p, size_t bytes);

/* The error that keeps the device from being used, made up by the environment. */
cudaError_t device_trouble();

} // namespace rt

#endif
