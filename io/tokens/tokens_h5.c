#include "io/tokens/tokens_h5.h"

#include "io/fsio.h"
#include "io/h5.h"

#include <hdf5.h>
#include <string.h>

enum { OBJECT_ALIGNMENT = 64 }; /* so that a mapped dataset is aligned for its type and for vector loads */

const espl_store_row espl_store_rows[ESPL_STORE_SETS] = {
    [ESPL_STORE_IDS] = {"ids", ESPL_PER_TOKEN, true, false, 2, 4},
    [ESPL_STORE_DOCUMENTS] = {"documents", ESPL_PER_DOCUMENT, true, true, 8, 8},
    [ESPL_STORE_MASK] = {"mask", ESPL_PER_TOKEN, false, false, 1, 1},
    [ESPL_STORE_BYTES] = {"bytes", ESPL_PER_STORE, true, true, 8, 8},
    [ESPL_STORE_TYPES] = {"types", ESPL_PER_TOKEN, false, false, 1, 1},
    [ESPL_STORE_WORDS] = {"words", ESPL_PER_TOKEN, false, false, 1, 1},
    [ESPL_STORE_LABELS] = {"labels", ESPL_PER_DOCUMENT, false, true, 4, 4},
    [ESPL_STORE_SPLIT] = {"split", ESPL_PER_DOCUMENT, false, true, 4, 4},
    [ESPL_STORE_HASHES] = {"hashes", ESPL_PER_DOCUMENT, false, false, 8, 8},
    [ESPL_STORE_NAMES] = {"names", ESPL_PER_STORE, false, false, 1, 1},
    [ESPL_STORE_CUT] = {"cut", ESPL_PER_STORE, false, true, 8, 8},
};

static hid_t file_type(int set, int64_t width) {
    switch (width) {
    case 1: return H5T_STD_U8LE;
    case 2: return H5T_STD_U16LE;
    case 4: return espl_store_rows[set].is_signed ? H5T_STD_I32LE : H5T_STD_U32LE;
    default: return espl_store_rows[set].is_signed ? H5T_STD_I64LE : H5T_STD_U64LE;
    }
}

/* Locks fail on many cluster file systems; a store is written under a name that nobody else uses. */
static hid_t file_access(void) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_file_locking(access, false, true);
    H5Pset_alignment(access, 1, OBJECT_ALIGNMENT);
    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST); /* since 1.8 the library checks sums over its own structures */
    return access;
}

static hid_t open_file(const char *path, unsigned flags) {
    hid_t access = file_access();
    hid_t file = H5Fopen(path, flags, access);
    H5Pclose(access);
    return file;
}

/* ---- Making. */

static hid_t early_contiguous(void) {
    hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_layout(plan, H5D_CONTIGUOUS);
    H5Pset_alloc_time(plan, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(plan, H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(plan, false); /* the same input gives the same bytes */
    return plan;
}

static espl_status make_set(hid_t file, hid_t plan, const char *path, int which, espl_store_set *set) {
    hsize_t n = (hsize_t)set->n;
    hid_t space = H5Screate_simple(1, &n, NULL);
    hid_t data = H5Dcreate2(file, espl_store_rows[which].name, file_type(which, set->width), space, H5P_DEFAULT, plan, H5P_DEFAULT);
    haddr_t offset = data >= 0 ? H5Dget_offset(data) : HADDR_UNDEF;
    if (data >= 0)
        H5Dclose(data);
    H5Sclose(space);
    if (offset == HADDR_UNDEF)
        ESPL_FAIL(ESPL_ERR_IO, "%s: dataset %s of %lld elements cannot be made", path, espl_store_rows[which].name, (long long)set->n);
    set->offset = (int64_t)offset;
    return ESPL_OK;
}

static espl_status create(const char *path, espl_store_layout *layout) {
    espl_status status = ESPL_OK;
    hid_t access = file_access(), plan = early_contiguous(), file_plan = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(file_plan, false);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, file_plan, access);
    if (file < 0)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: cannot be made", path);
    for (int i = 0; i < ESPL_STORE_SETS; i++)
        if (layout->sets[i].n > 0)
            ESPL_TRY_DONE(make_set(file, plan, path, i, &layout->sets[i]));
done:
    if (file >= 0 && H5Fclose(file) < 0 && status == ESPL_OK)
        status = espl_status_fail(ESPL_ERR_IO, __FILE__, __LINE__, "%s: closing failed", path);
    H5Pclose(file_plan);
    H5Pclose(plan);
    H5Pclose(access);
    return status;
}

espl_status espl__store_create(const char *path, espl_store_layout *layout) {
    espl_h5_lock();
    espl_status status = create(path, layout);
    espl_h5_unlock();
    return status;
}

static bool write_attribute(hid_t object, const char *name, const void *value, bool is_signed) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, is_signed ? H5T_STD_I64LE : H5T_STD_U64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, is_signed ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64, value) >= 0;
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Sclose(space);
    return good;
}

static bool seal_sets(hid_t file, const espl_store_layout *layout) {
    bool good = true;
    for (int i = 0; i < ESPL_STORE_SETS && good; i++) {
        if (layout->sets[i].n == 0)
            continue;
        hid_t data = H5Dopen2(file, espl_store_rows[i].name, H5P_DEFAULT);
        good = data >= 0 && write_attribute(data, "checksum", &layout->sets[i].checksum, false);
        if (data >= 0)
            H5Dclose(data);
    }
    return good;
}

static espl_status seal(const char *path, const espl_store_layout *layout) {
    int64_t format = ESPL_STORE_FORMAT;
    hid_t file = open_file(path, H5F_ACC_RDWR);
    if (file < 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be opened again to be finished", path);
    bool good = seal_sets(file, layout) && write_attribute(file, "key", &layout->key, false) &&
                write_attribute(file, "vocabulary", &layout->vocabulary, true) && write_attribute(file, "format", &format, true);
    good = H5Fclose(file) >= 0 && good;
    if (!good)
        ESPL_FAIL(ESPL_ERR_IO, "%s: its attributes cannot be written", path);
    return ESPL_OK;
}

espl_status espl__store_seal(const char *path, const espl_store_layout *layout) {
    espl_h5_lock();
    espl_status status = seal(path, layout);
    espl_h5_unlock();
    return status;
}

/* ---- Reading. */

static espl_status read_attribute(hid_t object, const char *path, const char *of, const char *name, void *value, bool is_signed) {
    bool good = false;
    if (H5Aexists(object, name) <= 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: not a finished token store: attribute %s of %s is missing", path, name, of);
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute >= 0) {
        hid_t space = H5Aget_space(attribute), type = H5Aget_type(attribute);
        good = H5Sget_simple_extent_npoints(space) == 1 && H5Tget_class(type) == H5T_INTEGER &&
               H5Aread(attribute, is_signed ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64, value) >= 0;
        H5Tclose(type);
        H5Sclose(space);
        H5Aclose(attribute);
    }
    if (!good)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: attribute %s of %s cannot be read, expected one 64-bit integer", path, name, of);
    return ESPL_OK;
}

static bool type_fits(hid_t data, int which, int64_t *width) {
    hid_t type = H5Dget_type(data);
    *width = (int64_t)H5Tget_size(type);
    bool good = H5Tget_class(type) == H5T_INTEGER && H5Tequal(type, file_type(which, *width)) > 0 &&
                *width >= espl_store_rows[which].min_width && *width <= espl_store_rows[which].max_width;
    H5Tclose(type);
    return good;
}

static bool is_contiguous(hid_t data) {
    hid_t plan = H5Dget_create_plist(data);
    bool good = H5Pget_layout(plan) == H5D_CONTIGUOUS && H5Pget_external_count(plan) == 0;
    H5Pclose(plan);
    return good;
}

static espl_status inspect_open_set(hid_t data, const char *path, int64_t file_bytes, int which, espl_store_set *set) {
    const char *name = espl_store_rows[which].name;
    hid_t space = H5Dget_space(data);
    int n_dims = H5Sget_simple_extent_ndims(space);
    set->n = (int64_t)H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    if (n_dims != 1 || set->n < 1)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: dataset %s has %d dimensions and %lld elements, expected one dimension that is not empty", path, name,
                  n_dims, (long long)set->n);
    if (!type_fits(data, which, &set->width))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: dataset %s is of another type than a token store's", path, name);
    haddr_t offset = is_contiguous(data) ? H5Dget_offset(data) : HADDR_UNDEF;
    if (offset == HADDR_UNDEF || offset % (haddr_t)set->width != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: dataset %s cannot be mapped, expected it contiguous and aligned", path, name);
    set->offset = (int64_t)offset;
    if (set->offset > file_bytes || set->n > (file_bytes - set->offset) / set->width)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: truncated: dataset %s goes beyond the file's %lld bytes", path, name, (long long)file_bytes);
    return read_attribute(data, path, name, "checksum", &set->checksum, false);
}

static espl_status inspect_set(hid_t file, const char *path, int64_t file_bytes, int which, espl_store_set *set) {
    *set = (espl_store_set){.width = espl_store_rows[which].min_width};
    bool there = H5Lexists(file, espl_store_rows[which].name, H5P_DEFAULT) > 0;
    if (!there && !espl_store_rows[which].needed)
        return ESPL_OK;
    hid_t data = there ? H5Dopen2(file, espl_store_rows[which].name, H5P_DEFAULT) : -1;
    if (data < 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: dataset %s is missing", path, espl_store_rows[which].name);
    espl_status status = inspect_open_set(data, path, file_bytes, which, set);
    H5Dclose(data);
    return status;
}

static espl_status check_sizes(const espl_store_layout *layout, const char *path) {
    const espl_store_set *sets = layout->sets;
    int64_t n_tokens = sets[ESPL_STORE_IDS].n, n_documents = sets[ESPL_STORE_DOCUMENTS].n - 1;
    if (n_documents < 1)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: documents has %lld offsets, expected two or more", path, (long long)n_documents + 1);
    for (int i = ESPL_STORE_MASK; i < ESPL_STORE_SETS; i++) {
        const espl_store_row *row = &espl_store_rows[i];
        if (sets[i].n == 0 || row->per == ESPL_PER_STORE)
            continue;
        int64_t expected = row->per == ESPL_PER_TOKEN ? n_tokens : n_documents;
        if (sets[i].n != expected)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: %s has %lld elements, expected one for each of %lld %s", path, row->name, (long long)sets[i].n,
                      (long long)expected, row->per == ESPL_PER_TOKEN ? "ids" : "documents");
    }
    if (sets[ESPL_STORE_CUT].n != 0 && sets[ESPL_STORE_CUT].n != 2 && sets[ESPL_STORE_CUT].n != 3)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: cut has %lld elements, expected 2 or 3", path, (long long)sets[ESPL_STORE_CUT].n);
    if ((sets[ESPL_STORE_LABELS].n == 0) != (sets[ESPL_STORE_NAMES].n == 0))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: has one of labels and names, expected both or none", path);
    return ESPL_OK;
}

static espl_status inspect(const char *path, espl_store_layout *layout) {
    espl_status status = ESPL_OK;
    int64_t format = 0, bytes = 0;
    *layout = (espl_store_layout){0};
    ESPL_TRY(espl_fs_path_size(path, &bytes));
    hid_t file = open_file(path, H5F_ACC_RDONLY);
    if (file < 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: truncated, damaged or not an HDF5 file, expected a token store", path);
    ESPL_TRY_DONE(read_attribute(file, path, "the file", "format", &format, true));
    if (format < ESPL_STORE_OLDEST || format > ESPL_STORE_FORMAT)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: token store of format %lld, expected %d to %d", path, (long long)format, ESPL_STORE_OLDEST,
                       ESPL_STORE_FORMAT);
    ESPL_TRY_DONE(read_attribute(file, path, "the file", "key", &layout->key, false));
    ESPL_TRY_DONE(read_attribute(file, path, "the file", "vocabulary", &layout->vocabulary, true));
    for (int i = 0; i < ESPL_STORE_SETS; i++)
        ESPL_TRY_DONE(inspect_set(file, path, bytes, i, &layout->sets[i]));
    ESPL_TRY_DONE(check_sizes(layout, path));
done:
    H5Fclose(file);
    return status;
}

espl_status espl__store_inspect(const char *path, espl_store_layout *layout) {
    espl_h5_lock();
    espl_status status = inspect(path, layout);
    espl_h5_unlock();
    return status;
}
