"""What a driver made of one scenario: judged by itself, and held against another device's.

  compare.py MODE RUN [REFERENCE]

MODE is that of the scenario. RUN and REFERENCE are prefixes of files: .ledger, .books (run --json), .verdict (verify
--json) and .frames (archive ls --json). Prints a line and ends with 0, or what differs and ends with 1.
"""
import json
import sys

# Wall clocks, and what the driver alone knows: where in its archive a frame stands.
FRAME = ("sequence", "epoch", "cursor", "lost_before", "length", "width", "height", "quality2", "color_mode",
         "header_synthesised")
# Allowed on a device that has no counters, a camera's node: the driver counts frames and bytes from where it
# attached, and behind a frame whose end is damaged it estimates.
NUMBERS_OF_A_DRIVER = ("sequence", "epoch", "cursor", "lost_before")
EMITTED = ("number", "epoch", "start", "length", "crc32c", "faults", "damaged", "undetectable")
RING = ("bytes", "frames_detected", "passed", "torn", "overrun", "corrupt", "frames_expected", "lost_is", "numbered_by")
# Nor does such a device tell how many frames a stretch was whose last trailer is damaged: the books say "estimated",
# and more corrupt frames may be in them than there were. What became of the frames there were is the verdict's.
ESTIMATED = ("frames_expected", "lost_is", "numbered_by", "frames_detected", "corrupt")


class Run:
    def __init__(self, prefix):
        def load(name):
            with open(f"{prefix}.{name}", encoding="utf-8") as file:
                return json.load(file)

        with open(prefix + ".ledger", encoding="utf-8") as file:
            self.ledger = [json.loads(line) for line in file]
        self.books, self.verdict = load("books"), load("verdict")
        self.frames = load("frames")["frames"]
        self.has_counters = self.books["ring"]["numbered_by"] == "camera"
        number_of = {(entry["length"], entry["sec"], entry["usec"]): entry["number"] for entry in self.ledger}
        self.delivered = [number_of[frame["length"], frame["sec"], frame["usec"]] for frame in self.frames]

    def misdeeds(self, mode):
        """What no device may do, whatever others do."""
        verdict = self.verdict
        refused = {
            "the books do not close": not self.books["closes"],
            "damaged frames were accepted": verdict["delivered_damaged"] or verdict["damage"]["accepted"],
            "the books differ from archive and ledger": verdict["books"],
            "a frame was delivered twice or out of turn": self.delivered != sorted(set(self.delivered)),
        }
        if mode != "timed" and self.has_counters:
            refused |= {
                "frames were overrun, the machine cannot follow":
                    verdict["missed"] or verdict["overwritten"] or self.books["ring"]["lost"]["overrun"],
                "good frames were refused": verdict["refused_good"],
                "not every damaged frame was found": verdict["damage"]["found"] != verdict["damage"]["damaged"],
            }
        return [what for what, is_so in refused.items() if is_so]

    def ring(self):
        return self.books["ring"] | self.books["ring"]["lost"]

    def table(self, numbered):
        """All that has to be equal; with numbers and cursors if both devices' frames have the camera's."""
        def chosen(thing, names, but):
            return {name: thing[name] for name in names if numbered or name not in but}

        not_said = {"schema", "lost_is", "archive"}
        return {
            "emitted": [chosen(entry, EMITTED, ()) for entry in self.ledger],
            "delivered": self.delivered,
            "archived": [chosen(frame, FRAME, NUMBERS_OF_A_DRIVER) for frame in self.frames],
            "ring": chosen(self.ring(), RING, ESTIMATED),
            "arch": {name: self.books["consumers"]["arch"][name]
                     for name in ("expected", "delivered", "policy", "lost")},
            "verdict": {name: told for name, told in self.verdict.items() if name not in not_said},
        }


def main():
    mode, run = sys.argv[1], Run(sys.argv[2])
    faults = run.misdeeds(mode)
    if len(sys.argv) > 3 and mode != "timed":
        reference = Run(sys.argv[3])
        numbered = run.has_counters and reference.has_counters
        own, other = run.table(numbered), reference.table(numbered)
        if run.ring()["corrupt"] < reference.ring()["corrupt"]:
            faults.append("too few corrupt frames are in the books")
        for part in own:
            if own[part] != other[part]:
                faults.append(f"{part} differs: {difference(own[part], other[part])}")
    lost = run.books["ring"]["lost"]
    print(f"{len(run.ledger)} emitted, {len(run.delivered)} delivered, torn {lost['torn']}, "
          f"corrupt {lost['corrupt']}, overrun {lost['overrun']} ({run.books['ring']['lost_is']})")
    for fault in faults:
        print(f"  {fault}")
    sys.exit(bool(faults))


def difference(own, other):
    """The first things that are not equal."""
    if isinstance(own, list):
        own, other = dict(enumerate(own)), dict(enumerate(other))
    if isinstance(own, dict):
        unequal = [name for name in {**own, **other} if own.get(name) != other.get(name)]
        return {name: (own.get(name), other.get(name)) for name in unequal[:3]}
    return own, other


main()
