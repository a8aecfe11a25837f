#!/usr/bin/env bash
# Measures adit beside the yardstick tunnel and prints the ratios. Loopback only.
#   bench/run.sh [--driver tokio|mio] [YARDSTICK_FOLDER] [ARGUMENTS OF ITS run.py]
# e.g. bench/run.sh ../shared/bench --only naive-quinn,adit --reps 3 --secs 2
# `--only naive-quinn,adit,adit-mio` has both drivers in one run. The folder may come from $YARDSTICK instead. $JSON names
# a file to keep the samples in. Without --driver adit's processes choose their own.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
export DRIVER=
if [ "${1:-}" = --driver ]; then
    DRIVER="--driver ${2:?the driver}"
    shift 2
fi
if [ -d "${1:-}" ]; then
    YARDSTICK=$1
    shift
fi
yard=$(cd "${YARDSTICK:?the folder of the yardstick}" && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
(cd "$root" && cargo build --release -p adit)
# The yardstick may be read-only; its builds go beside ours.
(cd "$yard/load" && cargo build --release --locked --target-dir "$target/yardstick")
(cd "$yard/naive-quinn" && cargo build --release --locked --target-dir "$target/yardstick")
export ADIT="$target/release/adit" LOAD="$target/yardstick/release/load"
export NAIVE_QUINN="$target/yardstick/release/naive-quinn" CERTS="$target/yardstick/certs"
[ -d "$CERTS" ] || "$yard/certs.sh" "$CERTS"
json=${JSON:-$target/yardstick/samples.json}
# `adit-mio` is `adit` with the driver mio, so that both can be measured in one run.
systems=$target/yardstick/systems.toml
cp "$root/bench/systems.toml" "$systems"
sed -n '/^\[system.adit\]/,/^# Its binary/p' "$root/bench/systems.toml" |
    sed 's/^\[system\.adit/[system.adit-mio/; s/\$DRIVER/--driver mio/g' >> "$systems"
python3 "$yard/run.py" --systems "${SYSTEMS:-$systems}" --base naive-quinn "$@" --json "$json"
"$root/bench/ratios.py" "$json"
