#include "src/train/machine/network_file.h"

#include "io/fsio.h"
#include "src/core/buffer.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 1 << 16 };

static json_t *links_to_json(const espl_net_link links[ESPL_N_NET_OPS]) {
    json_t *all = json_object();
    for (int op = 0; op < ESPL_N_NET_OPS; op++)
        if (links[op].bandwidth > 0.0)
            json_object_set_new(all, espl_net_op_name(op),
                                json_pack("{s:f, s:f}", "latency", links[op].latency, "bandwidth", links[op].bandwidth));
    return all;
}

espl_status espl_network_write(const char *path, const espl_network *network) {
    json_t *root = json_pack("{s:s, s:b, s:b, s:f, s:o, s:o}", "network", network->name, "ring_gather", network->ring_gather, "hidden",
                             network->hidden, "cores", network->cores, "within", links_to_json(network->within), "between",
                             links_to_json(network->between));
    char *text = json_dumps(root, JSON_INDENT(2)), *line = espl_format("%s\n", text);
    espl_status status = espl_fs_write_file(path, line, strlen(line));
    free(text);
    free(line);
    json_decref(root);
    return status;
}

static bool read_links(json_t *all, espl_net_link links[ESPL_N_NET_OPS]) {
    for (int op = 0; op < ESPL_N_NET_OPS; op++) {
        json_t *one = json_object_get(all, espl_net_op_name(op));
        espl_net_link *link = &links[op];
        if (one == NULL)
            continue;
        if (json_unpack(one, "{s:F, s:F}", "latency", &link->latency, "bandwidth", &link->bandwidth) != 0 || !isfinite(link->latency) ||
            link->latency < 0.0 || !(link->bandwidth > 0.0) || !isfinite(link->bandwidth))
            return false;
    }
    return true;
}

static bool read_all(json_t *root, espl_network *network) {
    const char *name;
    int ring_gather, hidden;
    json_t *within, *between;
    if (root == NULL || json_unpack(root, "{s:s, s:b, s:b, s:F, s:o, s:o}", "network", &name, "ring_gather", &ring_gather, "hidden",
                                    &hidden, "cores", &network->cores, "within", &within, "between", &between) != 0)
        return false;
    snprintf(network->name, sizeof network->name, "%s", name);
    network->ring_gather = ring_gather != 0;
    network->hidden = hidden != 0;
    return network->cores >= 0.0 && network->cores <= 1.0 && read_links(within, network->within) && read_links(between, network->between);
}

espl_status espl_network_find(const char *name, espl_network *network) {
    const espl_network *preset = espl_network_preset(name);
    espl_buffer text = {0};
    *network = preset != NULL ? *preset : (espl_network){0};
    if (preset != NULL)
        return ESPL_OK;
    if (!espl_fs_is_file(name))
        ESPL_FAIL(ESPL_ERR_USAGE, "--network %s: neither a file of `espalier bench comm` nor one of the networks known by name: %s", name,
                  espl_network_names());
    ESPL_TRY(espl_fs_read_file(name, LONGEST, &text));
    json_t *root = json_loadb(text.data != NULL ? text.data : "", text.size, JSON_REJECT_DUPLICATES, NULL);
    bool good = read_all(root, network);
    json_decref(root);
    espl_buffer_free(&text);
    if (!good)
        ESPL_FAIL(ESPL_ERR_DATA,
                  "%s is not what `espalier bench comm --output` writes: latencies and bandwidths of operations are expected", name);
    return ESPL_OK;
}
