/* A process whose UDP socket fails for good as soon as there is a file DEAF_FILE. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int recvmmsg(int socket, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout) {
    if (access(getenv("DEAF_FILE"), F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return REAL(recvmmsg)(socket, messages, count, flags, timeout);
}
