/* Files: every file-system call of the product's own writing goes through one table of functions.
 *
 * The table is what libc offers; a test puts its own in its place to count calls, to fail the n-th with any errno, to cut
 * writes short or to kill the process. On top of the table stand the few things that storage code needs, each with a status
 * whose message names the path and the reason. Calls interrupted by a signal are repeated, short reads and writes continued;
 * fsync is never repeated after an error (the kernel may have dropped the pages). Thread-safe, but for espl_fs_set_table. */
#ifndef ESPL_IO_FSIO_H
#define ESPL_IO_FSIO_H

#include "src/core/buffer.h"
#include "src/core/status.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Bytes: what direct writes are aligned to, and what is worth one. */
enum { ESPL_FS_BLOCK = 1 << 12, ESPL_FS_DIRECT = 1 << 16 };

typedef struct espl_fs_table {
    int (*open)(const char *path, int flags, mode_t mode);
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *to, size_t n, off_t offset);
    ssize_t (*pwrite)(int fd, const void *from, size_t n, off_t offset);
    int (*fsync)(int fd);
    int (*fstat)(int fd, struct stat *found);
    int (*stat)(const char *path, struct stat *found);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*mkdir)(const char *path, mode_t mode);
    int (*rmdir)(const char *path);
    DIR *(*opendir)(const char *path);
    struct dirent *(*readdir)(DIR *folder);
    int (*closedir)(DIR *folder);
} espl_fs_table;

/* Local. Puts another table in the place of libc's; NULL: libc's again. Returns libc's table, to be built upon. For tests. */
const espl_fs_table *espl_fs_set_table(const espl_fs_table *table);

/* Local. Opens a file to read (where the job has it open, espl_files_share, that again); to write (made, emptied); to read and write (as it
 * is). Errors: io. */
espl_status espl_fs_open_read(const char *path, int *fd);
espl_status espl_fs_open_write(const char *path, int *fd);
espl_status espl_fs_open_update(const char *path, int *fd);

/* Local. Opens a file to write past the page cache; where the file system knows no such thing *fd is -1. Errors: io. */
espl_status espl_fs_open_direct(const char *path, int *fd);

/* Local. Closes and sets *fd to -1; -1 is accepted. An error of the system matters only after writing. */
espl_status espl_fs_close(int *fd, const char *path);

/* Local. Closes what is given up or was only read, without a word: the failure in hand stays. Sets -1, accepts -1. */
void espl_fs_discard(int *fd);

/* Local. Exactly n bytes at `offset`. Errors: io; data, when the file ends before. `path` is for messages. */
espl_status espl_fs_read(int fd, void *to, size_t n, int64_t offset, const char *path);
espl_status espl_fs_write(int fd, const void *from, size_t n, int64_t offset, const char *path);

/* Local. espl_fs_write to a file open twice: whole blocks past the page cache through `direct`, what is left through `fd`. All of it goes
 * through `fd` when direct is -1, address or offset are not multiples of ESPL_FS_BLOCK, n is small, or the file system refuses. */
espl_status espl_fs_write_direct(int direct, int fd, const void *from, size_t n, int64_t offset, const char *path);

/* Local. Brings an open file, and the entries of a folder, to the disk. Errors: io. */
espl_status espl_fs_sync(int fd, const char *path);
espl_status espl_fs_sync_folder(const char *folder);

/* Local. Size of an open file or of a path in bytes. Errors: io. */
espl_status espl_fs_size(int fd, int64_t *bytes, const char *path);
espl_status espl_fs_path_size(const char *path, int64_t *bytes);

/* Local. Whether something stands at a path; an error is not an absence. Errors: io. */
espl_status espl_fs_present(const char *path, bool *present);

/* Local. Whether a file, a folder stands at a path; false also when the system cannot say. */
bool espl_fs_is_file(const char *path);
bool espl_fs_is_folder(const char *path);

/* Local. Appends a whole file to `text`, from what the job has read of it or from the system. Errors: io; data, when it is longer than
 * `limit` bytes. */
espl_status espl_fs_read_file(const char *path, size_t limit, espl_buffer *text);

/* Local. Replaces or makes a file so that at any moment, power cuts included, it is the old or the new one: path.tmp, fsync,
 * rename, fsync of the folder. On failure nothing is left behind but the old file. Errors: io. */
espl_status espl_fs_write_file(const char *path, const void *bytes, size_t n);

/* Local. Renames and syncs the folder that holds `to`. Errors: io. */
espl_status espl_fs_rename(const char *from, const char *to);

/* Local. Removes a file; absent is fine. Errors: io. */
espl_status espl_fs_unlink(const char *path);

/* Local. Makes a folder; makes it and those above it that are absent. Existing ones are fine only for the second. Errors: io. */
espl_status espl_fs_make_folder(const char *path);
espl_status espl_fs_make_folders(const char *path);

/* Local. Names in a folder in byte order, without "." and ".."; espl_fs_free_names frees. Errors: io. */
espl_status espl_fs_list(const char *folder, char ***names, size_t *n);
void espl_fs_free_names(char **names, size_t n);

/* Local. Removes a folder of files (no folders within); `first` (or NULL) goes before all else and is synced away. Absent is fine. Errors:
 * io. */
espl_status espl_fs_remove_folder(const char *folder, const char *first);

#endif
