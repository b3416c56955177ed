#!/usr/bin/env bash
# install_deps.sh [--tests]: installs what a build of Espalier needs (with --tests also what its tests need), as far as it is missing.
# install_deps.sh --cuda FOLDER: NVIDIA's Python wheels of cuBLASLt and NCCL, and of the tools that read compiled kernels, into a Python environment
#   in FOLDER (1 GB), for a machine that has nvcc but not these. CMake takes them from there: -DESPL_CUDA_WHEELS="$(install_deps.sh --cuda FOLDER)".
# install_deps.sh --cudnn FOLDER: the four libraries of cuDNN 9.28 that attention takes (288 MB, of a wheel of 517 MB), and its headers, into FOLDER,
#   whose name for a run is printed: ESPL_CUDNN_LIBRARY="$(install_deps.sh --cudnn FOLDER)". No build needs it.
# Debian and Ubuntu, as root or through sudo. On a cluster load the site's modules instead; CMake names what it does not find.
set -eu

# Prints the folder that CMake wants. The versions are those that PyTorch 2.11 brings: a library built with these runs with newer ones too.
install_cuda() {
    local folder=$1 major
    major=$(nvcc --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')
    if [ "$major" != 13 ]; then
        echo "install_deps: --cuda is for nvcc 13, here is nvcc ${major:-of no known release}: use the toolkit's own libraries" >&2
        exit 1
    fi
    if [ ! -f "$folder/complete" ]; then
        python3 -m venv "$folder" >&2
        "$folder/bin/pip" install -q --disable-pip-version-check --no-deps nvidia-cublas==13.1.0.3 nvidia-nccl-cu13==2.28.9 nvidia-cuda-cuobjdump \
            nvidia-cuda-nvdisasm >&2
        : > "$folder/complete"
    fi
    echo "$(cd "$folder" && pwd)"/lib/python3*/site-packages/nvidia
}

install_cudnn() {
    local folder=$1
    if [ ! -f "$folder/complete" ]; then
        mkdir -p "$folder"
        python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$folder" nvidia-cudnn-cu13==9.28.0.42 >&2
        python3 - "$folder" << 'EOF'
import glob, sys, zipfile
wheel = glob.glob(sys.argv[1] + "/*.whl")[0]
parts = ("include/", "lib/libcudnn.so", "lib/libcudnn_graph", "lib/libcudnn_heuristic", "lib/libcudnn_engines_runtime_compiled")
with zipfile.ZipFile(wheel) as archive:
    archive.extractall(sys.argv[1], [n for n in archive.namelist() if n.startswith(tuple("nvidia/cudnn/" + p for p in parts))])
EOF
        rm -f "$folder"/*.whl
        : > "$folder/complete"
    fi
    echo "$(cd "$folder" && pwd)/nvidia/cudnn/lib/libcudnn.so.9"
}

if [ "${1:-}" = --cudnn ]; then
    install_cudnn "${2:?install_deps.sh --cudnn FOLDER}"
    exit 0
fi

if [ "${1:-}" = --cuda ]; then
    command -v nvcc > /dev/null || { echo "install_deps: no nvcc here" >&2 && exit 1; }
    install_cuda "${2:?install_deps.sh --cuda FOLDER}"
    exit 0
fi

build_packages="gcc libc6-dev cmake ninja-build pkg-config openmpi-bin libopenmpi-dev libhdf5-dev libopenblas-dev libdnnl-dev libyaml-dev libjansson-dev
    libutf8proc-dev libpcre2-dev libxxhash-dev libzstd-dev zlib1g-dev libprotobuf-c-dev protobuf-c-compiler libcmocka-dev python3"
test_packages="g++ clang-14 libclang-rt-14-dev libomp-14-dev clang-tidy-14 clang-format-14 hdf5-tools strace python3-venv chromium slurm-wlm munge iproute2 e2fsprogs"

packages=$build_packages
[ "${1:-}" = --tests ] && packages="$build_packages $test_packages"

if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
    echo "install_deps: no apt here; these Debian packages, or the modules that stand for them, are needed:" >&2
    echo $packages >&2
    exit 0
fi

missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
    as_root=sudo
else
    echo "install_deps: these packages are missing and only root can install them:$missing" >&2
    echo "install_deps: run  sudo apt-get install$missing" >&2
    exit 1
fi

echo "install_deps: installing$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $as_root apt-get update -q && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -q -y --no-install-recommends $missing; } \
    > "$log" 2>&1; then
    tail -20 "$log" >&2
    echo "install_deps: apt-get failed; its last lines are above" >&2
    exit 1
fi
