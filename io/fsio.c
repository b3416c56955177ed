#include "io/fsio.h"

#include "src/core/job_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int libc_open(const char *path, int flags, mode_t mode) { return open(path, flags | O_CLOEXEC, mode); }

static const espl_fs_table libc_table = {
    .open = libc_open,
    .close = close,
    .pread = pread,
    .pwrite = pwrite,
    .fsync = fsync,
    .fstat = fstat,
    .stat = stat,
    .rename = rename,
    .unlink = unlink,
    .mkdir = mkdir,
    .rmdir = rmdir,
    .opendir = opendir,
    .readdir = readdir,
    .closedir = closedir,
};

static const espl_fs_table *fs = &libc_table;

const espl_fs_table *espl_fs_set_table(const espl_fs_table *table) {
    fs = table != NULL ? table : &libc_table;
    return &libc_table;
}

#define REPEAT(result, call)                                                                                                               \
    do                                                                                                                                     \
        (result) = (call);                                                                                                                 \
    while ((result) < 0 && errno == EINTR)

static espl_status open_flags(const char *path, int flags, const char *why, int *fd) {
    REPEAT(*fd, fs->open(path, flags, 0644));
    if (*fd < 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be opened to %s: %s", path, why, strerror(errno));
    return ESPL_OK;
}

espl_status espl_fs_open_read(const char *path, int *fd) {
    const espl_job_file *known = espl_job_files_find(path);
    if (known == NULL || known->kind != ESPL_JOB_FILE_DESCRIPTOR)
        return open_flags(path, O_RDONLY, "read", fd);
    *fd = fcntl(known->fd, F_DUPFD_CLOEXEC, 0);
    if (*fd < 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be opened to read: %s", path, strerror(errno));
    return ESPL_OK;
}

espl_status espl_fs_open_write(const char *path, int *fd) { return open_flags(path, O_WRONLY | O_CREAT | O_TRUNC, "write", fd); }
espl_status espl_fs_open_update(const char *path, int *fd) { return open_flags(path, O_RDWR, "write", fd); }

static bool knows_no_direct(int error) { return error == EINVAL || error == EOPNOTSUPP; }

espl_status espl_fs_open_direct(const char *path, int *fd) {
    REPEAT(*fd, fs->open(path, O_WRONLY | O_DIRECT, 0644));
    if (*fd < 0 && !knows_no_direct(errno))
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be opened to write: %s", path, strerror(errno));
    return ESPL_OK;
}

/* Linux has given the descriptor back even when close says EINTR: it must not be closed again. */
espl_status espl_fs_close(int *fd, const char *path) {
    int closing = *fd;
    *fd = -1;
    if (closing >= 0 && fs->close(closing) < 0 && errno != EINTR)
        ESPL_FAIL(ESPL_ERR_IO, "%s: closing failed: %s", path, strerror(errno));
    return ESPL_OK;
}

void espl_fs_discard(int *fd) {
    if (*fd >= 0)
        fs->close(*fd);
    *fd = -1;
}

espl_status espl_fs_read(int fd, void *to, size_t n, int64_t offset, const char *path) {
    for (size_t done = 0; done < n;) {
        ssize_t got;
        REPEAT(got, fs->pread(fd, (char *)to + done, n - done, (off_t)offset + (off_t)done));
        if (got < 0)
            ESPL_FAIL(ESPL_ERR_IO, "%s: reading at byte %lld failed: %s", path, (long long)offset + (long long)done, strerror(errno));
        if (got == 0)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: ends at byte %lld, %zu bytes early: the file is truncated", path,
                      (long long)offset + (long long)done, n - done);
        done += (size_t)got;
    }
    return ESPL_OK;
}

espl_status espl_fs_write(int fd, const void *from, size_t n, int64_t offset, const char *path) {
    for (size_t done = 0; done < n;) {
        ssize_t put;
        REPEAT(put, fs->pwrite(fd, (const char *)from + done, n - done, (off_t)offset + (off_t)done));
        if (put <= 0)
            ESPL_FAIL(ESPL_ERR_IO, "%s: writing at byte %lld failed: %s", path, (long long)offset + (long long)done,
                      put < 0 ? strerror(errno) : "the system took nothing");
        done += (size_t)put;
    }
    return ESPL_OK;
}

/* Bytes that went past the page cache: a write cut short within a block leaves the rest to the ordinary way. */
static espl_status write_blocks(int direct, const char *from, size_t n, int64_t offset, const char *path, size_t *done) {
    *done = 0;
    while (*done < n && *done % ESPL_FS_BLOCK == 0) {
        ssize_t put;
        REPEAT(put, fs->pwrite(direct, from + *done, n - *done, (off_t)offset + (off_t)*done));
        if (put < 0 && knows_no_direct(errno))
            return ESPL_OK;
        if (put <= 0)
            ESPL_FAIL(ESPL_ERR_IO, "%s: writing at byte %lld failed: %s", path, (long long)offset + (long long)*done,
                      put < 0 ? strerror(errno) : "the system took nothing");
        *done += (size_t)put;
    }
    return ESPL_OK;
}

espl_status espl_fs_write_direct(int direct, int fd, const void *from, size_t n, int64_t offset, const char *path) {
    size_t done = 0;
    if (direct >= 0 && n >= ESPL_FS_DIRECT && ((uintptr_t)from | (uint64_t)offset) % ESPL_FS_BLOCK == 0)
        ESPL_TRY(write_blocks(direct, from, n - n % ESPL_FS_BLOCK, offset, path, &done));
    return espl_fs_write(fd, (const char *)from + done, n - done, offset + (int64_t)done, path);
}

espl_status espl_fs_sync(int fd, const char *path) {
    int result;
    REPEAT(result, fs->fsync(fd));
    if (result < 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: fsync failed: %s", path, strerror(errno));
    return ESPL_OK;
}

espl_status espl_fs_sync_folder(const char *folder) {
    int fd = -1;
    espl_status status = ESPL_OK;
    ESPL_TRY(open_flags(folder, O_RDONLY | O_DIRECTORY, "sync", &fd));
    ESPL_TRY_DONE(espl_fs_sync(fd, folder));
done:
    espl_fs_discard(&fd);
    return status;
}

espl_status espl_fs_size(int fd, int64_t *bytes, const char *path) {
    struct stat found;
    int result;
    REPEAT(result, fs->fstat(fd, &found));
    if (result < 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: fstat failed: %s", path, strerror(errno));
    *bytes = found.st_size;
    return ESPL_OK;
}

espl_status espl_fs_path_size(const char *path, int64_t *bytes) {
    struct stat found;
    int result;
    REPEAT(result, fs->stat(path, &found));
    if (result < 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: %s", path, errno == ENOENT ? "missing" : strerror(errno));
    *bytes = found.st_size;
    return ESPL_OK;
}

espl_status espl_fs_present(const char *path, bool *present) {
    const espl_job_file *known = espl_job_files_find(path);
    struct stat found;
    int result;
    if (known != NULL && (known->kind != ESPL_JOB_FILE_ERROR || known->error == ENOENT)) {
        *present = known->kind != ESPL_JOB_FILE_ERROR;
        return ESPL_OK;
    }
    REPEAT(result, fs->stat(path, &found));
    if (result < 0 && errno != ENOENT && errno != ENOTDIR)
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be looked at: %s", path, strerror(errno));
    *present = result == 0;
    return ESPL_OK;
}

static mode_t mode_at(const char *path) {
    const espl_job_file *known = espl_job_files_find(path);
    struct stat found;
    int result;
    if (known != NULL && known->kind != ESPL_JOB_FILE_OUTSIDE)
        return known->kind == ESPL_JOB_FILE_ERROR ? 0 : known->kind == ESPL_JOB_FILE_FOLDER ? S_IFDIR : S_IFREG;
    REPEAT(result, fs->stat(path, &found));
    return result < 0 ? 0 : found.st_mode;
}

bool espl_fs_is_file(const char *path) { return S_ISREG(mode_at(path)); }
bool espl_fs_is_folder(const char *path) { return S_ISDIR(mode_at(path)); }

static espl_status check_limit(const char *path, int64_t bytes, size_t limit) {
    if ((uint64_t)bytes > limit)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %lld bytes, expected at most %zu", path, (long long)bytes, limit);
    return ESPL_OK;
}

static espl_status take_contents(const char *path, const espl_job_file *known, size_t limit, espl_buffer *text) {
    ESPL_TRY(check_limit(path, (int64_t)known->size, limit));
    espl_buffer_append(text, known->bytes, known->size);
    return ESPL_OK;
}

espl_status espl_fs_read_file(const char *path, size_t limit, espl_buffer *text) {
    int fd = -1;
    int64_t bytes = 0;
    espl_status status = ESPL_OK;
    const espl_job_file *known = espl_job_files_find(path);
    if (known != NULL && known->kind == ESPL_JOB_FILE_ERROR)
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be opened to read: %s", path, strerror(known->error));
    if (known != NULL && known->kind == ESPL_JOB_FILE_CONTENTS)
        return take_contents(path, known, limit, text);
    ESPL_TRY(espl_fs_open_read(path, &fd));
    ESPL_TRY_DONE(espl_fs_size(fd, &bytes, path));
    ESPL_TRY_DONE(check_limit(path, bytes, limit));
    espl_buffer_reserve(text, (size_t)bytes);
    ESPL_TRY_DONE(espl_fs_read(fd, text->data + text->size, (size_t)bytes, 0, path));
    text->size += (size_t)bytes;
    text->data[text->size] = '\0';
done:
    espl_fs_discard(&fd);
    return status;
}

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return espl_strdup(".");
    return slash == path ? espl_strdup("/") : espl_format("%.*s", (int)(slash - path), path);
}

espl_status espl_fs_rename(const char *from, const char *to) {
    int result;
    REPEAT(result, fs->rename(from, to));
    if (result < 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
    char *folder = folder_of(to);
    espl_status status = espl_fs_sync_folder(folder);
    free(folder);
    return status;
}

static espl_status write_and_sync(const char *path, const void *bytes, size_t n) {
    int fd = -1;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_fs_open_write(path, &fd));
    ESPL_TRY_DONE(espl_fs_write(fd, bytes, n, 0, path));
    ESPL_TRY_DONE(espl_fs_sync(fd, path));
    ESPL_TRY_DONE(espl_fs_close(&fd, path));
done:
    espl_fs_discard(&fd);
    return status;
}

espl_status espl_fs_write_file(const char *path, const void *bytes, size_t n) {
    espl_status status = ESPL_OK;
    char *temporary = espl_format("%s.tmp", path);
    ESPL_TRY_DONE(write_and_sync(temporary, bytes, n));
    ESPL_TRY_DONE(espl_fs_rename(temporary, path));
done:
    if (status != ESPL_OK)
        fs->unlink(temporary);
    free(temporary);
    return status;
}

espl_status espl_fs_unlink(const char *path) {
    int result;
    REPEAT(result, fs->unlink(path));
    if (result < 0 && errno != ENOENT)
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be removed: %s", path, strerror(errno));
    return ESPL_OK;
}

espl_status espl_fs_make_folder(const char *path) {
    int result;
    REPEAT(result, fs->mkdir(path, 0755));
    if (result < 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: folder cannot be made: %s", path, strerror(errno));
    return ESPL_OK;
}

espl_status espl_fs_make_folders(const char *path) {
    if (espl_fs_is_folder(path))
        return ESPL_OK;
    char *above = folder_of(path);
    espl_status status = ESPL_OK;
    if (strcmp(above, path) != 0)
        ESPL_TRY_DONE(espl_fs_make_folders(above));
    status = espl_fs_make_folder(path);
    if (status != ESPL_OK && espl_fs_is_folder(path)) { /* another process was faster */
        espl_status_clear();
        status = ESPL_OK;
    }
done:
    free(above);
    return status;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* readdir tells its end from an error only by errno. */
static espl_status collect_names(DIR *folder, const char *path, char ***names, size_t *n) {
    size_t capacity = 0;
    for (;;) {
        errno = 0;
        struct dirent *entry = fs->readdir(folder);
        if (entry == NULL && errno == EINTR)
            continue;
        if (entry == NULL && errno != 0)
            ESPL_FAIL(ESPL_ERR_IO, "%s: folder cannot be read: %s", path, strerror(errno));
        if (entry == NULL)
            return ESPL_OK;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (*n == capacity) {
            capacity = 2 * capacity + 16;
            *names = espl_realloc(*names, capacity * sizeof **names);
        }
        (*names)[(*n)++] = espl_strdup(entry->d_name);
    }
}

espl_status espl_fs_list(const char *folder, char ***names, size_t *n) {
    *names = NULL;
    *n = 0;
    DIR *open_folder;
    do
        open_folder = fs->opendir(folder);
    while (open_folder == NULL && errno == EINTR);
    if (open_folder == NULL)
        ESPL_FAIL(ESPL_ERR_IO, "%s: folder cannot be opened: %s", folder, strerror(errno));
    espl_status status = collect_names(open_folder, folder, names, n);
    fs->closedir(open_folder);
    if (status != ESPL_OK) {
        espl_fs_free_names(*names, *n);
        *names = NULL;
        *n = 0;
    } else if (*n > 1) {
        qsort(*names, *n, sizeof **names, by_bytes);
    }
    return status;
}

void espl_fs_free_names(char **names, size_t n) {
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

static espl_status unlink_in(const char *folder, const char *name) {
    char *path = espl_format("%s/%s", folder, name);
    espl_status status = espl_fs_unlink(path);
    free(path);
    return status;
}

espl_status espl_fs_remove_folder(const char *folder, const char *first) {
    char **names = NULL;
    size_t n = 0;
    bool present = false;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_fs_present(folder, &present));
    if (!present)
        return ESPL_OK;
    if (first != NULL) {
        ESPL_TRY(unlink_in(folder, first));
        ESPL_TRY(espl_fs_sync_folder(folder));
    }
    ESPL_TRY(espl_fs_list(folder, &names, &n));
    for (size_t i = 0; i < n; i++)
        ESPL_TRY_DONE(unlink_in(folder, names[i]));
    int result;
    REPEAT(result, fs->rmdir(folder));
    if (result < 0 && errno != ENOENT)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: folder cannot be removed: %s", folder, strerror(errno));
done:
    espl_fs_free_names(names, n);
    return status;
}
