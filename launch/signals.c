#include "launch/signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

static struct {
    int number;
    struct sigaction earlier;
} rows[] = {{.number = SIGTERM}, {.number = SIGUSR1}, {.number = SIGUSR2}, {.number = SIGINT}};

enum { N_ROWS = sizeof rows / sizeof rows[0], EXIT_INTERRUPTED = 128 + SIGINT };

static atomic_int first_signal, n_interrupts;

static void note(int signal) {
    if (signal == SIGINT && atomic_fetch_add(&n_interrupts, 1) > 0)
        _exit(EXIT_INTERRUPTED);
    int none = 0;
    atomic_compare_exchange_strong(&first_signal, &none, signal);
}

void espl_signals_install(void) {
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < N_ROWS; i++)
        sigaction(rows[i].number, &action, &rows[i].earlier);
}

int espl_signals_pending(void) { return atomic_load(&first_signal); }

void espl_signals_restore(void) {
    for (int i = 0; i < N_ROWS; i++)
        sigaction(rows[i].number, &rows[i].earlier, NULL);
    atomic_store(&first_signal, 0);
    atomic_store(&n_interrupts, 0);
}
