#!/usr/bin/env bash
# Measures adit beside the yardstick tunnel over a path with delay, loss and the MTU of Ethernet. Loopback only.
#   bench/path.sh [--driver tokio|mio] YARDSTICK_FOLDER ROUND_TRIP_MS LOSS_PERCENT [ARGUMENTS OF ITS run.py]
# e.g. bench/path.sh ../shared/bench 50 1 --tests up1,down1 --warmup 5 --secs 5
# The loss is that of each direction.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
driver=()
if [ "${1:-}" = --driver ]; then
    driver=("$1" "${2:?the driver}")
    shift 2
fi
yard=${1:?the folder of the yardstick}
export DELAY_MS=$((${2:?the round-trip time in ms} / 2)) LOSS_PERCENT=${3:?the loss in percent} DATAGRAM_MAX=1472
shift 3
target=${CARGO_TARGET_DIR:-$here/../target}
(cd "$here/.." && cargo build --release -p adit-io-tokio --example relay)
export RELAY="$target/release/examples/relay" SYSTEMS="$here/path.toml"
exec "$here/run.sh" "${driver[@]}" "$yard" "$@"
