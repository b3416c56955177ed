/* A tokenizer: its parts, opened from one file, and the pool of memory that calls work in. */
#include "io/tokenizer/tokenizer_state.h"

#include "src/core/job_files.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const espl__model_kind *const model_kinds[] = {&espl__bpe_kind, &espl__wordpiece_kind, &espl__unigram_kind};
enum { N_MODEL_KINDS = sizeof model_kinds / sizeof *model_kinds };

static espl_status read_file(const char *path, espl_buffer *out) {
    int error = espl_file_read(path, out);
    if (error != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: cannot open the tokenizer: %s", path, strerror(error));
    return ESPL_OK;
}

static espl_status parse_json(const char *path, const espl_buffer *text, json_t **json) {
    json_error_t error;
    *json = json_loadb(text->data, text->size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!*json)
        ESPL_FAIL(ESPL_ERR_DATA, "%s:%d: no valid JSON: %s", path, error.line, error.text);
    if (!json_is_object(*json) || !json_is_object(json_object_get(*json, "model")))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: no tokenizer: there is no object 'model'", path);
    return ESPL_OK;
}

static espl_status unknown_model(const char *path, const char *type) {
    espl_status status = ESPL_OK;
    espl_buffer known = {0};
    for (size_t i = 0; i < N_MODEL_KINDS; i++)
        espl_buffer_printf(&known, "%s%s", i ? ", " : "", model_kinds[i]->type);
    ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: model '%s' is not supported; the kinds known are %s", path, type, known.data);
done:
    espl_buffer_free(&known);
    return status;
}

static espl_status parse_model(const char *path, json_t *json, espl_tokenizer *t) {
    const char *type = json_string_value(json_object_get(json, "type"));
    for (size_t i = 0; i < N_MODEL_KINDS; i++)
        if (type ? strcmp(model_kinds[i]->type, type) == 0 : json_object_get(json, model_kinds[i]->telling_key) != NULL)
            t->kind = model_kinds[i];
    if (!t->kind)
        return unknown_model(path, type ? type : "(none)");
    return t->kind->parse(&(espl__where){path, "model", t->kind->type}, json, &t->vocab, &t->model);
}

static espl_status parse_parts(const char *path, json_t *json, espl_tokenizer *t) {
    espl_status status = ESPL_OK;
    espl__scratch scratch = {0};
    json_t *model = json_object_get(json, "model");
    ESPL_TRY_DONE(parse_model(path, model, t));
    ESPL_TRY_DONE(espl__normalizers_parse(path, json_object_get(json, "normalizer"), &t->normalizers));
    bool takes_bytes = t->kind->takes_bytes && t->kind->takes_bytes(t->model);
    ESPL_TRY_DONE(espl__pretokenizers_parse(path, json_object_get(json, "pre_tokenizer"), takes_bytes, &t->pretokenizers));
    if (t->pretokenizers.raw_bytes)
        t->kind->use_bytes(t->model);
    ESPL_TRY_DONE(espl__post_parse(path, json_object_get(json, "post_processor"), &t->post));
    ESPL_TRY_DONE(espl__decoders_parse(path, json_object_get(json, "decoder"), &t->decoders));
    ESPL_TRY_DONE(espl__added_parse(path, json_object_get(json, "added_tokens"), &t->vocab, &t->normalizers, &scratch, &t->added));
done:
    espl__scratch_free(&scratch);
    return status;
}

static char *file_of(const char *path) { return espl_file_is_folder(path) ? espl_format("%s/tokenizer.json", path) : espl_strdup(path); }

espl_status espl_tokenizer_open(const char *path, espl_tokenizer **tokenizer) {
    espl_status status = ESPL_OK;
    espl_buffer text = {0};
    json_t *json = NULL;
    char *file = file_of(path);
    espl_tokenizer *t = *tokenizer = espl_calloc(1, sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    ESPL_TRY_DONE(read_file(file, &text));
    ESPL_TRY_DONE(parse_json(file, &text, &json));
    ESPL_TRY_DONE(parse_parts(file, json, t));
    t->hash = XXH3_64bits(text.data, text.size);
done:
    if (status != ESPL_OK)
        espl_tokenizer_close(tokenizer);
    json_decref(json);
    espl_buffer_free(&text);
    free(file);
    return status;
}

static void free_scratch(const espl_tokenizer *t, espl__scratch *scratch) {
    if (scratch->model_work)
        t->kind->work_free(scratch->model_work);
    espl__scratch_free(scratch);
    free(scratch);
}

void espl_tokenizer_close(espl_tokenizer **tokenizer) {
    espl_tokenizer *t = *tokenizer;
    if (!t)
        return;
    for (espl__scratch *scratch = t->idle, *next; scratch; scratch = next) {
        next = scratch->next;
        free_scratch(t, scratch);
    }
    if (t->kind)
        t->kind->free(t->model);
    espl__normalizers_free(&t->normalizers);
    espl__pretokenizers_free(&t->pretokenizers);
    espl__post_free(&t->post);
    espl__decoders_free(&t->decoders);
    espl__added_free(&t->added);
    espl__vocab_free(&t->vocab);
    pthread_mutex_destroy(&t->lock);
    free(t);
    *tokenizer = NULL;
}

/* A tokenizer is const to its users; the pool behind its lock is not part of what they see. */
espl__scratch *espl__tokenizer_borrow(const espl_tokenizer *tokenizer) {
    espl_tokenizer *t = (espl_tokenizer *)(uintptr_t)tokenizer;
    pthread_mutex_lock(&t->lock);
    espl__scratch *scratch = t->idle;
    if (scratch)
        t->idle = scratch->next;
    pthread_mutex_unlock(&t->lock);
    if (!scratch) {
        scratch = espl_calloc(1, sizeof *scratch);
        scratch->model_work = t->kind->work_make ? t->kind->work_make(t->model) : NULL;
    }
    return scratch;
}

void espl__tokenizer_return(const espl_tokenizer *tokenizer, espl__scratch *scratch) {
    espl_tokenizer *t = (espl_tokenizer *)(uintptr_t)tokenizer;
    pthread_mutex_lock(&t->lock);
    scratch->next = t->idle;
    t->idle = scratch;
    pthread_mutex_unlock(&t->lock);
}

int64_t espl_tokenizer_size(const espl_tokenizer *tokenizer) { return tokenizer->vocab.n_entries + espl__added_count(tokenizer->added); }

int32_t espl_tokenizer_id(const espl_tokenizer *tokenizer, const char *token) {
    int32_t id = espl__added_id(tokenizer->added, token, strlen(token));
    return id >= 0 ? id : espl__vocab_id(&tokenizer->vocab, token, strlen(token));
}

uint64_t espl_tokenizer_hash(const espl_tokenizer *tokenizer) { return tokenizer->hash; }
