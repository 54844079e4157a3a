// dwt53.cu: samples -> wavelet coefficients, a level at a time.
//
// Standard   T.800 Annex F (reversible 5/3 wavelet), G.1 (level shift), G.2 (reversible component transform)
// Twin       tests/simt/htj2k_reference.cpp: equal bit for bit
//
// Kernels    N frames, C components
//   dwt53_first_<b>   samples of <b> bits [N][rows][columns][C] -> sub-bands of level 1; the level shift and, where
//                     asked for, the component transform on the way; samples outside the precision set FAULT_VALUES
//   dwt53_next        LL of one level -> the sub-bands of the next
//   level_shift_<b>   the same as dwt53_first_<b> without a wavelet, for images without decompositions
//
// How        A block has 128 columns, of which 124 give results: two more on either side. Each thread lifts its column
//            in registers while it walks down 64 rows, two at a time; each pair of rows goes through shared memory, two
//            buffers in turn, to be lifted along the rows.
// Launch     grid (tiles * C, min(N, 65535)), block 128, 2 KB of static shared memory; level_shift: 256 samples a tile.
//            Any grid is right.
// Bytes      first: <b>/8 * C * 1.07 read (three times of that for three components), 4 * C written per pixel;
//            next: 4.3 + 4 per coefficient of the source
// Limits     blocks of exactly 128; frame_samples below 2^32
#include "device.cuh"
#include "dwt53.cuh"
#include "htj2k.cuh"

static const i32 TILE_COLUMNS = 124, TILE_ROWS = 64;
static const u32 DWT_THREADS = 128;

template <int SIZE>
struct CellOf;
template <>
struct CellOf<1> {
    typedef u8 Type;
};
template <>
struct CellOf<2> {
    typedef u16 Type;
};

// One sample of one component, ready for the wavelet.
template <int SIZE>
__device__ __forceinline__ i32 component_sample(GLOBAL(const typename CellOf<SIZE>::Type) frame, const Layout& layout,
                                                u32 component, u32 pixel, u32& outside) {
    const auto place = frame + layout.components * pixel;
    if (!layout.transformed) return shifted_sample<SIZE>(load(place + component), layout, outside);
    const i32 red = shifted_sample<SIZE>(load(place), layout, outside);
    const i32 green = shifted_sample<SIZE>(load(place + 1), layout, outside);
    const i32 blue = shifted_sample<SIZE>(load(place + 2), layout, outside);
    return rct_component(red, green, blue, component);
}

// One tile of one component. `at(column, row)` is the source.
template <class Source>
__device__ __forceinline__ void transform_tile(const Level& level, u32 tile, GLOBAL(i32) coefficients, Source at) {
    SHARED(i32, rows, 4 * DWT_THREADS);
    const i32 columns = i32(level.columns), height = i32(level.rows), thread = i32(threadIdx.x);
    const u32 across = (level.columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const i32 left = i32(tile % across) * TILE_COLUMNS, top = i32(tile / across) * TILE_ROWS;
    const i32 column = mirrored(left - 2 + thread, columns);
    const auto down = [&](i32 row) { return at(column, row < height ? row : mirrored(row, height)); };

    // What this thread writes: column `x` of the sub-bands, of LL and HL, or, in the block's upper half, LH and HH.
    const i32 own = thread % 64, half = thread / 64;
    const u32 x = u32(left / 2 + own), y = u32(top / 2);
    const bool low = own < TILE_COLUMNS / 2 && 2 * x < level.columns;
    const bool high = own < TILE_COLUMNS / 2 && 2 * x + 1 < level.columns;
    u32 low_place = (half ? level.lh : level.ll) + y * level.low_stride + x;
    u32 high_place = (half ? level.hh : level.hl) + y * level.high_stride + x;

    i32 even = down(top);
    i32 high_before = high_pass(at(column, mirrored(top - 2, height)), at(column, mirrored(top - 1, height)), even);
    for (i32 row = top; row < min(top + TILE_ROWS, height); row += 2) {
        const i32 odd = down(row + 1), next = down(row + 2), high_here = high_pass(even, odd, next);
        const auto buffer = rows + (row & 2) * i32(DWT_THREADS);
        buffer[thread] = low_pass(high_before, even, high_here);
        buffer[DWT_THREADS + thread] = high_here;
        high_before = high_here;
        even = next;
        __syncthreads();
        if (low && row + half < height) {
            const auto here = buffer + (half * i32(DWT_THREADS) + 2 * own + 2);
            const i32 middle = here[0], behind = high_pass(middle, here[1], here[2]);
            coefficients[low_place] = low_pass(high_pass(here[-2], here[-1], middle), middle, behind);
            if (high) coefficients[high_place] = behind;
        }
        low_place += level.low_stride;
        high_place += level.high_stride;
    }
    __syncthreads();  // the next tile begins with the buffer that was read last
}

// Calls body(frame, component, tile) for all that is this block's.
template <class Body>
__device__ __forceinline__ void for_tiles(u32 frames, u32 components, u32 tiles, Body body) {
    for (u32 frame = blockIdx.y; frame < frames; frame += gridDim.y)
        for (u32 item = blockIdx.x; item < tiles * components; item += gridDim.x)
            body(frame, item / tiles, item % tiles);
}

__device__ __forceinline__ GLOBAL(i32) component_of(GLOBAL(i32) coefficients, const Layout& layout, u32 frame,
                                                    u32 component) {
    return coefficients + (u64(frame) * layout.frame_coefficients + u64(component) * layout.component_coefficients);
}

__device__ __forceinline__ u32 tiles_of(const Level& level) {
    return (level.columns + TILE_COLUMNS - 1) / TILE_COLUMNS * ((level.rows + TILE_ROWS - 1) / TILE_ROWS);
}

template <int SIZE>
__device__ void transform_samples(GLOBAL(const Layout) layouts, GLOBAL(const Level) levels,
                                  GLOBAL(const typename CellOf<SIZE>::Type) samples, u32 frames,
                                  GLOBAL(i32) coefficients, GLOBAL(u32) faults) {
    const Layout layout = layouts[0];
    const Level level = levels[0];
    for_tiles(frames, layout.components, tiles_of(level), [&](u32 frame, u32 component, u32 tile) {
        const auto source = samples + u64(frame) * layout.frame_samples;
        const auto target = component_of(coefficients, layout, frame, component);
        u32 outside = 0;
        transform_tile(level, tile, target, [&](i32 column, i32 row) {
            return component_sample<SIZE>(source, layout, component, u32(row) * level.columns + u32(column), outside);
        });
        if (outside >> layout.precision) atomicOr(faults + frame, FAULT_VALUES);
    });
}

template <int SIZE>
__device__ void shift_samples(GLOBAL(const Layout) layouts, GLOBAL(const Level) levels,
                              GLOBAL(const typename CellOf<SIZE>::Type) samples, u32 frames, GLOBAL(i32) coefficients,
                              GLOBAL(u32) faults) {
    const Layout layout = layouts[0];
    const Level level = levels[0];
    const u32 pixels = level.columns * level.rows, tiles = (pixels + 255) / 256;
    for_tiles(frames, layout.components, tiles, [&](u32 frame, u32 component, u32 tile) {
        const auto source = samples + u64(frame) * layout.frame_samples;
        const auto target = component_of(coefficients, layout, frame, component);
        u32 outside = 0;
        for (u32 pixel = tile * 256 + threadIdx.x; pixel < min(tile * 256 + 256, pixels); pixel += blockDim.x) {
            const u32 row = pixel / level.columns, column = pixel - row * level.columns;
            target[level.ll + row * level.low_stride + column] =
                component_sample<SIZE>(source, layout, component, pixel, outside);
        }
        if (outside >> layout.precision) atomicOr(faults + frame, FAULT_VALUES);
    });
}

extern "C" __global__ void __launch_bounds__(128)
    dwt53_next(GLOBAL(const Layout) layouts, GLOBAL(const Level) levels, u32 frames, GLOBAL(i32) coefficients) {
    const Layout layout = layouts[0];
    const Level level = levels[0];
    for_tiles(frames, layout.components, tiles_of(level), [&](u32 frame, u32 component, u32 tile) {
        const auto own = component_of(coefficients, layout, frame, component);
        transform_tile(level, tile, own, [&](i32 column, i32 row) -> i32 {
            return own[level.source + u32(row) * level.source_stride + u32(column)];
        });
    });
}

// clang-format off: one kernel a line
extern "C" __global__ void __launch_bounds__(128) dwt53_first_8(GLOBAL(const Layout) layouts, GLOBAL(const Level) levels, GLOBAL(const u8) samples, u32 frames, GLOBAL(i32) coefficients, GLOBAL(u32) faults) { transform_samples<1>(layouts, levels, samples, frames, coefficients, faults); }
extern "C" __global__ void __launch_bounds__(128) dwt53_first_16(GLOBAL(const Layout) layouts, GLOBAL(const Level) levels, GLOBAL(const u16) samples, u32 frames, GLOBAL(i32) coefficients, GLOBAL(u32) faults) { transform_samples<2>(layouts, levels, samples, frames, coefficients, faults); }
extern "C" __global__ void __launch_bounds__(128) level_shift_8(GLOBAL(const Layout) layouts, GLOBAL(const Level) levels, GLOBAL(const u8) samples, u32 frames, GLOBAL(i32) coefficients, GLOBAL(u32) faults) { shift_samples<1>(layouts, levels, samples, frames, coefficients, faults); }
extern "C" __global__ void __launch_bounds__(128) level_shift_16(GLOBAL(const Layout) layouts, GLOBAL(const Level) levels, GLOBAL(const u16) samples, u32 frames, GLOBAL(i32) coefficients, GLOBAL(u32) faults) { shift_samples<2>(layouts, levels, samples, frames, coefficients, faults); }
// clang-format on
