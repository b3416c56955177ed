/* What happens along the streams: copies, waiting, recordings, marks, and the failures that come to light on the way. */
#include "kernels/cuda/device_private.h"
#include "src/core/buffer.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct espl_graph {
    cudaGraphExec_t exec;
    int64_t tokens[ESPL_N_STREAMS];
};

void espl__cuda_note_text(const char *what, const char *text) {
    char *failure = espl__cuda->own->failure;
    if (failure[0] == '\0')
        snprintf(failure, sizeof espl__cuda->own->failure, "%s: %s", what, text);
}

/* A launch that is refused is that kernel's fault. Anything else may be of a kernel before it, which ran on while launches went on. */
static bool is_refusal(cudaError_t error) {
    return error == cudaErrorInvalidConfiguration || error == cudaErrorInvalidDeviceFunction || error == cudaErrorInvalidValue ||
           error == cudaErrorNoKernelImageForDevice || error == cudaErrorLaunchOutOfResources;
}

void espl__cuda_note(cudaError_t error, const char *what) {
    if (error == cudaSuccess)
        return;
    char text[384];
    snprintf(text, sizeof text, "%s (%s)%s", cudaGetErrorString(error), cudaGetErrorName(error),
             is_refusal(error) ? "" : "; it, or work before it: CUDA_LAUNCH_BLOCKING=1 and run.debug_tape: true say which");
    espl__cuda_note_text(what, text);
}

espl_status espl__cuda_noted(const espl_device *device) {
    if (device->own->failure[0] != '\0')
        ESPL_FAIL(ESPL_ERR_IO, "GPU %d failed in %s", device->ordinal, device->own->failure);
    return ESPL_OK;
}

/* ---- Waiting. */

/* A step's result is waited for closely, a long wait costs no core. */
static void pause_after(int tries) {
    enum { CLOSE_TRIES = 4000 };
    if (tries < CLOSE_TRIES)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

static espl_status after_try(espl_device *device, cudaError_t error, int tries) {
    if (error != cudaSuccess)
        (void)cudaGetLastError(); /* "not ready" is remembered as an error, too, and the next launch would be blamed */
    if (error != cudaErrorNotReady)
        espl__cuda_note(error, "the work under way");
    ESPL_TRY(espl__cuda_noted(device));
    if (error == cudaErrorNotReady && device->own->look != NULL)
        ESPL_TRY(device->own->look(device->own->look_state));
    if (error == cudaErrorNotReady)
        pause_after(tries);
    return ESPL_OK;
}

bool espl__cuda_reached(cudaEvent_t event) {
    cudaError_t error = cudaEventQuery(event);
    if (error != cudaSuccess)
        (void)cudaGetLastError();
    if (error != cudaErrorNotReady)
        espl__cuda_note(error, "the work under way");
    return error == cudaSuccess;
}

/* For the event, or where it is NULL for all of the stream. */
static espl_status wait_for(espl_device *device, cudaEvent_t event, cudaStream_t stream) {
    cudaError_t error = cudaErrorNotReady;
    for (int tries = 0; error == cudaErrorNotReady; tries += tries < 1 << 20) {
        error = event != NULL ? cudaEventQuery(event) : cudaStreamQuery(stream);
        ESPL_TRY(after_try(device, error, tries));
    }
    return ESPL_OK;
}

espl_status espl__cuda_wait_event(espl_device *device, cudaEvent_t event) { return wait_for(device, event, NULL); }

espl_status espl__cuda_wait_stream(espl_device *device, cudaStream_t stream) { return wait_for(device, NULL, stream); }

void espl__cuda_while_waiting(espl_device *device, espl_status (*look)(void *state), void *state) {
    device->own->look = look;
    device->own->look_state = state;
}

espl_status espl__cuda_sync(espl_device *device) {
    ESPL_ASSERT(!device->own->recording, "nothing runs while a tape is recorded, so nothing can be waited for");
    ESPL_TRY(espl__cuda_wait_stream(device, device->compute));
    ESPL_TRY(espl__cuda_wait_stream(device, device->communication));
    return espl__cuda_wait_stream(device, device->copy);
}

/* ---- Copies, through pinned memory in pieces: one is filled while the other travels. What they reach may be far (device.h), so where
 * it lies is left to the addresses. */

espl_status espl__cuda_make_slots(espl__slot slots[ESPL__SLOTS], size_t bytes) {
    for (int i = 0; i < ESPL__SLOTS; i++) {
        ESPL__CUDA(cudaMallocHost((void **)&slots[i].pinned, bytes));
        ESPL__CUDA(cudaEventCreateWithFlags(&slots[i].free, cudaEventDisableTiming));
    }
    return ESPL_OK;
}

void espl__cuda_free_slots(espl__slot slots[ESPL__SLOTS]) {
    for (int i = 0; i < ESPL__SLOTS; i++) {
        if (slots[i].free != NULL)
            cudaEventDestroy(slots[i].free);
        if (slots[i].pinned != NULL)
            cudaFreeHost(slots[i].pinned);
        slots[i] = (espl__slot){0};
    }
}

static espl__slot *next_stage(espl__device_private *own) {
    espl__slot *slot = &own->stage[own->next_stage];
    own->next_stage = (own->next_stage + 1) % ESPL__SLOTS;
    return slot;
}

static size_t piece_at(size_t at, size_t bytes) { return bytes - at < ESPL__STAGE_BYTES ? bytes - at : ESPL__STAGE_BYTES; }

espl_status espl__cuda_write(espl_device *device, void *to, const void *from, size_t bytes) {
    ESPL_ASSERT(!device->own->recording, "a copy from the host inside a recording");
    for (size_t at = 0; at < bytes; at += ESPL__STAGE_BYTES) {
        espl__slot *slot = next_stage(device->own);
        ESPL_TRY(espl__cuda_wait_event(device, slot->free));
        memcpy(slot->pinned, (const char *)from + at, piece_at(at, bytes));
        ESPL__CUDA(cudaMemcpyAsync((char *)to + at, slot->pinned, piece_at(at, bytes), cudaMemcpyDefault, device->compute));
        ESPL__CUDA(cudaEventRecord(slot->free, device->compute));
    }
    return espl__cuda_noted(device);
}

static espl_status start_piece(espl_device *device, espl__slot *slot, const char *from, size_t at, size_t bytes) {
    ESPL_TRY(espl__cuda_wait_event(device, slot->free));
    ESPL__CUDA(cudaMemcpyAsync(slot->pinned, from + at, piece_at(at, bytes), cudaMemcpyDefault, device->compute));
    ESPL__CUDA(cudaEventRecord(slot->free, device->compute));
    return ESPL_OK;
}

espl_status espl__cuda_read(espl_device *device, void *to, const void *from, size_t bytes) {
    ESPL_ASSERT(!device->own->recording, "a copy to the host inside a recording");
    espl__slot *slots[ESPL__SLOTS] = {next_stage(device->own), next_stage(device->own)};
    if (bytes == 0)
        return espl__cuda_sync(device);
    ESPL_TRY(start_piece(device, slots[0], from, 0, bytes));
    int turn = 0;
    for (size_t at = 0; at < bytes; at += ESPL__STAGE_BYTES, turn = !turn) {
        if (at + ESPL__STAGE_BYTES < bytes)
            ESPL_TRY(start_piece(device, slots[!turn], from, at + ESPL__STAGE_BYTES, bytes));
        ESPL_TRY(espl__cuda_wait_event(device, slots[turn]->free));
        memcpy((char *)to + at, slots[turn]->pinned, piece_at(at, bytes));
    }
    return ESPL_OK;
}

/* ---- Recordings. */

espl_status espl__cuda_record(espl_device *device) {
    ESPL_ASSERT(!device->own->recording, "a recording inside a recording");
    ESPL_TRY(espl__cuda_noted(device));
    ESPL__CUDA(cudaStreamBeginCapture(device->compute, cudaStreamCaptureModeThreadLocal));
    device->own->recording = true;
    return ESPL_OK;
}

espl_status espl__cuda_recorded(espl_device *device, espl_graph **recorded) {
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    ESPL_ASSERT(device->own->recording, "recorded without record");
    device->own->recording = false;
    *recorded = NULL;
    cudaError_t error = cudaStreamEndCapture(device->compute, &graph);
    espl_status status = espl__cuda_noted(device); /* says more than that the capture is invalid */
    if (status == ESPL_OK)
        status = espl__cuda_check(error, "cudaStreamEndCapture");
    if (status == ESPL_OK)
        status = espl__cuda_check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    if (graph != NULL)
        cudaGraphDestroy(graph);
    ESPL_TRY(status);
    *recorded = espl_calloc(1, sizeof **recorded);
    (*recorded)->exec = exec;
    for (int s = 0; s < ESPL_N_STREAMS; s++)
        (*recorded)->tokens[s] = device->rows[s].tokens;
    device->own->n_graphs++;
    return ESPL_OK;
}

espl_status espl__cuda_replay(espl_device *device, espl_graph *graph) {
    for (int s = 0; s < ESPL_N_STREAMS; s++)
        ESPL_ASSERT(graph->tokens[s] == device->rows[s].tokens, "a tape recorded for %lld rows of stream %d is replayed on %lld",
                    (long long)graph->tokens[s], s, (long long)device->rows[s].tokens);
    ESPL__CUDA(cudaGraphLaunch(graph->exec, device->compute));
    return ESPL_OK;
}

void espl__cuda_forget(espl_device *device, espl_graph **address) {
    espl_graph *graph = *address;
    *address = NULL;
    if (graph == NULL)
        return;
    cudaGraphExecDestroy(graph->exec); /* a launch under way ends first */
    free(graph);
    device->own->n_graphs--;
}

/* ---- Marks. In a recording they are external events: set by every replay, and streams outside may wait for them. */

espl_status espl__cuda_mark(espl_device *device, int mark) {
    espl__device_private *own = device->own;
    ESPL_ASSERT(mark >= 0 && mark < ESPL_MAX_MARKS, "mark %d", mark);
    if (own->marks[mark] == NULL)
        ESPL__CUDA(cudaEventCreateWithFlags(&own->marks[mark], cudaEventDisableTiming));
    ESPL__CUDA(
        cudaEventRecordWithFlags(own->marks[mark], device->compute, own->recording ? cudaEventRecordExternal : cudaEventRecordDefault));
    return ESPL_OK;
}

void espl__cuda_after(espl_device *device, int mark) {
    ESPL_ASSERT(mark >= 0 && mark < ESPL_MAX_MARKS && device->own->marks[mark] != NULL, "mark %d was never set", mark);
    device->own->after = mark;
}

espl_status espl__cuda_follow(espl_device *device, cudaStream_t stream) {
    espl__device_private *own = device->own;
    ESPL_ASSERT(!own->recording, "a bulk operation inside a recording");
    cudaEvent_t event = own->after >= 0 ? own->marks[own->after] : own->here;
    if (own->after < 0)
        ESPL__CUDA(cudaEventRecord(own->here, device->compute));
    own->after = -1;
    ESPL__CUDA(cudaStreamWaitEvent(stream, event, 0));
    return ESPL_OK;
}
