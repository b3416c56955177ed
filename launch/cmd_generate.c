#include "launch/commands.h"
#include "launch/recipe.h"

#include "src/core/buffer.h"
#include "src/train/choose_device.h"
#include "src/train/generate_options.h"
#include "src/train/inference.h"
#include "src/train/threads.h"

#include <stdlib.h>
#include <string.h>

static const char text[] =
    "Generates text from a model: PATH is a run folder, a checkpoint or a Hugging Face folder. Prompts come from --prompt,\n"
    "from generate.prompts, or, without either, from the lines of stdin. One prompt without beams streams to stdout as it comes;\n"
    "several are generated together and printed in order. --set generate.* sets how (see `espalier config --reference`).\n";

typedef struct job {
    espl_words operands, sets, prompts;
    const char *config;
    bool greedy, ids;
} job;

/* ---- Prompts. */

typedef struct prompts {
    char **texts;
    espl_encoding *encodings;
    espl_prompt *items;
    int n;
    int64_t longest;       /* of what a decoder's text begins with */
    int64_t source_tokens; /* of all prompts, where an encoder reads them */
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

static bool encodes(const espl_inference *model) { return model->model->head->head == ESPL_HEAD_SEQ2SEQ; }

static espl_status encode_prompts(prompts *p, const espl_inference *model) {
    p->encodings = espl_calloc((size_t)p->n, sizeof *p->encodings);
    p->items = espl_calloc((size_t)p->n, sizeof *p->items);
    for (int i = 0; i < p->n; i++) {
        ESPL_TRY(espl_tokenizer_encode(model->tokenizer, p->texts[i], strlen(p->texts[i]), true, &p->encodings[i]));
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
}

/* ---- Results. */

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
    printf("%s%s\n", encodes(model) ? "" : p->texts[i], decoded.data != NULL ? decoded.data : "");
    espl_buffer_free(&decoded);
    return ESPL_OK;
}

/* ---- The verb. */

static espl_status generate(const espl_config *config, const espl_inference *model, const prompts *p, bool ids) {
    const espl_generate_options options = espl_generate_options_of(config, &model->model->dims.eos);
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
    if (streams && !encodes(model))
        fputs(p->texts[0], stdout);
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
    return ESPL_OK;
}

static void gather_prompts(const job *job, const espl_config *config, prompts *p) {
    for (int64_t i = 0; i < job->prompts.n; i++)
        add_prompt(p, job->prompts.items[i], strlen(job->prompts.items[i]));
    for (int64_t i = 0; i < config->generate_prompts.n && job->prompts.n == 0; i++)
        add_prompt(p, config->generate_prompts.items[i], strlen(config->generate_prompts.items[i]));
    if (p->n == 0)
        read_stdin(p);
}

static espl_status run(const job *job) {
    espl_engine engine = {0};
    espl_inference model = {0};
    prompts p = {0};
    espl_config config;
    espl_comm *self = NULL;
    char why[512];
    int threads;
    espl_status status = ESPL_OK;
    espl_config_make(&config);
    ESPL_TRY_DONE(read_config(job, &config));
    gather_prompts(job, &config, &p);
    if (p.n == 0)
        ESPL_FAIL_DONE(ESPL_ERR_USAGE, "no prompt: give --prompt TEXT, generate.prompts, or lines on stdin");
    ESPL_TRY_DONE(espl_comm_open(&self, 0));
    ESPL_TRY_DONE(espl_threads_choose(self, config.run_threads, &threads));
    ESPL_TRY_DONE(espl_choose_device(self, &config, &engine, why));
    ESPL_TRY_DONE(espl_inference_open(self, job->operands.items[0], &config, &engine, 0, threads, &model));
    ESPL_TRY_DONE(encode_prompts(&p, &model));
    if (p.longest + config.generate_max_new_tokens > model.model->dims.positions)
        ESPL_FAIL_DONE(ESPL_ERR_USAGE, "a prompt of %lld tokens and generate.max_new_tokens %lld exceed the model's %lld positions",
                       (long long)p.longest, (long long)config.generate_max_new_tokens, (long long)model.model->dims.positions);
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
        {"prompt", "TEXT", "a prompt; may be given several times", ESPL_OPTION_TEXTS, &job.prompts},
        {"config", "FILE", "a config whose generate.* and run.* keys are used", ESPL_OPTION_TEXT, &job.config},
        {"set", "KEY=VALUE", "override one key, as section.key=value", ESPL_OPTION_TEXTS, &job.sets},
        {"greedy", NULL, "the likeliest token each time (generate.temperature=0)", ESPL_OPTION_SWITCH, &job.greedy},
        {"ids", NULL, "print the new tokens' ids instead of text", ESPL_OPTION_SWITCH, &job.ids},
    };
    const espl_usage usage = {.verb = "generate",
                              .operands = "PATH",
                              .text = text,
                              .options = options,
                              .n_options = sizeof options / sizeof options[0],
                              .min_operands = 1,
                              .max_operands = 1};
    bool done;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_options_parse(&usage, argc, argv, &job.operands, &done));
    if (!done)
        ESPL_TRY_DONE(run(&job));
done:
    espl_words_free(&job.operands);
    espl_words_free(&job.sets);
    espl_words_free(&job.prompts);
    return status;
}
