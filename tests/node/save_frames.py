"""Saves frames of a camera as JPEG files, as save_frames.c does.

save_frames.py /dev/circbuf0 /dev/jpeghead0 FOLDER FRAMES
"""
import mmap
import os
import select
import sys

NEXT, LAST = 4, 5
NODE, JPEGHEAD, FOLDER, FRAMES = sys.argv[1:]

node = os.open(NODE, os.O_RDONLY)
head = open(JPEGHEAD, "rb", buffering=0)
size = os.fstat(node).st_size
ring = mmap.mmap(node, size, mmap.MAP_SHARED, mmap.PROT_READ)
os.lseek(node, LAST, os.SEEK_END)
ready = select.poll()
ready.register(node, select.POLLIN)
ready.register(sys.stdin, select.POLLPRI)


def taken():
    """The frame at the position, or None if there is none or it was overwritten."""
    if ready.poll(10_000) != [(node, select.POLLIN)]:
        return None
    try:
        start = os.lseek(node, 0, os.SEEK_CUR)
        os.lseek(head.fileno(), start + 1, os.SEEK_END)
        header = head.read(0x300)
        slot = (start or size) - 32
        length = int.from_bytes(ring[slot + 28 : slot + 31], "little")
        payload = ring[start : start + length]
        payload += ring[: length - len(payload)]
        os.lseek(node, 0, os.SEEK_CUR)
        os.lseek(node, NEXT, os.SEEK_END)
    except OSError:
        return None
    return header + payload + b"\xff\xd9"


saved = 0
while saved < int(FRAMES):
    frame = taken()
    if frame is None:
        os.lseek(node, LAST, os.SEEK_END)
        continue
    with open(f"{FOLDER}/{saved}.jpg", "wb") as out:
        out.write(frame)
    saved += 1
