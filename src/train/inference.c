#include "src/train/inference.h"

#include "io/checkpoint/checkpoint.h"
#include "io/share_files.h"
#include "src/core/buffer.h"
#include "src/core/job_files.h"
#include "src/train/weights/adapter.h"
#include "src/train/weights/base.h"
#include "src/train/weights/companions.h"
#include "src/train/weights/peft_folder.h"
#include "src/train/weights/weights.h"

#include <stdlib.h>
#include <string.h>

static bool has(const char *folder, const char *name) {
    char *path = espl_format("%s/%s", folder, name);
    bool there = espl_file_is_there(path);
    free(path);
    return there;
}

/* ---- Finding out what a path is. */

typedef struct source {
    char *checkpoint;    /* or, where that is NULL: */
    char *folder;        /* of a model */
    const char *adapter; /* on it; NULL: none; borrowed */
} source;

static espl_status newest_checkpoint(espl_comm *comm, const char *path, char **checkpoint) {
    char *folder = espl_format("%s/checkpoints", path);
    espl_status status = espl_checkpoint_find(comm, folder, NULL, checkpoint);
    free(folder);
    if (status == ESPL_OK && *checkpoint == NULL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: the run has no good checkpoint yet", path);
    return status;
}

static espl_status find_source(espl_comm *comm, const char *path, char **checkpoint) {
    *checkpoint = NULL;
    if (has(path, "manifest.json"))
        *checkpoint = espl_strdup(path);
    else if (has(path, "checkpoints"))
        return newest_checkpoint(comm, path, checkpoint);
    else if (!has(path, "config.json") && !espl_peft_is(path))
        ESPL_FAIL(
            ESPL_ERR_DATA,
            "%s: neither a run folder (checkpoints/), a checkpoint (manifest.json), a Hugging Face folder (config.json) nor an adapter "
            "(adapter_config.json)",
            path);
    return ESPL_OK;
}

static espl_status open_tokenizer(const source *s, const espl_config *config, espl_inference *in) {
    bool in_adapter = s->adapter != NULL && has(s->adapter, "tokenizer.json");
    in->folder = s->checkpoint != NULL ? espl_companions_of(s->checkpoint) : espl_strdup(in_adapter ? s->adapter : s->folder);
    if (in->folder == NULL && config->data_tokenizer[0] == '\0')
        ESPL_FAIL(ESPL_ERR_DATA, "%s: no tokenizer lies beside this checkpoint's folder; give --set data.tokenizer=PATH", s->checkpoint);
    if (in->folder == NULL)
        in->folder = espl_strdup("");
    return espl_tokenizer_open(config->data_tokenizer[0] != '\0' ? config->data_tokenizer : in->folder, &in->tokenizer);
}

/* What the ranks need of the model is read once for all of them. */
static espl_status share_source(espl_comm *comm, const char *path, const espl_config *config, source *s) {
    ESPL_TRY(espl_files_share(comm, &path, 1)); /* so that all ranks find the same */
    ESPL_TRY(find_source(comm, path, &s->checkpoint));
    if (s->checkpoint == NULL)
        s->adapter = espl_peft_is(path) ? path : config->model_adapter[0] != '\0' ? config->model_adapter : NULL;
    char *companions = s->checkpoint != NULL ? espl_companions_of(s->checkpoint) : NULL;
    const char *const paths[] = {companions != NULL ? companions : "", config->model_path, config->data_tokenizer};
    espl_status status = espl_files_share(comm, paths, (int)(sizeof paths / sizeof paths[0]));
    if (status == ESPL_OK && s->checkpoint != NULL)
        status = espl_base_share(comm, s->checkpoint);
    if (status == ESPL_OK && s->adapter != NULL)
        status = espl_peft_share(comm, s->adapter, s->adapter == path ? config->model_path : path);
    free(companions);
    return status;
}

static espl_status open_model(const char *path, const espl_config *config, source *s, espl_inference *in) {
    if (s->checkpoint != NULL) {
        json_t *record = NULL;
        ESPL_TRY(espl_checkpoint_record(s->checkpoint, &record));
        espl_status status = espl_adapter_model(record, s->checkpoint, &in->model);
        in->step = (int64_t)json_integer_value(json_object_get(json_object_get(record, "counters"), "step"));
        json_decref(record);
        return status;
    }
    if (s->adapter != NULL)
        return espl_peft_model(s->adapter, s->adapter == path ? config->model_path : path, &config->data_labels, &in->model, &s->folder);
    s->folder = espl_strdup(path);
    return espl_weights_model(path, &(espl_model_options){0}, &in->model);
}

static espl_status read_weights(const source *s, const espl_config *config, espl_inference *in) {
    const espl_weights weights = {.flat = in->weights, .real = in->engine->kernels->real, .owner = espl_owner_alone, .engine = in->engine};
    const char *base = config->model_checkpoint[0] != '\0' ? config->model_checkpoint : config->model_path;
    if (s->checkpoint != NULL)
        return espl_base_weights(in->model, s->checkpoint, base, 0, &weights);
    ESPL_TRY(espl_weights_read(in->model, s->folder, 0, &weights));
    return s->adapter != NULL ? espl_peft_weights(in->model, s->adapter, &weights) : ESPL_OK;
}

static espl_status bind_weights(espl_inference *in) {
    const espl_model *m = in->model;
    size_t bytes = espl_model_weights_bytes(m, 1, in->engine->kernels->real);
    size_t rope = in->engine->calls->remote ? (size_t)m->rope_numel * sizeof(float) : 0;
    espl_arena measure = espl_arena_measure("PARAM");
    espl_arena_take(&measure, bytes);
    espl_arena_take(&measure, rope);
    ESPL_TRY(espl_engine_take(in->engine, &in->arena, "PARAM", measure.used));
    in->weights = espl_arena_take(&in->arena, bytes);
    if (rope == 0)
        return ESPL_OK;
    in->rope = espl_arena_take(&in->arena, rope);
    return espl_engine_put(in->engine, in->rope, ESPL_F32, m->rope, ESPL_F32, (size_t)m->rope_numel);
}

static espl_status fill_model(const source *from, const espl_config *config, espl_inference_reach reach, espl_inference *in) {
    const int64_t own = espl_model_positions(in->model);
    in->positions = reach.least == 0 || (reach.all && reach.least < own) ? own : reach.least;
    ESPL_TRY(espl_model_reach(in->model, in->positions));
    ESPL_TRY(bind_weights(in));
    ESPL_TRY(read_weights(from, config, in));
    return open_tokenizer(from, config, in);
}

espl_status espl_inference_open(espl_comm *comm, const char *path, const espl_config *config, const espl_engine *engine,
                                espl_inference_reach reach, int threads, espl_inference *in) {
    source from = {0};
    espl_status status = ESPL_OK;
    *in = (espl_inference){.engine = engine, .threads = threads, .step = -1};
    espl_kernels_set_threads(in->threads);
    ESPL_TRY_DONE(share_source(comm, path, config, &from));
    ESPL_TRY_DONE(espl_comm_agree(comm, open_model(path, config, &from, in), "opening the model"));
    ESPL_TRY_DONE(espl_comm_agree(comm, fill_model(&from, config, reach, in), "reading the model"));
done:
    espl_job_files_forget();
    free(from.checkpoint);
    free(from.folder);
    return status;
}

void espl_inference_close(espl_inference *in) {
    espl_tokenizer_close(&in->tokenizer);
    free(in->folder);
    if (in->engine != NULL)
        espl_engine_give_back(in->engine, &in->arena);
    espl_model_free(&in->model);
    *in = (espl_inference){0};
}
