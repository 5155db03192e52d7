#!/usr/bin/env bash
# The figures of chaos in docs/testing.md: plays all of it and prints the table in Markdown. About 40 minutes on two cores.
# SEED=17 plays the same again; OUT=DIR keeps the reports elsewhere than in the target directory.
# Needs: root, a Docker engine with compose, and the packages nftables iproute2 iptables strace e2fsprogs libfaketime.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
out=${OUT:-$target/chaos/figures}
seed=${SEED:-$RANDOM}
mkdir -p "$out"

# The image first: its static binary stands where the usual one is built then.
ALTAIR_IMAGE=altair:chaos bash deploy/image.sh
cargo build --release --locked --workspace --bins
failed=0

# play <name> <what> <arguments of chaos...>: one row of the table.
play() {
  local name=$1 what=$2
  shift 2
  printf '\n== %s: chaos %s --seed %s\n' "$what" "$*" "$seed"
  if ! env -u CARGO "$target/release/chaos" "$@" --seed "$seed" --image altair:chaos | tee "$out/$name.txt"; then failed=1; fi
  printf '%s\t%s\n' "$name" "$what" >> "$out/rows"
}

: > "$out/rows"
play netns-3 "netns, 3 brokers" --fabric netns --nodes 3 --rounds 15 --secs 30
play netns-5 "netns, 5 brokers" --fabric netns --nodes 5 --rounds 15 --secs 30
play proxy-3 "proxy, 3 brokers" --fabric proxy --nodes 3 --rounds 5 --secs 30
play proxy-5 "proxy, 5 brokers" --fabric proxy --nodes 5 --rounds 5 --secs 30
# What containers can do: the other families would be skipped.
able=kill,kill-all,pause,isolate,isolate-from-brokers,minority,one-way-in,one-way-out,bridge,unplug,no-clients
able+=,sync-error,slow-sync,rolling-restart,bit-flip,bit-flip-live
play docker-3 "docker, 3 brokers" --fabric docker --nodes 3 --rounds 3 --secs 30 --faults "$able"
play docker-5 "docker, 5 brokers" --fabric docker --nodes 5 --rounds 2 --secs 30 --faults "$able"
play power "power cuts" --fabric netns --nodes 3 --rounds 5 --secs 30 --faults power-cut,power-cut-all
play bit-rot "bit flips" --fabric netns --nodes 3 --rounds 12 --secs 12 --faults bit-flip,bit-flip-live

printf '\n'
python3 - "$out" <<'PYTHON' || failed=1
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
head = ["run", "rounds", "faults", "skipped", "acked", "lost", "twice", "minority writes, none acked",
        "unavailable p50 / p99", "p99 with a majority", "verdict"]
print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
struck = {}
for row in (out / "rows").read_text().splitlines():
    name, what = row.split("\t")
    lines = (out / f"{name}.txt").read_text().splitlines()
    line = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
    if line is None:
        print(f"| {what} | did not end |")
        continue
    for kind, count in line["faults"].items():
        struck[kind] = struck.get(kind, 0) + count
    bad = line["violations"] + line["broken"]
    verdict = "clean" if bad == 0 else f"{line['violations']} violations, {line['broken']} rounds broken"
    cells = [what, line["rounds"], line["installed"] + line["indeterminate"], line["skipped"], line["acked"], line["lost"],
             line["duplicated"], line["lone_writes"], f"{line['unavailable_ms_p50']} / {line['unavailable_ms_p99']} ms",
             f"{line['quorum_unavailable_ms_p99']} ms", verdict]
    print("| " + " | ".join(str(cell) for cell in cells) + " |")
print("\nstruck: " + ", ".join(f"{kind} {count}" for kind, count in sorted(struck.items())))
few = [name for name in ("power-cut", "bit-flip") if sum(n for kind, n in struck.items() if kind.startswith(name)) < 20]
if few:
    sys.exit("fewer than 20: " + ", ".join(few))
PYTHON
printf '\nseed %s, commit %s; reports in %s\n' "$seed" "$(git describe --always --dirty --abbrev=12)" "$out"
exit "$failed"
