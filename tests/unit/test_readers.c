// test: libs=io,config,core ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/readers/readers.h"
#include "src/config/config.h"
#include "src/core/buffer.h"
#include "src/core/log.h"
#include "src/core/rng.h"
#include "tests/unit/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

_Static_assert((int)ESPL_READ_TEXT == (int)ESPL_FORMAT_TEXT && (int)ESPL_READ_JSONL == (int)ESPL_FORMAT_JSONL &&
                   (int)ESPL_READ_TOKENS == (int)ESPL_FORMAT_TOKENS && (int)ESPL_READ_AUTO == (int)ESPL_FORMAT_AUTO,
               "a choice of data.format is handed to the readers as it is");
_Static_assert((int)ESPL_READ_FILE == (int)ESPL_DOCUMENT_FILE && (int)ESPL_READ_LINE == (int)ESPL_DOCUMENT_LINE &&
                   (int)ESPL_READ_PARAGRAPH == (int)ESPL_DOCUMENT_PARAGRAPH,
               "a choice of data.document is handed to the readers as it is");

/* ---- A folder of files. */

static char *folder;

static char *in_folder(const char *name) { return espl_format("%s/%s", folder, name); }

static void put(const char *name, const void *bytes, size_t n) {
    char *path = in_folder(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
    free(path);
}

static void put_text(const char *name, const char *text) { put(name, text, strlen(text)); }

static void put_gz(const char *name, const char *text, size_t n, size_t drop, const char *mode) {
    unsigned char *packed = espl_malloc(n + 1000);
    z_stream z = {.next_in = (unsigned char *)text, .avail_in = (uInt)n, .next_out = packed, .avail_out = (uInt)n + 1000};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    char *path = in_folder(name);
    FILE *file = fopen(path, mode);
    fwrite(packed, 1, z.total_out - drop, file);
    fclose(file);
    free(path);
    deflateEnd(&z);
    free(packed);
}

static void put_zst(const char *name, const char *text, size_t n, size_t drop, const char *mode) {
    size_t room = ZSTD_compressBound(n);
    char *packed = espl_malloc(room), *path = in_folder(name);
    size_t size = ZSTD_compress(packed, room, text, n, 3);
    FILE *file = fopen(path, mode);
    fwrite(packed, 1, size - drop, file);
    fclose(file);
    free(path);
    free(packed);
}

static int make_folder(void **state) {
    (void)state;
    espl_log_set(0, ESPL_LOG_ERROR, NULL); /* warnings of skipped records are counted here, not shown */
    folder = make_scratch();
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    remove_scratch(folder);
    return 0;
}

/* ---- Reading all of something: documents joined by "|". */

typedef struct reading {
    espl_status status;
    int64_t n, n_skipped, last_line;
    espl_buffer text;
} reading;

static void read_share(const espl_inputs *inputs, const espl_share *share, const espl_reader_options *options, reading *r) {
    espl_reader *reader;
    espl_document document;
    bool found = true;
    r->status = espl_reader_open(inputs, share, options, &reader);
    while (r->status == ESPL_OK && found) {
        r->status = espl_reader_next(reader, &document, &found);
        if (r->status != ESPL_OK || !found)
            break;
        if (r->n++ > 0)
            espl_buffer_append(&r->text, "|", 1);
        espl_buffer_append(&r->text, document.text, document.size);
        if (document.second != NULL)
            espl_buffer_printf(&r->text, "+%.*s", (int)document.second_size, document.second);
        if (document.label != NULL)
            espl_buffer_printf(&r->text, "=%.*s", (int)document.label_size, document.label);
        r->last_line = espl_reader_line(reader);
        assert_string_equal(document.path, inputs->items[share->input].path);
    }
    if (reader != NULL)
        r->n_skipped += espl_reader_skipped(reader);
    espl_reader_close(&reader);
}

static reading read_block(const char *name, espl_reader_options options, int64_t block) {
    reading r = {0};
    espl_inputs inputs;
    espl_share *shares = NULL;
    int64_t n = 0;
    char *path = in_folder(name);
    if (options.text_field == NULL)
        options.text_field = "";
    espl_buffer_append(&r.text, "", 0);
    r.status = espl_inputs_find(&path, 1, ESPL_READ_AUTO, &inputs);
    if (r.status == ESPL_OK)
        r.status = espl_inputs_cut(&inputs, options.unit, block, &shares, &n);
    for (int64_t i = 0; i < n && r.status == ESPL_OK; i++)
        read_share(&inputs, &shares[i], &options, &r);
    free(shares);
    espl_inputs_free(&inputs);
    free(path);
    return r;
}

static reading read_all(const char *name, espl_reader_options options) { return read_block(name, options, INT64_MAX); }

static void expect(const char *name, espl_reader_options options, const char *text) {
    reading r = read_all(name, options);
    if (r.status != ESPL_OK)
        print_message("%s\n", espl_status_message());
    assert_int_equal(r.status, ESPL_OK);
    assert_string_equal(r.text.data != NULL ? r.text.data : "", text);
    espl_buffer_free(&r.text);
}

static void expect_error(const char *name, espl_reader_options options, const char *part) {
    reading r = read_all(name, options);
    assert_int_equal(r.status, ESPL_ERR_DATA);
    if (strstr(espl_status_message(), part) == NULL || strstr(espl_status_message(), name) == NULL)
        fail_msg("'%s' does not say '%s'", espl_status_message(), part);
    espl_status_clear();
    espl_buffer_free(&r.text);
}

#define LINES ((espl_reader_options){.unit = ESPL_READ_LINE})
#define PARAGRAPHS ((espl_reader_options){.unit = ESPL_READ_PARAGRAPH})
#define FILES ((espl_reader_options){.unit = ESPL_READ_FILE})
#define SKIPPING ((espl_reader_options){.skip_bad = true})

/* ---- Text. */

static void text_in_three_units(void **state) {
    (void)state;
    put_text("a.txt", "\xEF\xBB\xBFone\r\ntwo\r\n\r\n \t\nthree\n\n\nfour\nfive");
    expect("a.txt", LINES, "one|two|three|four|five");
    expect("a.txt", PARAGRAPHS, "one\ntwo|three|four\nfive");
    expect("a.txt", FILES, "one\r\ntwo\r\n\r\n \t\nthree\n\n\nfour\nfive");
    put_text("bad-utf8.txt", "caf\xE9 \xFF\n");
    expect("bad-utf8.txt", LINES, "caf\xE9 \xFF");
    put_text("zero.txt", "");
    put_text("blank.txt", " \n\n \r\n");
    put_text("mark.txt", "\xEF\xBB\xBF");
    for (int unit = ESPL_READ_FILE; unit <= ESPL_READ_PARAGRAPH; unit++) {
        expect("zero.txt", (espl_reader_options){.unit = (espl_read_unit)unit}, "");
        expect("blank.txt", (espl_reader_options){.unit = (espl_read_unit)unit}, "");
        expect("mark.txt", (espl_reader_options){.unit = (espl_read_unit)unit}, "");
    }
}

static char *long_text(size_t n) {
    char *text = espl_malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + i % 23);
    text[n] = '\0';
    return text;
}

static void long_lines(void **state) {
    (void)state;
    size_t n = (5 << 20) + 17;
    char *text = long_text(n), *json = espl_format("{\"text\":\"%s\"}\n{\"text\": \"short\"}", text);
    char *expected = espl_format("%s|short", text);
    put_text("long.jsonl", json);
    expect("long.jsonl", LINES, expected);
    put_gz("long.jsonl.gz", json, strlen(json), 0, "wb");
    expect("long.jsonl.gz", LINES, expected);
    put_zst("long.jsonl.zst", json, strlen(json), 0, "wb");
    expect("long.jsonl.zst", LINES, expected);
    free(expected);
    free(json);
    free(text);
}

/* ---- JSON. */

static void json_lines(void **state) {
    (void)state;
    put_text("j.jsonl", "{\"text\": \"a\\nb\"}\n\n{\"input\": \"c\", \"n\": 1}\r\n{\"text\":\"\"}\n{\"text\":\"\\u00e9\\u0000z\"}");
    reading r = read_all("j.jsonl", LINES);
    assert_int_equal(r.status, ESPL_OK);
    assert_int_equal(r.n, 3);
    assert_int_equal(r.last_line, 5);
    assert_int_equal(r.text.size, 10);
    assert_memory_equal(r.text.data, "a\nb|c|\xC3\xA9\0z", 10);
    espl_buffer_free(&r.text);
    put_text("k.jsonl", "{\"text\": \"no\", \"body\": \"yes\"}\n");
    expect("k.jsonl", (espl_reader_options){.text_field = "body"}, "yes");
}

static void bad_json_lines_are_named(void **state) {
    (void)state;
    const struct {
        const char *line, *says;
    } cases[] = {{"{\"text\": \"a\"", "b.jsonl:3: is not JSON"},
                 {"{\"txt\": \"a\"}", "b.jsonl:3: key 'text' (or 'input') missing"},
                 {"{\"text\": 5}", "b.jsonl:3: key 'text' holds a number, expected a string"},
                 {"[\"text\"]", "b.jsonl:3: is an array, expected an object"},
                 {"\"text\"", "b.jsonl:3: is a string, expected an object"},
                 {"{\"text\": \"\xFF\"}", "b.jsonl:3: is not JSON"},
                 {"{\"text\": \"\\ud800\"}", "b.jsonl:3: is not JSON"},
                 {"{\"text\": \"a\"} {}", "b.jsonl:3: is not JSON"},
                 {"\x01\x02", "b.jsonl:3: is not JSON"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = espl_format("{\"text\": \"first\"}\n\n%s\n{\"text\": \"last\"}\n", cases[i].line);
        put_text("b.jsonl", text);
        expect_error("b.jsonl", LINES, cases[i].says);
        expect("b.jsonl", SKIPPING, "first|last");
        reading r = read_all("b.jsonl", SKIPPING);
        assert_int_equal(r.n_skipped, 1);
        espl_buffer_free(&r.text);
        free(text);
    }
    put_text("b.jsonl", "{\"text\": \"a\"}\n");
    expect_error("b.jsonl", (espl_reader_options){.text_field = "body"}, "b.jsonl:1: key 'body' missing");
}

static void json_arrays(void **state) {
    (void)state;
    put_text("a.json", "\n [\n {\"text\": \"a]}\\\"\"},\n{\"text\":\n\"b\", \"x\": [1, {\"y\": \"]\"}]} ,{\"input\":\"c\"}]\n\n");
    expect("a.json", LINES, "a]}\"|b|c");
    put_text("e.json", "[]");
    expect("e.json", LINES, "");
    put_text("n.json", "[\n{\"text\": \"a\"},\n5, {\"txt\": 1},\n{\"text\": \"b\"}]");
    expect_error("n.json", LINES, "n.json:3: is a number, expected an object");
    expect("n.json", SKIPPING, "a|b");
    put_text("s.json", "[{\"text\": \"a\"}},\n}, 5}, {\"text\": \"b\"}]");
    expect_error("s.json", LINES, "s.json:1: is not JSON");
    expect("s.json", SKIPPING, "a|b");
    put_text("t.json", "[{\"text\": \"a\"},\n{\"text\": \"b\"");
    expect_error("t.json", LINES, "t.json:2: the file ends within the array");
    put_text("u.json", "[{\"text\": \"a\"},\n");
    expect_error("u.json", LINES, "u.json:2: the file ends within the array");
    put_text("g.json", "[{\"text\": \"a\"}]\n{\"text\": \"b\"}");
    expect_error("g.json", LINES, "g.json:2: something stands behind");
}

/* ---- Packed files. */

static void packed_members_and_frames(void **state) {
    (void)state;
    put_gz("m.txt.gz", "one\ntw", 6, 0, "wb");
    put_gz("m.txt.gz", "", 0, 0, "ab");
    put_gz("m.txt.gz", "o\nthree", 7, 0, "ab");
    expect("m.txt.gz", LINES, "one|two|three");
    char *path = in_folder("m.txt.gz");
    FILE *file = fopen(path, "ab");
    fwrite("\0\0\0\0", 1, 4, file);
    fclose(file);
    free(path);
    expect("m.txt.gz", LINES, "one|two|three");
    put_zst("m.txt.zst", "one\ntw", 6, 0, "wb");
    put_zst("m.txt.zst", "", 0, 0, "ab");
    put_zst("m.txt.zst", "o\nthree", 7, 0, "ab");
    expect("m.txt.zst", LINES, "one|two|three");
}

static void damaged_packed_files_are_named(void **state) {
    (void)state;
    char *text = long_text(300000);
    for (size_t i = 0; i < 300000; i += 50)
        text[i] = '\n';
    put_gz("cut.txt.gz", text, 300000, 1, "wb");
    expect_error("cut.txt.gz", LINES, "truncated");
    put_gz("cut2.txt.gz", text, 300000, 400, "wb");
    expect_error("cut2.txt.gz", LINES, "truncated");
    put_zst("cut.txt.zst", text, 300000, 1, "wb");
    expect_error("cut.txt.zst", LINES, "truncated");
    put_text("empty.txt.gz", "");
    expect_error("empty.txt.gz", LINES, "truncated");
    put_text("empty.txt.zst", "");
    expect_error("empty.txt.zst", LINES, "truncated");
    put_text("not.txt.gz", "plain text");
    expect_error("not.txt.gz", LINES, "damaged gzip");
    put_text("not.txt.zst", "plain text");
    expect_error("not.txt.zst", LINES, "damaged zstd");
    free(text);
}

/* ---- Shares: whatever the block, the same documents and the same line numbers. */

static void append_random_line(espl_buffer *text, uint64_t i, bool json) {
    espl_rng_key key = {.seed = 1, .purpose = ESPL_RNG_TEST};
    uint32_t length = espl_rng_u32(&key, 2 * i) % 12;
    if (json)
        espl_buffer_printf(text, length == 0 ? "" : "{\"text\": \"%.*s%llu\"}", (int)length, "abcdefghijkl", (unsigned long long)i);
    else
        espl_buffer_printf(text, "%.*s", (int)(length > 6 ? length : 0), "abcdefghijkl");
    espl_buffer_append(text, espl_rng_u32(&key, 2 * i + 1) % 4 == 0 ? "\r\n" : "\n", espl_rng_u32(&key, 2 * i + 1) % 4 == 0 ? 2 : 1);
}

static void shares_tile_the_documents(void **state) {
    (void)state;
    for (int json = 0; json < 2; json++)
        for (int unit = ESPL_READ_LINE; unit <= ESPL_READ_PARAGRAPH; unit++) {
            espl_buffer text = {0};
            for (uint64_t i = 0; i < 60; i++)
                append_random_line(&text, i, json);
            const char *name = json ? "s.jsonl" : "s.txt";
            put(name, text.data, text.size);
            espl_reader_options options = {.unit = (espl_read_unit)unit};
            reading whole = read_all(name, options);
            assert_true(whole.n > 10);
            for (int64_t block = 1; block < (int64_t)text.size; block += 1 + block / 5) {
                reading r = read_block(name, options, block);
                assert_int_equal(r.status, ESPL_OK);
                assert_int_equal(r.n, whole.n);
                assert_string_equal(r.text.data, whole.text.data);
                assert_int_equal(r.last_line, whole.last_line);
                espl_buffer_free(&r.text);
            }
            espl_buffer_free(&whole.text);
            espl_buffer_free(&text);
        }
}

static void marked_first_line_is_not_lost(void **state) {
    (void)state;
    put_text("mark-cut.txt", "\xEF\xBB\xBFone\ntwo\n");
    for (int64_t block = 1; block < 12; block++) {
        reading r = read_block("mark-cut.txt", LINES, block);
        assert_string_equal(r.text.data, "one|two");
        espl_buffer_free(&r.text);
    }
}

static void bad_line_of_a_later_share(void **state) {
    (void)state;
    espl_buffer text = {0};
    for (int i = 1; i <= 5000; i++)
        espl_buffer_printf(&text, i == 4321 ? "{\"text\": }\n" : "{\"text\": \"%d\"}\n", i);
    put("late.jsonl", text.data, text.size);
    reading r = read_block("late.jsonl", LINES, 1000);
    assert_int_equal(r.status, ESPL_ERR_DATA);
    assert_non_null(strstr(espl_status_message(), "late.jsonl:4321: is not JSON"));
    espl_buffer_free(&r.text);
    put_text("array.json", "[{\"text\": \"a\"}, {\"text\": \"b\"}]");
    r = read_block("array.json", LINES, 4); /* an array is not cut */
    assert_string_equal(r.text.data, "a|b");
    espl_buffer_free(&r.text);
    espl_buffer_free(&text);
}

/* ---- Records with labels and targets. */

#define LABELLED ((espl_reader_options){.kind = ESPL_READ_LABELLED})
#define PAIRED ((espl_reader_options){.kind = ESPL_READ_PAIRED})

static void labelled_json(void **state) {
    (void)state;
    put_text("l.jsonl",
             "{\"text\":\"a\",\"label\":\"x\"}\n{\"input\":\"b\",\"label\":-3}\n{\"text\":\"c\",\"text_pair\":\"d\",\"label\":0}\n");
    expect("l.jsonl", LABELLED, "a=x|b=-3|c+d=0");
    put_text("n.jsonl", "{\"body\":\"a\",\"also\":\"b\",\"class\":\"x\",\"label\":1}\n");
    expect("n.jsonl",
           (espl_reader_options){.kind = ESPL_READ_LABELLED, .text_field = "body", .second_field = "also", .label_field = "class"},
           "a+b=x");
    put_text("p.jsonl", "[{\"input\":\"a\",\"target\":\"b\"},{\"input\":\"c\",\"target\":\"d\"}]");
    expect("p.jsonl", PAIRED, "a+b|c+d");
    put_text("t.jsonl", "{\"input\":\"a\",\"target\":\"b\"}\n{\"input\":\"a\",\"target\":7}\n");
    expect_error("t.jsonl", PAIRED, "t.jsonl:2: key 'target' holds a number, expected a string");
    expect_error("l.jsonl", PAIRED, "l.jsonl:1: key 'input' missing");
    put_text("b.jsonl", "{\"text\":\"a\",\"label\":true}\n");
    expect_error("b.jsonl", LABELLED, "key 'label' holds true, expected a string or an integer");
    put_text("plain.txt", "a");
    expect_error("plain.txt", PAIRED, "a text file has no target, expected jsonl, csv or tsv");
}

static void csv_as_rfc_4180_has_it(void **state) {
    (void)state;
    put_text(
        "a.csv",
        "\xEF\xBB\xBFlabel,text,note\r\n1,plain,\r\n2,\"with, comma\",x\r\n\r\n3,\"two\nlines\",\"\"\r\n4,\"a \"\"quoted\"\" word\",\r\n"
        "5,inner \"quote\" stays,x\r\n6,a\"\"b,\"c\"");
    expect("a.csv", LABELLED, "plain=1|with, comma=2|two\nlines=3|a \"quoted\" word=4|inner \"quote\" stays=5|a\"\"b=6");
    expect("a.csv", (espl_reader_options){0}, "plain|with, comma|two\nlines|a \"quoted\" word|inner \"quote\" stays|a\"\"b");
    put_text("a.tsv", "text\tlabel\na, b\tx\n\"c\td\"\ty\n");
    expect("a.tsv", LABELLED, "a, b=x|c\td=y");
    put_text("header.csv", "text,label\n");
    expect("header.csv", LABELLED, "");
    put_text("none.csv", "");
    expect("none.csv", LABELLED, "");
}

static void bad_csv_is_named(void **state) {
    (void)state;
    const struct {
        const char *text, *says;
    } cases[] = {
        {"id,body\n1,x\n", "bad.csv:1: there is no column 'text'; the first line names the columns id, body; data.text_field says which"},
        {"text,label\na,1\nb\n", "bad.csv:3: has 1 fields, expected 2"},
        {"text,label\n\"a\nb\",1\nc,1,2\n", "bad.csv:4: has 3 fields"},
        {"text,label\na,1\n\"b,1\nc,1\n", "bad.csv:3: the file ends within quotes"},
        {"text,label\n\"a\" b,1\n", "bad.csv:2: field 1 goes on behind its closing quote"},
        {"text,label\n,1\n", "bad.csv:2: 'text' is empty"},
        {"text,label\na,\n", "bad.csv:2: 'label' is empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_text("bad.csv", cases[i].text);
        expect_error("bad.csv", LABELLED, cases[i].says);
    }
    put_text("bad.csv", "text,label\na,1\nb\n\"c\" d,2\ne,3\n\"f,4\n");
    reading r = read_all("bad.csv", (espl_reader_options){.kind = ESPL_READ_LABELLED, .skip_bad = true, .silent = true});
    assert_int_equal(r.status, ESPL_OK);
    assert_string_equal(r.text.data, "a=1|e=3");
    assert_int_equal(r.n_skipped, 3);
    espl_buffer_free(&r.text);
}

/* ---- Finding. */

static void check_found(char *const *paths, int64_t n, const char *expected) {
    espl_inputs inputs;
    espl_buffer names = {0};
    assert_int_equal(espl_inputs_find(paths, n, ESPL_READ_AUTO, &inputs), ESPL_OK);
    for (int64_t i = 0; i < inputs.n; i++)
        espl_buffer_printf(&names, "%s:%d%d ", inputs.items[i].path + strlen(folder) + 1, inputs.items[i].format, inputs.items[i].packing);
    assert_string_equal(names.data, expected);
    espl_buffer_free(&names);
    espl_inputs_free(&inputs);
}

static void check_missing(const char *name, const char *says) {
    espl_inputs inputs;
    char *path = in_folder(name);
    assert_int_equal(espl_inputs_find(&path, 1, ESPL_READ_AUTO, &inputs), ESPL_ERR_DATA);
    assert_non_null(strstr(espl_status_message(), says));
    assert_non_null(strstr(espl_status_message(), path));
    assert_int_equal(inputs.n, 0);
    free(path);
}

static void finds_folders_and_globs(void **state) {
    (void)state;
    char *tree[] = {in_folder("d"),          in_folder("d/sub"),       in_folder("d/empty"),
                    in_folder("d/*.jsonl*"), in_folder("d/sub/q.txt"), in_folder("d/[x].txt")};
    for (int i = 0; i < 3; i++)
        assert_int_equal(mkdir(tree[i], 0755), 0);
    put_text("d/b.jsonl", "");
    put_text("d/a.jsonl.gz", "");
    put_text("d/.hidden.jsonl", "");
    put_text("d/c.ndjson.zst", "");
    put_text("d/sub/q.txt", "");
    put_text("d/sub/r.h5", "");
    put_text("d/[x].txt", "");
    check_found(&tree[0], 1, "d/[x].txt:10 d/a.jsonl.gz:21 d/b.jsonl:20 d/c.ndjson.zst:22 d/sub/q.txt:10 d/sub/r.h5:60 ");
    check_found(&tree[3], 1, "d/a.jsonl.gz:21 d/b.jsonl:20 ");
    check_found(&tree[4], 2, "d/sub/q.txt:10 d/[x].txt:10 ");
    check_missing("d/nothing", "no such file");
    check_missing("d/*.csv", "matches no file");
    check_missing("d/empty", "no file in it");
    for (size_t i = 0; i < sizeof tree / sizeof tree[0]; i++)
        free(tree[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_in_three_units),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(json_lines),
        cmocka_unit_test(bad_json_lines_are_named),
        cmocka_unit_test(json_arrays),
        cmocka_unit_test(packed_members_and_frames),
        cmocka_unit_test(damaged_packed_files_are_named),
        cmocka_unit_test(shares_tile_the_documents),
        cmocka_unit_test(bad_line_of_a_later_share),
        cmocka_unit_test(marked_first_line_is_not_lost),
        cmocka_unit_test(labelled_json),
        cmocka_unit_test(csv_as_rfc_4180_has_it),
        cmocka_unit_test(bad_csv_is_named),
        cmocka_unit_test(finds_folders_and_globs),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
