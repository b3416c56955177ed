// test: libs=launch,comm,config,core ranks=1+2 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "launch/options.h"
#include "launch/session.h"
#include "launch/signals.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct targets {
    bool fast;
    int64_t ranks;
    double rate;
    const char *name;
    espl_words sets, operands;
    bool done;
} targets;

static espl_status parse(targets *t, int argc, char **argv) {
    const espl_option options[] = {
        {"fast", NULL, "a switch", ESPL_OPTION_SWITCH, &t->fast},     {"ranks", "N", "a number", ESPL_OPTION_INT, &t->ranks},
        {"rate", "X", "a real number", ESPL_OPTION_FLOAT, &t->rate},  {"name", "TEXT", "a text", ESPL_OPTION_TEXT, &t->name},
        {"set", "KEY=VALUE", "several", ESPL_OPTION_TEXTS, &t->sets},
    };
    const espl_usage usage = {
        .verb = "verb", .operands = "A [B]", .text = "", .options = options, .n_options = 5, .min_operands = 1, .max_operands = 2};
    return espl_options_parse(&usage, argc, argv, &t->operands, &t->done);
}

#define PARSE(t, ...) parse((t), (int)(sizeof((char *[]){"verb", __VA_ARGS__}) / sizeof(char *)), (char *[]){"verb", __VA_ARGS__})

static void free_targets(targets *t) {
    espl_words_free(&t->sets);
    espl_words_free(&t->operands);
    espl_status_clear();
}

static void options_of_every_kind(void **state) {
    (void)state;
    targets t = {0};
    assert_int_equal(PARSE(&t, "--ranks", "-3", "a", "--fast", "--rate=2.5e-1", "--set", "x=1", "--name=", "--set=y=2", "--", "--b"),
                     ESPL_OK);
    assert_true(t.fast);
    assert_int_equal(t.ranks, -3);
    assert_true(t.rate == 0.25);
    assert_string_equal(t.name, "");
    assert_int_equal(t.sets.n, 2);
    assert_string_equal(t.sets.items[0], "x=1");
    assert_string_equal(t.sets.items[1], "y=2");
    assert_int_equal(t.operands.n, 2);
    assert_string_equal(t.operands.items[1], "--b");
    assert_false(t.done);
    free_targets(&t);
}

#define REFUSED(message, ...)                                                                                                              \
    do {                                                                                                                                   \
        targets t_ = {0};                                                                                                                  \
        assert_int_equal(PARSE(&t_, __VA_ARGS__), ESPL_ERR_USAGE);                                                                         \
        assert_string_equal(espl_status_message(), message);                                                                               \
        free_targets(&t_);                                                                                                                 \
    } while (0)

static void bad_options_are_refused(void **state) {
    (void)state;
    REFUSED("verb: unknown option '--rnaks'; did you mean '--ranks'?", "a", "--rnaks=3");
    REFUSED("verb: unknown option '--zzzzzz'; see `espalier verb --help`", "a", "--zzzzzz");
    REFUSED("verb: --ranks wants a whole number, found '3.5'", "a", "--ranks", "3.5");
    REFUSED("verb: --ranks wants a whole number, found ''", "a", "--ranks=");
    REFUSED("verb: --ranks wants a whole number, found '99999999999999999999'", "a", "--ranks=99999999999999999999");
    REFUSED("verb: --rate wants a number, found 'x'", "a", "--rate", "x");
    REFUSED("verb: --name wants a value: TEXT", "a", "--name");
    REFUSED("verb: --fast takes no value", "a", "--fast=yes");
    REFUSED("verb: an argument is missing; usage: espalier verb A [B]", "--fast");
    REFUSED("verb: 'c' is one argument too many; usage: espalier verb A [B]", "a", "b", "c");
}

static void signals_are_noted_and_the_first_counts(void **state) {
    (void)state;
    espl_signals_install();
    assert_int_equal(espl_signals_pending(), 0);
    raise(SIGUSR1);
    raise(SIGTERM);
    assert_int_equal(espl_signals_pending(), SIGUSR1);
    espl_signals_restore();
    assert_int_equal(espl_signals_pending(), 0);
    struct sigaction now;
    sigaction(SIGTERM, NULL, &now);
    assert_true(now.sa_handler == SIG_DFL);
}

/* Exit code of a child that interrupts itself n times, and then leaves with 0. */
static int code_after_interrupts(int n) {
    pid_t child = fork();
    if (child == 0) {
        espl_signals_install();
        for (int i = 0; i < n; i++)
            raise(SIGINT);
        _exit(0);
    }
    int how = 0;
    waitpid(child, &how, 0);
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

static void a_second_interrupt_leaves_at_once(void **state) {
    (void)state;
    assert_int_equal(code_after_interrupts(1), 0);
    assert_int_equal(code_after_interrupts(2), 130);
}

/* On every rank: the same failure keeps its message; a failure of one rank carries that rank's number everywhere. */
static espl_status agree_both_ways(espl_comm *comm, void *context) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    assert_int_equal(espl_session_agree(comm, ESPL_OK, "fine"), ESPL_OK);
    espl_status mine = espl_status_fail(ESPL_ERR_USAGE, __FILE__, __LINE__, "c.yaml:3: no");
    assert_int_equal(espl_session_agree(comm, mine, "all"), ESPL_ERR_USAGE);
    assert_string_equal(espl_status_message(), "c.yaml:3: no");
    espl_status_clear();
    int last = ranks->size - 1;
    mine = ranks->rank == last ? espl_status_fail(ESPL_ERR_DATA, __FILE__, __LINE__, "broken") : ESPL_OK;
    assert_int_equal(espl_session_agree(comm, mine, "one"), ESPL_ERR_DATA);
    assert_string_equal(espl_status_message(), ranks->size == 1 ? "broken" : "rank 1: broken");
    assert_int_equal(espl_session_agree(comm, ESPL_ERR_DATA, "again"), ESPL_ERR_DATA);
    assert_string_equal(espl_status_message(), ranks->size == 1 ? "broken" : "rank 1: broken");
    snprintf(context, 64, "%s", ranks->rank > 0 ? "" : ranks->size == 1 ? "espalier: broken\n" : "espalier: rank 1: broken\n");
    return ESPL_ERR_DATA;
}

/* The session's failure is told once, before the ranks part, by rank 0 alone. */
static void sessions_agree(void **state) {
    (void)state;
    char expected[64] = "?", told[256] = "";
    FILE *file = tmpfile();
    int screen = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    espl_status status = espl_session_run(0, agree_both_ways, expected);
    espl_session_tell(status);
    fflush(stderr);
    dup2(screen, STDERR_FILENO);
    rewind(file);
    told[fread(told, 1, sizeof told - 1, file)] = '\0';
    fclose(file);
    close(screen);
    assert_int_equal(status, ESPL_ERR_DATA);
    assert_string_equal(told, expected);
    espl_status_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_of_every_kind),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(signals_are_noted_and_the_first_counts),
        cmocka_unit_test(a_second_interrupt_leaves_at_once),
        cmocka_unit_test(sessions_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
