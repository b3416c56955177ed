/* cuDNN: the library, descriptors, engines and plans. */
#include "tests/emu/runtime/dnn.h"
#include "tests/emu/runtime/emu_engine.h"

#include <cstring>
#include <set>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace dnn {

enum { ENGINE_NUMBER = 13, ORDERED = 4 };

static std::string last_error;
static std::set<descriptor *> all;

bool has_fault(const char *name) {
    const char *fault = rt::setting_text("EMU_CUDNN_FAULT");
    return fault && strcmp(fault, name) == 0;
}

int refuse(int status, const std::string &why) {
    last_error = why;
    return status;
}

static descriptor *known(cudnn_descriptor handle) {
    auto *d = static_cast<descriptor *>(handle);
    return all.count(d) ? d : nullptr;
}

std::vector<int64_t> numbers_of(const descriptor *d, int name) {
    auto found = d->attributes.find(name);
    std::vector<int64_t> numbers;
    if (found == d->attributes.end())
        return numbers;
    for (int64_t i = 0; i < found->second.count; i++) {
        int64_t wide = 0;
        int narrow;
        if (found->second.type == CUDNN_TYPE_INT64)
            memcpy(&wide, &found->second.bytes[(size_t)i * sizeof wide], sizeof wide);
        else if (found->second.type == CUDNN_TYPE_BOOLEAN)
            wide = found->second.bytes[(size_t)i];
        else {
            memcpy(&narrow, &found->second.bytes[(size_t)i * sizeof narrow], sizeof narrow);
            wide = narrow;
        }
        numbers.push_back(wide);
    }
    return numbers;
}

int64_t number_of(const descriptor *d, int name) {
    auto numbers = numbers_of(d, name);
    return numbers.empty() ? 0 : numbers[0];
}

static std::vector<descriptor *> descriptors_of(const descriptor *d, int name) {
    auto found = d->attributes.find(name);
    std::vector<descriptor *> list;
    if (found != d->attributes.end() && found->second.type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        list.resize((size_t)found->second.count);
        memcpy(list.data(), found->second.bytes.data(), found->second.bytes.size());
    }
    return list;
}

const descriptor *descriptor_of(const descriptor *d, int name) {
    auto list = descriptors_of(d, name);
    return list.empty() ? nullptr : list[0];
}

static size_t size_of(int type) {
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR: return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    default: return 4;
    }
}

static void put(descriptor *d, int name, int type, int64_t count, const void *elements) {
    const char *bytes = static_cast<const char *>(elements);
    d->attributes[name] = {type, count, std::vector<char>(bytes, bytes + (size_t)count * size_of(type))};
}

static void put_number(descriptor *d, int name, int64_t number) { put(d, name, CUDNN_TYPE_INT64, 1, &number); }

/* ---- Finalizing. */

static int finish_tensor(const descriptor *d) {
    auto sizes = numbers_of(d, CUDNN_ATTR_TENSOR_DIMENSIONS), strides = numbers_of(d, CUDNN_ATTR_TENSOR_STRIDES);
    if (number_of(d, CUDNN_ATTR_TENSOR_UNIQUE_ID) == 0 || sizes.size() != 4 || strides.size() != 4)
        return refuse(bad_param, "a tensor needs an id, four sizes and four strides");
    for (int i = 0; i < 4; i++)
        if (sizes[(size_t)i] < 1 || strides[(size_t)i] < 1)
            return refuse(bad_param, "sizes and strides are positive");
    bool offsets = descriptor_of(d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC);
    if (offsets != (number_of(d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_MULTIPLIER) > 0))
        return refuse(bad_param, "offsets go with their unit");
    return CUDNN_STATUS_SUCCESS;
}

static const descriptor *operation_of(const descriptor *graph) {
    auto list = descriptors_of(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
    return list.size() == 1 ? list[0] : nullptr;
}

/* A configuration is the ranking's, which knows its graph, or made of an engine, which does. */
static const descriptor *operation_of_config(const descriptor *config) {
    const descriptor *engine = descriptor_of(config, CUDNN_ATTR_ENGINECFG_ENGINE);
    return operation_of(descriptor_of(engine ? engine : config, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH));
}

static int finish_ranking(descriptor *d) {
    const descriptor *graph = descriptor_of(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    if (!graph || number_of(d, CUDNN_ATTR_ENGINEHEUR_MODE) != CUDNN_HEUR_MODE_A)
        return refuse(bad_param, "a ranking needs a graph and mode A");
    return CUDNN_STATUS_SUCCESS;
}

static int finish_plan(descriptor *d) {
    const descriptor *config = descriptor_of(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    if (!config || !d->attributes.count(CUDNN_ATTR_EXECUTION_PLAN_HANDLE))
        return refuse(bad_param, "a plan needs a configuration and a handle");
    attention a;
    int status = read_attention(operation_of_config(config), &a);
    for (const descriptor *knob : descriptors_of(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES))
        if (number_of(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE) == CUDNN_KNOB_TYPE_STAGES) {
            if (has_fault("unordered"))
                return refuse(not_supported, "deterministic ordered dQ is not supported here");
            put_number(d, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, number_of(knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE));
        }
    put_number(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, a.work_bytes);
    return status;
}

static int finish(descriptor *d) {
    for (const auto &a : d->attributes)
        for (const descriptor *part : descriptors_of(d, a.first))
            if (!part->finished)
                return refuse(bad_param, "attribute " + std::to_string(a.first) + " is not finalized");
    switch (d->kind) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR: return finish_tensor(d);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return operation_of(d) ? CUDNN_STATUS_SUCCESS : refuse(not_supported, "one operation a graph");
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR: {
        attention a;
        return read_attention(d, &a);
    }
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: return finish_ranking(d);
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: return finish_plan(d);
    default: return CUDNN_STATUS_SUCCESS;
    }
}

/* One configuration of one engine, in a descriptor of the caller. */
static int get_ranking(const descriptor *ranking, descriptor **configs, int64_t *count) {
    const descriptor *graph = descriptor_of(ranking, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    *count = 0;
    if (operation_of(graph)->kind == CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR && has_fault("no_backward"))
        return CUDNN_STATUS_SUCCESS;
    put(configs[0], CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
    configs[0]->finished = true;
    *count = 1;
    return CUDNN_STATUS_SUCCESS;
}

static int get_engine(const descriptor *config, descriptor *engine, int64_t *count) {
    const descriptor *graph = descriptor_of(config, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    if (!graph)
        return refuse(bad_param, "not a configuration of a ranking");
    put(engine, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
    put_number(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, ENGINE_NUMBER);
    engine->finished = true;
    *count = 1;
    return CUDNN_STATUS_SUCCESS;
}

} // namespace dnn

EXPORTED size_t cudnnGetVersion(void) { return (size_t)rt::setting("EMU_CUDNN", 92800); }

EXPORTED const char *cudnnGetErrorString(int status) {
    return status == CUDNN_STATUS_SUCCESS ? "CUDNN_STATUS_SUCCESS"
           : status == dnn::bad_param     ? "CUDNN_STATUS_BAD_PARAM"
           : status == dnn::not_supported ? "CUDNN_STATUS_NOT_SUPPORTED"
           : status == dnn::failed        ? "CUDNN_STATUS_EXECUTION_FAILED"
                                          : "CUDNN_STATUS_NOT_INITIALIZED";
}

EXPORTED void cudnnGetLastErrorString(char *message, size_t room) {
    size_t n = dnn::last_error.size() < room - 1 ? dnn::last_error.size() : room - 1;
    memcpy(message, dnn::last_error.data(), n);
    message[n] = '\0';
    dnn::last_error.clear();
}

EXPORTED int cudnnCreate(cudnn_handle *handle) {
    *handle = new dnn::context();
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnDestroy(cudnn_handle handle) {
    delete static_cast<dnn::context *>(handle);
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnSetStream(cudnn_handle handle, void *stream) {
    static_cast<dnn::context *>(handle)->stream = static_cast<cudaStream_t>(stream);
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendCreateDescriptor(int kind, cudnn_descriptor *descriptor) {
    auto *made = new dnn::descriptor{kind, false, {}};
    dnn::all.insert(made);
    *descriptor = made;
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendDestroyDescriptor(cudnn_descriptor descriptor) {
    dnn::descriptor *d = dnn::known(descriptor);
    if (!d)
        return dnn::refuse(dnn::bad_param, "no descriptor");
    dnn::all.erase(d);
    delete d;
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendSetAttribute(cudnn_descriptor descriptor, int attribute, int type, int64_t count, const void *elements) {
    dnn::descriptor *d = dnn::known(descriptor);
    if (!d || d->finished || count < 1 || !elements)
        return dnn::refuse(dnn::bad_param, "attribute " + std::to_string(attribute) + " cannot be set");
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (int64_t i = 0; i < count; i++)
            if (!dnn::known(static_cast<const cudnn_descriptor *>(elements)[i]))
                return dnn::refuse(dnn::bad_param, "attribute " + std::to_string(attribute) + " is no descriptor");
    dnn::put(d, attribute, type, count, elements);
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendGetAttribute(cudnn_descriptor descriptor, int attribute, int type, int64_t room, int64_t *count, void *elements) {
    dnn::descriptor *d = dnn::known(descriptor);
    if (!d || !d->finished || room < 1)
        return dnn::refuse(dnn::bad_param, "attribute " + std::to_string(attribute) + " cannot be read");
    if (attribute == CUDNN_ATTR_ENGINEHEUR_RESULTS)
        return dnn::get_ranking(d, static_cast<dnn::descriptor **>(elements), count);
    if (attribute == CUDNN_ATTR_ENGINECFG_ENGINE)
        return dnn::get_engine(d, *static_cast<dnn::descriptor **>(elements), count);
    auto found = d->attributes.find(attribute);
    *count = 0;
    if (found == d->attributes.end())
        return CUDNN_STATUS_SUCCESS;
    if (found->second.type != type || found->second.count > room)
        return dnn::refuse(dnn::bad_param, "attribute " + std::to_string(attribute) + " is of another type or longer");
    *count = found->second.count;
    memcpy(elements, found->second.bytes.data(), found->second.bytes.size());
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendFinalize(cudnn_descriptor descriptor) {
    dnn::descriptor *d = dnn::known(descriptor);
    if (!d || d->finished)
        return dnn::refuse(dnn::bad_param, "no descriptor, or finalized before");
    int status = dnn::finish(d);
    d->finished = status == CUDNN_STATUS_SUCCESS;
    return status;
}

EXPORTED int cudnnBackendExecute(cudnn_handle handle, cudnn_descriptor plan, cudnn_descriptor variant_pack) {
    dnn::descriptor *p = dnn::known(plan), *pack = dnn::known(variant_pack);
    if (!p || !pack || !p->finished || !pack->finished)
        return dnn::refuse(dnn::bad_param, "a plan and its operands must be finalized");
    if (dnn::has_fault("execute"))
        return dnn::refuse(dnn::failed, "the plan does not run");
    dnn::attention a;
    dnn::read_attention(dnn::operation_of_config(dnn::descriptor_of(p, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)), &a);
    a.ordered = dnn::number_of(p, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE) == dnn::ORDERED;
    auto ids = dnn::numbers_of(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const auto &pointers = pack->attributes[CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS];
    if ((int64_t)ids.size() != pointers.count || !pack->attributes.count(CUDNN_ATTR_VARIANT_PACK_WORKSPACE))
        return dnn::refuse(dnn::bad_param, "ids, pointers and work do not go together");
    std::map<int64_t, void *> places;
    void *work;
    for (size_t i = 0; i < ids.size(); i++)
        memcpy(&places[ids[i]], &pointers.bytes[i * sizeof(void *)], sizeof(void *));
    memcpy(&work, pack->attributes[CUDNN_ATTR_VARIANT_PACK_WORKSPACE].bytes.data(), sizeof work);
    return dnn::execute(a, places, work, static_cast<dnn::context *>(handle)->stream);
}
