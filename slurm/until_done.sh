#!/usr/bin/env bash
# until_done.sh RUN_DIR MOST_RESTARTS COMMAND ...: one life of a Slurm job that is requeued until its run is done. The last word of a batch
# script: it takes the script's place (exec), so that the signals of --signal=B: and the exit code are its own.
#
# - The run is over when RUN_DIR/done says so, and only then: srun can return 0 after a node was lost.
# - Exit code 75 (stopped, with a checkpoint), and an end that is no failure of the run's own (a lost node, a killed rank), put the job back
#   into the queue, at most MOST_RESTARTS times. A failure that would come again does not: 2 config, 3 data, 4 numbers, 70 a bug of ours.
# - USR1 (of --signal) and TERM (scancel, preemption) are handed to COMMAND as USR1, which srun and mpirun pass on to the ranks. After TERM
#   the job is not put back from here: a person ended it, or Slurm requeues it by itself (PreemptMode=REQUEUE).
#
# With IN_PLACE=N in the environment the first N ends that are no failure of the run's own start COMMAND again within the job, on the nodes
# that still answer, which with checkpoint.memory_every needs no file system. The job must outlive its nodes (#SBATCH --no-kill). COMMAND
# begins with srun or mpirun, and leaves names and numbers of nodes and ranks to this script. It starts as many ranks as there were on each
# node; where the program does not take that number (run.reduction: tree wants a power of two), the largest power of two that it takes,
# over as many nodes as they fill, every other one first: what a node keeps in memory, the next one has as well.
#   NODES         the names, in the order of the ranks (the job's); needed outside of Slurm, where nothing is put back into a queue
#   RANKS_A_NODE  ($SLURM_NTASKS_PER_NODE)
#   PROBE         a command that gets a node's name and fails when the node is lost (a step of srun's; outside of Slurm ssh NODE true)
#   SILENT        seconds without a new line in metrics.jsonl after which nodes are asked while COMMAND runs (300): a launcher may wait for
#                 a lost node for hours; it is ended when one does not answer
set -euo pipefail
run_dir=${1:?until_done.sh RUN_DIR MOST_RESTARTS COMMAND ...} most=${2:?a number of restarts is missing}
shift 2

# Slurm's barrier without data waits for nobody on fewer nodes than TreeWidth (seen in 22.05, by its source also before and after): MPI_Init
# of a rank then meets messages that it is not ready for, and crashes. Its other algorithm is a barrier.
export SLURM_PMIX_FENCE=${SLURM_PMIX_FENCE:-ring}
# srun otherwise waits for ever for ranks that a lost one has left waiting; a run's ranks leave together.
export SLURM_WAIT=${SLURM_WAIT:-60}

restarts=${SLURM_RESTART_COUNT:-0} in_place=${IN_PLACE:-0} silent=${SILENT:-300} again=0 child='' ended=''
declare -a nodes=() left=() chosen=() command=("$@")

say() { echo "until_done: $*"; }

hand_on() {
    say "SIG$1: the run is asked to save and leave"
    [ "$1" != TERM ] || ended=TERM
    [ -z "$child" ] || kill -USR1 "$child" 2> /dev/null || true
}
trap 'hand_on USR1' USR1
trap 'hand_on TERM' TERM

# requeue WHY CODE: the job goes back into the queue, or ends with CODE.
requeue() {
    local job=${SLURM_JOB_ID:-}
    # Of an array only this task: the number of its job can be that of the whole array.
    [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    if [ -n "$ended" ]; then
        say "$1; not put back, because the job was told to end"
        exit "$2"
    elif [ -z "$job" ]; then
        say "$1; there is no queue to put it back into"
        exit "$2"
    elif [ "$restarts" -ge "$most" ]; then
        say "$1; not put back, after $restarts restarts of at most $most"
        exit "$2"
    fi
    say "$1; back into the queue, restart $((restarts + 1)) of at most $most"
    scontrol requeue "$job" || exit "$2"
    exit 0
}

# ---- Restarts in place

probe() {
    if [ -n "${PROBE:-}" ]; then
        command $PROBE "$1"
    elif [ -n "${SLURM_JOB_ID:-}" ]; then
        srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" true
    else
        ssh -o BatchMode=yes -o ConnectTimeout=10 "$1" true
    fi
}

# answers NODE: within 20 seconds.
answers() {
    local asked
    probe "$1" < /dev/null > /dev/null 2>&1 &
    asked=$!
    for _ in $(seq 200); do
        kill -0 "$asked" 2> /dev/null || break
        sleep 0.1
    done
    kill -KILL "$asked" 2> /dev/null || true
    wait "$asked" 2> /dev/null
}

# Asks all nodes at once. What does not answer is empty in `left`, which has the places of `nodes`.
ask() {
    local i asked=()
    for i in "${!nodes[@]}"; do
        answers "${nodes[i]}" &
        asked+=($!)
    done
    left=()
    for i in "${!nodes[@]}"; do
        if wait "${asked[i]}"; then left+=("${nodes[i]}"); else left+=(''); fi
    done
}

# takes N: whether the program runs on so many ranks.
takes() {
    local word program=''
    for word in "${command[@]}"; do
        [ "$word" != train ] || break
        program=$word
    done
    [ ! -e "$run_dir/config.yaml" ] || "$program" plan "$run_dir/config.yaml" --ranks "$1" --peak 1 > /dev/null 2>&1
}

# Sets `ranks`, for so many nodes.
count_ranks() {
    local k=1
    ranks=$(($1 * per_node))
    takes "$ranks" && return
    while [ $((2 * k)) -le "$ranks" ]; do k=$((2 * k)); done
    while [ "$k" -gt 1 ] && ! takes "$k"; do k=$((k / 2)); done
    ranks=$k
}

# Sets `ranks`, and in `chosen` the nodes for them: in the ring of nodes, from behind a lost one on, first every other one of those that
# follow each other. They have all that is in memory.
choose() {
    local i at pass place first=0 n=0 k=0 wanted=()
    for i in "${!left[@]}"; do
        if [ -n "${left[i]}" ]; then n=$((n + 1)); else first=$((i + 1)); fi
    done
    [ "$n" -gt 0 ] || return 1
    count_ranks "$n"
    for pass in 0 1; do
        place=0
        for i in "${!left[@]}"; do
            at=$(((first + i) % ${#left[@]}))
            if [ -z "${left[at]}" ]; then
                place=0
                continue
            fi
            if [ "$place" = "$pass" ] && [ "$k" -lt "$n" ] && [ "$k" -lt "$ranks" ]; then wanted[at]=1 k=$((k + 1)); fi
            place=$((1 - place))
        done
    done
    chosen=()
    for i in "${!left[@]}"; do
        [ -z "${wanted[i]:-}" ] || chosen+=("${left[i]}")
    done
}

# Sets `placed`: the command's words, with those that tell its launcher where to start.
place() {
    local i n=${#chosen[@]} hosts=''
    for i in "${!chosen[@]}"; do
        hosts+=${hosts:+,}${chosen[i]}
        [ "${command[0]##*/}" = srun ] || hosts+=:$((ranks / n + (i < ranks % n)))
    done
    if [ "${command[0]##*/}" = srun ]; then
        set -- --overlap --nodes="$n" --ntasks="$ranks" --nodelist="$hosts"
    else
        set -- -n "$ranks" -H "$hosts"
    fi
    placed=("${command[0]}" "$@" "${command[@]:1}")
}

# end_launcher NODE: it waits for a lost node.
end_launcher() {
    say "the run is silent, and $1 does not answer: the launcher is ended"
    kill -TERM "$child" 2> /dev/null || true
    for _ in $(seq 50); do
        kill -0 "$child" 2> /dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$child" 2> /dev/null || true
}

look_after() {
    local i heard
    heard=$(stat -c %Y "$run_dir/metrics.jsonl" 2> /dev/null || echo 0)
    [ "$heard" -gt "$asked_last" ] || heard=$asked_last
    [ $(($(date +%s) - heard)) -ge "$silent" ] || return 0
    ask
    asked_last=$(date +%s)
    for i in "${!nodes[@]}"; do
        if [ -z "${left[i]}" ] && [[ " ${chosen[*]} " = *" ${nodes[i]} "* ]]; then
            end_launcher "${nodes[i]}"
            return
        fi
    done
}

# ---- A life

# Runs the words and sets `code`.
follow() {
    "$@" &
    child=$! code=0 asked_last=$(date +%s)
    while [ "$in_place" -gt 0 ] && kill -0 "$child" 2> /dev/null; do
        sleep 0.3 &
        wait $! || true
        look_after
    done
    wait "$child" || code=$?
    while kill -0 "$child" 2> /dev/null; do # a trapped signal ends `wait`, not the command
        code=0
        wait "$child" || code=$?
    done
    child=''
}

if [ -e "$run_dir/done" ]; then
    say "$run_dir is done: nothing is left to do"
    exit 0
fi

placed=("${command[@]}")
if [ "$in_place" -gt 0 ]; then
    case ${1##*/} in
    srun | mpirun) ;;
    *)
        say "IN_PLACE wants a command that begins with srun or mpirun, not $1"
        exit 2
        ;;
    esac
    mapfile -t nodes < <(if [ -n "${NODES:-}" ]; then printf '%s\n' $NODES; else scontrol show hostnames "$SLURM_JOB_NODELIST"; fi)
    per_node=${RANKS_A_NODE:-${SLURM_NTASKS_PER_NODE:-1}}
    chosen=("${nodes[@]}") ranks=$((${#nodes[@]} * per_node))
    place
fi

[ -z "${SLURM_JOB_ID:-}" ] || say "job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, after $restarts restarts of at most $most"
while :; do
    follow "${placed[@]}"
    if [ -e "$run_dir/done" ]; then
        say "$run_dir is done"
        exit 0
    fi
    case $code in
    75) requeue "stopped with a checkpoint" 75 ;;
    2 | 3 | 4 | 70)
        say "the run failed with exit code $code: see $run_dir/log.txt"
        exit "$code"
        ;;
    0) why="the launcher returned 0, but $run_dir/done is not there" code=1 ;;
    *) why="the launcher returned $code" ;;
    esac
    if [ "$again" -ge "$in_place" ] || [ -n "$ended" ]; then requeue "$why" "$code"; fi
    ask
    choose || requeue "$why; no node answers" "$code"
    again=$((again + 1))
    place
    say "$why; restart $again of $in_place in place: $ranks ranks on ${chosen[*]}"
done
