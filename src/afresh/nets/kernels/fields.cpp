// What lies between the convolutions of a network over a field, fused, for a CPU: layer normalisation over the channels
// of a place, a scale and a shift from the condition, SiLU. Channels are last in memory.
//
// y = silu(n g + o) with n = (x - mean) / deviation, g = w (1 + s), o = b (1 + s) + t; s and t are an example's, or 0.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <vector>

#include "numbers.h"

namespace {

inline void share(long n, long &first, long &last) {  // of this thread
    long parts = omp_get_num_threads(), me = omp_get_thread_num(), each = (n + parts - 1) / parts;
    first = me * each < n ? me * each : n;
    last = first + each < n ? first + each : n;
}

// g and o of one example; film (2 c: s, then t) may be null.
template <class T>
inline void lines(const float *w, const float *b, const T *film, float *__restrict g, float *__restrict o, long c) {
    for (long i = 0; i < c; i++) {
        float s = film ? 1 + load(film, i) : 1.0f;
        g[i] = w[i] * s;
        o[i] = b[i] * s + (film ? load(film, i + c) : 0.0f);
    }
}

// x, y (batch, places, c); mean and inverse deviation of every place are kept for the way back.
template <class T>
void activate(const T *x, const float *w, const float *b, const T *film, T *y, float *mean, float *inverse, long batch,
              long places, long c, float eps) {
#pragma omp parallel
    {
        long first, last, of = -1;
        share(batch * places, first, last);
        std::vector<float> lg(c), lo(c), row(c);
        float *__restrict g = lg.data(), *__restrict o = lo.data(), *__restrict v = row.data();
        for (long r = first; r < last; r++) {
            if (r / places != of) {
                of = r / places;
                lines(w, b, film ? film + of * 2 * c : film, g, o, c);
            }
            const T *in = x + r * c;
            T *out = y + r * c;
            float sum = 0, square = 0;
            for (long i = 0; i < c; i++) {
                v[i] = load(in, i);
                sum += v[i];
            }
            float m = sum / c;
            for (long i = 0; i < c; i++) square += (v[i] - m) * (v[i] - m);
            float k = 1 / std::sqrt(square / c + eps);
            mean[r] = m;
            inverse[r] = k;
#pragma GCC ivdep
            for (long i = 0; i < c; i++) {
                float z = (v[i] - m) * k * g[i] + o[i];
                store(out, i, z / (1 + fast_exp(-z)));
            }
        }
    }
}

// dx (batch, places, c); dfilm (batch, 2 c) or null; dwb: a row of 2 c sums a thread, of w's and b's gradients.
template <class T>
void activate_back(const T *dy, const T *x, const float *w, const float *b, const T *film, const float *mean,
                   const float *inverse, T *dx, T *dfilm, float *dwb, long batch, long places, long c) {
#pragma omp parallel
    {
        long first, last;
        share(batch, first, last);
        std::vector<float> room(6 * c);
        float *__restrict g = room.data(), *__restrict o = g + c, *__restrict dg = o + c, *__restrict d_o = dg + c,
                         *__restrict n = d_o + c, *__restrict q = n + c;
        float *mine = dwb + omp_get_thread_num() * 2 * c;
        for (long e = first; e < last; e++) {
            const T *own = film ? film + e * 2 * c : film;
            lines(w, b, own, g, o, c);
            for (long i = 0; i < c; i++) dg[i] = d_o[i] = 0;
            for (long r = e * places; r < (e + 1) * places; r++) {
                const T *in = x + r * c, *up = dy + r * c;
                T *out = dx + r * c;
                float m = mean[r], k = inverse[r], along = 0, level = 0;
#pragma GCC ivdep
                for (long i = 0; i < c; i++) {
                    n[i] = (load(in, i) - m) * k;
                    float z = n[i] * g[i] + o[i], sigma = 1 / (1 + fast_exp(-z));
                    float dz = load(up, i) * sigma * (1 + z * (1 - sigma));
                    d_o[i] += dz;
                    dg[i] += dz * n[i];
                    q[i] = dz * g[i];
                    level += q[i];
                    along += q[i] * n[i];
                }
                level /= c;
                along /= c;
#pragma GCC ivdep
                for (long i = 0; i < c; i++) store(out, i, k * (q[i] - level - n[i] * along));
            }
            for (long i = 0; i < c; i++) {
                float s = own ? 1 + load(own, i) : 1.0f;
                mine[i] += s * dg[i];
                mine[i + c] += s * d_o[i];
                if (dfilm) {
                    store(dfilm + e * 2 * c, i, w[i] * dg[i] + b[i] * d_o[i]);
                    store(dfilm + e * 2 * c, i + c, d_o[i]);
                }
            }
        }
    }
}

}  // namespace

#define BOTH(T, S)                                                                                                     \
    extern "C" {                                                                                                       \
    void activate_##S(const T *x, const float *w, const float *b, const T *film, T *y, float *mean, float *inverse,     \
                      long batch, long places, long c, float eps) {                                                    \
        activate(x, w, b, film, y, mean, inverse, batch, places, c, eps);                                              \
    }                                                                                                                  \
    void activate_back_##S(const T *dy, const T *x, const float *w, const float *b, const T *film, const float *mean,   \
                           const float *inverse, T *dx, T *dfilm, float *dwb, long batch, long places, long c) {        \
        activate_back(dy, x, w, b, film, mean, inverse, dx, dfilm, dwb, batch, places, c);                             \
    }                                                                                                                  \
    }

BOTH(float, f)
BOTH(bf16, b)
