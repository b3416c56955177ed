#include "io/fsio.h"
#include "io/readers/readers_internal.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_DEPTH = 64, /* of folders in folders; links may run in circles */
    MIN_BLOCK = 4   /* the first line begins behind a byte order mark of three bytes, and in the first share */
};

static bool ends_in(const char *path, size_t size, const char *ending) {
    size_t n = strlen(ending);
    return size >= n && memcmp(path + size - n, ending, n) == 0;
}

static const struct {
    const char *ending;
    espl_packing packing;
} packings[] = {{".gz", ESPL_GZ}, {".zst", ESPL_ZST}};

static const struct {
    const char *ending;
    espl_read_format format;
} formats[] = {{".jsonl", ESPL_READ_JSONL}, {".ndjson", ESPL_READ_JSONL}, {".json", ESPL_READ_JSONL},
               {".csv", ESPL_READ_CSV},     {".tsv", ESPL_READ_TSV},      {".h5", ESPL_READ_TOKENS}};

static void tell_kind(const char *path, espl_input *input) {
    size_t size = strlen(path);
    for (size_t i = 0; i < sizeof packings / sizeof packings[0]; i++)
        if (ends_in(path, size, packings[i].ending)) {
            input->packing = packings[i].packing;
            size -= strlen(packings[i].ending);
            break;
        }
    if (input->format != ESPL_READ_AUTO)
        return;
    input->format = ESPL_READ_TEXT;
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (ends_in(path, size, formats[i].ending))
            input->format = formats[i].format;
}

/* How files are to be read, and the class that they are of. */
typedef struct file_kind {
    espl_read_format format;
    const char *label; /* NULL: none */
} file_kind;

static espl_status add_file(espl_inputs *inputs, const char *path, file_kind kind) {
    espl_input input = {.format = kind.format};
    ESPL_TRY(espl_fs_path_size(path, &input.bytes));
    tell_kind(path, &input);
    input.path = espl_strdup(path);
    input.label = kind.label != NULL ? espl_strdup(kind.label) : NULL;
    inputs->items = espl_realloc(inputs->items, (size_t)(inputs->n + 1) * sizeof *inputs->items);
    inputs->items[inputs->n++] = input;
    return ESPL_OK;
}

static espl_status add_folder(espl_inputs *inputs, const char *folder, file_kind kind, int depth);

static espl_status add_path(espl_inputs *inputs, const char *path, file_kind kind, int depth) {
    if (espl_fs_is_folder(path))
        return add_folder(inputs, path, kind, depth);
    if (!espl_fs_is_file(path))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: no such file or folder, expected data to read", path);
    return add_file(inputs, path, kind);
}

static espl_status add_folder(espl_inputs *inputs, const char *folder, file_kind kind, int depth) {
    espl_status status = ESPL_OK;
    char **names = NULL;
    size_t n = 0;
    bool classes = kind.format == ESPL_READ_FOLDERS && kind.label == NULL;
    if (depth == MAX_DEPTH)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %d folders deep, expected fewer: does a link lead back?", folder, MAX_DEPTH);
    ESPL_TRY(espl_fs_list(folder, &names, &n));
    for (size_t i = 0; i < n && status == ESPL_OK; i++) {
        if (names[i][0] == '.')
            continue;
        char *path = espl_format("%s/%s", folder, names[i]);
        if (!classes)
            status = add_path(inputs, path, kind, depth + 1);
        else if (espl_fs_is_folder(path))
            status = add_folder(inputs, path, (file_kind){kind.format, names[i]}, depth + 1);
        free(path);
    }
    espl_fs_free_names(names, n);
    return status;
}

/* A path as the user gave it. */
static espl_status add_named(espl_inputs *inputs, const char *path, espl_read_format format) {
    if (format == ESPL_READ_FOLDERS && !espl_fs_is_folder(path))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: not a folder, but data.format is folders: a folder is expected that holds a folder for each class",
                  path);
    return add_path(inputs, path, (file_kind){format, NULL}, 0);
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static espl_status add_glob(espl_inputs *inputs, const char *pattern, espl_read_format format) {
    glob_t matches = {0};
    espl_status status = ESPL_OK;
    int result = glob(pattern, GLOB_NOSORT, NULL, &matches);
    if (result != 0 && result != GLOB_NOMATCH)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: the pattern cannot be matched: %s", pattern,
                       result == GLOB_NOSPACE ? "out of memory" : "a folder cannot be read");
    if (result == GLOB_NOMATCH)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: the pattern matches no file", pattern);
    qsort(matches.gl_pathv, matches.gl_pathc, sizeof *matches.gl_pathv, by_bytes);
    for (size_t i = 0; i < matches.gl_pathc; i++)
        ESPL_TRY_DONE(add_named(inputs, matches.gl_pathv[i], format));
done:
    globfree(&matches);
    return status;
}

espl_status espl_inputs_find(char *const *paths, int64_t n_paths, espl_read_format format, espl_inputs *inputs) {
    espl_status status = ESPL_OK;
    *inputs = (espl_inputs){0};
    for (int64_t i = 0; i < n_paths; i++) {
        int64_t before = inputs->n;
        bool there = espl_fs_is_file(paths[i]) || espl_fs_is_folder(paths[i]);
        if (!there && strpbrk(paths[i], "*?[") != NULL)
            ESPL_TRY_DONE(add_glob(inputs, paths[i], format));
        else
            ESPL_TRY_DONE(add_named(inputs, paths[i], format));
        if (inputs->n == before)
            ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: no file in it, expected %s", paths[i],
                           format == ESPL_READ_FOLDERS ? "a folder of texts for each class" : "data to read");
    }
done:
    if (status != ESPL_OK)
        espl_inputs_free(inputs);
    return status;
}

/* ---- From rank 0 to all. */

static void pack_text(espl_buffer *packed, const char *text) { espl_buffer_append(packed, text, strlen(text) + 1); }

static void pack(const espl_inputs *inputs, espl_buffer *packed) {
    for (int64_t i = 0; i < inputs->n; i++) {
        const espl_input *input = &inputs->items[i];
        const int64_t facts[] = {input->bytes, input->format, input->packing, input->label != NULL};
        espl_buffer_append(packed, facts, sizeof facts);
        pack_text(packed, input->path);
        pack_text(packed, input->label != NULL ? input->label : "");
    }
}

static void unpack(const char *at, int64_t n, espl_inputs *inputs) {
    inputs->items = espl_calloc((size_t)n, sizeof *inputs->items);
    for (inputs->n = 0; inputs->n < n; inputs->n++) {
        espl_input *input = &inputs->items[inputs->n];
        int64_t facts[4];
        memcpy(facts, at, sizeof facts);
        *input = (espl_input){.bytes = facts[0], .format = (espl_read_format)facts[1], .packing = (espl_packing)facts[2]};
        input->path = espl_strdup(at += sizeof facts);
        at += strlen(at) + 1;
        input->label = facts[3] ? espl_strdup(at) : NULL;
        at += strlen(at) + 1;
    }
}

espl_status espl_inputs_share(espl_comm *comm, char *const *paths, int64_t n_paths, espl_read_format format, espl_inputs *inputs) {
    bool first = espl_comm_ranks(comm)->rank == 0;
    espl_buffer packed = {0};
    *inputs = (espl_inputs){0};
    espl_status status = first ? espl_inputs_find(paths, n_paths, format, inputs) : ESPL_OK;
    ESPL_TRY(espl_comm_agree(comm, status, "finding the data"));
    if (first)
        pack(inputs, &packed);
    int64_t sizes[] = {inputs->n, (int64_t)packed.size};
    ESPL_TRY_DONE(espl_comm_bcast(comm, sizes, sizeof sizes, 0));
    if (!first)
        espl_buffer_reserve(&packed, (size_t)sizes[1] + 1);
    if (sizes[1] > 0)
        ESPL_TRY_DONE(espl_comm_bcast(comm, packed.data, (size_t)sizes[1], 0));
    if (!first && sizes[0] > 0)
        unpack(packed.data, sizes[0], inputs);
done:
    espl_buffer_free(&packed);
    return status;
}

/* ---- */

static void free_input(espl_input *input) {
    free(input->path);
    free(input->label);
}

void espl_inputs_free(espl_inputs *inputs) {
    for (int64_t i = 0; i < inputs->n; i++)
        free_input(&inputs->items[i]);
    free(inputs->items);
    *inputs = (espl_inputs){0};
}

/* Lines can be found from any byte on; a JSON array, CSV (quoted newlines), packed bytes and one document a file need all that is before.
 */
static espl_status can_cut(const espl_input *input, espl_read_unit unit, bool *can) {
    bool lines = input->format == ESPL_READ_JSONL || (input->format == ESPL_READ_TEXT && unit != ESPL_READ_FILE);
    *can = input->packing == ESPL_PLAIN && lines;
    if (!*can || input->format != ESPL_READ_JSONL)
        return ESPL_OK;
    espl_stretch stretch;
    bool array = false;
    espl_status status = espl__stretch_open(input, 0, &stretch);
    if (status == ESPL_OK)
        status = espl__json_is_array(&stretch, &array);
    espl__stretch_close(&stretch);
    *can = !array;
    return status;
}

espl_status espl_inputs_cut(const espl_inputs *inputs, espl_read_unit unit, int64_t block, espl_share **shares, int64_t *n) {
    espl_status status = ESPL_OK;
    espl_share *list = NULL;
    int64_t count = 0, capacity = 0;
    if (block < MIN_BLOCK)
        block = MIN_BLOCK;
    for (int64_t i = 0; i < inputs->n; i++) {
        int64_t bytes = inputs->items[i].bytes, pieces = 1;
        bool can = false;
        if (bytes > block)
            ESPL_TRY_DONE(can_cut(&inputs->items[i], unit, &can));
        if (can)
            pieces = (bytes + block - 1) / block;
        for (int64_t p = 0; p < pieces; p++) {
            if (count == capacity)
                list = espl_realloc(list, (size_t)(capacity = 2 * capacity + 16) * sizeof *list);
            list[count++] = (espl_share){.input = i, .begin = p * block, .end = p + 1 < pieces ? (p + 1) * block : bytes};
        }
    }
done:
    if (status != ESPL_OK) {
        free(list);
        list = NULL;
    }
    *shares = list;
    *n = status == ESPL_OK ? count : 0;
    return status;
}
