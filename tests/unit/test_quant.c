// test: libs=kernels,config,core ranks=1 tier=short timeout=30
/* Quantised matrices: the values are bitsandbytes' (tests/goldens/quant.json, made by tests/reference/quant_golden.py), bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/quant.h"
#include "tests/unit/goldens.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* As quant_golden.py has it. */
static float *input_of(int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        int32_t bits = (int32_t)((uint32_t)i * 2654435761u) / 256 - ((int32_t)((uint32_t)i * 2654435761u) % 256 < 0);
        x[i] = (float)bits * 0x1p-24f * (float)(1 + i / 64 % 7);
    }
    return x;
}

/* FNV-1a over the bytes. */
static uint64_t hash_of(const float *x, int64_t n) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < (size_t)n * sizeof *x; i++)
        h = (h ^ ((const uint8_t *)x)[i]) * 0x100000001B3u;
    return h;
}

/* Quantises x and expands it in its place, without negative zeros. */
static void through(const espl_quant *quant, float *x) {
    int64_t n = espl_quant_numel(quant);
    void *bytes = aligned_alloc(ESPL_QUANT_ALIGN, espl_quant_bytes(quant));
    espl_quantise(quant, 0, x, ESPL_F32, bytes);
    espl_dequantise(quant, 0, bytes, x);
    free(bytes);
    for (int64_t i = 0; i < n; i++)
        x[i] += 0.0f;
}

static espl_quant quant_of(const json_t *golden) {
    return (espl_quant){.format = espl_quant_format(json_string_value(json_object_get(golden, "format"))),
                        .n_parts = 1,
                        .outputs_across = (int32_t)json_integer_value(json_object_get(golden, "outputs_across")),
                        .rows = {json_integer_value(json_object_get(golden, "rows"))},
                        .columns = json_integer_value(json_object_get(golden, "columns"))};
}

static bool is_golden(const json_t *golden, const float *x, int64_t n) {
    char found[17];
    snprintf(found, sizeof found, "%016llx", (unsigned long long)hash_of(x, n));
    return strcmp(found, json_string_value(json_object_get(golden, "hash"))) == 0;
}

static void values_are_the_goldens(void **state) {
    json_t *golden, *first;
    size_t c, i;
    json_array_foreach(*state, c, golden) {
        espl_quant quant = quant_of(golden);
        int64_t n = espl_quant_numel(&quant);
        float *x = input_of(n), *other = input_of(n);
        through(&quant, x);
        json_array_foreach(json_object_get(golden, "first"), i, first) assert_true((double)x[i] == json_real_value(first));
        assert_true(is_golden(golden, x, n));
        other[n / 2] = -other[n / 2]; /* the control */
        through(&quant, other);
        assert_false(is_golden(golden, other, n));
        free(x);
        free(other);
    }
    assert_true(json_array_size(*state) > 12);
}

/* The same numbers in bf16 as in float. */
static void formats_of_files_are_the_same(void **state) {
    (void)state;
    enum { ROWS = 9, COLUMNS = 80, N = ROWS * COLUMNS };
    for (int format = ESPL_QUANT_INT8; format <= ESPL_QUANT_NF4_DOUBLE; format++) {
        espl_quant quant = {.format = format, .n_parts = 1, .rows = {ROWS}, .columns = COLUMNS};
        size_t bytes = espl_quant_bytes(&quant);
        char *a = aligned_alloc(ESPL_QUANT_ALIGN, bytes), *b = aligned_alloc(ESPL_QUANT_ALIGN, bytes);
        float *x = input_of(N);
        espl_bf16 narrow[N];
        espl_dtype_convert(narrow, ESPL_BF16, x, ESPL_F32, N);
        espl_dtype_convert(x, ESPL_F32, narrow, ESPL_BF16, N);
        espl_quantise(&quant, 0, narrow, ESPL_BF16, a);
        espl_quantise(&quant, 0, x, ESPL_F32, b);
        assert_memory_equal(a, b, bytes);
        free(a);
        free(b);
        free(x);
    }
}

static void zeros_stay(void **state) {
    (void)state;
    float x[3 * 64];
    for (int format = ESPL_QUANT_INT8; format <= ESPL_QUANT_NF4_DOUBLE; format++) {
        memset(x, 0, sizeof x);
        through(&(espl_quant){.format = format, .n_parts = 1, .rows = {3}, .columns = 64}, x);
        for (int i = 0; i < 3 * 64; i++)
            assert_true(x[i] == 0.0f);
    }
}

/* Levels times a power of two expand to themselves; names come back. */
static void levels_stay(void **state) {
    (void)state;
    static const float levels[16] = ESPL_NF4_LEVELS;
    float x[64];
    for (int i = 0; i < 64; i++)
        x[i] = 0.25f * levels[(i * 7) % 16];
    through(&(espl_quant){.format = ESPL_QUANT_NF4, .n_parts = 1, .rows = {1}, .columns = 64}, x);
    for (int i = 0; i < 64; i++)
        assert_true(x[i] == 0.25f * levels[(i * 7) % 16]);
    for (int format = ESPL_QUANT_NONE; format <= ESPL_QUANT_NF4_DOUBLE; format++)
        assert_int_equal(espl_quant_format(espl_quant_name(format)), format);
    assert_int_equal(espl_quant_format("nf5"), -1);
}

static int load(void **state) { return load_goldens(state, ESPL_SOURCE_DIR "/tests/goldens/quant.json"); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_the_goldens),
        cmocka_unit_test(formats_of_files_are_the_same),
        cmocka_unit_test(zeros_stay),
        cmocka_unit_test(levels_stay),
    };
    return cmocka_run_group_tests(tests, load, free_goldens);
}
