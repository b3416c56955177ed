/* What lets the core's headers be used across borders: from a backend library (kernels/backend.h), from C++, from GPU code. */
#ifndef ESPL_CORE_EXPORT_H
#define ESPL_CORE_EXPORT_H

/* Functions that a backend library takes from the program that opened it. */
#define ESPL_EXPORT __attribute__((visibility("default")))

/* Inline functions that kernels of a GPU call as well. */
#ifdef __CUDACC__
#define ESPL_ANYWHERE __host__ __device__
#else
#define ESPL_ANYWHERE
#endif

#endif
