// samples.cu: native cells -> the samples a codec takes, in one pass over memory.
//
// Standard   PS3.5 8.1.1 (cells, High Bit, Bits Stored, bits of 1-bit frames), 8.1.2 (embedded overlays),
//            PS3.5 7.3 (byte order), PS3.3 C.7.6.3.1.3 (Planar Configuration)
// Twin       gpuenc/cpu/samples.py, gpuenc/cpu/bits.py: equal bit for bit, status included
//
// Kernels    N frames of P pixels, S samples per pixel; <s>, <t> bits of a cell and of a sample
//   prepare_<s>_<t>         cells [N][P*S] -> samples [N][P*S]; byte order, shift, mask or sign, stray bits counted
//   prepare_planar_<s>_<t>  the same for planes [N][3][P] -> pixels [N][P][3]; with TO_RGB also YBR_FULL -> RGB
//   prepare_bits            bits [N][P*S] from any bit on -> samples [N][P*S] of 8 bits
//   align_bits              bits [N][P*S] from any bit on -> bits from bit 0 on, zero bits behind them
//   planar_<t>              pixels [N][P][3] -> planes [N][3][P]
//
// Launch     grid (ceil(groups / 1024), min(N, 65535)), block 256, no dynamic shared memory; any grid is right.
//            A group is 16 bytes of one plane of cells, 16 samples of bits. Frames share nothing: each has a FrameJob.
// Bytes      per sample: <s>/8 read, <t>/8 written; bits: 1/8 read, 1 written (align_bits: 1/8). Jobs: 80 per frame.
// Limits     block a multiple of 32; 2^64 bytes per frame; 2^32 stray cells per thread. Source and target must not
//            overlap. A source at an odd address costs five 4-byte loads for each 16 bytes; a target whose frames are
//            not aligned to 16 bytes is written 16 bytes at a time all the same, by way of FrameJob.skip, except for
//            planar_<t> where planes are not.
#include "colour.cuh"
#include "device.cuh"
#include "groups.cuh"
#include "job.cuh"
#include "samples.cuh"

template <int SOURCE, int TARGET>
__device__ void prepare_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 16 / SOURCE;
    for_frames<GROUP, SOURCE, TARGET>(
        jobs, frames, status, [](const FrameJob& job, u64 first, u32 count, Found& found) {
            const auto in = read_cells<SOURCE, GROUP>(job, first * SOURCE, count);
            Words<GROUP * TARGET / 4> out = {};
#pragma unroll
            for (int i = 0; i < GROUP; i++)
                put_cell<TARGET>(out.at, i, take_sample<SOURCE>(get_cell<SOURCE>(in.at, i), job, found));
            write_cells<TARGET, GROUP>(job, first * TARGET, count, out);
        });
}

// items: pixels
template <int SOURCE, int TARGET>
__device__ void prepare_planar_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 16 / SOURCE;
    for_frames<GROUP, 3 * SOURCE, 3 * TARGET>(
        jobs, frames, status, [](const FrameJob& job, u64 first, u32 count, Found& found) {
            const u64 plane = job.items * SOURCE, offset = first * SOURCE;
            const auto a = read_cells<SOURCE, GROUP>(job, offset, count);
            const auto b = read_cells<SOURCE, GROUP>(job, offset + plane, count);
            const auto c = read_cells<SOURCE, GROUP>(job, offset + 2 * plane, count);
            Words<3 * GROUP * TARGET / 4> out = {};
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                Triple pixel = {take_sample<SOURCE>(get_cell<SOURCE>(a.at, i), job, found),
                                take_sample<SOURCE>(get_cell<SOURCE>(b.at, i), job, found),
                                take_sample<SOURCE>(get_cell<SOURCE>(c.at, i), job, found)};
                if (TARGET == 1 && job.flags & TO_RGB) pixel = ybr_to_rgb_of(pixel);
                put_cell<TARGET>(out.at, 3 * i, pixel.a);
                put_cell<TARGET>(out.at, 3 * i + 1, pixel.b);
                put_cell<TARGET>(out.at, 3 * i + 2, pixel.c);
            }
            write_cells<TARGET, 3 * GROUP>(job, 3 * first * TARGET, 3 * count, out);
        });
}

// items: pixels
template <int SIZE>
__device__ void planar_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 16 / SIZE;
    for_frames<GROUP, 3 * SIZE, 3 * SIZE>(
        jobs, frames, status, [](const FrameJob& job, u64 first, u32 count, Found&) {
            const auto in = read_cells<SIZE, 3 * GROUP>(job, 3 * first * SIZE, 3 * count);
#pragma unroll
            for (int sample = 0; sample < 3; sample++) {
                Words<4> out = {};
#pragma unroll
                for (int i = 0; i < GROUP; i++) put_cell<SIZE>(out.at, i, get_cell<SIZE>(in.at, 3 * i + sample));
                write_cells<SIZE, GROUP>(job, (sample * job.items + first) * SIZE, count, out);
            }
        });
}

// items: samples
__device__ void prepare_bit_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 16;
    for (u32 frame = blockIdx.y; frame < frames; frame += gridDim.y) {
        const FrameJob job = jobs[frame];
        const Found found = {0, 0, refuse(job, (job.bit_offset + job.items + 7) / 8, job.items, GROUP)};
        if (!found.fault) for_groups<GROUP>(job.items, job.skip, [&](u64 first, u32 count) {
            const u64 bit = job.bit_offset + first, source = job.source + bit / 8;
            const u32 shift = u32(bit % 8);
            u32 bits = load_byte(source);
            if (shift + count > 8) bits |= load_byte(source + 1) << 8;
            if (shift + count > 16) bits |= load_byte(source + 2) << 16;
            Words<4> out = {};
#pragma unroll
            for (int i = 0; i < GROUP; i++)
                put_cell<1>(out.at, i, sample_of(bits >> (shift + i), 31, 31, job.flags & SIGNED_SAMPLES));
            write_cells<1, GROUP>(job, first, count, out);
        });
        report(status, frame, found);
    }
}

// items: bits
__device__ void align_bit_frames(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) {
    constexpr int GROUP = 16;
    for (u32 frame = blockIdx.y; frame < frames; frame += gridDim.y) {
        const FrameJob job = jobs[frame];
        const u64 touched = (job.bit_offset + job.items + 7) / 8, bytes = (job.items + 7) / 8;
        const Found found = {0, 0, refuse(job, touched, bytes, GROUP)};
        if (!found.fault) for_groups<GROUP>(bytes, job.skip, [&](u64 first, u32 count) {
            const u64 end = first + count;
            const Words<4> in = read_cells<1, GROUP>(job, first, count);
            const u32 next = end < touched ? load_byte(job.source + end) : 0;
            Words<4> out = {};
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                u32 high = i + 1 < GROUP ? get_cell<1>(in.at, (i + 1) % GROUP) : next;
                if (i + 1 == int(count)) high = next;
                u32 byte = aligned_byte(get_cell<1>(in.at, i), high, job.bit_offset);
                if (first + i + 1 == bytes && job.items % 8) byte &= (1u << job.items % 8) - 1;
                put_cell<1>(out.at, i, byte);
            }
            write_cells<1, GROUP>(job, first, count, out);
        });
        report(status, frame, found);
    }
}

// clang-format off: one kernel a line
extern "C" __global__ void __launch_bounds__(256) prepare_8_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_frames<1, 1>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) prepare_16_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_frames<2, 1>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) prepare_16_16(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_frames<2, 2>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) prepare_32_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_frames<4, 1>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) prepare_32_16(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_frames<4, 2>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) prepare_32_32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_frames<4, 4>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) prepare_planar_8_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_planar_frames<1, 1>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) prepare_planar_16_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_planar_frames<2, 1>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) prepare_planar_16_16(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_planar_frames<2, 2>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) prepare_planar_32_32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_planar_frames<4, 4>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) planar_8(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { planar_frames<1>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) planar_16(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { planar_frames<2>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) planar_32(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { planar_frames<4>(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) prepare_bits(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { prepare_bit_frames(jobs, frames, status); }
extern "C" __global__ void __launch_bounds__(256) align_bits(GLOBAL(const FrameJob) jobs, u32 frames, GLOBAL(u64) status) { align_bit_frames(jobs, frames, status); }
// clang-format on
