#!/usr/bin/env bash
# test: tier=short timeout=60
# cli_ranks.sh ESPALIER: a failure that all ranks meet is printed once, by rank 0, as it stands; its code is the job's exit code.
set -u
espalier=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf 'optim:\n  learning_rate: 1\n' > "$folder/bad.yaml"
failures=0

# expect LINE ARG ...: espalier ARG ... on 2 ranks must exit with 2 and print "espalier: LINE" exactly once.
expect() {
    local line=$1 out rc
    shift
    out=$("$root/tests/mpirun.sh" 2 25 "$espalier" "$@" 2>&1)
    rc=$?
    if [ "$rc" != 2 ] || [ "$(grep -c '^espalier: ' <<< "$out")" != 1 ] || ! grep -qxF "espalier: $line" <<< "$out"; then
        echo "espalier $*: expected exit 2 and once 'espalier: $line', got exit $rc and: $out"
        failures=$((failures + 1))
    fi
}

expect "unknown verb 'trian'; did you mean 'train'?" trian
expect "train: unknown option '--resum'; did you mean '--resume'?" train --resum auto
expect "$folder/bad.yaml:2: unknown key 'optim.learning_rate'; did you mean 'optim.lr'?" train "$folder/bad.yaml"
expect "$folder/none.yaml: cannot be opened: No such file or directory" train "$folder/none.yaml"
exit $((failures > 0))
