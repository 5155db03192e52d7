#!/usr/bin/env bash
# Builds a static `altair` and the image altair:dev FROM scratch. Needs cargo and a Docker engine, no registry.
# ALTAIR_PROFILE=dist builds with thin LTO, as a published image is.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${ALTAIR_PROFILE:-release}
target=${CARGO_TARGET_DIR:-target}

# Only the last crate is linked anew: its dependencies are those of every other build of this profile.
cargo rustc --profile "$profile" --locked -p broker --bin altair -- -C target-feature=+crt-static
context=$target/image
rm -rf "$context"
mkdir -p "$context/data"
cp "$target/$profile/altair" "$context/altair"
cp deploy/Dockerfile.scratch "$context/Dockerfile"
if ldd "$context/altair" 2>&1 | grep -qv 'statically linked'; then
  echo "image: $context/altair is not static:" >&2
  ldd "$context/altair" >&2
  exit 1
fi
docker build -q -t "${ALTAIR_IMAGE:-altair:dev}" "$context"
