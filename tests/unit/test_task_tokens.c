// test: libs=io,comm,core ranks=1+2 tier=short timeout=60
/* What records of classification, seq2seq and masked LM become in the token store, and bad ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/labels.h"
#include "io/tokens/tokens.h"
#include "src/core/buffer.h"
#include "src/core/log.h"
#include "tests/unit/scratch.h"
#include "tests/unit/tiny_tokenizer.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <xxhash.h>

static espl_comm *comm;
static char *folder;
static espl_tokenizer *tokenizer;

static bool first_rank(void) { return espl_comm_ranks(comm)->rank == 0; }

static void meet(void) { assert_int_equal(espl_comm_barrier(comm), ESPL_OK); }

static char *in_folder(const char *name) { return espl_format("%s/%s", folder, name); }

static void put(const char *name, const char *text) {
    meet();
    if (first_rank()) {
        char *path = in_folder(name);
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        fputs(text, file);
        fclose(file);
        free(path);
    }
    meet();
}

static void make_folder(const char *name) {
    char *path = in_folder(name);
    meet();
    if (first_rank())
        assert_int_equal(mkdir(path, 0755), 0);
    meet();
    free(path);
}

static int set_up(void **state) {
    (void)state;
    if (espl_comm_open(&comm, 0) != ESPL_OK)
        return -1;
    espl_log_set(espl_comm_ranks(comm)->rank, ESPL_LOG_ERROR, NULL);
    folder = share_scratch(comm);
    char *path = in_folder("tokenizer.json");
    if (first_rank())
        tiny_write(path);
    meet();
    int failed = espl_tokenizer_open(path, &tokenizer) != ESPL_OK;
    free(path);
    return failed;
}

static int tear_down(void **state) {
    (void)state;
    espl_tokenizer_close(&tokenizer);
    unshare_scratch(comm, folder);
    espl_comm_close(&comm);
    return 0;
}

/* ---- Recipes. */

static char cache[96];

static espl_tokens_recipe recipe_of(char *const *path, int task, const espl_labels *labels) {
    snprintf(cache, sizeof cache, "%s/cache", folder);
    return (espl_tokens_recipe){.paths = path, .n_paths = 1, .task = task, .labels = labels, .cache = cache, .threads = 2};
}

static espl_tokens prepare(const espl_tokens_recipe *recipe) {
    char *store = NULL;
    espl_tokens tokens;
    if (espl_tokens_prepare(comm, tokenizer, recipe, &store) != ESPL_OK || espl_tokens_open(store, true, &tokens) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    free(store);
    return tokens;
}

static void check_fails(const espl_tokens_recipe *recipe, espl_status code, const char *part) {
    char *store = NULL;
    assert_int_equal(espl_tokens_prepare(comm, tokenizer, recipe, &store), code);
    if (strstr(espl_status_message(), part) == NULL)
        fail_msg("'%s' does not say '%s'", espl_status_message(), part);
    espl_status_clear();
}

static espl_labels collect(char *const *path, espl_read_format format) {
    espl_labels labels;
    const espl_reader_options options = {.kind = ESPL_READ_LABELLED};
    if (espl_labels_collect(comm, path, 1, format, &options, &labels) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    return labels;
}

static void check_labels(const espl_labels *labels, const char *expected) {
    espl_buffer list = {0};
    espl_labels_list(labels, &list);
    assert_string_equal(list.data, expected);
    espl_buffer_free(&list);
}

/* "id/type " or "id:word " of all tokens, '|' behind each document. */
static void check_tokens(const espl_tokens *tokens, const char *expected) {
    espl_buffer text = {0};
    for (int64_t d = 0; d < tokens->n_documents; d++) {
        for (int64_t t = tokens->documents[d]; t < tokens->documents[d + 1]; t++) {
            espl_buffer_printf(&text, "%d", tokens->ids16[t]);
            if (tokens->types != NULL)
                espl_buffer_printf(&text, "/%d", tokens->types[t]);
            if (tokens->words != NULL)
                espl_buffer_printf(&text, ":%d", tokens->words[t]);
            espl_buffer_printf(&text, " ");
        }
        espl_buffer_printf(&text, "|");
    }
    assert_string_equal(text.data, expected);
    espl_buffer_free(&text);
}

/* ---- Classification. */

static void labels_come_sorted(void **state) {
    (void)state;
    put("words.jsonl",
        "{\"text\":\"a\",\"label\":\"pos\"}\n{\"text\":\"a\",\"label\":\"neg\"}\nno record\n{\"text\":\"a\",\"label\":\"pos\"}\n");
    put("numbers.jsonl", "{\"text\":\"a\",\"label\":10}\n{\"text\":\"a\",\"label\":\"9\"}\n{\"text\":\"a\",\"label\":-1}\n");
    put("mixed.jsonl", "{\"text\":\"a\",\"label\":10}\n{\"text\":\"a\",\"label\":\"9 \"}\n");
    const char *const expected[][2] = {{"words.jsonl", "neg, pos"}, {"numbers.jsonl", "-1, 9, 10"}, {"mixed.jsonl", "10, 9 "}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        char *path = in_folder(expected[i][0]);
        espl_labels labels = collect(&path, ESPL_READ_AUTO);
        check_labels(&labels, expected[i][1]);
        espl_labels_free(&labels);
        free(path);
    }
}

static void labelled_texts(void **state) {
    (void)state;
    put("train.jsonl", "{\"text\":\"a good film\",\"label\":\"pos\"}\n{\"text\":\"bad\",\"label\":\"neg\"}\n");
    char *path = in_folder("train.jsonl");
    espl_labels labels = collect(&path, ESPL_READ_AUTO);
    espl_tokens_recipe recipe = recipe_of(&path, ESPL_TOKENS_CLASSIFICATION, &labels);
    espl_tokens tokens = prepare(&recipe);
    check_tokens(&tokens, "2 8 5 7 3 |2 6 3 |");
    assert_int_equal(tokens.labels[0], 1);
    assert_int_equal(tokens.labels[1], 0);
    check_labels(&tokens.names, "neg, pos");
    assert_null(tokens.types);
    assert_null(tokens.split);
    assert_true(tokens.hashes[1] == XXH3_64bits("bad", 3));
    assert_int_equal(tokens.n_bytes, 14);
    uint64_t key = tokens.key;
    espl_tokens_close(&tokens);
    recipe.length = 4;
    tokens = prepare(&recipe);
    check_tokens(&tokens, "2 8 5 3 |2 6 3 |");
    assert_int_equal(tokens.n_cut, 1);
    assert_int_equal(tokens.n_lost, 1);
    assert_true(tokens.key != key);
    espl_tokens_close(&tokens);
    recipe.truncation = ESPL_KEEP_TAIL;
    tokens = prepare(&recipe);
    check_tokens(&tokens, "2 5 7 3 |2 6 3 |");
    espl_tokens_close(&tokens);
    recipe.length = 2;
    check_fails(&recipe, ESPL_ERR_USAGE, "leave no room for text beside 3 special ones");
    espl_labels_free(&labels);
    free(path);
}

static void pairs_have_types(void **state) {
    (void)state;
    put("pairs.jsonl",
        "{\"text\":\"a good film\",\"text_pair\":\"bad\",\"label\":0}\n{\"text\":\"bad\",\"text_pair\":\"a a a a\",\"label\":1}\n"
        "{\"text\":\"a\",\"text_pair\":null,\"label\":1}\n");
    char *path = in_folder("pairs.jsonl");
    espl_labels labels = collect(&path, ESPL_READ_AUTO);
    espl_tokens_recipe recipe = recipe_of(&path, ESPL_TOKENS_CLASSIFICATION, &labels);
    espl_tokens tokens = prepare(&recipe);
    check_tokens(&tokens, "2/0 8/0 5/0 7/0 3/0 6/1 3/1 |2/0 6/0 3/0 8/1 8/1 8/1 8/1 3/1 |2/0 8/0 3/0 |");
    espl_tokens_close(&tokens);
    recipe.length = 6;
    tokens = prepare(&recipe);
    check_tokens(&tokens, "2/0 8/0 5/0 3/0 6/1 3/1 |2/0 6/0 3/0 8/1 8/1 3/1 |2/0 8/0 3/0 |");
    assert_int_equal(tokens.n_cut, 2);
    assert_int_equal(tokens.n_lost, 3);
    espl_tokens_close(&tokens);
    recipe.second_field = "other";
    check_fails(&recipe, ESPL_ERR_DATA, "pairs.jsonl:1: key 'other' missing");
    espl_labels_free(&labels);
    free(path);
}

static void bad_labels_are_named(void **state) {
    (void)state;
    put("valid.jsonl", "{\"text\":\"a\",\"label\":\"pos\"}\n{\"text\":\"a\",\"label\":\"so-so\"}\n{\"text\":\"a\",\"label\":\"neg\"}\n");
    put("no.jsonl", "{\"text\":\"a\"}\n");
    put("empty.jsonl", "{\"text\":\"a\",\"label\":\"pos\"}\n{\"text\":\"  \",\"label\":\"pos\"}\n");
    put("odd.jsonl", "{\"text\":\"a\",\"label\":1.5}\n");
    espl_labels labels = {0};
    espl_labels_add(&labels, "neg", 3);
    espl_labels_add(&labels, "pos", 3);
    char *paths[] = {in_folder("valid.jsonl"), in_folder("no.jsonl"), in_folder("empty.jsonl"), in_folder("odd.jsonl")};
    const char *const says[] = {"valid.jsonl:2: label 'so-so' is not one of the known ones: neg, pos", "no.jsonl:1: key 'label' missing",
                                "empty.jsonl:2: 'text' is empty",
                                "odd.jsonl:1: key 'label' holds a number, expected a string or an integer"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        espl_tokens_recipe recipe = recipe_of(&paths[i], ESPL_TOKENS_CLASSIFICATION, &labels);
        check_fails(&recipe, ESPL_ERR_DATA, says[i]);
    }
    espl_tokens_recipe recipe = recipe_of(&paths[0], ESPL_TOKENS_CLASSIFICATION, &labels);
    recipe.skip_bad = true;
    espl_tokens tokens = prepare(&recipe);
    assert_int_equal(tokens.n_documents, 2);
    assert_int_equal(tokens.labels[0] * 10 + tokens.labels[1], 10);
    espl_tokens_close(&tokens);
    espl_labels none;
    const espl_reader_options options = {.kind = ESPL_READ_LABELLED};
    assert_int_equal(espl_labels_collect(comm, &paths[1], 1, ESPL_READ_AUTO, &options, &none), ESPL_ERR_DATA);
    assert_non_null(strstr(espl_status_message(), "no.jsonl:1: key 'label' missing"));
    espl_status_clear();
    espl_labels_free(&labels);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        free(paths[i]);
}

static void class_folders(void **state) {
    (void)state;
    make_folder("reviews");
    make_folder("reviews/pos");
    make_folder("reviews/neg");
    make_folder("reviews/unsup");
    put("reviews/pos/0_9.txt", "a good\nfilm\n");
    put("reviews/neg/0_2.txt", "bad film");
    put("reviews/neg/1_1.txt", "bad");
    put("reviews/unsup/0_0.txt", "film");
    put("reviews/urls.txt", "no text of a class");
    char *path = in_folder("reviews");
    espl_labels labels = collect(&path, ESPL_READ_FOLDERS), two = {0};
    check_labels(&labels, "neg, pos, unsup");
    espl_labels_add(&two, "pos", 3);
    espl_labels_add(&two, "neg", 3);
    espl_tokens_recipe recipe = recipe_of(&path, ESPL_TOKENS_CLASSIFICATION, &two);
    recipe.format = ESPL_READ_FOLDERS;
    check_fails(&recipe, ESPL_ERR_DATA, "unsup/0_0.txt:1: label 'unsup' is not one of the known ones: pos, neg");
    recipe.some_labels = true;
    espl_tokens tokens = prepare(&recipe);
    check_tokens(&tokens, "2 6 7 3 |2 6 3 |2 8 5 7 3 |");
    assert_int_equal(tokens.labels[0] * 100 + tokens.labels[1] * 10 + tokens.labels[2], 110);
    espl_tokens_close(&tokens);
    recipe.format = ESPL_READ_TEXT;
    check_fails(&recipe, ESPL_ERR_DATA, "a text file has no label");
    espl_labels_free(&labels);
    espl_labels_free(&two);
    free(path);
}

/* ---- Source and target. */

static void sources_and_targets(void **state) {
    (void)state;
    put("pairs2.jsonl", "{\"input\":\"good film\",\"target\":\"good\"}\n{\"input\":\"a a a a a\",\"target\":\"bad a a\"}\n");
    char *path = in_folder("pairs2.jsonl");
    espl_tokens_recipe recipe = recipe_of(&path, ESPL_TOKENS_SEQ2SEQ, NULL);
    recipe.prefix = "un: ";
    espl_tokens tokens = prepare(&recipe);
    check_tokens(&tokens, "2 9 1 5 7 3 2 5 3 |2 9 1 8 8 8 8 8 3 2 6 8 8 3 |");
    assert_int_equal(tokens.split[0], 6);
    assert_int_equal(tokens.split[1], 9);
    assert_null(tokens.labels);
    espl_tokens_close(&tokens);
    recipe.length = 7;
    recipe.target_length = 3;
    recipe.truncation = ESPL_KEEP_TAIL; /* what begins every source stays */
    tokens = prepare(&recipe);
    check_tokens(&tokens, "2 9 1 5 7 3 2 5 3 |2 9 1 8 8 8 3 2 6 3 |");
    assert_int_equal(tokens.n_cut, 1);
    assert_int_equal(tokens.n_lost, 4);
    espl_tokens_close(&tokens);
    recipe.append_eos = true;
    recipe.eos = TINY_LY;
    recipe.length = 9;
    recipe.target_length = 4;
    tokens = prepare(&recipe); /* room is made for an end that the template lacks */
    check_tokens(&tokens, "2 9 1 5 7 3 11 2 5 3 11 |2 9 1 8 8 8 8 3 11 2 6 3 11 |");
    espl_tokens_close(&tokens);
    recipe.eos = 99;
    check_fails(&recipe, ESPL_ERR_USAGE, "data.append_eos");
    recipe.append_eos = false;
    recipe.second_field = "summary";
    check_fails(&recipe, ESPL_ERR_DATA,
                "pairs2.jsonl:1: key 'summary' missing, expected an object like {\"summary\": \"...\"}; data.target_field");
    free(path);
}

/* ---- Masked LM. */

static void long_texts_become_several(void **state) {
    (void)state;
    put("mlm.txt", "unlikely good film a bad film");
    char *path = in_folder("mlm.txt");
    espl_tokens_recipe recipe = recipe_of(&path, ESPL_TOKENS_MLM, NULL);
    espl_tokens tokens = prepare(&recipe);
    check_tokens(&tokens, "2:2 9:1 10:0 11:0 5:1 7:1 8:1 6:1 7:1 3:2 |");
    espl_tokens_close(&tokens);
    recipe.length = 5;
    tokens = prepare(&recipe);
    check_tokens(&tokens, "2:2 9:1 10:0 11:0 3:2 |2:2 5:1 7:1 8:1 3:2 |2:2 6:1 7:1 3:2 |");
    assert_int_equal(tokens.n_cut, 0);
    assert_true(tokens.hashes[0] == tokens.hashes[2]); /* they stay on one side of a split */
    espl_tokens_close(&tokens);
    put("mlm.txt", "good nonsense [MASK] bad");
    recipe.length = 0;
    tokens = prepare(&recipe);
    check_tokens(&tokens, "2:2 5:1 1:2 4:2 6:1 3:2 |");
    espl_tokens_close(&tokens);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_come_sorted),        cmocka_unit_test(labelled_texts), cmocka_unit_test(pairs_have_types),
        cmocka_unit_test(bad_labels_are_named),      cmocka_unit_test(class_folders),  cmocka_unit_test(sources_and_targets),
        cmocka_unit_test(long_texts_become_several),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
