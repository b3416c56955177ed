/* A model: a family's tables, and those of one of its heads, made concrete for one config.json.
 *
 * Parameters with names, shapes, buckets and places; op rows with attributes; values (the tensors between ops). No memory is held
 * but these lists. Parameters lie in one flat space of elements: bucket 0 embeddings, then one for each layer of the encoder, one for each
 * of the decoder or the only stack, the last the head: backward completes them from the last to the first. What is frozen comes behind
 * them, in no bucket, and what is quantised (kernels/quant.h) behind that; a bucket of which nothing is trained is none.
 * A bucket is what is reduced and gathered at once. Inside a bucket the places do not depend on the ranks; a bucket's end is padded so
 * that it divides into pieces of ESPL_PIECE elements a rank. */
#ifndef ESPL_MODEL_MODEL_H
#define ESPL_MODEL_MODEL_H

#include "src/config/config.h"
#include "src/model/family.h"

enum { ESPL_PIECE = 256, ESPL_MAX_NAME = 128 };

typedef struct espl_param {
    char name[ESPL_MAX_NAME];
    espl_role role;
    espl_section section;
    int layer; /* -1 outside the layers */
    int n_dims;
    int64_t shape[2], numel;
    int bucket;
    int64_t offset; /* in elements from the start of its bucket; of what is quantised, in bytes from where such begin */
    espl_init init;
    bool decay, joined; /* joined: follows the parameter before it without a gap */
    bool head;          /* of the head's table */
    int adapts;         /* the parameter that a method has added this one beside (low_rank.h, bottleneck.h, soft_prompt.h,
                            layer_prefix.h); -1: the model's own */
    int lora_a, lora_b; /* of the model's own: its A and B; -1: it has none */
    int bottleneck;     /* of the model's own: the first parameter of the adapter of its product; -1: it has none */
    int magnitude;      /* of the model's own: the magnitudes of its outputs (DoRA); -1: it has none */
    double rate;        /* by which the learning rate is multiplied (rates.h) */
    double alpha;       /* of an A and B (low_rank.h) */
    int phase;          /* from which on it is trained (phases.h) */
    bool frozen;        /* never trained: it lies behind all buckets (its number is n_buckets), on every rank */
    int quant;          /* ESPL_QUANT_*: frozen, and held quantised */
} espl_param;

/* A stretch of training in which the same is trained. */
typedef struct espl_phase {
    double at;   /* when it begins: steps that are done, or passes over the data */
    bool epochs; /* the latter */
    char *what;  /* the selections that join, separated by commas */
} espl_phase;

typedef struct espl_slot { /* a value between ops */
    const char *name;      /* the row that makes it */
    int layer;
    espl_stream stream;
    int producer;  /* row */
    int output;    /* which output of the row */
    int64_t width; /* elements a token */
    bool stat;     /* float statistics, not real */
    bool fixed;    /* one row, however many tokens there are */
} espl_slot;

typedef struct espl_row {
    espl_op op;
    const char *name;
    espl_section section;
    int layer;
    int in[ESPL_MAX_IN], out[ESPL_MAX_OUT]; /* slots, -1 none */
    int param[ESPL_MAX_PARAM];              /* parameters, -1 none */
    bool scored;                            /* of evaluation alone */
    bool noise;                             /* adds nothing where nothing is dropped: of training alone */
    espl_attrs attrs;
} espl_row;

/* Low-rank updates of matrices instead of their training (low_rank.h). */
typedef struct espl_lora_options {
    int64_t rank; /* 0: none */
    double alpha, dropout;
    bool magnitudes;      /* of every output, trained beside the update of its direction: DoRA (Liu et al. 2024) */
    bool rank_stabilised; /* scale alpha / sqrt(rank) (Kalajdzievski 2023), else alpha / rank */
    char *const *targets; /* [n_targets] matrices: all-linear, ends of names, patterns; borrowed; 0: the attention's q and v */
    int64_t n_targets;
    char *const *ranks, *const
                            *alphas; /* [n_ranks], [n_alphas] "target=number": other ones for matrices of that target; the first counts */
    int64_t n_ranks, n_alphas;
} espl_lora_options;

/* Adapters behind attention and MLP (bottleneck.h). */
typedef struct espl_bottleneck_options {
    int64_t width;      /* 0: none */
    int32_t activation; /* ESPL_ACT_* */
    bool mlp_only;      /* behind the MLP of a layer alone */
} espl_bottleneck_options;

/* Embeddings in front of every text (soft_prompt.h), or keys and values in front of those of every layer (layer_prefix.h). */
typedef struct espl_prompt_options {
    int64_t length; /* 0: none */
    bool prefix;    /* the latter */
} espl_prompt_options;

typedef struct espl_model {
    const espl_family *family;
    const espl_head_table *head;
    espl_lora_options lora; /* without its lists */
    espl_bottleneck_options bottleneck;
    espl_prompt_options prompt;
    bool new_head; /* config.json names another one, or none: files may lack its weights */
    espl_dims dims;
    espl_param *params;
    int n_params;
    espl_slot *slots;
    int n_slots;
    espl_row *rows;
    int n_rows;
    espl_phase *phases; /* at least one */
    int n_phases;
    int n_buckets;
    int64_t *bucket_numel; /* [n_buckets] without the padding that depends on ranks */
    int64_t frozen_numel;  /* elements of what is frozen */
    int64_t frozen_reals;  /* of what lies behind the buckets as reals, with gaps */
    size_t quant_bytes;    /* of what is quantised */
    int quant;             /* ESPL_QUANT_*: how */
    float *rope;           /* [positions, rope_dim] or NULL */
    int64_t rope_numel;    /* its elements */
    json_t *config;        /* config.json as it was read, but for what the head has changed */
} espl_model;

/* What files of weights say of a head with a matrix of its own. */
typedef enum espl_own_head { ESPL_OWN_HEAD_UNKNOWN, ESPL_OWN_HEAD_ABSENT, ESPL_OWN_HEAD_STORED } espl_own_head;

/* What is decided outside of config.json; zeroed: nothing but no dropout. */
typedef struct espl_model_options {
    double dropout;         /* of all kinds; below 0: config.json's */
    espl_head head;         /* auto: the one that config.json's architectures name, else the family's first */
    espl_own_head own_head; /* for families whose config.json does not tell */
    char *const *labels;    /* [n_labels] names of classes, borrowed; 0: config.json's */
    int64_t n_labels;
    char *const
        *train; /* [n_train] which parameters are trained (freeze.h, select.h), borrowed; 0: all, or with a method none but its own */
    int64_t n_train;
    char *const *unfreeze; /* [n_unfreeze] what is trained later (phases.h), borrowed */
    int64_t n_unfreeze;
    double layer_decay; /* of rates from the head down (rates.h); 0: none */
    char *const *rates; /* [n_rates] SELECTION=FACTOR, borrowed */
    int64_t n_rates;
    espl_lora_options lora;
    espl_bottleneck_options bottleneck;
    espl_prompt_options prompt;
    int quant; /* ESPL_QUANT_*: how frozen matrices of layers are held */
} espl_model_options;

/* Local. What a config decides about the model that it trains: its dropout, the head of its task, labels that it names. */
espl_model_options espl_model_options_of(const espl_config *config);

/* Local. Reads config.json at `path` (the file, or a folder that holds it) and expands its family's tables. Errors: data, for an unknown
 * architecture (lists the known ones), a missing or wrong key, a head that the family does not have. */
espl_status espl_model_make(const char *path, const espl_model_options *options, espl_model **model);

/* Local. The same from a config.json already in memory (borrowed; kept by reference); `path` stands for it in messages. */
espl_status espl_model_make_json(json_t *config, const char *path, const espl_model_options *options, espl_model **model);

/* Local. Makes the model fit for sequences of up to `positions` tokens beside its prompt: rope tables reach that far. Call once, before a
 * tape is made. Errors: usage, when the model's learned positions end earlier. */
espl_status espl_model_reach(espl_model *model, int64_t positions);

/* Local. Tokens that a soft prompt or a prefix puts in front of every segment of a stream, at positions from 0 on; what follows begins at
 * the position behind them. */
int64_t espl_model_prompt(const espl_model *model, espl_stream stream);

/* Local. The id of the first of them; the others' follow. A soft prompt's are behind the vocabulary; those of a prefix are some tokens',
 * of whom nobody takes anything. */
int32_t espl_model_prompt_id(const espl_model *model);

/* Local. Positions that are left for text. */
int64_t espl_model_positions(const espl_model *model);

/* Local. Whether a method has added parameters, which are trained instead of the model's own. */
bool espl_model_is_adapted(const espl_model *model);

/* Local. Whether a section's rows come once for each layer. */
bool espl_section_has_layers(espl_section section);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_model_free(espl_model **model);

/* Local. Elements of a bucket padded for `ranks` ranks, and the start of a bucket in the flat space. */
int64_t espl_model_bucket_size(const espl_model *model, int bucket, int ranks);
int64_t espl_model_bucket_start(const espl_model *model, int bucket, int ranks);

/* Local. Elements of the whole flat space for `ranks` ranks: of gradients, which end where the buckets do. */
int64_t espl_model_flat_size(const espl_model *model, int ranks);

/* Local. Where a parameter that is not quantised lies in the flat space, in elements. */
int64_t espl_model_place(const espl_model *model, int param, int ranks);

/* Local. Bytes of all weights, those that are frozen included, in the compute format `real`; and where among them a parameter's begin. */
size_t espl_model_weights_bytes(const espl_model *model, int ranks, espl_dtype real);
size_t espl_model_weights_at(const espl_model *model, int param, int ranks, espl_dtype real);

/* Local. How a quantised parameter lies there: a quant of one part. */
espl_quant espl_model_quant(const espl_model *model, int param);

/* Local. Bytes that a parameter's values take. */
size_t espl_model_param_bytes(const espl_model *model, int param, espl_dtype real);

/* Local. Number of parameters, each counted once; of those that are trained. */
int64_t espl_model_numel(const espl_model *model);
int64_t espl_model_trained_numel(const espl_model *model);

/* Local. Whether a parameter (-1: none), or anything of a bucket, is trained in a phase; how many parameters are. */
bool espl_model_trains(const espl_model *model, int param, int phase);
bool espl_model_trains_bucket(const espl_model *model, int bucket, int phase);
int64_t espl_model_phase_numel(const espl_model *model, int phase);

/* Local. The smallest and the largest `rate` of what is trained. */
void espl_model_rate_span(const espl_model *model, double *low, double *high);

/* Local. Matrix weights that a token is multiplied with (the embedding look-up is none; a tied head counts). */
int64_t espl_model_matrix_numel(const espl_model *model);

/* Local. Writes elements [begin, end) of a parameter's random initialisation as float; a pure function of (seed, parameter, element). */
void espl_model_init_range(const espl_model *model, int param, uint64_t seed, int64_t begin, int64_t end, float *out);

/* Local. Fills a rope table [positions, rope_dim] for these dims, as transformers' modeling_rope_utils defines the scalings. */
void espl_rope_fill(const espl_dims *dims, int64_t positions, float *table);

#endif
