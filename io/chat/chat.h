/* Conversations: records of several shapes as messages, messages as a text by a chat template, and the parts of it that are learned.
 *
 * Shapes: {"messages": [{"role", "content"}, ...]}, with "system" before them; ShareGPT's {"conversations": [{"from", "value"}, ...]};
 * {"prompt", "response"}; Alpaca's {"instruction", "input", "output"}. Beside each a "system" text and "tools" may stand.
 *
 * What a turn of the assistant takes of the text is told by generation blocks, where the template has some. Else it is what the text of the
 * conversation up to the turn has more than the text up to the turn before with the generation prompt; both must be beginnings of the
 * whole, or it is an error. So the turn's end token belongs to it, as it does when a model answers. */
#ifndef ESPL_IO_CHAT_CHAT_H
#define ESPL_IO_CHAT_CHAT_H

#include "io/jinja/jinja.h"
#include "src/core/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* What is learned of a conversation: the choices of data.loss_on in their order. */
typedef enum espl_chat_loss { ESPL_CHAT_ASSISTANT, ESPL_CHAT_LAST, ESPL_CHAT_ALL } espl_chat_loss;

typedef struct espl_chat_options {
    const char *template; /* a file; "" or NULL: the folder's chat_template.jinja, else the chat_template of its tokenizer_config.json */
    const char *folder;   /* of the tokenizer (or a file in it): its special tokens are handed to the template, as transformers does */
    const char *date;     /* what strftime_now gives; "": it is an error */
    const char *prompt_field, *response_field; /* "" or NULL: prompt, response */
    espl_chat_loss loss;
} espl_chat_options;

typedef struct espl_chat espl_chat;

/* Local. Reads and parses the template. Errors: usage, when there is none; data, at a place of the template. */
espl_status espl_chat_open(const espl_chat_options *options, espl_chat **chat);

/* Local. Hash of all that decides what becomes of a record. */
uint64_t espl_chat_hash(const espl_chat *chat);
bool espl_chat_learns_all(const espl_chat *chat);

/* Messages of one record, and what else the template sees of it. */
typedef struct espl_conversation {
    json_t *messages, *tools; /* owned */
    int64_t n;
} espl_conversation;

/* Local. Takes a record's text (one JSON object) apart. On failure *problem says what is wrong; the caller frees it. */
bool espl_conversation_read(const espl_chat *chat, const char *text, size_t size, espl_conversation *conversation, char **problem);
void espl_conversation_free(espl_conversation *conversation);

/* Local. Whose turn message i is. */
bool espl_conversation_is(const espl_conversation *conversation, int64_t i, const char *role);

/* Local. The last message of a role, -1: none. */
int64_t espl_conversation_last(const espl_conversation *conversation, const char *role);

/* What a conversation is as a text; zero it before the first, later ones begin anew in the same memory. */
typedef struct espl_chat_text {
    espl_jinja_output whole;
    espl_jinja_span *learned; /* [n] in order */
    int64_t n, capacity;
    espl_jinja_output part; /* private */
} espl_chat_text;

/* Local. Writes messages [begin, end) of a conversation, with the first `kept` messages before them. On failure *problem says what is
 * wrong; the caller frees it. */
bool espl_chat_write(const espl_chat *chat, const espl_conversation *conversation, int64_t kept, int64_t begin, int64_t end,
                     espl_chat_text *text, char **problem);
void espl_chat_text_free(espl_chat_text *text);

/* Local. Writes messages [0, end) and the template's generation prompt, which the assistant's next turn follows, to text->whole. On failure
 * *problem says what is wrong; the caller frees it. */
bool espl_chat_ask(const espl_chat *chat, const espl_conversation *conversation, int64_t end, espl_chat_text *text, char **problem);

/* Local. What the template writes behind the words of an assistant's last turn: [*size] bytes in `text`; 0 where it cannot be told. */
const char *espl_chat_turn_end(const espl_chat *chat, espl_chat_text *text, size_t *size);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_chat_close(espl_chat **chat);

#endif
