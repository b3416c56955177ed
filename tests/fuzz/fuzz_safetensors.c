/* Any bytes as a safetensors file: a status, or tensors that lie within the bytes. libFuzzer target. */
#include "io/safetensors_set.h"

#include "src/core/buffer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Every byte of every tensor is touched, so that the sanitizer sees a pointer that leads astray. */
static unsigned touch(const espl_tensor_file *tensor) {
    unsigned sum = 0;
    for (size_t i = 0; i < tensor->bytes; i++)
        sum += ((const unsigned char *)tensor->data)[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    espl_safetensors *set = espl_calloc(1, sizeof *set);
    volatile unsigned sum = 0;
    if (espl__safetensors_parse(set, "input", (const char *)bytes, size) == ESPL_OK)
        for (int64_t i = 0; i < espl_safetensors_count(set); i++)
            sum += touch(espl_safetensors_at(set, i));
    espl_safetensors_close(&set);
    return 0;
}
