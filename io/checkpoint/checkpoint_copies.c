#include "io/checkpoint/checkpoint_copies.h"

#include "src/core/log.h"

#include <stdlib.h>
#include <unistd.h>

enum { COPY_TAG = 702 };

bool espl__copies_leader(const espl_checkpoints *s) { return s->ranks.node_rank == 0; }

espl_status espl__copies_open(espl_checkpoints *s) {
    struct espl__copies *c = s->copies = espl_calloc(1, sizeof *c);
    c->every = s->options.copy_every;
    c->step = -1;
    c->newest = ESPL__NO_COPY;
    c->place = espl__copies_place(s->options.copy_folder);
    ESPL_TRY(espl__copies_identify(s, false));
    if (espl__copies_leader(s))
        espl__copies_sweep(s);
    if (c->every == 0 && c->root == NULL) {
        espl__copies_close(s);
        return ESPL_OK;
    }
    c->sizes = espl_calloc((size_t)s->n_writers, sizeof *c->sizes);
    c->carry = (espl_carrier){.comm = s->comm, .tag = COPY_TAG, .piece = espl_malloc(ESPL_CARRY_BYTES)};
    return espl__copies_partners_choose(s);
}

static void forget_root(struct espl__copies *c) {
    free(c->origin);
    free(c->root);
    free(c->folder);
    c->origin = c->root = c->folder = NULL;
}

void espl__copies_close(espl_checkpoints *s) {
    struct espl__copies *c = s->copies;
    s->copies = NULL;
    if (c == NULL)
        return;
    espl_buffer_free(&c->text);
    forget_root(c);
    free(c->place);
    free(c->seats);
    free(c->members);
    free(c->starts);
    free(c->partners);
    free(c->order);
    free(c->sizes);
    free(c->carry.piece);
    free(c->carry.message);
    free(c);
}

espl_status espl__copies_leave(espl_checkpoints *s, int64_t step) {
    struct espl__copies *c = s->copies;
    if (c == NULL || c->root == NULL)
        return ESPL_OK;
    if (c->step > step)
        c->step = -1;
    if (c->newest.step > step)
        c->newest = ESPL__NO_COPY;
    return espl__copies_leader(s) ? espl__copies_remove(c->root, s->attempt, c->newest) : ESPL_OK;
}

espl_status espl_checkpoints_forget(espl_checkpoints *s) {
    struct espl__copies *c = s->copies;
    if (c == NULL || c->root == NULL)
        return ESPL_OK;
    if (espl_checkpoints_wait(s) != ESPL_OK)
        espl_status_clear(); /* a save's failure is logged and counted, and keeps no copy alive */
    espl_status status = s->ranks.rank == 0 ? espl__copies_disown(s) : ESPL_OK;
    if (espl__copies_leader(s)) {
        if (espl__copies_remove(c->root, s->attempt, ESPL__NO_COPY) != ESPL_OK)
            ESPL_WARN("%s on %s: %s", c->root, s->ranks.host, espl_status_message());
        rmdir(c->place); /* unless other runs have copies there */
    }
    forget_root(c);
    c->step = -1;
    c->newest = ESPL__NO_COPY;
    return espl_comm_agree(s->comm, status, "leaving in-memory copies");
}

int64_t espl_checkpoints_copied(const espl_checkpoints *s) { return s->copies != NULL ? s->copies->step : -1; }
