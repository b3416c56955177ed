// test: libs=config,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/config/config.h"
#include "src/config/nearest.h"
#include "src/core/rng.h"
#include "tests/unit/scratch.h"

#include <float.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *printed(const espl_config *config) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    espl_config_print(config, out);
    fclose(out);
    return text;
}

/* Reads text into a config of defaults; the caller frees it. */
static espl_status read_text(espl_config *config, const char *text) {
    espl_config_make(config);
    return espl_config_read_text(config, text, strlen(text), "c.yaml");
}

/* The text must fail with exactly this message. */
static void expect(const char *text, const char *message) {
    espl_config config;
    assert_int_equal(read_text(&config, text), ESPL_ERR_USAGE);
    assert_string_equal(espl_status_message(), message);
    espl_config_free(&config);
    espl_status_clear();
}

/* As a message, but only its beginning: the rest is libyaml's wording. */
static void expect_begins(const char *text, const char *message) {
    espl_config config;
    assert_int_equal(read_text(&config, text), ESPL_ERR_USAGE);
    assert_memory_equal(espl_status_message(), message, strlen(message));
    espl_config_free(&config);
    espl_status_clear();
}

static void expect_set(const char *override, const char *message) {
    espl_config config;
    espl_config_make(&config);
    assert_int_equal(espl_config_set(&config, override), ESPL_ERR_USAGE);
    assert_string_equal(espl_status_message(), message);
    espl_config_free(&config);
    espl_status_clear();
}

static void defaults_are_those_of_the_rows(void **state) {
    (void)state;
    espl_config c;
    espl_config_make(&c);
    assert_string_equal(c.run_dir, "");
    assert_int_equal(c.run_seed, 42);
    assert_int_equal(c.run_device, ESPL_DEVICE_AUTO);
    assert_int_equal(c.model_recompute, ESPL_RECOMPUTE_SELECTIVE);
    assert_true(c.optim_lr == 2e-5);
    assert_int_equal(c.optim_schedule, ESPL_SCHEDULE_COSINE);
    assert_true(c.data_append_eos);
    assert_int_equal(c.data_train.n, 0);
    assert_int_equal(c.data_weights.n, 0);
    espl_config_free(&c);
    assert_null(c.run_dir);
}

static void choices_have_words(void **state) {
    (void)state;
    assert_string_equal(espl_config_choice("run", "dtype", ESPL_RUN_BF16), "bf16");
    assert_string_equal(espl_config_choice("optim", "schedule", ESPL_SCHEDULE_SLANTED_TRIANGULAR), "slanted_triangular");
    assert_string_equal(espl_config_choice("log", "progress", ESPL_PROGRESS_NONE), "none");
    assert_string_equal(espl_config_choice("optim", "name", 0), "adamw");
}

static void every_type_is_read(void **state) {
    (void)state;
    espl_config c;
    assert_int_equal(read_text(&c, "# a comment\n"
                                   "run:\n  dir: 'a b'\n  seed: 7\n  device: cpu\n"
                                   "data:\n  train: [one.txt, \"two, three\", four*.jsonl]\n  valid: alone.txt\n  weights: [1, 0.5, 2e-1]\n"
                                   "  append_eos: false\noptim: {lr: 3e-4, eps: 1.e-8}\ntrain:\nmodel:\n  path: ~\n"),
                     ESPL_OK);
    assert_string_equal(c.run_dir, "a b");
    assert_int_equal(c.run_seed, 7);
    assert_int_equal(c.run_device, ESPL_DEVICE_CPU);
    assert_int_equal(c.data_train.n, 3);
    assert_string_equal(c.data_train.items[1], "two, three");
    assert_int_equal(c.data_valid.n, 1);
    assert_string_equal(c.data_valid.items[0], "alone.txt");
    assert_int_equal(c.data_weights.n, 3);
    assert_true(c.data_weights.items[2] == 0.2);
    assert_false(c.data_append_eos);
    assert_true(c.optim_lr == 3e-4);
    assert_string_equal(c.model_path, "");
    espl_config_free(&c);
}

static void nothing_is_a_config(void **state) {
    (void)state;
    const char *const empty[] = {"", "\n", "# only a comment\n", "---\n", "---\n...\n", "run:\n", "run: {}\n", "\xEF\xBB\xBFrun:\n"};
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        espl_config c;
        assert_int_equal(read_text(&c, empty[i]), ESPL_OK);
        espl_config_free(&c);
    }
}

static void later_files_win_and_lists_are_replaced(void **state) {
    (void)state;
    espl_config c;
    assert_int_equal(read_text(&c, "data:\n  train: [a, b, c]\noptim:\n  lr: 1\n"), ESPL_OK);
    const char *second = "data:\n  train: [d]\n";
    assert_int_equal(espl_config_read_text(&c, second, strlen(second), "d.yaml"), ESPL_OK);
    assert_int_equal(c.data_train.n, 1);
    assert_string_equal(c.data_train.items[0], "d");
    assert_true(c.optim_lr == 1.0);
    const char *third = "data:\n  train: []\n";
    assert_int_equal(espl_config_read_text(&c, third, strlen(third), "e.yaml"), ESPL_OK);
    assert_int_equal(c.data_train.n, 0);
    espl_config_free(&c);
}

static void unknown_words_name_the_nearest(void **state) {
    (void)state;
    expect("run:\n  seed: 1\noptim:\n  learning_rate: 1\n", "c.yaml:4: unknown key 'optim.learning_rate'; did you mean 'optim.lr'?");
    expect("optim:\n  wieght_decay: 1\n", "c.yaml:2: unknown key 'optim.wieght_decay'; did you mean 'optim.weight_decay'?");
    expect("train:\n  max_steps: 1\n", "c.yaml:2: unknown key 'train.max_steps'; did you mean 'train.steps'?");
    expect("train:\n  lr: 1\n", "c.yaml:2: unknown key 'train.lr'; did you mean 'optim.lr'?");
    expect("\noptimizer:\n  lr: 1\n", "c.yaml:2: unknown section 'optimizer'; did you mean 'optim'?");
    expect("micro_batches: 3\n", "c.yaml:1: unknown section 'micro_batches'; did you mean 'train.micro_batches'?");
    expect("zzzzzz: 3\n", "c.yaml:1: unknown section 'zzzzzz'; `espalier config --reference` lists all keys");
    expect("run:\n  quux: 3\n", "c.yaml:2: unknown key 'run.quux'; `espalier config --reference` lists all keys");
}

static void wrong_values_say_what_is_wanted(void **state) {
    (void)state;
    expect("run:\n  seed: 1.5\n", "c.yaml:2: run.seed wants a whole number, found '1.5'");
    expect("run:\n  seed: \"1\"\n", "c.yaml:2: run.seed wants a whole number, found '1'");
    expect("run:\n  seed:\n", "c.yaml:2: run.seed wants a whole number, found nothing");
    expect("run:\n  seed: 0x10\n", "c.yaml:2: run.seed wants a whole number, found '0x10'");
    expect("run:\n  seed: 99999999999999999999\n", "c.yaml:2: run.seed is 99999999999999999999, which does not fit 64 bits");
    expect("run:\n  seed: -1\n", "c.yaml:2: run.seed is -1, expected 0 or more");
    expect("run:\n  threads: 4097\n", "c.yaml:2: run.threads is 4097, expected 0 to 4096");
    expect("optim:\n  lr: fast\n", "c.yaml:2: optim.lr wants a number, found 'fast'");
    expect("optim:\n  lr: .nan\n", "c.yaml:2: optim.lr wants a number, found '.nan'");
    expect("optim:\n  lr: inf\n", "c.yaml:2: optim.lr wants a number, found 'inf'");
    expect("optim:\n  lr: 1e999\n", "c.yaml:2: optim.lr is 1e999, which is too large");
    expect("optim:\n  beta1: 1.1\n", "c.yaml:2: optim.beta1 is 1.1, expected 0 to 1");
    expect("generate:\n  repetition_penalty: 0\n", "c.yaml:2: generate.repetition_penalty is 0, expected 0.01 or more");
    expect("data:\n  append_eos: yes\n", "c.yaml:2: data.append_eos wants true or false, found 'yes'");
    expect("run:\n  dtype: fp8\n", "c.yaml:2: run.dtype is 'fp8', expected one of fp32, bf16");
    expect("run:\n  dir: [a]\n", "c.yaml:2: run.dir wants text, found a list");
    expect("run:\n  dir: {a: b}\n", "c.yaml:2: run.dir is one value or list, found a mapping");
    expect("data:\n  weights:\n    - 1\n    - two\n", "c.yaml:4: data.weights wants a list of numbers, found 'two'");
    expect("data:\n  train:\n    - a\n    - [b]\n", "c.yaml:4: data.train: entry 2 is not a plain value");
    expect("run:\n  dir: \"a\\0b\"\n", "c.yaml:2: run.dir holds a NUL character");
}

static void structure_is_checked(void **state) {
    (void)state;
    expect("run:\n  seed: 1\n  dir: x\n  seed: 2\n", "c.yaml:4: key 'run.seed' is set twice, first on line 2");
    expect("run:\n  seed: 1\ndata:\nrun:\n  dir: x\n", "c.yaml:4: section 'run' is there twice, first on line 1");
    expect("- a\n", "c.yaml:1: expected sections such as 'train:', found a list");
    expect("word\n", "c.yaml:1: expected sections such as 'train:', found a value");
    expect("run: 3\n", "c.yaml:1: section 'run' wants lines 'key: value', indented");
    expect("run:\n  - seed\n", "c.yaml:1: section 'run' wants lines 'key: value', indented");
    expect("[a]: 3\n", "c.yaml:1: a section's name must be a word");
    expect("run:\n  ? [a]\n  : 3\n", "c.yaml:2: section 'run': a key must be a word");
    expect("run:\n  seed: 1\n---\nrun:\n  seed: 2\n", "c.yaml:4: a second YAML document begins here; a config is one");
    expect_begins("run:\n  seed: 1\n dir: x\n", "c.yaml:3: not YAML: ");
    expect_begins("run: [\n", "c.yaml:2: not YAML: ");
    expect_begins("run:\n  seed: *missing\n", "c.yaml:2: not YAML: ");
    expect_begins("run:\n  dir: \"\xff\"\n", "c.yaml:2: not YAML: ");
}

static void anchors_are_values(void **state) {
    (void)state;
    espl_config c;
    assert_int_equal(read_text(&c, "run:\n  seed: &s 9\n  init_seed: *s\ndata:\n  train: &t [a, b]\n  valid: *t\n"), ESPL_OK);
    assert_int_equal(c.run_init_seed, 9);
    assert_int_equal(c.data_valid.n, 2);
    assert_ptr_not_equal(c.data_valid.items[0], c.data_train.items[0]);
    espl_config_free(&c);
    expect("data:\n  train: &t [*t]\n", "c.yaml:2: data.train: entry 1 is not a plain value");
}

static void overrides_give_the_same_messages(void **state) {
    (void)state;
    expect_set("optim.learning_rate=1", "--set: unknown key 'optim.learning_rate'; did you mean 'optim.lr'?");
    expect_set("optimizer.lr=1", "--set: unknown key 'optimizer.lr'; did you mean 'optim.lr'?");
    expect_set("optim.lr=x", "--set: optim.lr wants a number, found 'x'");
    expect_set("optim.lr", "--set: 'optim.lr' is not of the form section.key=value");
    expect_set("lr=1.5", "--set: 'lr=1.5' is not of the form section.key=value");
    expect_set("run.dtype=fp8", "--set: run.dtype is 'fp8', expected one of fp32, bf16");
    expect_set("run.dir=\xff", "--set: run.dir holds bytes that are not UTF-8");
    expect_set("data.weights=[1, x]", "--set: data.weights wants a list of numbers, found 'x'");
}

static void overrides_are_applied(void **state) {
    (void)state;
    espl_config c;
    espl_config_make(&c);
    const char *const sets[] = {"optim.lr=1e-3",         "run.dir=a: 'b' = [c] # d", "data.train=[\"x, y\", z]", "data.valid=one file.txt",
                                "data.weights=[1, 2.5]", "run.device=cuda",          "log.tensorboard=false"};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        assert_int_equal(espl_config_set(&c, sets[i]), ESPL_OK);
    assert_true(c.optim_lr == 1e-3);
    assert_string_equal(c.run_dir, "a: 'b' = [c] # d");
    assert_int_equal(c.data_train.n, 2);
    assert_string_equal(c.data_train.items[0], "x, y");
    assert_int_equal(c.data_valid.n, 1);
    assert_string_equal(c.data_valid.items[0], "one file.txt");
    assert_true(c.data_weights.items[1] == 2.5);
    assert_int_equal(c.run_device, ESPL_DEVICE_CUDA);
    assert_false(c.log_tensorboard);
    assert_int_equal(espl_config_set(&c, "data.train="), ESPL_OK);
    assert_int_equal(c.data_train.n, 0);
    espl_config_free(&c);
}

/* Prints, reads back and prints again: the texts, and so the hashes, are the same. */
static void assert_round_trip(const espl_config *config) {
    espl_config again;
    char *first = printed(config);
    assert_int_equal(read_text(&again, first), ESPL_OK);
    char *second = printed(&again);
    assert_string_equal(first, second);
    assert_true(espl_config_hash(config) == espl_config_hash(&again));
    free(first);
    free(second);
    espl_config_free(&again);
}

static void set_string(char **field, const char *text) {
    free(*field);
    *field = strdup(text);
}

static void odd_strings_survive_printing(void **state) {
    (void)state;
    const char *const odd[] = {"",
                               "~",
                               "null",
                               " lead and trail ",
                               "a: b # c",
                               "'\"\\",
                               "line\nbreak\r\n\ttab",
                               "\x01\x1b\x7f",
                               "true",
                               "1e3",
                               "- x",
                               "{a: [b]}",
                               "*alias &b",
                               "%d !tag |",
                               "\xc2\x85 \xe2\x80\xa8",
                               "\xef\xbb\xbf",
                               "...",
                               "\xc3\xa9\xc3\xa8",
                               "\xf0\x9f\x98\x80",
                               "\xef\xbf\xbf",
                               "---",
                               "a\\u0041b"};
    espl_config c;
    espl_config_make(&c);
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        set_string(&c.run_dir, odd[i]);
        assert_round_trip(&c);
        espl_config again;
        char *text = printed(&c);
        assert_int_equal(read_text(&again, text), ESPL_OK);
        assert_string_equal(again.run_dir, odd[i]);
        free(text);
        espl_config_free(&again);
    }
    espl_config_free(&c);
}

static void any_double_survives_printing(void **state) {
    (void)state;
    const double odd[] = {0.0, -0.0, 1e-8, 0.1, 1.0 / 3.0, DBL_MIN, DBL_MAX, 4.9406564584124654e-324, 2e-5, 123456789.123456789};
    espl_config c;
    espl_config_make(&c);
    espl_rng_key key = {.seed = 1, .purpose = ESPL_RNG_TEST};
    for (int i = 0; i < 300; i++) {
        espl_rng4 r = espl_rng_block(&key, (uint64_t)i);
        uint64_t bits = ((uint64_t)r.v[0] << 32 | r.v[1]) & 0x7FEFFFFFFFFFFFFFull;
        double x;
        memcpy(&x, &bits, sizeof x);
        c.optim_lr = i < 10 ? (odd[i] < 0 ? 0 : odd[i]) : x;
        char *text = printed(&c);
        espl_config again;
        assert_int_equal(read_text(&again, text), ESPL_OK);
        assert_true(again.optim_lr == c.optim_lr);
        free(text);
        espl_config_free(&again);
    }
    espl_config_free(&c);
}

static void lists_survive_printing_and_hash_sees_changes(void **state) {
    (void)state;
    espl_config c, d;
    assert_int_equal(read_text(&c, "data:\n  train: [a, 'b, c', \"\", null, \"null\"]\n  weights: [0.1, 1e-300, 3]\n"), ESPL_OK);
    assert_int_equal(c.data_train.n, 5);
    assert_round_trip(&c);
    assert_int_equal(read_text(&d, "data:\n  train: [a, 'b, c', \"\", null, \"null\"]\n  weights: [0.1, 1e-300, 3]\n"), ESPL_OK);
    assert_true(espl_config_hash(&c) == espl_config_hash(&d));
    d.run_seed++;
    assert_true(espl_config_hash(&c) != espl_config_hash(&d));
    espl_config_free(&c);
    espl_config_free(&d);
}

static void files_are_read(void **state) {
    (void)state;
    int fd;
    char *path = make_scratch_file(&fd);
    const char text[] = "run:\n  seed: 5\n  sed: 6\n";
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    espl_config c;
    espl_config_make(&c);
    assert_int_equal(espl_config_read(&c, path), ESPL_ERR_USAGE);
    assert_non_null(strstr(espl_status_message(), ":3: unknown key 'run.sed'; did you mean 'run.seed'?"));
    assert_memory_equal(espl_status_message(), path, strlen(path));
    unlink(path);
    assert_int_equal(espl_config_read(&c, path), ESPL_ERR_USAGE);
    assert_non_null(strstr(espl_status_message(), "No such file"));
    assert_int_equal(espl_config_read(&c, "/tmp"), ESPL_ERR_USAGE);
    espl_config_free(&c);
    free(path);
}

static void schema_is_json_with_every_key(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    espl_config_print_schema(out);
    fclose(out);
    json_error_t error;
    json_t *schema = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(schema);
    json_t *sections = json_object_get(schema, "properties");
    int n_keys = 0;
#define KEY(section, name, type, default_text, range, help)                                                                                \
    {                                                                                                                                      \
        json_t *keys = json_object_get(json_object_get(sections, #section), "properties");                                                 \
        json_t *key = json_object_get(keys, #name);                                                                                        \
        assert_string_equal(json_string_value(json_object_get(key, "description")), help);                                                 \
        n_keys++;                                                                                                                          \
    }
#include "src/config/keys.def"
#undef KEY
    const char *section;
    json_t *body;
    json_object_foreach(sections, section, body) n_keys -= (int)json_object_size(json_object_get(body, "properties"));
    assert_int_equal(n_keys, 0);
    json_t *threads = json_object_get(json_object_get(json_object_get(sections, "run"), "properties"), "threads");
    assert_int_equal(json_integer_value(json_object_get(threads, "maximum")), 4096);
    json_decref(schema);
    free(text);
}

static void reference_names_every_key(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    espl_config_print_reference(out);
    fclose(out);
#define KEY(section, name, type, default_text, range, help) assert_non_null(strstr(text, "| `" #section "." #name "` | "));
#include "src/config/keys.def"
#undef KEY
    assert_non_null(strstr(text, "`constant`, `linear`, `cosine`"));
    assert_non_null(strstr(text, "integer, 0 to 4096"));
    free(text);
}

static void distances(void **state) {
    (void)state;
    assert_int_equal(espl_word_distance("seed", "seed"), 0);
    assert_int_equal(espl_word_distance("sede", "seed"), 1);
    assert_int_equal(espl_word_distance("kitten", "sitting"), 3);
    assert_int_equal(espl_word_distance("learning_rate", "lr"), 1);
    assert_int_equal(espl_word_distance("num_epochs", "epochs"), 2);
    const char *const verbs[] = {"train", "plan", "eval"};
    assert_int_equal(espl_word_nearest("tarin", verbs, 3), 0);
    assert_int_equal(espl_word_nearest("evaluate", verbs, 3), 2);
    assert_int_equal(espl_word_nearest("xyzzy", verbs, 3), -1);
    char huge[500];
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    assert_int_equal(espl_word_nearest(huge, verbs, 3), -1);
}

/* What the file leaves to the optimizer is that one's; what it gives stays. */
static void optimizers_have_constants_of_their_own(void **state) {
    (void)state;
    static const struct {
        const char *name, *set;
        double beta2, momentum;
    } rows[] = {{"adamw", "optim.lr=1", 0.999, 0.9},
                {"lion", "optim.lr=1", 0.99, 0.9},
                {"muon", "optim.lr=1", 0.999, 0.95},
                {"lion", "optim.beta2=0.5", 0.5, 0.9},
                {"muon", "optim.momentum=0", 0.999, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        espl_config c;
        char name[32];
        espl_config_make(&c);
        snprintf(name, sizeof name, "optim.name=%s", rows[i].name);
        assert_int_equal(espl_config_set(&c, name), ESPL_OK);
        assert_int_equal(espl_config_set(&c, rows[i].set), ESPL_OK);
        espl_config_resolve(&c);
        assert_true(c.optim_beta2 == rows[i].beta2 && c.optim_momentum == rows[i].momentum);
        assert_int_equal(c.optim_nesterov, strcmp(rows[i].name, "muon") == 0);
        espl_config_free(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimizers_have_constants_of_their_own),
        cmocka_unit_test(defaults_are_those_of_the_rows),
        cmocka_unit_test(choices_have_words),
        cmocka_unit_test(every_type_is_read),
        cmocka_unit_test(nothing_is_a_config),
        cmocka_unit_test(later_files_win_and_lists_are_replaced),
        cmocka_unit_test(unknown_words_name_the_nearest),
        cmocka_unit_test(wrong_values_say_what_is_wanted),
        cmocka_unit_test(structure_is_checked),
        cmocka_unit_test(anchors_are_values),
        cmocka_unit_test(overrides_give_the_same_messages),
        cmocka_unit_test(overrides_are_applied),
        cmocka_unit_test(odd_strings_survive_printing),
        cmocka_unit_test(any_double_survives_printing),
        cmocka_unit_test(lists_survive_printing_and_hash_sees_changes),
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(schema_is_json_with_every_key),
        cmocka_unit_test(reference_names_every_key),
        cmocka_unit_test(distances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
