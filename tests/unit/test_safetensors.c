// test: libs=io,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/fsio.h"
#include "io/safetensors/safetensors.h"
#include "src/core/buffer.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *folder;

static char *path_of(const char *name) {
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_bytes(const char *name, const void *bytes, size_t n) {
    FILE *file = fopen(path_of(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

/* A file of this header and `data` zero bytes. */
static void write_file(const char *name, const char *json, size_t data) {
    espl_buffer text = {0};
    uint64_t length = strlen(json);
    espl_buffer_append(&text, &length, 8);
    espl_buffer_append(&text, json, length);
    for (size_t i = 0; i < data; i++)
        espl_buffer_append(&text, "", 1);
    write_bytes(name, text.data, text.size);
    espl_buffer_free(&text);
}

static const espl_tensor_file *get(const espl_safetensors *set, const char *name, espl_dtype dtype, size_t bytes) {
    const espl_tensor_file *tensor = espl_safetensors_find(set, name);
    assert_non_null(tensor);
    assert_int_equal(tensor->dtype, dtype);
    assert_int_equal(tensor->bytes, bytes);
    assert_int_equal((uintptr_t)tensor->data % espl_dtype_size(dtype), 0);
    return tensor;
}

static void golden_file_is_read(void **state) {
    (void)state;
    espl_safetensors *set;
    assert_int_equal(espl_safetensors_open(ESPL_SOURCE_DIR "/tests/goldens/safetensors_tiny.safetensors", &set), ESPL_OK);
    assert_int_equal(espl_safetensors_count(set), 9);
    const espl_tensor_file *f32 = get(set, "f32", ESPL_F32, 24);
    assert_true(f32->n_dims == 2 && f32->shape[0] == 2 && f32->shape[1] == 3);
    for (int i = 0; i < 6; i++)
        assert_true(((const float *)f32->data)[i] == (float)i / 4 - 0.5f);
    const double *f64 = get(set, "f64", ESPL_F64, 16)->data;
    assert_true(f64[0] == 1.0 / 3.0 && f64[1] == -2.5);
    const uint16_t *f16 = get(set, "f16", ESPL_F16, 6)->data, *bf16 = get(set, "bf16", ESPL_BF16, 4)->data;
    assert_true(f16[0] == 0x3E00 && f16[2] == 0x7BFF && bf16[0] == 0x3FC0 && bf16[1] == 0xC040);
    const int64_t *i64 = get(set, "i64", ESPL_I64, 16)->data;
    assert_true(i64[0] == -1 && i64[1] == INT64_C(1) << 40);
    assert_int_equal(((const int32_t *)get(set, "i32", ESPL_I32, 12)->data)[2], 1 << 30);
    assert_int_equal(((const uint8_t *)get(set, "u8", ESPL_U8, 3)->data)[2], 255);
    const espl_tensor_file *scalar = get(set, "scalar", ESPL_F32, 4);
    assert_true(scalar->n_dims == 0 && *(const float *)scalar->data == 42.0f);
    assert_int_equal(get(set, "empty", ESPL_F32, 0)->shape[1], 4);
    for (int64_t i = 1; i < espl_safetensors_count(set); i++)
        assert_true(strcmp(espl_safetensors_at(set, i - 1)->name, espl_safetensors_at(set, i)->name) < 0);
    espl_safetensors_close(&set);
    assert_null(set);
}

static void unread_forms_are_named_when_required(void **state) {
    (void)state;
    static const struct {
        const char *name, *says;
    } cases[] = {{"flags", "'flags' has dtype BOOL"},
                 {"f8", "'f8' has dtype F8_E4M3"},
                 {"five", "'five' has 5 dimensions"},
                 {"absent", "'absent' is missing"}};
    espl_safetensors *set;
    const espl_tensor_file *tensor;
    assert_int_equal(espl_safetensors_open(ESPL_SOURCE_DIR "/tests/goldens/safetensors_tiny.safetensors", &set), ESPL_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_null(espl_safetensors_find(set, cases[i].name));
        assert_int_equal(espl_safetensors_require(set, cases[i].name, &tensor), ESPL_ERR_DATA);
        assert_non_null(strstr(espl_status_message(), cases[i].says));
    }
    assert_int_equal(espl_safetensors_require(set, "i32", &tensor), ESPL_OK);
    assert_string_equal(tensor->name, "i32");
    espl_safetensors_close(&set);
}

#define TENSOR(dtype, shape, begin, end) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void expect_refusal(const char *name, const char *says) {
    espl_safetensors *set;
    assert_int_equal(espl_safetensors_open(path_of(name), &set), ESPL_ERR_DATA);
    assert_null(set);
    if (strstr(espl_status_message(), says) == NULL)
        fail_msg("expected '%s' in: %s", says, espl_status_message());
    assert_non_null(strstr(espl_status_message(), name)); /* the file is named */
}

static void bad_headers_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *json;
        size_t data;
        const char *says;
    } cases[] = {
        {"{\"a\":" TENSOR("F32", "[2]", 0, 8), 8, "no JSON object"},
        {"[1]", 0, "no JSON object"},
        {"{\"a\":" TENSOR("F32", "[2]", 0, 8) ",\"a\":" TENSOR("F32", "[2]", 8, 16) "}", 16, "duplicate"},
        {"{\"a\":" TENSOR("F32", "[2]", 0, 8) "}", 7, "truncated: tensor 'a' ends at byte 8"},
        {"{\"a\":" TENSOR("F32", "[2]", 0, 8) "}", 9, "1 bytes follow"},
        {"{\"a\":" TENSOR("F32", "[3]", 0, 8) "}", 8, "3 elements of F32 do not make its 8 bytes"},
        {"{\"a\":" TENSOR("F32", "[4294967296,4294967296]", 0, 0) "}", 0, "product is too big"},
        {"{\"a\":" TENSOR("F32", "[4611686018427387904]", 0, 0) "}", 0, "do not make its 0 bytes"},
        {"{\"a\":" TENSOR("F32", "[-2]", 0, 8) "}", 8, "is no size"},
        {"{\"a\":" TENSOR("F32", "[2.5]", 0, 8) "}", 8, "is no size"},
        {"{\"a\":" TENSOR("F32", "2", 0, 8) "}", 8, "must be a list"},
        {"{\"a\":" TENSOR("F32", "[2]", 8, 0) "}", 8, "are no range"},
        {"{\"a\":" TENSOR("F32", "[2]", -8, 0) "}", 8, "are no range"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "must be two integers"},
        {"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "must be a string"},
        {"{\"a\":3}", 8, "must be a string"},
        {"{\"a\":" TENSOR("F32", "[2]", 0, 8) ",\"b\":" TENSOR("F32", "[2]", 4, 12) "}", 12, "they overlap"},
        {"{\"a\":" TENSOR("F32", "[2]", 0, 8) ",\"b\":" TENSOR("F32", "[2]", 0, 8) "}", 8, "they overlap"},
        {"{\"a\":" TENSOR("F32", "[2]", 0, 8) ",\"b\":" TENSOR("F32", "[2]", 12, 20) "}", 20, "there is a hole"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_file("bad.safetensors", cases[i].json, cases[i].data);
        expect_refusal("bad.safetensors", cases[i].says);
    }
}

static void bad_lengths_are_refused(void **state) {
    (void)state;
    const uint64_t huge[2] = {UINT64_MAX, 0}, long_header[2] = {100, 0};
    write_bytes("bad.safetensors", "", 0);
    expect_refusal("bad.safetensors", "empty");
    write_bytes("bad.safetensors", "\2\0\0", 3);
    expect_refusal("bad.safetensors", "too few");
    write_bytes("bad.safetensors", huge, sizeof huge);
    expect_refusal("bad.safetensors", "not a safetensors file");
    write_bytes("bad.safetensors", long_header, sizeof long_header);
    expect_refusal("bad.safetensors", "truncated: the header has 100 bytes");
    espl_safetensors *set;
    assert_int_equal(espl_safetensors_open(path_of("nowhere.safetensors"), &set), ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), "nowhere.safetensors"));
}

/* Old writers did not fill the header up, so data may start anywhere. */
static void unaligned_data_is_copied(void **state) {
    (void)state;
    espl_safetensors *set;
    write_file("odd.safetensors", "{\"a\":" TENSOR("U8", "[1]", 0, 1) ",\"b\":" TENSOR("F64", "[2]", 1, 17) "}", 17);
    assert_int_equal(espl_safetensors_open(path_of("odd.safetensors"), &set), ESPL_OK);
    const double *b = get(set, "b", ESPL_F64, 16)->data;
    assert_true(b[0] == 0 && b[1] == 0);
    espl_safetensors_close(&set);
}

/* What the round trips write: element k of tensor i is 100 i + k (mod 251 for u8); also read by tests/reference/safetensors_roundtrip.py.
 */
enum { N_OUT = 6 };
static double storage[N_OUT][64];
static espl_tensor_out out[N_OUT] = {
    {.name = "model.embed.weight", .dtype = ESPL_F32, .n_dims = 2, .shape = {5, 3}},
    {.name = "model.mask", .dtype = ESPL_U8, .n_dims = 1, .shape = {7}},
    {.name = "model.norm.weight", .dtype = ESPL_BF16, .n_dims = 1, .shape = {8}},
    {.name = "model.steps", .dtype = ESPL_I64, .n_dims = 0},
    {.name = "model.scale", .dtype = ESPL_F64, .n_dims = 1, .shape = {3}},
    {.name = "\xc3\xa9 \"quoted\"", .dtype = ESPL_F16, .n_dims = 3, .shape = {1, 2, 2}},
};

static int64_t elements(const espl_tensor_out *tensor) {
    int64_t n = 1;
    for (int i = 0; i < tensor->n_dims; i++)
        n *= tensor->shape[i];
    return n;
}

static void fill_out(void) {
    for (int i = 0; i < N_OUT; i++) {
        float values[64];
        for (int k = 0; k < 64; k++)
            values[k] = (float)(100 * i + k);
        const int64_t whole = 100 * i;
        out[i].data = storage[i];
        if (out[i].dtype == ESPL_U8)
            for (int k = 0; k < 64; k++)
                ((uint8_t *)storage[i])[k] = (uint8_t)((100 * i + k) % 251);
        else if (out[i].dtype == ESPL_I64)
            memcpy(storage[i], &whole, sizeof whole);
        else
            espl_dtype_convert(storage[i], out[i].dtype, values, ESPL_F32, (size_t)elements(&out[i]));
    }
}

static void expect_out(const char *path) {
    espl_safetensors *set;
    assert_int_equal(espl_safetensors_open(path, &set), ESPL_OK);
    assert_int_equal(espl_safetensors_count(set), N_OUT);
    for (int i = 0; i < N_OUT; i++) {
        size_t bytes = (size_t)elements(&out[i]) * espl_dtype_size(out[i].dtype);
        const espl_tensor_file *found = get(set, out[i].name, out[i].dtype, bytes);
        assert_int_equal(found->n_dims, out[i].n_dims);
        assert_memory_equal(found->shape, out[i].shape, (size_t)out[i].n_dims * sizeof *out[i].shape);
        assert_memory_equal(found->data, out[i].data, bytes);
    }
    espl_safetensors_close(&set);
}

static void what_is_written_is_read(void **state) {
    (void)state;
    assert_false(espl_safetensors_exist(folder));
    assert_int_equal(espl_safetensors_write(folder, out, N_OUT, 0), ESPL_OK);
    assert_true(espl_safetensors_exist(folder));
    expect_out(folder);
    assert_int_equal(espl_safetensors_write_file(path_of("adapter_model.safetensors"), out, N_OUT), ESPL_OK);
    expect_out(path_of("adapter_model.safetensors"));
    assert_int_not_equal(access(path_of("model.safetensors.tmp"), F_OK), 0);
}

/* 60, 7, 16, 8, 24, 8 bytes in shards of at most 40: 60 | 7 16 8 | 24 8. */
static void shards_are_written_and_read(void **state) {
    (void)state;
    assert_int_equal(espl_safetensors_write(folder, out, N_OUT, 40), ESPL_OK);
    assert_int_equal(access(path_of("model-00003-of-00003.safetensors"), F_OK), 0);
    assert_int_not_equal(access(path_of("model.safetensors"), F_OK), 0);
    expect_out(folder);
    unlink(path_of("model-00002-of-00003.safetensors"));
    espl_safetensors *set;
    assert_int_equal(espl_safetensors_open(folder, &set), ESPL_ERR_DATA);
    assert_non_null(strstr(espl_status_message(), "model-00002-of-00003.safetensors"));
    assert_non_null(strstr(espl_status_message(), "missing"));
    assert_int_equal(espl_safetensors_write(folder, out, N_OUT, 1000), ESPL_OK);
    assert_int_not_equal(access(path_of("model.safetensors.index.json"), F_OK), 0);
    expect_out(folder);
    unlink(path_of("model.safetensors"));
}

static void bad_indexes_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"{", "model.safetensors.index.json:1"},
        {"{}", "'weight_map' must be an object"},
        {"{\"weight_map\":{\"a\":3}}", "no plain file name"},
        {"{\"weight_map\":{\"a\":\"../other.safetensors\"}}", "no plain file name"},
        {"{\"weight_map\":{\"a\":\"odd.safetensors\",\"c\":\"odd.safetensors\"}}", "tensor 'c' in 'odd.safetensors'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        espl_safetensors *set;
        write_bytes("model.safetensors.index.json", cases[i].json, strlen(cases[i].json));
        assert_int_equal(espl_safetensors_open(folder, &set), ESPL_ERR_DATA);
        if (strstr(espl_status_message(), cases[i].says) == NULL)
            fail_msg("expected '%s' in: %s", cases[i].says, espl_status_message());
    }
    unlink(path_of("model.safetensors.index.json"));
    espl_safetensors *set;
    assert_int_equal(espl_safetensors_open(folder, &set), ESPL_ERR_DATA);
    assert_non_null(strstr(espl_status_message(), "a model folder needs one"));
}

static void failed_writes_leave_nothing(void **state) {
    (void)state;
    espl_tensor_out twice[2] = {out[0], out[0]}, binary = out[0];
    binary.name = "\xff";
    assert_int_equal(espl_safetensors_write(folder, twice, 2, 0), ESPL_ERR_DATA);
    assert_non_null(strstr(espl_status_message(), "written twice"));
    assert_int_equal(espl_safetensors_write(folder, &binary, 1, 0), ESPL_ERR_DATA);
    assert_int_equal(espl_safetensors_write("/nonexistent", out, 1, 0), ESPL_ERR_IO);
    assert_false(espl_safetensors_exist(folder));
}

/* The n-th writing call fails as on a full or broken disk. */
static int calls_left;

static bool fails(void) {
    errno = ENOSPC;
    return calls_left-- == 0;
}

static ssize_t failing_pwrite(int fd, const void *from, size_t n, off_t offset) { return fails() ? -1 : pwrite(fd, from, n, offset); }
static int failing_fsync(int fd) { return fails() ? -1 : fsync(fd); }
static int failing_rename(const char *from, const char *to) { return fails() ? -1 : rename(from, to); }

/* Whatever call fails: the old weights or the new ones are there, whole, and no temporary file. */
static void a_failing_disk_never_harms_old_weights(void **state) {
    (void)state;
    espl_fs_table table = *espl_fs_set_table(NULL);
    table.pwrite = failing_pwrite;
    table.fsync = failing_fsync;
    table.rename = failing_rename;
    float before[3] = {1, 2, 3}, after[3] = {4, 5, 6};
    espl_tensor_out tensor = {.name = "w", .dtype = ESPL_F32, .n_dims = 1, .shape = {3}, .data = before};
    assert_int_equal(espl_safetensors_write(folder, &tensor, 1, 0), ESPL_OK);
    tensor.data = after;
    espl_status status = ESPL_ERR_IO;
    int failures = 0;
    for (int n = 0; status != ESPL_OK; n++) {
        calls_left = n;
        espl_fs_set_table(&table);
        status = espl_safetensors_write(folder, &tensor, 1, 0);
        espl_fs_set_table(NULL);
        espl_safetensors *set;
        assert_int_equal(espl_safetensors_open(folder, &set), ESPL_OK);
        const float *w = get(set, "w", ESPL_F32, sizeof after)->data;
        assert_true(memcmp(w, after, sizeof after) == 0 || (status != ESPL_OK && memcmp(w, before, sizeof before) == 0));
        assert_int_not_equal(access(path_of("model.safetensors.tmp"), F_OK), 0);
        espl_safetensors_close(&set);
        failures += status == ESPL_ERR_IO;
    }
    assert_in_range(failures, 4, 10); /* header, data, fsync, rename at least */
    unlink(path_of("model.safetensors"));
}

static int make_folder(void **state) {
    (void)state;
    folder = make_scratch();
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    remove_scratch(folder);
    return 0;
}

int main(int argc, char **argv) {
    fill_out();
    if (argc == 3) /* for tests/reference/safetensors_roundtrip.py */
        return espl_safetensors_write(argv[1], out, N_OUT, 40) || espl_safetensors_write_file(argv[2], out, N_OUT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_file_is_read),         cmocka_unit_test(unread_forms_are_named_when_required),
        cmocka_unit_test(bad_headers_are_refused),     cmocka_unit_test(bad_lengths_are_refused),
        cmocka_unit_test(unaligned_data_is_copied),    cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(shards_are_written_and_read), cmocka_unit_test(bad_indexes_are_refused),
        cmocka_unit_test(failed_writes_leave_nothing), cmocka_unit_test(a_failing_disk_never_harms_old_weights),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
