// The operations of a decoder between its matrix products, fused, for a CPU. Plain C++ that the compiler vectorises.
//
// Numbers are float or bfloat16 in memory and float in registers. Every function divides its rows among OpenMP threads in
// a fixed way, so that results are reproducible for a number of threads. Names end in _f for float and in _b for bfloat16.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <vector>

#include "numbers.h"

namespace {

// The largest of row[from ... to - 1]. NaN may be ignored here, as it appears in the sums that follow.
template <class T>
inline float highest(const T *row, long from, long to) {
    float lanes[16], top = -INFINITY;
    for (long j = 0; j < 16; j++) lanes[j] = -INFINITY;
    if (to - from < 16) {
        for (long i = from; i < to; i++) top = load(row, i) > top ? load(row, i) : top;
        return top;
    }
    for (long i = from; i < to; i += 16) {
        const T *block = row + (i + 16 <= to ? i : to - 16);  // the last block overlaps the one before it
#pragma omp simd
        for (long j = 0; j < 16; j++) lanes[j] = load(block, j) > lanes[j] ? load(block, j) : lanes[j];
    }
    for (long j = 0; j < 16; j++) top = lanes[j] > top ? lanes[j] : top;
    return top;
}

inline void share(long n, long &first, long &last) {  // the rows of this thread
    long parts = omp_get_num_threads(), me = omp_get_thread_num(), each = (n + parts - 1) / parts;
    first = me * each < n ? me * each : n;
    last = first + each < n ? first + each : n;
}

// h = x + delta (h is not written if delta is null); y = h / rms(h) * w; scale = 1 / rms(h).
template <class T>
void norm(const T *x, const T *delta, const float *w, T *h, T *y, float *scale, long n, long d, float eps) {
#pragma omp parallel
    {
        long first, last;
        share(n, first, last);
        for (long r = first; r < last; r++) {
            const T *row = x + r * d;
            if (delta) {
                const T *add = delta + r * d;
                T *sum = h + r * d;
                for (long i = 0; i < d; i++) store(sum, i, load(row, i) + load(add, i));
                row = sum;
            }
            float square = 0;
            for (long i = 0; i < d; i++) square += load(row, i) * load(row, i);
            float s = 1 / std::sqrt(square / d + eps);
            scale[r] = s;
            for (long i = 0; i < d; i++) store(y + r * d, i, load(row, i) * s * w[i]);
        }
    }
}

// dx = dh + the gradient through y; dw has a row of d sums for each thread.
template <class T>
void norm_back(const T *dy, const T *dh, const T *h, const float *w, const float *scale, T *dx, float *dw, long n, long d) {
#pragma omp parallel
    {
        long first, last;
        share(n, first, last);
        float *mine = dw + omp_get_thread_num() * d;
        for (long r = first; r < last; r++) {
            const T *g = dy + r * d, *x = h + r * d;
            float s = scale[r], mean = 0;
            for (long i = 0; i < d; i++) {
                float gn = load(g, i) * load(x, i) * s;
                mine[i] += gn;
                mean += gn * w[i];
            }
            mean /= d;
            if (dh) {
                for (long i = 0; i < d; i++)
                    store(dx + r * d, i, load(dh + r * d, i) + s * (load(g, i) * w[i] - load(x, i) * s * mean));
            } else {
                for (long i = 0; i < d; i++) store(dx + r * d, i, s * (load(g, i) * w[i] - load(x, i) * s * mean));
            }
        }
    }
}

// One head: out = rotate(in / rms(in) * w) by cos, sin (half); no normalisation if w is null.
template <class T>
inline float turn(const T *in, const float *w, const float *c, const float *s, T *out, long dim, float eps) {
    float square = 0, scale = 1;
    long half = dim / 2;
    if (w) {
        for (long i = 0; i < dim; i++) square += load(in, i) * load(in, i);
        scale = 1 / std::sqrt(square / dim + eps);
        for (long i = 0; i < half; i++) {
            float a = load(in, i) * scale * w[i], b = load(in, i + half) * scale * w[i + half];
            store(out, i, a * c[i] - b * s[i]);
            store(out, i + half, b * c[i] + a * s[i]);
        }
    } else {
        for (long i = 0; i < half; i++) {
            float a = load(in, i), b = load(in, i + half);
            store(out, i, a * c[i] - b * s[i]);
            store(out, i + half, b * c[i] + a * s[i]);
        }
    }
    return scale;
}

template <class T>
inline void turn_back(const T *g, const T *in, const float *w, const float *c, const float *s, float scale, T *out, float *dw, long dim) {
    long half = dim / 2;
    if (!w) {
        for (long i = 0; i < half; i++) {
            float a = load(g, i), b = load(g, i + half);
            store(out, i, a * c[i] + b * s[i]);
            store(out, i + half, b * c[i] - a * s[i]);
        }
        return;
    }
    float mean = 0;
    for (long i = 0; i < half; i++) {
        float a = load(g, i), b = load(g, i + half);
        float da = (a * c[i] + b * s[i]) * load(in, i) * scale, db = (b * c[i] - a * s[i]) * load(in, i + half) * scale;
        dw[i] += da;
        dw[i + half] += db;
        mean += da * w[i] + db * w[i + half];
    }
    mean /= dim;
    for (long i = 0; i < half; i++) {
        float a = load(g, i), b = load(g, i + half);
        store(out, i, scale * ((a * c[i] + b * s[i]) * w[i] - load(in, i) * scale * mean));
        store(out, i + half, scale * ((b * c[i] - a * s[i]) * w[i + half] - load(in, i + half) * scale * mean));
    }
}

// qkv (batch, t, heads + 2 kv, dim) -> q (batch, heads, t, dim), k and v (batch, kv, t, dim), with q and k normalised and
// rotated.
template <class T>
void split(const T *qkv, const float *qw, const float *kw, const float *cos, const float *sin, T *q, T *k, T *v,
           float *scale, long batch, long t, long heads, long kv, long dim, float eps) {
    long rows = heads + 2 * kv, half = dim / 2;
#pragma omp parallel
    {
        long first, last;
        share(batch * t, first, last);
        for (long r = first; r < last; r++) {
            long b = r / t, p = r % t;
            const T *in = qkv + r * rows * dim;
            const float *c = cos + p * half, *s = sin + p * half;
            for (long i = 0; i < heads; i++)
                scale[r * (heads + kv) + i] = turn(in + i * dim, qw, c, s, q + ((b * heads + i) * t + p) * dim, dim, eps);
            for (long i = 0; i < kv; i++) {
                long at = ((b * kv + i) * t + p) * dim;
                scale[r * (heads + kv) + heads + i] = turn(in + (heads + i) * dim, kw, c, s, k + at, dim, eps);
                std::memcpy(v + at, in + (heads + kv + i) * dim, dim * sizeof(T));
            }
        }
    }
}

// The gradient of `split`; dw has a row of 2 dim sums for each thread: of the norm of q, then of that of k.
template <class T>
void split_back(const T *dq, const T *dk, const T *dv, const T *qkv, const float *qw, const float *kw, const float *cos,
                const float *sin, const float *scale, T *dqkv, float *dw, long batch, long t, long heads, long kv, long dim) {
    long rows = heads + 2 * kv, half = dim / 2;
#pragma omp parallel
    {
        long first, last;
        share(batch * t, first, last);
        float *mine = dw + omp_get_thread_num() * 2 * dim;
        for (long r = first; r < last; r++) {
            long b = r / t, p = r % t;
            const T *in = qkv + r * rows * dim;
            T *out = dqkv + r * rows * dim;
            const float *c = cos + p * half, *s = sin + p * half;
            for (long i = 0; i < heads; i++)
                turn_back(dq + ((b * heads + i) * t + p) * dim, in + i * dim, qw, c, s, scale[r * (heads + kv) + i],
                          out + i * dim, mine, dim);
            for (long i = 0; i < kv; i++) {
                long at = ((b * kv + i) * t + p) * dim, h = heads + i;
                turn_back(dk + at, in + h * dim, kw, c, s, scale[r * (heads + kv) + h], out + h * dim, mine + dim, dim);
                std::memcpy(out + (h + kv) * dim, dv + at, dim * sizeof(T));
            }
        }
    }
}

// Scores (n, t, t) to probabilities, in place. Row i of a window attends to positions start[window, i] ... i (causal), or to
// the end of the window; from the beginning if start is null. n = windows * each, where `each` includes all heads.
template <class T>
void softmax(T *s, const int32_t *start, long n, long each, long t, long keys, long causal, float factor) {
#pragma omp parallel
    {
        long first, last;
        share(n * t, first, last);
        std::vector<float> kept(keys);
        float *__restrict e = kept.data();
        for (long r = first; r < last; r++) {
            T *row = s + r * keys;
            long place = r % t % keys, from = start ? start[(r / t / each) * keys + place] : 0, to = causal ? place + 1 : keys;
            float top = highest(row, from, to), sum = 0;
            long begin = from & ~15, end = to + 15 & ~15;  // whole vectors, as a remainder would be slow
            if (end > keys) end = keys;
#pragma GCC ivdep
            for (long i = begin; i < end; i++) e[i] = fast_exp((load(row, i) - top) * factor);
            for (long i = begin; i < from; i++) e[i] = 0;
            for (long i = to; i < end; i++) e[i] = 0;
            for (long i = begin; i < end; i++) sum += e[i];
            float inverse = 1 / sum;
            std::memset(row, 0, begin * sizeof(T));
            for (long i = begin; i < end; i++) store(row, i, e[i] * inverse);
            std::memset(row + end, 0, (keys - end) * sizeof(T));
        }
    }
}

// The gradient of the probabilities, dp (n, t, keys), to that of the scores, in place.
template <class T>
void softmax_back(T *dp, const T *p, const int32_t *start, long n, long each, long t, long keys, long causal, float factor) {
#pragma omp parallel
    {
        long first, last;
        share(n * t, first, last);
        for (long r = first; r < last; r++) {
            T *g = dp + r * keys;
            const T *row = p + r * keys;
            long place = r % t % keys, from = start ? start[(r / t / each) * keys + place] : 0, to = causal ? place + 1 : keys;
            float sum = 0;
            long begin = from & ~15, end = to + 15 & ~15;
            if (end > keys) end = keys;
            for (long i = begin; i < end; i++) sum += load(g, i) * load(row, i);  // p is 0 outside
            std::memset(g, 0, begin * sizeof(T));
#pragma GCC ivdep
            for (long i = begin; i < end; i++) store(g, i, load(row, i) * (load(g, i) - sum) * factor);
            std::memset(g + end, 0, (keys - end) * sizeof(T));
        }
    }
}

// (n, 2 d) gate and up -> (n, d) silu(gate) * up.
template <class T>
void swiglu(const T *x, T *y, long n, long d) {
#pragma omp parallel
    {
        long first, last;
        share(n, first, last);
        for (long r = first; r < last; r++) {
            const T *g = x + 2 * r * d, *u = g + d;
            T *out = y + r * d;
            for (long i = 0; i < d; i++) {
                float a = load(g, i);
                store(out, i, a / (1 + fast_exp(-a)) * load(u, i));
            }
        }
    }
}

template <class T>
void swiglu_back(const T *dy, const T *x, T *dx, long n, long d) {
#pragma omp parallel
    {
        long first, last;
        share(n, first, last);
        for (long r = first; r < last; r++) {
            const T *__restrict g = x + 2 * r * d, *__restrict u = g + d, *__restrict up = dy + r * d;
            T *__restrict dg = dx + 2 * r * d, *__restrict du = dg + d;
#pragma GCC ivdep
            for (long i = 0; i < d; i++) {
                float a = load(g, i), y = load(up, i), s = 1 / (1 + fast_exp(-a)), as = a * s;
                store(du, i, y * as);
                store(dg, i, y * load(u, i) * (s + as * (1 - s)));
            }
        }
    }
}

// nats = log sum exp(logits) - logits[target], 0 where target < 0; lse is stored for the gradient.
template <class T>
void entropy(const T *logits, const int64_t *target, float *nats, float *lse, long n, long v) {
#pragma omp parallel
    {
        long first, last;
        share(n, first, last);
        for (long r = first; r < last; r++) {
            const T *row = logits + r * v;
            float top = highest(row, 0, v), sum = 0;
            for (long i = 0; i < v; i++) sum += fast_exp(load(row, i) - top);
            lse[r] = top + std::log(sum);
            nats[r] = target[r] < 0 ? 0 : lse[r] - load(row, target[r]);
        }
    }
}

template <class T>
void entropy_back(const float *g, const T *logits, const int64_t *target, const float *lse, T *d, long n, long v) {
#pragma omp parallel
    {
        long first, last;
        share(n, first, last);
        for (long r = first; r < last; r++) {
            const T *row = logits + r * v;
            T *out = d + r * v;
            float factor = target[r] < 0 ? 0 : g[r], base = lse[r];
            for (long i = 0; i < v; i++) store(out, i, factor * fast_exp(load(row, i) - base));
            if (target[r] >= 0) store(out, target[r], factor * (fast_exp(load(row, target[r]) - base) - 1));
        }
    }
}

}  // namespace

#define BOTH(T, S)                                                                                                     \
    extern "C" {                                                                                                       \
    void norm_##S(const T *x, const T *delta, const float *w, T *h, T *y, float *scale, long n, long d, float eps) {    \
        norm(x, delta, w, h, y, scale, n, d, eps);                                                                     \
    }                                                                                                                  \
    void norm_back_##S(const T *dy, const T *dh, const T *h, const float *w, const float *scale, T *dx, float *dw,      \
                       long n, long d) {                                                                               \
        norm_back(dy, dh, h, w, scale, dx, dw, n, d);                                                                  \
    }                                                                                                                  \
    void split_##S(const T *qkv, const float *qw, const float *kw, const float *cos, const float *sin, T *q, T *k,      \
                   T *v, float *scale, long batch, long t, long heads, long kv, long dim, float eps) {                  \
        split(qkv, qw, kw, cos, sin, q, k, v, scale, batch, t, heads, kv, dim, eps);                                   \
    }                                                                                                                  \
    void split_back_##S(const T *dq, const T *dk, const T *dv, const T *qkv, const float *qw, const float *kw,          \
                        const float *cos, const float *sin, const float *scale, T *dqkv, float *dw, long batch,        \
                        long t, long heads, long kv, long dim) {                                                       \
        split_back(dq, dk, dv, qkv, qw, kw, cos, sin, scale, dqkv, dw, batch, t, heads, kv, dim);                      \
    }                                                                                                                  \
    void softmax_##S(T *s, const int32_t *start, long n, long each, long t, long keys, long causal, float factor) {     \
        softmax(s, start, n, each, t, keys, causal, factor);                                                           \
    }                                                                                                                  \
    void softmax_back_##S(T *dp, const T *p, const int32_t *start, long n, long each, long t, long keys, long causal,   \
                          float factor) {                                                                              \
        softmax_back(dp, p, start, n, each, t, keys, causal, factor);                                                  \
    }                                                                                                                  \
    void swiglu_##S(const T *x, T *y, long n, long d) { swiglu(x, y, n, d); }                                          \
    void swiglu_back_##S(const T *dy, const T *x, T *dx, long n, long d) { swiglu_back(dy, x, dx, n, d); }             \
    void entropy_##S(const T *logits, const int64_t *target, float *nats, float *lse, long n, long v) {                \
        entropy(logits, target, nats, lse, n, v);                                                                      \
    }                                                                                                                  \
    void entropy_back_##S(const float *g, const T *logits, const int64_t *target, const float *lse, T *d, long n,       \
                          long v) {                                                                                    \
        entropy_back(g, logits, target, lse, d, n, v);                                                                 \
    }                                                                                                                  \
    }

BOTH(float, f)
BOTH(bf16, b)
