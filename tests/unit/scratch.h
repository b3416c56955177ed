/* Folders and files of a test's own, below TMPDIR (/tmp where that is not set). */
#ifndef ESPL_TESTS_SCRATCH_H
#define ESPL_TESTS_SCRATCH_H

#include "comm/comm.h"
#include "src/core/buffer.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Local. A path for mkdtemp or mkstemp, which the caller frees. */
static inline char *scratch_template(void) {
    const char *base = getenv("TMPDIR");
    return espl_format("%s/espl-test-XXXXXX", base != NULL && *base != '\0' ? base : "/tmp");
}

/* Local. A fresh empty folder; `remove_scratch` takes it away. */
static inline char *make_scratch(void) {
    char *path = scratch_template();
    ESPL_ASSERT(mkdtemp(path) != NULL, "no folder %s", path);
    return path;
}

/* Local. A fresh empty file, open in *fd; the caller unlinks it and frees its path. */
static inline char *make_scratch_file(int *fd) {
    char *path = scratch_template();
    *fd = mkstemp(path);
    ESPL_ASSERT(*fd >= 0, "no file %s", path);
    return path;
}

static inline int remove_entry(const char *path, const struct stat *about, int kind, struct FTW *place) {
    (void)about, (void)kind, (void)place;
    return remove(path);
}

/* Local. Takes a folder away with all that is in it, where there is one. Not by a process: tests do this thousands of times. */
static inline void remove_tree(const char *path) {
    ESPL_ASSERT(nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT, "%s is left", path);
}

/* Local. The same, and frees the path that make_scratch gave. */
static inline void remove_scratch(char *path) {
    remove_tree(path);
    free(path);
}

/* Collective. One fresh empty folder for all ranks, made by the first. */
static inline char *share_scratch(espl_comm *comm) {
    char path[PATH_MAX] = "";
    if (espl_comm_ranks(comm)->rank == 0) {
        char *made = make_scratch();
        snprintf(path, sizeof path, "%s", made);
        free(made);
    }
    ESPL_ASSERT(espl_comm_bcast(comm, path, sizeof path, 0) == ESPL_OK, "no folder for all ranks");
    return espl_strdup(path);
}

/* Collective. The first rank takes it away when all are done with it. */
static inline void unshare_scratch(espl_comm *comm, char *path) {
    ESPL_ASSERT(espl_comm_barrier(comm) == ESPL_OK, "ranks do not meet");
    if (espl_comm_ranks(comm)->rank == 0)
        remove_tree(path);
    free(path);
}

#endif
