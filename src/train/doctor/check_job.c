/* MPI, devices and clocks: what a job has together. */
#include "src/train/doctor/doctor_checks.h"

#include "kernels/backend.h"
#include "src/core/buffer.h"
#include "src/train/machine/clocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>

/* ---- MPI. */

/* How many processes the launcher says that there are; 1 where none says anything. */
static int launched(const char **by) {
    static const struct {
        const char *variable, *launcher;
    } rows[] = {{"OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun"}, {"SLURM_STEP_NUM_TASKS", "srun"}, {"PMI_SIZE", "a launcher of PMI"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *text = espl__doctor_variable(rows[i].variable);
        *by = rows[i].launcher;
        if (text != NULL && atoi(text) > 1)
            return atoi(text);
    }
    *by = espl__doctor_variable("OMPI_COMM_WORLD_SIZE") != NULL ? rows[0].launcher : "no launcher";
    return 1;
}

/* Ranks of several nodes that srun started over PMIx, with the barrier that is its default (slurm/until_done.sh). */
static bool slurm_waits_for_nobody(const espl_ranks *ranks) {
    const char *fence = espl__doctor_variable("SLURM_PMIX_FENCE"), *job = espl__doctor_variable("PMIX_NAMESPACE");
    return ranks->n_nodes > 1 && job != NULL && strncmp(job, "slurm.", 6) == 0 && (fence == NULL || strcmp(fence, "ring") != 0);
}

void espl__check_mpi(espl__doctor *d) {
    const char *by, *pmix = espl__doctor_variable("PMIX_VERSION");
    int n = launched(&by);
    espl__doctor_say(d, ESPL_FINE, "", "%s, %d rank%s on %d host%s, by %s%s%s", espl_comm_library(), d->ranks->size,
                     d->ranks->size > 1 ? "s" : "", d->ranks->n_nodes, d->ranks->n_nodes > 1 ? "s" : "", by, pmix != NULL ? ", PMIx " : "",
                     pmix != NULL ? pmix : "");
    if (n != d->ranks->size)
        espl__doctor_say(
            d, ESPL_FAILS,
            "start with the mpirun of the MPI that Espalier was built with, or srun --mpi=pmix (srun --mpi=list shows what there is)",
            "%s started %d processes, but MPI sees %d: they are not one job", by, n, d->ranks->size);
    if (slurm_waits_for_nobody(d->ranks))
        espl__doctor_say(
            d, ESPL_POOR, "export SLURM_PMIX_FENCE=ring before srun, or PMIxCollFence=ring in the site's mpi.conf",
            "SLURM_PMIX_FENCE is not 'ring': on fewer nodes than its TreeWidth Slurm's barrier may wait for nobody, and MPI_Init "
            "crash now and then");
}

/* ---- Devices. */

static void look_at_gpus(espl__doctor *d, espl_finding_level otherwise) {
    const espl_backend *backend;
    int n = 0;
    espl_status status = espl_backend_open("cuda", &backend);
    if (status == ESPL_OK)
        status = backend->device->count(&n);
    if (status != ESPL_OK)
        espl__doctor_say(d, otherwise, "install libespalier_cuda.so beside the program, and load the site's CUDA and NCCL",
                         "there is an NVIDIA driver, but GPUs cannot be used: %s", espl_status_message());
    else if (n < 1)
        espl__doctor_say(d, otherwise, "ask the batch system for GPUs; look at CUDA_VISIBLE_DEVICES",
                         "the driver shows no GPU to this process");
    else
        espl__doctor_say(d, ESPL_FINE, "", "%d GPU%s seen by a rank; driver, CUDA and NCCL load", n, n > 1 ? "s" : "");
    if (n > 1 && d->ranks->node_size > n)
        espl__doctor_say(d, ESPL_FAILS, "start as many ranks a host as GPUs", "%d ranks on a host with %d GPUs", d->ranks->node_size, n);
}

void espl__check_device(espl__doctor *d) {
    bool asked = d->config->run_device == ESPL_DEVICE_CUDA;
    if (d->config->run_device == ESPL_DEVICE_CPU)
        espl__doctor_say(d, ESPL_FINE, "", "run.device is cpu");
    else if (espl_backend_has_driver())
        look_at_gpus(d, asked ? ESPL_FAILS : ESPL_POOR);
    else if (asked)
        espl__doctor_say(d, ESPL_FAILS, "start on GPU nodes, or set run.device: cpu",
                         "run.device is cuda, but there is no NVIDIA driver (libcuda.so.1)");
    else
        espl__doctor_say(d, ESPL_FINE, "", "no NVIDIA driver (libcuda.so.1): a run takes the CPU");
}

/* ---- Clocks. */

static const double MOST_APART = 1.0;

static void say_synchronised(espl__doctor *d) {
    struct timex clock = {0};
    if (d->ranks->n_nodes > 1 && adjtimex(&clock) == TIME_ERROR && (clock.status & STA_UNSYNC))
        espl__doctor_say(d, ESPL_POOR, "have the site look at chronyd or ntpd", "the system says that this clock follows no other");
}

/* Rank 0 asks the first rank of each host. */
static espl_status ask_hosts(espl__doctor *d, const int64_t *firsts, double *worst) {
    for (int r = 1; r < d->ranks->size; r++) {
        double ahead = 0.0;
        if (!firsts[r])
            continue;
        ESPL_TRY(espl_clock_ask(d->comm, r, &ahead));
        *worst = fabs(ahead) > fabs(*worst) ? ahead : *worst;
        if (fabs(ahead) > MOST_APART)
            espl__doctor_say(d, ESPL_POOR, "have the site look at chronyd or ntpd; times of files and logs mislead",
                             "the clock of rank %d's host is %.1f s %s of rank 0's", r, fabs(ahead), ahead > 0 ? "ahead" : "behind");
    }
    return ESPL_OK;
}

espl_status espl__check_clocks(espl__doctor *d) {
    const espl_ranks *ranks = d->ranks;
    if (ranks->n_nodes == 1)
        return ESPL_OK;
    int64_t first = ranks->node_rank == 0, *firsts = espl_calloc((size_t)ranks->size, sizeof *firsts);
    double worst = 0.0;
    espl_status status = ESPL_OK;
    if (first)
        say_synchronised(d);
    ESPL_TRY_DONE(espl_comm_allgather(d->comm, &first, sizeof first, firsts));
    if (ranks->rank == 0)
        ESPL_TRY_DONE(ask_hosts(d, firsts, &worst));
    else if (first)
        ESPL_TRY_DONE(espl_clock_answer(d->comm, 0));
    if (ranks->rank == 0)
        espl__doctor_say(d, ESPL_FINE, "", "clocks of %d hosts are at most %.3f s apart", ranks->n_nodes, fabs(worst));
done:
    free(firsts);
    return status;
}
