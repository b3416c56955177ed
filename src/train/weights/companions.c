#include "src/train/weights/companions.h"

#include "src/core/buffer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char GENERATION[] = "generation_config.json";
static const char *const tokenizer_files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
                                              "merges.txt",     "tokenizer.model",       "chat_template.jinja",     GENERATION};
enum { N_FILES = sizeof tokenizer_files / sizeof tokenizer_files[0] };

static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static espl_status copy_file(const char *from, const char *to) {
    char block[65536];
    size_t n;
    espl_status status = ESPL_OK;
    if (same_file(from, to)) /* a run that resumes with its own copy */
        return ESPL_OK;
    FILE *in = fopen(from, "rb"), *out = NULL;
    if (in == NULL)
        return ESPL_OK; /* these files are optional */
    out = fopen(to, "wb");
    if (out == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: cannot be written: %s", to, strerror(errno));
    while ((n = fread(block, 1, sizeof block, in)) > 0)
        if (fwrite(block, 1, n, out) != n)
            ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: cannot be written: %s", to, strerror(errno));
done:
    fclose(in);
    if (out != NULL && fclose(out) != 0 && status == ESPL_OK)
        status = espl_status_fail(ESPL_ERR_IO, __FILE__, __LINE__, "%s: cannot be written: %s", to, strerror(errno));
    return status;
}

static espl_status copy_named(const char *from_folder, const char *folder, const char *name) {
    char *from = espl_format("%s/%s", from_folder, name), *to = espl_format("%s/%s", folder, name);
    espl_status status = copy_file(from, to);
    free(from);
    free(to);
    return status;
}

static espl_status copy_tokenizer(const char *tokenizer, bool is_folder, const char *folder) {
    if (!is_folder) {
        char *to = espl_format("%s/tokenizer.json", folder);
        espl_status status = copy_file(tokenizer, to);
        free(to);
        return status;
    }
    for (int i = 0; i < N_FILES; i++)
        ESPL_TRY(copy_named(tokenizer, folder, tokenizer_files[i]));
    return ESPL_OK;
}

espl_status espl_companions_copy(const char *tokenizer, const char *model, const char *folder) {
    struct stat info;
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        ESPL_FAIL(ESPL_ERR_IO, "%s: the folder cannot be made: %s", folder, strerror(errno));
    if (stat(tokenizer, &info) != 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be read: %s", tokenizer, strerror(errno));
    ESPL_TRY(copy_tokenizer(tokenizer, S_ISDIR(info.st_mode), folder));
    return model[0] != '\0' ? copy_named(model, folder, GENERATION) : ESPL_OK;
}

espl_status espl_companions_template(const char *template, const char *folder) {
    char *to = espl_format("%s/chat_template.jinja", folder);
    espl_status status = copy_file(template, to);
    free(to);
    return status;
}

char *espl_companions_of(const char *checkpoint) {
    struct stat info;
    char *folder = espl_format("%s/../../tokenizer", checkpoint), *file = espl_format("%s/tokenizer.json", folder);
    bool there = stat(file, &info) == 0;
    free(file);
    if (there)
        return folder;
    free(folder);
    return NULL;
}
