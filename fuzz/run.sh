#!/usr/bin/env bash
# Fuzzes one target for some seconds, with the nightly compiler and the address sanitizer, and adds a line to log.tsv.
#   fuzz/run.sh TARGET SECONDS
set -euo pipefail
cd "$(dirname "$0")"
target=$1 seconds=$2
mkdir -p "corpus/$target" "artifacts/$target"
output=$(mktemp)
trap 'rm "$output"' EXIT

cargo +nightly fuzz build --fuzz-dir . "$target"
finds=0
cargo +nightly fuzz run --fuzz-dir . "$target" -- \
  -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -max_len=1024 -print_final_stats=1 2>&1 |
  tee "$output" || finds=1

last() { grep -oE "$1" "$output" | tail -n 1 | grep -oE '[0-9]+' || echo 0; }
files=$(find "corpus/$target" -type f | wc -l)
hash=$(cargo run --quiet --bin corpus hash | awk -v t="$target" '$1 == t { print $3 }')
printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date -u +%F)" "$target" "$seconds" \
  "$(last 'number_of_executed_units: [0-9]+')" "$(last 'cov: [0-9]+')" "$(last 'ft: [0-9]+')" \
  "$files" "$hash" "$finds" >> log.tsv
tail -n 1 log.tsv
exit "$finds"
