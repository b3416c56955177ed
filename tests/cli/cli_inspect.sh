#!/usr/bin/env bash
# test: tier=short timeout=60
# cli_inspect.sh ESPALIER: inspect and verify on what they know, on damage, and on nothing.
set -u
espalier=$1
writer=$(dirname "$espalier")/tests/test_checkpoint
failures=0

# expect CODE TEXT ARG...: runs espalier ARG...; its exit code must be CODE and what it prints must hold TEXT.
expect() {
    local code=$1 text=$2 out rc
    shift 2
    out=$("$espalier" "$@" 2>&1)
    rc=$?
    if [ "$rc" != "$code" ] || [[ $out != *"$text"* ]]; then
        echo "espalier $*: expected exit $code and '$text', got exit $rc and: $out"
        failures=$((failures + 1))
    fi
}

run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
expect 2 "PATH" inspect
expect 3 "there is nothing at this path" inspect "$run/absent"
expect 3 "neither a checkpoint nor" verify "$run"
"$writer" --write "$run/checkpoints" 2 2> "$run/log" || exit 1
step=$run/checkpoints/step-00000007
expect 0 "1 checkpoints, newest first" inspect "$run"
expect 0 "checkpoint of step 7, written by attempt 1" inspect "$step"
expect 0 "11 tensors, 653386 elements, 2613087 bytes" inspect "$step"
expect 0 "$step: ok" verify "$run"
expect 0 "fe61b99f73be56d1" verify --digest "$step"
golden=$(dirname "$0")/../goldens/safetensors_tiny.safetensors
expect 0 "safetensors file" inspect "$golden"
expect 0 "ok" verify "$golden"
expect 2 "--digest is for checkpoints" verify --digest "$golden"
truncate -s -1 "$step/shard-00001.h5"
expect 3 "shard-00001.h5: " verify "$step"
expect 3 "not every checkpoint verifies" verify "$run"
exit $((failures > 0))
