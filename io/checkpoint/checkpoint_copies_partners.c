#include "io/checkpoint/checkpoint_copies.h"

#include <stdlib.h>

static espl_status list_members(espl_checkpoints *s) {
    struct espl__copies *c = s->copies;
    const espl__seat mine = {s->ranks.node, s->ranks.node_rank};
    c->seats = espl_calloc((size_t)s->ranks.size, sizeof *c->seats);
    c->members = espl_calloc((size_t)s->ranks.size, sizeof *c->members);
    c->starts = espl_calloc((size_t)s->ranks.n_nodes + 1, sizeof *c->starts);
    ESPL_TRY(espl_comm_allgather(s->comm, &mine, sizeof mine, c->seats));
    for (int r = 0; r < s->ranks.size; r++)
        c->starts[c->seats[r].node + 1]++;
    for (int node = 0; node < s->ranks.n_nodes; node++)
        c->starts[node + 1] += c->starts[node];
    for (int r = 0; r < s->ranks.size; r++)
        c->members[c->starts[c->seats[r].node] + c->seats[r].node_rank] = r;
    return ESPL_OK;
}

static espl__seat writer_seat(const espl_checkpoints *s, int group) {
    return s->copies->seats[espl__group_first(group, s->n_writers, s->ranks.size)];
}

/* On the next node the rank of the same number, counted around where that node has fewer. */
static int partner_of(const espl_checkpoints *s, espl__seat seat) {
    const struct espl__copies *c = s->copies;
    int next = (seat.node + 1) % s->ranks.n_nodes;
    return s->ranks.n_nodes > 1 ? c->members[c->starts[next] + seat.node_rank % (c->starts[next + 1] - c->starts[next])] : -1;
}

/* A ring of nodes: the even ones send, then the odd ones, then, of an odd number, the last one. So nobody waits for the whole ring. */
static int turn_of(int node, int n_nodes) { return n_nodes % 2 == 1 && node == n_nodes - 1 ? 2 : node % 2; }

espl_status espl__copies_partners_choose(espl_checkpoints *s) {
    struct espl__copies *c = s->copies;
    int at = 0;
    ESPL_TRY(list_members(s));
    c->partners = espl_calloc((size_t)s->n_writers, sizeof *c->partners);
    c->order = espl_calloc((size_t)s->n_writers, sizeof *c->order);
    for (int g = 0; g < s->n_writers; g++)
        c->partners[g] = partner_of(s, writer_seat(s, g));
    for (int turn = 0; turn < 3; turn++)
        for (int g = 0; g < s->n_writers; g++)
            if (turn_of(writer_seat(s, g).node, s->ranks.n_nodes) == turn)
                c->order[at++] = g;
    return ESPL_OK;
}

static size_t group_bytes(const espl_checkpoints *s, int group) {
    size_t bytes = 0;
    for (int64_t i = 0; i < s->n_tensors; i++) {
        int64_t begin, end;
        espl__group_range(s, i, group, &begin, &end);
        bytes += (size_t)(end - begin) * espl_dtype_size(s->tensors[i].dtype);
    }
    return bytes;
}

size_t espl__copies_host_bytes(const espl_checkpoints *s) {
    const struct espl__copies *c = s->copies;
    size_t bytes = 0;
    for (int g = 0; g < s->n_writers; g++)
        if (writer_seat(s, g).node == s->ranks.node || (c->partners[g] >= 0 && c->seats[c->partners[g]].node == s->ranks.node))
            bytes += group_bytes(s, g);
    return bytes;
}
