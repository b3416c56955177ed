// fuzz: libs=io,core runs=5000
/* A sealed token store with some of its bytes replaced: a status, or arrays that lie within the file. The input is a list of changes,
 * three bytes where and one byte what, then the length to which the file is cut. */
#include "io/tokens/tokens.h"
#include "io/tokens/tokens_internal.h"

#include "src/core/buffer.h"
#include "tests/unit/scratch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* On a damaged file the HDF5 library asks for absurd sizes (and takes NULL for an answer), and forgets memory of its own. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1:detect_leaks=0"; }

enum { CHANGE_BYTES = 4 };

static uint8_t *pristine;
static size_t pristine_bytes;

/* A store of 64 tokens in 4 documents, made once. */
static void make_pristine(void) {
    int fd;
    char *path = make_scratch_file(&fd);
    static const int64_t documents[] = {0, 10, 20, 40, 64}, length = 200;
    static const int32_t split[] = {1, 2, 3, 4};
    static const char names[] = "neg\0pos"; /* and the last NUL */
    espl_store_layout layout = {.key = 1, .vocabulary = 100};
    for (int i = 0; i < ESPL_STORE_SETS; i++) {
        int64_t n = espl_store_rows[i].per == ESPL_PER_TOKEN ? 64 : espl_store_rows[i].per == ESPL_PER_DOCUMENT ? 4 : 1;
        layout.sets[i] = (espl_store_set){.n = n, .width = espl_store_rows[i].max_width};
    }
    layout.sets[ESPL_STORE_IDS].width = 2;
    layout.sets[ESPL_STORE_DOCUMENTS].n = 5;
    layout.sets[ESPL_STORE_CUT].n = 2;
    layout.sets[ESPL_STORE_NAMES].n = sizeof names;
    bool good = espl__store_create(path, &layout) == ESPL_OK &&
                pwrite(fd, documents, sizeof documents, layout.sets[ESPL_STORE_DOCUMENTS].offset) == sizeof documents &&
                pwrite(fd, &length, sizeof length, layout.sets[ESPL_STORE_BYTES].offset) == sizeof length &&
                pwrite(fd, split, sizeof split, layout.sets[ESPL_STORE_SPLIT].offset) == sizeof split &&
                pwrite(fd, names, sizeof names, layout.sets[ESPL_STORE_NAMES].offset) == sizeof names &&
                espl__store_checksums(NULL, path, &layout) == ESPL_OK && espl__store_seal(path, &layout) == ESPL_OK;
    struct stat found;
    ESPL_ASSERT(good && fstat(fd, &found) == 0, "no store to change");
    pristine_bytes = (size_t)found.st_size;
    pristine = espl_malloc(pristine_bytes);
    ESPL_ASSERT(pread(fd, pristine, pristine_bytes, 0) == found.st_size, "the store cannot be read");
    close(fd);
    unlink(path);
    free(path);
}

static void write_changed(int fd, const uint8_t *bytes, size_t size) {
    uint8_t *copy = espl_malloc(pristine_bytes);
    memcpy(copy, pristine, pristine_bytes);
    for (; size >= CHANGE_BYTES; bytes += CHANGE_BYTES, size -= CHANGE_BYTES)
        copy[(bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16) % pristine_bytes] = bytes[3];
    size_t keep = size > 0 ? pristine_bytes * bytes[0] / 255 : pristine_bytes;
    if (ftruncate(fd, 0) != 0 || pwrite(fd, copy, keep, 0) != (ssize_t)keep)
        abort();
    free(copy);
}

/* Everything that a reader may touch, so that the sanitizer sees a pointer that leads astray. */
static uint64_t touch(const espl_tokens *tokens) {
    uint64_t sum = (uint64_t)tokens->n_bytes;
    for (int64_t d = 0; d <= tokens->n_documents; d++)
        sum += (uint64_t)tokens->documents[d];
    for (int64_t d = 0; d < tokens->n_documents; d++)
        sum += (tokens->labels != NULL ? (uint32_t)tokens->labels[d] : 0u) + (tokens->split != NULL ? (uint32_t)tokens->split[d] : 0u) +
               (tokens->hashes != NULL ? tokens->hashes[d] : 0u);
    for (int64_t i = 0; i < tokens->names.n; i++)
        sum += strlen(tokens->names.names[i]);
    for (int64_t t = 0; t < tokens->n_tokens; t++)
        sum += (tokens->ids16 != NULL ? tokens->ids16[t] : tokens->ids32[t]) + (tokens->mask != NULL ? tokens->mask[t] : 0u) +
               (tokens->types != NULL ? tokens->types[t] : 0u) + (tokens->words != NULL ? tokens->words[t] : 0u);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    int fd = memfd_create("store", MFD_CLOEXEC);
    char *path = espl_format("/proc/self/fd/%d", fd);
    if (pristine == NULL)
        make_pristine();
    write_changed(fd, bytes, size);
    for (int verify = 0; verify < 2; verify++) {
        espl_tokens tokens;
        if (espl_tokens_open(path, verify != 0, &tokens) == ESPL_OK)
            ESPL_ASSERT(touch(&tokens) != 1, "a sum that the store cannot have"); /* the sum must be used to be computed */
        espl_tokens_close(&tokens);
    }
    espl_status_clear();
    free(path);
    close(fd);
    return 0;
}
