#include "src/train/score/asked.h"

#include "src/core/buffer.h"
#include "src/core/log.h"
#include "src/train/feed/texts.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static bool has_prompts(const espl_config *c) { return c->data_task == ESPL_TASK_LM && c->data_records != ESPL_RECORDS_TEXT; }

bool espl_asked_writes(const espl_config *c) { return c->eval_generate && (c->data_task == ESPL_TASK_SEQ2SEQ || has_prompts(c)); }

espl_status espl_asked_check(const espl_config *c) {
    if (c->eval_shots > 0 && !has_prompts(c))
        ESPL_FAIL(ESPL_ERR_USAGE, "eval.shots is %lld, but data.task is %s with data.records %s: examples are for prompts and chat of lm",
                  (long long)c->eval_shots, espl_config_choice("data", "task", c->data_task),
                  espl_config_choice("data", "records", c->data_records));
    if (c->eval_shots > 0 && c->eval_shots_from.n == 0 && c->data_train.n == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "eval.shots is %lld, but neither eval.shots_from nor data.train says where examples are",
                  (long long)c->eval_shots);
    return ESPL_OK;
}

/* ---- Examples. */

/* A record that is shown as an example: its text and second text (of prompts), or its turns. */
typedef struct shot {
    uint64_t rank; /* the smallest ranks are taken */
    char *prompt, *response;
    json_t *turns; /* of a conversation: from the first after the system's to the last of the assistant */
} shot;

typedef struct asker {
    const espl_asked_use *use;
    espl_asked *asked;
    int64_t wanted;        /* texts */
    int64_t new_tokens;    /* behind a prompt */
    int64_t source, place; /* the next text that is used */
    uint64_t *known;       /* [n_known] sorted hashes of the data's texts */
    int64_t n_known;
    shot *shots;
    int64_t n_shots;
    int64_t n_fewer, n_left_out, capacity;
    espl_encoding tokens;
    espl_buffer text;
    espl_chat_text chat_text;
    espl_status status;
} asker;

static int by_hash(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void list_known(asker *a) {
    const espl_dataset *d = a->use->data;
    a->known = espl_malloc((size_t)(d->n_documents + 1) * sizeof *a->known);
    for (int64_t s = 0; s < d->n; s++)
        for (int64_t i = 0; i < espl_source_used(&d->sources[s]); i++)
            a->known[a->n_known++] = d->stores[s].hashes[espl_source_document(&d->sources[s], i)];
    qsort(a->known, (size_t)a->n_known, sizeof *a->known, by_hash);
}

static bool is_system(const espl_conversation *c, int64_t i) {
    return espl_conversation_is(c, i, "system") || espl_conversation_is(c, i, "developer");
}

static int64_t first_turn(const espl_conversation *c) {
    int64_t i = 0;
    while (i < c->n && is_system(c, i))
        i++;
    return i;
}

/* False where the record cannot be read, or nobody answers: such a one is no example, and not asked. */
static bool read_conversation(const espl_chat *chat, const espl_document *document, espl_conversation *c, int64_t *answer) {
    char *problem = NULL;
    *answer = -1;
    if (espl_conversation_read(chat, document->text, document->size, c, &problem))
        *answer = espl_conversation_last(c, "assistant");
    free(problem);
    return *answer > first_turn(c);
}

static bool take_turns(const espl_chat *chat, const espl_document *document, shot *made) {
    espl_conversation c = {0};
    int64_t answer;
    bool good = read_conversation(chat, document, &c, &answer);
    if (good)
        made->turns = json_array();
    for (int64_t i = first_turn(&c); good && i <= answer; i++)
        json_array_append(made->turns, json_array_get(c.messages, (size_t)i));
    espl_conversation_free(&c);
    return good;
}

static void free_shot(shot *s) {
    free(s->prompt);
    free(s->response);
    json_decref(s->turns);
    *s = (shot){0};
}

/* Keeps the examples of the smallest ranks, in their order. */
static void keep_shot(asker *a, shot made) {
    int64_t at = a->n_shots, most = a->use->config->eval_shots;
    while (at > 0 && a->shots[at - 1].rank > made.rank)
        at--;
    if (a->n_shots == most)
        free_shot(at < most ? &a->shots[--a->n_shots] : &made);
    if (at == most)
        return;
    memmove(&a->shots[at + 1], &a->shots[at], (size_t)(a->n_shots - at) * sizeof *a->shots);
    a->shots[at] = made;
    a->n_shots++;
}

static void see_example(void *context, int64_t number, const espl_document *document) {
    asker *a = context;
    const uint64_t seed = (uint64_t)a->use->config->eval_shots_seed;
    uint64_t hash = XXH3_64bits(document->text, document->size);
    shot made = {.rank = seed > 0 ? XXH3_64bits_withSeed(&hash, sizeof hash, seed) : (uint64_t)number};
    if (bsearch(&hash, a->known, (size_t)a->n_known, sizeof hash, by_hash) != NULL)
        return;
    if (a->asked->chat != NULL ? !take_turns(a->asked->chat, document, &made) : document->second_size == 0)
        return;
    if (a->asked->chat == NULL) {
        made.prompt = espl_format("%.*s", (int)document->size, document->text);
        made.response = espl_format("%.*s", (int)document->second_size, document->second);
    }
    keep_shot(a, made);
}

static espl_status choose_shots(asker *a) {
    const espl_config *c = a->use->config;
    const espl_strings *paths = c->eval_shots_from.n > 0 ? &c->eval_shots_from : &c->data_train;
    if (c->eval_shots == 0)
        return ESPL_OK;
    list_known(a);
    a->shots = espl_calloc((size_t)c->eval_shots + 1, sizeof *a->shots);
    ESPL_TRY(espl_texts_read(c, paths, a->use->labels, see_example, a));
    if (a->n_shots < c->eval_shots)
        ESPL_FAIL(ESPL_ERR_DATA,
                  "eval.shots is %lld, but %s has %lld texts that are not among those evaluated; lower it or give eval.shots_from",
                  (long long)c->eval_shots, paths->items[0], (long long)a->n_shots);
    return ESPL_OK;
}

/* ---- Prompts. */

static void add_ids(asker *a, int64_t document, const int32_t *ids, int64_t n) {
    espl_asked *asked = a->asked;
    if (asked->n_ids + n > a->capacity) {
        a->capacity = 2 * a->capacity + n;
        asked->ids = espl_realloc(asked->ids, (size_t)a->capacity * sizeof *asked->ids);
    }
    memcpy(asked->ids + asked->n_ids, ids, (size_t)n * sizeof *ids);
    asked->texts[asked->n++] = (espl_asked_text){document, asked->n_ids, n};
    asked->n_ids += n;
    asked->longest = n > asked->longest ? n : asked->longest;
}

static void add_text(espl_buffer *text, const char *part) { espl_buffer_append(text, part, strlen(part)); }

static espl_status encode_prompt(asker *a, const espl_document *document, int64_t n_shots) {
    const espl_config *c = a->use->config;
    a->text.size = 0;
    for (int64_t i = 0; i < n_shots; i++) {
        add_text(&a->text, a->shots[i].prompt);
        add_text(&a->text, c->data_separator);
        add_text(&a->text, a->shots[i].response);
        add_text(&a->text, c->eval_shots_between);
    }
    espl_buffer_append(&a->text, document->text, document->size);
    add_text(&a->text, c->data_separator);
    return espl_ends_prompt(a->use->tokenizer, &a->asked->ends, a->text.data, a->text.size, true, &a->tokens);
}

/* The system's turns, those of the examples, the record's own. */
static espl_status encode_turns(asker *a, const espl_conversation *c, int64_t answer, int64_t n_shots) {
    espl_conversation asked = {.messages = json_array(), .tools = c->tools};
    int64_t own = first_turn(c);
    char *problem = NULL;
    espl_status status = ESPL_OK;
    for (int64_t i = 0; i < own; i++)
        json_array_append(asked.messages, json_array_get(c->messages, (size_t)i));
    for (int64_t i = 0; i < n_shots; i++)
        json_array_extend(asked.messages, a->shots[i].turns);
    for (int64_t i = own; i < answer; i++)
        json_array_append(asked.messages, json_array_get(c->messages, (size_t)i));
    asked.n = (int64_t)json_array_size(asked.messages);
    if (!espl_chat_ask(a->asked->chat, &asked, asked.n, &a->chat_text, &problem))
        status = espl_status_fail(ESPL_ERR_DATA, __FILE__, __LINE__, "a prompt for an evaluation: %s", problem);
    else
        status = espl_ends_prompt(a->use->tokenizer, &a->asked->ends, a->chat_text.whole.text.data, a->chat_text.whole.text.size, false,
                                  &a->tokens);
    free(problem);
    json_decref(asked.messages);
    return status;
}

static bool fits(const asker *a) { return a->tokens.n > 0 && a->tokens.n + a->new_tokens <= a->use->most; }

static espl_status ask(asker *a, int64_t number, const espl_document *document) {
    espl_conversation c = {0};
    int64_t answer = -1, n_shots = a->n_shots;
    espl_status status = ESPL_OK;
    if (a->asked->chat != NULL && !read_conversation(a->asked->chat, document, &c, &answer)) {
        a->n_left_out++;
        goto done;
    }
    for (;; n_shots--) {
        ESPL_TRY_DONE(a->asked->chat != NULL ? encode_turns(a, &c, answer, n_shots) : encode_prompt(a, document, n_shots));
        if (fits(a) || n_shots == 0)
            break;
    }
    a->n_fewer += n_shots < a->n_shots;
    if (fits(a))
        add_ids(a, number, a->tokens.ids, a->tokens.n);
    else
        a->n_left_out++;
done:
    espl_conversation_free(&c);
    return status;
}

/* The text that the dataset uses next; its hash tells which of the file's it is. */
static bool next_used(asker *a, uint64_t *hash) {
    const espl_dataset *d = a->use->data;
    while (a->source < d->n && a->place >= espl_source_used(&d->sources[a->source])) {
        a->source++;
        a->place = 0;
    }
    if (a->source < d->n)
        *hash = d->stores[a->source].hashes[espl_source_document(&d->sources[a->source], a->place)];
    return a->source < d->n;
}

static void see_text(void *context, int64_t number, const espl_document *document) {
    asker *a = context;
    uint64_t hash;
    if (a->status != ESPL_OK || a->asked->n + a->n_left_out >= a->wanted || !next_used(a, &hash) ||
        hash != XXH3_64bits(document->text, document->size))
        return;
    a->place++;
    a->status = ask(a, number, document);
}

static void report(const asker *a) {
    if (a->n_fewer > 0)
        ESPL_WARN("%lld of %lld prompts have fewer than eval.shots (%lld) examples before them, which would not fit", (long long)a->n_fewer,
                  (long long)(a->asked->n + a->n_left_out), (long long)a->n_shots);
    if (a->n_left_out > 0)
        ESPL_WARN("%lld of %lld texts are not generated for: no answer stands in them, or prompt and generate.max_new_tokens (%lld) take "
                  "more than %lld tokens",
                  (long long)a->n_left_out, (long long)(a->asked->n + a->n_left_out), (long long)a->new_tokens, (long long)a->use->most);
}

static espl_status ask_all(asker *a) {
    const espl_asked_use *u = a->use;
    for (int64_t s = 0; s < u->data->n; s++)
        if (u->data->stores[s].hashes == NULL)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: a token store, which has no texts to ask for", u->data->paths[s]);
    ESPL_TRY(choose_shots(a));
    ESPL_TRY(espl_texts_read(u->config, u->paths, u->labels, see_text, a));
    ESPL_TRY(a->status);
    report(a);
    if (a->asked->n == 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: there is no prompt to generate for", u->paths->items[0]);
    return ESPL_OK;
}

static void free_asker(asker *a) {
    for (int64_t i = 0; i < a->n_shots; i++)
        free_shot(&a->shots[i]);
    free(a->shots);
    free(a->known);
    espl_encoding_free(&a->tokens);
    espl_buffer_free(&a->text);
    espl_chat_text_free(&a->chat_text);
}

/* ---- Sources of an encoder, as the store has them. */

static void add_source(asker *a, const espl_source *source, int64_t place, int64_t number) {
    int64_t begin = source->documents[place], n = source->split[place];
    a->tokens.n = 0;
    espl_encoding_reserve(&a->tokens, n);
    for (int64_t i = 0; i < n; i++)
        a->tokens.ids[i] = source->ids16 != NULL ? (int32_t)source->ids16[begin + i] : (int32_t)source->ids32[begin + i];
    add_ids(a, number, a->tokens.ids, n);
}

static void add_sources(asker *a) {
    const espl_dataset *d = a->use->data;
    int64_t before = 0;
    for (int64_t s = 0; s < d->n; s++) {
        for (int64_t i = 0; i < espl_source_used(&d->sources[s]) && a->asked->n < a->wanted; i++) {
            int64_t place = espl_source_document(&d->sources[s], i);
            add_source(a, &d->sources[s], place, before + place);
        }
        before += d->sources[s].n_documents;
    }
}

espl_status espl_asked_make(const espl_asked_use *use, espl_asked *asked) {
    const espl_config *c = use->config;
    int64_t n = use->data->n_documents;
    asker a = {.use = use, .asked = asked, .new_tokens = c->generate_max_new_tokens};
    espl_status status = ESPL_OK;
    *asked = (espl_asked){.longest = 1};
    a.wanted = c->eval_generate_texts > 0 && c->eval_generate_texts < n ? c->eval_generate_texts : n;
    asked->texts = espl_malloc((size_t)(a.wanted + 1) * sizeof *asked->texts);
    if (has_prompts(c) && c->data_records == ESPL_RECORDS_CHAT)
        ESPL_TRY_DONE(espl_dataset_chat(c, c->data_tokenizer[0] != '\0' ? c->data_tokenizer : c->model_path, ESPL_CHAT_ALL, &asked->chat));
    ESPL_TRY_DONE(espl_ends_find(use->folder, use->model, use->tokenizer, asked->chat, &asked->ends));
    if (has_prompts(c))
        ESPL_TRY_DONE(ask_all(&a));
    else
        add_sources(&a);
done:
    free_asker(&a);
    if (status != ESPL_OK)
        espl_asked_free(asked);
    return status;
}

/* ---- */

/* A message's text; its parts as JSON where it has some. */
static char *content_of(const espl_conversation *c, int64_t i) {
    const json_t *content = json_object_get(json_array_get(c->messages, (size_t)i), "content");
    if (json_is_string(content))
        return espl_strdup(json_string_value(content));
    char *dumped = json_dumps(content, JSON_COMPACT | JSON_ENCODE_ANY);
    return dumped != NULL ? dumped : espl_strdup("");
}

void espl_asked_describe(const espl_asked *asked, const espl_document *document, char **input, char **reference) {
    espl_conversation c = {0};
    int64_t answer;
    if (asked->chat == NULL) {
        *input = espl_format("%.*s", (int)document->size, document->text);
        *reference = espl_format("%.*s", (int)document->second_size, document->second);
        return;
    }
    bool good = read_conversation(asked->chat, document, &c, &answer);
    ESPL_ASSERT(good, "a conversation that was asked has an answer");
    *input = content_of(&c, answer - 1);
    *reference = content_of(&c, answer);
    espl_conversation_free(&c);
}

void espl_asked_free(espl_asked *asked) {
    free(asked->texts);
    free(asked->ids);
    espl_chat_close(&asked->chat);
    espl_ends_free(&asked->ends);
    *asked = (espl_asked){0};
}
