/* The file system of runs: what checkpoints do with it is tried out. */
#include "src/train/doctor/doctor_checks.h"

#include "io/fsio.h"
#include "src/core/buffer.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { TRIED_BYTES = 1 << 20 };

/* statfs(2), and the headers of the file systems themselves. */
static const struct {
    unsigned type;
    const char *name, *why, *advice; /* why: NULL where nothing is to be said */
} kinds[] = {
    {0xEF53, "ext4", NULL, ""},
    {0x58465342, "XFS", NULL, ""},
    {0x9123683E, "Btrfs", NULL, ""},
    {0x2FC12FC1, "ZFS", NULL, ""},
    {0x0BD00BD0, "Lustre", NULL, ""},
    {0x47504653, "GPFS", NULL, ""},
    {0x19830326, "BeeGFS", NULL, ""},
    {0x00C36400, "CephFS", NULL, ""},
    {0x6969, "NFS", NULL, ""},
    {0x01021994, "tmpfs", "it is memory: what is saved there is gone with the host", "put run.dir on a disk"},
    {0x858458F6, "ramfs", "it is memory: what is saved there is gone with the host", "put run.dir on a disk"},
    {0x794C7630, "overlay", "it is a container's own layer, which is gone with the container", "put run.dir on a mounted volume"},
    {0xFE534D42, "SMB", "renames and fsync there may not survive a power cut", "put run.dir on a file system of the cluster"},
    {0x65735546, "FUSE", "whether fsync reaches a disk depends on the program behind it", "ask whose it is"},
};

/* The folder, or the nearest above that is there. The caller frees. */
static char *existing(const char *folder) {
    char *path = espl_strdup(folder[0] != '\0' ? folder : ".");
    while (!espl_fs_is_folder(path)) {
        char *slash = strrchr(path, '/');
        if (slash == NULL || slash == path) {
            snprintf(path, strlen(path) + 1, "%s", slash == NULL ? "." : "/");
            break;
        }
        *slash = '\0';
    }
    return path;
}

static void say_kind(espl__doctor *d, const char *folder) {
    struct statfs found;
    if (statfs(folder, &found) != 0)
        return;
    const char *name = "of a kind that is not known here";
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if ((unsigned)found.f_type != kinds[i].type)
            continue;
        name = kinds[i].name;
        if (kinds[i].why != NULL)
            espl__doctor_say(d, ESPL_POOR, kinds[i].advice, "%s is on %s: %s", folder, name, kinds[i].why);
    }
    espl__doctor_say(d, ESPL_FINE, "", "%s: file system %s", folder, name);
}

static void say_room(espl__doctor *d, const char *folder) {
    struct statvfs found;
    if (statvfs(folder, &found) != 0)
        return;
    double gib = (double)found.f_bavail * (double)found.f_frsize / 1073741824.0;
    espl__doctor_say(d, ESPL_FINE, "", "%s: %.1f GiB free", folder, gib);
    if (found.f_flag & ST_RDONLY)
        espl__doctor_say(d, ESPL_FAILS, "give another run.dir", "%s is mounted read-only", folder);
    if (found.f_blocks > 0 && gib < 1.0)
        espl__doctor_say(d, ESPL_POOR, "make room, or give another run.dir; `espalier plan` says what a checkpoint takes",
                         "%s has room for %.3f GiB, with quotas as the system tells them", folder, gib);
    if (found.f_files > 0 && found.f_favail < 1000)
        espl__doctor_say(d, ESPL_FAILS, "remove files, or give another run.dir", "%s has room for %llu more files", folder,
                         (unsigned long long)found.f_favail);
}

/* What a commit does: write, fsync, rename, fsync of the folder. */
static espl_status try_commit(const char *folder) {
    char *path = espl_format("%s/written", folder), *bytes = espl_calloc(1, TRIED_BYTES);
    espl_status status = espl_fs_write_file(path, bytes, TRIED_BYTES);
    if (status == ESPL_OK)
        status = espl_fs_unlink(path);
    free(path);
    free(bytes);
    return status;
}

/* HDF5 takes flock, which some file systems refuse; Espalier's own files are opened without. */
static void try_lock(espl__doctor *d, const char *folder) {
    char *path = espl_format("%s/lock", folder);
    int fd = -1;
    if (espl_fs_open_write(path, &fd) == ESPL_OK && flock(fd, LOCK_EX | LOCK_NB) != 0)
        espl__doctor_say(d, ESPL_POOR, "export HDF5_USE_FILE_LOCKING=FALSE where h5py reads checkpoints; Espalier does not need locks",
                         "files cannot be locked here: %s", strerror(errno));
    espl_fs_discard(&fd);
    unlink(path);
    free(path);
}

static void try_direct(espl__doctor *d, const char *folder) {
    char *path = espl_format("%s/direct", folder);
    int fd = -1, direct = -1;
    if (espl_fs_open_write(path, &fd) == ESPL_OK && espl_fs_open_direct(path, &direct) == ESPL_OK)
        espl__doctor_say(d, ESPL_FINE, "",
                         direct >= 0 ? "saves go past the page cache" : "saves go through the page cache, which costs CPU time");
    espl_fs_discard(&fd);
    espl_fs_discard(&direct);
    unlink(path);
    free(path);
}

void espl__check_files(espl__doctor *d) {
    char *folder = existing(d->options->folder), *tried = espl_format("%s/doctor-%s-%d", folder, d->ranks->host, (int)getpid());
    say_kind(d, folder);
    say_room(d, folder);
    espl_status status = espl_fs_make_folder(tried);
    if (status == ESPL_OK) {
        status = try_commit(tried);
        if (status == ESPL_OK)
            espl__doctor_say(d, ESPL_FINE, "", "write, fsync and rename work as a checkpoint needs them");
        try_direct(d, tried);
        try_lock(d, tried);
        rmdir(tried);
    }
    if (status != ESPL_OK)
        espl__doctor_say(d, ESPL_FAILS, "give another run.dir, or have the folder made writable", "%s", espl_status_message());
    free(folder);
    free(tried);
}

/* ---- Seen by all hosts. */

/* Rank 0 leaves a file with a number; hosts that do not find it are on another file system of the same name. */
static void look_for(espl__doctor *d, const char *path, int64_t number) {
    espl_buffer text = {0};
    bool found = espl_fs_read_file(path, 64, &text) == ESPL_OK && strtoll(text.data, NULL, 10) == number;
    if (!found)
        espl__doctor_say(d, ESPL_FAILS, "put run.dir, model and data on a file system that all hosts share",
                         "what rank 0 writes to %s is not there", d->options->folder);
    espl_status_clear();
    espl_buffer_free(&text);
}

espl_status espl__check_shared_folder(espl__doctor *d) {
    const espl_ranks *ranks = d->ranks;
    if (ranks->n_nodes == 1)
        return ESPL_OK;
    char path[PATH_MAX] = "";
    int64_t number = (int64_t)getpid() << 20 ^ (int64_t)(uintptr_t)path >> 4;
    if (ranks->rank == 0) {
        char *folder = existing(d->options->folder), *text = espl_format("%lld\n", (long long)number);
        snprintf(path, sizeof path, "%s/doctor-seen-%s-%d", folder, ranks->host, (int)getpid());
        if (espl_fs_write_file(path, text, strlen(text)) != ESPL_OK)
            path[0] = '\0'; /* told already, as what rank 0 cannot write */
        espl_status_clear();
        free(folder);
        free(text);
    }
    ESPL_TRY(espl_comm_bcast(d->comm, &number, sizeof number, 0));
    ESPL_TRY(espl_comm_bcast(d->comm, path, sizeof path, 0));
    if (path[0] != '\0' && ranks->node_rank == 0 && ranks->rank != 0)
        look_for(d, path, number);
    ESPL_TRY(espl_comm_barrier(d->comm));
    if (path[0] != '\0' && ranks->rank == 0)
        unlink(path);
    return ESPL_OK;
}
