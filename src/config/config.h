/* Configs: YAML in, overrides, validation, printing, hash.
 *
 * The facts stand once, in keys.def. A config is a flat struct with a field section_name for every
 * key. Unknown keys, wrong types and values out of range are usage errors that name file:line, what
 * was expected, and for an unknown key the nearest known one. */
#ifndef ESPL_CONFIG_CONFIG_H
#define ESPL_CONFIG_CONFIG_H

#include "src/core/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct espl_strings {
    char **items; /* owned by the config */
    int64_t n;
} espl_strings;

typedef struct espl_floats {
    double *items; /* owned by the config */
    int64_t n;
} espl_floats;

#define ESPL_TYPE_INT int64_t
#define ESPL_TYPE_FLOAT double
#define ESPL_TYPE_BOOL bool
#define ESPL_TYPE_STR char * /* never NULL; "" when absent */
#define ESPL_TYPE_ENUM int   /* index among the choices of its row */
#define ESPL_TYPE_STRS espl_strings
#define ESPL_TYPE_FLOATS espl_floats

typedef struct espl_config {
#define KEY(section, name, type, default_text, range, help) ESPL_TYPE_##type section##_##name;
#include "src/config/keys.def"
#undef KEY
} espl_config;

/* Choices of the enum keys, in the order of their rows. */
enum { ESPL_DEVICE_AUTO, ESPL_DEVICE_CPU, ESPL_DEVICE_CUDA, ESPL_DEVICE_EMU };
enum { ESPL_RUN_FP32, ESPL_RUN_BF16 };
enum { ESPL_REDUCTION_FAST, ESPL_REDUCTION_TREE };
enum { ESPL_REDUCTION_FP32, ESPL_REDUCTION_BF16 };
enum { ESPL_SHARDING_NONE, ESPL_SHARDING_OPTIMIZER, ESPL_SHARDING_GRADIENTS, ESPL_SHARDING_PARAMETERS };
enum { ESPL_OFFLOAD_NONE, ESPL_OFFLOAD_OPTIMIZER };
enum { ESPL_INIT_AUTO, ESPL_INIT_PRETRAINED, ESPL_INIT_RANDOM };
enum { ESPL_RECOMPUTE_NONE, ESPL_RECOMPUTE_SELECTIVE, ESPL_RECOMPUTE_FULL };
enum { ESPL_TUNE_FULL, ESPL_TUNE_LORA, ESPL_TUNE_DORA, ESPL_TUNE_BOTTLENECK, ESPL_TUNE_PROMPT, ESPL_TUNE_PREFIX };
enum { ESPL_BOTTLENECK_AT_BOTH, ESPL_BOTTLENECK_AT_MLP };
enum { ESPL_BASE_AS_IS, ESPL_BASE_INT8, ESPL_BASE_NF4 };
enum { ESPL_TASK_LM, ESPL_TASK_MLM, ESPL_TASK_CLASSIFICATION, ESPL_TASK_SEQ2SEQ };
enum { ESPL_FORMAT_AUTO, ESPL_FORMAT_TEXT, ESPL_FORMAT_JSONL, ESPL_FORMAT_CSV, ESPL_FORMAT_TSV, ESPL_FORMAT_FOLDERS, ESPL_FORMAT_TOKENS };
enum { ESPL_TRUNCATION_HEAD, ESPL_TRUNCATION_TAIL, ESPL_TRUNCATION_HEAD_TAIL };
enum { ESPL_RECORDS_TEXT, ESPL_RECORDS_PROMPTS, ESPL_RECORDS_CHAT };
enum { ESPL_LOSS_ON_ASSISTANT, ESPL_LOSS_ON_LAST, ESPL_LOSS_ON_ALL };
enum { ESPL_DOCUMENT_FILE, ESPL_DOCUMENT_LINE, ESPL_DOCUMENT_PARAGRAPH };
enum { ESPL_PACKED, ESPL_WINDOWS };
enum { ESPL_ON_ERROR_FAIL, ESPL_ON_ERROR_SKIP };
enum { ESPL_FORGETTING_WARN, ESPL_FORGETTING_STOP };
enum { ESPL_ON_NONFINITE_STOP, ESPL_ON_NONFINITE_ROLLBACK };
enum { ESPL_ON_SPIKE_IGNORE, ESPL_ON_SPIKE_WARN, ESPL_ON_SPIKE_SKIP, ESPL_ON_SPIKE_ROLLBACK, ESPL_ON_SPIKE_STOP };
enum { ESPL_WATCH_LOSS, ESPL_WATCH_GRAD_NORM, ESPL_WATCH_EITHER };
enum { ESPL_IF_BUSY_WAIT, ESPL_IF_BUSY_SKIP };
enum { ESPL_BEST_LOSS };
enum { ESPL_EVAL_MACRO, ESPL_EVAL_MICRO, ESPL_EVAL_WEIGHTED };
enum {
    ESPL_EVAL_THRESHOLD_NONE,
    ESPL_EVAL_THRESHOLD_F1,
    ESPL_EVAL_THRESHOLD_PRECISION,
    ESPL_EVAL_THRESHOLD_RECALL,
    ESPL_EVAL_THRESHOLD_FIXED
};
enum { ESPL_MASTER_FP32, ESPL_MASTER_NONE };
enum { ESPL_MUON_SCALE_MATCH_RMS_ADAMW, ESPL_MUON_SCALE_ORIGINAL };
enum {
    ESPL_SCHEDULE_CONSTANT,
    ESPL_SCHEDULE_LINEAR,
    ESPL_SCHEDULE_COSINE,
    ESPL_SCHEDULE_INVERSE_SQRT,
    ESPL_SCHEDULE_WSD,
    ESPL_SCHEDULE_SLANTED_TRIANGULAR
};
enum { ESPL_PROGRESS_AUTO, ESPL_PROGRESS_BAR, ESPL_PROGRESS_LINES, ESPL_PROGRESS_NONE };

/* Local. Whether matrices get low-rank updates, instead of being trained themselves. */
static inline bool espl_config_has_updates(const espl_config *config) {
    return config->tune_method == ESPL_TUNE_LORA || config->tune_method == ESPL_TUNE_DORA;
}

/* Local. Whether a method puts tokens in front of every text. */
static inline bool espl_config_has_prompt(const espl_config *config) {
    return config->tune_method == ESPL_TUNE_PROMPT || config->tune_method == ESPL_TUNE_PREFIX;
}

/* Local. A config with every key at its default. */
void espl_config_make(espl_config *config);

/* Local. Reads the file over what is there. Errors: usage, with file:line. */
espl_status espl_config_read(espl_config *config, const char *path);

/* Local. Reads YAML text over what is there; `name` stands for the file in messages. */
espl_status espl_config_read_text(espl_config *config, const char *text, size_t size, const char *name);

/* Local. Applies one override "section.key=value" (lists as YAML: [a, b]). */
espl_status espl_config_set(espl_config *config, const char *override);

/* Local. Puts the optimizer's own constants where keys leave them to it (optim.beta2, optim.momentum), or do not ask (optim.nesterov). Call
 * it once all is read. */
void espl_config_resolve(espl_config *config);

/* Local. Writes every key with its value as YAML that reads back to the same config. */
void espl_config_print(const espl_config *config, FILE *out);

/* Local. Hash of the resolved config (XXH3 of what espl_config_print writes). */
uint64_t espl_config_hash(const espl_config *config);

/* Local. Writes the documentation of every key (Markdown), and its JSON Schema. */
void espl_config_print_reference(FILE *out);
void espl_config_print_schema(FILE *out);

/* Local. The word for choice `index` of an enum key, e.g. espl_config_choice("run", "dtype", 1) is "bf16". */
const char *espl_config_choice(const char *section, const char *name, int index);

/* Local. The choice that a word stands for; -1: none. */
int espl_config_choice_of(const char *section, const char *name, const char *word);

/* Local. Frees what the config owns; it is then zeroed. */
void espl_config_free(espl_config *config);

#endif
