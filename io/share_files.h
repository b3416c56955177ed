/* Files that every rank needs at its start: read once for the whole job, or opened once a host. */
#ifndef ESPL_IO_SHARE_FILES_H
#define ESPL_IO_SHARE_FILES_H

#include "comm/comm.h"

/* Collective. Makes the files at `paths`, and those in the folders among them, known to all ranks (src/core/job_files.h): rank 0 reads what
 * is small text (.json, .jinja, .yaml, .md and every file that is named itself, but for the following) and sends it to all; .safetensors
 * and .h5 files are opened by the first rank of each host, whose others get the same descriptor. "" stands for no path. What cannot be read
 * is known as such, so all ranks meet the same error where they read it. Errors: those of communication alone. */
espl_status espl_files_share(espl_comm *comm, const char *const *paths, int n);

/* Collective. Gives the ranks of each host the descriptors of its first rank, fds[n]; -1 stays -1, as does what cannot be passed on. */
espl_status espl_descriptors_share(espl_comm *comm, int *fds, int n);

#endif
