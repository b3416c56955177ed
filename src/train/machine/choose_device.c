#include "src/train/machine/choose_device.h"

#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

/* ---- The backend. */

static espl_status find_backend(const char *name, espl_engine *engine, int *n_devices) {
    *engine = (espl_engine){.name = name};
    ESPL_TRY(espl_backend_open(name, &engine->backend));
    ESPL_TRY(engine->backend->device->count(n_devices));
    if (*n_devices < 1)
        ESPL_FAIL(ESPL_ERR_USAGE, "run.device: the %s backend finds no device here; set run.device: cpu, or start where there are some",
                  name);
    return ESPL_OK;
}

static espl_status find_gpus(espl_engine *engine, int *n_devices) {
    if (!espl_backend_has_driver())
        ESPL_FAIL(ESPL_ERR_USAGE, "there is no NVIDIA driver here (libcuda.so.1)");
    return find_backend("cuda", engine, n_devices);
}

/* GPUs where every rank has some, the host where none has. A job in which only some have is a mistake that would cost a night. */
static espl_status find_automatically(espl_comm *comm, espl_engine *engine, int *n_devices, char why[ESPL_MESSAGE_BYTES]) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    espl_status status = find_gpus(engine, n_devices);
    int64_t without = status != ESPL_OK;
    snprintf(why, ESPL_MESSAGE_BYTES, "%s", espl_status_message());
    espl_status_clear();
    ESPL_TRY(espl_comm_allreduce_i64(comm, &without, 1, ESPL_SUM));
    if (without == 0)
        return ESPL_OK;
    if (without == ranks->size)
        return find_backend("cpu", engine, n_devices);
    if (status != ESPL_OK)
        status = espl_status_fail(ESPL_ERR_USAGE, __FILE__, __LINE__,
                                  "run.device is auto: %lld of %d ranks have no GPU, this one on %s among them (%s); set run.device: cpu, "
                                  "or start on GPU nodes alone",
                                  (long long)without, ranks->size, ranks->host, why);
    return espl_comm_agree(comm, status, "choosing a device");
}

static espl_status find(espl_comm *comm, const espl_config *config, espl_engine *engine, int *n_devices, char why[ESPL_MESSAGE_BYTES]) {
    why[0] = '\0';
    if (config->run_device == ESPL_DEVICE_AUTO)
        return find_automatically(comm, engine, n_devices, why);
    const char *name = espl_config_choice("run", "device", config->run_device);
    return espl_comm_agree(comm, find_backend(name, engine, n_devices), "choosing a device");
}

/* ---- The other ranks. */

typedef struct place {
    int32_t node, n_devices;
    char host[64], name[96], address[32];
} place;

/* A launcher may show every rank a GPU of its own; then each sees one, and only addresses tell whether they are different ones. */
static bool same_device(const place *a, const place *b) { return a->node == b->node && strcmp(a->address, b->address) == 0; }

static espl_status compare(const place *all, const espl_ranks *ranks) {
    for (int r = 1; r < ranks->size; r++)
        if (strcmp(all[r].name, all[0].name) != 0)
            ESPL_FAIL(ESPL_ERR_USAGE,
                      "GPUs of different models: rank 0 on %s has %s, rank %d on %s has %s; ask the scheduler for one model (Slurm: "
                      "--constraint, or --gres=gpu:MODEL:N)",
                      all[0].host, all[0].name, r, all[r].host, all[r].name);
    for (int r = 1; r < ranks->size; r++)
        for (int q = 0; q < r; q++)
            if (same_device(&all[q], &all[r])) {
                int n = 0;
                for (int k = 0; k < ranks->size; k++)
                    n += all[k].node == all[r].node;
                ESPL_FAIL(ESPL_ERR_USAGE,
                          "%d ranks on %s, but they see %d GPU%s there; start as many ranks a node as GPUs (one GPU a rank), or set "
                          "run.device: cpu",
                          n, all[r].host, all[r].n_devices, all[r].n_devices > 1 ? "s" : "");
            }
    return ESPL_OK;
}

static espl_status check_peers(espl_comm *comm, const espl_engine *engine) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    place mine = {.node = ranks->node, .n_devices = engine->info.n_devices};
    memcpy(mine.host, ranks->host, sizeof mine.host);
    memcpy(mine.name, engine->info.name, sizeof mine.name);
    snprintf(mine.address, sizeof mine.address, "%s", engine->info.address);
    if (mine.address[0] == '\0')
        snprintf(mine.address, sizeof mine.address, "number %d", engine->info.ordinal);
    place *all = espl_calloc((size_t)ranks->size, sizeof *all);
    espl_status status = espl_comm_allgather(comm, &mine, sizeof mine, all);
    if (status == ESPL_OK)
        status = compare(all, ranks); /* the same on all ranks */
    free(all);
    return status;
}

espl_status espl_choose_device(espl_comm *comm, const espl_config *config, espl_engine *engine, char why[ESPL_MESSAGE_BYTES]) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    int n_devices = 0;
    ESPL_TRY(find(comm, config, engine, &n_devices, why));
    ESPL_ASSERT(n_devices > 0, "%d devices", n_devices);
    espl_dtype real = config->run_dtype == ESPL_RUN_BF16 ? ESPL_BF16 : ESPL_F32;
    ESPL_TRY(espl_comm_agree(comm, espl_engine_start(engine, ranks->node_rank % n_devices, real), "opening the device"));
    if (engine->calls->remote)
        ESPL_TRY(check_peers(comm, engine));
    return ESPL_OK;
}
