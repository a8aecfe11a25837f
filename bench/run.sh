#!/usr/bin/env bash
# Measures adit beside the yardstick tunnel. Loopback only.
#   bench/run.sh YARDSTICK_FOLDER [ARGUMENTS OF ITS run.py]
# e.g. bench/run.sh ../shared/bench --reps 3 --secs 2 --json out.json
set -eu
yard=$(cd "${1:?the folder of the yardstick}" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
(cd "$root" && cargo build --release -p adit)
# The yardstick may be read-only; its builds go beside ours.
(cd "$yard/load" && cargo build --release --locked --target-dir "$target/yardstick")
(cd "$yard/naive-quinn" && cargo build --release --locked --target-dir "$target/yardstick")
export ADIT="$target/release/adit" LOAD="$target/yardstick/release/load"
export NAIVE_QUINN="$target/yardstick/release/naive-quinn" CERTS="$target/yardstick/certs"
[ -d "$CERTS" ] || "$yard/certs.sh" "$CERTS"
exec python3 "$yard/run.py" --systems "${SYSTEMS:-$root/bench/systems.toml}" --base naive-quinn "$@"
