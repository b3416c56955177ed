#!/usr/bin/env bash
# quickstart.sh [RUN_FOLDER]: from a fresh checkout to a trained model in a few minutes, on any Debian or Ubuntu machine with two cores.
# Installs what is missing, builds, trains a small GPT-2 on Shakespeare, interrupts it twice on the way - once politely, once not - goes on
# each time on another number of ranks, and lets the model write. RUN_FOLDER is runs/quickstart unless given.
set -eu
cd "$(dirname "$0")/.."
espalier=build/release/espalier
config=configs/quickstart.yaml
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
deadline=900 # seconds that one stage of training may take, on the slowest of machines
job=

say() { printf '\n== %s\n' "$*"; }

give_up() {
    printf '\nquickstart: %s\n' "$1" >&2
    [ -f "${log:-}" ] && { tail -25 "$log" >&2; printf 'quickstart: the whole output is in %s\n' "$log" >&2; }
    exit 1
}

end_job() {
    [ -n "$job" ] && kill -TERM "$job" 2> /dev/null
    return 0
}
trap end_job EXIT

# A folder that is not there yet: an earlier run is never touched.
fresh_folder() {
    local base=$1 n=2 folder=$1
    while [ -e "$folder" ]; do
        folder=$base-$n
        n=$((n + 1))
    done
    echo "$folder"
}

# field KEY: the number under KEY of every training step's line in metrics.jsonl, with the step in front.
field() {
    [ -f "$run/metrics.jsonl" ] || return 0
    awk -v key="\"$1\"" '
        function value(name,    rest) {
            if (!match($0, name ": *")) return ""
            rest = substr($0, RSTART + RLENGTH)
            sub(/[,}].*/, "", rest)
            return rest
        }
        /"event": *"step"/ { print value("\"step\""), value(key) }' "$run/metrics.jsonl"
}

last_step() { field loss | tail -1 | cut -d ' ' -f 1; }

show_progress() {
    local line
    line=$(paste -d ' ' <(field loss) <(field tokens_per_second) | tail -1)
    [ -n "$line" ] && [ "$line" != "${shown:-}" ] && echo "$line" | awk '{printf "   step %4d   loss %.3f   %.0f tokens a second\n", $1, $2, $4}'
    shown=$line
}

start() {
    local ranks=$1
    say "training on $ranks rank$([ "$ranks" = 1 ] || echo s)"
    mpirun --oversubscribe --bind-to none --mca btl self,vader --mca btl_vader_single_copy_mechanism none --mca mpi_yield_when_idle 1 \
        -n "$ranks" "$espalier" train "$config" --resume auto --set run.dir="$run" --set log.progress=lines >> "$log" 2>&1 &
    job=$!
}

# Waits until training has passed step $1, or has ended.
wait_for_step() {
    local began=$SECONDS
    while kill -0 "$job" 2> /dev/null; do
        show_progress
        local step
        step=$(last_step)
        [ "${step:-0}" -ge "$1" ] && return 0
        [ $((SECONDS - began)) -gt "$deadline" ] && give_up "no step $1 after $deadline seconds"
        sleep 2
    done
}

# Waits for the job's end and leaves its exit code in $code.
wait_for_end() {
    code=0
    wait "$job" || code=$?
    job=
    show_progress
}

say "installing what is missing"
launch/install_deps.sh

say "building"
mkdir -p build
log=build/quickstart.log
{ cmake --preset release && cmake --build --preset release --target espalier; } > "$log" 2>&1 || give_up "the build failed"
"$espalier" --version

run=$(fresh_folder "${1:-runs/quickstart}")
mkdir -p "$(dirname "$run")"
log=$run.log
: > "$log"
echo "the run's folder is $run, its output goes to $log"

start 2
wait_for_step 40
say "asking it to stop, as a batch system does before the time is up (SIGUSR1)"
kill -USR1 "$job" 2> /dev/null || true
wait_for_end
[ "$code" = 75 ] || give_up "expected exit code 75 (stopped, checkpoint saved), got $code"
echo "   it saved a checkpoint and left with exit code 75: requeue me"

start 1
wait_for_step 90
say "killing it without warning (SIGKILL)"
kill -KILL $(cat "/proc/$job/task/$job/children") 2> /dev/null || true
wait_for_end
[ "$code" != 0 ] || give_up "it ended before it could be killed"
echo "   it died with exit code $code; the newest complete checkpoint counts"

start 2
wait_for_step 1000000
wait_for_end
[ "$code" = 0 ] || give_up "training failed with exit code $code"

say "the loss, from $run/metrics.jsonl"
field loss | awk 'NR == 1 || $1 % 20 == 0 {bar = sprintf("%" int($2 * 8) "s", ""); gsub(/ /, "#", bar); printf "   step %4d   %.3f %s\n", $1, $2, bar}'
field loss | awk 'NR == 1 {first = $2} {last = $2} END {exit !(last < first - 1)}' || give_up "the loss did not fall"

say "what it writes"
"$espalier" generate "$run" --prompt "ROMEO:" 2>> "$log" || give_up "generation failed"

say "done"
cat << END
   run folder      $run              config.yaml, metrics.jsonl, log.txt, TensorBoard events
   checkpoints     $run/checkpoints/  sharded HDF5
   model           $run/model        a Hugging Face folder: AutoModelForCausalLM.from_pretrained("$run/model")

next:
   $espalier --help
   $espalier config --reference           every key of a config
   $espalier train configs/gpt2_finetune.yaml --set model.path=$run/model
   mpirun -n 4 $espalier train YOUR.yaml  on more ranks: the same config
END
