#include "launch/commands.h"
#include "launch/options.h"

#include "comm/comm.h"
#include "io/checkpoint/checkpoint.h"
#include "src/core/buffer.h"
#include "src/train/weights/peft_folder.h"
#include "src/train/weights/weights.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char text[] =
    "Writes the weights of a checkpoint (or of the newest good one of a run folder) as a Hugging Face folder:\n"
    "safetensors, config.json, the tokenizer's files, and where it all came from: espalier.json, and README.md as a model card.\n"
    "Of a folder with a LoRA adapter in PEFT's layout: its base with the updates merged. Bottleneck adapters, soft prompts and prefixes\n"
    "have no place in a model: --adapter writes them alone.\n";

static espl_status find_checkpoint(const char *path, char **checkpoint) {
    espl_comm *self = NULL;
    if (espl_peft_is(path)) {
        *checkpoint = espl_strdup(path);
        return ESPL_OK;
    }
    char *manifest = espl_format("%s/manifest.json", path), *folder = espl_format("%s/checkpoints", path);
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_comm_open(&self, 0));
    if (access(manifest, F_OK) == 0)
        *checkpoint = espl_strdup(path);
    else
        ESPL_TRY_DONE(espl_checkpoint_find(self, folder, NULL, checkpoint));
    if (*checkpoint == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: neither a checkpoint, a run folder with a good checkpoint, nor an adapter (adapter_config.json)",
                       path);
done:
    espl_comm_close(&self);
    free(manifest);
    free(folder);
    return status;
}

typedef struct job {
    espl_words operands;
    const char *dtype;
    espl_export_options options;
} job;

static espl_status export(void *context) {
    job *job = context;
    const char *dtype = job->dtype, *folder = job->operands.items[1];
    espl_export_options *options = &job->options;
    char *checkpoint = NULL;
    espl_status status = ESPL_OK;
    bool bf16 = strcmp(dtype, "bf16") == 0;
    if (!bf16 && strcmp(dtype, "fp32") != 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "--dtype is '%s': fp32 or bf16 is expected", dtype);
    options->dtype = bf16 ? ESPL_BF16 : ESPL_F32;
    ESPL_TRY_DONE(find_checkpoint(job->operands.items[0], &checkpoint));
    ESPL_TRY_DONE(espl_peft_is(checkpoint) ? espl_weights_merge(checkpoint, options, folder)
                                           : espl_weights_export(checkpoint, options, folder));
    printf("%s\n", folder);
done:
    free(checkpoint);
    return status;
}

espl_status espl_cmd_export(int argc, char **argv) {
    job job = {.dtype = "fp32", .options.base = ""};
    const espl_option options[] = {
        {"dtype", "FORMAT", "fp32 (default) or bf16", ESPL_OPTION_TEXT, &job.dtype},
        {"base", "FOLDER", "where the model that a part was trained of lies now; else where training read it", ESPL_OPTION_TEXT,
         &job.options.base},
        {"adapter", NULL, "what tune.method has trained, alone (in PEFT's layout, where PEFT has it); else LoRA is merged into the model",
         ESPL_OPTION_SWITCH, &job.options.adapter}};
    const espl_usage usage = {
        .verb = "export", .operands = "PATH FOLDER", .text = text, ESPL_OPTIONS(options), .min_operands = 2, .max_operands = 2};
    return espl_options_run(&usage, argc, argv, &job.operands, export, &job);
}
