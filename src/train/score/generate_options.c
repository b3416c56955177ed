#include "src/train/score/generate_options.h"

espl_generate_options espl_generate_options_of(const espl_config *c, const espl_ends *ends) {
    return (espl_generate_options){.sampling = {.repetition_penalty = c->generate_repetition_penalty,
                                                .no_repeat_ngram = c->generate_no_repeat_ngram,
                                                .min_new_tokens = c->generate_min_new_tokens,
                                                .temperature = c->generate_temperature,
                                                .top_k = c->generate_top_k,
                                                .top_p = c->generate_top_p,
                                                .min_tokens_to_keep = 1,
                                                .eos = ends->ids,
                                                .n_eos = ends->n},
                                   .beams = (int)c->generate_beams,
                                   .length_penalty = c->generate_length_penalty,
                                   .max_new = c->generate_max_new_tokens,
                                   .seed = (uint64_t)c->generate_seed};
}
