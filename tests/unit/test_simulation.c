// test: libs=plan,core ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/plan/failures.h"
#include "src/plan/network.h"
#include "src/plan/timeline.h"

#include <math.h>

/* ---- Steps. Three calls of 1, 2 and 3 s; buckets are complete behind the second and the third. */

static const espl_event calls[] = {{.seconds = 1.0, .bucket = -1}, {.seconds = 2.0, .bucket = 1}, {.seconds = 3.0}},
                        none[] = {{.bucket = 1}, {.bucket = 0}};

static espl_timeline toy(const espl_bucket_times buckets[2]) {
    return (espl_timeline){
        .events = calls, .n_events = 3, .micro_batches = 4, .data = 0.5, .buckets = buckets, .n_buckets = 2, .hidden = true};
}

static void adds_up(const espl_step_times *s) {
    assert_float_equal(s->data + s->compute + s->waits + s->agree + s->update + s->gathers, s->step, 1e-12);
}

static void one_rank_communicates_nothing(void **state) {
    (void)state;
    const espl_bucket_times buckets[2] = {{.update = 0.25}, {.update = 0.75}};
    const espl_timeline t = toy(buckets);
    espl_step_times s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.step, 4 * (0.5 + 6.0) + 1.0, 1e-12);
    assert_true(s.waits == 0.0 && s.gathers == 0.0 && s.sums == 0.0 && s.agree == 0.0);
    adds_up(&s);
    s = espl_timeline_step(&t, 1.5);
    assert_float_equal(s.step, 4 * (0.5 + 9.0) + 1.0, 1e-12);
}

/* Without compute a step is what the ring takes: 2 buckets of 8 MB there and of 4 MB back, 7/8 of each at 1 GB/s, 7 steps of 10 us. */
static void without_compute_a_step_is_the_ring(void **state) {
    (void)state;
    espl_network n = {.name = "toy", .ring_gather = true, .hidden = true};
    const espl_net_job job = {.ranks = 8, .per_host = 8, .cores = 1.0};
    n.within[ESPL_NET_RING] = n.within[ESPL_NET_GATHER] = (espl_net_link){.latency = 1e-5, .bandwidth = 1e9};
    const double sum = espl_network_seconds(&n, ESPL_NET_RING, &job, 8e6), gather = espl_network_seconds(&n, ESPL_NET_GATHER, &job, 4e6);
    const espl_bucket_times buckets[2] = {{.sum = sum, .gather = gather}, {.sum = sum, .gather = gather}};
    espl_timeline t = {.events = none, .n_events = 2, .micro_batches = 1, .buckets = buckets, .n_buckets = 2, .hidden = true};
    const double ring = 2 * (7 * 1e-5 + 7e6 / 1e9) + 2 * (7 * 1e-5 + 3.5e6 / 1e9);
    assert_float_equal(espl_timeline_step(&t, 1.0).step, ring, 1e-12);
    t.hidden = false; /* nothing can be hidden, so that it may be does not matter */
    assert_float_equal(espl_timeline_step(&t, 1.0).step, ring, 1e-12);
    n.within[ESPL_NET_RING].bandwidth = 0.99e9; /* the control: a network that is 1 % slower is seen */
    assert_true(espl_network_seconds(&n, ESPL_NET_RING, &job, 8e6) > 1.009 * sum - 7 * 1e-7);
}

static void sums_hide_behind_what_follows(void **state) {
    (void)state;
    /* Bucket 1 is complete 3 s before the end, its sum of 2 s is over by then; that of bucket 0 is not hidden at all. */
    const espl_bucket_times short_sums[2] = {{.sum = 1.5}, {.sum = 2.0}}, long_sums[2] = {{.sum = 1.5}, {.sum = 5.0}};
    espl_timeline t = toy(short_sums);
    espl_step_times s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.waits, 1.5, 1e-12);
    assert_float_equal(s.sums, 3.5, 1e-12);
    adds_up(&s);
    t = toy(long_sums); /* 2 s of it stand out, and hold up the next one */
    assert_float_equal(espl_timeline_step(&t, 1.0).waits, 3.5, 1e-12);
    t.hidden = false;
    s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.waits, 6.5, 1e-12);
    adds_up(&s);
}

/* In every micro-batch: the first weights are waited for, the next come behind the first call, and those of the last call are 1 s late. */
static void weights_that_flow_come_ahead(void **state) {
    (void)state;
    const espl_event fetching[] = {{.seconds = 1.0, .bucket = -1, .exposed = 0.5, .fetch = 0.4, .arrives = true},
                                   {.seconds = 2.0, .bucket = 1, .fetch = 3.0, .arrives = true},
                                   {.seconds = 3.0, .arrives = true}};
    const espl_bucket_times buckets[2] = {{.update = 0.25}, {.update = 0.75}};
    espl_timeline t = toy(buckets);
    t.events = fetching;
    t.flows = true;
    espl_step_times s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.gathers, 4 * (0.5 + 1.0), 1e-12);
    assert_float_equal(s.all_gathers, 4 * 3.9, 1e-12);
    assert_float_equal(s.waits, 0.0, 1e-12);
    adds_up(&s);
    t.hidden = false;
    s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.gathers, 4 * 3.9, 1e-12);
    adds_up(&s);
}

/* The first weights of a micro-batch come behind the last call of the one before, but those of a step's first. */
static void first_weights_come_behind_the_micro_batch_before(void **state) {
    (void)state;
    const espl_event fetching[] = {
        {.seconds = 1.0, .bucket = -1, .exposed = 0.5, .arrives = true}, {.seconds = 2.0, .bucket = 1}, {.seconds = 3.0, .next = 4.0}};
    const espl_bucket_times buckets[2] = {{.update = 0.25}, {.update = 0.75}};
    espl_timeline t = toy(buckets);
    t.events = fetching;
    t.flows = t.ahead = true;
    espl_step_times s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.gathers, 0.5 + 3 * (4.0 - 3.0 - 0.5), 1e-12); /* behind the last call and the next one's data */
    assert_float_equal(s.all_gathers, 0.5 + 3 * 4.0, 1e-12);
    adds_up(&s);
}

/* In every micro-batch, one at a time: bucket 0 waits for bucket 1, and the next micro-batch's bucket 1 for it. */
static void gradients_that_flow_are_summed_in_every_micro_batch(void **state) {
    (void)state;
    const espl_bucket_times buckets[2] = {{.sum = 1.5}, {.sum = 5.0}};
    espl_timeline t = toy(buckets);
    t.flows = true;
    t.data = 0.0;
    espl_step_times s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.sums, 4 * 6.5, 1e-12);
    assert_float_equal(s.waits, 4 * 2.0 + 1.5, 1e-12);
    adds_up(&s);
}

static void gathers_hide_behind_updates_and_forward(void **state) {
    (void)state;
    espl_bucket_times buckets[2] = {{.gather = 1.0, .update = 2.0}, {.gather = 4.0, .update = 3.0}};
    espl_timeline t = toy(buckets);
    espl_step_times s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.gathers, 3.5, 1e-12); /* bucket 0's lies under the update of bucket 1; that one's under the data of 0.5 s */
    assert_float_equal(s.all_gathers, 5.0, 1e-12);
    adds_up(&s);
    buckets[1].first = 2; /* the calls of 1 s and 2 s do not need it */
    s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.gathers, 0.5, 1e-12);
    adds_up(&s);
    s = espl_timeline_step(&t, 2.0); /* they take longer, and nothing is waited for */
    assert_float_equal(s.gathers, 0.0, 1e-12);
    buckets[1].first = 1;
    s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.gathers, 2.5, 1e-12);
    t.micro_batches = 1; /* forward waits, too, where the only micro-batch is the one with sums */
    s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.gathers, 2.5, 1e-12);
    adds_up(&s);
    t.hidden = false;
    s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.gathers, 5.0, 1e-12);
    adds_up(&s);
    t.hidden = true;
    t.replicated = true; /* sums, before the update: nothing to hide behind */
    t.agree = 0.125;
    s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.gathers, 5.0, 1e-12);
    adds_up(&s);
}

/* The first sum finds the network busy with gathers. */
static void sums_wait_for_gathers(void **state) {
    (void)state;
    const espl_bucket_times buckets[2] = {{.gather = 1.0}, {.sum = 1.0, .gather = 7.0, .first = 2}};
    espl_timeline t = toy(buckets);
    t.micro_batches = 1;
    t.data = 0.0;
    espl_step_times s = espl_timeline_step(&t, 1.0);
    assert_float_equal(s.gathers, 1.0 + 4.0, 1e-12); /* to 8 s, behind calls of 3 s that waited for 1 s */
    assert_float_equal(s.waits, 0.0, 1e-12);
    assert_float_equal(s.step, 11.0, 1e-12);
    adds_up(&s);
}

/* ---- Ranks that differ. */

static void the_slowest_of_many_is_slower(void **state) {
    (void)state;
    const espl_unevenness even = {.seed = 1}, jitter = {.jitter = 0.02, .seed = 1}, stragglers = {.stragglers = 0.01, .seed = 1};
    double few = 0.0, many = 0.0, late = 0.0;
    enum { STEPS = 400 };
    for (int i = 0; i < STEPS; i++) {
        assert_float_equal(espl_unevenness_slowest(&even, i, 64), 1.0, 0.0);
        few += espl_unevenness_slowest(&jitter, i, 2) / STEPS;
        many += espl_unevenness_slowest(&jitter, i, 1024) / STEPS;
        late += (espl_unevenness_slowest(&stragglers, i, 10) - 1.0) / STEPS;
    }
    /* The mean of max(0, the larger of two) is (1 + sqrt 2) / (2 sqrt pi) = 0.681 deviations, of the largest of 1,024 it is 3.23; some rank
     * of ten is a straggler in 1 - 0.99^10 of the steps. Bounds are four standard errors. */
    assert_true(fabs((few - 1.0) / 0.02 - 0.681) < 0.14 && fabs((many - 1.0) / 0.02 - 3.23) < 0.08);
    assert_true(fabs(late - 0.0956) < 4.0 * sqrt(0.0956 * 0.9044 / STEPS));
    assert_float_equal(espl_unevenness_slowest(&jitter, 7, 64), espl_unevenness_slowest(&jitter, 7, 64), 0.0);
}

static void steps_that_differ_have_a_mean_and_a_tail(void **state) {
    (void)state;
    const espl_bucket_times buckets[2] = {{.sum = 1.5}, {.sum = 2.0}};
    const espl_timeline t = toy(buckets);
    const espl_unevenness even = {.seed = 1}, jitter = {.jitter = 0.02, .seed = 1};
    double late;
    espl_step_times s = espl_timeline_simulate(&t, &even, 64, 40, &late);
    assert_float_equal(s.step, espl_timeline_step(&t, 1.0).step, 1e-9);
    assert_float_equal(late, s.step, 1e-9);
    s = espl_timeline_simulate(&t, &jitter, 64, 200, &late);
    assert_true(late > s.step && s.step > espl_timeline_step(&t, 1.03).step && s.step < espl_timeline_step(&t, 1.07).step);
    adds_up(&s);
}

/* ---- Failures. */

#define MINUTES 60.0
#define HOURS 3600.0

/* Daly's own examples (2006, figures 3 to 5): dumps of 5 minutes; intervals of 117, 57 and 9.1 minutes. Young's are 120, 60 and 12.2. */
static void intervals_are_those_of_the_papers(void **state) {
    (void)state;
    const double mtbf[3] = {24 * HOURS, 6 * HOURS, 15 * MINUTES}, daly[3] = {117.0, 57.0, 9.1}, young[3] = {120.0, 60.0, 12.247};
    for (int i = 0; i < 3; i++) {
        const espl_failures f = {.mtbf = mtbf[i], .hold = 5 * MINUTES};
        assert_true(fabs(espl_interval_daly(&f) / MINUTES - daly[i]) < (i < 2 ? 0.5 : 0.05));
        assert_float_equal(espl_interval_young(&f) / MINUTES, young[i], 1e-3);
    }
    const espl_failures hopeless = {.mtbf = 60.0, .hold = 120.0};
    assert_float_equal(espl_interval_daly(&hopeless), 60.0, 0.0);
}

/* By hand: M = 100, R = 10, d = 5, interval 20: 20 / (100 e^0.1 (e^0.25 - 1)) = 20 / (110.5171 x 0.2840254) = 0.637152. And the best
 * interval is the one that Daly gives, to a second-order error. */
static void goodput_is_the_formula(void **state) {
    (void)state;
    const espl_failures f = {.mtbf = 100.0, .hold = 5.0, .restart = 10.0};
    assert_float_equal(espl_failures_goodput(&f, 20.0), 0.637152, 1e-6);
    double best = espl_failures_goodput(&f, espl_interval_daly(&f));
    for (double interval = 5.0; interval < 100.0; interval += 1.0)
        assert_true(espl_failures_goodput(&f, interval) < best * 1.0005);
    assert_true(espl_failures_goodput(&f, 2.0 * espl_interval_daly(&f)) < 0.95 * best); /* the control */
}

static void simulated_failures_cost_what_the_formula_says(void **state) {
    (void)state;
    const espl_failures f = {.mtbf = 10000.0, .hold = 50.0, .write = 50.0, .restart = 300.0};
    const double interval = espl_interval_daly(&f), work = 4e7;
    espl_failure_costs c = espl_failures_simulate(&f, interval, work, 3, 1000000);
    double all = c.kept + c.saving + c.lost + c.down, expected = espl_failures_goodput(&f, interval);
    assert_float_equal(c.kept, work, 1e-6 * work);
    assert_true(fabs(c.kept / all / expected - 1.0) < 0.01);
    assert_true(fabs((double)c.failures / (all / f.mtbf) - 1.0) < 4.0 / sqrt((double)c.failures));
    espl_failures slower = f; /* the control: saves of twice the cost are not within the bound */
    slower.hold = slower.write = 100.0;
    espl_failure_costs d = espl_failures_simulate(&slower, interval, work, 3, 1000000);
    assert_true(fabs(d.kept / (d.kept + d.saving + d.lost + d.down) / expected - 1.0) > 0.01);
}

/* A save in the background holds up for less, but counts later: more work is done again. */
static void a_save_counts_when_it_is_written(void **state) {
    (void)state;
    const espl_failures at_once = {.mtbf = 10000.0, .hold = 5.0, .write = 5.0, .restart = 0.0};
    espl_failures later = at_once;
    later.write = 400.0;
    espl_failure_costs a = espl_failures_simulate(&at_once, 500.0, 1e7, 3, 1000000),
                       b = espl_failures_simulate(&later, 500.0, 1e7, 3, 1000000);
    double more = b.lost / (double)b.failures - a.lost / (double)a.failures;
    assert_true(more > 0.7 * 395.0 && more < 1.3 * 395.0);
}

static void without_failures_only_saves_cost(void **state) {
    (void)state;
    const espl_failures f = {.mtbf = 1e15, .hold = 10.0, .write = 10.0, .restart = 300.0};
    espl_failure_costs c = espl_failures_simulate(&f, 100.0, 1000.0, 1, 10);
    assert_true(c.failures == 0 && c.lost == 0.0 && c.down == 0.0 && c.kept == 1000.0);
    assert_float_equal(c.saving, 90.0, 1e-9); /* the last piece of work ends the run */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_communicates_nothing),
        cmocka_unit_test(without_compute_a_step_is_the_ring),
        cmocka_unit_test(sums_hide_behind_what_follows),
        cmocka_unit_test(weights_that_flow_come_ahead),
        cmocka_unit_test(first_weights_come_behind_the_micro_batch_before),
        cmocka_unit_test(gradients_that_flow_are_summed_in_every_micro_batch),
        cmocka_unit_test(gathers_hide_behind_updates_and_forward),
        cmocka_unit_test(sums_wait_for_gathers),
        cmocka_unit_test(the_slowest_of_many_is_slower),
        cmocka_unit_test(steps_that_differ_have_a_mean_and_a_tail),
        cmocka_unit_test(intervals_are_those_of_the_papers),
        cmocka_unit_test(goodput_is_the_formula),
        cmocka_unit_test(simulated_failures_cost_what_the_formula_says),
        cmocka_unit_test(a_save_counts_when_it_is_written),
        cmocka_unit_test(without_failures_only_saves_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
