/* What is known of the nodes of the Elphel 353 and 393: what each command of lseek returns and where it
 * leaves the position, computed from the ring in memory and the write pointer. */
#include <errno.h>
#include <stdint.h>

enum { TORP = 1, TOWP, PREV, NEXT, LAST, FIRST, SCND, SETP, VALID, READY, WAIT, FREE, USED, GETFRAME = 16 };
enum { CUR0 = -1 };

/* What a call returns (negative: errno), and the file position afterwards. */
struct outcome { long answer, position; };

static int model;
static const volatile uint8_t *ring;
static long size, read_pointer = -1;

static uint8_t at(long position) { return ring[((position % size) + size) % size]; }

static uint32_t word(long position) {
  return at(position) | at(position + 1) << 8 | at(position + 2) << 16 | (uint32_t)at(position + 3) << 24;
}

static long slot(long length) { return ((length + 15) & ~31L) + 64; }

/* -2 misaligned, -1 no header, 0 the write pointer or not acquired, else the length of the frame. */
static long place(long position, long wp) {
  if (position & 31) return -2;
  if (position == wp) return 0;
  if (at(position - 6) != 0xff || at(position - 5) != 0xff) return -1;
  uint32_t length = word(position - 4);
  return length >> 24 ? 0 : (long)length;
}

static long previous(long position, long wp) {
  uint32_t trailer = word(position - 36);
  if (trailer >> 24 != 0xff) return -EOVERFLOW;
  long start = position - slot(trailer & 0xffffff);
  if (start < 0) start += size;
  return start < 0 || place(start, wp) < 0 ? -EOVERFLOW : start;
}

/* The oldest frame but `nth`, going back from the write pointer and once through 0. */
static long oldest(long wp, int nth) {
  long frame = wp, newer = wp;
  for (int wraps = 0;;) {
    long older = previous(frame, wp);
    if (older < 0 || place(older, wp) <= 0 || (wraps += older > frame) > 1) return nth ? newer : frame;
    newer = frame, frame = older;
  }
}

static struct outcome expected(int command, long p, long wp) {
  long test = place(p, wp), value;
  struct outcome same = {p, p}, invalid = {-EINVAL, p};
  switch (command) {
  case CUR0: return test < 0 ? invalid : (struct outcome){p % size, p % size};
  case TORP: return (struct outcome){place(read_pointer, wp) < 0 ? -EINVAL : read_pointer, read_pointer};
  case TOWP: return (struct outcome){wp, wp};
  case PREV:
    if (test < 0) return invalid;
    value = previous(p, wp);
    return (struct outcome){value, value < 0 ? p : value};
  case NEXT:
    if (test <= 0) return (struct outcome){test < 0 ? -EINVAL : -EOVERFLOW, p};
    value = p + slot(test);
    if (value > size) value -= size;
    return (struct outcome){value, value};
  case LAST:
    value = previous(wp, wp);
    if (value < 0) value = wp;
    return (struct outcome){value, value};
  case FIRST: case SCND:
    value = oldest(wp, command == SCND);
    return (struct outcome){value, value};
  case SETP: case VALID: return test < 0 ? invalid : same;
  case READY: return test <= 0 ? invalid : same;
  case WAIT: return (struct outcome){test < 0 ? -ESPIPE : p, p};
  case FREE: case USED:
    if (test < 0) return invalid;
    value = command == FREE ? p - wp : wp - p;
    if (value < 0 || (value == 0 && (command == FREE || model == 353))) value += size;
    return (struct outcome){value, value};
  default: return same; /* 14, 15 and all others do nothing */
  }
}
