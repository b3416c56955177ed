// test: libs=train,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/fsio.h"
#include "src/core/buffer.h"
#include "src/core/log.h"
#include "src/train/log/energy.h"
#include "src/train/log/metrics.h"
#include "src/train/log/metrics_lines.h"
#include "src/train/log/runinfo.h"
#include "src/train/log/tensorboard.h"
#include "tests/unit/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- A folder of its own for each test. */

static int make_folder(void **state) {
    *state = make_scratch();
    return 0;
}

static int remove_folder(void **state) {
    remove_scratch(*state);
    return 0;
}

static char *read_all(const char *folder, const char *name, size_t *size) {
    char *path = espl_format("%s/%s", folder, name), chunk[4096];
    espl_buffer text = {0};
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, file)) > 0;)
        espl_buffer_append(&text, chunk, n);
    fclose(file);
    free(path);
    *size = text.size;
    return text.data;
}

static void append_text(const char *folder, const char *name, const char *text) {
    char *path = espl_format("%s/%s", folder, name);
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    free(path);
}

/* ---- A run of made-up numbers. */

static const espl_config config = {.log_every = 1, .log_progress = ESPL_PROGRESS_NONE, .log_tensorboard = true};

static espl_metrics *open_run(const char *folder, const espl_config *how, int64_t resume_step) {
    espl_metrics *metrics;
    json_t *about = espl_runinfo_make(&(espl_library){"HDF5", "1.2.3"}, 1);
    espl_metrics_start start = {.resume_step = resume_step,
                                .total_steps = 10,
                                .tokens = 100 * resume_step,
                                .flops_per_token = 1e6,
                                .peak_flops = 1e9,
                                .planned_bytes = 12345,
                                .n_nodes = 2,
                                .about = about};
    assert_int_equal(espl_metrics_open(&metrics, how, folder, &start), ESPL_OK);
    json_decref(about);
    return metrics;
}

static void report(espl_metrics *metrics, int64_t step) {
    espl_step_report row = {.step = step,
                            .epoch = 0.1 * (double)step,
                            .loss = step == 4 ? NAN : 1.0 / (double)step,
                            .lr = 1e-5,
                            .grad_norm = 2.5,
                            .tokens = 100,
                            .step_seconds = 0.25 * (double)step,
                            .skipped = step == 4};
    espl_metrics_step(metrics, &row);
}

static void run_steps(const char *folder, const espl_config *how, int64_t resume_step, int64_t last) {
    espl_metrics *metrics = open_run(folder, how, resume_step);
    for (int64_t step = resume_step + 1; step <= last; step++) {
        report(metrics, step);
        if (step == 5) {
            espl_eval_report eval = {.step = step, .loss = 2.0, .tokens = 300, .bytes = 1000, .seconds = 0.5};
            espl_metrics_eval(metrics, &eval);
        }
    }
    espl_metrics_summary(metrics, "done");
    espl_metrics_close(&metrics);
    assert_null(metrics);
}

/* All lines of metrics.jsonl as a list; every line is checked to be one object. */
static json_t *read_lines(const char *folder) {
    size_t size, at = 0;
    char *text = read_all(folder, "metrics.jsonl", &size);
    json_t *list = json_array();
    while (at < size) {
        char *end = memchr(text + at, '\n', size - at);
        assert_non_null(end);
        json_t *line = json_loadb(text + at, (size_t)(end - text) - at, 0, NULL);
        assert_true(json_is_object(line));
        json_array_append_new(list, line);
        at = (size_t)(end - text) + 1;
    }
    free(text);
    return list;
}

static double value(json_t *line, const char *key) { return json_number_value(json_object_get(line, key)); }

static bool is_event(json_t *line, const char *event) { return strcmp(json_string_value(json_object_get(line, "event")), event) == 0; }

static json_t *find(json_t *lines, const char *event, int64_t step) {
    json_t *line, *found = NULL;
    size_t i;
    json_array_foreach(lines, i, line) if (is_event(line, event) && json_integer_value(json_object_get(line, "step")) == step) {
        assert_null(found); /* once */
        found = line;
    }
    return found;
}

/* ---- metrics.jsonl */

static void lines_hold_the_numbers(void **state) {
    run_steps(*state, &config, 0, 10);
    json_t *lines = read_lines(*state), *line;
    line = find(lines, "step", 3);
    assert_true(value(line, "loss") == 1.0 / 3.0); /* the same bits */
    assert_true(value(line, "tokens") == 300 && value(line, "skipped_steps") == 0);
    assert_true(value(line, "tokens_per_second") == 100 / 0.75);
    assert_true(fabs(value(line, "mfu") - 100 / 0.75 * 1e6 / 1e9) < 1e-15);
    assert_true(value(line, "rss_bytes") > 1e6 && value(line, "planned_bytes") == 12345);
    line = find(lines, "step", 4);
    assert_true(json_is_null(json_object_get(line, "loss")) && value(line, "skipped_steps") == 1);
    line = find(lines, "eval", 5);
    assert_true(value(line, "perplexity") == exp(2.0));
    assert_true(fabs(value(line, "bits_per_byte") - 2.0 * 300 / 1000 / log(2.0)) < 1e-15);
    line = find(lines, "start", 0);
    assert_non_null(json_object_get(json_object_get(line, "about"), "host"));
    line = find(lines, "summary", 10);
    assert_true(value(line, "steps") == 10 && value(line, "tokens") == 1000 && value(line, "node_hours") > 0);
    json_decref(lines);
}

static void seconds_are_means_between_lines(void **state) {
    espl_config every = config;
    every.log_every = 4;
    run_steps(*state, &every, 0, 10);
    json_t *lines = read_lines(*state), *line;
    size_t i, steps = 0;
    json_array_foreach(lines, i, line) steps += is_event(line, "step");
    assert_int_equal(steps, 3); /* 4, 8 and the last */
    assert_true(value(find(lines, "step", 8), "step_seconds") == 0.25 * (5 + 6 + 7 + 8) / 4);
    assert_true(value(find(lines, "step", 10), "tokens_per_second") == 200 / (0.25 * (9 + 10)));
    json_decref(lines);
}

static void a_resumed_run_has_each_step_once(void **state) {
    run_steps(*state, &config, 0, 8);
    append_text(*state, "metrics.jsonl", "{\"event\": \"step\", \"step\": 2, \"lo"); /* torn by a crash */
    run_steps(*state, &config, 6, 10);
    json_t *lines = read_lines(*state);
    for (int64_t step = 1; step <= 10; step++)
        assert_non_null(find(lines, "step", step));
    assert_non_null(find(lines, "eval", 5));
    assert_non_null(find(lines, "start", 0));
    assert_non_null(find(lines, "start", 6));
    assert_null(find(lines, "summary", 8)); /* of steps that were lost */
    assert_true(value(find(lines, "step", 10), "tokens") == 1000);
    json_decref(lines);
}

static void a_new_run_starts_an_empty_file(void **state) {
    run_steps(*state, &config, 0, 8);
    run_steps(*state, &config, 0, 2);
    json_t *lines = read_lines(*state);
    assert_int_equal(json_array_size(lines), 4); /* start, two steps, summary */
    json_decref(lines);
}

static void other_ranks_do_nothing(void **state) {
    (void)state;
    espl_metrics_step(NULL, &(espl_step_report){0});
    espl_metrics_eval(NULL, &(espl_eval_report){0});
    espl_metrics_summary(NULL, "done");
    espl_metrics_note(NULL, "evaluating");
    espl_metrics_close(&(espl_metrics *){NULL});
}

static void a_missing_folder_is_an_io_error(void **state) {
    (void)state;
    espl_metrics *metrics;
    espl_metrics_start start = {.total_steps = 1};
    assert_int_equal(espl_metrics_open(&metrics, &config, "/nonexistent/run", &start), ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), "/nonexistent/run/metrics.jsonl"));
    assert_null(metrics);
}

static const espl_fs_table *libc_calls;
static bool disk_is_full;

static ssize_t write_unless_full(int fd, const void *from, size_t n, off_t offset) {
    if (!disk_is_full)
        return libc_calls->pwrite(fd, from, n, offset);
    errno = ENOSPC;
    return n > 8 ? libc_calls->pwrite(fd, from, 8, offset) : -1; /* a torn line, then the error */
}

/* Lines of the time in between are missing, none is torn, and nobody has to know. */
static void a_full_disk_loses_lines_and_nothing_else(void **state) {
    libc_calls = espl_fs_set_table(NULL);
    espl_fs_table table = *libc_calls;
    table.pwrite = write_unless_full;
    espl_fs_set_table(&table);
    espl_metrics *metrics = open_run(*state, &config, 0);
    for (int64_t step = 1; step <= 12; step++) {
        disk_is_full = step == 4 || step == 6;
        report(metrics, step);
    }
    espl_metrics_summary(metrics, "done");
    espl_metrics_close(&metrics);
    espl_fs_set_table(NULL);
    json_t *lines = read_lines(*state);
    for (int64_t step = 1; step <= 12; step++)
        assert_true((find(lines, "step", step) == NULL) == (step == 4 || step == 6));
    assert_non_null(find(lines, "summary", 12));
    json_decref(lines);
}

/* Whatever bits a value has, its text reads back to them. */
static void numbers_read_back_to_the_same_bits(void **state) {
    static espl__lines lines;
    const espl__metric column = {.name = "x"};
    char *path = espl_format("%s/metrics.jsonl", (char *)*state);
    assert_int_equal(espl__lines_open(&lines, path, 0), ESPL_OK);
    double values[200];
    for (int i = 0; i < 200; i++) {
        values[i] = ldexp((double)rand() / 3.0, rand() % 1000 - 500) * (i % 2 ? 1 : -1);
        assert_int_equal(espl__lines_write(&lines, "step", i, &column, &values[i], 1), ESPL_OK);
    }
    espl__lines_close(&lines);
    json_t *list = read_lines(*state);
    for (int i = 0; i < 200; i++) {
        double read = value(json_array_get(list, (size_t)i), "x");
        assert_memory_equal(&read, &values[i], sizeof read);
    }
    json_decref(list);
    free(path);
}

/* ---- TensorBoard records */

/* CRC-32C known answers: RFC 3720, appendix B.4 (unmasked there). */
static uint32_t unmask(uint32_t masked) {
    uint32_t rotated = masked - 0xA282EAD8u;
    return rotated >> 17 | rotated << 15;
}

static void crc_has_known_answers(void **state) {
    (void)state;
    uint8_t bytes[32];
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(unmask(espl_tensorboard_masked_crc(bytes, 32)), 0x8A9136AAu);
    memset(bytes, 0xFF, sizeof bytes);
    assert_int_equal(unmask(espl_tensorboard_masked_crc(bytes, 32)), 0x62A8AB43u);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(unmask(espl_tensorboard_masked_crc(bytes, 32)), 0x46DD794Eu);
    assert_int_equal(unmask(espl_tensorboard_masked_crc("123456789", 9)), 0xE3069283u);
}

static char *only_events_file(const char *folder) {
    DIR *entries = opendir(folder);
    char *name = NULL;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strncmp(entry->d_name, "events.out.tfevents.", 20) == 0) {
            assert_null(name);
            name = espl_strdup(entry->d_name);
        }
    closedir(entries);
    assert_non_null(name);
    return name;
}

/* Number of whole records, or -1 when a length, a checksum or the end is wrong. */
static int count_records(const uint8_t *bytes, size_t size) {
    int records = 0;
    for (size_t at = 0; at < size; records++) {
        uint64_t n;
        uint32_t head_crc, crc;
        if (size - at < 16)
            return -1;
        memcpy(&n, bytes + at, 8);
        memcpy(&head_crc, bytes + at + 8, 4);
        if (head_crc != espl_tensorboard_masked_crc(bytes + at, 8) || n > size - at - 16)
            return -1;
        memcpy(&crc, bytes + at + 12 + n, 4);
        if (crc != espl_tensorboard_masked_crc(bytes + at + 12, n))
            return -1;
        at += 16 + n;
    }
    return records;
}

static void events_are_framed_records(void **state) {
    run_steps(*state, &config, 0, 10);
    size_t size;
    char *name = only_events_file(*state), *bytes = read_all(*state, name, &size);
    assert_int_equal(count_records((uint8_t *)bytes, size), 2 + 10 + 1); /* version and start, steps, evaluation */
    assert_memory_equal(bytes + 12 + 9 + 2,
                        "\x1a\x0d"
                        "brain.Event:2",
                        15); /* wall time, step, then field 3 */
    bytes[size / 2] ^= 1;    /* negative control */
    assert_int_equal(count_records((uint8_t *)bytes, size), -1);
    free(bytes);
    free(name);
}

/* ---- Energy and facts */

static void write_counter(const char *folder, int package, const char *file, const char *text) {
    char *path = espl_format("%s/intel-rapl:%d", folder, package);
    mkdir(path, 0777);
    char *name = espl_format("intel-rapl:%d/%s", package, file), *whole = espl_format("%s/%s", folder, name);
    remove(whole);
    append_text(folder, name, text);
    free(whole);
    free(name);
    free(path);
}

static void rewrite_counter(const char *folder, int package, const char *text) {
    char *path = espl_format("%s/intel-rapl:%d/energy_uj", folder, package);
    FILE *file = fopen(path, "r+"); /* the same file: it is held open */
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    free(path);
}

static void energy_counts_through_a_wrap(void **state) {
    espl__energy energy;
    for (int package = 0; package < 2; package++) {
        write_counter(*state, package, "max_energy_range_uj", "10000000\n");
        write_counter(*state, package, "energy_uj", "9000000\n");
    }
    espl__energy_open(&energy, *state);
    assert_int_equal(energy.n, 2);
    rewrite_counter(*state, 0, "9500000\n");
    rewrite_counter(*state, 1, "2000000\n"); /* wrapped */
    espl__energy_sample(&energy);
    assert_true(fabs(energy.joules - (0.5 + 3.0)) < 1e-9);
    espl__energy_close(&energy);
}

static void energy_says_why_it_is_absent(void **state) {
    espl__energy energy;
    espl__energy_open(&energy, *state);
    assert_int_equal(energy.n, 0);
    assert_non_null(strstr(energy.reason, "no RAPL counters"));
    espl__energy_close(&energy);
}

static void facts_are_plausible(void **state) {
    (void)state;
    setenv("SLURM_JOB_ID", "4711", 1);
    setenv("SLURM_JOB_NUM_NODES", "2", 1);
    json_t *about = espl_runinfo_make((espl_library[]){{"HDF5", "1.10.8"}, {"MPI", "Open MPI 4.1.4"}}, 2);
    json_t *job = json_object_get(about, "job"), *libraries = json_object_get(about, "libraries");
    assert_string_equal(json_string_value(json_object_get(job, "system")), "slurm");
    assert_string_equal(json_string_value(json_object_get(job, "SLURM_JOB_ID")), "4711");
    assert_string_equal(json_string_value(json_object_get(libraries, "MPI")), "Open MPI 4.1.4");
    assert_true(value(about, "cores") >= 1 && value(about, "memory_bytes") > 1e8);
    json_decref(about);
    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_JOB_NUM_NODES");
}

static void memory_is_seen(void **state) {
    (void)state;
    size_t before = espl_runinfo_rss(), n = (size_t)64 << 20;
    char *block = espl_malloc(n);
    memset(block, 1, n);
    assert_true(espl_runinfo_rss() >= before + n / 2);
    assert_int_equal(block[n - 1], 1);
    free(block);
    assert_true(espl_runinfo_peak_rss() >= before + n / 2);
}

int main(void) {
    espl_log_set(0, ESPL_LOG_WARN, NULL);
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(lines_hold_the_numbers),
        IN_FOLDER(seconds_are_means_between_lines),
        IN_FOLDER(a_resumed_run_has_each_step_once),
        IN_FOLDER(a_new_run_starts_an_empty_file),
        cmocka_unit_test(other_ranks_do_nothing),
        cmocka_unit_test(a_missing_folder_is_an_io_error),
        IN_FOLDER(a_full_disk_loses_lines_and_nothing_else),
        IN_FOLDER(numbers_read_back_to_the_same_bits),
        cmocka_unit_test(crc_has_known_answers),
        IN_FOLDER(events_are_framed_records),
        IN_FOLDER(energy_counts_through_a_wrap),
        IN_FOLDER(energy_says_why_it_is_absent),
        cmocka_unit_test(facts_are_plausible),
        cmocka_unit_test(memory_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
