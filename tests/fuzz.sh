#!/usr/bin/env bash
# fuzz.sh PROGRAM RUNS: runs a fuzzer for a fixed number of inputs from a fixed seed; the corpus it finds is thrown away.
set -eu
program=$1 runs=$2
corpus=$(mktemp -d)
trap 'rm -rf "$corpus"' EXIT
seeds=$(dirname "$0")/fuzz/seeds/$(basename "$program")
[ -d "$seeds" ] && cp "$seeds"/* "$corpus"
cd "$corpus"
UBSAN_OPTIONS=print_stacktrace=1 "$program" -runs="$runs" -seed=1 -max_len=4096 -timeout=20 -rss_limit_mb=2048 -artifact_prefix="$(dirname "$program")/" "$corpus"
