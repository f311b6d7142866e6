// Access to float and bfloat16 in memory, and a vectorisable exponential. Shared by the kernels.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct bf16 {
    uint16_t bits;
};

inline float load(const float *p, long i) { return p[i]; }
inline float load(const bf16 *p, long i) {
    uint32_t u = uint32_t(p[i].bits) << 16;
    float f;
    std::memcpy(&f, &u, 4);
    return f;
}
inline void store(float *p, long i, float v) { p[i] = v; }
inline void store(bf16 *p, long i, float v) {  // rounds to nearest, ties to even; preserves NaN
    uint32_t u;
    std::memcpy(&u, &v, 4);
    uint32_t r = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    p[i].bits = uint16_t(v == v ? r : (u >> 16) | 0x40);
}

// exp with a relative error below 2e-7 (the polynomial of Cephes). It can be vectorised, unlike that of the library.
inline float fast_exp(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float n = std::nearbyintf(x * 1.44269504089f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t u = uint32_t(int32_t(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &u, 4);
    return p * scale;
}

}  // namespace
