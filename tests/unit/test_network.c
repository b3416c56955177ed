// test: libs=train,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/plan/network.h"
#include "src/train/machine/network_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 10 us and 1 GB/s within a host, 100 us and 0.5 GB/s between hosts. */
static espl_network toy(void) {
    espl_network n = {.name = "toy", .hidden = true};
    for (int op = 0; op < ESPL_N_NET_OPS; op++) {
        n.within[op] = (espl_net_link){.latency = 1e-5, .bandwidth = 1e9};
        n.between[op] = (espl_net_link){.latency = 1e-4, .bandwidth = 5e8};
    }
    return n;
}

static const espl_net_job alone = {.ranks = 1, .per_host = 4, .cores = 1.0}, host = {.ranks = 4, .per_host = 4, .cores = 1.0},
                          hosts = {.ranks = 8, .per_host = 4, .cores = 1.0};

#define BYTES 8e6

static void operations_take_what_the_formulas_say(void **state) {
    (void)state;
    const espl_network n = toy();
    assert_float_equal(espl_network_seconds(&n, ESPL_NET_RING, &alone, BYTES), 0.0, 0.0);
    assert_float_equal(espl_network_seconds(&n, ESPL_NET_RING, &host, BYTES), 3 * 1e-5 + 6e6 / 1e9, 1e-15);
    assert_float_equal(espl_network_seconds(&n, ESPL_NET_GATHER, &host, BYTES), 3 * 1e-5 + 6e6 / 1e9, 1e-15);
    /* Six steps within hosts, one between; 7/8 of the bytes leave a host. */
    assert_float_equal(espl_network_seconds(&n, ESPL_NET_RING, &hosts, BYTES), 6 * 1e-5 + 1e-4 + 7e6 / 5e8, 1e-15);
    /* Four ranks send 4 shards of 1 MB each to the other host. */
    assert_float_equal(espl_network_seconds(&n, ESPL_NET_GATHER, &hosts, BYTES), 3 * 1e-5 + 4 * 1e-4 + 16e6 / 5e8, 1e-15);
    assert_float_equal(espl_network_seconds(&n, ESPL_NET_TREE, &hosts, BYTES), espl_network_seconds(&n, ESPL_NET_GATHER, &hosts, BYTES),
                       0.0);
}

static void a_gather_around_a_ring_is_a_ring(void **state) {
    (void)state;
    espl_network n = toy();
    n.ring_gather = true;
    assert_float_equal(espl_network_seconds(&n, ESPL_NET_GATHER, &hosts, BYTES), espl_network_seconds(&n, ESPL_NET_RING, &hosts, BYTES),
                       0.0);
}

static void copies_take_longer_on_shared_cores(void **state) {
    (void)state;
    espl_network n = toy();
    espl_net_job crowded = host;
    n.hidden = false;
    n.cores = 1.0;
    crowded.cores = 0.5;
    assert_float_equal(espl_network_seconds(&n, ESPL_NET_RING, &crowded, BYTES),
                       2.0 * espl_network_seconds(&n, ESPL_NET_RING, &host, BYTES), 1e-15);
    n.hidden = true;
    assert_float_equal(espl_network_seconds(&n, ESPL_NET_RING, &crowded, BYTES), espl_network_seconds(&n, ESPL_NET_RING, &host, BYTES),
                       0.0);
}

/* Samples of a line, each `off` of itself away from it, up and down. */
static int line(espl_net_sample *samples, double latency, double bandwidth, double off) {
    int n = 0;
    for (double v = 1e4; v < 1e8; v *= 4.0, n++) {
        double t = 3.0 * latency + v / bandwidth;
        samples[n] = (espl_net_sample){.messages = 3.0, .volume = v, .seconds = t * (n % 2 == 0 ? 1.0 + off : 1.0 - off)};
    }
    return n;
}

static void a_line_is_found_again(void **state) {
    (void)state;
    espl_net_sample samples[16];
    double error;
    int n = line(samples, 2e-5, 3e9, 0.0);
    espl_net_link link = espl_network_fit(samples, n, &error);
    assert_float_equal(link.latency, 2e-5, 1e-12);
    assert_float_equal(link.bandwidth / 3e9, 1.0, 1e-9);
    assert_true(error < 1e-9);
    n = line(samples, 2e-5, 3e9, 0.05);
    link = espl_network_fit(samples, n, &error);
    assert_true(fabs(link.latency / 2e-5 - 1.0) < 0.1 && fabs(link.bandwidth / 3e9 - 1.0) < 0.1);
    assert_true(error > 0.03 && error < 0.12);
}

/* Where large messages are faster than small ones in every respect, the latency would come out below zero. */
static void nothing_is_negative(void **state) {
    (void)state;
    const espl_net_sample samples[] = {{1.0, 1e6, 1e-3}, {1.0, 1e7, 2e-2}};
    double error;
    espl_net_link link = espl_network_fit(samples, 2, &error);
    assert_true(link.latency == 0.0 && link.bandwidth > 5e8 && link.bandwidth < 1e9 && error > 0.1);
    link = espl_network_fit(samples, 0, &error);
    assert_true(link.latency == 0.0 && link.bandwidth == 0.0);
}

static void presets_are_of_one_direction(void **state) {
    (void)state;
    const espl_network *ndr = espl_network_preset("ndr");
    assert_non_null(ndr);
    assert_float_equal(ndr->between[ESPL_NET_RING].bandwidth, 0.8 * 8 * 400e9 / 8, 1.0);
    assert_float_equal(ndr->within[ESPL_NET_GATHER].bandwidth, 0.8 * 900e9 / 2, 1.0);
    assert_null(espl_network_preset("NDR"));
    assert_non_null(strstr(espl_network_names(), "100gbe"));
}

static void what_is_not_known_is_refused(void **state) {
    (void)state;
    espl_network n = toy();
    assert_int_equal(espl_network_check(&n, &hosts), ESPL_OK);
    memset(n.between, 0, sizeof n.between);
    assert_int_equal(espl_network_check(&n, &host), ESPL_OK);
    assert_int_equal(espl_network_check(&n, &hosts), ESPL_ERR_USAGE);
    n = toy();
    memset(n.within, 0, sizeof n.within);
    assert_int_equal(espl_network_check(&n, &host), ESPL_ERR_USAGE);
    assert_int_equal(espl_network_check(&n, &alone), ESPL_OK);
    espl_status_clear();
}

static void overwrite(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) < 0, 0);
    assert_int_equal(fclose(f), 0);
}

static void a_file_says_the_same(void **state) {
    (void)state;
    char path[] = "test_network_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    espl_network n = toy(), back;
    memset(&n.between[ESPL_NET_TREE], 0, sizeof n.between[ESPL_NET_TREE]);
    n.cores = 0.5;
    assert_int_equal(espl_network_write(path, &n), ESPL_OK);
    assert_int_equal(espl_network_find(path, &back), ESPL_OK);
    assert_string_equal(back.name, "toy");
    assert_true(back.hidden && !back.ring_gather && back.cores == 0.5);
    assert_memory_equal(back.within, n.within, sizeof n.within);
    assert_memory_equal(back.between, n.between, sizeof n.between);
    overwrite(path, "{\"network\": \"x\", \"ring_gather\": true, \"hidden\": true, \"cores\": 0, \"between\": {}, "
                    "\"within\": {\"ring\": {\"latency\": 1e-6, \"bandwidth\": -1}}}");
    assert_int_equal(espl_network_find(path, &back), ESPL_ERR_DATA);
    overwrite(path, "[]");
    assert_int_equal(espl_network_find(path, &back), ESPL_ERR_DATA);
    assert_int_equal(espl_network_find("no-such-network", &back), ESPL_ERR_USAGE);
    assert_int_equal(espl_network_find("hdr", &back), ESPL_OK);
    assert_string_equal(back.name, "hdr");
    espl_status_clear();
    fclose(fdopen(fd, "r"));
    remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_take_what_the_formulas_say),
        cmocka_unit_test(a_gather_around_a_ring_is_a_ring),
        cmocka_unit_test(copies_take_longer_on_shared_cores),
        cmocka_unit_test(a_line_is_found_again),
        cmocka_unit_test(nothing_is_negative),
        cmocka_unit_test(presets_are_of_one_direction),
        cmocka_unit_test(what_is_not_known_is_refused),
        cmocka_unit_test(a_file_says_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
