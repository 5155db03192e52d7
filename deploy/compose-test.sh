#!/usr/bin/env bash
# The kill test on real containers: three healthy brokers, a topic with --rf 3, records in, the leader of partition 0
# killed in the middle, every acked record read back once and in order, everything taken down.
# Needs: a Docker engine, the image altair:dev (deploy/image.sh), altair-cli in the target directory.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
cli=$target/release/altair-cli
records=${RECORDS:-3000}
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(-p "altair-test-$$")
scratch=$(mktemp -d)
export ALTAIR_ADDR=127.0.0.1:7400,127.0.0.1:7401,127.0.0.1:7402

finish() {
  local status=$?
  if [ "$status" -ne 0 ]; then
    echo "compose-test: FAILED, last lines of each broker:" >&2
    "${compose[@]}" logs --tail=30 >&2 || true
  fi
  "${compose[@]}" down -v --timeout 5 >/dev/null 2>&1 || true
  rm -rf "$scratch"
  exit "$status"
}
trap finish EXIT

# until <seconds> <what> <command...>: waits for a condition, says what did not come.
until_true() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then echo "compose-test: $what did not happen in time" >&2; return 1; fi
    sleep 0.2
  done
}

healthy() {
  local count=0 id
  for id in $("${compose[@]}" ps -q); do
    if [ "$(docker inspect -f '{{.State.Health.Status}}' "$id")" = healthy ]; then count=$((count + 1)); fi
  done
  [ "$count" -eq 3 ]
}

"${compose[@]}" up -d
until_true 60 "three healthy brokers" healthy
"$cli" topic create orders --rf 3 --partitions 3
seq -f 'record-%07g' 1 "$records" > "$scratch/in"

# Feed slowly enough that the kill falls into the middle.
( head -n $((records / 2)) "$scratch/in"; sleep 2; tail -n +$((records / 2 + 1)) "$scratch/in" ) \
  | "$cli" produce orders --partition 0 -q &
producer=$!
sleep 1
leader=$("$cli" partition list orders -o json | python3 -c 'import json,sys; d=json.load(sys.stdin); d=d.get("partitions", d) if isinstance(d, dict) else d; print([p["leader"] for p in d if p["partition"]==0][0])')
victim=$("${compose[@]}" ps -q "altair-$leader")
echo "killing altair-$leader"
docker kill -s KILL "$victim" >/dev/null
wait "$producer"
"$cli" consume orders --partition 0 --from earliest --to latest -o value > "$scratch/out"
cmp "$scratch/in" "$scratch/out"
docker start "$victim" >/dev/null
until_true 60 "three healthy brokers after the restart" healthy
"$cli" cluster health
echo "compose-test: $records records acked, $records read back in order, leader altair-$leader killed and restarted"
