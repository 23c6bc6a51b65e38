/* Conformance of a camera's node: every command of lseek in every situation, poll, read, stat and the
 * JPEG header node, held against what is known of the kernels of the Elphel 353 and 393. Plain libc.
 *
 *   node_conformance [-m 353|393] [-t SECONDS] /dev/circbuf0 [/dev/jpeghead0]
 *
 * It runs on a real camera and on an emulated one, with frames coming in meanwhile: what is expected is
 * computed from the ring in front of each call and behind it, and the call is made again until both
 * agree and the write pointer stood still. One line a check: "ok", "FAIL" with what was expected and
 * what came, or "skip" where the situation did not arise in the time given. Exit code 0 if nothing
 * failed, 1 if something did, 2 if it cannot run. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "camera_model.h"

enum { TRIES = 2000 };

static int node, second, passed, failed, skipped;
static const char *node_path;
static double seconds_max = 20;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static long seek(int fd, long offset, int whence) {
  off_t answer = lseek(fd, offset, whence);
  return answer == -1 ? -errno : (long)answer;
}

static long write_pointer(void) { return seek(second, TOWP, SEEK_END); }

/* The position that the kernel keeps for the open file; asking by lseek would check it as well. */
static long position_of(int fd) {
  char path[64], line[128];
  long position = -1;
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  FILE *info = fopen(path, "r");
  while (info && fgets(line, sizeof line, info))
    if (sscanf(line, "pos: %ld", &position) == 1) break;
  if (info) fclose(info);
  return position;
}

/* The size of the ring is a position of its own, which SEEK_SET does not reach. */
static void set_position(int fd, long position) {
  seek(fd, position == size ? 0 : position, position == size ? SEEK_END : SEEK_SET);
}

static const char *told(long answer) {
  static char texts[4][32];
  static int next;
  char *text = texts[next++ % 4];
  if (answer < 0) snprintf(text, 32, "%s", strerrorname_np(-answer));
  else snprintf(text, 32, "%ld", answer);
  return text;
}

static void verdict(int good, const char *situation, const char *what, const char *detail) {
  printf("%-5s %-22s %-12s %s\n", good ? "ok" : "FAIL", situation, what, detail);
  *(good ? &passed : &failed) += 1;
}

static void skip(const char *situation, const char *why) {
  printf("skip  %-22s %s\n", situation, why);
  skipped++;
}

static int same(struct outcome a, struct outcome b) {
  return a.answer == b.answer && (a.position == b.position || a.position < 0 || b.position < 0);
}

static const struct { int command; const char *name; } COMMANDS[] = {
    {CUR0, "SEEK_CUR 0"}, {TORP, "TORP"}, {TOWP, "TOWP"}, {PREV, "PREV"}, {NEXT, "NEXT"}, {LAST, "LAST"},
    {FIRST, "FIRST"}, {SCND, "SCND"}, {SETP, "SETP"}, {VALID, "VALID"}, {READY, "READY"}, {WAIT, "WAIT"},
    {FREE, "FREE"}, {USED, "USED"}, {14, "STOP"}, {15, "UTIME"}, {77, "unknown 77"}};
enum { COMMANDS_N = sizeof COMMANDS / sizeof *COMMANDS };

/* A situation says where its position is while the write pointer is `wp`; -1: not now. */
typedef long situation(long wp);

static long at_wp(long wp) { return wp; }
static long at_newest(long wp) { return previous(wp, wp); }
static long at_middle(long wp) { long p = previous(wp, wp); return p < 0 ? p : previous(p, wp); }
static long at_oldest(long wp) { long p = oldest(wp, 0); return p == wp ? -1 : p; }
static long at_size(long wp) { (void)wp; return size; }
static long in_payload(long wp) { long p = previous(wp, wp); return p < 0 || place(p, wp) < 64 ? -1 : p + 32; }
static long misaligned(long wp) { long p = previous(wp, wp); return p < 0 ? p : p + 4; }
static long held;
static long at_held(long wp) { return place(held, wp) < 0 ? held : -1; }
static long at_exact_wrap(long wp) { return wp == 0 || wp == size ? wp : -1; }
static long behind_exact_wrap(long wp) { return at_exact_wrap(wp) < 0 ? -1 : size; }
static long before_exact_wrap(long wp) { return at_exact_wrap(wp) < 0 ? -1 : previous(wp, wp); }

/* Makes one call while nothing moves. 0: the situation did not last. */
static int attempt(int command, situation where, struct outcome *e, struct outcome *got, double until) {
  for (int tries = 0; tries < TRIES || now() < until; tries++) {
    if (now() > until && tries > TRIES) break;
    long wp = write_pointer(), p = where(wp);
    if (p < 0) { usleep(200); continue; }
    if (command == WAIT && place(p, wp) == 0) return 0;
    set_position(node, p);
    *e = expected(command, p, wp);
    got->answer = command == CUR0 ? seek(node, 0, SEEK_CUR) : seek(node, command, SEEK_END);
    got->position = position_of(node);
    if (command == SETP && got->answer >= 0) read_pointer = p;
    if (write_pointer() == wp && where(wp) == p && same(expected(command, p, wp), *e)) return 1;
  }
  return 0;
}

static void check_commands(const char *name, situation where, double patience) {
  for (int i = 0; i < COMMANDS_N; i++) {
    struct outcome e, got;
    char detail[160];
    if (COMMANDS[i].command == TORP && read_pointer < 0) continue;
    if (!attempt(COMMANDS[i].command, where, &e, &got, now() + patience)) {
      if (COMMANDS[i].command != WAIT) { skip(name, "did not arise, or not for long enough"); return; }
      continue;
    }
    snprintf(detail, sizeof detail, "%s at %s%s%s%s%s", told(got.answer), told(got.position),
             same(e, got) ? "" : ", expected ", same(e, got) ? "" : told(e.answer),
             same(e, got) ? "" : " at ", same(e, got) ? "" : told(e.position));
    verdict(same(e, got), name, COMMANDS[i].name, detail);
  }
}

static void check_poll(const char *name, situation where, double patience) {
  double until = now() + patience;
  for (int tries = 0; tries < TRIES || now() < until; tries++) {
    long wp = write_pointer(), p = where(wp), test;
    if (p < 0) { usleep(200); continue; }
    set_position(node, p);
    test = place(p, wp);
    short events = test < 0 ? POLLHUP : test ? POLLIN | POLLRDNORM : 0;
    struct pollfd polled = {node, POLLIN | POLLRDNORM, 0};
    int count = poll(&polled, 1, 0);
    if (write_pointer() != wp || place(p, wp) != test) continue;
    char detail[64];
    snprintf(detail, sizeof detail, "%#x, expected %#x", polled.revents, events);
    verdict(polled.revents == events && count == !!events, name, "poll", detail);
    return;
  }
}

static void check_situation(const char *name, situation where, double patience) {
  check_commands(name, where, patience);
  check_poll(name, where, patience);
}

static void check_number(const char *situation, const char *what, long got, long expected) {
  char detail[96];
  snprintf(detail, sizeof detail, got == expected ? "%s" : "%s, expected %s", told(got), told(expected));
  verdict(got == expected, situation, what, detail);
}

static void check_plain_seeks(void) {
  static const struct { long from, offset; int whence; long laps, answer; } ROWS[] = {
      {0, 32, SEEK_SET, 0, 32}, {0, 5, SEEK_SET, 0, 5},  {0, 0, SEEK_SET, 1, 0},
      {0, 7, SEEK_SET, 1, 7},   {0, 7, SEEK_SET, 3, 7},  {96, -32, SEEK_CUR, 0, 64},
      {96, 32, SEEK_CUR, 1, 128}};
  for (unsigned i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
    set_position(node, ROWS[i].from);
    check_number("plain seeks", "roll over", seek(node, ROWS[i].offset + ROWS[i].laps * size, ROWS[i].whence),
                 ROWS[i].answer);
  }
  set_position(node, 32);
  check_number("plain seeks", "below zero", seek(node, -64, SEEK_CUR), size - 32);
  check_number("plain seeks", "SEEK_SET -32", seek(node, -32, SEEK_SET), size - 32);
  check_number("plain seeks", "SEEK_END 0", seek(node, 0, SEEK_END), size);
  check_number("plain seeks", "SEEK_END -36", seek(node, -36, SEEK_END), size - 36);
  check_number("plain seeks", "whence 3", seek(node, 0, 3), -EINVAL);
}

static int equal(const uint8_t *bytes, long position) {
  for (int i = 0; i < 8; i++)
    if (bytes[i] != at(position + i)) return 0;
  return 1;
}

/* Bytes by read and pread, where they stand still: in the newest frame. A 393 rounds down to 4. */
static void check_reads(void) {
  for (int tries = 0; tries < TRIES; tries++) {
    uint8_t got[4][8];
    long wp = write_pointer(), p = at_newest(wp), odd = p + 69, from = model == 393 ? p + 68 : odd;
    if (p < 0 || place(p, wp) < 128) { usleep(200); continue; }
    set_position(node, p);
    long counts[4] = {read(node, got[0], 8), pread(node, got[1], 8, p), 0, 0}, moved = position_of(node);
    counts[2] = pread(node, got[2], 8, odd);
    seek(node, odd, SEEK_SET);
    counts[3] = read(node, got[3], 8);
    long odd_moved = position_of(node);
    uint8_t there[8] = {at(p + 69), at(p + 70), at(p + 71), at(p + 72), at(p + 73), at(p + 74), at(p + 75), at(p + 76)};
    if (write_pointer() != wp || at_newest(wp) != p || equal(there, p + 68)) { usleep(500); continue; }
    verdict(counts[0] == 8 && equal(got[0], p), "reads", "read", "at a frame");
    verdict(counts[1] == 8 && equal(got[1], p), "reads", "pread", "at a frame");
    verdict(counts[2] == 8 && equal(got[2], from), "reads", "pread", "where it is unaligned");
    verdict(counts[3] == 8 && equal(got[3], from), "reads", "read", "where it is unaligned");
    if (moved >= 0) check_number("reads", "moves by", moved - p, 8);
    if (odd_moved >= 0) check_number("reads", "moves by", odd_moved - odd, 8);
    return;
  }
  skip("reads", "no frame long enough stood still");
}

static void check_read_ends(void) {
  uint8_t bytes[64];
  seek(node, size - 32, SEEK_SET);
  check_number("reads", "to the end", read(node, bytes, 64), 32);
  check_number("reads", "at the end", read(node, bytes, 64), 0);
  check_number("reads", "pread at end", pread(node, bytes, 64, size), 0);
}

static void check_stat(void) {
  struct stat of_path, of_file;
  check_number("stat", "by path", stat(node_path, &of_path), 0);
  check_number("stat", "open", fstat(node, &of_file), 0);
  verdict(S_ISCHR(of_path.st_mode) && S_ISCHR(of_file.st_mode), "stat", "type", "a character device");
  check_number("stat", "size", of_file.st_size, size);
  check_number("stat", "access", access(node_path, R_OK | W_OK), 0);
  int fresh = open(node_path, O_RDONLY);
  if (position_of(fresh) >= 0) check_number("open", "position", position_of(fresh), 0);
  close(fresh);
}

/* Two open files have two positions; a duplicate has none of its own. The read pointer is everybody's. */
static void check_sharing(void) {
  int copy = dup(node);
  set_position(node, 64);
  set_position(second, 32);
  seek(copy, 32, SEEK_CUR);
  if (position_of(node) >= 0) {
    check_number("sharing", "dup moves", position_of(node), 96);
    check_number("sharing", "open does not", position_of(second), 32);
  }
  close(copy);
  for (int tries = 0; tries < TRIES; tries++) {
    long wp = write_pointer();
    set_position(node, wp);
    if (seek(node, SETP, SEEK_END) != wp || write_pointer() != wp) continue;
    read_pointer = wp;
    check_number("sharing", "TORP", seek(second, TORP, SEEK_END), wp);
    return;
  }
  skip("sharing", "the write pointer never stood still");
}

static void check_waiting(void) {
  double until = now() + seconds_max;
  long wp = write_pointer();
  struct pollfd polled = {node, POLLIN, 0};
  set_position(node, wp);
  if (poll(&polled, 1, 3000) == 0) { skip("waiting", "no frame came in 3 s"); return; }
  check_number("waiting", "poll", polled.revents, POLLIN);
  int pipes[2];
  if (pipe(pipes)) exit(2);
  while (now() < until) {
    wp = write_pointer();
    set_position(node, wp);
    struct pollfd both[2] = {{node, POLLIN, 0}, {pipes[0], POLLIN, 0}};
    if (write(pipes[1], "x", 1) != 1 || poll(both, 2, 3000) < 1) exit(2);
    char byte;
    if (read(pipes[0], &byte, 1) != 1) exit(2);
    if (write_pointer() != wp) continue;
    check_number("waiting", "poll a pipe", both[1].revents | both[0].revents << 8, POLLIN);
    break;
  }
  while (now() < until) {
    wp = write_pointer();
    set_position(node, wp);
    if (write_pointer() != wp) continue;
    long answer = seek(node, WAIT, SEEK_END);
    check_number("waiting", "WAIT", answer, wp);
    verdict(write_pointer() != wp, "waiting", "WAIT", "the write pointer has moved");
    if (model == 393) {
      long frame = seek(node, GETFRAME, SEEK_END);
      set_position(node, write_pointer());
      if (poll(&polled, 1, 3000) == 1)
        verdict(seek(node, GETFRAME, SEEK_END) > frame, "waiting", "GETFRAME", "counts frames");
    }
    return;
  }
  skip("waiting", "the write pointer never stood still");
}

static void check_overwritten(void) {
  double until = now() + seconds_max;
  long wp = write_pointer();
  held = previous(wp, wp);
  if (held < 0) { skip("overwritten", "there is no frame"); return; }
  while (place(held, write_pointer()) >= 0 && now() < until) usleep(500);
  if (place(held, write_pointer()) >= 0) { skip("overwritten", "a frame lived longer than the test"); return; }
  check_situation("overwritten", at_held, 1);
}

static void check_empty(void) {
  long wp = write_pointer();
  if (wp != 0 || place(size, -1) >= 0 || previous(0, -1) >= 0) { skip("empty ring", "there are frames"); return; }
  check_situation("empty ring", at_wp, 0);
}

static void check_jpeghead(const char *path) {
  int head = open(path, O_RDWR), tries;
  uint8_t bytes[0x300], tables[0x300];
  long wp, p = -1, made = -1, length = 0, selected = -1;
  if (head < 0) { skip("jpeghead", strerror(errno)); return; }
  for (tries = 0; tries < TRIES; tries++) {
    wp = write_pointer(), p = at_newest(wp);
    if (p < 0) { usleep(200); continue; }
    made = seek(head, p + 1, SEEK_END), length = read(head, bytes, sizeof bytes);
    selected = seek(head, (p & ~31L) + 2, SEEK_END);
    if (write_pointer() == wp) break;
  }
  if (tries == TRIES) { skip("jpeghead", "no frame stood still"); close(head); return; }
  check_number("jpeghead", "makes", made, 0);
  check_number("jpeghead", "tables", selected, 0);
  check_number("jpeghead", "tables", read(head, tables, sizeof tables), 128);
  verdict(length > 600 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff && bytes[3] == 0xe0 &&
          bytes[length - 1] == 0, "jpeghead", "bytes", "from SOI to SOS");
  verdict(length > 600 && !memcmp(bytes + 0x19, tables, 64) && !memcmp(bytes + 0x5e, tables + 64, 64),
          "jpeghead", "tables", "are those of the header");
  check_number("jpeghead", "SEEK_END 0", seek(head, 0, SEEK_END), 128);
  check_number("jpeghead", "SEEK_SET", seek(head, 4096, SEEK_SET), 128);
  check_number("jpeghead", "SEEK_CUR", seek(head, -8, SEEK_CUR), 120);
  check_number("jpeghead", "SEEK_CUR", seek(head, -500, SEEK_CUR), -EOVERFLOW);
  check_number("jpeghead", "read", read(head, bytes, 4), 4);
  check_number("jpeghead", "inside a frame", seek(head, p + 33, SEEK_END), -EINVAL);
  /* A 393 keeps one header for a channel, and empties it at each open; a 353 one for each open file. */
  int other = open(path, O_RDONLY);
  check_number("jpeghead", "a second open", seek(head, 0, SEEK_END), model == 393 ? 0 : 128);
  check_number("jpeghead", "a second open", seek(other, 0, SEEK_END), 0);
  close(other);
  close(head);
}

static void tell_cost(void) {
  enum { CALLS = 20000 };
  double begin = now();
  for (int i = 0; i < CALLS; i++) write_pointer();
  printf("# lseek: %.2f us a call\n", (now() - begin) / CALLS * 1e6);
}

static int no_node(const char *why) {
  fprintf(stderr, "%s: %s; a camera's node is needed, such as /dev/circbuf0, or that of circbuf exec\n", node_path, why);
  return 2;
}

int main(int argc, char **argv) {
  int option;
  while ((option = getopt(argc, argv, "m:t:")) != -1) {
    if (option == 'm') model = atoi(optarg);
    else if (option == 't') seconds_max = atof(optarg);
    else return 2;
  }
  if (optind >= argc) return fprintf(stderr, "usage: %s [-m 353|393] [-t SECONDS] NODE [JPEGHEAD]\n", argv[0]), 2;
  node_path = argv[optind];
  struct stat status;
  if (stat(node_path, &status)) return no_node(strerror(errno));
  if (!S_ISCHR(status.st_mode)) return no_node("it is no character device");
  node = open(node_path, O_RDONLY | O_NOCTTY), second = open(node_path, O_RDONLY | O_NOCTTY);
  if (node < 0 || second < 0) return no_node(strerror(errno));
  if (!model) model = minor(status.st_rdev) == 11 ? 353 : 393;
  size = seek(node, 0, SEEK_END);
  if (size < 0) return no_node(strerror(-size));
  if (size == 0) return no_node("it is a device with no ring");
  ring = mmap(NULL, size, PROT_READ, MAP_SHARED, node, 0);
  if (ring == MAP_FAILED) return no_node("it cannot be mapped");
  printf("# %s: nc%d, ring of %ld bytes\n", node_path, model, size);
  check_stat();
  check_plain_seeks();
  check_read_ends();
  check_empty();
  check_sharing();
  if (at_newest(write_pointer()) >= 0 || write_pointer() != 0) {
    check_situation("write pointer", at_wp, 1);
    check_situation("newest frame", at_newest, 1);
    check_situation("a frame in the middle", at_middle, 1);
    check_situation("oldest frame", at_oldest, 1);
    check_situation("inside a frame", in_payload, 1);
    check_situation("misaligned", misaligned, 1);
    check_situation("end of the ring", at_size, 1);
    check_reads();
    check_waiting();
    check_overwritten();
    check_situation("exact wrap", at_exact_wrap, seconds_max);
    check_situation("behind an exact wrap", behind_exact_wrap, seconds_max);
    check_situation("before an exact wrap", before_exact_wrap, seconds_max);
    if (optind + 1 < argc) check_jpeghead(argv[optind + 1]);
  }
  tell_cost();
  printf("# %d ok, %d failed, %d skipped\n", passed, failed, skipped);
  return failed ? 1 : 0;
}
