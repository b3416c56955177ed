#include "kernels/kernels.h"

extern const espl_kernels espl__ref_table_f32, espl__ref_table_f64;

const espl_kernels *espl_kernels_ref(espl_dtype real) {
    return real == ESPL_F32 ? &espl__ref_table_f32 : real == ESPL_F64 ? &espl__ref_table_f64 : NULL;
}
