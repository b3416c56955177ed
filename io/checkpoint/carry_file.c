#include "io/checkpoint/carry_file.h"

#include "io/fsio.h"

#include <stdlib.h>

void espl_carrier_note(espl_carrier *c, espl_status status) {
    if (status == ESPL_OK)
        return;
    if (c->status == ESPL_OK) {
        c->status = status;
        c->message = espl_strdup(espl_status_message());
    }
    espl_status_clear();
}

static size_t piece_at(int64_t at, int64_t to) { return to - at < ESPL_CARRY_BYTES ? (size_t)(to - at) : ESPL_CARRY_BYTES; }

espl_status espl_carrier_send(espl_carrier *c, const char *path, int64_t from, int64_t to, int rank) {
    int fd = -1;
    espl_status status = ESPL_OK;
    espl_carrier_note(c, espl_fs_open_read(path, &fd));
    for (int64_t at = from; at < to; at += ESPL_CARRY_BYTES) {
        size_t n = piece_at(at, to);
        if (c->status == ESPL_OK)
            espl_carrier_note(c, espl_fs_read(fd, c->piece, n, at, path));
        ESPL_TRY_DONE(espl_comm_send(c->comm, c->piece, n, rank, c->tag));
    }
done:
    espl_fs_discard(&fd);
    return status;
}

espl_status espl_carrier_receive(espl_carrier *c, const char *path, int64_t from, int64_t to, int rank) {
    int fd = -1;
    espl_status status = ESPL_OK;
    espl_carrier_note(c, from == 0 ? espl_fs_open_write(path, &fd) : espl_fs_open_update(path, &fd));
    for (int64_t at = from; at < to; at += ESPL_CARRY_BYTES) {
        size_t n = piece_at(at, to);
        ESPL_TRY_DONE(espl_comm_recv(c->comm, c->piece, n, rank, c->tag));
        if (c->status == ESPL_OK)
            espl_carrier_note(c, espl_fs_write(fd, c->piece, n, at, path));
    }
    if (fd >= 0)
        espl_carrier_note(c, espl_fs_close(&fd, path));
done:
    espl_fs_discard(&fd);
    return status;
}

espl_status espl_carrier_agree(espl_carrier *c, const char *where) {
    espl_status status = c->status;
    if (status != ESPL_OK)
        espl_status_fail(status, __FILE__, __LINE__, "%s", c->message);
    free(c->message);
    c->message = NULL;
    c->status = ESPL_OK;
    return espl_comm_agree(c->comm, status, where);
}
