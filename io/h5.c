#include "io/h5.h"

#include <hdf5.h>
#include <pthread.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The library's exit handler flushes files whose close failed, and crashes doing it. */
static void start(void) {
    static int started;
    if (!started)
        H5dont_atexit();
    started = 1;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* belongs to the thread */
}

void espl_h5_lock(void) {
    pthread_mutex_lock(&lock);
    start();
}

void espl_h5_unlock(void) { pthread_mutex_unlock(&lock); }

/* HDF5's own account of the last failure; taken at once, for the next call into the library wipes it. */
static _Thread_local char reason[256];

/* Of a call into the system HDF5 tells time, path, descriptor and more before the error itself: that alone is kept. */
static herr_t take_first(unsigned n, const H5E_error2_t *error, void *context) {
    static const char mark[] = "error message = '";
    const char *text = strstr(error->desc, mark);
    text = text != NULL ? text + strlen(mark) : error->desc;
    int length = (int)(text != error->desc ? strcspn(text, "'") : strlen(text));
    (void)n, (void)context;
    snprintf(reason, sizeof reason, "%.*s (%s)", length, text, error->func_name);
    return 1;
}

static int64_t noted(int64_t result) {
    if (result < 0) {
        snprintf(reason, sizeof reason, "no reason given");
        H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, NULL);
    }
    return result;
}

#define H5_FAIL(what, name) ESPL_FAIL(ESPL_ERR_IO, "%s: HDF5 cannot %s: %s", (name), (what), reason)

/* Locks of its own make HDF5 fail on file systems that have none. The image of a file in memory has the flag "open to write" taken out
 * of its superblock, which leaves the checksum of newer superblocks wrong: the oldest kind has none. */
static hid_t file_access(bool memory) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, memory ? H5F_LIBVER_EARLIEST : H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    H5Pset_alignment(access, 1 << 16, 1 << 12);
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(access, false, true);
#endif
    if (memory)
        H5Pset_fapl_core(access, 1 << 16, false);
    return access;
}

const char *espl_h5_version(void) {
    static char text[48];
    unsigned major, minor, release;
    espl_h5_lock();
    H5get_libversion(&major, &minor, &release);
    espl_h5_unlock();
    snprintf(text, sizeof text, "%u.%u.%u", major, minor, release);
    return text;
}

espl_status espl_h5_create(const char *path, espl_h5_id *file) {
    hid_t access = file_access(path == NULL);
    *file = noted(H5Fcreate(path != NULL ? path : "memory", H5F_ACC_TRUNC, H5P_DEFAULT, access));
    H5Pclose(access);
    if (*file < 0)
        H5_FAIL("create the file", path != NULL ? path : "memory");
    return ESPL_OK;
}

espl_status espl_h5_open(const char *path, espl_h5_id *file) {
    hid_t access = file_access(false);
    *file = noted(H5Fopen(path, H5F_ACC_RDONLY, access));
    H5Pclose(access);
    if (*file < 0)
        H5_FAIL("open the file", path);
    return ESPL_OK;
}

espl_status espl_h5_image(espl_h5_id file, espl_buffer *image) {
    int64_t bytes = noted(H5Fflush(file, H5F_SCOPE_GLOBAL)) < 0 ? -1 : noted(H5Fget_file_image(file, NULL, 0));
    if (bytes >= 0)
        espl_buffer_reserve(image, (size_t)bytes);
    if (bytes < 0 || noted(H5Fget_file_image(file, image->data + image->size, (size_t)bytes)) != bytes)
        H5_FAIL("take the image of a file", "memory");
    image->size += (size_t)bytes;
    image->data[image->size] = '\0';
    return ESPL_OK;
}

espl_status espl_h5_close(espl_h5_id *file, const char *path) {
    hid_t closing = *file;
    *file = -1;
    if (closing >= 0 && noted(H5Fclose(closing)) < 0)
        H5_FAIL("close the file", path);
    return ESPL_OK;
}

void espl_h5_discard(espl_h5_id *file) {
    if (*file >= 0)
        H5Fclose(*file);
    *file = -1;
}

/* IEEE half: sign 15, exponent 5 bits at 10 with bias 15, mantissa 10 bits. */
static hid_t half_type(void) {
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    return type;
}

static hid_t make_type(int type) {
    switch (type) {
    case ESPL_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case ESPL_F64: return H5Tcopy(H5T_IEEE_F64LE);
    case ESPL_F16: return half_type();
    case ESPL_BF16: return H5Tcopy(H5T_STD_U16LE);
    case ESPL_I32: return H5Tcopy(H5T_STD_I32LE);
    case ESPL_I64: return H5Tcopy(H5T_STD_I64LE);
    case ESPL_U8: return H5Tcopy(H5T_STD_U8LE);
    default: return H5Tcopy(H5T_STD_U64LE);
    }
}

/* What a virtual dataset shows where there is nothing, in the bits of its own type. */
static const void *hole(int type) {
    static const union {
        uint8_t bytes[8];
        uint16_t half;
        uint32_t single;
        uint64_t word;
    } nan32 = {.single = 0x7FC00000u}, nan64 = {.word = 0x7FF8000000000000u}, nan16 = {.half = 0x7E00u}, nanb16 = {.half = 0x7FC0u},
      low32 = {.single = 0x80000000u}, low64 = {.word = 0x8000000000000000u}, zero = {.word = 0};
    switch (type) {
    case ESPL_F32: return &nan32;
    case ESPL_F64: return &nan64;
    case ESPL_F16: return &nan16;
    case ESPL_BF16: return &nanb16;
    case ESPL_I32: return &low32;
    case ESPL_I64: return &low64;
    default: return &zero;
    }
}

static hid_t make_space(int n_dims, const int64_t *shape) {
    hsize_t dims[ESPL_MAX_DIMS] = {1};
    for (int d = 0; d < n_dims; d++)
        dims[d] = (hsize_t)shape[d];
    return H5Screate_simple(n_dims > 0 ? n_dims : 1, dims, NULL);
}

static hid_t dataset_properties(void) {
    hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(properties, false); /* the same state gives the same bytes */
    return properties;
}

/* Takes over `properties`. */
static espl_status create_dataset(espl_h5_id file, const char *name, int type, int n_dims, const int64_t *shape, hid_t properties,
                                  espl_h5_id *dataset) {
    hid_t links = H5Pcreate(H5P_LINK_CREATE), held = make_type(type), space = make_space(n_dims, shape);
    H5Pset_create_intermediate_group(links, 1);
    *dataset = noted(H5Dcreate2(file, name, held, space, links, properties, H5P_DEFAULT));
    H5Sclose(space);
    H5Tclose(held);
    H5Pclose(links);
    H5Pclose(properties);
    if (*dataset < 0)
        H5_FAIL("create the dataset", name);
    return ESPL_OK;
}

espl_status espl_h5_dataset(espl_h5_id file, const char *name, int type, int n_dims, const int64_t *shape, espl_h5_id *dataset) {
    hid_t properties = dataset_properties();
    H5Pset_layout(properties, H5D_CONTIGUOUS);
    H5Pset_alloc_time(properties, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(properties, H5D_FILL_TIME_NEVER);
    return create_dataset(file, name, type, n_dims, shape, properties, dataset);
}

static int64_t map_box(hid_t properties, hid_t target, int n_dims, const espl_h5_box *box) {
    hsize_t at[ESPL_MAX_DIMS] = {0}, size[ESPL_MAX_DIMS] = {1}, all = (hsize_t)box->n_source, begin = (hsize_t)box->begin, n = 1;
    for (int d = 0; d < n_dims; d++) {
        at[d] = (hsize_t)box->at[d];
        size[d] = (hsize_t)box->size[d];
        n *= size[d];
    }
    hid_t source = H5Screate_simple(1, &all, NULL);
    int64_t failed = noted(H5Sselect_hyperslab(source, H5S_SELECT_SET, &begin, NULL, &n, NULL));
    failed |= noted(H5Sselect_hyperslab(target, H5S_SELECT_SET, at, NULL, size, NULL));
    failed |= noted(H5Pset_virtual(properties, target, box->file, box->dataset, source));
    H5Sclose(source);
    return failed;
}

espl_status espl_h5_virtual(espl_h5_id file, const char *name, int type, int n_dims, const int64_t *shape, const espl_h5_box *boxes,
                            int64_t n_boxes, espl_h5_id *dataset) {
    hid_t properties = dataset_properties(), target = make_space(n_dims, shape), held = make_type(type);
    int64_t failed = noted(H5Pset_fill_value(properties, held, hole(type)));
    for (int64_t i = 0; i < n_boxes && failed >= 0; i++)
        failed = map_box(properties, target, n_dims, &boxes[i]);
    H5Sclose(target);
    H5Tclose(held);
    if (failed < 0) {
        H5Pclose(properties);
        H5_FAIL("map the virtual dataset", name);
    }
    return create_dataset(file, name, type, n_dims, shape, properties, dataset);
}

espl_status espl_h5_offset(espl_h5_id dataset, int64_t *offset) {
    haddr_t found = H5Dget_offset(dataset);
    if (noted(found == HADDR_UNDEF ? -1 : 0) < 0)
        H5_FAIL("tell where its data lie", "dataset");
    *offset = (int64_t)found;
    return ESPL_OK;
}

espl_status espl_h5_dataset_close(espl_h5_id *dataset) {
    hid_t closing = *dataset;
    *dataset = -1;
    if (closing >= 0 && noted(H5Dclose(closing)) < 0)
        H5_FAIL("close the dataset", "dataset");
    return ESPL_OK;
}

/* Takes over type and space. */
static espl_status set_attribute(espl_h5_id object, const char *name, hid_t type, hid_t space, const void *value) {
    hid_t attribute = noted(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
    int64_t failed = attribute < 0 ? -1 : noted(H5Awrite(attribute, type, value));
    if (attribute >= 0)
        failed |= noted(H5Aclose(attribute));
    H5Sclose(space);
    H5Tclose(type);
    if (failed < 0)
        H5_FAIL("write the attribute", name);
    return ESPL_OK;
}

espl_status espl_h5_set_number(espl_h5_id object, const char *name, int64_t value) {
    return set_attribute(object, name, H5Tcopy(H5T_STD_I64LE), H5Screate(H5S_SCALAR), &value);
}

espl_status espl_h5_set_numbers(espl_h5_id object, const char *name, const int64_t *values, int64_t n) {
    hsize_t count = (hsize_t)n;
    return set_attribute(object, name, H5Tcopy(H5T_STD_I64LE), H5Screate_simple(1, &count, NULL), values);
}

espl_status espl_h5_set_text(espl_h5_id object, const char *name, const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return set_attribute(object, name, type, H5Screate(H5S_SCALAR), text);
}

espl_status espl_h5_read(espl_h5_id file, const char *name, int type, int64_t n, void *to) {
    hid_t dataset = noted(H5Dopen2(file, name, H5P_DEFAULT));
    if (dataset < 0)
        H5_FAIL("open the dataset", name);
    hid_t space = H5Dget_space(dataset), held = make_type(type);
    int64_t found = (int64_t)H5Sget_simple_extent_npoints(space);
    int64_t failed = found == n ? noted(H5Dread(dataset, held, H5S_ALL, H5S_ALL, H5P_DEFAULT, to)) : 0;
    H5Tclose(held);
    H5Sclose(space);
    H5Dclose(dataset);
    if (found != n)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %lld elements, expected %lld", name, (long long)found, (long long)n);
    if (failed < 0)
        H5_FAIL("read the dataset", name);
    return ESPL_OK;
}
