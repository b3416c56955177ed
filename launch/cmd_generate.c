#include "launch/commands.h"
#include "launch/recipe.h"

#include "io/readers/readers.h"
#include "src/core/buffer.h"
#include "src/train/machine/choose_device.h"
#include "src/train/feed/dataset.h"
#include "src/train/score/generate_options.h"
#include "src/train/inference.h"
#include "src/train/machine/threads.h"

#include <stdlib.h>
#include <string.h>

static const char text[] =
    "Generates text from a model: PATH is a run folder, a checkpoint, a Hugging Face folder or an adapter in PEFT's layout. Prompts\n"
    "come from --prompt, from generate.prompts, or, without either, from the lines of stdin. One prompt without beams streams to\n"
    "stdout as it comes; several are generated together and printed in order. --set generate.* sets how (see `espalier config\n"
    "--reference`). With --chat each prompt is a user's turn, written by the model's chat template, and the assistant's is generated;\n"
    "--conversations has whole ones, of which the assistant's next turn is generated, or its last one anew.\n";

typedef struct job {
    espl_words operands, sets, prompts;
    const char *config, *conversations;
    bool greedy, chat, ids;
} job;

/* ---- Prompts. */

typedef struct prompts {
    char **texts;
    espl_encoding *encodings;
    espl_prompt *items;
    int n;
    int64_t longest;       /* of what a decoder's text begins with */
    int64_t source_tokens; /* of all prompts, where an encoder reads them */
    bool records;          /* texts are records of conversations */
    espl_chat *chat;       /* NULL: prompts are gone on from as they are */
    espl_ends ends;
} prompts;

static void add_prompt(prompts *p, const char *line, size_t size) {
    p->texts = espl_realloc(p->texts, (size_t)(p->n + 1) * sizeof *p->texts);
    p->texts[p->n] = espl_malloc(size + 1);
    memcpy(p->texts[p->n], line, size);
    p->texts[p->n++][size] = '\0';
}

static void read_stdin(prompts *p) {
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t n = getline(&line, &capacity, stdin); n >= 0; n = getline(&line, &capacity, stdin))
        add_prompt(p, line, (size_t)(n > 0 && line[n - 1] == '\n' ? n - 1 : n));
    free(line);
}

/* Records of conversations, as they are. */
static espl_status read_conversations(const char *path, prompts *p) {
    const espl_reader_options options = {.kind = ESPL_READ_RECORD};
    espl_inputs inputs = {0};
    espl_reader *reader = NULL;
    espl_document document;
    bool found;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_inputs_find((char *const[]){(char *)(uintptr_t)path}, 1, ESPL_READ_JSONL, &inputs));
    for (int64_t i = 0; i < inputs.n; i++) {
        const espl_share all = {i, 0, inputs.items[i].bytes};
        ESPL_TRY_DONE(espl_reader_open(&inputs, &all, &options, &reader));
        for (found = true; found;) {
            ESPL_TRY_DONE(espl_reader_next(reader, &document, &found));
            if (found)
                add_prompt(p, document.text, document.size);
        }
        espl_reader_close(&reader);
    }
done:
    espl_reader_close(&reader);
    espl_inputs_free(&inputs);
    return status;
}

static bool encodes(const espl_inference *model) { return model->model->head->head == ESPL_HEAD_SEQ2SEQ; }

/* A prompt as the record of a conversation of one turn. */
static char *record_of(const char *text) {
    json_t *record = json_pack("{s:[{s:s,s:s}]}", "messages", "role", "user", "content", text);
    char *made = record != NULL ? json_dumps(record, JSON_COMPACT) : NULL;
    json_decref(record);
    return made;
}

/* The conversation up to where the assistant speaks: at its end, or its last turn anew where that is the end. */
static espl_status encode_conversation(const prompts *p, const espl_inference *model, int i, espl_encoding *encoding) {
    espl_conversation conversation = {0};
    espl_chat_text text = {0};
    char *problem = NULL, *record = p->records ? espl_strdup(p->texts[i]) : record_of(p->texts[i]);
    espl_status status = ESPL_OK;
    if (record == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_USAGE, "prompt %d is not UTF-8, which a chat template needs", i + 1);
    if (espl_conversation_read(p->chat, record, strlen(record), &conversation, &problem)) {
        bool anew = espl_conversation_last(&conversation, "assistant") == conversation.n - 1;
        espl_chat_ask(p->chat, &conversation, conversation.n - anew, &text, &problem);
    }
    if (problem != NULL)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "prompt %d: %s", i + 1, problem);
    ESPL_TRY_DONE(espl_ends_prompt(model->tokenizer, &p->ends, text.whole.text.data, text.whole.text.size, false, encoding));
done:
    espl_conversation_free(&conversation);
    espl_chat_text_free(&text);
    free(problem);
    free(record);
    return status;
}

static espl_status encode_prompt(const prompts *p, const espl_inference *model, int i, espl_encoding *encoding) {
    if (p->chat != NULL)
        return encode_conversation(p, model, i, encoding);
    if (encodes(model))
        return espl_tokenizer_encode(model->tokenizer, p->texts[i], strlen(p->texts[i]), true, encoding);
    return espl_ends_prompt(model->tokenizer, &p->ends, p->texts[i], strlen(p->texts[i]), true, encoding);
}

static espl_status open_chat(const espl_config *config, const espl_inference *model, prompts *p) {
    if (!config->generate_chat)
        return ESPL_OK;
    if (encodes(model))
        ESPL_FAIL(ESPL_ERR_USAGE, "generate.chat: the model is a %s, which has no chat template", model->model->head->architecture);
    return espl_dataset_chat(config, config->data_tokenizer[0] != '\0' ? config->data_tokenizer : model->folder, ESPL_CHAT_ALL, &p->chat);
}

static espl_status encode_prompts(const espl_config *config, const espl_inference *model, prompts *p) {
    ESPL_TRY(open_chat(config, model, p));
    ESPL_TRY(espl_ends_find(model->folder, model->model, model->tokenizer, p->chat, &p->ends));
    p->encodings = espl_calloc((size_t)p->n, sizeof *p->encodings);
    p->items = espl_calloc((size_t)p->n, sizeof *p->items);
    for (int i = 0; i < p->n; i++) {
        ESPL_TRY(encode_prompt(p, model, i, &p->encodings[i]));
        if (p->encodings[i].n == 0)
            ESPL_FAIL(ESPL_ERR_USAGE, "prompt %d is empty: there is nothing to go on from", i + 1);
        p->items[i] = (espl_prompt){.ids = p->encodings[i].ids, .n = p->encodings[i].n};
        if (encodes(model)) {
            p->items[i] = (espl_prompt){&model->model->dims.start, 1, p->encodings[i].ids, p->encodings[i].n};
            p->source_tokens += p->encodings[i].n;
        }
        if (p->items[i].n > p->longest)
            p->longest = p->items[i].n;
    }
    return ESPL_OK;
}

static void free_prompts(prompts *p) {
    for (int i = 0; i < p->n; i++) {
        free(p->texts[i]);
        if (p->encodings != NULL)
            espl_encoding_free(&p->encodings[i]);
    }
    free(p->texts);
    free(p->encodings);
    free(p->items);
    espl_chat_close(&p->chat);
    espl_ends_free(&p->ends);
}

/* ---- Results. */

/* Text that goes on from its prompt stands behind it; an answer stands alone. */
static const char *shown_prompt(const prompts *p, const espl_inference *model, int i) {
    return encodes(model) || p->chat != NULL ? "" : p->texts[i];
}

typedef struct stream {
    const espl_inference *model;
    espl_buffer shown; /* text so far, as it stands on stdout */
    int32_t *ids;
    int64_t n;
} stream;

/* Decodes all ids and prints what is new, but holds back a character whose bytes are not all there yet. */
static void show_token(void *context, int prompt, int32_t token) {
    stream *s = context;
    espl_buffer now = {0};
    (void)prompt;
    s->ids = espl_realloc(s->ids, (size_t)(s->n + 1) * sizeof *s->ids);
    s->ids[s->n++] = token;
    if (espl_tokenizer_decode(s->model->tokenizer, s->ids, s->n, true, &now) == ESPL_OK && now.size > s->shown.size &&
        (now.size < 3 || memcmp(now.data + now.size - 3, "\xEF\xBF\xBD", 3) != 0)) {
        fwrite(now.data + s->shown.size, 1, now.size - s->shown.size, stdout);
        fflush(stdout);
        espl_buffer_free(&s->shown);
        s->shown = now;
    } else {
        espl_buffer_free(&now);
    }
}

static espl_status print_result(const espl_inference *model, const prompts *p, int i, const espl_generated *g, bool ids) {
    espl_buffer decoded = {0};
    for (int64_t k = 0; k < g->n && ids; k++)
        printf("%d%c", g->ids[k], k + 1 < g->n ? ' ' : '\n');
    if (ids)
        return ESPL_OK;
    ESPL_TRY(espl_tokenizer_decode(model->tokenizer, g->ids, g->n, true, &decoded));
    if (p->n > 1)
        printf("== %d: ", i + 1);
    printf("%s%s\n", shown_prompt(p, model, i), decoded.data != NULL ? decoded.data : "");
    espl_buffer_free(&decoded);
    return ESPL_OK;
}

/* ---- The verb. */

static espl_status generate(const espl_config *config, const espl_inference *model, const prompts *p, bool ids) {
    const espl_generate_options options = espl_generate_options_of(config, &p->ends);
    int rows = p->n * options.beams;
    bool streams = p->n == 1 && options.beams == 1 && !ids;
    stream s = {.model = model};
    espl_decoder *decoder = NULL;
    espl_generated *results = espl_calloc((size_t)p->n, sizeof *results);
    espl_status status = ESPL_OK;
    const espl_decoder_use use = {.engine = model->engine,
                                  .model = model->model,
                                  .weights = model->weights,
                                  .rope = model->rope,
                                  .threads = model->threads,
                                  .source_tokens = p->source_tokens};
    ESPL_TRY_DONE(espl_decoder_make(&use, rows, p->longest + options.max_new, 512, &decoder));
    if (streams)
        fputs(shown_prompt(p, model, 0), stdout);
    ESPL_TRY_DONE(espl_generate(decoder, &options, p->n, p->items, model->model->dims.vocab, streams ? show_token : NULL, &s, results));
    if (streams)
        putchar('\n');
    for (int i = 0; i < p->n && !streams; i++)
        ESPL_TRY_DONE(print_result(model, p, i, &results[i], ids));
done:
    espl_decoder_free(&decoder);
    for (int i = 0; i < p->n; i++)
        free(results[i].ids);
    free(results);
    free(s.ids);
    espl_buffer_free(&s.shown);
    return status;
}

static espl_status read_config(const job *job, espl_config *config) {
    ESPL_TRY(espl_recipe_read(job->config, &job->sets, config));
    if (job->greedy)
        config->generate_temperature = 0.0;
    if (job->chat || job->conversations != NULL)
        config->generate_chat = true;
    return ESPL_OK;
}

static espl_status gather_prompts(const job *job, const espl_config *config, prompts *p) {
    p->records = job->conversations != NULL;
    if (p->records && job->prompts.n > 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "--prompt and --conversations are both given, expected one of them");
    if (p->records)
        return read_conversations(job->conversations, p);
    for (int64_t i = 0; i < job->prompts.n; i++)
        add_prompt(p, job->prompts.items[i], strlen(job->prompts.items[i]));
    for (int64_t i = 0; i < config->generate_prompts.n && job->prompts.n == 0; i++)
        add_prompt(p, config->generate_prompts.items[i], strlen(config->generate_prompts.items[i]));
    if (p->n == 0)
        read_stdin(p);
    return ESPL_OK;
}

static espl_status run(void *context) {
    const job *job = context;
    espl_engine engine = {0};
    espl_inference model = {0};
    prompts p = {0};
    espl_config config;
    espl_comm *self = NULL;
    char why[ESPL_MESSAGE_BYTES];
    int threads;
    espl_status status = ESPL_OK;
    espl_config_make(&config);
    ESPL_TRY_DONE(read_config(job, &config));
    ESPL_TRY_DONE(gather_prompts(job, &config, &p));
    if (p.n == 0)
        ESPL_FAIL_DONE(ESPL_ERR_USAGE, "no prompt: give --prompt TEXT, generate.prompts, or lines on stdin");
    ESPL_TRY_DONE(espl_comm_open(&self, 0));
    ESPL_TRY_DONE(espl_threads_choose(self, config.run_threads, &threads));
    ESPL_TRY_DONE(espl_choose_device(self, &config, &engine, why));
    ESPL_TRY_DONE(espl_inference_open(self, job->operands.items[0], &config, &engine, (espl_inference_reach){0}, threads, &model));
    ESPL_TRY_DONE(encode_prompts(&config, &model, &p));
    const int64_t positions = espl_model_positions(model.model);
    if (p.longest + config.generate_max_new_tokens > positions)
        ESPL_FAIL_DONE(ESPL_ERR_USAGE, "a prompt of %lld tokens and generate.max_new_tokens %lld exceed the model's %lld positions",
                       (long long)p.longest, (long long)config.generate_max_new_tokens, (long long)positions);
    ESPL_TRY_DONE(generate(&config, &model, &p, job->ids));
done:
    espl_comm_close(&self);
    espl_inference_close(&model);
    espl_engine_close(&engine);
    free_prompts(&p);
    espl_config_free(&config);
    return status;
}

espl_status espl_cmd_generate(int argc, char **argv) {
    job job = {0};
    const espl_option options[] = {
        {"prompt", "TEXT", "a prompt", ESPL_OPTION_TEXTS, &job.prompts},
        {"chat", NULL, "prompts are turns of a user, by the model's chat template (generate.chat=true)", ESPL_OPTION_SWITCH, &job.chat},
        {"conversations", "FILE", "with the records of this file, as data.records: chat has them, in place of prompts", ESPL_OPTION_TEXT,
         &job.conversations},
        {"config", "FILE", "a config: how to generate, on what, and where model, tokenizer and chat template lie if not in PATH",
         ESPL_OPTION_TEXT, &job.config},
        ESPL_OPTION_SET(&job.sets),
        {"greedy", NULL, "the likeliest token each time (generate.temperature=0)", ESPL_OPTION_SWITCH, &job.greedy},
        {"ids", NULL, "print the new tokens' ids instead of text", ESPL_OPTION_SWITCH, &job.ids},
    };
    const espl_usage usage = {
        .verb = "generate", .operands = "PATH", .text = text, ESPL_OPTIONS(options), .min_operands = 1, .max_operands = 1};
    return espl_options_run(&usage, argc, argv, &job.operands, run, &job);
}
