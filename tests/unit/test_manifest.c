// test: libs=io,core ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/checkpoint/shard.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static espl_manifest_range ranges_a[] = {{0, 0, 8, 512, 0}, {1, 8, 15, 1024, 2}}, ranges_b[] = {{1, 0, 2, 2048, 4}};

static espl_manifest *make_manifest(void) {
    espl_manifest *m = espl_calloc(1, sizeof *m);
    m->step = 1234;
    m->attempt = 3;
    m->rating = 2.125;
    m->n_files = m->n_tensors = 2;
    m->files = espl_calloc(2, sizeof *m->files);
    m->tensors = espl_calloc(2, sizeof *m->tensors);
    m->files[0] = (espl_manifest_file){espl_strdup("shard-00000.h5"), 4096, 0xFEDCBA9876543210u, 128, 8, 1};
    m->files[1] = (espl_manifest_file){espl_strdup("shard-00001.h5"), 8192, 7, 256, 8, UINT64_MAX};
    m->tensors[0] = (espl_manifest_tensor){espl_strdup("model"),
                                           espl_strdup("wte.weight"),
                                           ESPL_F32,
                                           2,
                                           {5, 3},
                                           15,
                                           memcpy(espl_malloc(sizeof ranges_a), ranges_a, sizeof ranges_a),
                                           2};
    m->tensors[1] = (espl_manifest_tensor){espl_strdup("exp_avg"),
                                           espl_strdup("b \"quoted\" \u00e9"),
                                           ESPL_BF16,
                                           1,
                                           {2},
                                           2,
                                           memcpy(espl_malloc(sizeof ranges_b), ranges_b, sizeof ranges_b),
                                           1};
    m->record = json_pack("{s:i, s:[f,s]}", "cursor", 17, "more", 0.1, "text");
    espl_manifest_sort(m);
    return m;
}

static espl_buffer printed(void) {
    espl_buffer text = {0};
    espl_manifest *m = make_manifest();
    espl_manifest_print(m, &text);
    espl_manifest_free(&m);
    return text;
}

static void round_trip(void **state) {
    (void)state;
    espl_buffer text = printed(), again = {0};
    espl_manifest *m;
    assert_int_equal(espl_manifest_parse(text.data, text.size, "here", &m), ESPL_OK);
    assert_int_equal(m->step, 1234);
    assert_true(m->rating == 2.125);
    assert_true(m->files[0].xxh3 == 0xFEDCBA9876543210u && m->files[1].sums_xxh3 == UINT64_MAX);
    const espl_manifest_tensor *t = espl_manifest_find(m, "model", "wte.weight");
    assert_non_null(t);
    assert_int_equal(t->n_ranges, 2);
    assert_int_equal(t->ranges[1].offset, 1024);
    assert_non_null(espl_manifest_find(m, "exp_avg", "b \"quoted\" \u00e9"));
    assert_null(espl_manifest_find(m, "model", "wpe.weight"));
    espl_manifest_print(m, &again);
    assert_string_equal(again.data, text.data);
    espl_manifest_free(&m);
    espl_buffer_free(&text);
    espl_buffer_free(&again);
}

static void no_loss_is_null(void **state) {
    (void)state;
    espl_manifest *m = make_manifest(), *back;
    espl_buffer text = {0};
    m->rating = NAN;
    espl_manifest_print(m, &text);
    assert_int_equal(espl_manifest_parse(text.data, text.size, "here", &back), ESPL_OK);
    assert_true(isnan(back->rating));
    espl_manifest_free(&m);
    espl_manifest_free(&back);
    espl_buffer_free(&text);
}

static void every_altered_byte_and_every_torn_end(void **state) {
    (void)state;
    espl_buffer text = printed();
    espl_manifest *m;
    for (size_t i = 0; i < text.size; i++)
        for (int bit = 0; bit < 8; bit++) {
            text.data[i] = (char)(text.data[i] ^ 1 << bit);
            assert_int_equal(espl_manifest_parse(text.data, text.size, "here", &m), ESPL_ERR_DATA);
            assert_null(m);
            text.data[i] = (char)(text.data[i] ^ 1 << bit);
        }
    for (size_t n = 0; n < text.size; n++) {
        char *torn = espl_format("%.*s", (int)n, text.data);
        assert_int_equal(espl_manifest_parse(torn, n, "here", &m), ESPL_ERR_DATA);
        free(torn);
    }
    espl_buffer_free(&text);
}

static void other_versions_are_refused(void **unused) {
    (void)unused;
    static const char text[] = "{\"format\": \"espalier checkpoint\", \"version\": 1, \"xxh3\": \"0123456789abcdef\",\n\"step\": 1}\n";
    espl_manifest *m;
    assert_int_equal(espl_manifest_parse(text, sizeof text - 1, "here", &m), ESPL_ERR_DATA);
    assert_string_equal(espl_status_message(), "here: format version 1, this program reads version 3; use the release that wrote it");
}

/* Replaces a piece of the text and gives it a header that is right, as a foreign writer might. */
static espl_status parse_changed(const char *from, const char *to) {
    espl_buffer text = printed(), changed = {0};
    char *rest = strchr(text.data, '\n') + 1, *at = strstr(rest, from);
    espl_buffer body = {0};
    espl_manifest *m;
    ESPL_ASSERT(at != NULL, "'%s' is not in the manifest", from);
    espl_buffer_printf(&body, "%.*s%s%s", (int)(at - rest), rest, to, at + strlen(from));
    espl_buffer_printf(&changed, "{\"format\": \"espalier checkpoint\", \"version\": %d, \"xxh3\": \"%016" PRIx64 "\",\n%s",
                       ESPL_MANIFEST_VERSION, (uint64_t)XXH3_64bits(body.data, body.size), body.data);
    espl_status status = espl_manifest_parse(changed.data, changed.size, "here", &m);
    espl_manifest_free(&m);
    espl_buffer_free(&text);
    espl_buffer_free(&body);
    espl_buffer_free(&changed);
    return status;
}

static void contradictions_are_named(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } rows[] = {
        {"\"step\": 1234", "\"step\": -1", "step"},
        {"\"step\": 1234", "\"step\": \"x\"", "Expected integer"},
        {"shard-00000.h5", "../../etc/x", "expected a plain name"},
        {"fedcba9876543210", "fedcba987654321", "16 hexadecimal digits"},
        {"fedcba9876543210", "fedcba987654321g", "16 hexadecimal digits"},
        {"[128, 8", "[4095, 8", "lie outside of its 4096 bytes"},
        {"[128, 8", "[128, 9223372036854775807", "lie outside of its 4096 bytes"},
        {"\"fp32\"", "\"fp33\"", "unknown dtype \"fp33\""},
        {"[5, 3]", "[5, -3]", "its shape is none"},
        {"[5, 3]", "[4611686018427387904, 3]", "its shape is none"},
        {"[5, 3]", "[1, 1, 1, 5, 3]", "5 dimensions, expected at most 4"},
        {"[5, 3]", "[5, 4]", "ranges end at 15 of 20"},
        {"[5, 3]", "[2, 3]", "within 6 elements"},
        {"[1, 8, 15", "[1, 9, 15", "expected one from 8"},
        {"[1, 8, 15", "[2, 8, 15", "file number 2 of 2"},
        {"[0, 0, 8, 512", "[0, 0, 8, 4095", "lie outside of shard-00000.h5"},
        {"[0, 0, 8, 512, 0", "[0, 0, 8, 512, 8", "checksums lie outside"},
        {"[0, 0, 8, 512, 0]", "[0, 0, 8, 512]", "range 0"},
        {"\"exp_avg\"", "\"model\", \"x\": 1", NULL},
        {"\"exp_avg\"", "\"zzz\"", "out of order or twice"},
        {"\"record\": {", "\"record\": 7, \"old\": {", "record is not of its kind"},
        {"\"record\"", "\"step\"", "duplicate object key"},
    };
    assert_int_equal(parse_changed("1234", "1235"), ESPL_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        espl_status status = parse_changed(rows[i].from, rows[i].to);
        if (status != (rows[i].message == NULL ? ESPL_OK : ESPL_ERR_DATA))
            fail_msg("%s -> %s: status %d", rows[i].from, rows[i].to, status);
        if (rows[i].message != NULL && strstr(espl_status_message(), rows[i].message) == NULL)
            fail_msg("%s -> %s: \"%s\" does not say \"%s\"", rows[i].from, rows[i].to, espl_status_message(), rows[i].message);
    }
}

/* ---- Boxes of a flat range, against a walk over every element */

static void check_boxes(int n_dims, const int64_t *shape, int64_t begin, int64_t end) {
    espl_h5_box boxes[2 * ESPL_MAX_DIMS - 1];
    int64_t n = espl_shard_boxes(n_dims, shape, begin, end, boxes), next = begin;
    assert_true(n <= 2 * n_dims - 1 || n == 1);
    for (int64_t b = 0; b < n; b++) {
        int64_t count = 1;
        assert_int_equal(boxes[b].begin, next - begin);
        for (int d = 0; d < n_dims; d++)
            count *= boxes[b].size[d];
        for (int64_t k = 0; k < count; k++, next++) { /* element k of the box, row-major, must be element `next` of the tensor */
            int64_t left = k, flat = 0, stride = 1;
            for (int d = n_dims - 1; d >= 0; d--) {
                flat += (boxes[b].at[d] + left % boxes[b].size[d]) * stride;
                left /= boxes[b].size[d];
                stride *= shape[d];
            }
            assert_int_equal(flat, next);
        }
    }
    assert_int_equal(next, end);
}

static void boxes_are_the_range(void **state) {
    (void)state;
    static const int64_t shapes[][ESPL_MAX_DIMS] = {{7}, {4, 3}, {1, 5}, {5, 1}, {3, 2, 4}, {1, 3, 1, 5}, {2, 3, 2, 3}};
    static const int dims[] = {1, 2, 2, 2, 3, 4, 4};
    for (int i = 0; i < 7; i++) {
        int64_t count = espl_manifest_count(dims[i], shapes[i]);
        for (int64_t begin = 0; begin <= count; begin++)
            for (int64_t end = begin; end <= count; end++)
                check_boxes(dims[i], shapes[i], begin, end);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(no_loss_is_null),
        cmocka_unit_test(every_altered_byte_and_every_torn_end),
        cmocka_unit_test(other_versions_are_refused),
        cmocka_unit_test(contradictions_are_named),
        cmocka_unit_test(boxes_are_the_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
