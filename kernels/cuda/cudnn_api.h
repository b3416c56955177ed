/* The part of cuDNN's backend interface that fused attention takes: names and numbers of cudnn_graph.h, version 9.28. They stand here
 * because cuDNN is opened when a run asks for it, so that a build needs neither its headers nor its libraries;
 * tests/gpu/test_cudnn_plans.py compares them with the real header. */
#ifndef ESPL_KERNELS_CUDA_CUDNN_API_H
#define ESPL_KERNELS_CUDA_CUDNN_API_H

#include <stddef.h>
#include <stdint.h>

typedef void *cudnn_handle;     /* cudnnHandle_t */
typedef void *cudnn_descriptor; /* cudnnBackendDescriptor_t */

enum {
    CUDNN_STATUS_SUCCESS = 0,

    CUDNN_DATA_FLOAT = 0,
    CUDNN_DATA_INT32 = 4,
    CUDNN_DATA_BFLOAT16 = 9,

    CUDNN_POINTWISE_CMP_GE = 303,
    CUDNN_HEUR_MODE_A = 3,
    CUDNN_KNOB_TYPE_STAGES = 14,
    CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC = 4,

    CUDNN_TYPE_HANDLE = 0,
    CUDNN_TYPE_DATA_TYPE = 1,
    CUDNN_TYPE_BOOLEAN = 2,
    CUDNN_TYPE_INT64 = 3,
    CUDNN_TYPE_VOID_PTR = 6,
    CUDNN_TYPE_HEUR_MODE = 8,
    CUDNN_TYPE_KNOB_TYPE = 9,
    CUDNN_TYPE_NUMERICAL_NOTE = 11,
    CUDNN_TYPE_POINTWISE_MODE = 14,
    CUDNN_TYPE_BACKEND_DESCRIPTOR = 15,
    CUDNN_TYPE_CHAR = 24,

    CUDNN_BACKEND_ENGINE_DESCRIPTOR = 2,
    CUDNN_BACKEND_ENGINECFG_DESCRIPTOR = 3,
    CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR = 4,
    CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR = 5,
    CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR = 7,
    CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR = 15,
    CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR = 16,
    CUDNN_BACKEND_TENSOR_DESCRIPTOR = 17,
    CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR = 38,
    CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR = 41,
    CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR = 43,
    CUDNN_BACKEND_OPERATION_DIAGONAL_BAND_MASK_DESCRIPTOR = 44,

    CUDNN_ATTR_ENGINEHEUR_MODE = 200,
    CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH = 201,
    CUDNN_ATTR_ENGINEHEUR_RESULTS = 202,
    CUDNN_ATTR_ENGINEHEUR_DEVICEPROP = 204,

    CUDNN_ATTR_ENGINECFG_ENGINE = 300,
    CUDNN_ATTR_ENGINECFG_KNOB_CHOICES = 302,
    CUDNN_ATTR_EXECUTION_PLAN_HANDLE = 400,
    CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG = 401,
    CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE = 402,
    CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP = 407,

    CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE = 600,
    CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE = 601,
    CUDNN_ATTR_OPERATIONGRAPH_HANDLE = 800,
    CUDNN_ATTR_OPERATIONGRAPH_OPS = 801,

    CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT = 900,
    CUDNN_ATTR_TENSOR_DATA_TYPE = 901,
    CUDNN_ATTR_TENSOR_DIMENSIONS = 902,
    CUDNN_ATTR_TENSOR_STRIDES = 903,
    CUDNN_ATTR_TENSOR_UNIQUE_ID = 906,
    CUDNN_ATTR_TENSOR_IS_VIRTUAL = 907,
    CUDNN_ATTR_TENSOR_IS_BY_VALUE = 908,
    CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC = 913,
    CUDNN_ATTR_TENSOR_RAGGED_OFFSET_MULTIPLIER = 914,

    CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS = 1000,
    CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS = 1001,
    CUDNN_ATTR_VARIANT_PACK_WORKSPACE = 1003,

    CUDNN_ATTR_ENGINE_GLOBAL_INDEX = 1301,
    CUDNN_ATTR_ENGINE_NUMERICAL_NOTE = 1303,
    CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION = 2702,

    CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC = 2800,
    CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC = 2801,
    CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC = 2802,
    CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC = 2803,
    CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC = 2804,
    CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC = 2805,
    CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH = 2811,
    CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_INPUT_UID = 2812,
    CUDNN_ATTR_OPERATION_SDPA_FWD_SUBGRAPH_OUTPUT_UID = 2813,
    CUDNN_ATTR_OPERATION_SDPA_FWD_CU_SEQ_LEN_QDESC = 2820,
    CUDNN_ATTR_OPERATION_SDPA_FWD_CU_SEQ_LEN_KVDESC = 2821,

    CUDNN_ATTR_OPERATION_SDPA_BWD_QDESC = 2851,
    CUDNN_ATTR_OPERATION_SDPA_BWD_KDESC = 2852,
    CUDNN_ATTR_OPERATION_SDPA_BWD_VDESC = 2853,
    CUDNN_ATTR_OPERATION_SDPA_BWD_ODESC = 2854,
    CUDNN_ATTR_OPERATION_SDPA_BWD_STATSDESC = 2855,
    CUDNN_ATTR_OPERATION_SDPA_BWD_SCALEDESC = 2856,
    CUDNN_ATTR_OPERATION_SDPA_BWD_DQDESC = 2859,
    CUDNN_ATTR_OPERATION_SDPA_BWD_DKDESC = 2860,
    CUDNN_ATTR_OPERATION_SDPA_BWD_DVDESC = 2861,
    CUDNN_ATTR_OPERATION_SDPA_BWD_DODDESC = 2862,
    CUDNN_ATTR_OPERATION_SDPA_BWD_MAX_TOTAL_SEQ_LEN_Q = 2865,
    CUDNN_ATTR_OPERATION_SDPA_BWD_MAX_TOTAL_SEQ_LEN_KV = 2866,
    CUDNN_ATTR_OPERATION_SDPA_BWD_SUBGRAPH = 2867,
    CUDNN_ATTR_OPERATION_SDPA_BWD_SUBGRAPH_INPUT_UID = 2868,
    CUDNN_ATTR_OPERATION_SDPA_BWD_SUBGRAPH_OUTPUT_UID = 2869,
    CUDNN_ATTR_OPERATION_SDPA_BWD_CU_SEQ_LEN_QDESC = 2870,
    CUDNN_ATTR_OPERATION_SDPA_BWD_CU_SEQ_LEN_KVDESC = 2871,

    CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_XDESC = 3000,
    CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_SHIFT_RIGHT_BOUND_DESC = 3004,
    CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_BDESC = 3005,
    CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_YDESC = 3006,
    CUDNN_ATTR_OPERATION_DIAGONAL_BAND_MASK_COMPARISON_MODE = 3007
};

/* CUDNN_FUNCTION(result, name, parameters): every function that is called; statuses, kinds and attributes are ints as C passes enums. */
#define CUDNN_FUNCTIONS(CUDNN_FUNCTION)                                                                                                    \
    CUDNN_FUNCTION(size_t, cudnnGetVersion, (void))                                                                                        \
    CUDNN_FUNCTION(const char *, cudnnGetErrorString, (int status))                                                                        \
    CUDNN_FUNCTION(void, cudnnGetLastErrorString, (char *message, size_t room))                                                            \
    CUDNN_FUNCTION(int, cudnnCreate, (cudnn_handle * handle))                                                                              \
    CUDNN_FUNCTION(int, cudnnDestroy, (cudnn_handle handle))                                                                               \
    CUDNN_FUNCTION(int, cudnnSetStream, (cudnn_handle handle, void *stream))                                                               \
    CUDNN_FUNCTION(int, cudnnBackendCreateDescriptor, (int kind, cudnn_descriptor *descriptor))                                            \
    CUDNN_FUNCTION(int, cudnnBackendDestroyDescriptor, (cudnn_descriptor descriptor))                                                      \
    CUDNN_FUNCTION(int, cudnnBackendSetAttribute,                                                                                          \
                   (cudnn_descriptor descriptor, int attribute, int type, int64_t count, const void *elements))                            \
    CUDNN_FUNCTION(int, cudnnBackendGetAttribute,                                                                                          \
                   (cudnn_descriptor descriptor, int attribute, int type, int64_t room, int64_t *count, void *elements))                   \
    CUDNN_FUNCTION(int, cudnnBackendFinalize, (cudnn_descriptor descriptor))                                                               \
    CUDNN_FUNCTION(int, cudnnBackendExecute, (cudnn_handle handle, cudnn_descriptor plan, cudnn_descriptor variant_pack))

#endif
