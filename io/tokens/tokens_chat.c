/* Conversations, and prompts with their responses, into tokens of which some are learned. */
#include "io/tokens/tokens_internal.h"

#include <string.h>

static espl_status encode(const espl_tokenizer *tokenizer, const char *text, size_t size, bool special, espl_encoding *tokens) {
    tokens->n = 0;
    tokens->want_offsets = true;
    return espl_tokenizer_encode(tokenizer, text, size, special, tokens);
}

static char *mask_of(espl_document_tokens *result) {
    size_t n = (size_t)result->tokens.n;
    result->mask.size = 0;
    espl_buffer_reserve(&result->mask, n);
    memset(result->mask.data, 0, n);
    result->mask.size = n;
    return result->mask.data;
}

/* ---- Conversations. */

/* A token is learned when any of its bytes is, as transformers' masks have it. */
static void mask_learned(const espl_chat_text *text, espl_document_tokens *result) {
    const espl_encoding *tokens = &result->tokens;
    char *mask = mask_of(result);
    int64_t span = 0;
    for (int64_t i = 0; i < tokens->n; i++) {
        while (span < text->n && (int64_t)text->learned[span].end <= tokens->begin[i])
            span++;
        mask[i] = span < text->n && (int64_t)text->learned[span].begin < tokens->end[i];
    }
}

typedef struct talk {
    const espl_tokenizer *tokenizer;
    const espl_tokens_recipe *recipe;
    espl_conversation conversation;
    espl_document_tokens *result;
    char *problem;
} talk;

/* Tokens of messages [0, kept) and [begin, end), in `result`. */
static espl_status try_part(talk *t, int64_t kept, int64_t begin, int64_t end) {
    espl_chat_text *text = &t->result->chat;
    if (!espl_chat_write(t->recipe->chat, &t->conversation, kept, begin, end, text, &t->problem))
        return ESPL_OK;
    return encode(t->tokenizer, text->whole.text.data, text->whole.text.size, false, &t->result->tokens);
}

static bool fits(const talk *t) { return t->problem != NULL || t->recipe->length == 0 || t->result->tokens.n <= t->recipe->length; }

/* From the end: whole turns go, so that the last one is the assistant's. */
static espl_status keep_head(talk *t) {
    for (int64_t end = t->conversation.n - 1; end > 0 && !fits(t); end--)
        if (espl_conversation_is(&t->conversation, end - 1, "assistant"))
            ESPL_TRY(try_part(t, 0, 0, end));
    return ESPL_OK;
}

/* From the begin: whole turns go but for the system's, so that the first one left is the user's. */
static espl_status keep_tail(talk *t) {
    int64_t n = t->conversation.n, kept = 0, last = n - 1;
    while (kept < n &&
           (espl_conversation_is(&t->conversation, kept, "system") || espl_conversation_is(&t->conversation, kept, "developer")))
        kept++;
    while (last > kept && !espl_conversation_is(&t->conversation, last, "assistant"))
        last--;
    for (int64_t begin = kept + 1; begin <= last && !fits(t); begin++)
        if (espl_conversation_is(&t->conversation, begin, "user"))
            ESPL_TRY(try_part(t, kept, begin, n));
    return ESPL_OK;
}

static espl_status converse(talk *t) {
    espl_document_tokens *result = t->result;
    ESPL_TRY(try_part(t, 0, 0, t->conversation.n));
    int64_t whole = result->tokens.n;
    if (!fits(t))
        ESPL_TRY(t->recipe->truncation == ESPL_KEEP_TAIL ? keep_tail(t) : keep_head(t));
    if (t->problem != NULL)
        return ESPL_OK;
    result->left_out = !fits(t);
    if (result->left_out)
        result->tokens.n = 0;
    result->n_lost = whole - result->tokens.n;
    result->n_bytes = (int64_t)result->chat.whole.text.size;
    if (result->tokens.n > 0)
        espl__document_add(result, result->tokens.n);
    mask_learned(&result->chat, result);
    if (whole == 0)
        t->problem = espl_strdup("the chat template makes no token of the conversation");
    return ESPL_OK;
}

espl_status espl__document_converse(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_document *document,
                                    espl_document_tokens *result, char **problem) {
    talk t = {.tokenizer = tokenizer, .recipe = recipe, .result = result};
    espl_status status = ESPL_OK;
    if (espl_conversation_read(recipe->chat, document->text, document->size, &t.conversation, &t.problem))
        status = converse(&t);
    espl_conversation_free(&t.conversation);
    *problem = t.problem;
    return status;
}

/* ---- Prompts. */

/* Leaves out `over` tokens of [begin, end), from where the recipe says. */
static void cut_prompt(const espl_tokens_recipe *recipe, int64_t begin, int64_t end, int64_t over, espl_encoding *tokens) {
    int64_t stays = end - begin - over;
    int64_t head = recipe->truncation == ESPL_KEEP_HEAD ? stays : recipe->truncation == ESPL_KEEP_TAIL ? 0 : stays / 4;
    int64_t from = begin + head + over;
    memmove(&tokens->ids[begin + head], &tokens->ids[from], (size_t)(tokens->n - from) * sizeof *tokens->ids);
    tokens->n -= over;
}

/* The first token of the response: tokens of a template have no bytes. */
static int64_t find_response(const espl_encoding *tokens, int64_t prompt_bytes) {
    int64_t i = 0;
    while (i < tokens->n && (tokens->begin[i] < prompt_bytes || tokens->end[i] <= tokens->begin[i]))
        i++;
    return i;
}

espl_status espl__document_answer(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_document *document,
                                  espl_document_tokens *result, char **problem) {
    espl_buffer *text = &result->source;
    espl_encoding *tokens = &result->tokens;
    int64_t first = 0;
    text->size = 0;
    espl_buffer_append(text, document->text, document->size);
    espl_buffer_append(text, recipe->separator, strlen(recipe->separator));
    size_t prompt_bytes = text->size;
    espl_buffer_append(text, document->second, document->second_size);
    ESPL_TRY(encode(tokenizer, text->data, text->size, true, tokens));
    int64_t response = find_response(tokens, (int64_t)prompt_bytes);
    while (first < response && tokens->end[first] == 0)
        first++;
    if (response == tokens->n) {
        *problem = espl_strdup("the tokenizer makes no token of the response");
        return ESPL_OK;
    }
    espl__document_close(recipe, tokens);
    int64_t over = recipe->length > 0 ? tokens->n - recipe->length : 0;
    result->left_out = over > 0 && over >= response - first;
    result->n_lost = result->left_out ? tokens->n : over > 0 ? over : 0;
    if (result->left_out)
        return ESPL_OK;
    if (over > 0)
        cut_prompt(recipe, first, response, over, tokens);
    response -= over > 0 ? over : 0;
    char *mask = mask_of(result);
    memset(mask + response, 1, (size_t)(tokens->n - response));
    espl__document_add(result, tokens->n);
    return ESPL_OK;
}
