/* Ranks over MPI: start-up, topology, collectives, messages. Bulk operations: mpi_bulk.c. */
#include "comm/mpi_state.h"

#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

espl_status espl__mpi_check(int code, const char *call) {
    if (code == MPI_SUCCESS)
        return ESPL_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    ESPL_FAIL(ESPL_ERR_IO, "MPI failed: %s (%s); the job cannot go on, see the messages of other ranks and the network's health", text,
              call);
}

const char *espl_comm_library(void) {
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, ",\n")] = '\0';
    return text;
}

static void mpi_abort(int code) { MPI_Abort(MPI_COMM_WORLD, code); }

static void mpi_close(espl_comm *comm) {
    espl__mpi *mpi = comm->state;
    for (int i = 0; i < ESPL_MAX_REQUESTS; i++)
        free(mpi->bulks[i].requests);
    if (mpi->world != MPI_COMM_NULL)
        MPI_Barrier(mpi->world); /* MPI_Finalize need not wait, and a launcher may end who stays long behind the first to leave */
    if (mpi->board != MPI_WIN_NULL)
        MPI_Win_free(&mpi->board);
    if (mpi->world != MPI_COMM_NULL)
        MPI_Comm_free(&mpi->world);
    if (mpi->bulk != MPI_COMM_NULL)
        MPI_Comm_free(&mpi->bulk);
    free(mpi);
    MPI_Finalize();
}

static int piece_of(size_t left, size_t most) { return (int)(left < most ? left : most); }

static espl_status mpi_allreduce(espl_comm *comm, int64_t *values, size_t n, espl_reduce how) {
    espl__mpi *mpi = comm->state;
    const size_t most = ESPL__MESSAGE_BYTES / sizeof *values;
    MPI_Op op = how == ESPL_SUM ? MPI_SUM : how == ESPL_MAX ? MPI_MAX : MPI_MIN;
    for (size_t at = 0; at < n; at += most)
        ESPL__MPI(MPI_Allreduce(MPI_IN_PLACE, values + at, piece_of(n - at, most), MPI_INT64_T, op, mpi->world));
    return ESPL_OK;
}

static espl_status mpi_bcast(espl_comm *comm, void *data, size_t bytes, int root) {
    espl__mpi *mpi = comm->state;
    for (size_t at = 0; at < bytes; at += ESPL__MESSAGE_BYTES)
        ESPL__MPI(MPI_Bcast((char *)data + at, piece_of(bytes - at, ESPL__MESSAGE_BYTES), MPI_BYTE, root, mpi->world));
    return ESPL_OK;
}

/* A count that MPI cannot hold: every rank broadcasts its part. */
static espl_status allgather_large(espl_comm *comm, const void *mine, size_t bytes, char *all) {
    memmove(all + (size_t)comm->ranks.rank * bytes, mine, bytes);
    for (int root = 0; root < comm->ranks.size; root++)
        ESPL_TRY(mpi_bcast(comm, all + (size_t)root * bytes, bytes, root));
    return ESPL_OK;
}

static espl_status mpi_allgather(espl_comm *comm, const void *mine, size_t bytes, void *all) {
    espl__mpi *mpi = comm->state;
    if (bytes > ESPL__MESSAGE_BYTES)
        return allgather_large(comm, mine, bytes, all);
    ESPL__MPI(MPI_Allgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, mpi->world));
    return ESPL_OK;
}

static espl_status mpi_barrier(espl_comm *comm) {
    espl__mpi *mpi = comm->state;
    ESPL__MPI(MPI_Barrier(mpi->world));
    return ESPL_OK;
}

static espl_status mpi_send(espl_comm *comm, const void *data, size_t bytes, int to, int tag) {
    espl__mpi *mpi = comm->state;
    size_t at = 0;
    do { /* an empty message is a message, too */
        int piece = piece_of(bytes - at, ESPL__MESSAGE_BYTES);
        ESPL__MPI(MPI_Send((const char *)data + at, piece, MPI_BYTE, to, tag, mpi->world));
        at += (size_t)piece;
    } while (at < bytes);
    return ESPL_OK;
}

static espl_status mpi_recv(espl_comm *comm, void *data, size_t bytes, int from, int tag) {
    espl__mpi *mpi = comm->state;
    size_t at = 0;
    do {
        int piece = piece_of(bytes - at, ESPL__MESSAGE_BYTES);
        ESPL__MPI(MPI_Recv((char *)data + at, piece, MPI_BYTE, from, tag, mpi->world, MPI_STATUS_IGNORE));
        at += (size_t)piece;
    } while (at < bytes);
    return ESPL_OK;
}

static const espl__transport mpi_transport = {
    .close = mpi_close,
    .abort = mpi_abort,
    .allreduce_i64 = mpi_allreduce,
    .bcast = mpi_bcast,
    .allgather = mpi_allgather,
    .barrier = mpi_barrier,
    .send = mpi_send,
    .recv = mpi_recv,
    .reduce_scatter_start = espl__mpi_reduce_scatter_start,
    .exchange_start = espl__mpi_exchange_start,
    .allgather_start = espl__mpi_allgather_start,
    .progress = espl__mpi_progress,
    .wait = espl__mpi_wait,
};

/* Nodes are numbered by their lowest rank, found by counting the leaders (lowest ranks of a node) below ours. */
static espl_status number_nodes(espl__mpi *mpi, espl_ranks *ranks, MPI_Comm node) {
    int leader = ranks->rank;
    ESPL__MPI(MPI_Bcast(&leader, 1, MPI_INT, 0, node));
    int *leaders = espl_malloc((size_t)ranks->size * sizeof *leaders);
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl__mpi_check(MPI_Allgather(&leader, 1, MPI_INT, leaders, 1, MPI_INT, mpi->world), "MPI_Allgather of node leaders"));
    for (int r = 0; r < ranks->size; r++) {
        ranks->n_nodes += leaders[r] == r;
        ranks->node += leaders[r] == r && r < leader;
    }
done:
    free(leaders);
    return status;
}

/* The board is a convenience: without it the watchdog speaks of its own rank alone. */
static void open_board(espl__mpi *mpi, espl_comm *comm, MPI_Comm node) {
    void *own = NULL, *first = NULL;
    MPI_Aint bytes = 0;
    int unit = 0;
    if (comm->ranks.node_size == 1)
        return;
    if (MPI_Win_allocate_shared(sizeof(espl__place), 1, MPI_INFO_NULL, node, &own, &mpi->board) != MPI_SUCCESS) {
        mpi->board = MPI_WIN_NULL;
        return;
    }
    if (MPI_Win_shared_query(mpi->board, 0, &bytes, &unit, &first) == MPI_SUCCESS)
        comm->board = first;
    if (comm->board != NULL)
        espl__board_join(comm->board + comm->ranks.node_rank, comm->ranks.rank);
}

static espl_status find_topology(espl__mpi *mpi, espl_comm *comm) {
    espl_ranks *ranks = &comm->ranks;
    MPI_Comm node;
    ESPL__MPI(MPI_Comm_rank(mpi->world, &ranks->rank));
    ESPL__MPI(MPI_Comm_size(mpi->world, &ranks->size));
    ESPL__MPI(MPI_Comm_split_type(mpi->world, MPI_COMM_TYPE_SHARED, ranks->rank, MPI_INFO_NULL, &node));
    ESPL__MPI(MPI_Comm_rank(node, &ranks->node_rank));
    ESPL__MPI(MPI_Comm_size(node, &ranks->node_size));
    ESPL_TRY(number_nodes(mpi, ranks, node));
    open_board(mpi, comm, node);
    ESPL__MPI(MPI_Comm_free(&node));
    return ESPL_OK;
}

espl_status espl__mpi_open(espl_comm *comm) {
    int provided;
    ESPL__MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    espl__mpi *mpi = espl_calloc(1, sizeof *mpi);
    mpi->world = mpi->bulk = MPI_COMM_NULL;
    mpi->board = MPI_WIN_NULL;
    comm->state = mpi;
    comm->transport = &mpi_transport;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN); /* inherited by the duplicates */
    ESPL__MPI(MPI_Comm_dup(MPI_COMM_WORLD, &mpi->world));
    ESPL__MPI(MPI_Comm_dup(MPI_COMM_WORLD, &mpi->bulk));
    return find_topology(mpi, comm);
}
