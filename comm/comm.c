#include "comm/transport.h"

#include "src/core/buffer.h"
#include "src/core/clock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_START_SECONDS = 600 }; /* thousands of ranks take a minute or two */

/* A variable of the environment; NULL also when it is empty. */
static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static int is_set(const char *name) { return variable(name) != NULL; }

int espl_comm_launched_rank(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = variable(names[i]);
        if (value != NULL)
            return atoi(value);
    }
    return 0;
}

/* What mpirun (Open MPI, MPICH), srun --mpi=pmix and srun --mpi=pmi2 leave in the environment of a rank. */
static int mpi_launched(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (is_set(names[i]))
            return 1;
    return 0;
}

/* Tasks of the Slurm step; SLURM_NTASKS says the same of a whole batch job, whose script is one process, so it proves nothing. */
static long slurm_step_tasks(void) {
    const char *text = variable("SLURM_STEP_NUM_TASKS");
    return is_set("SLURM_PROCID") && text != NULL ? strtol(text, NULL, 10) : 1;
}

static espl_status refuse_singleton(const espl_ranks *ranks, int started_by_mpirun) {
    long tasks = slurm_step_tasks();
    if (ranks->size == 1 && tasks > 1 && !started_by_mpirun)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "srun started %ld tasks, but each is alone: MPI was given no way to find the others. Start with srun --mpi=pmix "
                  "(srun --mpi=list shows what this Slurm has), or with mpirun inside the allocation",
                  tasks);
    return ESPL_OK;
}

/* How long ranks may take to meet: a number of seconds. */
static espl_status read_start_seconds(double *seconds) {
    const char *text = variable("ESPL_START_SECONDS");
    char *end = NULL;
    *seconds = DEFAULT_START_SECONDS;
    if (text == NULL)
        return ESPL_OK;
    *seconds = strtod(text, &end);
    if (*end != '\0' || !(*seconds >= 0 && *seconds < 1e6))
        ESPL_FAIL(ESPL_ERR_USAGE, "ESPL_START_SECONDS is '%s': expected the seconds that ranks may take to meet, or 0 to wait", text);
    return ESPL_OK;
}

static espl_status open_mpi(espl_comm *comm) {
    double seconds;
    ESPL_TRY(read_start_seconds(&seconds));
    ESPL_TRY(espl__watchdog_start(comm, seconds));
    espl_status status = espl__mpi_open(comm);
    espl__watchdog_stop(&comm->watchdog);
    return status;
}

static espl_status open_transport(espl_comm *comm, int use_mpi) {
    int started_by_mpirun = is_set("OMPI_COMM_WORLD_SIZE"); /* asked before MPI_Init, which sets it everywhere */
    if (use_mpi || mpi_launched())
        ESPL_TRY(open_mpi(comm));
    else
        espl__self_open(comm);
    ESPL_TRY(refuse_singleton(&comm->ranks, started_by_mpirun));
    return ESPL_OK;
}

espl_status espl_comm_open(espl_comm **opened, int use_mpi) {
    espl_comm *comm = espl_calloc(1, sizeof *comm);
    gethostname(comm->ranks.host, sizeof comm->ranks.host - 1);
    comm->ranks.rank = espl_comm_launched_rank();
    espl_status status = ESPL_OK;
    *opened = NULL;
    ESPL_TRY_DONE(open_transport(comm, use_mpi));
    espl_comm_group(comm, comm->ranks.size);
    espl_status_set_abort(comm->transport->abort);
    *opened = comm;
    return ESPL_OK;
done:
    espl_comm_close(&comm);
    return status;
}

const espl_ranks *espl_comm_ranks(const espl_comm *comm) { return &comm->ranks; }

void espl_comm_close(espl_comm **address) {
    espl_comm *comm = *address;
    *address = NULL;
    if (comm == NULL)
        return;
    espl_comm_end_bulk(comm);
    espl__watchdog_stop(&comm->watchdog);
    espl_status_set_abort(NULL);
    if (comm->transport != NULL)
        comm->transport->close(comm);
    free(comm);
}

void espl_comm_abort(espl_comm *comm, int code) {
    fprintf(stderr, "espalier: rank %d on %s ends the job with exit code %d\n", comm->ranks.rank, comm->ranks.host, code);
    fflush(NULL);
    comm->transport->abort(code);
    _exit(code);
}

espl_status espl_comm_allreduce_i64(espl_comm *comm, int64_t *values, size_t n, espl_reduce how) {
    return comm->transport->allreduce_i64(comm, values, n, how);
}

espl_status espl_comm_bcast(espl_comm *comm, void *data, size_t bytes, int root) {
    ESPL_ASSERT(root >= 0 && root < comm->ranks.size, "broadcast from rank %d of %d", root, comm->ranks.size);
    return comm->transport->bcast(comm, data, bytes, root);
}

espl_status espl_comm_allgather(espl_comm *comm, const void *mine, size_t bytes, void *all) {
    return comm->transport->allgather(comm, mine, bytes, all);
}

espl_status espl_comm_barrier(espl_comm *comm) { return comm->transport->barrier(comm); }

static void check_peer(const espl_comm *comm, int peer, int tag) {
    ESPL_ASSERT(peer >= 0 && peer < comm->ranks.size && peer != comm->ranks.rank, "rank %d of %d talks to rank %d", comm->ranks.rank,
                comm->ranks.size, peer);
    ESPL_ASSERT(tag >= 0 && tag < 1000, "tag %d", tag);
}

espl_status espl_comm_send(espl_comm *comm, const void *data, size_t bytes, int to, int tag) {
    check_peer(comm, to, tag);
    return comm->transport->send(comm, data, bytes, to, tag);
}

espl_status espl_comm_recv(espl_comm *comm, void *data, size_t bytes, int from, int tag) {
    check_peer(comm, from, tag);
    return comm->transport->recv(comm, data, bytes, from, tag);
}

void espl_comm_group(espl_comm *comm, int size) {
    espl_ranks *r = &comm->ranks;
    ESPL_ASSERT(comm->bulk == NULL, "groups change under operations of a device");
    ESPL_ASSERT(size > 0 && r->size % size == 0 && (size > 1 || r->size == 1), "groups of %d of %d ranks", size, r->size);
    r->group_size = size;
    r->n_groups = r->size / size;
    r->group = r->rank / size;
    r->place = r->rank % size;
}

static void check_shards(size_t n, int parts) { ESPL_ASSERT(n % (size_t)parts == 0, "%zu do not divide over %d ranks", n, parts); }

espl_status espl_comm_reduce_scatter_start(espl_comm *comm, float *data, float *stage, size_t n, int tree, espl_request *request) {
    int size = comm->ranks.size;
    ESPL_ASSERT(!tree || (size & (size - 1)) == 0, "a tree over %d ranks", size);
    check_shards(n, size);
    if (comm->bulk != NULL)
        return comm->bulk_calls->reduce_scatter_start(comm->bulk, data, stage, n, tree, request);
    return comm->transport->reduce_scatter_start(comm, data, stage, n, tree, request);
}

espl_status espl_comm_exchange_start(espl_comm *comm, const espl_exchange *exchange, float *data, size_t n, espl_request *request) {
    ESPL_ASSERT(comm->ranks.n_groups == 1, "an exchange over %d groups", comm->ranks.n_groups);
    check_shards(n, comm->ranks.size);
    if (comm->bulk != NULL)
        return comm->bulk_calls->exchange_start(comm->bulk, exchange, data, n, request);
    return comm->transport->exchange_start(comm, exchange, data, n, request);
}

espl_status espl_comm_allgather_start(espl_comm *comm, void *data, size_t bytes, espl_request *request) {
    check_shards(bytes, comm->ranks.group_size);
    if (comm->bulk != NULL)
        return comm->bulk_calls->allgather_start(comm->bulk, data, bytes, request);
    return comm->transport->allgather_start(comm, data, bytes, request);
}

espl_status espl_comm_progress(espl_comm *comm) {
    return comm->bulk != NULL ? comm->bulk_calls->progress(comm->bulk) : comm->transport->progress(comm);
}

espl_status espl_comm_wait(espl_comm *comm, espl_request request) {
    if (comm->bulk != NULL)
        return comm->bulk_calls->wait(comm->bulk, request); /* the device waits, not this thread */
    double start = espl_now();
    espl_status status = comm->transport->wait(comm, request);
    comm->wait_seconds += espl_now() - start;
    return status;
}

double espl_comm_wait_seconds(const espl_comm *comm) { return comm->wait_seconds + espl__bulk_seconds(comm).waiting; }

double espl_comm_busy_seconds(const espl_comm *comm) { return comm->busy_seconds + espl__bulk_seconds(comm).busy; }

int64_t espl_comm_bytes_sent(const espl_comm *comm) {
    return comm->bytes_sent + (comm->bulk != NULL ? comm->bulk_calls->bytes_sent(comm->bulk) : 0);
}
