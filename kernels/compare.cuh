// Checksums: arithmetic of one number at a time. Twin: checksum of gpuenc/cpu/samples.py, which is zlib.crc32.
#pragma once
#include "device.cuh"

// CRC-32 (ISO 3309, the checksum of zlib and PNG) is arithmetic with polynomials over GF(2) modulo
//   P = x^32 + x^26 + x^23 + x^22 + x^16 + x^12 + x^11 + x^10 + x^8 + x^7 + x^5 + x^4 + x^2 + x + 1,
// the coefficient of x^31 in bit 0. A message is the sum of its words, each times x^8 for every byte from the word's
// own first to the end of the message, so any order and any partition of the work gives the same sum.
static const u32 CRC_POLYNOMIAL = 0xEDB88320u;
static const u32 CRC_ONE = 0x80000000u;  // x^0

// a * x mod P
__device__ __forceinline__ u32 crc_times_x(u32 a) { return a >> 1 ^ (a & 1 ? CRC_POLYNOMIAL : 0); }

// a * b mod P
__device__ __forceinline__ u32 crc_product(u32 a, u32 b) {
    u32 product = 0;
#pragma unroll 8
    for (int power = 0; power < 32; power++) {
        product ^= i32(a << power) < 0 ? b : 0;
        b = crc_times_x(b);
    }
    return product;
}

// x^(2^squarings) mod P; x^(2^32) is x again
__device__ __forceinline__ u32 crc_x_to_2_to(u32 squarings) {
    u32 power = CRC_ONE >> 1;
    for (u32 i = 0; i < squarings % 32; i++) power = crc_product(power, power);
    return power;
}

// x^exponent mod P
__device__ __forceinline__ u32 crc_x_to(u64 exponent) {
    u32 power = CRC_ONE, factor = CRC_ONE >> 1;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) power = crc_product(power, factor);
        factor = crc_product(factor, factor);
    }
    return power;
}
