#!/usr/bin/env bash
# until_done.sh RUN_DIR MOST_RESTARTS COMMAND ...: one life of a Slurm job that is requeued until its run is done. The last word of a batch
# script: it takes the script's place (exec), so that the signals of --signal=B: and the exit code are its own.
#
# - The run is over when RUN_DIR/done says so, and only then: srun can return 0 after a node was lost.
# - Exit code 75 (stopped, with a checkpoint), and an end that is no failure of the run's own (a lost node, a killed rank), put the job back
#   into the queue, at most MOST_RESTARTS times. A failure that would come again does not: 2 config, 3 data, 4 numbers, 70 a bug of ours.
# - USR1 (of --signal) and TERM (scancel, preemption) are handed to COMMAND as USR1, which srun and mpirun pass on to the ranks. After TERM
#   the job is not put back from here: a person ended it, or Slurm requeues it by itself (PreemptMode=REQUEUE).
set -euo pipefail
run_dir=${1:?until_done.sh RUN_DIR MOST_RESTARTS COMMAND ...} most=${2:?a number of restarts is missing}
shift 2
restarts=${SLURM_RESTART_COUNT:-0} child='' ended=''

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
    local job=$SLURM_JOB_ID
    # Of an array only this task: the number of its job can be that of the whole array.
    [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    if [ -n "$ended" ]; then
        say "$1; not put back, because the job was told to end"
        exit "$2"
    elif [ "$restarts" -ge "$most" ]; then
        say "$1; not put back, after $restarts restarts of at most $most"
        exit "$2"
    fi
    say "$1; back into the queue, restart $((restarts + 1)) of at most $most"
    scontrol requeue "$job" || exit "$2"
    exit 0
}

if [ -e "$run_dir/done" ]; then
    say "$run_dir is done: nothing is left to do"
    exit 0
fi

say "job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, after $restarts restarts of at most $most"
"$@" &
child=$!
code=0
wait "$child" || code=$?
while kill -0 "$child" 2> /dev/null; do # a trapped signal ends `wait`, not the command
    code=0
    wait "$child" || code=$?
done

if [ -e "$run_dir/done" ]; then
    say "$run_dir is done"
    exit 0
fi
case $code in
75) requeue "stopped with a checkpoint" 75 ;;
2 | 3 | 4 | 70) say "the run failed with exit code $code: see $run_dir/log.txt" ;;
0) requeue "the launcher returned 0, but $run_dir/done is not there" 1 ;;
*) requeue "the launcher returned $code" "$code" ;;
esac
exit "$code"
