#include "src/model/soft_prompt.h"

static int find(const espl_model *m, espl_role role, espl_section section) {
    for (int i = 0; i < m->n_params; i++)
        if (m->params[i].role == role && m->params[i].section == section)
            return i;
    return -1;
}

static espl_section section_of(const espl_model *m) { return m->dims.source_layers > 0 ? ESPL_SECTION_SOURCE_EMBED : ESPL_SECTION_EMBED; }

void espl__prompt_add_param(espl_model *m, espl_section section) {
    int64_t rows = m->prompt.length, width = m->dims.width;
    if (rows == 0 || section != section_of(m))
        return;
    int tokens = find(m, ESPL_ROLE_TOKENS, section);
    m->params[m->n_params++] = (espl_param){.name = "prompt_embeddings", /* as PEFT has it */
                                            .role = ESPL_ROLE_PROMPT,
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
    espl_stream own = model->dims.source_layers > 0 ? ESPL_STREAM_SOURCE : ESPL_STREAM_MAIN;
    return stream == own ? model->prompt.length : 0;
}

int64_t espl_model_positions(const espl_model *model) { return model->dims.positions - espl_model_prompt(model, ESPL_STREAM_MAIN); }
