#include "launch/commands.h"
#include "launch/recipe.h"

#include "src/train/weights/peft_folder.h"
#include "src/train/plan_report.h"

static const char text[] =
    "Prints what a run of the config will take: bytes by arena (the plan is the allocation), flops, bytes on the wire, and a step's time\n"
    "at the matrix peak, for any number of ranks, on the CPU or on GPUs. Needs neither data nor ranks nor a GPU.\n";

static espl_status print_plan(const char *path, const espl_words *sets, const espl_plan_request *request) {
    espl_config config;
    espl_status status = ESPL_OK;
    espl_config_make(&config);
    ESPL_TRY_DONE(espl_recipe_read(path, sets, &config));
    ESPL_TRY_DONE(espl_peft_settle(&config));
    ESPL_TRY_DONE(espl_plan_print(&config, request, stdout));
done:
    espl_config_free(&config);
    return status;
}

espl_status espl_cmd_plan(int argc, char **argv) {
    espl_plan_request request = {0};
    espl_words sets = {0}, operands = {0};
    int64_t ranks = 1, per_node = 0, threads = 0;
    double peak = 0.0, bandwidth = 0.0;
    const espl_option options[] = {
        {"device", "NAME", "cpu, cuda or emu (default: run.device; auto: cpu); needs no such device", ESPL_OPTION_TEXT, &request.device},
        {"ranks", "N", "number of ranks (default 1)", ESPL_OPTION_INT, &ranks},
        {"ranks-per-node", "N", "ranks of one node (default: all)", ESPL_OPTION_INT, &per_node},
        {"threads", "N", "CPU threads of a rank", ESPL_OPTION_INT, &threads},
        {"peak", "GFLOPS", "matrix peak of one rank in GFLOP/s (default: measured here, the CPU's)", ESPL_OPTION_FLOAT, &peak},
        {"bandwidth", "GBS", "what one rank sends, in GB/s", ESPL_OPTION_FLOAT, &bandwidth},
        {"tensors", NULL, "also list every parameter and every buffer", ESPL_OPTION_SWITCH, &request.tensors},
        {"json", NULL, "print JSON", ESPL_OPTION_SWITCH, &request.json},
        {"set", "KEY=VALUE", "override one key, as section.key=value", ESPL_OPTION_TEXTS, &sets},
    };
    const espl_usage usage = {.verb = "plan",
                              .operands = "CONFIG.yaml",
                              .text = text,
                              .options = options,
                              .n_options = sizeof options / sizeof options[0],
                              .min_operands = 1,
                              .max_operands = 1};
    bool done;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_options_parse(&usage, argc, argv, &operands, &done));
    if (done)
        goto done;
    if (ranks < 1 || ranks > 1000000 || per_node < 0 || per_node > ranks || threads < 0 || threads > 4096)
        ESPL_FAIL_DONE(ESPL_ERR_USAGE,
                       "--ranks %lld --ranks-per-node %lld --threads %lld: whole numbers are expected, at least one rank, no more on a "
                       "node than in all",
                       (long long)ranks, (long long)per_node, (long long)threads);
    request.ranks = (int)ranks;
    request.ranks_per_node = (int)per_node;
    request.threads = (int)threads;
    request.peak = peak * 1e9;
    request.bandwidth = bandwidth * 1e9;
    ESPL_TRY_DONE(print_plan(operands.items[0], &sets, &request));
done:
    espl_words_free(&operands);
    espl_words_free(&sets);
    return status;
}
