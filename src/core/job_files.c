#include "src/core/job_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct entry {
    char *path;
    espl_job_file file;
} entry;

static _Thread_local struct {
    entry *items;
    int n;
} table;

static entry *entry_of(const char *path, size_t size) {
    for (int i = 0; i < table.n; i++)
        if (strncmp(table.items[i].path, path, size) == 0 && table.items[i].path[size] == '\0')
            return &table.items[i];
    return NULL;
}

static void release(espl_job_file *file) {
    free(file->bytes);
    if (file->kind == ESPL_JOB_FILE_DESCRIPTOR)
        close(file->fd);
}

void espl_job_files_put(const char *path, const espl_job_file *file) {
    entry *e = entry_of(path, strlen(path));
    if (e != NULL) {
        release(&e->file);
    } else {
        table.items = espl_realloc(table.items, (size_t)(table.n + 1) * sizeof *table.items);
        e = &table.items[table.n++];
        e->path = espl_strdup(path);
    }
    e->file = *file;
}

const espl_job_file *espl_job_files_find(const char *path) {
    static const espl_job_file absent = {.kind = ESPL_JOB_FILE_ERROR, .error = ENOENT};
    const char *slash = strrchr(path, '/');
    const entry *e = entry_of(path, strlen(path));
    if (e != NULL)
        return &e->file;
    e = slash != NULL ? entry_of(path, (size_t)(slash - path)) : NULL;
    return e != NULL && e->file.kind == ESPL_JOB_FILE_FOLDER ? &absent : NULL;
}

static void take_out(entry *e) {
    release(&e->file);
    free(e->path);
    *e = table.items[--table.n];
    if (table.n > 0)
        return;
    free(table.items);
    table.items = NULL;
}

void espl_job_files_drop(const char *path) {
    entry *e = entry_of(path, strlen(path));
    if (e != NULL)
        take_out(e);
}

void espl_job_files_forget(void) {
    while (table.n > 0)
        take_out(&table.items[table.n - 1]);
}

static int read_stream(FILE *file, espl_buffer *text) {
    enum { PIECE = 1 << 16 };
    errno = 0;
    for (size_t n = 1; n > 0; text->size += n) {
        espl_buffer_reserve(text, text->size + PIECE);
        n = fread(text->data + text->size, 1, text->capacity - text->size - 1, file);
    }
    text->data[text->size] = '\0';
    return ferror(file) ? (errno != 0 ? errno : EIO) : 0;
}

int espl_file_read(const char *path, espl_buffer *text) {
    const espl_job_file *known = espl_job_files_find(path);
    if (known != NULL && known->kind == ESPL_JOB_FILE_ERROR)
        return known->error;
    if (known != NULL && known->kind == ESPL_JOB_FILE_CONTENTS) {
        espl_buffer_append(text, known->bytes, known->size);
        return 0;
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return errno;
    int error = read_stream(file, text);
    fclose(file);
    return error;
}

static bool look(const char *path, bool folders_alone) {
    const espl_job_file *known = espl_job_files_find(path);
    struct stat found;
    if (known != NULL)
        return folders_alone ? known->kind == ESPL_JOB_FILE_FOLDER : known->kind != ESPL_JOB_FILE_ERROR;
    return stat(path, &found) == 0 && (!folders_alone || S_ISDIR(found.st_mode));
}

bool espl_file_is_folder(const char *path) { return look(path, true); }
bool espl_file_is_there(const char *path) { return look(path, false); }
