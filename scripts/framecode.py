"""What other decoders make of our files: the number in a synthetic picture, and a JPEG's scan.

Written from the drawing in driver/abi/src/framecode.rs, as a third party would.
"""
import sys


def crc16(data):
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
            crc &= 0xFFFF
    return crc


def read(luma, width, height):
    """(number, sec, usec, kind) of a picture given as rows of luma; None if it has no code."""
    cell = 16 if width >= 640 and height >= 480 else 8
    bits = 0
    for row in range(7):
        for column in range(16):
            x0, y0 = (column + 1) * cell, (row + 1) * cell
            inner = [
                luma[(y0 + y) * width + x0 + x]
                for y in range(cell // 4, cell - cell // 4)
                for x in range(cell // 4, cell - cell // 4)
            ]
            bits = bits << 1 | (sum(inner) < 125 * len(inner))
    data = bits >> 20
    if bits & 15 != 10 or crc16((data << 4).to_bytes(12, "big")) != (bits >> 4) & 0xFFFF:
        return None
    return data >> 60, data >> 28 & 0xFFFFFFFF, data >> 8 & 0xFFFFF, data & 0xFF


def scan(path):
    """The entropy-coded bytes of a JPEG file with one scan."""
    data = open(path, "rb").read()
    at = 2
    while data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    begin = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    end = begin
    while data[end] != 0xFF or data[end + 1] == 0:
        end += 1
    return data[begin:end]


def pgm(path):
    data = open(path, "rb").read()
    _, size, _, pixels = data.split(b"\n", 3)
    width, height = map(int, size.split())
    return pixels, width, height


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(*(read(*pgm(path)) or ["none"]))
