/* A device: where arenas lie and where kernels run.
 *
 * The host is one (device_host.c): memory is mapped, copies are memcpy, a kernel has run when it returns. GPUs are others, behind a backend
 * (backend.h): kernels and copies are put on the compute stream, in order, and nothing waits for them but `read` and `sync`. A kernel that
 * fails on a GPU is found by the next of these two.
 *
 * One device a process. Not thread-safe: the thread that trains calls, but for the three calls that say that any thread may.
 *
 * A GPU works on whole micro-batches of the reserved size, whatever they hold: `begin` fills rows n .. of every stream with token 0,
 * position 0, type 0, target -1 and no segment. Attention gives such rows 0, the loss gives them no gradient, so they add nothing to any
 * gradient, and shapes never change, which is what lets a tape be recorded once and replayed. (A batch with a cache, generation, is taken
 * as it is, and so is its source.)
 */
#ifndef ESPL_KERNELS_DEVICE_H
#define ESPL_KERNELS_DEVICE_H

#include "kernels/kernels.h"
#include "src/core/status.h"

enum { ESPL_DEVICE_VERSION = 7, ESPL_MAX_MARKS = 1024 };

typedef struct espl_device espl_device;
typedef struct espl_graph espl_graph; /* a recorded list of kernels */

/* What a stream of a micro-batch holds at most. rows 0: no such stream; pooled rows have no segments. */
typedef struct espl_capacity {
    int64_t rows, segments;
    int64_t longest; /* rows of a segment; 0: not known, up to all */
} espl_capacity;

typedef struct espl_device_info {
    char name[96];       /* "NVIDIA H200", the host's CPU */
    char libraries[160]; /* versions in use, for logs and provenance */
    char attention[256]; /* whose kernels of attention run, and why; "" while nothing was chosen */
    char address[32];    /* of a GPU: PCI domain:bus:device.function; "" for the host */
    int ordinal, n_devices;
    size_t bytes_total, bytes_free;
} espl_device_info;

typedef struct espl_device_calls {
    int version;      /* ESPL_DEVICE_VERSION */
    const char *kind; /* "cpu", "cuda", "emu" */
    bool remote;      /* the host cannot address its memory */

    /* Local. How many there are. Errors: usage, when there can be none: no driver, one too old, a library missing; says which. */
    espl_status (*count)(int *n);
    /* Local. Opens device `ordinal`. Errors: usage, when it is busy, absent or too old. */
    espl_status (*open)(int ordinal, espl_device **device);
    void (*close)(espl_device **device); /* takes the address, nulls it, accepts NULL */
    void (*info)(const espl_device *device, espl_device_info *info);

    /* Local. Zeroed memory for arena `name`, aligned to 256. Errors: usage, when it does not fit; says by how much. */
    espl_status (*alloc)(espl_device *device, const char *name, size_t bytes, void **memory);
    void (*release)(espl_device *device, void *memory, size_t bytes);
    /* Local. The same of the host's memory, pinned: kernels and copies take it for the device's, but every access goes over the bus. For
     * what a step touches once. Errors: usage, when the system does not give or pin so much. */
    espl_status (*alloc_far)(espl_device *device, const char *name, size_t bytes, void **memory);
    void (*release_far)(espl_device *device, void *memory, size_t bytes);
    /* Local. Micro-batches have up to so many rows and segments in each stream from now on; kernels work on that many rows. Recordings are
     * replayed under the numbers they were made under; where more room is needed than ever before there must be none. */
    espl_status (*reserve)(espl_device *device, const espl_capacity capacity[ESPL_N_STREAMS]);

    /* Local. Host to device, behind everything enqueued so far; `from` may change when it returns. */
    espl_status (*write)(espl_device *device, void *to, const void *from, size_t bytes);
    /* Local. Device to host; waits for everything enqueued so far. */
    espl_status (*read)(espl_device *device, void *to, const void *from, size_t bytes);
    /* Local. Waits for everything enqueued so far. Errors: what a kernel failed with, naming it. */
    espl_status (*sync)(espl_device *device);

    /* Local. The kernels that follow, recorded ones too, work on this micro-batch: the main stream's, with its source and pooled rows (what
     * is NULL there is empty). Copies what it points to; never waits for compute unless two earlier micro-batches are still under way. */
    espl_status (*begin)(espl_device *device, const espl_batch *batch);

    /* Local. Between record and recorded, kernels and marks are written down instead of run. The host cannot: NULL in its table, and
     * callers run the tape itself each time. */
    espl_status (*record)(espl_device *device);
    espl_status (*recorded)(espl_device *device, espl_graph **graph);
    espl_status (*replay)(espl_device *device, espl_graph *graph);
    void (*forget)(espl_device *device, espl_graph **graph); /* takes the address, nulls it, accepts NULL */

    /* Local. Sets mark 0 <= mark < ESPL_MAX_MARKS behind what is enqueued (or recorded) so far; set again by every replay. */
    espl_status (*mark)(espl_device *device, int mark);
    /* Local. The next bulk operation (comm/bulk.h) starts when this mark is reached, instead of behind all that is enqueued so far. */
    void (*after)(espl_device *device, int mark);

    /* Snapshots: memory of the device goes to the host while work that does not change it goes on.
     *
     * Local, any thread. Prepares host memory of the caller for `fetch`; unpin comes before the memory is given back. Errors: usage, when
     * the system does not let it be. It may be fetched to all the same, but then `fetch` waits for what is enqueued. */
    espl_status (*pin)(espl_device *device, void *memory, size_t bytes);
    void (*unpin)(espl_device *device, void *memory); /* any thread */
    /* Local. Starts a copy, device to pinned host memory, behind everything enqueued so far. What is enqueued later does not wait for it,
     * and changes `from` only behind `let_fetch`. */
    espl_status (*fetch)(espl_device *device, void *to, const void *from, size_t bytes);
    /* Local. What is enqueued from now on may change what is being fetched: the device, not the host, waits for the copies. */
    espl_status (*let_fetch)(espl_device *device);
    /* Local, any thread. Waits on the host until all that was fetched so far has arrived. Errors: io, when it never will. */
    espl_status (*fetched)(espl_device *device);
} espl_device_calls;

/* Local. The host as a device. */
const espl_device_calls *espl_device_host(void);

#endif
