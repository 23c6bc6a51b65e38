/* What dup, fork, exec, close, a socket, threads and signals do to an open node. Prints a line a check;
 * exit code 0 if all hold.
 *   processes /dev/circbuf0 idle       the ring is empty and stays so
 *   processes /dev/circbuf0 starting   the ring is empty, and soon it is not */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TOWP = 2, WAIT = 11 };

static int failed;

static void holds(int good, const char *what) {
  printf("%-5s %s\n", good ? "ok" : "FAIL", what);
  failed |= !good;
}

static long position(int fd) {
  char path[64], text[512] = {0};
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  int info = open(path, O_RDONLY);
  long got = read(info, text, sizeof text - 1), at = -1;
  close(info);
  sscanf(got > 0 ? text : "", "pos: %ld", &at);
  return at;
}

static volatile int waited;

static void *waiter(void *node) {
  waited = lseek(*(int *)node, WAIT, SEEK_END) == 0 ? 1 : -1;
  return NULL;
}

static volatile int caught;
static void catch(int signal) { caught = signal; }

static int send_descriptor(int node) {
  int pair[2], received = -1;
  union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {{0}};
  char byte = 0;
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return -1;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  *header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
  memcpy(CMSG_DATA(header), &node, sizeof(int));
  if (sendmsg(pair[0], &message, 0) == 1 && recvmsg(pair[1], &message, 0) == 1)
    memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
  return received;
}

static void other_openings(const char *path, int node) {
  char behind[64];
  for (const char *const *more = (const char *[]){"/", "/.", "/..", "/x", NULL}; *more; more++) {
    struct stat told;
    snprintf(behind, sizeof behind, "%s%s", path, *more);
    holds(open(behind, O_RDONLY) == -1 && errno == ENOTDIR, "a node is no folder");
    errno = 0;
    holds(stat(behind, &told) == -1 && errno == ENOTDIR, "nor for stat");
    errno = 0;
    holds(access(behind, R_OK) == -1 && errno == ENOTDIR, "nor for access");
  }
  for (const int *mode = (const int[]){O_WRONLY, O_PATH, -1}; *mode != -1; mode++) {
    struct stat told;
    char byte;
    int other = open(path, *mode);
    holds(other > 0 && fstat(other, &told) == 0 && S_ISCHR(told.st_mode), "opened for something else than reading");
    holds(read(other, &byte, 1) == -1 && errno == EBADF, "it is not read");
    errno = 0;
    holds(pread(other, &byte, 1, 3) == -1 && errno == EBADF, "nor at a position of no word");
    holds(write(other, "x", 1) == -1 && errno == EBADF, "nor written");
    holds(mmap(NULL, 4096, PROT_READ, MAP_SHARED, other, 0) == MAP_FAILED, "nor mapped");
    close(other);
  }
  snprintf(behind, sizeof behind, "/proc/self/fd/%d", node);
  int again = open(behind, O_RDWR);
  holds(again > 0 && write(again, "x", 1) == -1 && errno == EPERM, "the ring's memory is not written");
  holds(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0) == MAP_FAILED && errno == EPERM,
        "nor mapped for it");
  close(again);
}

static void descriptors(const char *path, int node) {
  int lowest = open("/dev/null", O_RDONLY), again;
  close(lowest), again = open(path, O_RDONLY), close(again);
  holds(again == lowest, "open takes the lowest number");
  int copy = dup(node), high = dup2(node, 200), file;
  lseek(copy, -64, SEEK_END);
  holds(position(node) == position(copy) && position(node) == position(high), "duplicates share a position");
  close(copy);
  holds(lseek(high, 32, SEEK_CUR) == position(node), "closing one leaves the others");
  file = open("/proc/self/exe", O_RDONLY);
  holds(file == copy && lseek(file, 0, SEEK_END) > 4096 && lseek(file, 11, SEEK_END) > 4096,
        "the number of a closed node is another file's");
  close(file);
  int sent = send_descriptor(node);
  holds(sent > 0 && lseek(sent, 96, SEEK_SET) == 96 && position(node) == 96, "a socket carries it");
  close(sent);
  FILE *stream = fopen(path, "r");
  holds(stream && fseek(stream, 64, SEEK_SET) == 0 && fgetc(stream) == 0 && !fclose(stream), "fopen");
  holds(fcntl(open(path, O_RDONLY | O_CLOEXEC), F_GETFD) == FD_CLOEXEC, "O_CLOEXEC");
  holds(openat(AT_FDCWD, "/dev/../dev//circbuf0", O_RDONLY) > 0, "another way to say the path");
  int folder = open("/dev", O_RDONLY | O_DIRECTORY);
  holds(openat(folder, "circbuf0", O_RDWR) > 0, "a path from a folder");
  holds(open("/dev/circbuf99", O_RDONLY) == -1 && errno == ENOENT, "a channel that is not there");
  holds(write(node, "x", 1) == -1 && errno == EBADF, "the ring is not written");
  holds(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, node, 0) == MAP_FAILED && errno == EACCES,
        "nor mapped for it");
  int set = epoll_create1(0);
  holds(epoll_ctl(set, EPOLL_CTL_ADD, node, &(struct epoll_event){EPOLLIN, {0}}) == -1 && errno == EPERM,
        "epoll refuses");
}

static void processes(char *self, int node) {
  int status;
  lseek(node, 32, SEEK_SET);
  if (fork() == 0) _exit(lseek(node, 32, SEEK_CUR) == 64 ? 0 : 1);
  wait(&status);
  holds(status == 0 && position(node) == 64, "a child shares the position");
  if (fork() == 0) {
    char number[16];
    snprintf(number, sizeof number, "%d", node);
    execl(self, self, "-x", number, (char *)NULL);
    _exit(9);
  }
  wait(&status);
  holds(status == 0 && position(node) == 128, "so does a program that it executes");
  lseek(node, TOWP, SEEK_END);
  pid_t child = fork();
  if (child == 0) _exit(lseek(node, WAIT, SEEK_END) == 0 ? 0 : 1);
  usleep(100000);
  kill(child, SIGKILL);
  wait(&status);
  holds(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "a child in WAIT can be killed");
}

static void signals(int node) {
  struct sigaction action = {.sa_handler = catch, .sa_flags = SA_RESTART};
  struct pollfd polled = {node, POLLIN, 0};
  sigaction(SIGALRM, &action, NULL);
  alarm(1);
  errno = 0;
  holds(poll(&polled, 1, 20000) == -1 && errno == EINTR && caught == SIGALRM, "a signal ends poll");
  struct timeval limit = {0, 50000};
  fd_set set;
  FD_ZERO(&set);
  FD_SET(node, &set);
  holds(select(node + 1, &set, NULL, NULL, &limit) == 0 && !FD_ISSET(node, &set), "select takes its time");
  holds(poll(&polled, 1, 50) == 0, "poll takes its time");
  int closed = dup(node);
  close(closed);
  struct pollfd all[] = {{node, POLLIN, 0}, {-5, POLLIN, 7}, {closed, POLLIN, 0}};
  holds(poll(all, 3, -1) == 1 && all[0].revents == 0 && all[1].revents == 0 && all[2].revents == POLLNVAL,
        "poll tells what is not open");
  FD_SET(node, &set);
  FD_SET(closed, &set);
  holds(select(closed + 1, &set, NULL, NULL, NULL) == -1 && errno == EBADF, "select refuses what is not open");
}

static void threads(int node) {
  pthread_t thread;
  lseek(node, TOWP, SEEK_END);
  pthread_create(&thread, NULL, waiter, &node);
  int answered = 0;
  while (!waited) answered += lseek(node, 0, SEEK_CUR) == 0;
  holds(answered > 100, "a thread in WAIT stops no other");
  struct pollfd polled = {node, POLLIN, 0};
  holds(poll(&polled, 1, 20000) == 1 && polled.revents == POLLIN, "poll sees the first frame");
  pthread_join(thread, NULL);
  holds(waited == 1, "and WAIT ends with it");
  fd_set set;
  FD_ZERO(&set);
  FD_SET(node, &set);
  holds(select(node + 1, &set, NULL, NULL, NULL) == 1 && FD_ISSET(node, &set), "select finds it");
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "-x")) return lseek(atoi(argv[2]), 64, SEEK_CUR) == 128 ? 0 : 1;
  setvbuf(stdout, NULL, _IONBF, 0);
  if (argc != 3) return fprintf(stderr, "usage: processes NODE idle|starting\n"), 2;
  int node = open(argv[1], O_RDONLY);
  if (!strcmp(argv[2], "idle")) {
    other_openings(argv[1], node);
    descriptors(argv[1], node);
    processes(argv[0], node);
    lseek(node, TOWP, SEEK_END);
    signals(node);
  } else {
    threads(node);
  }
  return failed;
}
