// test: libs=io,data,comm,core ranks=1+2+4 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/tokens/tokens.h"
#include "io/tokens/tokens_internal.h"
#include "src/core/buffer.h"
#include "src/core/log.h"
#include "src/core/rng.h"
#include "src/data/placement.h"
#include "tests/unit/scratch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>

/* ---- What all tests share: the ranks, a folder, a tokenizer of bytes. */

static espl_comm *comm;
static char *folder;
static espl_tokenizer *bytes_tokenizer, *wide_tokenizer;
static FILE *log_file;

static bool first_rank(void) { return espl_comm_ranks(comm)->rank == 0; }

static void meet(void) { assert_int_equal(espl_comm_barrier(comm), ESPL_OK); }

static char *in_folder(const char *name) { return espl_format("%s/%s", folder, name); }

/* Rank 0 writes, all wait. */
static void put(const char *name, const void *bytes, size_t n) {
    meet();
    if (first_rank()) {
        char *path = in_folder(name);
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_true(n == 0 || fwrite(bytes, 1, n, file) == n);
        fclose(file);
        free(path);
    }
    meet();
}

static void put_text(const char *name, const char *text) { put(name, text, strlen(text)); }

static void append_utf8(espl_buffer *text, unsigned code) {
    if (code < 0x80)
        espl_buffer_printf(text, code == '"' || code == '\\' ? "\\%c" : "%c", (int)code);
    else
        espl_buffer_printf(text, "%c%c", (int)(0xC0 | code >> 6), (int)(0x80 | (code & 63)));
}

/* Byte-level BPE without merges: a byte a token, in GPT-2's order of printable characters, then the end of text, then `extra` unused. */
static void write_tokenizer(const char *name, int extra) {
    espl_buffer text = {0};
    espl_buffer_printf(&text,
                       "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[{\"id\":256,\"content\":\"<end>\","
                       "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}],"
                       "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
                       "\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
                       "\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                       "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,"
                       "\"vocab\":{");
    unsigned shifted = 256;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
        espl_buffer_printf(&text, "%s\"", byte > 0 ? "," : "");
        append_utf8(&text, printable ? byte : shifted++);
        espl_buffer_printf(&text, "\":%u", byte);
    }
    espl_buffer_printf(&text, ",\"<end>\":256");
    for (int i = 0; i < extra; i++)
        espl_buffer_printf(&text, ",\"<extra%d>\":%d", i, 257 + i);
    espl_buffer_printf(&text, "},\"merges\":[]}}");
    put(name, text.data, text.size);
    espl_buffer_free(&text);
}

static espl_tokenizer *open_tokenizer(const char *name) {
    espl_tokenizer *tokenizer = NULL;
    char *path = in_folder(name);
    if (espl_tokenizer_open(path, &tokenizer) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    free(path);
    return tokenizer;
}

static int set_up(void **state) {
    (void)state;
    if (espl_comm_open(&comm, 0) != ESPL_OK)
        return -1;
    folder = share_scratch(comm);
    log_file = tmpfile();
    espl_log_set(espl_comm_ranks(comm)->rank, ESPL_LOG_ERROR, log_file);
    write_tokenizer("bytes.json", 0);
    write_tokenizer("wide.json", 65600 - 257);
    bytes_tokenizer = open_tokenizer("bytes.json");
    wide_tokenizer = open_tokenizer("wide.json");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    espl_tokenizer_close(&bytes_tokenizer);
    espl_tokenizer_close(&wide_tokenizer);
    espl_log_set(0, ESPL_LOG_INFO, NULL);
    fclose(log_file);
    unshare_scratch(comm, folder);
    espl_comm_close(&comm);
    return 0;
}

/* What the log has said since the last call. */
static char *said(void) {
    static long from;
    char *text = espl_calloc(1, 65536);
    fseek(log_file, from, SEEK_SET);
    size_t n = fread(text, 1, 65535, log_file);
    from += (long)n;
    return text;
}

static void check_said(const char *part, bool expected) {
    char *text = said();
    if ((strstr(text, part) != NULL) != expected)
        fail_msg("'%s' %s '%s'", text, expected ? "does not say" : "says", part);
    free(text);
}

/* ---- Preparing. */

static espl_tokens_recipe recipe_of(char **path) {
    static char *cache;
    free(cache);
    cache = in_folder("cache/deep");
    return (espl_tokens_recipe){
        .paths = path, .n_paths = 1, .text_field = "", .document = ESPL_READ_LINE, .append_eos = true, .eos = 256, .cache = cache};
}

static char *prepare(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe) {
    char *store = NULL;
    if (espl_tokens_prepare(comm, tokenizer, recipe, &store) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    return store;
}

static void check_fails(const espl_tokens_recipe *recipe, espl_status code, const char *part) {
    char *store = NULL;
    assert_int_equal(espl_tokens_prepare(comm, bytes_tokenizer, recipe, &store), code);
    if (strstr(espl_status_message(), part) == NULL)
        fail_msg("'%s' does not say '%s'", espl_status_message(), part);
    assert_null(store);
    espl_status_clear();
}

/* All documents of the inputs, read by one reader and tokenised one by one: the slow way that is obviously right. */
typedef struct naive {
    espl_buffer ids, documents; /* int32_t, int64_t */
    int64_t n_tokens, n_documents, n_bytes;
} naive;

static void naive_add(naive *all, const espl_tokenizer *tokenizer, const espl_document *document, int32_t eos) {
    espl_encoding encoding = {0};
    assert_int_equal(espl_tokenizer_encode(tokenizer, document->text, document->size, true, &encoding), ESPL_OK);
    espl_buffer_append(&all->ids, encoding.ids, (size_t)encoding.n * sizeof *encoding.ids);
    if (eos >= 0)
        espl_buffer_append(&all->ids, &eos, sizeof eos);
    all->n_tokens += encoding.n + (eos >= 0);
    espl_buffer_append(&all->documents, &all->n_tokens, sizeof all->n_tokens);
    all->n_documents++;
    all->n_bytes += (int64_t)document->size;
    espl_encoding_free(&encoding);
}

static naive read_naively(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe) {
    naive all = {0};
    const int64_t zero = 0;
    espl_inputs inputs;
    espl_buffer_append(&all.documents, &zero, sizeof zero);
    assert_int_equal(espl_inputs_find(recipe->paths, recipe->n_paths, (espl_read_format)recipe->format, &inputs), ESPL_OK);
    for (int64_t i = 0; i < inputs.n; i++) {
        espl_share share = {.input = i, .end = inputs.items[i].bytes};
        espl_reader_options options = {
            .text_field = recipe->text_field, .unit = (espl_read_unit)recipe->document, .skip_bad = recipe->skip_bad};
        espl_reader *reader;
        espl_document document;
        bool found;
        assert_int_equal(espl_reader_open(&inputs, &share, &options, &reader), ESPL_OK);
        while (espl_reader_next(reader, &document, &found) == ESPL_OK && found)
            naive_add(&all, tokenizer, &document, recipe->append_eos ? recipe->eos : -1);
        espl_reader_close(&reader);
    }
    espl_inputs_free(&inputs);
    return all;
}

static void check_store(const char *path, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe) {
    espl_tokens tokens;
    naive all = read_naively(tokenizer, recipe);
    if (espl_tokens_open(path, true, &tokens) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    assert_int_equal(tokens.n_tokens, all.n_tokens);
    assert_int_equal(tokens.n_documents, all.n_documents);
    assert_int_equal(tokens.n_bytes, all.n_bytes);
    assert_int_equal(tokens.vocabulary, espl_tokenizer_size(tokenizer));
    assert_memory_equal(tokens.documents, all.documents.data, all.documents.size);
    const int32_t *ids = (const int32_t *)all.ids.data;
    assert_int_equal(tokens.ids16 != NULL, espl_tokenizer_size(tokenizer) <= 65536);
    for (int64_t t = 0; t < all.n_tokens; t++)
        if ((tokens.ids16 != NULL ? tokens.ids16[t] : tokens.ids32[t]) != (uint32_t)ids[t])
            fail_msg("token %lld differs", (long long)t);
    assert_null(tokens.mask);
    espl_tokens_close(&tokens);
    espl_buffer_free(&all.ids);
    espl_buffer_free(&all.documents);
}

static void append_words(espl_buffer *text, uint64_t record) {
    static const char *const words[] = {"the", "ranks", "read", "lines", "caf\xC3\xA9", "of", "text", "and", "count"};
    espl_rng_key key = {.seed = 4, .purpose = ESPL_RNG_TEST};
    uint32_t n = 1 + espl_rng_u32(&key, record * 64) % 60;
    for (uint32_t w = 0; w < n; w++)
        espl_buffer_printf(text, "%s%s", w > 0 ? " " : "", words[espl_rng_u32(&key, record * 64 + w + 1) % 9]);
}

static void put_records(const char *name, uint64_t from, uint64_t to, bool json) {
    espl_buffer text = {0};
    for (uint64_t r = from; r < to; r++) {
        espl_buffer_printf(&text, json ? "{\"text\": \"" : "%s", "");
        append_words(&text, r);
        espl_buffer_printf(&text, "%s", json ? "\"}\n" : "\n");
    }
    put(name, text.data, text.size);
    espl_buffer_free(&text);
}

static void make_corpus(const char *name) {
    char *path = in_folder(name);
    meet();
    if (first_rank())
        assert_int_equal(mkdir(path, 0755), 0);
    free(path);
    for (int i = 0; i < 9; i++) {
        char *file = espl_format("%s/part%d.%s", name, i, i % 3 == 0 ? "txt" : "jsonl");
        put_records(file, (uint64_t)i * 1000, (uint64_t)i * 1000 + 40 * (uint64_t)i, i % 3 != 0);
        free(file);
    }
    char *big = espl_format("%s/zz.jsonl", name); /* cut into several shares */
    put_records(big, 100000, 140000, true);
    free(big);
}

/* ---- Tests. */

static uint64_t file_hash(const char *path) {
    static char block[1 << 16];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    XXH64_state_t *hash = XXH64_createState();
    XXH64_reset(hash, 0);
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;)
        XXH64_update(hash, block, n);
    uint64_t result = XXH64_digest(hash);
    XXH64_freeState(hash);
    fclose(file);
    return result;
}

static void any_ranks_and_threads_make_the_same(void **state) {
    (void)state;
    make_corpus("corpus");
    char *path = in_folder("corpus");
    espl_tokens_recipe recipe = recipe_of(&path);
    recipe.threads = 1;
    char *store = prepare(bytes_tokenizer, &recipe);
    check_store(store, bytes_tokenizer, &recipe);
    uint64_t hash = file_hash(store);
    if (first_rank())
        print_message("%d ranks: file hash %016llx\n", espl_comm_ranks(comm)->size, (unsigned long long)hash);
    meet();
    if (first_rank())
        unlink(store);
    meet();
    recipe.threads = 3;
    char *again = prepare(bytes_tokenizer, &recipe);
    assert_string_equal(again, store);
    assert_int_equal(file_hash(again), hash);
    free(store);
    free(again);
    free(path);
}

static void wide_vocabularies_take_32_bits(void **state) {
    (void)state;
    put_records("w.jsonl", 0, 50, true);
    char *path = in_folder("w.jsonl");
    espl_tokens_recipe recipe = recipe_of(&path);
    recipe.append_eos = false;
    char *store = prepare(wide_tokenizer, &recipe);
    check_store(store, wide_tokenizer, &recipe);
    free(store);
    free(path);
}

static void cache_is_reused_and_keyed(void **state) {
    (void)state;
    put_records("k.txt", 0, 30, false);
    char *path = in_folder("k.txt");
    espl_tokens_recipe recipe = recipe_of(&path);
    char *one = prepare(bytes_tokenizer, &recipe);
    struct stat before, after;
    assert_int_equal(stat(one, &before), 0);
    free(said());
    char *two = prepare(bytes_tokenizer, &recipe);
    check_said("tokenised", false);
    assert_string_equal(one, two);
    assert_int_equal(stat(two, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    free(two);
    espl_tokens_recipe others[4] = {recipe, recipe, recipe, recipe};
    others[0].append_eos = false;
    others[1].document = ESPL_READ_FILE;
    others[2].text_field = "body";
    others[3].eos = 10;
    for (int i = 0; i < 4; i++) {
        two = prepare(bytes_tokenizer, &others[i]);
        assert_string_not_equal(one, two);
        free(two);
    }
    two = prepare(wide_tokenizer, &recipe);
    assert_string_not_equal(one, two);
    free(two);
    put_records("k.txt", 1, 31, false); /* other contents */
    two = prepare(bytes_tokenizer, &recipe);
    assert_string_not_equal(one, two);
    check_store(two, bytes_tokenizer, &recipe);
    free(two);
    free(one);
    free(path);
}

typedef void damage_function(const char *path);

static void flip_last_id(const char *path) {
    espl_store_layout layout;
    assert_int_equal(espl__store_inspect(path, &layout), ESPL_OK);
    int fd = open(path, O_RDWR);
    uint8_t byte;
    off_t at = (off_t)(layout.sets[ESPL_STORE_IDS].offset + layout.sets[ESPL_STORE_IDS].n);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void cut_file(const char *path) {
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(truncate(path, found.st_size - 100), 0);
}

static void empty_file(const char *path) { assert_int_equal(truncate(path, 0), 0); }

/* As a job leaves it that is killed after allocating. */
static void never_finish(const char *path) {
    espl_store_layout layout;
    assert_int_equal(espl__store_inspect(path, &layout), ESPL_OK);
    assert_int_equal(espl__store_create(path, &layout), ESPL_OK);
}

static void damaged_caches_are_made_again(void **state) {
    (void)state;
    const struct {
        damage_function *damage;
        const char *says;
    } cases[] = {{flip_last_id, "dataset ids is damaged"},
                 {cut_file, "truncated"},
                 {empty_file, "truncated"},
                 {never_finish, "not a finished token store"}};
    put_records("d.jsonl", 0, 60, true);
    char *path = in_folder("d.jsonl");
    espl_tokens_recipe recipe = recipe_of(&path);
    char *store = prepare(bytes_tokenizer, &recipe);
    uint64_t hash = file_hash(store);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        meet();
        if (first_rank())
            cases[i].damage(store);
        meet();
        free(said());
        char *again = prepare(bytes_tokenizer, &recipe);
        check_said(cases[i].says, true);
        assert_string_equal(again, store);
        assert_int_equal(file_hash(again), hash);
        free(again);
    }
    free(store);
    free(path);
}

static void leftovers_are_removed(void **state) {
    (void)state;
    put_records("l.jsonl", 0, 10, true);
    char *path = in_folder("l.jsonl");
    espl_tokens_recipe recipe = recipe_of(&path);
    char *store = prepare(bytes_tokenizer, &recipe);
    char *old = espl_format("%s.tmp-1", store), *young = espl_format("%s.tmp-2", store);
    const struct timespec long_ago[2] = {{.tv_sec = time(NULL) - 7200}, {.tv_sec = time(NULL) - 7200}};
    meet();
    if (first_rank()) {
        fclose(fopen(old, "wb"));
        fclose(fopen(young, "wb"));
        assert_int_equal(utimensat(AT_FDCWD, old, long_ago, 0), 0);
    }
    meet();
    free(prepare(bytes_tokenizer, &recipe));
    assert_int_equal(access(old, F_OK), -1);
    assert_int_equal(access(young, F_OK), 0); /* may be another job's */
    free(old);
    free(young);
    free(store);
    free(path);
}

static void bad_input_is_named_on_every_rank(void **state) {
    (void)state;
    put_records("good.jsonl", 0, 200, true);
    put_text("z-bad.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n{\"text\": \"c\"}\n");
    put_text("none.jsonl", "\n{\"text\": \"\"}\n");
    put_text("only-bad.jsonl", "nothing\n");
    put("cut.txt.gz", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", 10);
    char *paths[] = {in_folder("good.jsonl"), in_folder("z-bad.jsonl")}, *none = in_folder("none.jsonl"),
         *bad = in_folder("only-bad.jsonl"), *missing = in_folder("missing.jsonl"), *glob = in_folder("*.nothing"),
         *cut = in_folder("cut.txt.gz");
    espl_tokens_recipe recipe = recipe_of(paths);
    recipe.n_paths = 2;
    check_fails(&recipe, ESPL_ERR_DATA, "z-bad.jsonl:2: key 'text' (or 'input') missing");
    recipe.skip_bad = true;
    free(said());
    char *store = prepare(bytes_tokenizer, &recipe);
    check_said("1 bad records skipped", first_rank());
    check_store(store, bytes_tokenizer, &recipe);
    free(store);
    recipe = recipe_of(&none);
    check_fails(&recipe, ESPL_ERR_DATA, "no document");
    recipe = recipe_of(&bad);
    recipe.skip_bad = true;
    check_fails(&recipe, ESPL_ERR_DATA, "no document");
    recipe = recipe_of(&missing);
    check_fails(&recipe, ESPL_ERR_DATA, "missing.jsonl: no such file");
    recipe = recipe_of(&glob);
    check_fails(&recipe, ESPL_ERR_DATA, "*.nothing: the pattern matches no file");
    recipe = recipe_of(&cut);
    check_fails(&recipe, ESPL_ERR_DATA, "cut.txt.gz: truncated");
    recipe = recipe_of(paths);
    recipe.eos = 257;
    check_fails(&recipe, ESPL_ERR_USAGE, "append_eos");
    recipe.n_paths = 0;
    check_fails(&recipe, ESPL_ERR_USAGE, "no data is named");
    char *all[] = {paths[0], paths[1], none, bad, missing, glob, cut};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

/* ---- Stores that come from elsewhere. */

typedef struct made_store {
    uint16_t ids[8];
    int64_t documents[4];
    uint8_t mask[8];
    int64_t bytes;
} made_store;

static const made_store good_store = {
    .ids = {1, 2, 3, 4, 5, 6, 7, 256}, .documents = {0, 3, 3, 8}, .mask = {0, 1, 1, 0, 1, 1, 1, 1}, .bytes = 20};

static void write_made_store(const char *path, const made_store *made) {
    espl_store_layout layout = {.key = 77, .vocabulary = 257};
    const void *const data[] = {made->ids, made->documents, made->mask, &made->bytes};
    const int64_t n[] = {8, 4, 8, 1}, width[] = {2, 8, 1, 8};
    for (int i = 0; i <= ESPL_STORE_BYTES; i++)
        layout.sets[i] = (espl_store_set){.n = n[i], .width = width[i]};
    assert_int_equal(espl__store_create(path, &layout), ESPL_OK);
    int fd = open(path, O_RDWR);
    for (int i = 0; i <= ESPL_STORE_BYTES; i++)
        assert_int_equal(pwrite(fd, data[i], (size_t)(n[i] * width[i]), (off_t)layout.sets[i].offset), n[i] * width[i]);
    close(fd);
    assert_int_equal(espl__store_checksums(NULL, path, &layout), ESPL_OK);
    assert_int_equal(espl__store_seal(path, &layout), ESPL_OK);
}

static void stores_are_used_as_they_are(void **state) {
    (void)state;
    char *path = in_folder("own.h5"), *used = NULL;
    if (first_rank())
        write_made_store(path, &good_store);
    meet();
    espl_tokens_recipe recipe = recipe_of(&path);
    assert_int_equal(espl_tokens_prepare(comm, NULL, &recipe, &used), ESPL_OK);
    assert_string_equal(used, path);
    espl_tokens tokens;
    assert_int_equal(espl_tokens_open(used, true, &tokens), ESPL_OK);
    assert_int_equal(tokens.n_tokens, 8);
    assert_int_equal(tokens.n_documents, 3);
    assert_int_equal(tokens.key, 77);
    assert_memory_equal(tokens.ids16, good_store.ids, sizeof good_store.ids);
    assert_memory_equal(tokens.mask, good_store.mask, sizeof good_store.mask);
    espl_tokens_close(&tokens);
    espl_tokens_close(&tokens);
    free(used);
    free(path);
}

static void bad_stores_are_named(void **state) {
    (void)state;
    made_store order = good_store, end = good_store, id = good_store;
    order.documents[1] = 9;
    end.documents[3] = 7;
    id.ids[2] = 300;
    const struct {
        const made_store *made;
        const char *says;
    } cases[] = {{&order, "document 1 ends before it begins"}, {&end, "documents reach from token 0 to 7"}, {&id, "holds id 300"}};
    char *path = in_folder("bad.h5");
    espl_tokens_recipe recipe = recipe_of(&path);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        meet();
        if (first_rank())
            write_made_store(path, cases[i].made);
        meet();
        check_fails(&recipe, ESPL_ERR_DATA, cases[i].says);
    }
    put_text("bad.h5", "this is not HDF5");
    check_fails(&recipe, ESPL_ERR_DATA, "not an HDF5 file");
    char *both[] = {path, in_folder("good.jsonl")};
    recipe = recipe_of(both);
    recipe.n_paths = 2;
    check_fails(&recipe, ESPL_ERR_DATA, "expected one kind");
    free(both[1]);
    free(path);
}

/* ---- Real data. */

static char *shared(const char *name) {
    const char *root = getenv("ESPL_SHARED_DATA");
    char *path = root != NULL ? espl_format("%s/%s", root, name) : espl_format("%s/../shared/data/%s", ESPL_SOURCE_DIR, name);
    if (access(path, R_OK) == 0)
        return path;
    if (first_rank())
        print_message("%s is not there: set ESPL_SHARED_DATA\n", path);
    free(path);
    return NULL;
}

/* What a trainer that pads each batch of B documents to its longest would add, as a share of what it processes. */
static double padding(const espl_tokens *tokens, int64_t longest, int64_t batch) {
    int64_t useful = 0, processed = 0;
    for (int64_t d = 0; d < tokens->n_documents; d += batch) {
        int64_t most = 0, n = 0;
        for (; n < batch && d + n < tokens->n_documents; n++) {
            int64_t length = tokens->documents[d + n + 1] - tokens->documents[d + n];
            length = length < longest ? length : longest;
            useful += length;
            most = length > most ? length : most;
        }
        processed += n * most;
    }
    return 1 - (double)useful / (double)processed;
}

static void reviews_pack_without_waste(void **state) {
    (void)state;
    enum { BUDGET = 1024 };
    char *path = shared("imdb/q2000_train.jsonl"), *tokenizer_path = shared("tokenizers/gpt2");
    if (path == NULL || tokenizer_path == NULL) {
        free(path);
        free(tokenizer_path);
        skip();
    }
    espl_tokenizer *tokenizer;
    if (espl_tokenizer_open(tokenizer_path, &tokenizer) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    espl_tokens_recipe recipe = recipe_of(&path);
    recipe.eos = 50256;
    char *store = prepare(tokenizer, &recipe);
    espl_tokens tokens;
    assert_int_equal(espl_tokens_open(store, true, &tokens), ESPL_OK);
    espl_source source = {.name = "imdb",
                          .n_tokens = tokens.n_tokens,
                          .n_documents = tokens.n_documents,
                          .documents = tokens.documents,
                          .ids16 = tokens.ids16,
                          .ids32 = tokens.ids32};
    espl_placement_options options = {.room = {BUDGET, 0, BUDGET}, .length = BUDGET, .shuffle = true, .seed = 42};
    espl_placement *p;
    assert_int_equal(espl_placement_make(&source, 1, &options, &p), ESPL_OK);
    int64_t n = espl_placement_count(p, 0);
    double waste = 1 - (double)tokens.n_tokens / (double)(n * BUDGET);
    if (first_rank())
        print_message("%lld reviews, %lld tokens in %lld micro-batches of %d: %.2f %% empty; padded batches of 4 or 16: %.1f, %.1f %%\n",
                      (long long)tokens.n_documents, (long long)tokens.n_tokens, (long long)n, BUDGET, 100 * waste,
                      100 * padding(&tokens, BUDGET, 4), 100 * padding(&tokens, BUDGET, 16));
    assert_int_equal(tokens.n_documents, 2000);
    assert_true(waste >= 0 && waste < 0.02);
    espl_placement_free(&p);
    espl_tokens_close(&tokens);
    espl_tokenizer_close(&tokenizer);
    free(store);
    free(path);
    free(tokenizer_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_ranks_and_threads_make_the_same),
        cmocka_unit_test(wide_vocabularies_take_32_bits),
        cmocka_unit_test(cache_is_reused_and_keyed),
        cmocka_unit_test(damaged_caches_are_made_again),
        cmocka_unit_test(leftovers_are_removed),
        cmocka_unit_test(bad_input_is_named_on_every_rank),
        cmocka_unit_test(stores_are_used_as_they_are),
        cmocka_unit_test(bad_stores_are_named),
        cmocka_unit_test(reviews_pack_without_waste),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
