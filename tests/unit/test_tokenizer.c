// test: libs=io,core ranks=1 tier=short timeout=180
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/tokenizer/tokenizer.h"
#include "tests/unit/scratch.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char cases_path[] = ESPL_SOURCE_DIR "/tests/goldens/tokenizers/cases.json";

static char *write_temporary(const char *text, size_t n) {
    int fd;
    char *path = make_scratch_file(&fd);
    assert_int_equal(write(fd, text, n), n);
    close(fd);
    return path;
}

static espl_status open_text(const char *text, size_t n, espl_tokenizer **tokenizer) {
    char *path = write_temporary(text, n);
    espl_status status = espl_tokenizer_open(path, tokenizer);
    unlink(path);
    free(path);
    return status;
}

static espl_tokenizer *open_case(json_t *item, json_t *models) {
    espl_tokenizer *tokenizer = NULL;
    json_t *whole = json_copy(item);
    json_object_set(whole, "model", json_object_get(models, json_string_value(json_object_get(item, "model"))));
    json_object_del(whole, "texts");
    char *text = json_dumps(whole, JSON_COMPACT);
    espl_status status = open_text(text, strlen(text), &tokenizer);
    if (status != ESPL_OK)
        print_error("%s: %s\n", json_string_value(json_object_get(item, "name")), espl_status_message());
    assert_int_equal(status, ESPL_OK);
    free(text);
    json_decref(whole);
    return tokenizer;
}

static size_t from_hex(const char *hex, char *out) {
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        out[i] = (char)strtol(digits, NULL, 16);
    }
    return n;
}

static bool same_ids(json_t *list, const espl_encoding *e) {
    bool same = (int64_t)json_array_size(list) == e->n;
    for (int64_t i = 0; same && i < e->n; i++)
        same = json_integer_value(json_array_get(list, (size_t)i)) == e->ids[i];
    return same;
}

static bool same_offsets(json_t *list, const espl_encoding *e) {
    bool same = (int64_t)json_array_size(list) == 2 * e->n;
    for (int64_t i = 0; same && i < e->n; i++)
        same = json_integer_value(json_array_get(list, 2 * (size_t)i)) == e->begin[i] &&
               json_integer_value(json_array_get(list, 2 * (size_t)i + 1)) == e->end[i];
    return same;
}

static bool same_text(json_t *string, const espl_tokenizer *tokenizer, const espl_encoding *e, bool skip) {
    espl_buffer out = {0};
    assert_int_equal(espl_tokenizer_decode(tokenizer, e->ids, e->n, skip, &out), ESPL_OK);
    bool same = json_string_length(string) == out.size && (out.size == 0 || memcmp(json_string_value(string), out.data, out.size) == 0);
    espl_buffer_free(&out);
    return same;
}

/* Returns what differs, or NULL. */
static const char *check_text(const espl_tokenizer *tokenizer, json_t *golden, const char *text, size_t n) {
    espl_encoding full = {.want_offsets = true}, plain = {0};
    const char *wrong = NULL;
    assert_int_equal(espl_tokenizer_encode(tokenizer, text, n, true, &full), ESPL_OK);
    assert_int_equal(espl_tokenizer_encode(tokenizer, text, n, false, &plain), ESPL_OK);
    if (!same_ids(json_object_get(golden, "ids"), &full))
        wrong = "ids";
    else if (!same_ids(json_object_get(golden, "plain"), &plain))
        wrong = "ids without special tokens";
    else if (!same_offsets(json_object_get(golden, "offsets"), &full))
        wrong = "offsets";
    else if (!same_text(json_object_get(golden, "decoded"), tokenizer, &full, false))
        wrong = "decoded text";
    else if (!same_text(json_object_get(golden, "skipped"), tokenizer, &full, true))
        wrong = "decoded text without special tokens";
    espl_encoding_free(&full);
    espl_encoding_free(&plain);
    return wrong;
}

static int check_case(json_t *item, json_t *models) {
    espl_tokenizer *tokenizer = open_case(item, models);
    json_t *texts = json_object_get(item, "texts"), *golden;
    size_t i;
    int wrong = 0;
    json_array_foreach(texts, i, golden) {
        char text[1024];
        const char *hex = json_string_value(json_object_get(golden, "hex"));
        assert_true(strlen(hex) < sizeof text);
        const char *what = check_text(tokenizer, golden, text, from_hex(hex, text));
        if (what)
            print_error("%s: %s differ for %s\n", json_string_value(json_object_get(item, "name")), what, hex);
        wrong += what != NULL;
    }
    espl_tokenizer_close(&tokenizer);
    return wrong;
}

static json_t *load_cases(void) {
    json_error_t error;
    json_t *root = json_load_file(cases_path, JSON_ALLOW_NUL, &error);
    if (!root)
        fail_msg("%s:%d: %s", cases_path, error.line, error.text);
    return root;
}

static void components_agree_with_the_reference(void **state) {
    (void)state;
    json_t *root = load_cases(), *item;
    size_t i;
    int wrong = 0;
    json_array_foreach(json_object_get(root, "cases"), i, item) { wrong += check_case(item, json_object_get(root, "models")); }
    assert_true(i > 150);
    assert_int_equal(wrong, 0);
    json_decref(root);
}

/* The comparison sees one wrong id, one wrong offset, one wrong letter. */
static void comparison_notices_a_difference(void **state) {
    (void)state;
    json_t *root = load_cases(), *item = json_array_get(json_object_get(root, "cases"), 1), *texts = json_object_get(item, "texts"),
           *golden;
    espl_tokenizer *tokenizer = open_case(item, json_object_get(root, "models"));
    char text[1024];
    size_t i, n = 0;
    json_array_foreach(texts, i, golden) {
        n = from_hex(json_string_value(json_object_get(golden, "hex")), text);
        if (json_array_size(json_object_get(golden, "ids")) > 3)
            break;
    }
    assert_null(check_text(tokenizer, golden, text, n));
    static const char *const lists[] = {"ids", "plain", "offsets"};
    for (int k = 0; k < 3; k++) {
        json_t *at = json_array_get(json_object_get(golden, lists[k]), 2);
        json_integer_set(at, json_integer_value(at) + 1);
        assert_non_null(check_text(tokenizer, golden, text, n));
        json_integer_set(at, json_integer_value(at) - 1);
    }
    json_object_set_new(golden, "decoded", json_string("something else"));
    assert_non_null(check_text(tokenizer, golden, text, n));
    espl_tokenizer_close(&tokenizer);
    json_decref(root);
}

/* ---- public tokenizers, where they are ---- */

static const char *shared_data(void) {
    const char *path = getenv("ESPL_SHARED_DATA");
    return path ? path : ESPL_SOURCE_DIR "/../shared/data";
}

static espl_tokenizer *open_public(const char *name) {
    espl_tokenizer *tokenizer = NULL;
    char *path = espl_format("%s/tokenizers/%s", shared_data(), name);
    struct stat info;
    if (stat(path, &info) == 0)
        assert_int_equal(espl_tokenizer_open(path, &tokenizer), ESPL_OK);
    else
        print_message("skipped: %s is not there (set ESPL_SHARED_DATA)\n", path);
    free(path);
    return tokenizer;
}

static int check_line(const espl_tokenizer *tokenizer, json_t *line) {
    const char *text = json_string_value(json_object_get(line, "text"));
    size_t n = json_string_length(json_object_get(line, "text"));
    espl_encoding full = {0}, plain = {0};
    assert_int_equal(espl_tokenizer_encode(tokenizer, text, n, true, &full), ESPL_OK);
    assert_int_equal(espl_tokenizer_encode(tokenizer, text, n, false, &plain), ESPL_OK);
    bool same = same_ids(json_object_get(line, "ids"), &full) && same_ids(json_object_get(line, "ids_nospecial"), &plain) &&
                same_text(json_object_get(line, "decoded"), tokenizer, &full, true);
    if (!same)
        print_error("%s: differs for '%.60s'\n", json_string_value(json_object_get(line, "tok")), text);
    espl_encoding_free(&full);
    espl_encoding_free(&plain);
    return !same;
}

static void public_tokenizers_agree_with_goldens(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t size;
    } names[] = {{"gpt2", 50257}, {"llama2-32k", 32000}, {"llama3", 128256}, {"tok512-tinystories", 512}, {"bert-base-uncased", 30522},
                 {"t5", 32100}};
    char *path = espl_format("%s/tokenizers/golden.jsonl", shared_data());
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        espl_tokenizer *tokenizer = open_public(names[k].name);
        FILE *file = tokenizer ? fopen(path, "rb") : NULL;
        int lines = 0, wrong = 0;
        while (file && !feof(file)) {
            json_t *line = json_loadf(file, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, NULL);
            if (line && strcmp(json_string_value(json_object_get(line, "tok")), names[k].name) == 0) {
                wrong += check_line(tokenizer, line);
                lines++;
            }
            json_decref(line);
        }
        if (file) {
            assert_int_equal(wrong, 0);
            assert_true(lines >= 40);
            assert_int_equal(espl_tokenizer_size(tokenizer), names[k].size);
            fclose(file);
        }
        espl_tokenizer_close(&tokenizer);
    }
    free(path);
}

/* ---- what goldens cannot say ---- */

static espl_tokenizer *open_named(const char *name) {
    json_t *root = load_cases(), *item;
    espl_tokenizer *tokenizer = NULL;
    size_t i;
    json_array_foreach(json_object_get(root, "cases"), i, item) {
        if (!tokenizer && strcmp(json_string_value(json_object_get(item, "name")), name) == 0)
            tokenizer = open_case(item, json_object_get(root, "models"));
    }
    json_decref(root);
    assert_non_null(tokenizer);
    return tokenizer;
}

static void ids_sizes_and_hashes(void **state) {
    (void)state;
    espl_tokenizer *a = open_named("byte level gpt2, trim"), *b = open_named("byte level gpt2, trim_but_one");
    assert_int_equal(espl_tokenizer_id(a, "no such token"), -1);
    assert_true(espl_tokenizer_id(a, "a") >= 0);
    assert_int_equal(espl_tokenizer_id(a, "Day"), espl_tokenizer_size(a) - 3);
    assert_true(espl_tokenizer_hash(a) != espl_tokenizer_hash(b));
    espl_tokenizer_close(&a);
    espl_tokenizer_close(&a);
    espl_tokenizer_close(&b);
}

/* An encoding is appended to; offsets count from each text's own begin. */
static void encodings_grow(void **state) {
    (void)state;
    espl_tokenizer *tokenizer = open_named("byte level gpt2, no_trim");
    espl_encoding e = {.want_offsets = true};
    assert_int_equal(espl_tokenizer_encode(tokenizer, "xyz", 3, true, &e), ESPL_OK);
    int64_t n = e.n;
    assert_int_equal(espl_tokenizer_encode(tokenizer, "xyz", 3, true, &e), ESPL_OK);
    assert_int_equal(e.n, 2 * n);
    assert_int_equal(e.begin[n], 0);
    assert_int_equal(e.end[2 * n - 1], 3);
    assert_memory_equal(e.ids, e.ids + n, (size_t)n * sizeof *e.ids);
    espl_encoding_free(&e);
    espl_tokenizer_close(&tokenizer);
}

static char *repeated(const char *piece, size_t n) {
    size_t size = strlen(piece);
    char *text = espl_malloc(n);
    for (size_t i = 0; i < n; i++)
        text[i] = piece[i % size];
    return text;
}

/* A megabyte of one character, and of words: the time limit of this test is the assertion. */
static void long_texts_take_no_square_of_time(void **state) {
    (void)state;
    static const char *const pieces[] = {"a", " ", "\n", "th", "1", "\xE2\x96\x81", " the", "<s", "e\xCC\x81"};
    static const struct {
        const char *name;
        int64_t least; /* tokens; where a word is unknown as a whole, or space vanishes, few are left */
    } cases[] = {
        {"byte level gpt2, trim", 100}, {"byte level no_regex, trim", 100}, {"model fallback, llama2", 100},
        {"normalizer NFC", 100},        {"pre-tokenizer llama3", 100},      {"model wordpiece, bert", 2},
        {"model short_words", 0},       {"model unigram, t5", 1},           {"model unigram, lines", 2},
        {"model some_bytes", 1},
    };
    enum { SIZE = 1 << 20 };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        espl_tokenizer *tokenizer = open_named(cases[k].name);
        for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
            char *text = repeated(pieces[i], SIZE);
            espl_encoding e = {.want_offsets = i % 2};
            assert_int_equal(espl_tokenizer_encode(tokenizer, text, SIZE, true, &e), ESPL_OK);
            assert_true(e.n >= cases[k].least);
            espl_encoding_free(&e);
            free(text);
        }
        espl_tokenizer_close(&tokenizer);
    }
}

typedef struct worker {
    const espl_tokenizer *tokenizer;
    uint64_t sum;
} worker;

static void *encode_many(void *argument) {
    worker *w = argument;
    espl_encoding e = {.want_offsets = true};
    for (int i = 0; i < 400; i++) {
        char text[64];
        int n = snprintf(text, sizeof text, "the cat %d and the other %d caf\xC3\xA9", i, i * i);
        e.n = 0;
        if (espl_tokenizer_encode(w->tokenizer, text, (size_t)n, true, &e) != ESPL_OK)
            return NULL;
        for (int64_t k = 0; k < e.n; k++)
            w->sum = w->sum * 31 + (uint64_t)(e.ids[k] + e.begin[k] + e.end[k]);
    }
    espl_encoding_free(&e);
    return w;
}

static void threads_share_a_tokenizer(void **state) {
    (void)state;
    espl_tokenizer *tokenizer = open_named("byte level prefix_space, trim");
    pthread_t threads[4];
    worker workers[5];
    for (int i = 0; i < 5; i++)
        workers[i] = (worker){.tokenizer = tokenizer};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_many, &workers[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_non_null(encode_many(&workers[4]));
    for (int i = 0; i < 4; i++)
        assert_int_equal(workers[i].sum, workers[4].sum);
    espl_tokenizer_close(&tokenizer);
}

/* ---- files that are wrong ---- */

#define MODEL(vocab, merges, more) "{\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[" merges "]" more "}}"
#define WORDPIECE(unk, more) "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"unk_token\":\"" unk "\"" more "}}"
#define UNIGRAM(vocab, more) "{\"model\":{\"type\":\"Unigram\",\"vocab\":" vocab more "}}"
#define CHARMAP(base64) PART("normalizer", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"" base64 "\"}")
#define PART(key, value) "{\"" key "\":" value ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}"

static const struct {
    const char *json, *message;
} wrong_files[] = {
    {"", "no valid JSON"},
    {"{\"model\":{\"type\":\"BPE\",\"voc", "no valid JSON"},
    {"[]", "no tokenizer"},
    {"{}", "there is no object 'model'"},
    {"{\"model\":{\"type\":\"WordLevel\"}}", "model 'WordLevel' is not supported; the kinds known are BPE, WordPiece, Unigram"},
    {"{\"model\":{}}", "model '(none)' is not supported"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", "'vocab' must be an object"},
    {MODEL("\"a\":0,\"a\":1", "", ""), "duplicate"},
    {MODEL("\"a\":0,\"b\":0", "", ""), "tokens 'a' and 'b' share the id 0"},
    {MODEL("\"a\":0,\"b\":null", "", ""), "token 'b' has no id"},
    {MODEL("\"a\":-1", "", ""), "token 'a' has no id"},
    {MODEL("\"a\":0,\"b\":2000000000", "", ""), "token 'b' has id 2000000000"},
    {MODEL("\"a\":0,\"b\":1", "\"a b\"", ""), "merges[0] names 'ab'"},
    {MODEL("\"a\":0,\"ab\":1", "[\"a\",\"b\"]", ""), "merges[0] names 'b'"},
    {MODEL("\"a\":0", "\"a\"", ""), "merges[0] must be two tokens"},
    {MODEL("\"a\":0", "[\"a\"]", ""), "merges[0] must be two tokens"},
    {MODEL("\"a\":0", "", ",\"unk_token\":\"?\""), "unk_token '?' is not in the vocabulary"},
    {MODEL("\"a\":0", "", ",\"dropout\":0.1"), "dropout"},
    {MODEL("\"a\":0", "", ",\"fuse_unk\":3"), "'fuse_unk' must be true or false"},
    {PART("normalizer", "{\"type\":\"Rot13\"}"), "normalizer 'Rot13' is not supported"},
    {WORDPIECE("?", ",\"max_input_chars_per_word\":9,\"continuing_subword_prefix\":\"##\""), "unk_token '?' is not in the vocabulary"},
    {WORDPIECE("a", ",\"max_input_chars_per_word\":9"), "'continuing_subword_prefix' must be a string"},
    {WORDPIECE("a", ",\"max_input_chars_per_word\":-1"), "'max_input_chars_per_word' must be an integer from 0"},
    {WORDPIECE("a", ""), "'max_input_chars_per_word' must be an integer from 0"},
    {UNIGRAM("{\"a\":0}", ""), "'vocab' must be a list of [token, score]"},
    {UNIGRAM("[]", ",\"unk_id\":0"), "'vocab' must be a list of [token, score]"},
    {UNIGRAM("[[\"a\",0],\"b\"]", ",\"unk_id\":0"), "vocab[1] must be [token, score]"},
    {UNIGRAM("[[\"a\",0],[\"b\",\"c\"]]", ",\"unk_id\":0"), "vocab[1] must be [token, score]"},
    {UNIGRAM("[[\"a\",0],[1,2]]", ",\"unk_id\":0"), "vocab[1] must be [token, score]"},
    {UNIGRAM("[[\"a\",0]]", ",\"unk_id\":1"), "'unk_id' must be an integer from 0 to 0"},
    {UNIGRAM("[[\"a\",0]]", ",\"unk_id\":null"), "'unk_id' must be an integer from 0 to 0"},
    {UNIGRAM("[[\"a\",0]]", ",\"unk_id\":0,\"byte_fallback\":3"), "'byte_fallback' must be true or false"},
    {PART("normalizer", "{\"type\":\"Precompiled\"}"), "'precompiled_charsmap' must be a string"},
    {CHARMAP("CAA"), "'precompiled_charsmap' must be base64"},
    {CHARMAP("CA-A"), "'precompiled_charsmap' must be base64"},
    {CHARMAP(""), "'precompiled_charsmap' is cut short"},
    {CHARMAP("CAAAAAAAAAA="), "'precompiled_charsmap' is cut short"},
    {CHARMAP("BgAAAAAAAAABAQAA"), "'precompiled_charsmap' is cut short"},
    {CHARMAP("BAAAAAAAAAD/"), "'precompiled_charsmap' has a replacement that is not UTF-8"},
    {PART("normalizer", "{\"type\":\"BertNormalizer\"}"), "BertNormalizer: 'clean_text' must be true or false"},
    {PART("decoder", "{\"type\":\"WordPiece\",\"prefix\":\"##\"}"), "'cleanup' must be true or false"},
    {PART("normalizer", "{}"), "a normalizer has no 'type'"},
    {PART("normalizer", "{\"type\":\"Sequence\"}"), "'normalizers' must be a list"},
    {PART("normalizer", "{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{\"Regex\":\"(\"}}"), "does not compile"},
    {PART("normalizer", "{\"type\":\"Replace\",\"content\":\"\",\"pattern\":{\"Regex\":\"[a[b]]\"}}"), "sets inside brackets"},
    {PART("normalizer", "{\"type\":\"Replace\",\"content\":\"\"}"), "'pattern' must be"},
    {PART("pre_tokenizer", "{\"type\":\"UnicodeScripts\"}"), "pre-tokenizer 'UnicodeScripts' is not supported"},
    {PART("pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Sideways\",\"invert\":false}"),
     "'behavior' must be one of"},
    {PART("pre_tokenizer", "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"), "'replacement' must be one character"},
    {PART("post_processor", "{\"type\":\"Mystery\"}"), "post-processor 'Mystery' is not supported"},
    {PART("post_processor", "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"X\"}}],\"special_tokens\":{}}"),
     "'X' has no 'ids'"},
    {PART("decoder", "{\"type\":\"CTC\"}"), "decoder 'CTC' is not supported"},
    {PART("decoder", "{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}"), "'start' must be an integer"},
    {PART("added_tokens", "{}"), "'added_tokens' must be a list"},
    {PART("added_tokens", "[{\"content\":\"x\",\"id\":1}]"), "'single_word' must be true or false"},
};

static void wrong_files_are_named(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof wrong_files / sizeof *wrong_files; i++) {
        espl_tokenizer *tokenizer = NULL;
        espl_status status = open_text(wrong_files[i].json, strlen(wrong_files[i].json), &tokenizer);
        const char *message = espl_status_message();
        if (status != ESPL_ERR_DATA || !strstr(message, wrong_files[i].message) || !strstr(message, "/espl-test-") || strchr(message, '\n'))
            fail_msg("for %s: status %d, '%s', expected '%s'", wrong_files[i].json, (int)status, message, wrong_files[i].message);
        assert_null(tokenizer);
        espl_status_clear();
    }
}

/* A character map is only followed when a text asks: 2 units, the second of which has a value that lies outside the texts. */
static void damaged_character_maps_are_told(void **state) {
    (void)state;
    static const char json[] = CHARMAP("CAAAAAAAAAABAQAA");
    static const char *const texts[] = {"\x01", "a", "b\x01"};
    espl_tokenizer *tokenizer = NULL;
    espl_encoding e = {0};
    assert_int_equal(open_text(json, sizeof json - 1, &tokenizer), ESPL_OK);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(espl_tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), true, &e), ESPL_ERR_DATA);
        assert_non_null(strstr(espl_status_message(), "'precompiled_charsmap' is damaged"));
        espl_status_clear();
    }
    assert_int_equal(espl_tokenizer_encode(tokenizer, "", 0, true, &e), ESPL_OK);
    espl_encoding_free(&e);
    espl_tokenizer_close(&tokenizer);
}

/* Files of the first releases leave the model's type out. */
static void types_left_out_are_guessed(void **state) {
    (void)state;
    static const struct {
        const char *json;
        int32_t id; /* of "ab" */
    } files[] = {
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}", 2},
        {"{\"model\":{\"vocab\":{\"?\":3,\"ab\":1},\"unk_token\":\"?\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":9}"
         "}",
         1},
        {"{\"model\":{\"vocab\":[[\"?\",0],[\"a\",-1],[\"b\",-1],[\"ab\",-1.5]],\"unk_id\":0}}", 3},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        espl_tokenizer *tokenizer = NULL;
        espl_encoding e = {0};
        assert_int_equal(open_text(files[i].json, strlen(files[i].json), &tokenizer), ESPL_OK);
        assert_int_equal(espl_tokenizer_encode(tokenizer, "ab", 2, true, &e), ESPL_OK);
        assert_int_equal(e.n, 1);
        assert_int_equal(e.ids[0], files[i].id);
        espl_encoding_free(&e);
        espl_tokenizer_close(&tokenizer);
    }
}

static void missing_files_are_named(void **state) {
    (void)state;
    espl_tokenizer *tokenizer = NULL;
    assert_int_equal(espl_tokenizer_open("/no/such/folder", &tokenizer), ESPL_ERR_DATA);
    assert_non_null(strstr(espl_status_message(), "/no/such/folder: cannot open the tokenizer"));
    assert_int_equal(espl_tokenizer_open(ESPL_SOURCE_DIR "/tests", &tokenizer), ESPL_ERR_DATA);
    assert_non_null(strstr(espl_status_message(), "/tests/tokenizer.json: cannot open"));
    espl_status_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(components_agree_with_the_reference),
        cmocka_unit_test(comparison_notices_a_difference),
        cmocka_unit_test(public_tokenizers_agree_with_goldens),
        cmocka_unit_test(ids_sizes_and_hashes),
        cmocka_unit_test(encodings_grow),
        cmocka_unit_test(long_texts_take_no_square_of_time),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(wrong_files_are_named),
        cmocka_unit_test(damaged_character_maps_are_told),
        cmocka_unit_test(types_left_out_are_guessed),
        cmocka_unit_test(missing_files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
