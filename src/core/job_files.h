/* What a job has read of the files that every rank needs at its start, so that a rank need not go to the file system for it.
 *
 * A table from paths, as they are spelled, to contents or open descriptors; io/share_files.h fills it on all ranks, readers look here
 * first. Of a folder in the table everything is known: a file that it has not is absent. The table is the calling thread's, which is the
 * one that starts the run; others find it empty and go to the file system. */
#ifndef ESPL_CORE_JOB_FILES_H
#define ESPL_CORE_JOB_FILES_H

#include "src/core/buffer.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum espl_job_file_kind {
    ESPL_JOB_FILE_OUTSIDE,    /* it is there, and everyone reads it himself */
    ESPL_JOB_FILE_CONTENTS,   /* bytes [size] */
    ESPL_JOB_FILE_DESCRIPTOR, /* fd, open to read */
    ESPL_JOB_FILE_FOLDER,
    ESPL_JOB_FILE_ERROR /* it cannot be read: errno */
} espl_job_file_kind;

typedef struct espl_job_file {
    espl_job_file_kind kind;
    int error, fd;
    char *bytes;
    size_t size;
} espl_job_file;

/* Local. Puts a file in the table, or another in its place; takes over bytes and fd. */
void espl_job_files_put(const char *path, const espl_job_file *file);

/* Local. What is known of a path; NULL: nothing. Valid until the table changes. */
const espl_job_file *espl_job_files_find(const char *path);

/* Local. Takes one path out of the table, which may lack it. */
void espl_job_files_drop(const char *path);

/* Local. Empties the table and closes its descriptors. */
void espl_job_files_forget(void);

/* Local. Appends a whole file to `text`, from the table or from the file system. Returns 0 or an errno. */
int espl_file_read(const char *path, espl_buffer *text);

/* Local. Whether a path is a folder, or is there at all; false also when the system cannot say. */
bool espl_file_is_folder(const char *path);
bool espl_file_is_there(const char *path);

#endif
