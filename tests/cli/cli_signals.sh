#!/usr/bin/env bash
# test: tier=default timeout=180
# cli_signals.sh ESPALIER: what `espalier train` does when it is signalled, and that it goes on afterwards.
set -u
espalier=$1
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
job=
trap '[ -n "$job" ] && kill -KILL $job 2> /dev/null; rm -rf "$folder"' EXIT
failures=0

fail() {
    echo "$*"
    tail -15 "$folder/output"
    failures=$((failures + 1))
}

last_step() { grep -o '"event": *"step", *"step": *[0-9]*' "$folder/run/metrics.jsonl" 2> /dev/null | grep -o '[0-9]*$' | tail -1; }

# train_until STEP: starts (or goes on with) the run in the background and waits until it has passed STEP.
train_until() {
    local tries=0
    "$espalier" train configs/same_bits.yaml --set run.dir="$folder/run" --set train.steps=100000 --set train.micro_batches=1 \
        --set train.micro_batch_tokens=64 --set data.sequence_length=64 --set run.threads=1 --set log.progress=lines > "$folder/output" 2>&1 &
    job=$!
    until [ "$(last_step || true)" -gt "$1" ] 2> /dev/null; do
        tries=$((tries + 1))
        if ! kill -0 "$job" 2> /dev/null || [ "$tries" -gt 600 ]; then
            fail "no step after $1"
            return
        fi
        sleep 0.1
    done
}

# expect_exit CODE: waits for the run's end.
expect_exit() {
    local rc=0
    wait "$job" || rc=$?
    job=
    [ "$rc" = "$1" ] || fail "expected exit $1, got $rc"
}

step=0
for signal in USR1 TERM INT; do
    train_until "$step"
    kill -"$signal" "$job"
    expect_exit 75
    grep -q "SIG$signal\|checkpoint" "$folder/output" || fail "SIG$signal is not mentioned"
    before=$step
    step=$(last_step)
    [ "${step:-0}" -gt "$before" ] || fail "after SIG$signal the run is at step '${step:-}', it was at $before"
done
exit $((failures > 0))
