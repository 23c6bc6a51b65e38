#!/usr/bin/env bash
# Real pictures through the whole chain, judged by decoders that are not ours: djpeg, PIL, ffmpeg.
#   check-pictures.sh               all of it, about a minute
#   check-pictures.sh --have-tools  only tell whether the decoders are there
here=$(cd "$(dirname "$0")" && pwd)
have_tools() {
  command -v djpeg cjpeg ffmpeg >/dev/null &&
    { /usr/bin/python3 -c 'import PIL, numpy' || python3 -c 'import PIL, numpy'; } 2>/dev/null
}
if [ "${1:-}" = --have-tools ]; then have_tools; exit; fi
have_tools || { echo "needs djpeg, cjpeg (libjpeg-turbo-progs), ffmpeg, python3-pil, python3-numpy" >&2; exit 1; }
source "$here/common.sh"
cd "$scratch"

# A camera's 20 seconds: nothing lost, and the pictures show the ledger's numbers in order.
circbuf run --seconds 20 --width 2048 --height 1536 --fps 12 --model nc353 --archive A --json \
  --ledger ledger.jsonl > run.json
# 240 frames; fewer only if the machine was too busy for the camera to keep its schedule.
expect run.json 'o["closes"] and o["ring"]["passed"] == o["ring"]["frames_expected"] == o["camera"]["frames"]'
expect run.json 'o["camera"]["frames"] == 240 or o["camera"]["late_frames"] > 0 and o["camera"]["frames"] > 120'
expect run.json 'o["consumers"]["arch"]["delivered"] == o["consumers"]["proc"]["delivered"] == o["ring"]["passed"]'
frames=$(json run.json 'o["ring"]["passed"]')
circbuf archive verify A
circbuf archive export A --to jpeg --out jpeg
for file in $(ls jpeg | sort -t_ -k1,1n -k2,2n); do
  djpeg -grayscale -pnm "jpeg/$file" > picture.pgm
  "$python" "$here/framecode.py" picture.pgm
done > numbers.txt
"$python" - <<'P'
import json
ledger = [json.loads(line) for line in open("ledger.jsonl")]
numbers = [tuple(map(int, line.split()[:3])) for line in open("numbers.txt")]
assert numbers == [(e["number"], e["sec"], e["usec"]) for e in ledger], "numbers in the pictures"
P
"$python" - jpeg/* <<'P'
import sys
from PIL import Image
for path in sys.argv[1:]:
    picture = Image.open(path)
    picture.load()
    assert picture.size == (2048, 1536)
    exif = picture.getexif().get_ifd(0x8769)
    assert path.split("/")[1].split("_")[1] == exif[0x9291], (path, exif)
P
ok "$frames frames of 2048x1536 archived, decoded by djpeg and PIL, numbers as in the ledger"

# Archived scans of files that the frame header can express are those of the files.
mkdir cjpeg-default pil-default pil-gray other
ffmpeg -v error -f lavfi -i testsrc2=size=640x480:rate=1 -frames:v 4 source%d.ppm
for n in 1 2 3 4; do cjpeg source$n.ppm > cjpeg-default/$n.jpg; done
"$python" - <<'P'
from PIL import Image
for n in (1, 2, 3, 4):
    picture = Image.open(f"source{n}.ppm")
    picture.save(f"pil-default/{n}.jpg")
    picture.convert("L").save(f"pil-gray/{n}.jpg")
    picture.save(f"other/{n}.jpg", quality=92, subsampling=0, optimize=True)
P
for set in cjpeg-default pil-default pil-gray; do
  circbuf run "$set" --frames 4 --fps 50 --archive "$set.archive" --json --jpeg verbatim > run.json 2> notes.txt
  circbuf archive export "$set.archive" --out "$set.out" > /dev/null
  "$python" - "$here" "$set" <<'P'
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from framecode import scan
out = sorted(pathlib.Path(sys.argv[2] + ".out").iterdir(), key=lambda p: [int(x) for x in p.stem.split("_")[:2]])
sources = sorted(pathlib.Path(sys.argv[2]).iterdir())
assert len(out) == len(sources) == 4
for mine, source in zip(out, sources):
    assert scan(mine) == scan(source), (mine, source)
P
  ok "$set: four scans archived byte for byte"
done
if circbuf run other --frames 4 --jpeg verbatim > /dev/null 2> notes.txt; then fail "other JPEGs are not verbatim"; fi
circbuf run other --frames 4 --fps 50 --archive other.archive --json > run.json 2> notes.txt
grep -qi 're-encoded' notes.txt || fail "re-encoding is not said: $(cat notes.txt)"
circbuf archive export other.archive --out other.out > /dev/null
for file in other.out/*; do djpeg "$file" > /dev/null; done
ok "other JPEGs re-encoded, and said so: $(grep -i 're-encoded' notes.txt | head -1)"

# Arrays, and what ffmpeg sends.
mkdir npy
"$python" -c '
import numpy
for n in range(8):
    y, x = numpy.mgrid[0:300, 0:300]
    numpy.save(f"npy/{n}.npy", ((x * y + 500 * n) % 4000 - 1000).astype("<i2"))'
circbuf run npy 1 --fps 50 --archive npy.archive --json > run.json
expect run.json 'o["closes"] and o["consumers"]["arch"]["delivered"] == o["ring"]["passed"] > 0'
circbuf archive verify npy.archive > /dev/null
ffmpeg -v error -f lavfi -i testsrc2=size=640x480:rate=25 -t 2 -pix_fmt yuv420p -f yuv4mpegpipe - |
  circbuf run --source y4m:- --archive y4m.archive --json > run.json
expect run.json 'o["closes"] and o["ring"]["passed"] == 50'
circbuf archive export y4m.archive --out y4m.out > /dev/null
for file in y4m.out/*; do djpeg "$file" > /dev/null; done
ok "arrays and an ffmpeg stream archived and decoded"

# The index is for numpy as it is.
"$python" - <<'P'
import json, subprocess
import numpy as np
entry = np.dtype([("sequence", "<u8"), ("offset", "<u8"), ("cursor", "<u8"),
    ("realtime_ns", "<u8"), ("monotonic_ns", "<u8"), ("sec", "<u4"), ("usec", "<u4"),
    ("length", "<u4"), ("kind", "u1"), ("flags", "u1"), ("zero", "<u2"),
    ("body_crc", "<u4"), ("crc", "<u4")])
index = np.fromfile("A/seg-000000.idx", entry)
listed = json.loads(subprocess.check_output(["circbuf", "archive", "ls", "A", "--json"]))["frames"]
for name in ("sequence", "offset", "cursor", "sec", "usec", "length"):
    assert index[name].tolist() == [frame[name] for frame in listed], name
payload = np.fromfile("A/seg-000000.cbs", "u1", int(index["length"][0]), offset=int(index["offset"][0]) + 128)
assert len(payload) == listed[0]["length"]
P
ok "numpy reads the index: $frames entries as archive ls lists them"
