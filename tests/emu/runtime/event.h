/* Events, for graphs that hold them. */
#ifndef ESPL_TESTS_EMU_RUNTIME_EVENT_H
#define ESPL_TESTS_EMU_RUNTIME_EVENT_H

#include "tests/emu/runtime/emu_engine.h"

struct CUevent_st {
    char nothing; /* the handle is an address; what it stands for is in event.cpp */
};

namespace rt {

struct event {
    position last;                /* of the latest record; its stream NULL: never recorded */
    std::shared_ptr<double> time; /* milliseconds, of that record */
    bool timed = true;
    bool captured = false; /* the latest record is a place in a graph */
};

/* Puts the event behind what is on the queue. */
void record(const std::shared_ptr<event> &e, const std::shared_ptr<queue> &on);
/* Makes the queue wait for the latest record. */
void wait_on_stream(const std::shared_ptr<event> &e, const std::shared_ptr<queue> &on);

/* Writes a node into the graph that the queue captures: every launch of the graph records the event, or waits for what was recorded last
 * when it is launched (graph.cpp). */
cudaError_t capture_record(queue &on, const std::shared_ptr<event> &e);
cudaError_t capture_wait(queue &on, const std::shared_ptr<event> &e);

} // namespace rt

#endif
