#include "src/train/feed/dataset.h"

#include "src/core/buffer.h"
#include "src/core/log.h"
#include "src/data/split.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

_Static_assert((int)ESPL_TOKENS_LM == (int)ESPL_TASK_LM && (int)ESPL_TOKENS_MLM == (int)ESPL_TASK_MLM &&
                   (int)ESPL_TOKENS_CLASSIFICATION == (int)ESPL_TASK_CLASSIFICATION && (int)ESPL_TOKENS_SEQ2SEQ == (int)ESPL_TASK_SEQ2SEQ,
               "a choice of data.task is handed to the token store as it is");
_Static_assert((int)ESPL_KEEP_HEAD == (int)ESPL_TRUNCATION_HEAD && (int)ESPL_KEEP_TAIL == (int)ESPL_TRUNCATION_TAIL &&
                   (int)ESPL_KEEP_HEAD_TAIL == (int)ESPL_TRUNCATION_HEAD_TAIL,
               "a choice of data.truncation is handed to the tokenizer as it is");
_Static_assert((int)ESPL_TOKEN_BEGINS_WORD == (int)ESPL_WORD_BEGINS && (int)ESPL_TOKEN_SPECIAL == (int)ESPL_WORD_SPECIAL,
               "what the tokenizer says of words is handed to the placement as it is");

_Static_assert((int)ESPL_CHAT_ASSISTANT == (int)ESPL_LOSS_ON_ASSISTANT && (int)ESPL_CHAT_LAST == (int)ESPL_LOSS_ON_LAST &&
                   (int)ESPL_CHAT_ALL == (int)ESPL_LOSS_ON_ALL,
               "a choice of data.loss_on is handed to the chat template as it is");

static bool is_lm(const espl_config *config) { return config->data_task == ESPL_TASK_LM; }

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Preparing. */

static espl_tokens_recipe recipe_of(const espl_config *c, const espl_dataset_use *use) {
    bool prompts = is_lm(c) && c->data_records == ESPL_RECORDS_PROMPTS, whole = is_lm(c) && c->data_records == ESPL_RECORDS_TEXT;
    bool pairs = prompts || c->data_task == ESPL_TASK_SEQ2SEQ, labelled = c->data_task == ESPL_TASK_CLASSIFICATION;
    int64_t room = use->room.tokens - use->prompt, target = c->data_target_length > 0 ? smaller(c->data_target_length, room) : room;
    return (espl_tokens_recipe){.n_paths = 1,
                                .format = c->data_format,
                                .task = c->data_task,
                                .text_field = pairs ? c->data_source_field : c->data_text_field,
                                .second_field = pairs      ? c->data_target_field
                                                : labelled ? c->data_pair_field
                                                           : "",
                                .label_field = labelled ? c->data_label_field : "",
                                .document = c->data_document,
                                .append_eos = c->data_append_eos,
                                .eos = use->eos,
                                .skip_bad = c->data_on_error == ESPL_ON_ERROR_SKIP,
                                .labels = labelled ? use->labels : NULL,
                                .some_labels = labelled && c->data_labels.n > 0,
                                .prefix = pairs ? c->data_prefix : "",
                                .separator = prompts ? c->data_separator : NULL,
                                .learns_prompt = c->data_loss_on == ESPL_LOSS_ON_ALL,
                                .length = whole ? 0 : use->length,
                                .target_length = pairs ? target : 0,
                                .truncation =
                                    c->data_task != ESPL_TASK_MLM && !whole ? (espl_truncation)c->data_truncation : ESPL_KEEP_HEAD};
}

espl_status espl_dataset_chat(const espl_config *c, const char *folder, espl_chat_loss loss, espl_chat **chat) {
    const espl_chat_options options = {.template = c->data_chat_template,
                                       .folder = folder,
                                       .date = c->data_chat_date,
                                       .prompt_field = c->data_source_field,
                                       .response_field = c->data_target_field,
                                       .loss = loss};
    return espl_chat_open(&options, chat);
}

/* NULL where records are no conversations. */
static espl_status open_chat(const espl_config *c, espl_chat **chat) {
    *chat = NULL;
    if (!is_lm(c) || c->data_records != ESPL_RECORDS_CHAT)
        return ESPL_OK;
    return espl_dataset_chat(c, c->data_tokenizer[0] != '\0' ? c->data_tokenizer : c->model_path, (espl_chat_loss)c->data_loss_on, chat);
}

static espl_status check_labels(const espl_tokens *store, const espl_dataset_use *use, const char *path) {
    espl_buffer text = {0};
    if (store->labels == NULL || use->labels == NULL || espl_labels_equal(&store->names, use->labels))
        return ESPL_OK;
    espl_buffer_printf(&text, "made with the labels ");
    espl_labels_list(&store->names, &text);
    espl_buffer_printf(&text, "; expected ");
    espl_labels_list(use->labels, &text);
    espl_status status = espl_status_fail(ESPL_ERR_DATA, __FILE__, __LINE__, "%s: %s", path, text.data);
    espl_buffer_free(&text);
    return status;
}

static espl_status open_source(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, const espl_dataset_use *use,
                               char *const *path, json_t *files, char **store, espl_tokens *tokens) {
    char *cache = config->data_cache[0] != '\0' ? espl_strdup(config->data_cache) : espl_format("%s/cache", config->run_dir);
    espl_tokens_recipe recipe = recipe_of(config, use);
    espl_chat *chat = NULL;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_comm_agree(comm, open_chat(config, &chat), "reading the chat template"));
    recipe.chat = chat;
    recipe.paths = path;
    recipe.cache = cache;
    recipe.files = files;
    ESPL_TRY_DONE(espl_tokens_prepare(comm, tokenizer, &recipe, store));
    ESPL_TRY_DONE(espl_tokens_open_all(comm, *store, tokens));
    ESPL_TRY_DONE(check_labels(tokens, use, *path));
done:
    espl_chat_close(&chat);
    free(cache);
    return status;
}

static void describe_source(const espl_config *config, const espl_dataset_use *use, int64_t i, espl_dataset *d, const char *name) {
    const espl_tokens *t = &d->stores[i];
    d->sources[i] = (espl_source){.name = name,
                                  .n_tokens = t->n_tokens,
                                  .n_documents = t->n_documents,
                                  .documents = t->documents,
                                  .ids16 = t->ids16,
                                  .ids32 = t->ids32,
                                  .mask = t->mask,
                                  .types = t->types,
                                  .words = t->words,
                                  .labels = t->labels,
                                  .split = t->split};
    if (use->training && config->data_weights.n > 0)
        d->sources[i].weight = config->data_weights.items[i];
}

static espl_status prepare_sources(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, const espl_strings *paths,
                                   const espl_dataset_use *use, espl_dataset *d) {
    size_t n = (size_t)paths->n;
    *d = (espl_dataset){.stores = espl_calloc(n, sizeof *d->stores),
                        .sources = espl_calloc(n, sizeof *d->sources),
                        .paths = espl_calloc(n, sizeof *d->paths),
                        .chosen = espl_calloc(n, sizeof *d->chosen),
                        .files = json_array(),
                        .n = paths->n};
    if (use->training && config->data_weights.n > 0 && config->data_weights.n != paths->n)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.weights has %lld entries, data.train %lld: one weight an entry is expected",
                  (long long)config->data_weights.n, (long long)paths->n);
    for (int64_t i = 0; i < paths->n; i++) {
        ESPL_TRY(open_source(comm, config, tokenizer, use, &paths->items[i], d->files, &d->paths[i], &d->stores[i]));
        describe_source(config, use, i, d, paths->items[i]);
    }
    return ESPL_OK;
}

/* ---- Placing. */

int64_t espl_source_used(const espl_source *source) { return source->chosen != NULL ? source->n_chosen : source->n_documents; }

int64_t espl_source_document(const espl_source *source, int64_t i) { return source->chosen != NULL ? source->chosen[i] : i; }

static void count_used(espl_dataset *d) {
    d->n_tokens = d->n_bytes = d->n_documents = 0;
    for (int64_t s = 0; s < d->n; s++) {
        const espl_source *source = &d->sources[s];
        int64_t tokens = 0;
        for (int64_t i = 0; i < espl_source_used(source) && source->chosen != NULL; i++)
            tokens += source->documents[source->chosen[i] + 1] - source->documents[source->chosen[i]];
        if (source->chosen == NULL)
            tokens = source->n_tokens;
        d->n_tokens += tokens;
        d->n_documents += espl_source_used(source);
        d->n_bytes += (int64_t)((double)d->stores[s].n_bytes * ((double)tokens / (double)source->n_tokens));
    }
}

static espl_status find_mask(const espl_config *config, const espl_tokenizer *tokenizer, espl_masking *masking) {
    static const char *const usual[] = {"[MASK]", "<mask>"};
    bool given = config->data_mask_token[0] != '\0';
    masking->mask = espl_tokenizer_id(tokenizer, given ? config->data_mask_token : usual[0]);
    if (masking->mask < 0 && !given)
        masking->mask = espl_tokenizer_id(tokenizer, usual[1]);
    if (masking->mask < 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "the tokenizer has no token '%s'%s, expected a mask token; data.mask_token names it",
                  given ? config->data_mask_token : usual[0], given ? "" : " or '<mask>'");
    masking->vocabulary = (int32_t)espl_tokenizer_size(tokenizer);
    masking->probability = config->data_mlm_probability;
    masking->whole_words = config->data_whole_words;
    return ESPL_OK;
}

static espl_status parse_weight(const char *text, float *weight) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || errno != 0 || !isfinite(value) || value < 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.class_weights: '%s', expected none, balanced, or a number from 0 on for each label", text);
    *weight = (float)value;
    return ESPL_OK;
}

/* n / (labels x n of the label), as scikit-learn's "balanced". */
static void balance(const espl_dataset *d, int64_t n_labels, float *weights) {
    int64_t *counts = espl_calloc((size_t)n_labels, sizeof *counts);
    for (int64_t s = 0; s < d->n; s++)
        for (int64_t i = 0; i < espl_source_used(&d->sources[s]); i++)
            counts[d->sources[s].labels[espl_source_document(&d->sources[s], i)]]++;
    for (int64_t l = 0; l < n_labels; l++)
        weights[l] = counts[l] > 0 ? (float)((double)d->n_documents / ((double)n_labels * (double)counts[l])) : 0.0f;
    free(counts);
}

static espl_status weigh_classes(const espl_config *config, const espl_dataset_use *use, espl_dataset *d) {
    const espl_strings *given = &config->data_class_weights;
    bool word = given->n == 1 && (strcmp(given->items[0], "none") == 0 || strcmp(given->items[0], "balanced") == 0);
    if (config->data_task != ESPL_TASK_CLASSIFICATION || !use->training || given->n == 0 || (word && given->items[0][0] == 'n'))
        return ESPL_OK;
    int64_t n_labels = use->labels->n;
    d->class_weights = espl_calloc((size_t)n_labels, sizeof *d->class_weights);
    if (word) {
        balance(d, n_labels, d->class_weights);
        return ESPL_OK;
    }
    for (int64_t i = 0; i < given->n && i < n_labels; i++)
        ESPL_TRY(parse_weight(given->items[i], &d->class_weights[i]));
    if (given->n != n_labels)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.class_weights has %lld entries, expected none, balanced, or a number for each of %lld labels",
                  (long long)given->n, (long long)n_labels);
    return ESPL_OK;
}

static espl_status place(const espl_config *config, const espl_tokenizer *tokenizer, const espl_dataset_use *use, espl_dataset *d) {
    espl_placement_options options = {.task = config->data_task,
                                      .room = use->room,
                                      .length = smaller(use->length, use->room.tokens - use->prompt),
                                      .prompt = use->prompt,
                                      .source_prompt = use->source_prompt,
                                      .prompt_id = use->prompt_id,
                                      .windows = config->data_placement == ESPL_WINDOWS,
                                      .shuffle = use->training,
                                      .seed = (uint64_t)config->run_seed,
                                      .start = use->start};
    count_used(d);
    if (config->data_task == ESPL_TASK_MLM)
        ESPL_TRY(find_mask(config, tokenizer, &options.masking));
    ESPL_TRY(weigh_classes(config, use, d));
    if (config->data_task == ESPL_TASK_CLASSIFICATION)
        options.n_classes = use->labels->n;
    options.class_weights = d->class_weights;
    return espl_placement_make(d->sources, d->n, &options, &d->placement);
}

static espl_status check_config(const espl_config *c, const espl_dataset_use *use) {
    bool whole = c->data_task == ESPL_TASK_CLASSIFICATION || c->data_task == ESPL_TASK_SEQ2SEQ;
    if (use->length < 1)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "the %lld tokens that tune.method puts in front of every text leave no room for it in micro-batches of "
                  "train.micro_batch_tokens %lld; raise that",
                  (long long)(use->prompt + use->source_prompt), (long long)c->train_micro_batch_tokens);
    if (use->room.tokens <= use->prompt)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "the %lld tokens that tune.method puts in front of every text leave no room for targets in micro-batches of %lld; raise "
                  "train.micro_batch_target_tokens",
                  (long long)use->prompt, (long long)use->room.tokens);
    if (c->data_placement == ESPL_WINDOWS && (whole || c->data_valid_fraction > 0))
        ESPL_FAIL(ESPL_ERR_USAGE, "data.placement is windows, which cut running text; %s needs packed",
                  whole ? espl_config_choice("data", "task", c->data_task) : "data.valid_fraction");
    if (c->data_records != ESPL_RECORDS_TEXT && !is_lm(c))
        ESPL_FAIL(ESPL_ERR_USAGE, "data.records is %s, which is for data.task lm, not %s",
                  espl_config_choice("data", "records", c->data_records), espl_config_choice("data", "task", c->data_task));
    if (c->data_records != ESPL_RECORDS_TEXT && c->data_placement == ESPL_WINDOWS)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.placement is windows, which cut running text; data.records %s needs packed",
                  espl_config_choice("data", "records", c->data_records));
    if (c->data_valid_fraction > 0 && c->data_valid.n > 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.valid and data.valid_fraction are both given, expected one of them");
    if (c->data_task == ESPL_TASK_SEQ2SEQ && use->start < 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.task is seq2seq, but the model's config.json has no decoder_start_token_id");
    return ESPL_OK;
}

static void report_cut(const espl_dataset *d) {
    for (int64_t i = 0; i < d->n; i++) {
        const espl_tokens *t = &d->stores[i];
        if (t->n_cut > 0)
            ESPL_INFO("%s: %lld of %lld texts were too long and cut; %lld tokens were left out", d->sources[i].name, (long long)t->n_cut,
                      (long long)(t->n_documents + t->n_left_out), (long long)t->n_lost);
        if (t->n_left_out > 0)
            ESPL_WARN("%s: %lld of them are not used at all: not even their first part fits into data.sequence_length", d->sources[i].name,
                      (long long)t->n_left_out);
    }
}

espl_status espl_dataset_open(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, const espl_strings *paths,
                              const espl_dataset_use *use, espl_dataset *dataset) {
    *dataset = (espl_dataset){0};
    ESPL_TRY(check_config(config, use));
    ESPL_TRY(prepare_sources(comm, config, tokenizer, paths, use, dataset));
    report_cut(dataset);
    return espl_comm_agree(comm, place(config, tokenizer, use, dataset), "placing the data");
}

/* ---- Training and validation data. */

static espl_texts *texts_of(const espl_dataset *d) {
    espl_texts *texts = espl_calloc((size_t)d->n + 1, sizeof *texts);
    for (int64_t s = 0; s < d->n; s++)
        texts[s] = (espl_texts){.hashes = d->stores[s].hashes,
                                .labels = d->sources[s].labels,
                                .chosen = d->sources[s].chosen,
                                .n = espl_source_used(&d->sources[s])};
    return texts;
}

static void choose(const espl_split *split, bool kept, espl_dataset *d) {
    espl_texts *texts = texts_of(d);
    for (int64_t s = 0; s < d->n; s++) {
        espl_source *source = &d->sources[s];
        d->chosen[s] = espl_split_choose(split, &texts[s], kept, &source->n_chosen);
        source->chosen = d->chosen[s];
    }
    free(texts);
}

static espl_status check_hashes(const espl_dataset *d) {
    for (int64_t s = 0; s < d->n; s++)
        if (d->stores[s].hashes == NULL)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: a token store without hashes of texts, which data.valid_fraction goes by", d->paths[s]);
    return ESPL_OK;
}

/* Both sides of a split are opened from the same stores. */
static espl_status split_both(const espl_config *config, const espl_dataset_use *use, espl_dataset *train, espl_dataset *valid) {
    espl_split split;
    ESPL_TRY(check_hashes(train));
    espl_texts *texts = texts_of(train);
    espl_split_make(texts, train->n, use->labels != NULL && use->labels->n > 0 ? use->labels->n : 1, config->data_valid_fraction, &split);
    free(texts);
    choose(&split, false, train);
    choose(&split, true, valid);
    espl_split_free(&split);
    count_used(valid);
    if (valid->n_documents == 0)
        ESPL_FAIL(ESPL_ERR_DATA, "data.valid_fraction %g keeps none of %lld texts; raise it", config->data_valid_fraction,
                  (long long)train->n_documents);
    return ESPL_OK;
}

static bool has_hashes(const espl_dataset *d) {
    bool all = d->n > 0;
    for (int64_t s = 0; s < d->n; s++)
        all = all && d->stores[s].hashes != NULL;
    return all;
}

static void report_repeats(const espl_config *config, const espl_dataset *train, const espl_dataset *valid) {
    espl_texts *in_train = texts_of(train), *in_valid = texts_of(valid);
    bool labelled = config->data_task == ESPL_TASK_CLASSIFICATION;
    char conflicts[64] = "";
    if (has_hashes(train) && has_hashes(valid)) {
        espl_repeats shared = espl_repeats_across(in_valid, valid->n, in_train, train->n);
        if (labelled)
            snprintf(conflicts, sizeof conflicts, ", %lld with another label", (long long)shared.conflicting);
        if (shared.texts > 0)
            ESPL_WARN("%lld of %lld validation texts stand in the training data, too%s: scores on them say little", (long long)shared.texts,
                      (long long)valid->n_documents, conflicts);
    }
    if (has_hashes(train) && labelled) {
        espl_repeats repeats = espl_repeats_within(in_train, train->n);
        if (repeats.texts > 0)
            ESPL_WARN("%lld of %lld training texts repeat an earlier one, %lld with another label", (long long)repeats.texts,
                      (long long)train->n_documents, (long long)repeats.conflicting);
    }
    free(in_train);
    free(in_valid);
}

static void report_labels(const espl_labels *labels, const espl_dataset *d, const char *what) {
    espl_buffer text = {0};
    int64_t *counts = espl_calloc((size_t)labels->n, sizeof *counts);
    for (int64_t s = 0; s < d->n; s++)
        for (int64_t i = 0; i < espl_source_used(&d->sources[s]); i++)
            counts[d->sources[s].labels[espl_source_document(&d->sources[s], i)]]++;
    for (int64_t l = 0; l < labels->n && l < 20; l++)
        espl_buffer_printf(&text, "%s%s %lld", l > 0 ? ", " : "", labels->names[l], (long long)counts[l]);
    ESPL_INFO("%s: %lld texts of %lld labels: %s%s", what, (long long)d->n_documents, (long long)labels->n, text.data,
              labels->n > 20 ? ", ..." : "");
    free(counts);
    espl_buffer_free(&text);
}

static void report_filling(const espl_dataset *train, const espl_room *room) {
    espl_filling f = espl_placement_filling(train->placement, 0);
    double n = (double)f.micro_batches;
    char source[64] = "";
    if (room->source_tokens > 0)
        snprintf(source, sizeof source, ", %.1f %% of source tokens", 100 * (double)f.source_tokens / (n * (double)room->source_tokens));
    ESPL_INFO("micro-batches hold %.1f texts each, %.1f %% of the tokens they have room for%s", (double)f.sequences / n,
              100 * (double)f.tokens / (n * (double)room->tokens), source);
}

static void report(const espl_config *config, const espl_dataset_use *use, const espl_dataset *train, const espl_dataset *valid) {
    report_cut(train);
    if (config->data_valid.n > 0)
        report_cut(valid);
    report_repeats(config, train, valid);
    if (config->data_task == ESPL_TASK_CLASSIFICATION) {
        report_labels(use->labels, train, "training data");
        if (valid->n > 0)
            report_labels(use->labels, valid, "validation data");
    }
    if (!is_lm(config))
        report_filling(train, &use->room);
}

espl_status espl_dataset_open_run(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, const espl_dataset_use *use,
                                  espl_dataset *train, espl_dataset *valid) {
    espl_dataset_use training = *use, validating = *use;
    bool split = config->data_valid_fraction > 0;
    training.training = true;
    validating.training = false;
    *train = *valid = (espl_dataset){0};
    ESPL_TRY(check_config(config, use));
    ESPL_TRY(prepare_sources(comm, config, tokenizer, &config->data_train, &training, train));
    if (split || config->data_valid.n > 0)
        ESPL_TRY(prepare_sources(comm, config, tokenizer, split ? &config->data_train : &config->data_valid, &validating, valid));
    if (split)
        ESPL_TRY(espl_comm_agree(comm, split_both(config, use, train, valid), "splitting the data"));
    ESPL_TRY(espl_comm_agree(comm, place(config, tokenizer, &training, train), "placing the data"));
    if (valid->n > 0)
        ESPL_TRY(espl_comm_agree(comm, place(config, tokenizer, &validating, valid), "placing the validation data"));
    if (espl_comm_ranks(comm)->rank == 0)
        report(config, use, train, valid);
    return ESPL_OK;
}

/* ---- Labels. */

static espl_status given_labels(const espl_strings *names, espl_labels *labels) {
    *labels = (espl_labels){0};
    for (int64_t i = 0; i < names->n; i++) {
        if (names->items[i][0] == '\0' || espl_labels_find(labels, names->items[i], strlen(names->items[i])) >= 0)
            ESPL_FAIL(ESPL_ERR_USAGE, "data.labels: '%s' is empty or stands there twice, expected each label once", names->items[i]);
        espl_labels_add(labels, names->items[i], strlen(names->items[i]));
    }
    return ESPL_OK;
}

espl_reader_options espl_dataset_reading(const espl_config *config) {
    const espl_dataset_use none = {0};
    const espl_tokens_recipe recipe = recipe_of(config, &none);
    espl_reader_options options = espl_tokens_reading(&recipe);
    if (is_lm(config) && config->data_records == ESPL_RECORDS_CHAT)
        options.kind = ESPL_READ_RECORD;
    return options;
}

espl_status espl_dataset_labels(espl_comm *comm, const espl_config *config, espl_labels *labels) {
    *labels = (espl_labels){0};
    if (config->data_task != ESPL_TASK_CLASSIFICATION)
        return ESPL_OK;
    if (config->data_labels.n > 0)
        return given_labels(&config->data_labels, labels);
    espl_reader_options options = espl_dataset_reading(config);
    const espl_strings *paths = config->data_train.n > 0 ? &config->data_train : &config->data_valid;
    return espl_labels_collect(comm, paths->items, paths->n, (espl_read_format)config->data_format, &options, labels);
}

/* ---- */

uint64_t espl_dataset_hash(const espl_dataset *dataset) {
    uint64_t hash = 0;
    for (int64_t i = 0; i < dataset->n; i++) {
        hash = XXH3_64bits_withSeed(&dataset->stores[i].key, sizeof dataset->stores[i].key, hash);
        if (dataset->chosen[i] != NULL)
            hash = XXH3_64bits_withSeed(dataset->chosen[i], (size_t)dataset->sources[i].n_chosen * sizeof(int64_t), hash);
    }
    return hash;
}

void espl_dataset_close(espl_dataset *dataset) {
    espl_placement_free(&dataset->placement);
    for (int64_t i = 0; i < dataset->n; i++) {
        espl_tokens_close(&dataset->stores[i]);
        free(dataset->paths[i]);
        free(dataset->chosen[i]);
    }
    free(dataset->stores);
    free(dataset->sources);
    free(dataset->paths);
    free(dataset->chosen);
    free(dataset->class_weights);
    json_decref(dataset->files);
    *dataset = (espl_dataset){0};
}
