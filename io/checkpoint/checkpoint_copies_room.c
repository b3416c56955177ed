#include "io/checkpoint/checkpoint_copies.h"

#include "io/fsio.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

enum { GENERATIONS = 2 }; /* a copy is there until the next one is whole */

size_t espl_checkpoint_copy_bytes(const espl_ranks *ranks, const espl_state_tensor *tensors, int64_t n) {
    size_t bytes = 0;
    for (int64_t i = 0; i < n; i++)
        bytes += (size_t)(tensors[i].end - tensors[i].begin) * espl_dtype_size(tensors[i].dtype);
    return bytes * GENERATIONS * (ranks->n_nodes > 1 ? 2 : 1);
}

/* Of the host; no limit where the system does not say. */
static size_t available_memory(void) {
    char line[128];
    unsigned long long kib;
    size_t bytes = SIZE_MAX;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file != NULL && bytes == SIZE_MAX && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            bytes = (size_t)kib << 10;
    if (file != NULL)
        fclose(file);
    return bytes;
}

static size_t less(size_t a, size_t b) { return a < b ? a : b; }

/* A file system that is memory may be allowed more than is left of it: it is full when ranks are killed for it. */
static espl_status find_room(const char *place, size_t *room) {
    struct statfs found;
    if (statfs(place, &found) != 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: %s", place, strerror(errno));
    *room = found.f_blocks > 0 ? (size_t)found.f_bavail * (size_t)found.f_bsize : SIZE_MAX; /* without a limit it counts none */
    if (found.f_type == TMPFS_MAGIC || found.f_type == RAMFS_MAGIC)
        *room = less(*room, available_memory());
    return ESPL_OK;
}

/* Of a folder's files and of those in its folders. */
static espl_status folder_bytes(const char *folder, size_t *bytes) {
    char **names = NULL;
    size_t n = 0;
    espl_status status = espl_fs_list(folder, &names, &n);
    for (size_t i = 0; i < n && status == ESPL_OK; i++) {
        char *path = espl_format("%s/%s", folder, names[i]);
        int64_t size = 0;
        bool is_folder = espl_fs_is_folder(path);
        status = is_folder ? folder_bytes(path, bytes) : espl_fs_path_size(path, &size);
        *bytes += (size_t)size;
        free(path);
    }
    espl_fs_free_names(names, n);
    return status;
}

espl_status espl__copies_check_room(const espl_checkpoints *s) {
    const struct espl__copies *c = s->copies;
    const size_t one = espl__copies_host_bytes(s);
    size_t room = 0, held = 0;
    ESPL_TRY(folder_bytes(c->root, &held));
    ESPL_TRY(find_room(c->place, &room));
    const size_t needed = GENERATIONS * one - less(held, one); /* an earlier attempt's copy goes when the first is whole */
    if (room < needed)
        ESPL_FAIL(ESPL_ERR_IO, "%s on %s has room for %.1f MiB, the copies that the host is to keep take %.1f MiB", c->place, s->ranks.host,
                  (double)room / 1048576.0, (double)needed / 1048576.0);
    return ESPL_OK;
}
