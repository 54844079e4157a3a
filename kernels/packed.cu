// packed.cu: codestreams of a batch one behind the other, in one buffer.
//
// Standard   none: PS3.5 A.4 cuts the buffer into fragments later
// Twin       none of its own: what is at a frame's place is compared with the twin of its codec
//
// Kernels    N frames
//   place_streams  outcomes [N] (bytes and fault of each) -> places [N][2]: where each begins, its outcome. One that
//                 would end beyond the room gets FAULT_BUFFER, and keeps its bytes, so that the host knows what room
//                 would do
//
// Launch     grid (1, 1), block 256, no dynamic shared memory; more blocks do nothing.
// Bytes      8 read and 16 written for each frame
// Limits     block a multiple of 32, at most 1024; `room` counts units of 256 bytes, up to 1 TiB; codestreams of less
//            than 4 GiB
#include "device.cuh"
#include "packed.cuh"
#include "scan.cuh"

static const u32 ROOM_UNIT_BYTES = 256;

extern "C" __global__ void __launch_bounds__(256) place_streams(GLOBAL(const u64) outcomes, GLOBAL(u64) places, u32 frames, u32 room) {
    SHARED(u64, sums, 32);
    if (blockIdx.x || blockIdx.y) return;
    u64 begin = 0;
    for (u32 first = 0; first < frames; first += blockDim.x) {
        const u32 frame = first + threadIdx.x;
        u64 outcome = frame < frames ? load(outcomes + frame) : 0, total;
        const u64 end = begin + block_running_sum(u64(bytes_of(outcome)), sums, total);
        if (end > u64(room) * ROOM_UNIT_BYTES) outcome |= u64(FAULT_BUFFER) << 32;
        if (frame < frames) {
            places[u64(PLACE_WORDS) * frame] = end - bytes_of(outcome);
            places[u64(PLACE_WORDS) * frame + 1] = outcome;
        }
        begin += total;
    }
}
