/* Descriptors from a host's first rank to its others, over a socket of Linux's abstract names (unix(7), SCM_RIGHTS). Whoever cannot be
 * reached keeps -1 and opens the file himself. */
#include "io/share_files.h"

#include "src/core/buffer.h"

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000 };

/* Where the first rank of a host waits. */
typedef struct place {
    int64_t node, node_rank;
    uint64_t name[2]; /* random: nobody can take it before, or guess it */
} place;

static socklen_t address_of(const place *where, struct sockaddr_un *address) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "espalier-%016llx%016llx", (unsigned long long)where->name[0],
                     (unsigned long long)where->name[1]);
    return (socklen_t)(sizeof address->sun_family + 1 + (size_t)n);
}

static bool is_ours(int connection) {
    struct ucred who;
    socklen_t size = sizeof who;
    return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.uid == geteuid();
}

typedef union control {
    struct cmsghdr head;
    char room[CMSG_SPACE(sizeof(int))];
} control;

/* A message a descriptor: a byte that says whether it is open, and then itself. */
static bool send_one(int connection, int fd) {
    char open = fd >= 0;
    control data = {0};
    struct iovec part = {.iov_base = &open, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (open) {
        message.msg_control = data.room;
        message.msg_controllen = sizeof data.room;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    return sendmsg(connection, &message, MSG_NOSIGNAL) == 1;
}

static bool receive_one(int connection, int *fd) {
    char open = 0;
    control data;
    struct iovec part = {.iov_base = &open, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = data.room, .msg_controllen = sizeof data.room};
    struct pollfd waiting = {.fd = connection, .events = POLLIN};
    *fd = -1;
    if (poll(&waiting, 1, PATIENCE_MS) != 1 || recvmsg(connection, &message, MSG_CMSG_CLOEXEC) != 1)
        return false;
    const struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS && head->cmsg_len == CMSG_LEN(sizeof *fd))
        memcpy(fd, CMSG_DATA(head), sizeof *fd);
    return open == (*fd >= 0);
}

static int listen_at(const place *where, int others) {
    struct sockaddr_un address;
    socklen_t size = address_of(where, &address);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener >= 0 && (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, others) != 0)) {
        close(listener);
        return -1;
    }
    return listener;
}

/* To all others of the host; one that does not come is not waited for without end. */
static void give(int listener, const int *fds, int n, int others) {
    for (int given = 0; given < others;) {
        struct pollfd waiting = {.fd = listener, .events = POLLIN};
        int connection = poll(&waiting, 1, PATIENCE_MS) == 1 ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (connection < 0)
            return;
        bool good = is_ours(connection);
        given += good;
        for (int i = 0; i < n && good; i++)
            good = send_one(connection, fds[i]);
        close(connection);
    }
}

static void get(const place *where, int *fds, int n) {
    struct sockaddr_un address;
    socklen_t size = address_of(where, &address);
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = connection >= 0 && connect(connection, (struct sockaddr *)&address, size) == 0 && is_ours(connection);
    for (int i = 0; i < n; i++) {
        fds[i] = -1;
        good = good && receive_one(connection, &fds[i]);
    }
    if (connection >= 0)
        close(connection);
}

/* The first rank of this host among all. */
static const place *first_here(const place *places, const espl_ranks *ranks) {
    const place *at = places;
    while (at->node != ranks->node || at->node_rank != 0)
        at++;
    return at;
}

espl_status espl_descriptors_share(espl_comm *comm, int *fds, int n) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    place mine = {.node = ranks->node, .node_rank = ranks->node_rank}, *places;
    bool gives = ranks->node_rank == 0 && ranks->node_size > 1;
    int listener = -1;
    if (gives && getrandom(mine.name, sizeof mine.name, 0) == (ssize_t)sizeof mine.name)
        listener = listen_at(&mine, ranks->node_size - 1);
    places = espl_malloc((size_t)ranks->size * sizeof *places);
    espl_status status = espl_comm_allgather(comm, &mine, sizeof mine, places); /* from here on the first ranks wait */
    if (status == ESPL_OK && listener >= 0)
        give(listener, fds, n, ranks->node_size - 1);
    else if (status == ESPL_OK && ranks->node_rank != 0)
        get(first_here(places, ranks), fds, n);
    if (listener >= 0)
        close(listener);
    free(places);
    return status;
}
