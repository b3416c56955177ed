#!/usr/bin/env bash
# test: tier=default timeout=60
# cli_until_done.sh ESPALIER: what slurm/until_done.sh makes of exit codes, markers and signals; scontrol is one that only takes notes.
set -u
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0
mkdir "$folder/bin" "$folder/run"
printf '#!/bin/sh\necho "$*" >> %s/asked\n' "$folder" > "$folder/bin/scontrol"
chmod +x "$folder/bin/scontrol"
export PATH=$folder/bin:$PATH SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n1
unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_RESTART_COUNT

# expect NAME CODE ASKED: how the last job ended, and what scontrol was asked.
expect() {
    local asked
    asked=$(cat "$folder/asked" 2> /dev/null)
    [ "$code" = "$2" ] && [ "$asked" = "$3" ] || {
        echo "$1: expected exit $2 and scontrol '$3', got $code and '$asked'"
        cat "$folder/output"
        failures=$((failures + 1))
    }
}

# run COMMAND ...: the job, in the background, with a fresh folder; wait_for_it waits for its end.
run() {
    rm -f "$folder/run/done" "$folder/asked"
    start "$@"
}
start() {
    slurm/until_done.sh "$folder/run" 2 "$@" > "$folder/output" 2>&1 &
    job=$!
}
wait_for_it() {
    code=0
    wait "$job" || code=$?
}

job_of() { run sh -c "$1"; wait_for_it; }

job_of "touch $folder/run/done"
expect "a run that is done" 0 ""
start sh -c "touch $folder/again"
wait_for_it
expect "a run that was done" 0 ""
[ ! -e "$folder/again" ] || { echo "a run that was done is started again" && failures=$((failures + 1)); }
job_of "touch $folder/run/done; exit 137"
expect "a marker beside a launcher that failed" 0 ""
job_of "exit 75"
expect "a checkpoint" 0 "requeue 7"
job_of "exit 0"
expect "a launcher that returns 0 after a lost node" 0 "requeue 7"
job_of "exit 137"
expect "a killed rank" 0 "requeue 7"
for own in 2 3 4 70; do
    job_of "exit $own"
    expect "a failure that would come again" $own ""
done
SLURM_ARRAY_JOB_ID=6 SLURM_ARRAY_TASK_ID=3 job_of "exit 75"
expect "a task of an array" 0 "requeue 6_3"
SLURM_RESTART_COUNT=1 job_of "exit 75"
expect "the last restart" 0 "requeue 7"
SLURM_RESTART_COUNT=2 job_of "exit 75"
expect "no restarts left" 75 ""
SLURM_RESTART_COUNT=2 job_of "exit 0"
expect "no restarts left, and a launcher that returns 0" 1 ""

saves='trap "exit 75" USR1; touch '$folder/ready'; while :; do sleep 0.05; done'
for row in "USR1 0 requeue_7" "TERM 75 "; do
    read -r signal want asked <<< "$row"
    rm -f "$folder/ready"
    run sh -c "$saves"
    until [ -e "$folder/ready" ]; do sleep 0.05; done
    kill -"$signal" "$job"
    wait_for_it
    expect "SIG$signal" "$want" "${asked/_/ }"
done

# ---- In place: a launcher that takes notes and fails until its last life, a program that takes powers of two, nodes that are named in `lost`.
cat > "$folder/bin/mpirun" << END
#!/bin/sh
echo "\${0##*/} \$*" >> $folder/launched
[ "\$(wc -l < $folder/launched)" -le "\$FAILS" ] || { touch $folder/run/done; exit 0; }
[ -z "\$HANGS" ] || exec sleep 30
exit 137
END
cat > "$folder/bin/program" << 'END'
#!/bin/sh
[ "$1" = plan ] && [ "$3" = --ranks ] && [ $(($4 & ($4 - 1))) = 0 ]
END
printf '#!/bin/sh\n! grep -qx "$1" %s/lost\n' "$folder" > "$folder/bin/probe"
cp "$folder/bin/mpirun" "$folder/bin/srun"
chmod +x "$folder"/bin/*
touch "$folder/run/config.yaml"

# in_place NAME LOST LIVES CODE ASKED LAUNCHER ...: the job with so many restarts in place, and its last start, which is in `expected`.
in_place() {
    local name=$1 lives=$3 want=$4 asked=$5
    printf '%s\n' $2 > "$folder/lost"
    shift 5
    rm -f "$folder/launched"
    NODES="n1 n2 n3 n4" PROBE=probe IN_PLACE=$lives run "$@"
    wait_for_it
    expect "$name" "$want" "$asked"
    [ "$(tail -1 "$folder/launched")" = "$expected" ] || {
        echo "$name: expected '$expected', got '$(tail -1 "$folder/launched")'"
        failures=$((failures + 1))
    }
}

export FAILS=1 HANGS=''
expected="mpirun -n 2 -H n1:1,n3:1 -x A program train c.yaml"
in_place "a lost node" n2 1 0 "" mpirun -x A program train c.yaml
expected="mpirun -n 2 -H n2:1,n4:1 program train c.yaml"
in_place "the first node" n1 1 0 "" mpirun program train c.yaml
expected="mpirun -n 4 -H n1:1,n2:1,n3:1,n4:1 program train c.yaml"
in_place "a lost rank" "" 1 0 "" mpirun program train c.yaml
expected="mpirun -n 4 -H n1:2,n3:1,n4:1 program train c.yaml"
RANKS_A_NODE=2 in_place "two ranks a node" n2 1 0 "" mpirun program train c.yaml
expected="srun --overlap --nodes=2 --ntasks=2 --nodelist=n1,n3 --mpi=pmix program train c.yaml"
in_place "srun" "n2 n4" 1 0 "" srun --mpi=pmix program train c.yaml
FAILS=2 in_place "one restart more" "n2 n4" 1 0 "requeue 7" srun --mpi=pmix program train c.yaml
expected="mpirun -n 4 -H n1:1,n2:1,n3:1,n4:1 program train c.yaml"
in_place "no node left" "n1 n2 n3 n4" 1 0 "requeue 7" mpirun program train c.yaml
expected="mpirun -n 2 -H n1:1,n3:1 program train c.yaml"
HANGS=1 SILENT=1 in_place "a launcher that waits for a lost node" n4 1 0 "" mpirun program train c.yaml
exit $((failures > 0))
