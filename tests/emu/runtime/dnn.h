/* Inside the emulated cuDNN: its descriptors, and the attention that its plans stand for. It is as large as kernels/cuda/cudnn_plans.c
 * needs: what that does not ask for is refused, so the subset stays what was looked at. A run finds it when ESPL_CUDNN_LIBRARY names the
 * library that it is part of.
 *
 *   EMU_CUDNN=version     what cudnnGetVersion says, 92800 by default
 *   EMU_CUDNN_FAULT=name  no_backward: there is no engine for it; unordered: engines do not know STAGES = 4; large: plans want a gigabyte
 * of work for every row; wrong_forward, wrong_backward: wrong values; unsteady: the last bits of dQ differ from call to call; execute:
 * plans do not run */
#ifndef ESPL_TESTS_EMU_RUNTIME_DNN_H
#define ESPL_TESTS_EMU_RUNTIME_DNN_H

#include "kernels/cuda/cudnn_api.h"

#include <cuda_runtime_api.h>
#include <map>
#include <string>
#include <vector>

namespace dnn {

struct attribute {
    int type;
    int64_t count;
    std::vector<char> bytes;
};

struct descriptor {
    int kind;
    bool finished;
    std::map<int, attribute> attributes;
};

struct context {
    cudaStream_t stream;
};

bool has_fault(const char *name);
/* Remembers what is wrong, for cudnnGetLastErrorString; returns a status that is not success. */
int refuse(int status, const std::string &why);
constexpr int bad_param = 2000, not_supported = 3000, not_initialized = 1001, failed = 5000;

/* One number, or the descriptor, that an attribute holds; 0 and NULL where there is none. */
int64_t number_of(const descriptor *d, int name);
const descriptor *descriptor_of(const descriptor *d, int name);
std::vector<int64_t> numbers_of(const descriptor *d, int name);

/* A tensor of the operation as it was described. */
struct tensor {
    int64_t id, format, kind, sizes[4], strides[4], row;
    int64_t offsets; /* id of the tensor that holds where segments begin; 0: none */
    bool by_value;
};

struct attention {
    bool backward, causal, ordered;
    int64_t segments, longest, heads, kv_heads, d, rows; /* rows: of all segments, backward only */
    tensor q, k, v, o, lse, scale, lengths_q, lengths_k, dout, dq, dk, dv;
    int64_t bound_id, fill_id; /* causal */
    int64_t work_bytes;
};

/* Reads the operation from its descriptor. Returns a status; what is missing or does not fit is told. */
int read_attention(const descriptor *operation, attention *a);

/* Puts it on the stream. */
int execute(const attention &a, const std::map<int64_t, void *> &places, void *work, cudaStream_t stream);

} // namespace dnn

#endif
