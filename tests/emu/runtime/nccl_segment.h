/* Where the emulated ranks of NCCL meet: a segment of shared memory with one ring of bytes for each ordered pair of ranks. */
#ifndef ESPL_TESTS_EMU_RUNTIME_NCCL_SEGMENT_H
#define ESPL_TESTS_EMU_RUNTIME_NCCL_SEGMENT_H

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace nc {

constexpr int max_ranks = 64;
constexpr size_t ring_bytes = 1 << 16;

/* One rank writes, one reads; the counters only grow. */
struct ring {
    alignas(64) std::atomic<uint64_t> written;
    alignas(64) std::atomic<uint64_t> read;
    char data[ring_bytes];
};

struct board {
    std::atomic<uint32_t> joined[max_ranks], finalized[max_ranks];
    std::atomic<uint32_t> wanted[max_ranks][max_ranks]; /* [p][q]: an operation of p does not go on without q */
};

class segment {
  public:
    /* Opens or makes it; NULL with errno when the system does not let us. */
    static std::unique_ptr<segment> open(const std::string &name, int ranks);
    ~segment();
    segment(const segment &) = delete;
    segment &operator=(const segment &) = delete;

    board &all() { return *static_cast<board *>(memory); }
    ring &between(int from, int to);
    bool everyone_joined();
    bool everyone_finalized();
    void forget_name(); /* nobody else can join; nothing is left behind by processes that are killed */

  private:
    segment(std::string its_name, int of_ranks, void *at, size_t size)
        : name(std::move(its_name)), ranks(of_ranks), memory(at), bytes(size) {}
    std::string name;
    int ranks;
    void *memory;
    size_t bytes;
};

/* Bytes on their way between this rank and another; several between the same two go one after another. */
struct transfer {
    int peer;
    bool sends;
    char *data;
    size_t bytes;
    uint32_t what; /* both ends must mean the same operation */
    size_t done = 0;
    bool announced = false;
    bool finished() const { return announced && done == bytes; }
};

enum class outcome { nothing, moved, mismatch };

/* Moves what can be moved now. mismatch: the other rank is in another operation, or in one of another size; *theirs says in which. */
struct announcement {
    uint32_t what, unused;
    uint64_t bytes;
};
outcome move(segment &shared, int rank, transfer &t, announcement *theirs);

} // namespace nc

#endif
