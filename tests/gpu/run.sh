#!/usr/bin/env bash
# run.sh [--backend cuda|emu] [--out FOLDER] [--seconds N] [--programs FOLDER] [PART ...]: checks and times the backend for GPUs on this machine, in
# at most 9 minutes; prints a table and writes it as JSON. tests/gpu/README.md describes the parts: primitives, kernels, train, gpt2, bandwidth, peers,
# sanitizer. Needs python3. Programs are taken from --programs (a build folder or a bundle), else from build/gpu-bundle, which is unpacked from
# build/gpu-bundle.tar.xz where it is not there (tests/gpu/bundle.sh makes it), else from build/release and build/cuda. --backend emu rehearses everything
# at small sizes on a machine without a GPU.
set -eu
cd "$(dirname "$0")/../.."
case " $* " in
*" --programs "*) places= ;;
*)
    if [ ! -d build/gpu-bundle ] && [ -f build/gpu-bundle.tar.xz ]; then
        python3 -c 'import tarfile; tarfile.open("build/gpu-bundle.tar.xz").extractall("build")'
    fi
    places="--programs build/gpu-bundle"
    [ -d build/gpu-bundle ] || places="--programs build/release --programs build/cuda"
    ;;
esac
export PYTHONDONTWRITEBYTECODE=1
exec python3 tests/gpu/gpu_parts.py $places "$@"
