// fuzz: libs=io,core runs=20000
/* Any bytes as what stands under a right header: a status, or a manifest whose ranges tile and stay within their files. libFuzzer target.
 */
#include "io/checkpoint/manifest.h"

#include <inttypes.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check(const espl_manifest *m) {
    for (int64_t i = 0; i < m->n_tensors; i++) {
        const espl_manifest_tensor *t = &m->tensors[i];
        int64_t cursor = 0;
        for (int64_t k = 0; k < t->n_ranges; k++) {
            const espl_manifest_range *r = &t->ranges[k];
            int64_t bytes = (r->end - r->begin) * (int64_t)espl_dtype_size(t->dtype);
            ESPL_ASSERT(r->begin == cursor && r->offset + bytes <= m->files[r->file].bytes, "range %lld of %s", (long long)k, t->name);
            cursor = r->end;
        }
        ESPL_ASSERT(cursor == t->count && espl_manifest_find(m, t->group, t->name) == t, "tensor %s", t->name);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    espl_buffer text = {0};
    espl_manifest *m = NULL;
    espl_buffer_printf(&text, "{\"format\": \"espalier checkpoint\", \"version\": %d, \"xxh3\": \"%016" PRIx64 "\",\n",
                       ESPL_MANIFEST_VERSION, (uint64_t)XXH3_64bits(bytes, size));
    espl_buffer_append(&text, bytes, size);
    if (espl_manifest_parse(text.data, text.size, "input", &m) == ESPL_OK)
        check(m);
    espl_manifest_free(&m);
    if (espl_manifest_parse(text.data + text.size - size, size, "input", &m) == ESPL_OK)
        check(m);
    espl_manifest_free(&m);
    espl_buffer_free(&text);
    return 0;
}
