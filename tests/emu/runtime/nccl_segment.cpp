#include "tests/emu/runtime/nccl_segment.h"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace nc {

static size_t board_bytes() { return (sizeof(board) + 4095) / 4096 * 4096; }

std::unique_ptr<segment> segment::open(const std::string &name, int ranks) {
    size_t bytes = board_bytes() + (size_t)ranks * (size_t)ranks * sizeof(ring);
    int file = shm_open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0)
        return nullptr;
    void *memory = MAP_FAILED; /* new bytes are zero, whoever is first */
    if (ftruncate(file, (off_t)bytes) == 0)
        memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED)
        return nullptr;
    return std::unique_ptr<segment>(new segment(name, ranks, memory, bytes));
}

segment::~segment() { munmap(memory, bytes); }

void segment::forget_name() { shm_unlink(name.c_str()); }

ring &segment::between(int from, int to) {
    auto *rings = reinterpret_cast<ring *>(static_cast<char *>(memory) + board_bytes());
    return rings[from * ranks + to];
}

bool segment::everyone_joined() {
    return std::all_of(all().joined, all().joined + ranks, [](const auto &flag) { return flag != 0; });
}

bool segment::everyone_finalized() {
    return std::all_of(all().finalized, all().finalized + ranks, [](const auto &flag) { return flag != 0; });
}

static size_t put(ring &r, const char *data, size_t bytes) {
    uint64_t written = r.written.load(std::memory_order_relaxed), read = r.read.load(std::memory_order_acquire);
    size_t n = std::min(bytes, ring_bytes - (size_t)(written - read)), place = written % ring_bytes;
    size_t first = std::min(n, ring_bytes - place);
    if (n > 0) {
        memcpy(r.data + place, data, first);
        memcpy(r.data, data + first, n - first);
    }
    r.written.store(written + n, std::memory_order_release);
    return n;
}

static size_t take(ring &r, char *data, size_t bytes) {
    uint64_t read = r.read.load(std::memory_order_relaxed), written = r.written.load(std::memory_order_acquire);
    size_t n = std::min(bytes, (size_t)(written - read)), place = read % ring_bytes;
    size_t first = std::min(n, ring_bytes - place);
    if (n > 0) {
        memcpy(data, r.data + place, first);
        memcpy(data + first, r.data, n - first);
    }
    r.read.store(read + n, std::memory_order_release);
    return n;
}

static outcome send(ring &r, transfer &t) {
    if (!t.announced) {
        announcement ours = {t.what, 0, t.bytes};
        if (ring_bytes - (r.written - r.read) < sizeof ours)
            return outcome::nothing;
        put(r, reinterpret_cast<const char *>(&ours), sizeof ours);
        t.announced = true;
    }
    size_t moved = put(r, t.data + t.done, t.bytes - t.done);
    t.done += moved;
    return moved > 0 || t.finished() ? outcome::moved : outcome::nothing;
}

static outcome receive(ring &r, transfer &t, announcement *theirs) {
    if (!t.announced) {
        if (r.written - r.read < sizeof *theirs)
            return outcome::nothing;
        take(r, reinterpret_cast<char *>(theirs), sizeof *theirs);
        if (theirs->what != t.what || theirs->bytes != t.bytes)
            return outcome::mismatch;
        t.announced = true;
    }
    size_t moved = take(r, t.data + t.done, t.bytes - t.done);
    t.done += moved;
    return moved > 0 || t.finished() ? outcome::moved : outcome::nothing;
}

outcome move(segment &shared, int rank, transfer &t, announcement *theirs) {
    return t.sends ? send(shared.between(rank, t.peer), t) : receive(shared.between(t.peer, rank), t, theirs);
}

} // namespace nc
