/* Backends: what can compute. The CPU is linked in. GPUs are a library of their own, libespalier_cuda.so, opened when it is asked for, so
 * that one program serves login nodes, CPU partitions and GPU nodes, and a missing driver or library is a message and no loader failure.
 * libespalier_emu.so is the same sources over an emulator of the GPU, for tests. */
#ifndef ESPL_KERNELS_BACKEND_H
#define ESPL_KERNELS_BACKEND_H

#include "kernels/device.h"

typedef struct espl_backend {
    const espl_device_calls *device;
    const espl_kernels *fp32, *bf16; /* tables of the formats; NULL where there is none */
    const void *bulk;                /* const espl_bulk_calls * (comm/bulk.h), NULL for the host */
} espl_backend;

/* What a backend library exports under the name "espl_backend_get"; NULL when it was built for another version. */
typedef const espl_backend *espl_backend_get_fn(int device_version);

/* Local. Finds "cpu", "cuda" or "emu". A library is looked for in ESPL_BACKEND_DIR, beside the program, and in ../lib/espalier of it; it
 * stays open until the process ends. Errors: usage, when it is not there or does not load (says what the loader said). */
espl_status espl_backend_open(const char *name, const espl_backend **backend);

/* Local. Whether the driver of NVIDIA GPUs is here: without it, opening "cuda" only costs the memory of its libraries. */
bool espl_backend_has_driver(void);

/* Local. A table that can plan for a backend without having it: name, real, stat, work_bytes and rule_work alone. */
const espl_kernels *espl_backend_planned(const char *name, espl_dtype real);

/* Local. Memory of the device that a GPU takes for micro-batches of this capacity (device.h: reserve). */
size_t espl_backend_batch_bytes(const espl_capacity capacity[ESPL_N_STREAMS]);

#endif
