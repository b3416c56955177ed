/* The memory of a run: the plan is the allocation.
 *
 * One layout function takes every tensor from its arena in a fixed order. `espalier plan` runs it on measuring arenas; a run measures,
 * takes one allocation an arena, and runs it again. Nothing is allocated in the loop. All arenas lie on the device but STAGE, which the
 * host keeps; run.offload leaves OPT with it, too, where a GPU's kernels reach it.
 *
 *   PARAM  compute weights, the flat space or a part  GRAD  gradients in fp32, the flat space or what flows; the reducer's sums and stages
 *   OPT    what the optimizer keeps, master weights   ACT   values and their gradients, shared by lifetime
 *   WORK   scratch of kernels, sums of a step         STAGE micro-batches and the snapshot of a checkpoint
 *
 * Training, evaluation and generation never run at once, so they share ACT and WORK: caches and beams lie where gradients were. */
#ifndef ESPL_TRAIN_MEMORY_H
#define ESPL_TRAIN_MEMORY_H

#include "comm/reducer.h"
#include "kernels/engine.h"
#include "src/config/config.h"
#include "src/core/arena.h"
#include "src/data/placement.h"
#include "src/eval/kv_decoder.h"
#include "src/model/flow.h"
#include "src/plan/ownership.h"
#include "src/plan/rule_tensors.h"

typedef enum espl_arena_id {
    ESPL_ARENA_PARAM,
    ESPL_ARENA_GRAD,
    ESPL_ARENA_OPT,
    ESPL_ARENA_ACT,
    ESPL_ARENA_WORK,
    ESPL_ARENA_STAGE,
    ESPL_N_ARENAS
} espl_arena_id;

/* Everything that sizes depend on. */
typedef struct espl_blueprint {
    const espl_model *model;
    const espl_kernels *kernels;
    bool remote; /* for a device whose memory the host cannot address */
    espl_owner owner;
    int threads;
    espl_room room;                            /* of a micro-batch */
    int64_t micro_batch_tokens, micro_batches; /* of the step over all ranks */
    bool tree, narrow;                         /* of the reducer */
    espl_rule rule;
    espl_rule_tensors tensors; /* of a rule with matrices: then every rank keeps all of its states */
    size_t rule_work;          /* of WORK */
    bool master;               /* fp32 master weights */
    bool offloads;             /* OPT lies on the host of a remote device */
    espl_tape *train;          /* one for each of the model's phases */
    espl_flow *flows;          /* as many: what moves between ranks meanwhile */
    bool sharded;              /* a rank keeps no gradients but its shards (run.sharding), and the others flow */
    espl_flow eval_flow;       /* where weights are cut, too (owner.cut) */
    espl_tape eval;
    espl_capacity capacity[ESPL_N_STREAMS]; /* of a micro-batch on the device */
    espl_decoder *texts;                    /* generates for evaluations, where eval.best asks for it; else NULL. It shares ACT and WORK */
    size_t texts_act, texts_work;           /* what it takes of them */
    size_t texts_host;                      /* and of STAGE */
    espl_capacity reserved[ESPL_N_STREAMS]; /* of micro-batches of either kind: what the device makes room for */
    bool saves_behind;                      /* checkpoints are written while training goes on */
    size_t snapshot_bytes;                  /* that the saver holds of it, or a stage; counted under STAGE */
} espl_blueprint;

/* What a step sums up on the device. */
enum { ESPL_SUM_LOSS, ESPL_SUM_SQUARES, ESPL_N_SUMS };

typedef struct espl_memory {
    const espl_engine *engine; /* borrowed; it must be open until the memory is freed */
    espl_arena arenas[ESPL_N_ARENAS];
    bool offloads;                 /* as the blueprint's */
    void *weights;                 /* the flat space, or of what is trained what this rank keeps */
    void *windows;                 /* where those that are cut are brought together; else NULL */
    float *gradients;              /* the flat space, or the memory of the flows */
    void *states[ESPL_MAX_STATES]; /* as the optimizer's rule keeps them */
    float *master;                 /* NULL in fp32, and in bf16 without masters */
    void *act, *work;
    espl_exact *sums; /* [ESPL_N_SUMS] */
    float *rope;      /* the model's table on a remote device; else NULL */
    espl_sample sample;
    espl_bucket *buckets; /* [model->n_buckets] */
    espl_reducer *reducer;
    espl_gather *gather;   /* spreads weights after an update; NULL: they are cut */
    espl_fetcher *fetcher; /* NULL: weights are not cut */
} espl_memory;

/* Local. Whether the settings that memory depends on go together, eval.best and data.task among them. Errors: usage. */
espl_status espl_blueprint_check(const espl_config *config);

/* Local. Whether a step's micro-batches can be shared out to so many ranks, of which each node has as many, as run.reduction, run.sharding
 * and run.shard_group ask for. Errors: usage. */
espl_status espl_blueprint_check_ranks(const espl_config *config, int ranks, int node_size);

/* Local. The ranks of a group by run.shard_group, of a job that espl_blueprint_check_ranks allows, on nodes of `node_size` ranks each. */
int espl_blueprint_group(const espl_config *config, int ranks, int node_size);

/* Local. Fills a blueprint: tapes made, ownership from where the rank stands in the job and in its group. `snapshot_bytes` is set by the
 * caller afterwards. */
void espl_blueprint_make(const espl_config *config, const espl_model *model, const espl_kernels *kernels, bool remote,
                         const espl_ranks *ranks, int threads, espl_blueprint *blueprint);
void espl_blueprint_free(espl_blueprint *blueprint);

/* Local. The room of a micro-batch of a model by the config, and tokens of the longest piece of text in it, a prompt not counted. */
espl_room espl_blueprint_room(const espl_config *config, const espl_model *model);
int64_t espl_blueprint_length(const espl_config *config, const espl_model *model);

/* Local. Tokens of the longest sequence of such a run: the same, or with what evaluations generate behind a prompt of that length. */
int64_t espl_blueprint_reach(const espl_config *config, const espl_model *model);

/* Local. Format of the weights that a checkpoint holds: that of the masters, or of the compute weights where those are the only ones. */
espl_dtype espl_blueprint_truth(const espl_blueprint *blueprint);

/* Which micro-batches of a step are a rank's: first, first + stride, ... */
typedef struct espl_micro_share {
    int64_t first, count, stride;
} espl_micro_share;

/* Local. Those of the blueprint's rank: contiguous, as even as can be; where gradients are cut every size-th, so that those that are summed
 * at a time follow each other. */
espl_micro_share espl_blueprint_share(const espl_blueprint *blueprint);

/* Local. Bytes of every arena. Errors: usage, when the reduction cannot be cut over these ranks. */
espl_status espl_memory_measure(const espl_blueprint *blueprint, size_t bytes[ESPL_N_ARENAS]);

/* Local. Whether an arena lies on the host of a remote device. */
bool espl_blueprint_on_host(const espl_blueprint *blueprint, espl_arena_id id);

/* Local. Takes the memory on the engine's device and binds the tapes to it. Errors: usage, when it does not fit; says by how much. */
espl_status espl_memory_bind(espl_blueprint *blueprint, const espl_engine *engine, espl_comm *comm, espl_memory *memory);

/* Collective. Waits until the weights of the last update are whole on every rank. Whoever reads them calls it first, but training's tape,
 * whose flow waits for each bucket. */
espl_status espl_memory_settle(const espl_memory *memory);

/* Collective, in the same order on all ranks. Starts to bring weights together, or waits until they are there. */
espl_status espl_memory_move_weights(const espl_memory *memory, const espl_flow *flow, const espl_move *move);

/* Local. The sums of the gradients that this rank alone counts of a bucket, *n of them: in the memory of gradients, or of the reducer. */
float *espl_memory_counted(const espl_blueprint *blueprint, const espl_memory *memory, int bucket, int64_t *n);

/* Local. Hands ACT and the device's micro-batches over to blueprint->texts, and back to training and evaluation. Between the two nothing
 * else runs. Errors: what the device says. */
espl_status espl_memory_begin_texts(const espl_blueprint *blueprint, const espl_memory *memory);
espl_status espl_memory_end_texts(const espl_blueprint *blueprint, const espl_memory *memory);

/* Local. Gives it all back; accepts a zeroed struct. */
void espl_memory_free(espl_memory *memory);

/* Local. "PARAM", ... */
const char *espl_arena_name(espl_arena_id id);

#endif
