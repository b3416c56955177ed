#include "io/labels.h"

#include "io/tokens/tokens.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LABELS = 1 << 16, LISTED = 20, BEAT_DOCUMENTS = 4096, SHARE_BYTES = 4 << 20 };

/* ---- Lists of names. */

void espl_labels_add(espl_labels *labels, const char *name, size_t size) {
    labels->names = espl_realloc(labels->names, (size_t)(labels->n + 1) * sizeof *labels->names);
    char *copy = espl_malloc(size + 1);
    memcpy(copy, name, size);
    copy[size] = '\0';
    labels->names[labels->n++] = copy;
}

static bool is_name(const char *label, const char *name, size_t size) { return strncmp(label, name, size) == 0 && label[size] == '\0'; }

int32_t espl_labels_find(const espl_labels *labels, const char *name, size_t size) {
    for (int64_t i = 0; i < labels->n; i++)
        if (is_name(labels->names[i], name, size))
            return (int32_t)i;
    return -1;
}

bool espl_labels_equal(const espl_labels *a, const espl_labels *b) {
    bool equal = a->n == b->n;
    for (int64_t i = 0; i < a->n && equal; i++)
        equal = strcmp(a->names[i], b->names[i]) == 0;
    return equal;
}

void espl_labels_list(const espl_labels *labels, espl_buffer *out) {
    for (int64_t i = 0; i < labels->n && i < LISTED; i++)
        espl_buffer_printf(out, "%s%s", i > 0 ? ", " : "", labels->names[i]);
    if (labels->n > LISTED)
        espl_buffer_printf(out, " and %lld more", (long long)labels->n - LISTED);
}

void espl_labels_pack(const espl_labels *labels, espl_buffer *out) {
    for (int64_t i = 0; i < labels->n; i++)
        espl_buffer_append(out, labels->names[i], strlen(labels->names[i]) + 1);
}

bool espl_labels_unpack(const char *bytes, size_t n, espl_labels *labels) {
    *labels = (espl_labels){0};
    if (n == 0 || bytes[n - 1] != '\0')
        return false;
    for (size_t at = 0; at < n; at += strlen(bytes + at) + 1)
        espl_labels_add(labels, bytes + at, strlen(bytes + at));
    return true;
}

void espl_labels_keep(const espl_labels *labels, espl_inputs *inputs) {
    int64_t n = 0;
    for (int64_t i = 0; i < inputs->n; i++) {
        espl_input *input = &inputs->items[i];
        if (input->label == NULL || espl_labels_find(labels, input->label, strlen(input->label)) >= 0) {
            inputs->items[n++] = *input;
        } else {
            free(input->path);
            free(input->label);
        }
    }
    inputs->n = n;
}

void espl_labels_free(espl_labels *labels) {
    for (int64_t i = 0; i < labels->n; i++)
        free(labels->names[i]);
    free(labels->names);
    *labels = (espl_labels){0};
}

/* ---- Order. */

static bool is_integer(const char *name, long long *value) {
    char *end;
    errno = 0;
    *value = strtoll(name, &end, 10);
    return name[0] != '\0' && !(name[0] >= '\t' && name[0] <= ' ') && *end == '\0' && errno == 0;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int by_number(const void *a, const void *b) {
    long long x, y;
    is_integer(*(char *const *)a, &x);
    is_integer(*(char *const *)b, &y);
    return x < y ? -1 : x > y ? 1 : by_bytes(a, b); /* 1 and 01 are two names */
}

/* Names as they were found in: sorted, each once. */
static void sort_labels(espl_labels *labels) {
    long long value;
    bool numbers = true;
    int64_t n = 0;
    for (int64_t i = 0; i < labels->n; i++)
        numbers = numbers && is_integer(labels->names[i], &value);
    if (labels->n > 0)
        qsort(labels->names, (size_t)labels->n, sizeof *labels->names, numbers ? by_number : by_bytes);
    for (int64_t i = 0; i < labels->n; i++) {
        if (n > 0 && strcmp(labels->names[n - 1], labels->names[i]) == 0)
            free(labels->names[i]);
        else
            labels->names[n++] = labels->names[i];
    }
    labels->n = n;
}

/* ---- Finding them. */

/* Sorted by bytes while they are few thousand words that come a million times. */
static espl_status note(espl_labels *labels, const espl_document *document) {
    int64_t low = 0, high = labels->n;
    ESPL_ASSERT(document->label != NULL, "%s: a labelled record without its label", document->path);
    while (low < high) {
        int64_t middle = (low + high) / 2;
        int order = strncmp(labels->names[middle], document->label, document->label_size);
        if (order == 0 && labels->names[middle][document->label_size] == '\0')
            return ESPL_OK;
        *(order < 0 ? &low : &high) = order < 0 ? middle + 1 : middle;
    }
    if (memchr(document->label, '\0', document->label_size) != NULL)
        return ESPL_OK; /* no name; whoever reads the data next says so */
    if (labels->n == MOST_LABELS)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: more than %d labels: is data.label_field the right one?", document->path, MOST_LABELS);
    espl_labels_add(labels, document->label, document->label_size);
    char *added = labels->names[labels->n - 1];
    memmove(&labels->names[low + 1], &labels->names[low], (size_t)(labels->n - 1 - low) * sizeof *labels->names);
    labels->names[low] = added;
    return ESPL_OK;
}

static espl_status read_share(espl_comm *comm, const espl_inputs *inputs, const espl_share *share, const espl_reader_options *options,
                              espl_labels *labels) {
    espl_reader *reader;
    espl_document document;
    bool found = true;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_reader_open(inputs, share, options, &reader));
    for (int64_t i = 0; found && status == ESPL_OK; i++) {
        if (i % BEAT_DOCUMENTS == 0)
            espl_comm_beat(comm, 0, "finding the labels");
        status = espl_reader_next(reader, &document, &found);
        if (status == ESPL_OK && found)
            status = note(labels, &document);
    }
    espl_reader_close(&reader);
    return status;
}

static espl_status add_store(const char *path, espl_labels *labels) {
    espl_tokens tokens;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_tokens_open(path, false, &tokens));
    if (tokens.names.n == 0)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: a token store without labels, expected one that was made with data.task: classification", path);
    for (int64_t i = 0; i < tokens.names.n; i++) {
        const espl_document document = {.label = tokens.names.names[i], .label_size = strlen(tokens.names.names[i]), .path = path};
        ESPL_TRY_DONE(note(labels, &document));
    }
done:
    espl_tokens_close(&tokens);
    return status;
}

static espl_status find_own(espl_comm *comm, const espl_inputs *inputs, const espl_reader_options *options, espl_labels *labels) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    espl_share *shares;
    int64_t n;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_inputs_cut(inputs, options->unit, SHARE_BYTES, &shares, &n));
    for (int64_t i = ranks->rank; i < n && status == ESPL_OK; i += ranks->size) {
        const espl_input *input = &inputs->items[shares[i].input];
        const espl_document folder = {.label = input->label, .label_size = input->label ? strlen(input->label) : 0, .path = input->path};
        status = input->format == ESPL_READ_TOKENS    ? add_store(input->path, labels)
                 : input->format == ESPL_READ_FOLDERS ? note(labels, &folder)
                                                      : read_share(comm, inputs, &shares[i], options, labels);
    }
    free(shares);
    return status;
}

/* Every rank's names on every rank. */
static espl_status merge(espl_comm *comm, espl_labels *labels) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    espl_buffer mine = {0};
    espl_labels_pack(labels, &mine);
    int64_t most = (int64_t)mine.size;
    espl_status status = espl_comm_allreduce_i64(comm, &most, 1, ESPL_MAX);
    if (status == ESPL_OK && most > 0) {
        size_t room = (size_t)most + sizeof most; /* how many bytes are used, and they */
        char *own = espl_calloc(1, room), *all = espl_malloc(room * (size_t)ranks->size);
        memcpy(own, &mine.size, sizeof mine.size);
        if (mine.size > 0)
            memcpy(own + sizeof most, mine.data, mine.size);
        status = espl_comm_allgather(comm, own, room, all);
        espl_labels_free(labels);
        for (int r = 0; r < ranks->size && status == ESPL_OK; r++) {
            const char *from = all + room * (size_t)r;
            size_t used;
            memcpy(&used, from, sizeof used);
            for (size_t at = 0; at < used; at += strlen(from + sizeof most + at) + 1)
                espl_labels_add(labels, from + sizeof most + at, strlen(from + sizeof most + at));
        }
        free(own);
        free(all);
    }
    espl_buffer_free(&mine);
    return status;
}

espl_status espl_labels_collect(espl_comm *comm, char *const *paths, int64_t n_paths, espl_read_format format,
                                const espl_reader_options *options, espl_labels *labels) {
    espl_inputs inputs = {0};
    espl_status status = ESPL_OK;
    espl_reader_options quiet = *options;
    quiet.skip_bad = quiet.silent = true;
    *labels = (espl_labels){0};
    ESPL_TRY_DONE(espl_inputs_share(comm, paths, n_paths, format, &inputs));
    ESPL_TRY_DONE(espl_comm_agree(comm, find_own(comm, &inputs, &quiet, labels), "finding the labels"));
    ESPL_TRY_DONE(merge(comm, labels));
    sort_labels(labels);
    quiet.skip_bad = quiet.silent = false;
    if (labels->n == 0) /* the first bad record says why */
        ESPL_TRY_DONE(espl_comm_agree(comm, find_own(comm, &inputs, &quiet, labels), "finding the labels"));
    if (labels->n == 0)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s%s: no record with a label in it, at least one is expected", paths[0], n_paths > 1 ? " ..." : "");
done:
    espl_inputs_free(&inputs);
    return status;
}
