#include "src/model/soft_prompt.h"
#include "src/model/layer_prefix.h"

static int find(const espl_model *m, espl_role role, espl_section section) {
    for (int i = 0; i < m->n_params; i++)
        if (m->params[i].role == role && m->params[i].section == section)
            return i;
    return -1;
}

/* Of an encoder-decoder the encoder has a soft prompt, the decoder a prefix. */
static bool is_in_source(const espl_model *m) { return m->dims.source_layers > 0 && !m->prompt.prefix; }

void espl__prompt_add_param(espl_model *m, espl_section section) {
    espl_section own = is_in_source(m) ? ESPL_SECTION_SOURCE_EMBED : ESPL_SECTION_EMBED;
    int64_t rows = m->prompt.length, width = m->prompt.prefix ? espl__prefix_columns(&m->dims) : m->dims.width;
    if (rows == 0 || section != own)
        return;
    int tokens = find(m, ESPL_ROLE_TOKENS, m->dims.source_layers > 0 ? ESPL_SECTION_SOURCE_EMBED : section);
    m->params[m->n_params++] = (espl_param){.name = "prompt_embeddings", /* as PEFT has it */
                                            .role = m->prompt.prefix ? ESPL_ROLE_PREFIX : ESPL_ROLE_PROMPT,
                                            .section = section,
                                            .layer = -1,
                                            .n_dims = 2,
                                            .shape = {rows, width},
                                            .numel = rows * width,
                                            .bucket = m->params[tokens].bucket,
                                            .init = ESPL_INIT_NORMAL_ONE,
                                            .decay = true,
                                            .adapts = tokens,
                                            .lora_a = -1,
                                            .lora_b = -1,
                                            .bottleneck = -1,
                                            .magnitude = -1};
}

void espl__prompt_bind(const espl_model *m, espl_row *row) {
    row->param[3] = find(m, ESPL_ROLE_PROMPT, row->section);
    row->attrs.prompt = row->param[3] >= 0 ? m->prompt.length : 0;
}

int64_t espl_model_prompt(const espl_model *model, espl_stream stream) {
    return stream == (is_in_source(model) ? ESPL_STREAM_SOURCE : ESPL_STREAM_MAIN) ? model->prompt.length : 0;
}

int32_t espl_model_prompt_id(const espl_model *model) { return model->prompt.prefix ? 0 : (int32_t)model->dims.vocab; }

int64_t espl_model_positions(const espl_model *model) { return model->dims.positions - espl_model_prompt(model, ESPL_STREAM_MAIN); }
