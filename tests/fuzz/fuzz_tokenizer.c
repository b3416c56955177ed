// fuzz: libs=io,core runs=20000
/* A tokenizer.json and a text: the input's first line is the file, the rest the text; without a newline the input is a text for a fixed
 * tokenizer. What is encoded must have offsets inside the text, the same ids without offsets, and decode. */
#include "io/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char fixed[] =
    "{\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"single_word\":true,\"lstrip\":true,\"rstrip\":true,\"normalized\":true,\"special\":"
    "true},"
    "{\"id\":6,\"content\":\"<\",\"single_word\":false,\"lstrip\":true,\"rstrip\":false,\"normalized\":false,\"special\":false}],"
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"Lowercase\"},{\"type\":\"Strip\",\"strip_"
    "left\":true,"
    "\"strip_right\":true},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"b+|\\\\s{2,}\"},\"content\":\" \"}]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\w+(?!\\\\S)|\\\\d{1,3}+"
    "\"},"
    "\"behavior\":\"MergedWithNext\",\"invert\":false},{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":"
    "\"first\"}]},"
    "\"post_processor\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},{\"type\":\"Strip\",\"content\":\"a\",\"start\":1,"
    "\"stop\":1}]},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{\"?\":0,\"a\":1,\"aa\":2,\"<0xC3>"
    "\":3,"
    "\"\xE2\x96\x81\":4},\"merges\":[\"a a\"]}}";

static espl_status open_bytes(const char *bytes, size_t n, espl_tokenizer **tokenizer) {
    char path[64];
    int fd = memfd_create("tokenizer", 0);
    ESPL_ASSERT(fd >= 0 && write(fd, bytes, n) == (ssize_t)n, "no file in memory");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    espl_status status = espl_tokenizer_open(path, tokenizer);
    close(fd);
    return status;
}

static void check(const espl_tokenizer *tokenizer, const char *text, size_t size) {
    espl_encoding e = {.want_offsets = true}, plain = {0};
    espl_buffer decoded = {0};
    if (espl_tokenizer_encode(tokenizer, text, size, true, &e) == ESPL_OK) {
        ESPL_ASSERT(espl_tokenizer_encode(tokenizer, text, size, true, &plain) == ESPL_OK, "encodes only with offsets");
        ESPL_ASSERT(plain.n == e.n && (e.n == 0 || memcmp(plain.ids, e.ids, (size_t)e.n * sizeof *e.ids) == 0), "offsets change ids");
        for (int64_t i = 0; i < e.n; i++)
            ESPL_ASSERT(e.begin[i] >= 0 && e.begin[i] <= e.end[i], "offsets %lld-%lld", (long long)e.begin[i], (long long)e.end[i]);
        (void)espl_tokenizer_decode(tokenizer, e.ids, e.n, false, &decoded);
        (void)espl_tokenizer_decode(tokenizer, e.ids, e.n, true, &decoded);
    }
    espl_buffer_free(&decoded);
    espl_encoding_free(&e);
    espl_encoding_free(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static espl_tokenizer *known;
    if (!known)
        ESPL_ASSERT(open_bytes(fixed, sizeof fixed - 1, &known) == ESPL_OK, "%s", espl_status_message());
    const char *text = (const char *)data, *line = size ? memchr(text, '\n', size) : NULL;
    espl_tokenizer *tokenizer = NULL;
    if (!line)
        check(known, text, size);
    else if (open_bytes(text, (size_t)(line - text), &tokenizer) == ESPL_OK)
        check(tokenizer, line + 1, size - (size_t)(line + 1 - text));
    espl_tokenizer_close(&tokenizer);
    espl_status_clear();
    return 0;
}
