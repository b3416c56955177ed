#include "launch/commands.h"
#include "launch/recipe.h"

#include "src/core/buffer.h"
#include "src/report/run_files.h"
#include "src/train/machine/network_file.h"
#include "src/train/plan_report.h"
#include "src/train/weights/peft_folder.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static const char text[] =
    "Prints what a run of the config will take: bytes by arena (the plan is the allocation), flops, bytes on the wire, for any number of\n"
    "ranks, on the CPU or on GPUs. Needs neither data nor ranks nor a GPU.\n"
    "\n"
    "With --network, --gpu or --like it also simulates: the seconds of a step, from the very list of calls that the run will make, a "
    "table\n"
    "over ranks, how often to save and what failures cost. Rates are assumptions (src/DESIGN.md has them) unless they were measured:\n"
    "--network from `espalier bench comm --output`, --like from a short run of one rank.\n"
    "\n"
    "    espalier plan recipe.yaml --ranks 1024 --ranks-per-node 8 --network ndr --gpu h100\n"
    "    espalier plan recipe.yaml --ranks 4 --network network.json --like runs/one-rank\n";

/* What the command line says of times, in its own units. */
typedef struct words {
    espl_words operands, sets;
    int64_t ranks, per_node, threads;
    double peak; /* GFLOP/s */
    const char *network, *gpu, *like;
    double jitter, stragglers; /* percent */
    double write;              /* GB/s */
    double mtbf;               /* hours */
    double restart;            /* seconds */
    int64_t cores;
    espl_plan_request request;
} words;

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the steps but the first, in which memory is touched for the first time. NAN: there are no others. */
static double median_of(const espl_run_files *run, const char *column) {
    espl_series series = espl_series_of(run->steps, column);
    double median = NAN;
    if (series.n > 1) {
        qsort(series.y + 1, (size_t)(series.n - 1), sizeof *series.y, ascending);
        median = series.y[1 + (series.n - 1) / 2];
    }
    espl_series_free(&series);
    return median;
}

static espl_status take_steps(const espl_run_files *run, const espl_config *config, double cores, espl_measured *measured) {
    const double micro_batches = (double)config->train_micro_batches;
    if (json_integer_value(json_object_get(json_object_get(run->start, "about"), "ranks")) != 1)
        ESPL_FAIL(ESPL_ERR_USAGE, "--like %s: a run of one rank is expected, this one had others to wait for", run->folder);
    measured->compute = median_of(run, "compute_seconds") / micro_batches;
    measured->data = median_of(run, "data_seconds") / micro_batches;
    measured->update = median_of(run, "optimizer_seconds");
    measured->tokens = config->train_micro_batch_tokens;
    measured->cores = config->run_threads > 0 ? fmin((double)config->run_threads, cores) : cores;
    if (!(measured->compute > 0.0))
        ESPL_FAIL(ESPL_ERR_DATA, "--like %s: metrics.jsonl has fewer than two steps; let it run for some more", run->folder);
    return ESPL_OK;
}

/* The run's own config says with how many threads it computed, and what a step was. */
static espl_status read_measured(const char *folder, double cores, espl_measured *measured) {
    espl_run_files run = {0};
    espl_config config;
    const espl_words none = {0};
    char *path = espl_format("%s/config.yaml", folder);
    espl_status status = ESPL_OK;
    espl_config_make(&config);
    ESPL_TRY_DONE(espl_run_files_read(folder, &run));
    ESPL_TRY_DONE(espl_recipe_read(path, &none, &config));
    ESPL_TRY_DONE(take_steps(&run, &config, cores, measured));
done:
    free(path);
    espl_config_free(&config);
    espl_run_files_free(&run);
    return status;
}

static espl_status check_words(const words *w) {
    if (!(w->jitter >= 0.0 && w->jitter <= 100.0 && w->stragglers >= 0.0 && w->stragglers <= 100.0))
        ESPL_FAIL(ESPL_ERR_USAGE, "--jitter %g --stragglers %g: percent are expected", w->jitter, w->stragglers);
    if (!(w->write > 0.0 && w->mtbf > 0.0 && w->restart >= 0.0 && w->cores >= 0))
        ESPL_FAIL(ESPL_ERR_USAGE, "--write %g --host-mtbf %g --restart %g --cores %lld: positive numbers are expected", w->write, w->mtbf,
                  w->restart, (long long)w->cores);
    return ESPL_OK;
}

/* `network` is the request's while it lasts. */
static espl_status settle_ranks(const words *w, espl_plan_request *request) {
    if (w->ranks < 1 || w->ranks > 1000000 || w->per_node < 0 || w->per_node > w->ranks || w->threads < 0 || w->threads > 4096)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "--ranks %lld --ranks-per-node %lld --threads %lld: whole numbers are expected, at least one rank, no more on a node "
                  "than in all",
                  (long long)w->ranks, (long long)w->per_node, (long long)w->threads);
    request->ranks = (int)w->ranks;
    request->ranks_per_node = (int)w->per_node;
    request->threads = (int)w->threads;
    request->peak = w->peak * 1e9;
    return ESPL_OK;
}

static espl_status settle_times(const words *w, espl_network *network, espl_plan_request *request) {
    espl_times_request *times = &request->times;
    ESPL_TRY(check_words(w));
    request->timed = w->network != NULL || w->gpu != NULL || w->like != NULL;
    times->cores = w->cores > 0 ? (double)w->cores : (double)sysconf(_SC_NPROCESSORS_ONLN);
    times->uneven = (espl_unevenness){.jitter = 0.01 * w->jitter, .stragglers = 0.01 * w->stragglers, .seed = 1};
    times->write = w->write * 1e9;
    times->host_mtbf = w->mtbf * 3600.0;
    times->restart = w->restart;
    if (w->network != NULL) {
        ESPL_TRY(espl_network_find(w->network, network));
        times->network = network;
    }
    if (w->gpu != NULL && !espl_pace_gpu(w->gpu, &times->pace))
        ESPL_FAIL(ESPL_ERR_USAGE, "--gpu %s: known are %s", w->gpu, espl_pace_names());
    if (w->gpu != NULL && request->device == NULL)
        request->device = "cuda";
    if (w->gpu != NULL && request->peak > 0.0)
        times->pace.matrix = request->peak;
    return w->like != NULL ? read_measured(w->like, times->cores, &times->measured) : ESPL_OK;
}

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

static espl_status answer(void *context) {
    words *w = context;
    espl_network network;
    ESPL_TRY(settle_ranks(w, &w->request));
    ESPL_TRY(settle_times(w, &network, &w->request));
    return print_plan(w->operands.items[0], &w->sets, &w->request);
}

espl_status espl_cmd_plan(int argc, char **argv) {
    words words = {.ranks = 1, .write = 10.0, .mtbf = 6300.0, .restart = 300.0};
    const espl_option options[] = {
        {"device", "NAME", "cpu, cuda or emu (default: run.device; auto: cpu); needs no such device", ESPL_OPTION_TEXT,
         &words.request.device},
        {"ranks", "N", "number of ranks (default 1)", ESPL_OPTION_INT, &words.ranks},
        {"ranks-per-node", "N", "ranks of one node (default: all)", ESPL_OPTION_INT, &words.per_node},
        {"threads", "N", "CPU threads of a rank", ESPL_OPTION_INT, &words.threads},
        {"peak", "GFLOPS", "matrix peak of one rank in GFLOP/s (default: measured here, the CPU's)", ESPL_OPTION_FLOAT, &words.peak},
        {"network", "NAME", "simulate; a file of `espalier bench comm --output`, or ndr, hdr, ndr1, 100gbe", ESPL_OPTION_TEXT,
         &words.network},
        {"gpu", "NAME", "simulate; a100, h100 or h200, products at 60 % of paper (or at --peak)", ESPL_OPTION_TEXT, &words.gpu},
        {"like", "RUN", "simulate; a run of one rank, whose steps say how fast a micro-batch is", ESPL_OPTION_TEXT, &words.like},
        {"cores", "N", "CPU cores of a host (default: this machine's)", ESPL_OPTION_INT, &words.cores},
        {"jitter", "PERCENT", "standard deviation of a rank's compute from step to step (default 0)", ESPL_OPTION_FLOAT, &words.jitter},
        {"stragglers", "PERCENT", "chance that a rank takes twice as long in a step (default 0)", ESPL_OPTION_FLOAT, &words.stragglers},
        {"write", "GBS", "what all ranks together write to the file system, in GB/s (default 10)", ESPL_OPTION_FLOAT, &words.write},
        {"host-mtbf", "HOURS", "between failures of one host (default 6300: 2,048 hosts failed 419 times in 54 days)", ESPL_OPTION_FLOAT,
         &words.mtbf},
        {"restart", "SECONDS", "from a failure until the program runs again, reading not counted (default 300)", ESPL_OPTION_FLOAT,
         &words.restart},
        {"tensors", NULL, "also list every parameter and every buffer", ESPL_OPTION_SWITCH, &words.request.tensors},
        {"json", NULL, "print JSON", ESPL_OPTION_SWITCH, &words.request.json},
        ESPL_OPTION_SET(&words.sets),
    };
    const espl_usage usage = {
        .verb = "plan", .operands = "CONFIG.yaml", .text = text, ESPL_OPTIONS(options), .min_operands = 1, .max_operands = 1};
    return espl_options_run(&usage, argc, argv, &words.operands, answer, &words);
}
