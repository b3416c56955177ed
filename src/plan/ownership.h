/* Who owns what: the flat space of parameters cut over ranks.
 *
 * Ranks stand in groups of N, of which each holds everything (run.shard_group; one group of all R ranks by default). Number r of a group
 * owns elements [r S/N, (r+1) S/N) of each bucket of S elements, which the same numbers of other groups own, too; both ends are multiples
 * of ESPL_PIECE. An owner keeps the moments (and in bf16 the fp32 master weights) of its elements, packed bucket after bucket. Replicated
 * optimizers keep all. Buckets are padded for R, so that what a group owns can be shared out evenly over the groups, too. */
#ifndef ESPL_PLAN_OWNERSHIP_H
#define ESPL_PLAN_OWNERSHIP_H

#include "src/model/model.h"

typedef struct espl_owner {
    int rank, ranks;     /* in the job */
    int shard, shards;   /* in the group: r of N */
    int group, n_groups; /* which of them */
    bool replicated;     /* optimizer state of all elements on every rank */
    bool cut; /* of what is trained a rank keeps its own weights alone, packed as the moments are; what is frozen lies behind them */
} espl_owner;

/* One rank, which keeps everything. */
extern const espl_owner espl_owner_alone;

/* A run of elements of one parameter that this rank updates; empty for those that are frozen. */
typedef struct espl_segment {
    int param;
    int64_t begin, end; /* elements of the parameter */
    int64_t flat;       /* of `begin` in the flat space */
    int64_t state;      /* of `begin` in this rank's optimizer arrays */
    int64_t weight;     /* of `begin` in this rank's array of weights: `flat`, or where they are cut `state` */
} espl_segment;

/* Local. Elements of each optimizer array on this rank. */
int64_t espl_owner_state_size(const espl_model *model, const espl_owner *owner);

/* Local. Bytes of this rank's array of weights in the format `real`, and where in it those of a parameter begin that is not cut. */
size_t espl_owner_weights_bytes(const espl_model *model, const espl_owner *owner, espl_dtype real);
size_t espl_owner_weights_at(const espl_model *model, const espl_owner *owner, int param, espl_dtype real);

/* Local. The segments that this rank owns (even when the optimizer is replicated), in the order of parameters; one for every parameter,
 * empty ones included. The caller frees *segments. Returns their number, n_params. */
int espl_owner_segments(const espl_model *model, const espl_owner *owner, espl_segment **segments);

/* Local. The segments that this rank updates: those it owns, or every whole parameter when replicated. As above. */
int espl_owner_updates(const espl_model *model, const espl_owner *owner, espl_segment **segments);

/* Local. This rank's piece of a bucket in the flat space. */
void espl_owner_piece(const espl_model *model, const espl_owner *owner, int bucket, int64_t *begin, int64_t *end);

/* Local. The part of this rank's piece that it alone counts, of all groups that own it. */
void espl_owner_counted(const espl_model *model, const espl_owner *owner, int bucket, int64_t *begin, int64_t *end);

/* Local. Where the stretch of a bucket that this rank updates (its piece, or all of it when replicated) begins in the flat space, and in
 * this rank's optimizer arrays. */
void espl_owner_stretch(const espl_model *model, const espl_owner *owner, int bucket, int64_t *flat, int64_t *state);

#endif
