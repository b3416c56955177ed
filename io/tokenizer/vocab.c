/* Tokens by id and ids by token. */
#include "io/tokenizer/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int32_t espl__vocab_id(const espl__vocab *vocab, const char *token, size_t n) {
    if (!vocab->slots)
        return -1;
    for (uint64_t slot = XXH3_64bits(token, n) & vocab->mask;; slot = (slot + 1) & vocab->mask) {
        int32_t id = vocab->slots[slot];
        if (id < 0)
            return -1;
        uint64_t begin = vocab->begin[id];
        if (vocab->begin[id + 1] - begin == n && memcmp(vocab->bytes + begin, token, n) == 0)
            return id;
    }
}

const char *espl__vocab_token(const espl__vocab *vocab, int32_t id, size_t *n) {
    if (id < 0 || id >= vocab->n_ids || vocab->begin[id + 1] == vocab->begin[id])
        return NULL;
    *n = vocab->begin[id + 1] - vocab->begin[id];
    return vocab->bytes + vocab->begin[id];
}

static espl_status check_id(const espl__where *where, const char *token, json_t *value, int64_t limit, int64_t *n_ids) {
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: vocab: token '%s' has no id (a number from 0)", where->path, where->section, where->type,
                  token);
    if (json_integer_value(value) >= limit)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: vocab: token '%s' has id %lld, but only ids below %lld are expected for so few tokens",
                  where->path, where->section, where->type, token, (long long)json_integer_value(value), (long long)limit);
    if (json_integer_value(value) >= *n_ids)
        *n_ids = json_integer_value(value) + 1;
    return ESPL_OK;
}

/* tokens[id] = its key in the JSON object, NULL for ids that no token has. */
static espl_status collect(const espl__where *where, json_t *object, espl__vocab *vocab, const char ***tokens) {
    int64_t limit = 2 * (int64_t)json_object_size(object) + 65536; /* holes are legal, a table of 2^31 entries is not */
    const char *token;
    json_t *value;
    json_object_foreach(object, token, value) { ESPL_TRY(check_id(where, token, value, limit, &vocab->n_ids)); }
    *tokens = espl_calloc((size_t)vocab->n_ids + 1, sizeof **tokens);
    json_object_foreach(object, token, value) {
        const char **at = &(*tokens)[json_integer_value(value)];
        if (*at)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: vocab: tokens '%s' and '%s' share the id %lld", where->path, where->section, where->type,
                      *at, token, (long long)json_integer_value(value));
        *at = token;
        vocab->n_entries++;
    }
    return ESPL_OK;
}

static void insert(espl__vocab *vocab, int32_t id) {
    uint64_t begin = vocab->begin[id], slot = XXH3_64bits(vocab->bytes + begin, vocab->begin[id + 1] - begin) & vocab->mask;
    while (vocab->slots[slot] >= 0)
        slot = (slot + 1) & vocab->mask;
    vocab->slots[slot] = id;
}

void espl__vocab_index(espl__vocab *vocab) {
    uint64_t n_slots = 16;
    while (n_slots < 2 * (uint64_t)vocab->n_ids)
        n_slots *= 2;
    vocab->mask = n_slots - 1;
    vocab->slots = espl_malloc(n_slots * sizeof *vocab->slots);
    memset(vocab->slots, 0xFF, n_slots * sizeof *vocab->slots);
    for (int64_t id = vocab->n_ids - 1; id >= 0; id--) /* the last of equal ones is found first */
        if (vocab->begin[id + 1] > vocab->begin[id])
            insert(vocab, (int32_t)id);
}

static void fill(espl__vocab *vocab, const char **tokens) {
    espl_buffer bytes = {0};
    ESPL_ASSERT(vocab->n_ids == 0 || tokens != NULL, "%lld ids", (long long)vocab->n_ids);
    vocab->begin = espl_calloc((size_t)vocab->n_ids + 1, sizeof *vocab->begin);
    for (int64_t id = 0; id < vocab->n_ids; id++) {
        vocab->begin[id] = bytes.size;
        if (tokens[id])
            espl_buffer_append(&bytes, tokens[id], strlen(tokens[id]));
    }
    vocab->begin[vocab->n_ids] = bytes.size;
    vocab->bytes = bytes.data;
    espl__vocab_index(vocab);
}

espl_status espl__vocab_parse(const espl__where *where, json_t *object, espl__vocab *vocab) {
    espl_status status = ESPL_OK;
    const char **tokens = NULL;
    if (!json_is_object(object))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'vocab' must be an object of token: id", where->path, where->section, where->type);
    ESPL_TRY_DONE(collect(where, object, vocab, &tokens));
    fill(vocab, tokens);
done:
    free(tokens);
    return status;
}

espl_status espl__vocab_list(const espl__where *where, json_t *list, espl__vocab *vocab) {
    espl_buffer bytes = {0};
    size_t i, n = json_array_size(list);
    json_t *entry;
    if (n == 0 || n > INT32_MAX)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'vocab' must be a list of [token, score]", where->path, where->section, where->type);
    vocab->begin = espl_calloc(n + 1, sizeof *vocab->begin);
    json_array_foreach(list, i, entry) {
        json_t *token = json_array_get(entry, 0);
        if (json_is_string(token))
            espl_buffer_append(&bytes, json_string_value(token), json_string_length(token));
        vocab->begin[i + 1] = bytes.size;
        vocab->bytes = bytes.data;
        if (!json_is_string(token) || json_array_size(entry) != 2)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: vocab[%zu] must be [token, score]", where->path, where->section, where->type, i);
    }
    vocab->n_ids = vocab->n_entries = (int64_t)n;
    espl__vocab_index(vocab);
    return ESPL_OK;
}

void espl__vocab_free(espl__vocab *vocab) {
    free(vocab->bytes);
    free(vocab->begin);
    free(vocab->slots);
    *vocab = (espl__vocab){0};
}
