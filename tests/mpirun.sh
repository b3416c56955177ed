#!/usr/bin/env bash
# mpirun.sh RANKS SECONDS PROGRAM [ARG ...]: runs PROGRAM on RANKS loopback ranks under a deadline that ends the whole job.
set -u
ranks=$1 seconds=$2
shift 2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec timeout -k 5 "$seconds" mpirun --oversubscribe --bind-to none --mca btl self,vader --mca btl_vader_single_copy_mechanism none \
    --mca mpi_yield_when_idle 1 -n "$ranks" "$@"
