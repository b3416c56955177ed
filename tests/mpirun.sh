#!/usr/bin/env bash
# mpirun.sh RANKS SECONDS PROGRAM [ARG ...]: runs PROGRAM on RANKS loopback ranks under a deadline that ends the whole job.
set -u
ranks=$1 seconds=$2
shift 2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# Open MPI unloads its modules before the leak check, which then cannot tell whose memory it was: leaks are looked for on one rank.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
exec timeout -k 5 "$seconds" mpirun --oversubscribe --bind-to none --mca btl self,vader --mca btl_vader_single_copy_mechanism none \
    --mca mpi_yield_when_idle 1 -n "$ranks" "$@"
