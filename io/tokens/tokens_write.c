#include "io/fsio.h"
#include "io/tokens/tokens_internal.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

enum { COPY_BYTES = 1 << 20, BEAT_SHARES = 16 };

typedef struct counts {
    int64_t n_tokens, n_documents, n_bytes, n_cut, n_lost, n_left_out, n_typed;
} counts;

/* Where this rank's part stands in the store. */
typedef struct target {
    int fd;
    const char *path;
    const espl_store_layout *layout;
    int64_t token, document; /* of the next to write */
    char *memory;            /* COPY_BYTES */
} target;

static espl_status gather_counts(espl_comm *comm, const espl_parts *parts, counts *before, counts *all) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    const espl_share_tokens *sum = &parts->sum;
    counts mine = {sum->n_tokens, sum->n_documents, sum->n_bytes, sum->n_cut, sum->n_lost, sum->n_left_out, sum->n_typed};
    counts *of_ranks = espl_calloc((size_t)ranks->size, sizeof *of_ranks);
    espl_status status = espl_comm_allgather(comm, &mine, sizeof mine, of_ranks);
    *before = *all = (counts){0};
    for (int r = 0; r < ranks->size; r++) {
        if (r == ranks->rank)
            *before = *all;
        all->n_tokens += of_ranks[r].n_tokens;
        all->n_documents += of_ranks[r].n_documents;
        all->n_bytes += of_ranks[r].n_bytes;
        all->n_cut += of_ranks[r].n_cut;
        all->n_lost += of_ranks[r].n_lost;
        all->n_left_out += of_ranks[r].n_left_out;
        all->n_typed += of_ranks[r].n_typed;
    }
    free(of_ranks);
    return status;
}

static espl_status copy_plain(target *to, int which, const espl_part_files *from, const espl_share_tokens *share) {
    const espl_store_set *set = &to->layout->sets[which];
    bool per_token = espl_store_rows[which].per == ESPL_PER_TOKEN;
    int64_t bytes = (per_token ? share->n_tokens : share->n_documents) * set->width,
            at = set->offset + (per_token ? to->token : to->document) * set->width;
    for (int64_t done = 0; done < bytes; done += COPY_BYTES) {
        size_t n = bytes - done < COPY_BYTES ? (size_t)(bytes - done) : (size_t)COPY_BYTES;
        ESPL_TRY(espl_fs_read(from->of[which], to->memory, n, share->at[which] + done, from->name));
        ESPL_TRY(espl_fs_write(to->fd, to->memory, n, at + done, to->path));
    }
    return ESPL_OK;
}

/* A part holds lengths; the store holds where each document ends. */
static espl_status copy_documents(target *to, const espl_part_files *from, const espl_share_tokens *share) {
    const int64_t block = COPY_BYTES / (int64_t)sizeof(int64_t), at = to->layout->sets[ESPL_STORE_DOCUMENTS].offset;
    int64_t *lengths = (int64_t *)to->memory, token = to->token;
    for (int64_t done = 0; done < share->n_documents; done += block) {
        int64_t n = share->n_documents - done < block ? share->n_documents - done : block, document = to->document + done + 1;
        size_t bytes = (size_t)n * sizeof *lengths;
        ESPL_TRY(espl_fs_read(from->of[ESPL_STORE_DOCUMENTS], lengths, bytes,
                              share->at[ESPL_STORE_DOCUMENTS] + done * (int64_t)sizeof *lengths, from->name));
        for (int64_t i = 0; i < n; i++)
            lengths[i] = token += lengths[i];
        ESPL_TRY(espl_fs_write(to->fd, lengths, bytes, at + document * (int64_t)sizeof *lengths, to->path));
    }
    return ESPL_OK;
}

static espl_status copy_set(target *to, int which, const espl_part_files *from, const espl_share_tokens *share) {
    if (to->layout->sets[which].n == 0 || espl_store_rows[which].per == ESPL_PER_STORE)
        return ESPL_OK;
    return which == ESPL_STORE_DOCUMENTS ? copy_documents(to, from, share) : copy_plain(to, which, from, share);
}

static espl_status copy_shares(espl_comm *comm, target *to, const espl_parts *parts) {
    for (int64_t i = 0; i < parts->n_shares; i++) {
        const espl_share_tokens *share = &parts->shares[i];
        if (i % BEAT_SHARES == 0)
            espl_comm_beat(comm, 0, "writing tokens");
        for (int set = 0; set < ESPL_STORE_SETS; set++)
            ESPL_TRY(copy_set(to, set, &parts->files[share->thread], share));
        to->token += share->n_tokens;
        to->document += share->n_documents;
    }
    return ESPL_OK;
}

/* What stands in the store once: rank 0's work. */
static espl_status write_single(const target *to, const counts *all, const espl_labels *labels) {
    const espl_store_set *sets = to->layout->sets;
    const int64_t zero = 0, cut[3] = {all->n_cut, all->n_lost, all->n_left_out};
    ESPL_TRY(espl_fs_write(to->fd, &zero, sizeof zero, sets[ESPL_STORE_DOCUMENTS].offset, to->path));
    ESPL_TRY(espl_fs_write(to->fd, &all->n_bytes, sizeof all->n_bytes, sets[ESPL_STORE_BYTES].offset, to->path));
    if (sets[ESPL_STORE_CUT].n > 0)
        ESPL_TRY(espl_fs_write(to->fd, cut, (size_t)sets[ESPL_STORE_CUT].n * sizeof *cut, sets[ESPL_STORE_CUT].offset, to->path));
    if (sets[ESPL_STORE_NAMES].n == 0)
        return ESPL_OK;
    espl_buffer names = {0};
    espl_labels_pack(labels, &names);
    espl_status status = espl_fs_write(to->fd, names.data, names.size, sets[ESPL_STORE_NAMES].offset, to->path);
    espl_buffer_free(&names);
    return status;
}

static espl_status write_part(espl_comm *comm, const char *path, const espl_store_layout *layout, const espl_parts *parts,
                              const espl_labels *labels, const counts *before, const counts *all) {
    espl_status status = ESPL_OK;
    target to = {.fd = -1, .path = path, .layout = layout, .token = before->n_tokens, .document = before->n_documents};
    to.memory = espl_malloc(COPY_BYTES);
    ESPL_TRY_DONE(espl_fs_open_update(path, &to.fd));
    if (espl_comm_ranks(comm)->rank == 0)
        ESPL_TRY_DONE(write_single(&to, all, labels));
    ESPL_TRY_DONE(copy_shares(comm, &to, parts));
    ESPL_TRY_DONE(espl_fs_sync(to.fd, path));
done:
    if (status == ESPL_OK)
        status = espl_fs_close(&to.fd, path);
    espl_fs_close(&to.fd, path);
    free(to.memory);
    return status;
}

/* Rank 0's work after all have written: attributes, then the name. Its presence under that name is the commit. */
static espl_status commit(const char *temporary, const char *path, const espl_store_layout *layout) {
    espl_status status = ESPL_OK;
    int fd = -1;
    ESPL_TRY(espl__store_seal(temporary, layout));
    ESPL_TRY_DONE(espl_fs_open_update(temporary, &fd));
    ESPL_TRY_DONE(espl_fs_sync(fd, temporary));
    ESPL_TRY_DONE(espl_fs_close(&fd, temporary));
    ESPL_TRY_DONE(espl_fs_rename(temporary, path));
done:
    espl_fs_close(&fd, temporary);
    return status;
}

static espl_status write_all(espl_comm *comm, const espl_parts *parts, const espl_labels *labels, const counts *before, const counts *all,
                             espl_store_layout *layout, const char *temporary, const char *path) {
    bool first = espl_comm_ranks(comm)->rank == 0;
    ESPL_TRY(espl_comm_agree(comm, first ? espl__store_create(temporary, layout) : ESPL_OK, "making the token store"));
    ESPL_TRY(espl_comm_bcast(comm, layout, sizeof *layout, 0));
    ESPL_TRY(espl_comm_agree(comm, write_part(comm, temporary, layout, parts, labels, before, all), "writing the token store"));
    ESPL_TRY(espl__store_checksums(comm, temporary, layout));
    return espl_comm_agree(comm, first ? commit(temporary, path, layout) : ESPL_OK, "finishing the token store");
}

static void set_sizes(const espl_parts *parts, const espl_labels *labels, const counts *all, espl_store_layout *layout) {
    espl_store_set *sets = layout->sets;
    for (int i = 0; i < ESPL_STORE_SETS; i++) {
        sets[i].width = parts->widths[i] > 0 ? parts->widths[i] : espl_store_rows[i].max_width;
        if (parts->widths[i] > 0)
            sets[i].n = espl_store_rows[i].per == ESPL_PER_TOKEN ? all->n_tokens : all->n_documents;
    }
    sets[ESPL_STORE_DOCUMENTS].n++;
    sets[ESPL_STORE_BYTES].n = 1;
    sets[ESPL_STORE_CUT].n = all->n_left_out > 0 ? 3 : all->n_cut > 0 ? 2 : 0;
    if (all->n_typed == 0)
        sets[ESPL_STORE_TYPES].n = 0;
    for (int64_t i = 0; sets[ESPL_STORE_LABELS].n > 0 && i < labels->n; i++)
        sets[ESPL_STORE_NAMES].n += (int64_t)strlen(labels->names[i]) + 1;
}

espl_status espl__store_write(espl_comm *comm, const espl_parts *parts, const espl_labels *labels, uint64_t key, int64_t vocabulary,
                              const char *path, uint64_t tag) {
    counts before, all;
    ESPL_TRY(gather_counts(comm, parts, &before, &all));
    ESPL_ASSERT(all.n_documents > 0, "a store has documents");
    espl_store_layout layout = {.key = key, .vocabulary = vocabulary};
    set_sizes(parts, labels, &all, &layout);
    char *temporary = espl_format("%s.tmp-%llx", path, (unsigned long long)tag);
    espl_status status = write_all(comm, parts, labels, &before, &all, &layout, temporary, path);
    if (status != ESPL_OK && espl_comm_ranks(comm)->rank == 0) {
        char *message = espl_strdup(espl_status_message());
        espl_fs_unlink(temporary);
        espl_status_set_message("%s", message);
        free(message);
    }
    free(temporary);
    return status;
}
