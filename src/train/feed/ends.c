#include "src/train/feed/ends.h"

#include "io/fsio.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20 };

static bool has(const espl_ends *ends, int32_t id) {
    for (int i = 0; i < ends->n; i++)
        if (ends->ids[i] == id)
            return true;
    return false;
}

static void add(espl_ends *ends, int64_t id) {
    if (id < 0 || id > INT32_MAX || has(ends, (int32_t)id))
        return;
    ends->ids = espl_realloc(ends->ids, (size_t)(ends->n + 1) * sizeof *ends->ids);
    ends->ids[ends->n++] = (int32_t)id;
}

static void add_all(espl_ends *ends, const json_t *ids) {
    const json_t *id;
    size_t i;
    if (json_is_integer(ids))
        add(ends, json_integer_value(ids));
    json_array_foreach(ids, i, id) if (json_is_integer(id)) add(ends, json_integer_value(id));
}

static espl_status read_settings(const char *folder, json_t **settings) {
    char *path = espl_format("%s/generation_config.json", folder);
    espl_buffer text = {0};
    json_error_t error;
    espl_status status = ESPL_OK;
    *settings = NULL;
    if (!espl_fs_is_file(path))
        goto done;
    ESPL_TRY_DONE(espl_fs_read_file(path, MOST_BYTES, &text));
    *settings = json_loadb(text.data, text.size, 0, &error);
    if (*settings == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s:%d: not JSON: %s", path, error.line, error.text);
done:
    espl_buffer_free(&text);
    free(path);
    return status;
}

/* Of what follows an assistant's words the first token that is no text. */
static espl_status add_turn_end(const espl_tokenizer *tokenizer, const espl_chat *chat, espl_ends *ends) {
    espl_chat_text text = {0};
    espl_encoding tail = {.want_kinds = true};
    size_t size;
    espl_status status = ESPL_OK;
    const char *end = espl_chat_turn_end(chat, &text, &size);
    if (size > 0)
        ESPL_TRY_DONE(espl_tokenizer_encode(tokenizer, end, size, false, &tail));
    for (int64_t i = 0; i < tail.n; i++)
        if (tail.words[i] == ESPL_TOKEN_SPECIAL) {
            add(ends, tail.ids[i]);
            break;
        }
done:
    espl_encoding_free(&tail);
    espl_chat_text_free(&text);
    return status;
}

espl_status espl_ends_find(const char *folder, const espl_model *model, const espl_tokenizer *tokenizer, const espl_chat *chat,
                           espl_ends *ends) {
    json_t *settings = NULL;
    *ends = (espl_ends){0};
    if (folder[0] != '\0')
        ESPL_TRY(read_settings(folder, &settings));
    add_all(ends, json_object_get(settings, "eos_token_id"));
    json_decref(settings);
    if (ends->n == 0)
        add_all(ends, json_object_get(model->config, "eos_token_id"));
    if (ends->n == 0)
        add(ends, model->dims.eos);
    return chat != NULL ? add_turn_end(tokenizer, chat, ends) : ESPL_OK;
}

void espl_ends_free(espl_ends *ends) {
    free(ends->ids);
    *ends = (espl_ends){0};
}

espl_status espl_ends_prompt(const espl_tokenizer *tokenizer, const espl_ends *ends, const char *text, size_t size, bool special,
                             espl_encoding *prompt) {
    prompt->n = 0;
    prompt->want_offsets = true;
    ESPL_TRY(espl_tokenizer_encode(tokenizer, text, size, special, prompt));
    while (special && prompt->n > 1 && prompt->begin[prompt->n - 1] == prompt->end[prompt->n - 1] && has(ends, prompt->ids[prompt->n - 1]))
        prompt->n--;
    return ESPL_OK;
}
