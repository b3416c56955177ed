/* A conversation as a text, and where the assistant's turns stand in it. */
#include "io/chat/chat_parts.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

/* Messages [0, kept) and [begin, end). */
static json_t *choose_messages(const espl_conversation *conversation, int64_t kept, int64_t begin, int64_t end) {
    json_t *made = json_array();
    for (int64_t i = 0; i < end; i++)
        if (i < kept || i >= begin)
            json_array_append(made, json_array_get(conversation->messages, (size_t)i));
    return made;
}

/* Takes `messages`. */
static bool render(const espl_chat *chat, const espl_conversation *conversation, json_t *messages, bool prompt, espl_jinja_output *output,
                   char **problem) {
    json_t *variables = json_copy(chat->specials), *tools = conversation->tools != NULL ? conversation->tools : json_null();
    json_object_set_new(variables, "messages", messages);
    json_object_set(variables, "tools", tools);
    json_object_set_new(variables, "documents", json_null());
    json_object_set_new(variables, "add_generation_prompt", json_boolean(prompt));
    bool good = espl_jinja_render(chat->jinja, variables, chat->date, NULL, output) == ESPL_OK;
    if (!good) {
        *problem = espl_strdup(espl_status_message());
        espl_status_clear();
    }
    json_decref(variables);
    return good;
}

static void add_span(espl_chat_text *text, size_t begin, size_t end) {
    if (begin >= end)
        return;
    if (text->n == text->capacity)
        text->learned = espl_realloc(text->learned, (size_t)(text->capacity = 2 * text->capacity + 8) * sizeof *text->learned);
    text->learned[text->n++] = (espl_jinja_span){begin, end};
}

/* The length of the text of `messages`, which must be a beginning of the whole. */
static bool measure(const espl_chat *chat, const espl_conversation *conversation, json_t *messages, bool prompt, espl_chat_text *text,
                    size_t *length, char **problem) {
    size_t n = json_array_size(messages);
    const espl_buffer *whole = &text->whole.text, *part = &text->part.text;
    if (!render(chat, conversation, messages, prompt, &text->part, problem))
        return false;
    *length = part->size;
    if (part->size <= whole->size && (part->size == 0 || memcmp(part->data, whole->data, part->size) == 0))
        return true;
    *problem = espl_format("the chat template writes the first %zu messages%s otherwise than it begins the whole, so the assistant's part "
                           "cannot be told; expected a template with {%% generation %%} blocks, or data.loss_on: all",
                           n, prompt ? " and its generation prompt" : "");
    return false;
}

static bool find_turns(const espl_chat *chat, const espl_conversation *conversation, int64_t kept, int64_t begin, int64_t end,
                       espl_chat_text *text, char **problem) {
    for (int64_t i = end - 1; i >= 0; i--) {
        size_t from, to = text->whole.text.size;
        if ((i >= kept && i < begin) || !espl_conversation_is(conversation, i, "assistant"))
            continue;
        if (!measure(chat, conversation, choose_messages(conversation, kept, begin, i), true, text, &from, problem))
            return false;
        if (i < end - 1 && !measure(chat, conversation, choose_messages(conversation, kept, begin, i + 1), false, text, &to, problem))
            return false;
        add_span(text, from, to);
        if (chat->loss == ESPL_CHAT_LAST)
            break;
    }
    for (int64_t a = 0, b = text->n - 1; a < b; a++, b--) {
        espl_jinja_span last = text->learned[b];
        text->learned[b] = text->learned[a];
        text->learned[a] = last;
    }
    return true;
}

static void take_generated(const espl_chat *chat, espl_chat_text *text) {
    const espl_jinja_output *whole = &text->whole;
    bool last = chat->loss == ESPL_CHAT_LAST && whole->n > 0;
    for (int64_t i = last ? whole->n - 1 : 0; i < whole->n; i++)
        add_span(text, whole->generated[i].begin, whole->generated[i].end);
}

bool espl_chat_write(const espl_chat *chat, const espl_conversation *conversation, int64_t kept, int64_t begin, int64_t end,
                     espl_chat_text *text, char **problem) {
    text->n = 0;
    *problem = NULL;
    if (!render(chat, conversation, choose_messages(conversation, kept, begin, end), false, &text->whole, problem))
        return false;
    if (chat->loss == ESPL_CHAT_ALL)
        add_span(text, 0, text->whole.text.size);
    else if (!espl_jinja_generates(chat->jinja))
        return find_turns(chat, conversation, kept, begin, end, text, problem);
    else
        take_generated(chat, text);
    return true;
}

bool espl_chat_ask(const espl_chat *chat, const espl_conversation *conversation, int64_t end, espl_chat_text *text, char **problem) {
    text->n = 0;
    *problem = NULL;
    return render(chat, conversation, choose_messages(conversation, 0, 0, end), true, &text->whole, problem);
}

const char *espl_chat_turn_end(const espl_chat *chat, espl_chat_text *text, size_t *size) {
    static const char words[] = "espalier-words";
    json_t *messages = json_pack("[{s:s,s:s},{s:s,s:s}]", "role", "user", "content", "?", "role", "assistant", "content", words);
    const espl_conversation conversation = {.messages = messages, .n = 2};
    char *problem = NULL;
    const char *found = NULL;
    if (render(chat, &conversation, json_incref(messages), false, &text->whole, &problem))
        found = memmem(text->whole.text.data, text->whole.text.size, words, sizeof words - 1);
    json_decref(messages);
    free(problem);
    *size = found != NULL ? (size_t)(text->whole.text.data + text->whole.text.size - found) - (sizeof words - 1) : 0;
    return found != NULL ? found + sizeof words - 1 : NULL;
}

void espl_chat_text_free(espl_chat_text *text) {
    espl_jinja_output_free(&text->whole);
    espl_jinja_output_free(&text->part);
    free(text->learned);
    *text = (espl_chat_text){0};
}
