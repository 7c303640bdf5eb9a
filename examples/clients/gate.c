/* Asks this host's machineid-sidecar before each task. POSIX only: cc -o gate gate.c */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum answer { ALLOWED = 0, UNDECIDED = 75, DENIED = 77 };

static void socket_path(char *path, size_t size)
{
    const char *named = getenv("MACHINEID_SOCKET");
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    snprintf(path, size, "%s", named && *named ? named : "/run/machineid/sidecar.sock");
    if ((!named || !*named) && access(path, F_OK) != 0 && runtime)
        snprintf(path, size, "%s/machineid/sidecar.sock", runtime);
}

/* The status of the answer; 0 when there is none. */
static int ask(void)
{
    /* HTTP/1.0: the answer is neither chunked nor kept alive. */
    static const char question[] = "GET /v1/check HTTP/1.0\r\nHost: localhost\r\n\r\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = 10};
    char head[14] = "";
    size_t length = 0;
    ssize_t count = 0;
    int status = 0, connection = socket(AF_UNIX, SOCK_STREAM, 0);

    if (connection < 0)
        return 0;
    socket_path(address.sun_path, sizeof address.sun_path);
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(connection, (struct sockaddr *)&address, sizeof address) == 0 &&
        send(connection, question, sizeof question - 1, MSG_NOSIGNAL) == (ssize_t)(sizeof question - 1)) {
        while (length < sizeof head - 1 &&
               (count = read(connection, head + length, sizeof head - 1 - length)) > 0)
            length += (size_t)count;
        /* "HTTP/1.1 200 ": the status line decides; the body is only for the log. */
        if (length == sizeof head - 1 && strncmp(head, "HTTP/1.", 7) == 0 && head[8] == ' ' && head[12] == ' ')
            status = atoi(head + 9);
    }
    close(connection);
    return status;
}

static enum answer gate(void)
{
    switch (ask()) {
    case 200:
        return ALLOWED;
    case 403:
        return DENIED;
    default:
        return UNDECIDED;
    }
}

int main(void)
{
    for (int task = 1; task <= 3; task++) {
        enum answer answer = gate();

        if (answer != ALLOWED) {
            fprintf(stderr, "%s: stopping\n", answer == DENIED ? "denied" : "could not find out whether to go on");
            return answer;
        }
        printf("task %d\n", task);
        fflush(stdout);
    }
    return 0;
}
