#include "launch/commands.h"
#include "launch/recipe.h"
#include "launch/session.h"

#include "src/core/log.h"
#include "src/train/evaluate.h"

#include <math.h>

static const char text[] =
    "Evaluates a model on data.valid of the config, on as many ranks as the launcher started: loss and perplexity a token, and bits a "
    "byte\n"
    "of text (which do not depend on the tokenizer). The model is --model, or else the newest good checkpoint of run.dir.\n";

typedef struct job {
    espl_words operands, sets;
    const char *model;
    bool json;
} job;

static espl_status read_config(const job *job, espl_config *config) {
    ESPL_TRY(espl_recipe_read(job->operands.items[0], &job->sets, config));
    if (job->model == NULL && config->run_dir[0] == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "neither --model nor run.dir says which model to evaluate");
    return ESPL_OK;
}

static void print_result(const job *job, const espl_eval_result *r) {
    double bits = r->loss * (double)r->targets / (double)r->bytes / log(2.0);
    if (job->json)
        printf("{\"loss\": %.17g, \"perplexity\": %.17g, \"bits_per_byte\": %.17g, \"byte_perplexity\": %.17g, \"tokens\": %lld, "
               "\"bytes\": %lld}\n",
               r->loss, exp(r->loss), bits, exp2(bits), (long long)r->targets, (long long)r->bytes);
    else
        printf("loss %.6f, perplexity %.4f a token; %.4f bits, perplexity %.4f a byte; %lld tokens, %lld bytes\n", r->loss, exp(r->loss),
               bits, exp2(bits), (long long)r->targets, (long long)r->bytes);
}

static espl_status body(espl_comm *comm, void *context) {
    const job *job = context;
    espl_config config;
    espl_eval_result result;
    espl_status status = ESPL_OK;
    espl_config_make(&config);
    ESPL_TRY_DONE(espl_session_agree(comm, read_config(job, &config), "reading the config"));
    espl_log_set(espl_comm_ranks(comm)->rank, config.log_level, NULL);
    ESPL_TRY_DONE(espl_evaluate_path(&config, comm, job->model != NULL ? job->model : config.run_dir, &result));
    if (espl_comm_ranks(comm)->rank == 0)
        print_result(job, &result);
done:
    espl_config_free(&config);
    return status;
}

espl_status espl_cmd_eval(int argc, char **argv) {
    job job = {0};
    const espl_option options[] = {
        {"model", "PATH", "a run folder, a checkpoint or a Hugging Face folder", ESPL_OPTION_TEXT, &job.model},
        {"set", "KEY=VALUE", "override one key, as section.key=value", ESPL_OPTION_TEXTS, &job.sets},
        {"json", NULL, "print JSON", ESPL_OPTION_SWITCH, &job.json},
    };
    const espl_usage usage = {.verb = "eval",
                              .operands = "CONFIG.yaml",
                              .text = text,
                              .options = options,
                              .n_options = sizeof options / sizeof options[0],
                              .min_operands = 1,
                              .max_operands = 1};
    bool done;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_options_parse(&usage, argc, argv, &job.operands, &done));
    if (!done)
        ESPL_TRY_DONE(espl_session_run(0, body, &job));
done:
    espl_words_free(&job.operands);
    espl_words_free(&job.sets);
    return status;
}
