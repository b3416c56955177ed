/* ldmatrix and mma with the fragment layouts of the PTX manual. Products are summed in fp32 in the order of k; tensor cores round
 * otherwise, so last bits differ on a GPU. */
#include "tests/emu/include/espl_emu_prims.h"
#include "tests/emu/simt/fault.h"

#include <algorithm>
#include <string.h>

namespace simt {

constexpr int side = 8, row_bytes = 16;

struct ldmatrix_lane {
    const void *row;
    uint32_t got[4];
    bool transposed;
};

/* A pass of ldmatrix reads 8 rows of 16 bytes; it takes as many turns as rows share the same 4 of 32 banks. */
static void count_bank_conflicts(const void *const (&rows)[side]) {
    int turns[side] = {0};
    for (const void *row : rows)
        turns[(uintptr_t)row / row_bytes % side]++;
    counted.bank_conflicts += (uint64_t)(*std::max_element(turns, turns + side) - 1);
}

static void read_row(const void *row, int lane, uint16_t (&to)[side]) {
    if ((uintptr_t)row % row_bytes == 0 && is_shared(row, row_bytes)) {
        memcpy(to, row, row_bytes);
        return;
    }
    emu_fault((uintptr_t)row % row_bytes ? cudaErrorMisalignedAddress : cudaErrorIllegalAddress, "ldmatrix: the address of lane %d is %s",
              lane, (uintptr_t)row % row_bytes ? "no multiple of 16" : "not in shared memory");
    memset(to, 0xff, row_bytes);
}

static void do_ldmatrix(void *const *argument, uint32_t) {
    counted.ldmatrix++;
    for (int matrix = 0; matrix < 4; matrix++) {
        const void *rows[side];
        uint16_t m[side][side];
        for (int i = 0; i < side; i++) {
            rows[i] = static_cast<const ldmatrix_lane *>(argument[matrix * side + i])->row;
            read_row(rows[i], matrix * side + i, m[i]);
        }
        count_bank_conflicts(rows);
        for (int lane = 0; lane < warp_size; lane++) {
            auto *mine = static_cast<ldmatrix_lane *>(argument[lane]);
            int g = lane / 4, t = lane % 4 * 2;
            uint16_t low = mine->transposed ? m[t][g] : m[g][t], high = mine->transposed ? m[t + 1][g] : m[g][t + 1];
            mine->got[matrix] = (uint32_t)low | (uint32_t)high << 16;
        }
    }
}

void ldmatrix(uint32_t (&r)[4], const void *row, bool transposed, place at) {
    ldmatrix_lane mine = {row, {}, transposed};
    note_read(row, row_bytes);
    meet(full_mask, meeting::ldmatrix, &mine, do_ldmatrix, at);
    memcpy(r, mine.got, sizeof r);
}

struct mma_lane {
    float d[4];
    uint32_t a[4], b[2];
};

struct mma_matrices {
    float a[16][16], b[16][8], d[16][8];
};

static float low_half(uint32_t word) { return __uint_as_float(word << 16); }
static float high_half(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }

static void take_fragments(mma_matrices &m, const mma_lane &lane, int g, int t) {
    for (int i = 0; i < 4; i++) {
        int row = g + i % 2 * 8, column = t + i / 2 * 8;
        m.a[row][column] = low_half(lane.a[i]);
        m.a[row][column + 1] = high_half(lane.a[i]);
        m.d[g + i / 2 * 8][t + i % 2] = lane.d[i];
    }
    for (int i = 0; i < 2; i++) {
        m.b[t + i * 8][g] = low_half(lane.b[i]);
        m.b[t + i * 8 + 1][g] = high_half(lane.b[i]);
    }
}

static void do_mma(void *const *argument, uint32_t) {
    counted.mma++;
    mma_matrices m;
    for (int lane = 0; lane < warp_size; lane++)
        take_fragments(m, *static_cast<const mma_lane *>(argument[lane]), lane / 4, lane % 4 * 2);
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                m.d[row][column] += m.a[row][k] * m.b[k][column];
    for (int lane = 0; lane < warp_size; lane++)
        for (int i = 0; i < 4; i++)
            static_cast<mma_lane *>(argument[lane])->d[i] = m.d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, place at) {
    mma_lane mine = {{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    meet(full_mask, meeting::mma, &mine, do_mma, at);
    memcpy(d, mine.d, sizeof d);
}

} // namespace simt
