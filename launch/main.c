/* espalier VERB ...: finds the verb, runs it, prints its failure. The status is the exit code. */
#include "launch/commands.h"
#include "launch/session.h"

#include "src/config/nearest.h"

#include <signal.h>
#include <string.h>

typedef struct verb {
    const char *name;
    espl_status (*run)(int argc, char **argv);
    const char *help;
} verb;

static const verb verbs[] = {
#define VERB(name, help) {#name, espl_cmd_##name, help},
#include "launch/verbs.def"
#undef VERB
};

enum { N_VERBS = sizeof verbs / sizeof verbs[0] };

static void print_help(FILE *out) {
    fputs("usage: espalier VERB [arguments]\n\nEspalier trains language models on CPUs, GPUs and clusters.\n\nverbs:\n", out);
    for (int i = 0; i < N_VERBS; i++)
        fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].help);
    fputs("\n`espalier VERB --help` tells all about one. `espalier --version` prints the version.\n"
          "Results go to stdout, progress to stderr. ESPL_TRACE=1 shows where in the program a failure arose.\n"
          "Ranks that have not met after ESPL_START_SECONDS (600) leave.\n\n"
          "exit codes: 0 done, 2 command line or config, 3 data, 4 numeric, 5 input or output,\n"
          "            75 stopped by a signal with a checkpoint saved, 70 a bug of ours\n",
          out);
}

static espl_status unknown_verb(const char *word) {
    const char *names[N_VERBS];
    for (int i = 0; i < N_VERBS; i++)
        names[i] = verbs[i].name;
    int64_t near = espl_word_nearest(word, names, N_VERBS);
    if (near >= 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "unknown verb '%s'; did you mean '%s'?", word, names[near]);
    ESPL_FAIL(ESPL_ERR_USAGE, "unknown verb '%s'; `espalier --help` lists them", word);
}

static espl_status run(int argc, char **argv) {
    if (argc < 2)
        ESPL_FAIL(ESPL_ERR_USAGE, "a verb is missing; `espalier --help` lists them");
    for (int i = 0; i < N_VERBS; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(argc - 1, argv + 1);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        print_help(stdout);
    else if (strcmp(argv[1], "--version") == 0)
        puts("espalier " ESPL_VERSION);
    else
        return unknown_verb(argv[1]);
    return ESPL_OK;
}

static espl_status flush_results(void) {
    if (fflush(stdout) != 0 || ferror(stdout))
        ESPL_FAIL(ESPL_ERR_IO, "results could not be written to stdout");
    return ESPL_OK;
}

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* beyond a limit of file sizes a write fails, which is told, and older checkpoints stay */
    espl_status status = run(argc, argv);
    if (status == ESPL_OK)
        status = flush_results();
    if (status != ESPL_OK)
        espl_session_tell(status);
    return status;
}
