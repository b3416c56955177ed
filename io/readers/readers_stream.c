#include "io/fsio.h"
#include "io/readers/readers_internal.h"

#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

enum { PACKED_BYTES = 256 << 10 };

struct espl_stream {
    const espl_input *input;
    int fd;
    int64_t offset; /* of the next byte to read from the file */
    bool between;   /* packed: at a border between members or frames, where the file may end */
    z_stream gz;
    ZSTD_DCtx *zst;
    unsigned char *packed;
    size_t at, end; /* unread part of packed */
};

static espl_status unpacker_make(espl_stream *stream) {
    stream->packed = espl_malloc(PACKED_BYTES);
    if (stream->input->packing == ESPL_ZST)
        stream->zst = ZSTD_createDCtx();
    else if (inflateInit2(&stream->gz, 15 + 16) != Z_OK) /* 16: gzip headers */
        ESPL_FAIL(ESPL_ERR_IO, "%s: zlib cannot start: %s", stream->input->path, stream->gz.msg != NULL ? stream->gz.msg : "no memory");
    return ESPL_OK;
}

espl_status espl__stream_open(const espl_input *input, int64_t begin, espl_stream **stream) {
    espl_status status = ESPL_OK;
    espl_stream *made = espl_calloc(1, sizeof *made);
    made->input = input;
    made->offset = begin;
    made->fd = -1;
    ESPL_TRY_DONE(espl_fs_open_read(input->path, &made->fd));
    if (input->packing != ESPL_PLAIN)
        ESPL_TRY_DONE(unpacker_make(made));
done:
    if (status != ESPL_OK)
        espl__stream_close(&made);
    *stream = made;
    return status;
}

void espl__stream_close(espl_stream **stream) {
    espl_stream *s = *stream;
    if (s == NULL)
        return;
    espl_fs_close(&s->fd, s->input->path);
    if (s->packed != NULL && s->input->packing == ESPL_GZ)
        inflateEnd(&s->gz);
    ZSTD_freeDCtx(s->zst);
    free(s->packed);
    free(s);
    *stream = NULL;
}

static espl_status read_file(espl_stream *stream, void *to, size_t n, size_t *got) {
    int64_t left = stream->input->bytes - stream->offset;
    *got = (int64_t)n < left ? n : (size_t)(left > 0 ? left : 0);
    ESPL_TRY(espl_fs_read(stream->fd, to, *got, stream->offset, stream->input->path));
    stream->offset += (int64_t)*got;
    return ESPL_OK;
}

static espl_status fill_packed(espl_stream *stream) {
    if (stream->at < stream->end)
        return ESPL_OK;
    stream->at = 0;
    return read_file(stream, stream->packed, PACKED_BYTES, &stream->end);
}

static espl_status inflate_some(espl_stream *stream, char *to, size_t n, size_t *got) {
    z_stream *gz = &stream->gz;
    if (stream->between) {
        if (stream->packed[stream->at] == 0) { /* padding behind the last member, as tar's blocks leave it */
            stream->at = stream->end;
            return ESPL_OK;
        }
        inflateReset(gz);
    }
    gz->next_in = stream->packed + stream->at;
    gz->avail_in = (uInt)(stream->end - stream->at);
    gz->next_out = (unsigned char *)to;
    gz->avail_out = (uInt)n;
    int result = inflate(gz, Z_NO_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: damaged gzip data near byte %lld: %s", stream->input->path,
                  (long long)(stream->offset - (int64_t)gz->avail_in), gz->msg != NULL ? gz->msg : "not gzip");
    stream->at = stream->end - gz->avail_in;
    stream->between = result == Z_STREAM_END;
    *got = n - gz->avail_out;
    return ESPL_OK;
}

static espl_status decompress_some(espl_stream *stream, char *to, size_t n, size_t *got) {
    ZSTD_inBuffer in = {.src = stream->packed, .size = stream->end, .pos = stream->at};
    ZSTD_outBuffer out = {.dst = to, .size = n};
    size_t result = ZSTD_decompressStream(stream->zst, &out, &in);
    if (ZSTD_isError(result))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: damaged zstd data near byte %lld: %s", stream->input->path,
                  (long long)(stream->offset - (int64_t)(stream->end - in.pos)), ZSTD_getErrorName(result));
    stream->at = in.pos;
    stream->between = result == 0;
    *got = out.pos;
    return ESPL_OK;
}

espl_status espl__stream_read(espl_stream *stream, char *to, size_t n, size_t *got) {
    if (stream->input->packing == ESPL_PLAIN)
        return read_file(stream, to, n, got);
    for (*got = 0; *got == 0;) {
        ESPL_TRY(fill_packed(stream));
        bool ended = stream->at == stream->end; /* the unpacker may still hold some */
        if (ended && stream->between)
            return ESPL_OK;
        if (stream->input->packing == ESPL_GZ)
            ESPL_TRY(inflate_some(stream, to, n, got));
        else
            ESPL_TRY(decompress_some(stream, to, n, got));
        if (ended && *got == 0 && !stream->between)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: truncated: the compressed data ends at byte %lld in the middle of a %s", stream->input->path,
                      (long long)stream->offset, stream->input->packing == ESPL_GZ ? "gzip member" : "zstd frame");
    }
    return ESPL_OK;
}
