#!/usr/bin/env bash
# Every kind of fault alone, and all of them at once, against the ledger: nothing damaged is handed on,
# the books close and are equal to the frame. Prints what it costs in good frames, as the README's table.
#   check-faults.sh [FRAMES] [OPTIONS OF circbuf run]   default 10000; --bare for instance
source "$(dirname "$0")/common.sh"
cd "$scratch"
frames=${1:-10000}
[ $# -eq 0 ] || shift
# Frames that touch others (a sprint, an aligned lap) are long: they strike less often.
long='sprint aligned-lap'
needs_header='header-clobbered geometry irq-lost irq-coalesced'
kinds='sprint aborted no-trailer bad-trailer unescaped bit-flip time-back time-forward time-repeat stall
  sizes exact-wrap aligned-lap gap-skip gap-late header-clobbered geometry irq-lost irq-coalesced
  pointer-off restart'
case " $* " in *' --bare '*)
  for kind in $needs_header; do kinds=${kinds/$kind/}; done ;;
esac
is_long() { case " $long " in *" $1 "*) return 0 ;; *) return 1 ;; esac }

# run_against NAME OPTIONS...: a run with the faults in faults.toml, and its verdict in verify.json.
run_against() {
  local name=$1
  shift
  rm -rf A
  circbuf run --source noise:64-4000 --ring-bytes 1MiB --frames "$frames" --virtual-time --lossless \
    --arch-policy every --arch-queue 1000 --archive A --durability none --ledger ledger.jsonl \
    --faults faults.toml --json "$@" > books.json 2> run.log || fail "$name: $(cat run.log)"
  circbuf verify --ledger ledger.jsonl --archive A --books books.json --json > verify.json 2> verify.log ||
    fail "$name: $(cat verify.json verify.log)"
  expect books.json 'o["closes"]'
  expect verify.json "o['frames'] == $frames and o['delivered_damaged'] == 0 and o['books'] == []"
  expect verify.json 'o["lost_is"] == "exact"'
  expect verify.json 'o["frames"] == sum(o[column] for column in ("delivered_good", "delivered_damaged",
    "refused_good", "refused_damaged", "overwritten", "missed", "undetectable", "not_archived",
    "before_attach", "after_end"))'
}

# row NAME KINDS: a line of the table.
row() {
  "$python" - "$1" "$2" <<'P'
import json, sys
name, kinds = sys.argv[1], sys.argv[2].split()
verify = json.load(open("verify.json"))
books = [verify["by_fault"].get(kind, {}) for kind in kinds]
struck = sum(book.get("injected", 0) for book in books)
print("|", " | ".join(str(cell) for cell in (
    name, struck, verify["delivered_good"], verify["refused_damaged"], verify["undetectable"],
    verify["missed"] + verify["overwritten"], verify["refused_good"])), "|")
P
}

echo "| fault | frames struck | delivered good | refused damaged | undetectable | overrun | refused good |"
echo "|---|--:|--:|--:|--:|--:|--:|"
printf 'seed = 1\n' > faults.toml
run_against "without a fault" "$@"
expect verify.json "o['delivered_good'] == $frames"
row "(none)" ""
for kind in $kinds; do
  printf '[[fault]]\nkind = "%s"\nevery = %s\n' "$kind" "$(is_long "$kind" && echo 3000 || echo 100)" > faults.toml
  run_against "$kind" "$@"
  row "$kind" "$kind"
  # A fault may cost two good frames, the one that it struck included.
  [ "$kind" = sprint ] || case " $* " in *' --bare '*) ;;
    *) expect verify.json "o['refused_good'] <= 2 * max(1, o['by_fault'].get('$kind', {}).get('injected', 0))" ;;
  esac
done
for kind in $kinds; do
  printf '[[fault]]\nkind = "%s"\nrate = %s\n' "$kind" "$(is_long "$kind" && echo 0.0001 || echo 0.0026)"
done > faults.toml
run_against "all mixed" "$@"
row "all, at 5 %" "$kinds"
case " $* " in *' --bare '*) ;;
  *) expect verify.json "o['refused_good'] <= 2 * $frames * 5 // 100" ;;
esac
ok "$frames frames with each kind and with all: nothing damaged was handed on"
