#include "src/train/log/tensorboard.h"

#include "io/fsio.h"
#include "src/core/buffer.h"
#include "src/core/clock.h"
#include "src/train/log/tfevents.pb-c.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_BYTES = 16384, HEADER_BYTES = 12, FOOTER_BYTES = 4 };

struct espl_tensorboard {
    char *path;
    int fd;
    int64_t size;
    const char *described[4 * ESPL_TENSORBOARD_SCALARS]; /* tags whose description this file has */
    size_t n_described;
    uint8_t record[RECORD_BYTES];
};

static uint32_t crc32c(const uint8_t *bytes, size_t n) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1u ? 0x82F63B78u : 0u);
    }
    return ~crc;
}

uint32_t espl_tensorboard_masked_crc(const void *bytes, size_t n) {
    uint32_t crc = crc32c(bytes, n);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static void put_little_endian(uint8_t *to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static espl_status append(espl_tensorboard *board, EsplTb__Event *event) {
    event->wall_time = espl_wall_clock();
    size_t n = espl_tb__event__get_packed_size(event), bytes = HEADER_BYTES + n + FOOTER_BYTES;
    ESPL_ASSERT(bytes <= RECORD_BYTES, "an event of %zu bytes", bytes);
    uint8_t *record = board->record, *message = record + HEADER_BYTES;
    put_little_endian(record, n, 8);
    put_little_endian(record + 8, espl_tensorboard_masked_crc(record, 8), 4);
    espl_tb__event__pack(event, message);
    put_little_endian(message + n, espl_tensorboard_masked_crc(message, n), 4);
    ESPL_TRY(espl_fs_write(board->fd, record, bytes, board->size, board->path));
    board->size += (int64_t)bytes;
    return ESPL_OK;
}

static espl_status append_start(espl_tensorboard *board, int64_t first_step) {
    EsplTb__Event version = ESPL_TB__EVENT__INIT, start = ESPL_TB__EVENT__INIT;
    EsplTb__SessionLog session = ESPL_TB__SESSION_LOG__INIT;
    version.file_version = "brain.Event:2";
    ESPL_TRY(append(board, &version));
    session.status = ESPL_TB__SESSION_LOG__STATUS__START;
    start.step = first_step;
    start.session_log = &session;
    return append(board, &start);
}

/* Readers take the files in the order of their names: the serial number tells runs of one second and process apart. */
static char *events_path(const char *folder) {
    static int serial;
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    return espl_format("%s/events.out.tfevents.%010lld.%s.%ld.%d", folder, (long long)time(NULL), host, (long)getpid(), serial++);
}

espl_status espl_tensorboard_open(espl_tensorboard **board, const char *folder, int64_t first_step) {
    espl_status status = ESPL_OK;
    *board = espl_calloc(1, sizeof **board);
    (*board)->fd = -1;
    (*board)->path = events_path(folder);
    ESPL_TRY_DONE(espl_fs_open_write((*board)->path, &(*board)->fd));
    ESPL_TRY_DONE(append_start(*board, first_step));
done:
    if (status != ESPL_OK)
        espl_tensorboard_close(board);
    return status;
}

/* A description goes with the first value of its tag only; tags are told apart by their address. */
static bool describes_now(espl_tensorboard *board, const espl_scalar *scalar) {
    if (scalar->help == NULL || board->n_described == sizeof board->described / sizeof *board->described)
        return false;
    for (size_t i = 0; i < board->n_described; i++)
        if (board->described[i] == scalar->tag)
            return false;
    board->described[board->n_described++] = scalar->tag;
    return true;
}

espl_status espl_tensorboard_write(espl_tensorboard *board, int64_t step, const espl_scalar *scalars, size_t n) {
    EsplTb__Summary__Value values[ESPL_TENSORBOARD_SCALARS], *rows[ESPL_TENSORBOARD_SCALARS];
    EsplTb__Summary__Metadata metadata[ESPL_TENSORBOARD_SCALARS];
    EsplTb__Summary summary = ESPL_TB__SUMMARY__INIT;
    EsplTb__Summary__Plugin plugin = ESPL_TB__SUMMARY__PLUGIN__INIT;
    EsplTb__Event event = ESPL_TB__EVENT__INIT;
    ESPL_ASSERT(n <= ESPL_TENSORBOARD_SCALARS, "%zu scalars in one event", n);
    plugin.name = "scalars";
    summary.value = rows;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(scalars[i].value))
            continue;
        size_t at = summary.n_value++;
        espl_tb__summary__value__init(rows[at] = &values[at]);
        values[at].tag = (char *)scalars[i].tag;
        values[at].simple_value = (float)scalars[i].value;
        if (describes_now(board, &scalars[i])) {
            espl_tb__summary__metadata__init(values[at].metadata = &metadata[at]);
            metadata[at].plugin = &plugin;
            metadata[at].description = (char *)scalars[i].help;
            metadata[at].data_class = ESPL_TB__SUMMARY__DATA_CLASS__SCALAR;
        }
    }
    event.step = step;
    event.summary = &summary;
    return append(board, &event);
}

void espl_tensorboard_close(espl_tensorboard **board) {
    if (*board == NULL)
        return;
    espl_fs_close(&(*board)->fd, (*board)->path);
    free((*board)->path);
    free(*board);
    *board = NULL;
}
