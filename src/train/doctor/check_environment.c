/* Variables of the environment, and the batch system behind them. */
#include "src/train/doctor/doctor_checks.h"

#include "src/core/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

/* ---- Threads. */

static void look_at_threads(espl__doctor *d) {
    const char *text = espl__doctor_variable("OMP_NUM_THREADS");
    char *end = NULL;
    long n = text != NULL ? strtol(text, &end, 10) : 0;
    int share = d->cores.mine / (d->cores.sharers > 0 ? d->cores.sharers : 1);
    if (text == NULL)
        return;
    if (end == text || n < 1 || n > 4096)
        espl__doctor_say(d, ESPL_POOR, "unset it, or set run.threads", "OMP_NUM_THREADS is '%s', which is no number of threads", text);
    else if (d->config->run_threads > 0 && n != d->config->run_threads)
        espl__doctor_say(d, ESPL_POOR, "unset OMP_NUM_THREADS, or run.threads", "OMP_NUM_THREADS is %ld, run.threads is %lld, which counts",
                         n, (long long)d->config->run_threads);
    else if (d->config->run_threads <= 0 && n < share)
        espl__doctor_say(d, ESPL_POOR, "unset it, or set run.threads", "OMP_NUM_THREADS is %ld: %d of a rank's %d cores stay idle", n,
                         share - (int)n, share);
}

/* ---- What others have set. */

static bool lists(const char *value, const char *word) { return strstr(value, word) != NULL; }

static bool any(const char *value) {
    (void)value;
    return true;
}

static bool is_one(const char *value) { return strcmp(value, "0") != 0; }

static bool lacks_shared_memory(const char *value) { return value[0] != '^' && !lists(value, "vader") && !lists(value, "sm"); }

static bool excludes_shared_memory(const char *value) {
    return value[0] == '^'
               ? lists(value, "shm") || lists(value, "sm")
               : !lists(value, "all") && !lists(value, "sm") && !lists(value, "shm") && !lists(value, "posix") && !lists(value, "sysv");
}

static const struct {
    const char *name;
    bool (*is_bad)(const char *value);
    const char *why, *advice;
} variables[] = {
    {"OPENBLAS_CORETYPE", any, "the BLAS uses the kernels of that processor, whatever is here, which can halve the speed", "unset it"},
    {"OMPI_MCA_btl", lacks_shared_memory, "without vader, messages within a host go over the network", "add vader,self, or unset it"},
    {"UCX_TLS", excludes_shared_memory, "without shared memory, messages within a host go over the network", "add sm,self, or unset it"},
    {"NCCL_P2P_DISABLE", is_one, "GPUs of a host do not reach each other directly", "unset it"},
    {"NCCL_SHM_DISABLE", is_one, "GPUs of a host go over the network where they do not reach each other directly", "unset it"},
    {"NCCL_IB_DISABLE", is_one, "NCCL does not use InfiniBand", "unset it, where there is InfiniBand"},
    {"LD_PRELOAD", any, "a library that nobody expects is in every rank", "unset it"},
    {"MALLOC_PERTURB_", any, "all memory is written to when it is taken", "unset it"},
    {"ESPL_TRACE", is_one, "failures are told with their way through the program, by every rank", "unset it, unless that is meant"},
};

static int count_beginning(const char *prefix) {
    int n = 0;
    for (char **at = environ; *at != NULL; at++)
        n += strncmp(*at, prefix, strlen(prefix)) == 0;
    return n;
}

void espl__check_environment(espl__doctor *d) {
    espl__doctor_say(d, ESPL_FINE, "", "variables set: %d of OMPI_MCA_, %d of UCX_, %d of NCCL_", count_beginning("OMPI_MCA_"),
                     count_beginning("UCX_"), count_beginning("NCCL_"));
    look_at_threads(d);
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        const char *value = espl__doctor_variable(variables[i].name);
        if (value != NULL && variables[i].is_bad(value))
            espl__doctor_say(d, ESPL_POOR, variables[i].advice, "%s is '%s': %s", variables[i].name, value, variables[i].why);
    }
}

/* ---- The batch system. */

static const struct {
    const char *name, *variable;
} schedulers[] = {{"Slurm", "SLURM_JOB_ID"}, {"PBS", "PBS_JOBID"}, {"Flux", "FLUX_JOB_ID"}, {"LSF", "LSB_JOBID"}};

static void say_end(espl__doctor *d, const char *job) {
    const espl_job_end *end = &d->options->job_end;
    if (d->config->run_walltime[0] != '\0')
        espl__doctor_say(d, ESPL_FINE, "", "%s; the run ends by run.walltime, %s", job, d->config->run_walltime);
    else if (isfinite(end->at))
        espl__doctor_say(d, ESPL_FINE, "", "%s; its end is known (%s), in %.0f min", job, end->source, (end->at - espl_now()) / 60.0);
    else
        espl__doctor_say(d, ESPL_POOR, "set run.walltime to the job's limit: the run then saves before it is ended",
                         "%s; it does not say when it ends, or has no limit", job);
}

void espl__check_scheduler(espl__doctor *d) {
    char job[128];
    for (size_t i = 0; i < sizeof schedulers / sizeof schedulers[0]; i++) {
        const char *id = espl__doctor_variable(schedulers[i].variable);
        if (id == NULL)
            continue;
        snprintf(job, sizeof job, "job %s of %s", id, schedulers[i].name);
        say_end(d, job);
        return;
    }
    espl__doctor_say(d, ESPL_FINE, "", "no batch system");
}
