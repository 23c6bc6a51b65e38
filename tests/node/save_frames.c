/* Saves frames of a camera as JPEG files, as any program on the camera itself would.
 *   save_frames /dev/circbuf0 /dev/jpeghead0 FOLDER FRAMES */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NEXT = 4, LAST = 5, WAIT = 11, HEADER_BYTES_MAX = 0x300 };

static const uint8_t *ring;
static long size;

/* The frame's length stands in the last four bytes of the header in front of it. */
static long length_at(long start) {
  const uint8_t *word = ring + (start + size - 4) % size;
  return word[0] | word[1] << 8 | word[2] << 16;
}

static void copy(uint8_t *out, long start, long length) {
  long first = length < size - start ? length : size - start;
  memcpy(out, ring + start, first);
  memcpy(out + first, ring, length - first);
}

static void save(const char *folder, int number, const uint8_t *bytes, long length) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%d.jpg", folder, number);
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(bytes, 1, length, file) != (size_t)length || fclose(file)) {
    perror(path);
    exit(1);
  }
}

int main(int argc, char **argv) {
  if (argc != 5) return fprintf(stderr, "usage: save_frames NODE JPEGHEAD FOLDER FRAMES\n"), 2;
  int node = open(argv[1], O_RDONLY), head = open(argv[2], O_RDWR);
  if (node < 0 || head < 0) return perror("open"), 1;
  size = lseek(node, 0, SEEK_END);
  ring = mmap(NULL, size, PROT_READ, MAP_SHARED, node, 0);
  uint8_t *frame = malloc(HEADER_BYTES_MAX + (1 << 24) + 2);
  if (ring == MAP_FAILED || !frame) return perror("memory"), 1;
  lseek(node, LAST, SEEK_END);
  for (int saved = 0; saved < atoi(argv[4]);) {
    long start = lseek(node, WAIT, SEEK_END);
    if (start >= 0 && lseek(head, start + 1, SEEK_END) == 0) {
      long header = read(head, frame, HEADER_BYTES_MAX), length = length_at(start);
      copy(frame + header, start % size, length);
      memcpy(frame + header + length, "\xff\xd9", 2);
      /* Only now is it known that nothing of it was overwritten. */
      if (lseek(node, 0, SEEK_CUR) >= 0) save(argv[3], saved++, frame, header + length + 2);
      if (lseek(node, NEXT, SEEK_END) >= 0) continue;
    }
    lseek(node, LAST, SEEK_END);
  }
  return 0;
}
