/* Forgetting: the loss on sets of what the base model knew, before the first step, while it trains, and after. */
#ifndef ESPL_TRAIN_PROBES_H
#define ESPL_TRAIN_PROBES_H

#include "src/train/score/evaluate.h"

#include <jansson.h>

typedef struct espl_probe {
    char *name, *path, *tag; /* tag: in TensorBoard */
    espl_dataset data;
    double before;       /* nats a target token before the first step; NAN: not known yet */
    int64_t targets;     /* that `before` is the mean of */
    double now, seconds; /* the newest evaluation; now NAN: there was none */
} espl_probe;

/* The sets of data.probe; zeroed: there are none. */
typedef struct espl_probes {
    espl_probe *items;
    int64_t n;
    int64_t step; /* of the newest evaluation; -1: none by this process */
} espl_probes;

/* Local. Whether data.probe names its sets, each once, and the limits go with it. Errors: usage. */
espl_status espl_probes_check(const espl_config *config);

/* Collective. Opens every set, read as the other data are, but text files as text whatever data.records says. `use` is that of the
 * validation data. Errors: data; usage. */
espl_status espl_probes_open(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, const espl_dataset_use *use,
                             espl_probes *probes);

/* Collective. Evaluates every set as `how` says, whose data and predictions are not looked at. A set without a loss of before gets it. */
espl_status espl_probes_evaluate(espl_probes *probes, const espl_evaluation *how);

/* Local. Whether some set still lacks its loss of before. */
bool espl_probes_new(const espl_probes *probes);

/* Local. The rise of a set's loss, NAN when unknown, and whether it is above train.max_forgetting (a loss that is no number is). */
double espl_probe_rise(const espl_probe *probe);
bool espl_probe_forgets(const espl_config *config, const espl_probe *probe);

/* Local. The first set that forgets more than is allowed; NULL: none does. */
const espl_probe *espl_probes_forgetting(const espl_config *config, const espl_probes *probes);

/* Local. For checkpoints: {name: {"data", "targets", "before", "now"}}, and back. Sets that are new or whose data changed stay without a
 * loss of before, which is said. */
json_t *espl_probes_to_json(const espl_probes *probes);
void espl_probes_from_json(const json_t *object, espl_probes *probes);

/* Local. For evaluation.json: [{"name", "before", "after", "rise", "targets"}]. */
json_t *espl_probes_report(const espl_probes *probes);

/* Local. Unmaps and frees; accepts a zeroed struct. */
void espl_probes_close(espl_probes *probes);

#endif
