// fuzz: libs=io,core runs=50000
/* Any bytes as a safetensors file: a status, or tensors that lie within the bytes. Also with the input as the header's text up to a NUL and
 * the data behind it, under a correct length: random bytes seldom get past that. */
#include "io/safetensors/safetensors_set.h"

#include "src/core/buffer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Every byte of every tensor is touched, so that the sanitizer sees a pointer that leads astray. */
static unsigned touch(const espl_tensor_file *tensor) {
    unsigned sum = 0;
    for (size_t i = 0; i < tensor->bytes; i++)
        sum += ((const unsigned char *)tensor->data)[i];
    return sum;
}

static void parse(const char *bytes, size_t size) {
    espl_safetensors *set = espl_calloc(1, sizeof *set);
    volatile unsigned sum = 0;
    if (espl__safetensors_parse(set, "input", bytes, size) == ESPL_OK)
        for (int64_t i = 0; i < espl_safetensors_count(set); i++)
            sum += touch(espl_safetensors_at(set, i));
    espl_safetensors_close(&set);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    const char *text = (const char *)bytes;
    parse(text, size);
    espl_buffer framed = {0};
    uint64_t length = strnlen(text, size);
    size_t data = length < size ? length + 1 : size;
    espl_buffer_append(&framed, &length, sizeof length);
    espl_buffer_append(&framed, text, length);
    espl_buffer_append(&framed, text + data, size - data);
    parse(framed.data, framed.size);
    espl_buffer_free(&framed);
    return 0;
}
