/* Records of several shapes as messages. */
#include "io/chat/chat_parts.h"
#include "src/core/buffer.h"

#include <string.h>

static const char *const shapes = "expected {\"messages\": [{\"role\", \"content\"}, ...]}, {\"conversations\": [{\"from\", \"value\"}, "
                                  "...]}, {\"prompt\", \"response\"} or "
                                  "{\"instruction\", \"input\", \"output\"}";

/* Roles in ShareGPT's words; others are the template's business. */
static const char *role_of(const char *from) {
    static const char *const words[][2] = {{"human", "user"},       {"gpt", "assistant"},         {"chatgpt", "assistant"},
                                           {"bing", "assistant"},   {"bard", "assistant"},        {"model", "assistant"},
                                           {"observation", "tool"}, {"function_response", "tool"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i][0], from) == 0)
            return words[i][1];
    return from;
}

static void add_message(json_t *messages, const char *role, const json_t *content) {
    json_t *message = json_object();
    json_object_set_new(message, "role", json_string(role));
    json_object_set(message, "content", (json_t *)(uintptr_t)content);
    json_array_append_new(messages, message);
}

/* What newer and older templates call a message's reasoning, under each of the names, as transformers hands it on. */
static json_t *with_reasoning(json_t *message) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *reasoning = NULL;
    for (int i = 0; i < 3 && (reasoning == NULL || json_is_null(reasoning)); i++)
        reasoning = json_object_get(message, names[i]);
    if (reasoning == NULL || json_is_null(reasoning))
        return json_incref(message);
    json_t *made = json_pack("{s:O}", "thinking", reasoning);
    json_object_update(made, message);
    json_object_set(made, "reasoning_content", reasoning);
    return made;
}

static char *check_message(const json_t *message, const char *role_key, const char *content_key, size_t i) {
    const json_t *content = json_object_get(message, content_key);
    if (!json_is_object(message))
        return espl_format("message %zu is no object, expected {\"%s\": ..., \"%s\": ...}", i + 1, role_key, content_key);
    if (json_string_length(json_object_get(message, role_key)) == 0)
        return espl_format("message %zu has no '%s', expected a text such as \"user\"", i + 1, role_key);
    if (content != NULL && !json_is_string(content) && !json_is_array(content) && !json_is_null(content))
        return espl_format("message %zu: '%s' is neither a text nor a list of parts", i + 1, content_key);
    if ((content == NULL || json_is_null(content)) && json_object_get(message, "tool_calls") == NULL)
        return espl_format("message %zu has no '%s', expected a text", i + 1, content_key);
    return NULL;
}

/* A list of messages, whose keys are those of its first one. */
static char *take_messages(const json_t *list, const char *name, json_t *messages) {
    json_t *message;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return espl_format("'%s' is no list of messages", name);
    bool sharegpt = json_object_get(json_array_get(list, 0), "role") == NULL && json_object_get(json_array_get(list, 0), "from") != NULL;
    const char *role = sharegpt ? "from" : "role", *content = sharegpt ? "value" : "content";
    json_array_foreach(list, i, message) {
        char *problem = check_message(message, role, content, i);
        if (problem != NULL)
            return problem;
        if (sharegpt)
            add_message(messages, role_of(json_string_value(json_object_get(message, role))), json_object_get(message, content));
        else
            json_array_append_new(messages, with_reasoning(message));
    }
    return NULL;
}

static char *take_pair(const json_t *record, const char *asked, const char *answered, json_t *messages) {
    const json_t *prompt = json_object_get(record, asked), *response = json_object_get(record, answered);
    if (!json_is_string(prompt) || !json_is_string(response))
        return espl_format("'%s' is missing or no text, expected one beside '%s'", json_is_string(prompt) ? answered : asked,
                           json_is_string(prompt) ? asked : answered);
    add_message(messages, "user", prompt);
    add_message(messages, "assistant", response);
    return NULL;
}

/* Alpaca: what is to be done, on what, and the answer. */
static char *take_instruction(const json_t *record, json_t *messages) {
    const json_t *instruction = json_object_get(record, "instruction"), *input = json_object_get(record, "input");
    const json_t *output = json_object_get(record, "output");
    if (!json_is_string(instruction) || !json_is_string(output) || (input != NULL && !json_is_string(input) && !json_is_null(input)))
        return espl_format("one of 'instruction', 'input' and 'output' is no text, expected texts (input may be absent)");
    bool some = json_string_length(input) > 0;
    espl_buffer text = {0};
    espl_buffer_append(&text, json_string_value(instruction), json_string_length(instruction));
    if (some) {
        espl_buffer_append(&text, "\n\n", 2);
        espl_buffer_append(&text, json_string_value(input), json_string_length(input));
    }
    json_t *prompt = json_stringn(text.data, text.size);
    add_message(messages, "user", prompt);
    add_message(messages, "assistant", output);
    json_decref(prompt);
    espl_buffer_free(&text);
    return NULL;
}

static char *take_record(const espl_chat *chat, const json_t *record, espl_conversation *conversation) {
    const json_t *system = json_object_get(record, "system"), *list;
    if (!json_is_object(record))
        return espl_format("is no object, %s", shapes);
    if (system != NULL && !json_is_null(system) && !json_is_string(system))
        return espl_format("'system' is no text");
    if (json_string_length(system) > 0)
        add_message(conversation->messages, "system", system);
    if (json_object_get(record, "tools") != NULL)
        conversation->tools = json_incref(json_object_get(record, "tools"));
    if ((list = json_object_get(record, "messages")) != NULL)
        return take_messages(list, "messages", conversation->messages);
    if ((list = json_object_get(record, "conversations")) != NULL)
        return take_messages(list, "conversations", conversation->messages);
    if (json_object_get(record, chat->prompt_field) != NULL || json_object_get(record, chat->response_field) != NULL)
        return take_pair(record, chat->prompt_field, chat->response_field, conversation->messages);
    if (json_object_get(record, "instruction") != NULL)
        return take_instruction(record, conversation->messages);
    return espl_format("is no conversation, %s", shapes);
}

bool espl_conversation_is(const espl_conversation *conversation, int64_t i, const char *role) {
    const char *found = json_string_value(json_object_get(json_array_get(conversation->messages, (size_t)i), "role"));
    return found != NULL && strcmp(found, role) == 0;
}

int64_t espl_conversation_last(const espl_conversation *conversation, const char *role) {
    int64_t i = conversation->n - 1;
    while (i >= 0 && !espl_conversation_is(conversation, i, role))
        i--;
    return i;
}

static char *check_turns(const espl_chat *chat, const espl_conversation *conversation) {
    if (chat->loss == ESPL_CHAT_ALL || espl_conversation_last(conversation, "assistant") >= 0)
        return NULL;
    return espl_format("no message is the assistant's, so there is nothing to learn");
}

bool espl_conversation_read(const espl_chat *chat, const char *text, size_t size, espl_conversation *conversation, char **problem) {
    json_error_t error;
    *conversation = (espl_conversation){.messages = json_array()};
    json_t *record = json_loadb(text, size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    *problem = record == NULL ? espl_format("is not JSON: %s at byte %d of the record", error.text, error.position)
                              : take_record(chat, record, conversation);
    conversation->n = (int64_t)json_array_size(conversation->messages);
    if (*problem == NULL)
        *problem = check_turns(chat, conversation);
    json_decref(record);
    return *problem == NULL;
}

void espl_conversation_free(espl_conversation *conversation) {
    json_decref(conversation->messages);
    json_decref(conversation->tools);
    *conversation = (espl_conversation){0};
}
