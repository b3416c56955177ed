#!/usr/bin/env bash
# bundle.sh [--release FOLDER --cuda FOLDER]: collects into build/gpu-bundle what tests/gpu/run.sh needs on a machine with a GPU and without packages: the
# programs, the library for GPUs, every shared library under them but the C library, the driver, cuBLASLt and NCCL (those are on the machine: in a
# toolkit, or in Python's packages; PyTorch brings them), a runtime of Open MPI, and what the emulator prints for the primitives. Then packs it as
# build/gpu-bundle.tar.xz, which must stay under 64 MiB. It builds the presets release and cuda first, unless folders are given.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
release= cuda=
while [ $# -gt 0 ]; do
    case $1 in
    --release) release=$2 && shift 2 ;;
    --cuda) cuda=$2 && shift 2 ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "$0" && exit 2 ;;
    esac
done
bundle=$root/build/gpu-bundle
limit=$((64 * 1024 * 1024))
programs="espalier tests/gpu_bench tests/primitives tests/test_ops_emu tests/test_cudnn_emu libespalier_emu.so"
# Of the machine, never of the bundle.
of_the_machine='^(linux-vdso|ld-linux-x86-64|libc|libm|libdl|libpthread|librt|libresolv|libutil|libcuda|libcublasLt|libnccl)\.so'

build_all() {
    release=$root/build/release cuda=$root/build/cuda
    cmake --preset release > build/release.log
    cmake --build --preset release --target espalier gpu_bench primitives test_ops_emu test_cudnn_emu espalier_emu >> build/release.log
    cmake --preset cuda -DESPL_CUDA_WHEELS="$(launch/install_deps.sh --cuda build/cuda-wheels)" > build/cuda.log
    cmake --build --preset cuda >> build/cuda.log
}

# copy_libraries FILE ...: the shared libraries that these need, and those need.
copy_libraries() {
    ldd "$@" 2> /dev/null | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' | sort -u | grep -vE "$of_the_machine" |
        while read -r name path; do
            [ -f "$bundle/lib/$name" ] || cp -L "$path" "$bundle/lib/$name"
        done
}

# Open MPI finds its parts from OPAL_PREFIX; those of networks and queues stay behind.
copy_mpi() {
    local libraries=/usr/lib/x86_64-linux-gnu
    local others='_(openib|usnic|ofi|psm|psm2|ucx|uct|portals4|cuda|tm|slurm|lsf|ompio|romio)[a-z0-9]*\.so$'
    mkdir -p "$bundle/mpi/bin" "$bundle/mpi/lib" "$bundle/mpi/share" "$bundle/pmix"
    cp -L /usr/bin/mpirun /usr/bin/orted "$bundle/mpi/bin/"
    cp -r /usr/share/openmpi "$bundle/mpi/share/"
    mkdir -p "$bundle/mpi/lib/openmpi"
    find "$libraries/openmpi/lib/openmpi3" -name 'mca_*.so' | grep -vE "$others" | xargs cp -t "$bundle/mpi/lib/openmpi"
    [ -d "$libraries/pmix2/lib/pmix" ] && find "$libraries/pmix2/lib/pmix" -name '*.so' -exec cp -t "$bundle/pmix" {} +
    copy_libraries "$bundle"/mpi/bin/* "$bundle"/mpi/lib/openmpi/*.so "$bundle"/pmix/*.so
}

make_bundle() {
    local name
    rm -rf "$bundle"
    mkdir -p "$bundle/bin" "$bundle/lib" "$bundle/reference"
    for name in $programs; do
        cp "$release/$name" "$bundle/bin/"
    done
    cp "$cuda/libespalier_cuda.so" "$bundle/bin/"
    nvcc -std=c++17 -O3 -fmad=false -I"$root" -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a \
        -gencode=arch=compute_90,code=compute_90 -o "$bundle/bin/primitives_cuda" tests/gpu/primitives.cu
    strip --strip-debug "$bundle"/bin/*
    copy_libraries "$bundle"/bin/*
    copy_mpi
    "$release/tests/primitives" > "$bundle/reference/primitives.txt"
    git rev-parse HEAD > "$bundle/commit"
}

[ -n "$release" ] && [ -n "$cuda" ] || build_all
make_bundle
tar -C build -cJf build/gpu-bundle.tar.xz gpu-bundle
size=$(stat -c %s build/gpu-bundle.tar.xz)
echo "build/gpu-bundle.tar.xz: $((size / 1024)) KiB of at most $((limit / 1024)); unpacked $(du -sk "$bundle" | cut -f 1) KiB"
[ "$size" -le "$limit" ]
