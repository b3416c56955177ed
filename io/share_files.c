#include "io/share_files.h"

#include "io/fsio.h"
#include "src/core/job_files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 256 << 20 }; /* of one file that is sent */

/* What rank 0 tells of one path: this, the path with its NUL, the bytes. */
typedef struct notice {
    int64_t kind, error, path_size, size;
} notice;

static bool ends_in(const char *path, const char *ending) {
    size_t n = strlen(path), m = strlen(ending);
    return n >= m && strcmp(path + n - m, ending) == 0;
}

static bool is_mapped(const char *path) { return ends_in(path, ".safetensors") || ends_in(path, ".h5"); }

static bool is_text(const char *path) {
    static const char *const endings[] = {".json", ".jinja", ".yaml", ".md"};
    bool text = false;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
        text = text || ends_in(path, endings[i]);
    return text;
}

/* ---- Rank 0: looking. */

static void tell(espl_buffer *all, const char *path, espl_job_file_kind kind, int error, const espl_buffer *bytes) {
    const notice head = {
        .kind = kind, .error = error, .path_size = (int64_t)strlen(path) + 1, .size = bytes != NULL ? (int64_t)bytes->size : 0};
    espl_buffer_append(all, &head, sizeof head);
    espl_buffer_append(all, path, (size_t)head.path_size);
    if (head.size > 0)
        espl_buffer_append(all, bytes->data, bytes->size);
}

static void tell_file(espl_buffer *all, const char *path, bool named) {
    espl_buffer bytes = {0};
    int64_t size = 0;
    bool small = espl_fs_path_size(path, &size) == ESPL_OK && size <= MOST_BYTES;
    if (is_mapped(path)) {
        tell(all, path, ESPL_JOB_FILE_DESCRIPTOR, 0, NULL);
    } else if (!small || !(named || is_text(path))) {
        tell(all, path, ESPL_JOB_FILE_OUTSIDE, 0, NULL);
    } else {
        int error = espl_file_read(path, &bytes);
        tell(all, path, error == 0 ? ESPL_JOB_FILE_CONTENTS : ESPL_JOB_FILE_ERROR, error, &bytes);
    }
    espl_buffer_free(&bytes);
}

static void tell_folder(espl_buffer *all, const char *folder) {
    char **names = NULL;
    size_t n = 0;
    if (espl_fs_list(folder, &names, &n) != ESPL_OK) /* then each rank finds out by itself */
        return;
    tell(all, folder, ESPL_JOB_FILE_FOLDER, 0, NULL);
    for (size_t i = 0; i < n; i++) {
        char *path = espl_format("%s/%s", folder, names[i]);
        if (espl_fs_is_file(path))
            tell_file(all, path, false);
        else
            tell(all, path, ESPL_JOB_FILE_OUTSIDE, 0, NULL);
        free(path);
    }
    espl_fs_free_names(names, n);
}

static void tell_path(espl_buffer *all, const char *path) {
    struct stat found;
    if (path[0] == '\0')
        return;
    if (stat(path, &found) != 0)
        tell(all, path, ESPL_JOB_FILE_ERROR, errno, NULL);
    else if (S_ISDIR(found.st_mode))
        tell_folder(all, path);
    else if (S_ISREG(found.st_mode))
        tell_file(all, path, true);
}

static bool is_among(const char *const *paths, int n, const char *path) {
    for (int i = 0; i < n; i++)
        if (strcmp(paths[i], path) == 0)
            return true;
    return false;
}

static bool is_known_folder(const char *path) {
    const espl_job_file *known = espl_job_files_find(path);
    return known != NULL && known->kind == ESPL_JOB_FILE_FOLDER;
}

/* ---- All ranks: taking. */

static const char *take(const char *at, char **mapped, int *n_mapped) {
    notice head;
    memcpy(&head, at, sizeof head);
    const char *path = at + sizeof head, *bytes = path + head.path_size;
    espl_job_file file = {.kind = (espl_job_file_kind)head.kind, .error = (int)head.error, .fd = -1, .size = (size_t)head.size};
    if (file.kind == ESPL_JOB_FILE_DESCRIPTOR) {
        mapped[(*n_mapped)++] = espl_strdup(path);
        file.kind = ESPL_JOB_FILE_OUTSIDE; /* until it is open */
    } else if (file.kind == ESPL_JOB_FILE_CONTENTS) {
        file.bytes = espl_malloc(file.size + 1);
        memcpy(file.bytes, bytes, file.size);
    }
    espl_job_files_put(path, &file);
    return bytes + head.size;
}

/* A file that the first rank of a host cannot open stays outside: whoever needs it says why. */
static espl_status share_mapped(espl_comm *comm, char **paths, int n) {
    int *fds = espl_malloc((size_t)(n + 1) * sizeof *fds);
    for (int i = 0; i < n; i++) {
        fds[i] = -1;
        if (espl_comm_ranks(comm)->node_rank == 0 && espl_fs_open_read(paths[i], &fds[i]) != ESPL_OK)
            espl_status_clear();
    }
    espl_status status = espl_descriptors_share(comm, fds, n);
    for (int i = 0; i < n; i++)
        if (fds[i] >= 0)
            espl_job_files_put(paths[i], &(espl_job_file){.kind = ESPL_JOB_FILE_DESCRIPTOR, .fd = fds[i]});
    free(fds);
    return status;
}

static espl_status take_all(espl_comm *comm, const espl_buffer *all, int64_t n) {
    char **mapped = espl_malloc((size_t)(n + 1) * sizeof *mapped);
    int n_mapped = 0;
    const char *at = all->data;
    while (at != NULL && at < all->data + all->size)
        at = take(at, mapped, &n_mapped);
    espl_status status = n_mapped > 0 ? share_mapped(comm, mapped, n_mapped) : ESPL_OK;
    for (int i = 0; i < n_mapped; i++)
        free(mapped[i]);
    free(mapped);
    return status;
}

espl_status espl_files_share(espl_comm *comm, const char *const *paths, int n) {
    espl_buffer all = {0};
    espl_status status = ESPL_OK;
    bool first = espl_comm_ranks(comm)->rank == 0;
    for (int i = 0; i < n && first; i++)
        if (!is_among(paths, i, paths[i]) && !is_known_folder(paths[i]))
            tell_path(&all, paths[i]);
    espl_status_clear();
    int64_t size = (int64_t)all.size;
    ESPL_TRY_DONE(espl_comm_bcast(comm, &size, sizeof size, 0));
    if (!first) {
        espl_buffer_reserve(&all, (size_t)size + 1);
        all.size = (size_t)size;
    }
    if (size > 0)
        ESPL_TRY_DONE(espl_comm_bcast(comm, all.data, (size_t)size, 0));
    ESPL_TRY_DONE(take_all(comm, &all, size / (int64_t)sizeof(notice)));
done:
    espl_buffer_free(&all);
    return status;
}
