# For Spack 0.23 and later. From the root of the source, with the site's own compilers and libraries:
#   spack repo add launch/site/spack
#   spack dev-build espalier@main            (+cuda cuda_arch=90 for GPUs)
from spack.package import *


class Espalier(CMakePackage, CudaPackage):
    """A distributed trainer for language models in C: Open MPI, HDF5, BLAS and oneDNN, on GPUs NCCL and cuBLASLt."""

    license("Apache-2.0")

    version("main")

    depends_on("c", type="build")
    depends_on("cxx", type="build", when="+cuda")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("openmpi@4.1:")
    depends_on("hdf5@1.10:~mpi+hl")
    depends_on("openblas")
    depends_on("onednn@2.6:")
    depends_on("libyaml")
    depends_on("jansson@2.11:")
    depends_on("utf8proc")
    depends_on("pcre2")
    depends_on("xxhash@0.8:")
    depends_on("zstd")
    depends_on("zlib-api")
    depends_on("protobuf-c")
    depends_on("cuda@12:", when="+cuda")
    conflicts("cuda_arch=none", when="+cuda", msg="say which GPUs it is for: cuda_arch=90")
    for arch in CudaPackage.cuda_arch_values:  # NCCL's; the backend is compiled for 8.0, 9.0 and what comes after
        depends_on(f"nccl@2.18:+cuda cuda_arch={arch}", when=f"+cuda cuda_arch={arch}")

    generator("ninja")

    def cmake_args(self):
        return [self.define_from_variant("ESPL_CUDA", "cuda"), self.define("BUILD_TESTING", False)]
