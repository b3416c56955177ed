#include "src/train/weights/licence.h"

#include "io/fsio.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

static const char *const keys[] = {"license", "license_name", "license_link"};
static const char *const files[] = {"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"};

enum { MOST_BYTES = 1 << 24 };

/* The value of "key: value" without quotes; NULL where the line is another. */
static json_t *value_of(const char *line, size_t n, const char *key) {
    size_t skip = strlen(key);
    if (n <= skip || strncmp(line, key, skip) != 0 || line[skip] != ':')
        return NULL;
    const char *from = line + skip + 1, *end = line + n;
    while (from < end && strchr(" \t\"'", *from) != NULL)
        from++;
    while (end > from && strchr(" \t\r\"'", end[-1]) != NULL)
        end--;
    return end > from ? json_stringn(from, (size_t)(end - from)) : NULL;
}

/* The lines between the two "---" that a README.md may begin with. */
static void read_front_matter(const char *text, json_t *note) {
    if (strncmp(text, "---", 3) != 0)
        return;
    for (const char *line = strchr(text, '\n'); line != NULL && strncmp(line + 1, "---", 3) != 0; line = strchr(line, '\n')) {
        line++;
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            json_t *value = value_of(line, strcspn(line, "\n"), keys[k]);
            if (value != NULL)
                json_object_set_new(note, keys[k], value);
        }
    }
}

json_t *espl_licence_of(const char *folder) {
    json_t *note = json_object();
    espl_buffer text = {0};
    char *path = espl_format("%s/README.md", folder);
    if (espl_fs_is_file(path) && espl_fs_read_file(path, MOST_BYTES, &text) == ESPL_OK && text.size > 0)
        read_front_matter(text.data, note);
    espl_status_clear(); /* a note that cannot be read is none */
    espl_buffer_free(&text);
    free(path);
    for (size_t i = 0; i < sizeof files / sizeof files[0] && json_object_get(note, "file") == NULL; i++) {
        path = espl_format("%s/%s", folder, files[i]);
        if (espl_fs_is_file(path))
            json_object_set_new(note, "file", json_string(files[i]));
        free(path);
    }
    if (json_object_size(note) > 0)
        return note;
    json_decref(note);
    return NULL;
}
