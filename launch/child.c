#include "launch/child.h"

#include "launch/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* In a group of its own: what a terminal sends goes to us alone, and what we hand on arrives once. Such a group must not read the
 * terminal, as mpirun would. */
static espl_status start(char *const *words, pid_t *pid) {
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    int error = posix_spawnp(pid, words[0], &actions, &attributes, words, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "'%s' cannot be started: %s", words[0], strerror(error));
    return ESPL_OK;
}

espl_status espl_child_run(char *const *words, int *code) {
    const struct timespec moment = {.tv_nsec = 50000000};
    int state = 0;
    bool told = false;
    pid_t pid, ended;
    ESPL_TRY(start(words, &pid));
    while ((ended = waitpid(pid, &state, WNOHANG)) == 0 || (ended < 0 && errno == EINTR)) {
        if (!told && espl_signals_pending() != 0) {
            kill(pid, SIGUSR1);
            told = true;
        }
        nanosleep(&moment, NULL);
    }
    *code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    return ESPL_OK;
}
