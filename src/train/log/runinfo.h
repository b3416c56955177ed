/* Facts about the process and the machine: the provenance record of checkpoints, exports and metrics. */
#ifndef ESPL_TRAIN_RUNINFO_H
#define ESPL_TRAIN_RUNINFO_H

#include <jansson.h>
#include <stddef.h>

typedef struct espl_library {
    const char *name, *version; /* "HDF5", "1.14.3" */
} espl_library;

/* Local. A new object {"host", "os", "arch", "cpu", "cores", "memory_bytes", "started", "job": {...}, "libraries":
 * {...}}; what the system does not tell is absent. `job` holds the batch system's name and its variables that tell which job
 * this is (Slurm, PBS, LSF, Flux). The caller owns it (json_decref). */
json_t *espl_runinfo_make(const espl_library *libraries, size_t n);

/* Local. Now, in UTC: "2026-01-31T23:59:59Z". */
void espl_runinfo_time(char text[32]);

/* Local. Resident memory of this process in bytes, now and at its highest; 0 when /proc does not tell. Takes no memory. */
size_t espl_runinfo_rss(void);
size_t espl_runinfo_peak_rss(void);

/* Local. Memory of this machine in bytes; 0 when unknown. */
size_t espl_runinfo_memory(void);

/* Local. Cores this process may run on (its affinity mask). */
int espl_runinfo_cores(void);

#endif
