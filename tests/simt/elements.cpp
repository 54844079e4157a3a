// The per-element functions of kernels/*.cuh as plain C++: no threads, no shim. Arrays in, arrays out. The headers
// stand in front of this when it is compiled.
#include <cstddef>

extern "C" {

void native_cells(const u32* cells, u64 count, u32 size, u32 big_endian, u32* out) {
    for (u64 i = 0; i < count; i++)
        out[i] = size == 1   ? native_cell<1>(cells[i], big_endian)
                 : size == 2 ? native_cell<2>(cells[i], big_endian)
                             : native_cell<4>(cells[i], big_endian);
}

void samples(const u32* cells, u64 count, u32 left, u32 right, u32 outside, u32 above, u32 is_signed, u32* out, u32* stray) {
    for (u64 i = 0; i < count; i++) {
        out[i] = sample_of(cells[i], left, right, is_signed);
        stray[i] = stray_of(cells[i], left, outside, above, is_signed);
    }
}

void numbers(const u32* cells, u64 count, u32 size, u32 is_signed, i64* out) {
    for (u64 i = 0; i < count; i++)
        out[i] = size == 1   ? number_of<1>(cells[i], is_signed)
                 : size == 2 ? number_of<2>(cells[i], is_signed)
                             : number_of<4>(cells[i], is_signed);
}

void aligned(const u8* bytes, u64 count, u32 shift, u8* out) {
    for (u64 i = 0; i + 1 < count; i++) out[i] = u8(aligned_byte(bytes[i], bytes[i + 1], shift));
}

// All 2^24 pixels, the first sample of which is counted slowest.
void all_pixels(u32 to_ybr, u8* out) {
    for (u32 value = 0; value < 1u << 24; value++) {
        const Triple from = {value >> 16, value >> 8 & 255, value & 255};
        const Triple to = to_ybr ? rgb_to_ybr_of(from) : ybr_to_rgb_of(from);
        *out++ = u8(to.a);
        *out++ = u8(to.b);
        *out++ = u8(to.c);
        if ((to.a | to.b | to.c) > 255) out[-1] ^= 1;
    }
}

void means(u8* out) {
    for (u32 value = 0; value < 1u << 16; value++) out[value] = u8(mean_of(value >> 8, value & 255));
}

void palette_indices(const u32* samples, u64 count, i32 first, u32 entries, u32* out) {
    for (u64 i = 0; i < count; i++) out[i] = palette_index(samples[i], first, entries);
}

void transforms(const i64* pixels, u64 count, u32 forward, u32 reversible, i64* out, u8* fits) {
    for (u64 i = 0; i < count; i++, pixels += 3, out += 3) {
        const Wide from = {pixels[0], pixels[1], pixels[2]};
        const Wide to = reversible ? (forward ? rct_forward_of(from) : rct_inverse_of(from))
                                   : (forward ? ict_forward_of(from) : ict_inverse_of(from));
        out[0] = to.a;
        out[1] = to.b;
        out[2] = to.c;
        fits[i] = fits_32_bits(to);
    }
}

u32 product(u32 a, u32 b) { return crc_product(a, b); }
u32 x_to(u64 exponent) { return crc_x_to(exponent); }
u32 x_to_2_to(u32 squarings) { return crc_x_to_2_to(squarings); }

// Offsets of the fields of FrameJob in the order in which they are declared, then its size.
void job_layout(u64* out) {
    const u64 offsets[] = {
        offsetof(FrameJob, source),     offsetof(FrameJob, source_bytes), offsetof(FrameJob, target),
        offsetof(FrameJob, target_bytes), offsetof(FrameJob, items),      offsetof(FrameJob, skip),
        offsetof(FrameJob, bit_offset), offsetof(FrameJob, flags),        offsetof(FrameJob, left),
        offsetof(FrameJob, right),      offsetof(FrameJob, outside),      offsetof(FrameJob, above),
        offsetof(FrameJob, entries),    offsetof(FrameJob, first),        offsetof(FrameJob, unused),
        offsetof(FrameJob, palette),    sizeof(FrameJob)};
    for (u64 offset : offsets) *out++ = offset;
}

void constants(u32* out) {
    const u32 values[] = {BIG_ENDIAN_CELLS, SIGNED_SAMPLES, SIGNED_TARGET, TO_RGB, FAULT_TRUNCATED, FAULT_JOB, FAULT_OVERFLOW,
                          STATUS_WORDS, ICT_FRACTION_BITS};
    for (u32 value : values) *out++ = value;
}
}
