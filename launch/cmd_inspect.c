#include "launch/artifact.h"
#include "launch/commands.h"
#include "launch/options.h"

#include "io/checkpoint/checkpoint_folder.h"
#include "io/fsio.h"
#include "io/checkpoint/manifest.h"
#include "io/safetensors/safetensors.h"
#include "io/tokens/tokens.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char text[] =
    "Says what PATH is and prints what is in it: a checkpoint, a run folder (its checkpoints, and the newest of them), a Hugging Face\n"
    "folder, a .safetensors file, a token store. Reads headers only; `espalier verify` reads all.\n";

/* ---- A table of tensors, and its last line */

typedef struct totals {
    int64_t tensors, elements, bytes;
} totals;

static void print_tensor(const char *group, const char *name, espl_dtype dtype, int n_dims, const int64_t *shape, totals *sum) {
    char form[160] = "[";
    size_t n = 1;
    int64_t count = espl_manifest_count(n_dims, shape), bytes = count * (int64_t)espl_dtype_size(dtype);
    for (int d = 0; d < n_dims; d++)
        n += (size_t)snprintf(form + n, sizeof form - n, "%s%" PRId64, d > 0 ? ", " : "", shape[d]);
    snprintf(form + n, sizeof form - n, "]");
    printf("  %-12s %-52s %-7s %-20s %14" PRId64 "\n", group, name, espl_dtype_name(dtype), form, bytes);
    sum->tensors++;
    sum->elements += count;
    sum->bytes += bytes;
}

static void print_totals(const totals *sum) {
    printf("  %" PRId64 " tensors, %" PRId64 " elements, %" PRId64 " bytes\n", sum->tensors, sum->elements, sum->bytes);
}

/* ---- Checkpoints */

static void print_record(const json_t *record) {
    char *printed = json_dumps(record, JSON_INDENT(2) | JSON_SORT_KEYS);
    printf("record: %s\n", printed != NULL ? printed : "{}");
    free(printed);
}

static espl_status inspect_checkpoint(const char *path) {
    espl_manifest *m = NULL;
    totals sum = {0};
    ESPL_TRY(espl_manifest_read(path, &m));
    printf("%s: checkpoint of step %" PRId64 ", written by attempt %" PRId64 "\n", path, m->step, m->attempt);
    if (!isnan(m->rating))
        printf("rating (lower is better): %.6g\n", m->rating);
    printf("files:\n");
    for (int64_t i = 0; i < m->n_files; i++)
        printf("  %-20s %14" PRId64 " bytes, checksum %016" PRIx64 "\n", m->files[i].name, m->files[i].bytes, m->files[i].xxh3);
    printf("tensors:\n");
    for (int64_t i = 0; i < m->n_tensors; i++) {
        const espl_manifest_tensor *t = &m->tensors[i];
        print_tensor(t->group, t->name, t->dtype, t->n_dims, t->shape, &sum);
    }
    print_totals(&sum);
    print_record(m->record);
    espl_manifest_free(&m);
    return ESPL_OK;
}

static espl_status inspect_run(const char *folder) {
    espl_committed *list = NULL;
    size_t n = 0;
    ESPL_TRY(espl_checkpoint_list(folder, &list, &n));
    printf("%s: %zu checkpoints, newest first\n", folder, n);
    for (size_t i = 0; i < n; i++)
        printf("  %s\n", list[i].path);
    espl_status status = n > 0 ? inspect_checkpoint(list[0].path) : ESPL_OK;
    espl_checkpoint_list_free(list, n);
    return status;
}

/* ---- Models and token stores */

static espl_status inspect_model(const char *path) {
    espl_safetensors *set = NULL;
    totals sum = {0};
    ESPL_TRY(espl_safetensors_open(path, &set));
    printf("%s: %s\ntensors:\n", path, espl_fs_is_folder(path) ? "Hugging Face folder" : "safetensors file");
    for (int64_t i = 0; i < espl_safetensors_count(set); i++) {
        const espl_tensor_file *t = espl_safetensors_at(set, i);
        print_tensor("", t->name, t->dtype, t->n_dims, t->shape, &sum);
    }
    print_totals(&sum);
    espl_safetensors_close(&set);
    return ESPL_OK;
}

static espl_status inspect_tokens(const char *path) {
    espl_tokens tokens = {0};
    ESPL_TRY(espl_tokens_open(path, false, &tokens));
    printf("%s: token store, key %016" PRIx64 "\n", path, tokens.key);
    printf("  %" PRId64 " tokens of %s, vocabulary %" PRId64 "\n", tokens.n_tokens, tokens.ids16 != NULL ? "16 bits" : "32 bits",
           tokens.vocabulary);
    printf("  %" PRId64 " documents, from %" PRId64 " bytes of text\n", tokens.n_documents, tokens.n_bytes);
    printf("  %s\n", tokens.mask != NULL ? "with a mask of targets" : "every token is a target");
    espl_tokens_close(&tokens);
    return ESPL_OK;
}

static espl_status inspect(const char *path) {
    espl_artifact kind;
    char *at = NULL;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_artifact_find(path, &kind, &at));
    switch (kind) {
    case ESPL_ARTIFACT_CHECKPOINT: ESPL_TRY_DONE(inspect_checkpoint(at)); break;
    case ESPL_ARTIFACT_RUN: ESPL_TRY_DONE(inspect_run(at)); break;
    case ESPL_ARTIFACT_TOKENS: ESPL_TRY_DONE(inspect_tokens(at)); break;
    default: ESPL_TRY_DONE(inspect_model(at));
    }
done:
    free(at);
    return status;
}

static espl_status answer(void *job) {
    const espl_words *operands = job;
    return inspect(operands->items[0]);
}

espl_status espl_cmd_inspect(int argc, char **argv) {
    const espl_usage usage = {.verb = "inspect", .operands = "PATH", .text = text, .min_operands = 1, .max_operands = 1};
    espl_words operands = {0};
    return espl_options_run(&usage, argc, argv, &operands, answer, &operands);
}
