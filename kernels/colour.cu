// colour.cu: chroma subsampling, YBR_FULL and RGB, palettes, the component transforms of JPEG 2000.
//
// Standard   PS3.3 C.7.6.3.1.2 (YBR_FULL, YBR_FULL_422), C.7.6.3.1.5 (palettes); T.800 G.2 (RCT), G.3 (ICT)
// Twin       gpuenc/cpu/colour.py: equal bit for bit. Of these only upsample_422 and the RCT are lossless.
//
// Kernels    N frames of P pixels; <b> bits of a cell or sample
//   upsample_422_<b>    Y0 Y1 Cb Cr [N][P/2][4] -> pixels [N][P][3]; the cells are taken as prepare_<b>_<b> takes
//                       them (byte order, shift, mask or sign, stray bits counted); with TO_RGB also to RGB (8 bits)
//   downsample_422      pixels [N][P][3] -> Y0 Y1 Cb Cr [N][P/2][4]; 8 bits
//   expand_palette_<b>  cells [N][P], taken as prepare_<b>_<b> does, -> RGB [N][P][3] of 8 bits
//   rgb_to_ybr          pixels [N][P][3] -> the same; 8 bits
//   ybr_to_rgb          pixels [N][P][3] -> the same; 8 bits
//   rct_forward_<b>     pixels [N][P][3], signed or not -> int32 [N][P][3]
//   rct_inverse         int32 [N][P][3] -> int32 [N][P][3]
//   ict_forward_<b>     pixels [N][P][3], signed or not -> int32 [N][P][3] in units of 1/4096
//   ict_inverse         int32 [N][P][3] in units of 1/4096 -> int32 [N][P][3]
//
// Launch     grid (ceil(groups / 1024), min(N, 65535)), block 256, no dynamic shared memory; any grid is right.
//            A group is 16 bytes of cells; 16 pixels (RGB and YBR_FULL); 4 pixels (RCT, ICT); 4 pairs (downsample_422).
// Bytes      read + written per pixel: upsample_422_<b> b/4 + 3b/8, downsample_422 3 + 2, expand_palette_<b> b/8 + 3
//            and the table through L1, rgb_to_ybr and ybr_to_rgb 3 + 3, rct_forward_<b> and ict_forward_<b> 3b/8 + 12,
//            rct_inverse and ict_inverse 12 + 12
// Limits     as samples.cu. RCT and ICT results beyond 32 bits set FAULT_OVERFLOW, as the twins raise.
#include "colour.cuh"
#include "device.cuh"
#include "groups.cuh"
#include "job.cuh"
#include "samples.cuh"

// items: pairs of pixels
template <int SIZE>
__device__ void upsample_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 4 / SIZE;
    for_frames<GROUP, 4 * SIZE, 6 * SIZE>(
        jobs, frames, status, [](const FrameJob& job, u64 first, u32 count, Found& found) {
            const auto in = read_cells<SIZE, 4 * GROUP>(job, 4 * first * SIZE, 4 * count);
            Words<6> out = {};
#pragma unroll
            for (int pair = 0; pair < GROUP; pair++) {
                u32 part[4];
#pragma unroll
                for (int i = 0; i < 4; i++)
                    part[i] = take_sample<SIZE>(get_cell<SIZE>(in.at, 4 * pair + i), job, found);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    Triple pixel = {part[i], part[2], part[3]};
                    if (SIZE == 1 && job.flags & TO_RGB) pixel = ybr_to_rgb_of(pixel);
                    put_cell<SIZE>(out.at, 6 * pair + 3 * i, pixel.a);
                    put_cell<SIZE>(out.at, 6 * pair + 3 * i + 1, pixel.b);
                    put_cell<SIZE>(out.at, 6 * pair + 3 * i + 2, pixel.c);
                }
            }
            write_cells<SIZE, 6 * GROUP>(job, 6 * first * SIZE, 6 * count, out);
        });
}

// items: pairs of pixels
__device__ void downsample_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 4;
    for_frames<GROUP, 6, 4>(jobs, frames, status, [](const FrameJob& job, u64 first, u32 count, Found&) {
        const auto in = read_cells<1, 6 * GROUP>(job, 6 * first, 6 * count);
        Words<4> out = {};
#pragma unroll
        for (int i = 0; i < GROUP; i++) {
            const int from = 6 * i, to = 4 * i;
            put_cell<1>(out.at, to, get_cell<1>(in.at, from));
            put_cell<1>(out.at, to + 1, get_cell<1>(in.at, from + 3));
            put_cell<1>(out.at, to + 2, mean_of(get_cell<1>(in.at, from + 1), get_cell<1>(in.at, from + 4)));
            put_cell<1>(out.at, to + 3, mean_of(get_cell<1>(in.at, from + 2), get_cell<1>(in.at, from + 5)));
        }
        write_cells<1, 4 * GROUP>(job, 4 * first, 4 * count, out);
    });
}

// items: pixels
template <int SIZE>
__device__ void expand_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 16 / SIZE;
    for_frames<GROUP, SIZE, 3>(jobs, frames, status, [](const FrameJob& job, u64 first, u32 count, Found& found) {
        if (!job.entries || job.flags & SIGNED_SAMPLES) {
            found.fault = FAULT_JOB;
            return;
        }
        const auto palette = global_at<const u32>(job.palette);
        const auto in = read_cells<SIZE, GROUP>(job, first * SIZE, count);
        Words<3 * GROUP / 4> out = {};
#pragma unroll
        for (int i = 0; i < GROUP; i++) {
            const u32 sample = take_sample<SIZE>(get_cell<SIZE>(in.at, i), job, found);
            const u32 entry = load(palette + palette_index(sample, job.first, job.entries));
            put_cell<1>(out.at, 3 * i, entry);
            put_cell<1>(out.at, 3 * i + 1, entry >> 8);
            put_cell<1>(out.at, 3 * i + 2, entry >> 16);
        }
        write_cells<1, 3 * GROUP>(job, 3 * first, 3 * count, out);
    });
}

// items: pixels
template <bool TO_YBR>
__device__ void convert_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 16;
    for_frames<GROUP, 3, 3>(jobs, frames, status, [](const FrameJob& job, u64 first, u32 count, Found&) {
        const auto in = read_cells<1, 3 * GROUP>(job, 3 * first, 3 * count);
        Words<12> out = {};
#pragma unroll
        for (int i = 0; i < 3 * GROUP; i += 3) {
            const Triple from = {get_cell<1>(in.at, i), get_cell<1>(in.at, i + 1), get_cell<1>(in.at, i + 2)};
            const Triple to = TO_YBR ? rgb_to_ybr_of(from) : ybr_to_rgb_of(from);
            put_cell<1>(out.at, i, to.a);
            put_cell<1>(out.at, i + 1, to.b);
            put_cell<1>(out.at, i + 2, to.c);
        }
        write_cells<1, 3 * GROUP>(job, 3 * first, 3 * count, out);
    });
}

template <bool FORWARD, bool REVERSIBLE>
__device__ __forceinline__ Wide transformed(const Wide& from) {
    if (REVERSIBLE) return FORWARD ? rct_forward_of(from) : rct_inverse_of(from);
    return FORWARD ? ict_forward_of(from) : ict_inverse_of(from);
}

// items: pixels
template <int SIZE, bool FORWARD, bool REVERSIBLE>
__device__ void transform_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 4;
    for_frames<GROUP, 3 * SIZE, 12>(jobs, frames, status, [](const FrameJob& job, u64 first, u32 count, Found& found) {
        const bool is_signed = !FORWARD || job.flags & SIGNED_SAMPLES;
        const auto in = read_cells<SIZE, 3 * GROUP>(job, 3 * first * SIZE, 3 * count);
        Words<12> out = {};
#pragma unroll
        for (int i = 0; i < 3 * GROUP; i += 3) {
            const Wide from = {number_of<SIZE>(get_cell<SIZE>(in.at, i), is_signed),
                               number_of<SIZE>(get_cell<SIZE>(in.at, i + 1), is_signed),
                               number_of<SIZE>(get_cell<SIZE>(in.at, i + 2), is_signed)};
            const Wide to = transformed<FORWARD, REVERSIBLE>(from);
            if (!fits_32_bits(to)) found.fault = FAULT_OVERFLOW;
            out.at[i] = u32(to.a);
            out.at[i + 1] = u32(to.b);
            out.at[i + 2] = u32(to.c);
        }
        write_cells<4, 3 * GROUP>(job, 12 * first, 3 * count, out);
    });
}

// clang-format off: one kernel a line
extern "C" __global__ void __launch_bounds__(256) upsample_422_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { upsample_frames<1>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) upsample_422_16(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { upsample_frames<2>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) upsample_422_32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { upsample_frames<4>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) downsample_422(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { downsample_frames(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) expand_palette_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { expand_frames<1>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) expand_palette_16(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { expand_frames<2>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) expand_palette_32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { expand_frames<4>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) rgb_to_ybr(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { convert_frames<true>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) ybr_to_rgb(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { convert_frames<false>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) rct_forward_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { transform_frames<1, true, true>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) rct_forward_16(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { transform_frames<2, true, true>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) rct_forward_32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { transform_frames<4, true, true>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) rct_inverse(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { transform_frames<4, false, true>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) ict_forward_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { transform_frames<1, true, false>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) ict_forward_16(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { transform_frames<2, true, false>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) ict_forward_32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { transform_frames<4, true, false>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) ict_inverse(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { transform_frames<4, false, false>(jobs, frames, status); }
// clang-format on
