#include "launch/child.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/signals.h"

#include "io/fsio.h"
#include "src/config/sweep.h"
#include "src/core/log.h"
#include "src/report/report_sweep.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char text[] =
    "Trains by every combination of the values in the config's section `sweep:`, one run after the other, each in a folder under run.dir:\n"
    "\n"
    "    sweep:\n"
    "      optim.lr: [1e-5, 2e-5]\n"
    "      train.epochs: [1, 3]\n"
    "\n"
    "The same command goes on where it was stopped: finished runs stay, interrupted ones resume. Without --launch a run is one process;\n"
    "with --slurm nothing is run, but a script is written whose job array has a task a run. At the end, and with --table at any time, the\n"
    "runs stand in one table, best first: on stdout, in sweep.csv, sweep.md and, with curves, sweep.html under run.dir.\n"
    "A run that fails is told and the others go on; the exit code is then that of the first failure, and 75 when it was stopped.\n";

enum { MOST_RUNS = 1000 };

typedef struct job {
    espl_words operands, sets;
    const char *launch, *slurm;
    bool table;
    espl_config shared; /* what all runs have in common; run.dir: the sweep's folder */
    espl_sweep sweep;
    int64_t n;
    char **names, **folders, **configs; /* [n] */
    char (*states)[48];                 /* [n] what this command knows of a run; "": what the run's files say */
    char program[4096];                 /* this one */
} job;

/* ---- The runs. */

static espl_status write_config(const espl_config *config, const char *path) {
    char *printed = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&printed, &size);
    espl_config_print(config, memory);
    fclose(memory);
    espl_status status = espl_fs_write_file(path, printed, size);
    free(printed);
    return status;
}

/* The config of one run: what the file and --set say, its own values, its folder, and tokens that all runs share. */
static espl_status make_run(job *job, int64_t i) {
    espl_config config;
    espl_status status = ESPL_OK;
    espl_config_make(&config);
    char *cache = espl_format("data.cache=%s/cache", job->shared.run_dir);
    job->names[i] = espl_sweep_name(&job->sweep, i);
    job->folders[i] = espl_format("%s/%s", job->shared.run_dir, job->names[i]);
    job->configs[i] = espl_format("%s/configs/%s.yaml", job->shared.run_dir, job->names[i]);
    char *folder = espl_format("run.dir=%s", job->folders[i]);
    espl_sweep again = {0};
    ESPL_TRY_DONE(espl_sweep_read(&config, &again, job->operands.items[0]));
    for (int64_t s = 0; s < job->sets.n; s++)
        ESPL_TRY_DONE(espl_config_set(&config, job->sets.items[s]));
    ESPL_TRY_DONE(espl_sweep_set(&job->sweep, i, &config));
    ESPL_TRY_DONE(espl_config_set(&config, folder));
    if (config.data_cache[0] == '\0')
        ESPL_TRY_DONE(espl_config_set(&config, cache));
    espl_config_resolve(&config);
    if (!job->table)
        ESPL_TRY_DONE(write_config(&config, job->configs[i]));
done:
    free(folder);
    free(cache);
    espl_sweep_free(&again);
    espl_config_free(&config);
    return status;
}

/* An override of what varies would be lost without a word. */
static espl_status check_sets(const job *job) {
    for (int64_t s = 0; s < job->sets.n; s++)
        for (int64_t a = 0; a < job->sweep.n; a++) {
            size_t n = strlen(job->sweep.axes[a].key);
            if (strncmp(job->sets.items[s], job->sweep.axes[a].key, n) == 0 && job->sets.items[s][n] == '=')
                ESPL_FAIL(ESPL_ERR_USAGE, "--set %s: the sweep goes over that key itself", job->sets.items[s]);
        }
    return ESPL_OK;
}

static espl_status make_runs(job *job) {
    ESPL_TRY(espl_sweep_read(&job->shared, &job->sweep, job->operands.items[0]));
    ESPL_TRY(check_sets(job));
    for (int64_t s = 0; s < job->sets.n; s++)
        ESPL_TRY(espl_config_set(&job->shared, job->sets.items[s]));
    if (job->shared.run_dir[0] == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "run.dir is not set: the folder that gets a folder for each run");
    int64_t n = espl_sweep_runs(&job->sweep);
    if (n > MOST_RUNS)
        ESPL_FAIL(ESPL_ERR_USAGE, "the sweep makes %lld runs, expected at most %d: shorten its lists", (long long)n, MOST_RUNS);
    job->n = n;
    job->names = espl_calloc((size_t)n, sizeof *job->names);
    job->folders = espl_calloc((size_t)n, sizeof *job->folders);
    job->configs = espl_calloc((size_t)n, sizeof *job->configs);
    job->states = espl_calloc((size_t)n, sizeof *job->states);
    char *folder = espl_format("%s/configs", job->shared.run_dir);
    espl_status status = job->table ? ESPL_OK : espl_fs_make_folders(folder);
    free(folder);
    for (int64_t i = 0; i < n && status == ESPL_OK; i++)
        status = make_run(job, i);
    return status;
}

static espl_status is_done(const job *job, int64_t i, bool *done) {
    char *path = espl_format("%s/done", job->folders[i]);
    espl_status status = espl_fs_present(path, done);
    free(path);
    return status;
}

/* ---- One after the other. */

/* A finished run of another config is no result of this sweep. */
static espl_status check_done(const job *job, int64_t i) {
    espl_buffer wanted = {0}, found = {0};
    char *path = espl_format("%s/config.yaml", job->folders[i]);
    espl_status status = espl_fs_read_file(job->configs[i], 1 << 24, &wanted);
    if (status == ESPL_OK)
        status = espl_fs_read_file(path, 1 << 24, &found);
    if (status == ESPL_OK && (wanted.size != found.size || memcmp(wanted.data, found.data, found.size) != 0))
        ESPL_WARN("%s was finished with other settings (compare config.yaml there with %s); remove the folder to run it again",
                  job->names[i], job->configs[i]);
    espl_buffer_free(&wanted);
    espl_buffer_free(&found);
    free(path);
    return status;
}

/* The launcher's words, then ours. The launcher is cut at blanks, in place. */
static espl_status start_run(const job *job, int64_t i, int *code) {
    char *launcher = espl_strdup(job->launch != NULL ? job->launch : ""), *rest = launcher;
    char **words = espl_calloc(strlen(launcher) / 2 + 8, sizeof *words);
    int64_t n = 0;
    for (char *word; (word = strsep(&rest, " \t")) != NULL;)
        if (*word != '\0')
            words[n++] = word;
    words[n++] = (char *)(uintptr_t)job->program;
    words[n++] = (char *)(uintptr_t) "train";
    words[n++] = job->configs[i];
    espl_status status = espl_child_run(words, code);
    free(words);
    free(launcher);
    return status;
}

/* The marker says whether a run is over; a launcher's exit code is not believed. *failed: the code of the first run that failed. */
static espl_status one_run(job *job, int64_t i, espl_status *failed) {
    bool done;
    int code = 0;
    ESPL_TRY(is_done(job, i, &done));
    if (done)
        return check_done(job, i);
    ESPL_INFO("run %lld of %lld: %s", (long long)i + 1, (long long)job->n, job->names[i]);
    ESPL_TRY(start_run(job, i, &code));
    ESPL_TRY(is_done(job, i, &done));
    if (done && code == 0)
        return ESPL_OK;
    if (code == ESPL_STOPPED || espl_signals_pending() != 0) {
        snprintf(job->states[i], sizeof job->states[i], "stopped");
        ESPL_INFO("%s is stopped; the same command goes on from here", job->names[i]);
        return ESPL_STOPPED;
    }
    snprintf(job->states[i], sizeof job->states[i], "failed (exit %d)", code);
    ESPL_WARN("%s failed with exit code %d; see %s/log.txt", job->names[i], code, job->folders[i]);
    if (*failed == ESPL_OK)
        *failed = code == ESPL_ERR_USAGE || code == ESPL_ERR_DATA || code == ESPL_ERR_NUMERIC ? (espl_status)code : ESPL_ERR_IO;
    return ESPL_OK;
}

static espl_status run_all(job *job, espl_status *failed) {
    ssize_t n = readlink("/proc/self/exe", job->program, sizeof job->program - 1);
    if (n <= 0)
        ESPL_FAIL(ESPL_ERR_IO, "/proc/self/exe cannot be read: where this program lies is not known");
    espl_signals_install();
    for (int64_t i = 0; i < job->n; i++) {
        if (espl_signals_pending() != 0)
            return ESPL_STOPPED;
        ESPL_TRY(one_run(job, i, failed));
    }
    return ESPL_OK;
}

/* ---- As a job array. */

/* A word of a shell in single quotes. */
static void quote(espl_buffer *out, const char *word) {
    espl_buffer_printf(out, "'");
    for (; *word != '\0'; word++)
        espl_buffer_printf(out, *word == '\'' ? "'\\''" : "%c", *word);
    espl_buffer_printf(out, "'");
}

static espl_status write_slurm(const job *job) {
    espl_buffer out = {0};
    espl_buffer_printf(&out,
                       "#!/bin/bash\n"
                       "# A task a run of the sweep in %s. Submit from the folder where paths of the config begin, with what your site\n"
                       "# wants: sbatch --nodes=1 --ntasks-per-node=4 --time=04:00:00 THIS. Afterwards: espalier sweep %s --table\n"
                       "#SBATCH --job-name=sweep\n"
                       "#SBATCH --array=0-%lld\n"
                       "#SBATCH --signal=USR1@300\n"
                       "#SBATCH --requeue --open-mode=append\n"
                       "set -euo pipefail\n"
                       "export SLURM_PMIX_FENCE=ring SLURM_WAIT=60 # a barrier that waits; no rank outlives the others for long\n"
                       "most_restarts=10\n"
                       "names=(\n",
                       job->shared.run_dir, job->operands.items[0], (long long)job->n - 1);
    for (int64_t i = 0; i < job->n; i++) {
        espl_buffer_printf(&out, "    ");
        quote(&out, job->names[i]);
        espl_buffer_printf(&out, "\n");
    }
    espl_buffer_printf(&out, ")\nfolder=");
    quote(&out, job->shared.run_dir);
    espl_buffer_printf(&out,
                       "\nname=${names[$SLURM_ARRAY_TASK_ID]:?}\n"
                       "[ -e \"$folder/$name/done\" ] && exit 0\n"
                       "code=0\n"
                       "%s espalier train \"$folder/configs/$name.yaml\" --resume auto || code=$?\n"
                       "[ -e \"$folder/$name/done\" ] && exit 0 # the marker is believed, not the launcher\n"
                       "if [ $code = 75 ] && [ \"${SLURM_RESTART_COUNT:-0}\" -lt $most_restarts ]; then\n"
                       "    scontrol requeue \"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID\"\n"
                       "    exit 0\n"
                       "fi\n"
                       "[ $code != 0 ] || code=1\n"
                       "exit $code\n",
                       job->launch != NULL ? job->launch : "srun --mpi=pmix");
    espl_status status = ESPL_OK;
    if (strcmp(job->slurm, "-") == 0)
        fwrite(out.data, 1, out.size, stdout);
    else
        status = espl_fs_write_file(job->slurm, out.data, out.size);
    if (status == ESPL_OK && strcmp(job->slurm, "-") != 0)
        ESPL_INFO("%s: a job array of %lld runs", job->slurm, (long long)job->n);
    espl_buffer_free(&out);
    return status;
}

/* ---- The table. */

static espl_status write_file(const job *job, const char *name, espl_buffer *text) {
    char *path = espl_format("%s/%s", job->shared.run_dir, name);
    espl_status status = espl_fs_write_file(path, text->data, text->size);
    free(path);
    espl_buffer_free(text);
    return status;
}

static espl_status write_results(const job *job, const espl_sweep_result *result) {
    espl_buffer html = {0}, md = {0}, csv = {0}, table = {0};
    espl_sweep_result_page(result, &espl_page_html, &html);
    espl_sweep_result_page(result, &espl_page_markdown, &md);
    espl_sweep_result_csv(result, &csv);
    espl_sweep_result_table(result, &espl_page_markdown, &table);
    fwrite(table.data, 1, table.size, stdout);
    espl_buffer_free(&table);
    espl_status status = write_file(job, "sweep.csv", &csv), next = write_file(job, "sweep.md", &md);
    status = status == ESPL_OK ? next : status;
    next = write_file(job, "sweep.html", &html);
    return status == ESPL_OK ? next : status;
}

static espl_status make_table(const job *job) {
    int64_t axes = job->sweep.n;
    const char **keys = espl_calloc((size_t)axes, sizeof *keys), **values = espl_calloc((size_t)(axes * job->n), sizeof *values);
    bool loss = job->shared.eval_best == ESPL_BEST_LOSS;
    espl_sweep_result result = {.title = job->shared.run_dir,
                                .keys = keys,
                                .n_keys = axes,
                                .rows = espl_calloc((size_t)job->n, sizeof *result.rows),
                                .n = job->n,
                                .score = loss ? "valid_loss" : espl_config_choice("eval", "best", job->shared.eval_best),
                                .higher = !loss};
    for (int64_t a = 0; a < axes; a++)
        keys[a] = job->sweep.axes[a].key;
    for (int64_t i = 0; i < job->n; i++) {
        espl_sweep_row *row = &result.rows[i];
        *row = (espl_sweep_row){.name = job->names[i], .folder = job->folders[i], .values = &values[i * axes]};
        memcpy(row->state, job->states[i], sizeof row->state);
        for (int64_t a = 0; a < axes; a++)
            row->values[a] = job->sweep.axes[a].values[espl_sweep_choice(&job->sweep, i, a)];
    }
    espl_status status = espl_sweep_result_read(&result);
    if (status == ESPL_OK)
        status = write_results(job, &result);
    espl_sweep_result_free(&result);
    free(result.rows);
    free(values);
    free(keys);
    return status;
}

/* ---- The verb. */

static espl_status answer(void *context) {
    job *job = context;
    espl_status failed = ESPL_OK, stopped = ESPL_OK;
    if (job->table && job->slurm != NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "sweep: --table and --slurm exclude each other");
    ESPL_TRY(make_runs(job));
    if (job->slurm != NULL)
        return write_slurm(job);
    if (!job->table) {
        stopped = run_all(job, &failed);
        if (stopped != ESPL_OK && stopped != ESPL_STOPPED)
            return stopped;
    }
    ESPL_TRY(make_table(job));
    if (stopped == ESPL_OK && failed != ESPL_OK)
        return espl_status_fail(failed, __FILE__, __LINE__, "a run of the sweep failed; its exit code stands in the table");
    return stopped;
}

static void free_job(job *job) {
    for (int64_t i = 0; i < job->n; i++) {
        free(job->names[i]);
        free(job->folders[i]);
        free(job->configs[i]);
    }
    free(job->names);
    free(job->folders);
    free(job->configs);
    free(job->states);
    espl_sweep_free(&job->sweep);
    espl_config_free(&job->shared);
}

espl_status espl_cmd_sweep(int argc, char **argv) {
    job job = {0};
    const espl_option options[] = {
        {"launch", "WORDS",
         "in front of each run, such as \"mpirun -n 4\"; cut at blanks (default: nothing; with --slurm: srun --mpi=pmix)", ESPL_OPTION_TEXT,
         &job.launch},
        {"slurm", "FILE", "write a job array's script there (-: to stdout) and run nothing", ESPL_OPTION_TEXT, &job.slurm},
        {"table", NULL, "run nothing, make the table of what is there", ESPL_OPTION_SWITCH, &job.table},
        {"set", "KEY=VALUE", "override one key of all runs, as section.key=value", ESPL_OPTION_TEXTS, &job.sets},
    };
    const espl_usage usage = {
        .verb = "sweep", .operands = "CONFIG.yaml", .text = text, ESPL_OPTIONS(options), .min_operands = 1, .max_operands = 1};
    espl_config_make(&job.shared);
    espl_status status = espl_options_run(&usage, argc, argv, &job.operands, answer, &job);
    free_job(&job);
    return status;
}
