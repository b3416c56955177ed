// test: libs=kernels,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/backend.h"
#include "tests/unit/scratch.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *folder;

static int make_folder(void **state) {
    (void)state;
    folder = make_scratch();
    return setenv("ESPL_BACKEND_DIR", folder, 1);
}

static const char *in_folder(const char *name) {
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int remove_folder(void **state) {
    (void)state;
    remove_scratch(folder);
    return 0;
}

static void expect_failure(const char *name, const char *part) {
    const espl_backend *backend;
    assert_int_equal(espl_backend_open(name, &backend), ESPL_ERR_USAGE);
    if (strstr(espl_status_message(), part) == NULL)
        fail_msg("'%s' is not in: %s", part, espl_status_message());
    espl_status_clear();
}

static void names_are_checked(void **state) {
    (void)state;
    expect_failure("tpu", "there is no backend 'tpu'");
}

static void a_missing_library_is_told(void **state) {
    (void)state;
    char *looked = espl_format("libespalier_cuda.so is in none of %s, ", folder);
    expect_failure("cuda", looked);
    free(looked);
    expect_failure("cuda", "/../lib/espalier");
    expect_failure("cuda", "set run.device: cpu");
}

static void a_broken_library_is_told(void **state) {
    (void)state;
    FILE *file = fopen(in_folder("libespalier_cuda.so"), "w");
    assert_non_null(file);
    fputs("this is no library, however long it is: a header would begin with other letters\n", file);
    fclose(file);
    expect_failure("cuda", "libespalier_cuda.so does not load: ");
    expect_failure("cuda", "invalid ELF header"); /* the loader's words */
}

/* Any library that is none of ours. */
static void another_library_is_told(void **state) {
    (void)state;
    Dl_info info;
    assert_true(dladdr(dlsym(RTLD_DEFAULT, "fopen"), &info) != 0);
    assert_int_equal(symlink(info.dli_fname, in_folder("libespalier_cuda.so")), 0);
    expect_failure("cuda", "is of another version of Espalier");
}

static int no_library(void **state) {
    (void)state;
    unlink(in_folder("libespalier_cuda.so"));
    return 0;
}

static void the_host_is_a_device(void **state) {
    (void)state;
    const espl_backend *backend;
    espl_device *device;
    espl_device_info info;
    int n = 0;
    assert_int_equal(espl_backend_open("cpu", &backend), ESPL_OK);
    const espl_device_calls *calls = backend->device;
    assert_true(calls->version == ESPL_DEVICE_VERSION && !calls->remote && strcmp(calls->kind, "cpu") == 0);
    assert_true(backend->fp32->real == ESPL_F32 && backend->bf16->real == ESPL_BF16 && backend->bulk == NULL);
    assert_true(calls->count(&n) == ESPL_OK && n == 1);
    assert_int_equal(calls->open(0, &device), ESPL_OK);
    calls->info(device, &info);
    assert_true(info.n_devices == 1 && info.name[0] != '\0' && info.libraries[0] != '\0' && info.bytes_free <= info.bytes_total);
    assert_true(calls->record == NULL && calls->recorded == NULL && calls->replay == NULL);
    assert_true(calls->reserve(device, (const espl_capacity[ESPL_N_STREAMS]){{64, 4, 0}}) == ESPL_OK &&
                calls->begin(device, &(espl_batch){0}) == ESPL_OK);
    assert_true(calls->mark(device, 3) == ESPL_OK && calls->sync(device) == ESPL_OK);
    calls->after(device, 3);
    calls->close(&device);
    assert_null(device);
}

static void the_host_has_memory(void **state) {
    (void)state;
    const espl_device_calls *calls = espl_device_host();
    enum { BYTES = 5000 };
    espl_device *device;
    char *memory, back[BYTES], text[BYTES];
    assert_int_equal(calls->open(0, &device), ESPL_OK);
    assert_int_equal(calls->alloc(device, "test", BYTES, (void **)&memory), ESPL_OK);
    assert_int_equal((uintptr_t)memory % 256, 0);
    for (int i = 0; i < BYTES; i++)
        assert_true(memory[i] == 0);
    memset(text, 'x', BYTES);
    assert_true(calls->write(device, memory, text, BYTES) == ESPL_OK && calls->read(device, back, memory, BYTES) == ESPL_OK);
    assert_memory_equal(back, text, BYTES);
    calls->release(device, memory, BYTES);
    assert_int_equal(calls->alloc(device, "vast", (size_t)1 << 60, (void **)&memory), ESPL_ERR_USAGE);
    assert_non_null(strstr(espl_status_message(), "arena vast: the system refused"));
    calls->close(&device);
}

/* The same numbers with and without a GPU: nothing but the name, the format and the work is there. */
static void plans_need_no_library(void **state) {
    (void)state;
    const espl_kernels *bf16 = espl_backend_planned("cuda", ESPL_BF16), *fp32 = espl_backend_planned("emu", ESPL_F32);
    assert_true(bf16->real == ESPL_BF16 && fp32->real == ESPL_F32 && bf16->forward[0] == NULL);
    assert_ptr_equal(espl_backend_planned("cpu", ESPL_F32), espl_kernels_cpu(ESPL_F32));
    assert_null(espl_backend_planned("cuda", ESPL_F64));
    espl_attrs attrs = {.n_in = 64, .n_out = 64, .vocab = 128, .heads = 4, .kv_heads = 4, .head_dim = 16, .positions = 32};
    for (int op = 0; op < ESPL_N_OPS; op++)
        for (int backward = 0; backward < (espl_ops[op].flags & ESPL_OP_FORWARD ? 1 : 2); backward++)
            assert_int_equal(bf16->work_bytes((espl_op)op, &attrs, 256, 1, backward) % 256, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test_teardown(a_missing_library_is_told, no_library),
        cmocka_unit_test_teardown(a_broken_library_is_told, no_library),
        cmocka_unit_test_teardown(another_library_is_told, no_library),
        cmocka_unit_test(the_host_is_a_device),
        cmocka_unit_test(the_host_has_memory),
        cmocka_unit_test(plans_need_no_library),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
