#include "launch/artifact.h"
#include "launch/commands.h"
#include "launch/options.h"

#include "io/checkpoint/checkpoint_folder.h"
#include "io/checkpoint/checkpoint.h"
#include "io/tokens/tokens.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char text[] =
    "Reads PATH whole and checks it. A checkpoint: manifest, sizes, every checksum. A run folder: all of its checkpoints. A token\n"
    "store: every checksum. A Hugging Face folder or .safetensors file: header and bounds, for that format has no checksums.\n"
    "The digest of a checkpoint is one number for the names, shapes and values of its model, whatever number of ranks wrote it; of\n"
    "a run folder's, that of the newest.\n";

static espl_status verify_run(const char *folder) {
    espl_committed *list = NULL;
    size_t n = 0;
    espl_status worst = ESPL_OK;
    ESPL_TRY(espl_checkpoint_list(folder, &list, &n));
    for (size_t i = 0; i < n; i++) {
        espl_status status = espl_checkpoint_verify(list[i].path);
        if (status == ESPL_OK)
            printf("%s: ok\n", list[i].path);
        else
            printf("%s: %s\n", list[i].path, espl_status_message());
        worst = status != ESPL_OK ? status : worst;
    }
    espl_checkpoint_list_free(list, n);
    if (worst != ESPL_OK)
        ESPL_FAIL(worst, "%s: not every checkpoint verifies", folder);
    return ESPL_OK;
}

static espl_status verify_tokens(const char *path) {
    espl_tokens tokens = {0};
    ESPL_TRY(espl_tokens_open(path, true, &tokens));
    espl_tokens_close(&tokens);
    return ESPL_OK;
}

static espl_status verify_model(const char *path) {
    espl_safetensors *set = NULL;
    ESPL_TRY(espl_safetensors_open(path, &set));
    espl_safetensors_close(&set);
    return ESPL_OK;
}

static espl_status verify(espl_artifact kind, const char *at) {
    switch (kind) {
    case ESPL_ARTIFACT_RUN: return verify_run(at);
    case ESPL_ARTIFACT_CHECKPOINT: ESPL_TRY(espl_checkpoint_verify(at)); break;
    case ESPL_ARTIFACT_TOKENS: ESPL_TRY(verify_tokens(at)); break;
    default: ESPL_TRY(verify_model(at));
    }
    printf("%s: ok\n", at);
    return ESPL_OK;
}

static espl_status print_digest(espl_artifact kind, const char *at) {
    espl_committed *list = NULL;
    size_t n = 0;
    uint64_t digest = 0;
    if (kind != ESPL_ARTIFACT_CHECKPOINT && kind != ESPL_ARTIFACT_RUN)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: --digest is for checkpoints", at);
    if (kind == ESPL_ARTIFACT_RUN)
        ESPL_TRY(espl_checkpoint_list(at, &list, &n));
    espl_status status = espl_checkpoint_digest(n > 0 ? list[0].path : at, &digest);
    espl_checkpoint_list_free(list, n);
    ESPL_TRY(status);
    printf("%016" PRIx64 "\n", digest);
    return ESPL_OK;
}

typedef struct job {
    espl_words operands;
    bool digest;
} job;

static espl_status answer(void *context) {
    const job *job = context;
    espl_artifact kind;
    char *at = NULL;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_artifact_find(job->operands.items[0], &kind, &at));
    ESPL_TRY_DONE(job->digest ? print_digest(kind, at) : verify(kind, at));
done:
    free(at);
    return status;
}

espl_status espl_cmd_verify(int argc, char **argv) {
    job job = {0};
    const espl_option options[] = {
        {"digest", NULL, "print the digest of the model instead, 16 hexadecimal digits", ESPL_OPTION_SWITCH, &job.digest},
    };
    const espl_usage usage = {
        .verb = "verify", .operands = "PATH", .text = text, ESPL_OPTIONS(options), .min_operands = 1, .max_operands = 1};
    return espl_options_run(&usage, argc, argv, &job.operands, answer, &job);
}
