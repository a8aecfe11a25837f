#!/usr/bin/env bash
# Fuzzes one target for some seconds, with the nightly compiler and the address sanitizer, and adds a line to log.tsv.
#   fuzz/run.sh TARGET SECONDS
set -euo pipefail
cd "$(dirname "$0")"
target=$1 seconds=$2
mkdir -p "corpus/$target" "artifacts/$target"
output=$(mktemp)
spent=$(mktemp)
trap 'rm "$output" "$spent"' EXIT

if [ -z "$(ls "corpus/$target")" ]; then
  cargo run --quiet --bin corpus seed
  cargo run --quiet --bin corpus unpack
fi
cargo +nightly fuzz build --fuzz-dir . "$target"
finds=0
(
  status=0
  cargo +nightly fuzz run --fuzz-dir . "$target" -- -max_total_time="$seconds" \
    -timeout=60 -rss_limit_mb=2048 -max_len=1024 -print_final_stats=1 2>&1 || status=1
  times > "$spent"
  exit "$status"
) | tee "$output" || finds=1

# Wall time says little on a busy machine: what the processes below that shell used, user time, in seconds.
cpu=$(awk 'NR == 2 { split($1, t, "m"); printf "%.0f", t[1] * 60 + t[2] }' "$spent")

last() { grep -oE "$1" "$output" | tail -n 1 | grep -oE '[0-9]+' || echo 0; }
files=$(find "corpus/$target" -type f | wc -l)
hash=$(cargo run --quiet --bin corpus hash | awk -v t="$target" '$1 == t { print $3 }')
printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date -u +%F)" "$target" "$seconds" "$cpu" \
  "$(last 'number_of_executed_units: [0-9]+')" "$(last 'cov: [0-9]+')" "$(last 'ft: [0-9]+')" \
  "$files" "$hash" "$finds" >> log.tsv
tail -n 1 log.tsv
exit "$finds"
