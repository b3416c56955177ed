#include "io/tokens/tokens_internal.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

espl_reader_options espl_tokens_reading(const espl_tokens_recipe *recipe) {
    static const espl_read_kind kinds[] = {[ESPL_TOKENS_LM] = ESPL_READ_PLAIN,
                                           [ESPL_TOKENS_MLM] = ESPL_READ_PLAIN,
                                           [ESPL_TOKENS_CLASSIFICATION] = ESPL_READ_LABELLED,
                                           [ESPL_TOKENS_SEQ2SEQ] = ESPL_READ_PAIRED};
    espl_read_kind kind = recipe->chat != NULL ? ESPL_READ_RECORD : recipe->separator != NULL ? ESPL_READ_PROMPT : kinds[recipe->task];
    return (espl_reader_options){.kind = kind,
                                 .text_field = recipe->text_field,
                                 .second_field = recipe->second_field,
                                 .label_field = recipe->label_field,
                                 .unit = (espl_read_unit)recipe->document,
                                 .skip_bad = recipe->skip_bad};
}

void espl__recipe_sets(const espl_tokens_recipe *recipe, bool makes[ESPL_STORE_SETS]) {
    bool masked = recipe->chat != NULL ? !espl_chat_learns_all(recipe->chat) : recipe->separator != NULL && !recipe->learns_prompt;
    const bool made[ESPL_STORE_SETS] = {[ESPL_STORE_IDS] = true,
                                        [ESPL_STORE_MASK] = masked,
                                        [ESPL_STORE_DOCUMENTS] = true,
                                        [ESPL_STORE_TYPES] = recipe->task == ESPL_TOKENS_CLASSIFICATION,
                                        [ESPL_STORE_WORDS] = recipe->task == ESPL_TOKENS_MLM,
                                        [ESPL_STORE_LABELS] = recipe->task == ESPL_TOKENS_CLASSIFICATION,
                                        [ESPL_STORE_SPLIT] = recipe->task == ESPL_TOKENS_SEQ2SEQ,
                                        [ESPL_STORE_HASHES] = true};
    memcpy(makes, made, sizeof made);
}

/* ---- Checks. */

static espl_status check_length(const char *key, int64_t length, int64_t specials) {
    if (length > 0 && length <= specials)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: %lld tokens leave no room for text beside %lld special ones", key, (long long)length,
                  (long long)specials);
    return ESPL_OK;
}

espl_status espl__recipe_check(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe) {
    int task = recipe->task;
    bool appends = recipe->append_eos && (task == ESPL_TOKENS_LM || task == ESPL_TOKENS_SEQ2SEQ);
    int64_t single = espl_tokenizer_specials(tokenizer, false), pair = espl_tokenizer_specials(tokenizer, true);
    if (appends && (recipe->eos < 0 || recipe->eos >= espl_tokenizer_size(tokenizer)))
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "data.append_eos: the end-of-text token has id %d, expected one of the tokenizer's %lld; turn append_eos off "
                  "where there is none",
                  recipe->eos, (long long)espl_tokenizer_size(tokenizer));
    if (task == ESPL_TOKENS_CLASSIFICATION)
        ESPL_ASSERT(recipe->labels != NULL && recipe->labels->n > 0, "labels are known before texts are tokenised");
    ESPL_TRY(check_length("data.sequence_length", recipe->length,
                          task == ESPL_TOKENS_CLASSIFICATION && pair > single ? pair : single + appends));
    return check_length("data.target_length", recipe->target_length, single + appends);
}

/* ---- Tasks. */

void espl__document_add(espl_document_tokens *result, int64_t length) {
    if (result->n == result->capacity) {
        result->capacity = 2 * result->capacity + 4;
        result->lengths = espl_realloc(result->lengths, (size_t)result->capacity * sizeof *result->lengths);
    }
    result->lengths[result->n++] = length;
}

/* Some tokenizers close a text themselves; a second end would be a document of its own. */
void espl__document_close(const espl_tokens_recipe *recipe, espl_encoding *tokens) {
    if (!recipe->append_eos || tokens->ids[tokens->n - 1] == recipe->eos)
        return;
    espl_encoding_reserve(tokens, 1);
    tokens->ids[tokens->n] = recipe->eos;
    if (tokens->want_kinds) {
        tokens->types[tokens->n] = 0;
        tokens->words[tokens->n] = ESPL_TOKEN_SPECIAL;
    }
    tokens->n++;
}

static espl_status tokenise_lm(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_document *document,
                               espl_document_tokens *result) {
    espl_encoding *tokens = &result->tokens;
    ESPL_TRY(espl_tokenizer_encode(tokenizer, document->text, document->size, true, tokens));
    if (tokens->n == 0)
        return ESPL_OK;
    espl__document_close(recipe, tokens);
    espl__document_add(result, tokens->n);
    return ESPL_OK;
}

/* A long text becomes several documents, each within the template. */
static espl_status tokenise_mlm(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_document *document,
                                espl_document_tokens *result) {
    espl_encoding *whole = &result->whole;
    whole->n = 0;
    whole->want_kinds = true;
    ESPL_TRY(espl_tokenizer_encode(tokenizer, document->text, document->size, false, whole));
    int64_t room = recipe->length > 0 ? recipe->length - espl_tokenizer_specials(tokenizer, false) : whole->n;
    for (int64_t begin = 0; begin < whole->n; begin += room) {
        int64_t before = result->tokens.n, end = whole->n - begin < room ? whole->n : begin + room;
        espl_tokenizer_wrap(tokenizer, whole, begin, end, &result->tokens);
        espl__document_add(result, result->tokens.n - before);
    }
    return ESPL_OK;
}

static char *unknown_label(const espl_labels *labels, const espl_document *document) {
    espl_buffer text = {0};
    int size = document->label_size < 64 ? (int)document->label_size : 64;
    espl_buffer_printf(&text, "label '%.*s' is not one of the known ones: ", size, document->label);
    espl_labels_list(labels, &text);
    return text.data;
}

static espl_status tokenise_labelled(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_document *document,
                                     espl_document_tokens *result, char **problem) {
    espl_encoding *tokens = &result->tokens;
    const espl_encode_input input = {.text = document->text,
                                     .size = document->size,
                                     .second = document->second,
                                     .second_size = document->second_size,
                                     .special = true,
                                     .length = recipe->length,
                                     .truncation = recipe->truncation};
    result->label = espl_labels_find(recipe->labels, document->label, document->label_size);
    if (result->label < 0) {
        *problem = unknown_label(recipe->labels, document);
        return ESPL_OK;
    }
    ESPL_TRY(espl_tokenizer_encode_input(tokenizer, &input, tokens, &result->n_lost));
    if (tokens->n == 0)
        *problem = espl_strdup("the tokenizer makes no token of the text");
    for (int64_t i = 0; i < tokens->n && !result->typed; i++)
        result->typed = tokens->types[i] != 0;
    espl__document_add(result, tokens->n);
    return ESPL_OK;
}

/* A text closed by the end-of-text token, within `length`. */
static espl_status tokenise_closed(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, espl_encode_input *input,
                                   espl_document_tokens *result) {
    espl_encoding *tokens = &result->tokens;
    int64_t before = tokens->n, lost = 0;
    ESPL_TRY(espl_tokenizer_encode_input(tokenizer, input, tokens, &lost));
    bool closed = tokens->n > before && tokens->ids[tokens->n - 1] == recipe->eos;
    if (recipe->append_eos && !closed && input->length > 0 && tokens->n - before == input->length) { /* make room for it */
        tokens->n = before;
        input->length--;
        ESPL_TRY(espl_tokenizer_encode_input(tokenizer, input, tokens, &lost));
    }
    if (tokens->n > before)
        espl__document_close(recipe, tokens);
    result->n_lost += lost;
    return ESPL_OK;
}

static espl_status tokenise_pair(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_document *document,
                                 espl_document_tokens *result, char **problem) {
    espl_buffer *source = &result->source;
    size_t prefix = recipe->prefix != NULL ? strlen(recipe->prefix) : 0;
    source->size = 0;
    espl_buffer_append(source, recipe->prefix, prefix);
    espl_buffer_append(source, document->text, document->size);
    espl_encode_input input = {.text = source->data,
                               .size = source->size,
                               .special = true,
                               .length = recipe->length,
                               .truncation = recipe->truncation,
                               .prefix = prefix};
    espl_encode_input target = {.text = document->second, .size = document->second_size, .special = true, .length = recipe->target_length};
    ESPL_TRY(tokenise_closed(tokenizer, recipe, &input, result));
    result->split = (int32_t)result->tokens.n;
    ESPL_TRY(tokenise_closed(tokenizer, recipe, &target, result));
    if (result->split == 0 || result->tokens.n == result->split)
        *problem =
            espl_strdup(result->split == 0 ? "the tokenizer makes no token of the source" : "the tokenizer makes no token of the target");
    espl__document_add(result, result->tokens.n);
    return ESPL_OK;
}

espl_status espl__document_tokenise(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_document *document,
                                    espl_document_tokens *result, char **problem) {
    *problem = NULL;
    result->tokens.n = 0;
    result->tokens.want_kinds = recipe->task == ESPL_TOKENS_MLM || recipe->task == ESPL_TOKENS_CLASSIFICATION;
    result->n = result->n_lost = 0;
    result->n_bytes = (int64_t)(document->size + document->second_size);
    result->mask.size = 0;
    result->left_out = false;
    result->typed = false;
    result->hash = XXH3_64bits(document->text, document->size);
    if (recipe->task == ESPL_TOKENS_CLASSIFICATION && document->second != NULL)
        result->hash = XXH3_64bits_withSeed(document->second, document->second_size, result->hash);
    if (recipe->chat != NULL)
        return espl__document_converse(tokenizer, recipe, document, result, problem);
    if (recipe->separator != NULL)
        return espl__document_answer(tokenizer, recipe, document, result, problem);
    switch ((espl_tokens_task)recipe->task) {
    case ESPL_TOKENS_LM: return tokenise_lm(tokenizer, recipe, document, result);
    case ESPL_TOKENS_MLM: return tokenise_mlm(tokenizer, recipe, document, result);
    case ESPL_TOKENS_CLASSIFICATION: return tokenise_labelled(tokenizer, recipe, document, result, problem);
    case ESPL_TOKENS_SEQ2SEQ: return tokenise_pair(tokenizer, recipe, document, result, problem);
    }
    return ESPL_OK;
}

void espl__document_free(espl_document_tokens *result) {
    espl_encoding_free(&result->tokens);
    espl_encoding_free(&result->whole);
    espl_buffer_free(&result->source);
    espl_buffer_free(&result->mask);
    espl_chat_text_free(&result->chat);
    free(result->lengths);
    result->lengths = NULL;
}
