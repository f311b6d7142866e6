// One step of a decoder with a key/value cache, for any tokens of any sequences at once, such as the first tokens of a prompt
// and the next token of another one. Weights are float, bfloat16 or int8 (with a factor for each output) and packed once;
// sums are float. int8 weights are multiplied with int16 activations, or with bfloat16 on tiles.
//
// Packed weights (o, i): blocks of 16 outputs, [o / 16][i / 2][16][2] (float: [o / 16][i][16]), so that a vector holds 16
// outputs, and 32 inputs of a block form a right operand of AMX tiles.

#include <omp.h>
#include <vector>

#include "numbers.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define TILES 1
#else
#define TILES 0
#endif
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define PAIRS 1  // products of pairs of bfloat16
#else
#define PAIRS 0
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define WHOLE 1  // products of pairs of int16
#else
#define WHOLE 0
#endif

namespace {

enum Kind { FLOAT = 0, BF16 = 1, INT8 = 2 };

struct Weight {
    const void *data;
    const float *factor;  // of each output, for int8
    long outputs, inputs;  // outputs are padded to a multiple of 16
};

struct Layer {
    const float *attention_norm, *mlp_norm, *q_norm, *k_norm, *bias;  // q_norm, k_norm, bias may be null
    Weight qkv, out, gate_up, down;
};

struct Net {
    long kind, layers, width, heads, kv, dim, mlp, tiles;
    float eps;
    const float *embedding, *position, *cos, *sin, *norm;  // position (learned) may be null; cos, sin (positions, dim / 2)
    Weight head;
    const Layer *layer;
};

// Keys [layers][slots][kv][capacity / 16][dim / 2][16][2] (float: [dim][16]); values [layers][slots][kv][capacity][dim].
struct Store {
    void *k, *v;
    long slots, capacity;
};

inline float widen(uint16_t b) {
    bf16 v = {b};
    return load(&v, 0);
}

inline uint16_t narrow(float f) {
    bf16 v;
    store(&v, 0, f);
    return v.bits;
}

typedef float Sixteen __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

template <class V, class T>
inline V read(const T *p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void write(float *p, Sixteen v) { std::memcpy(p, &v, 64); }

// Two consecutive inputs of 16 lanes: [2][16] float, or [16][2] bfloat16.
inline void two(const float *p, Sixteen &even, Sixteen &odd) { even = read<Sixteen>(p), odd = read<Sixteen>(p + 16); }
inline void two(const uint16_t *p, Sixteen &even, Sixteen &odd) {
    Words w = read<Words>(p);
    even = (Sixteen)(w << 16), odd = (Sixteen)(w & 0xffff0000u);
}
inline Sixteen sixteen(const float *p) { return read<Sixteen>(p); }
inline Sixteen sixteen(const uint16_t *p) {
#ifdef __AVX512F__
    return (Sixteen)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#else
    return (Sixteen)(__builtin_convertvector(read<Halves>(p), Words) << 16);
#endif
}

// Pointers to M rows of n numbers. The assembly keeps each in a register, as the compiler would recompute them.
template <int M, class T>
struct Begins {
    const T *of[M];
    Begins(const T *x, long n) {
        for (int m = 0; m < M; m++) {
            of[m] = x + m * n;
            asm("" : "+r"(of[m]));
        }
    }
};

struct Part {  // thread `me` of `all` threads
    long me, all;
    void range(long n, long &first, long &last) const { first = n * me / all, last = n * (me + 1) / all; }
};

// ---------------------------------------------------------------------------------------------- products

constexpr long CHUNK = 128;  // inputs that share a factor in int16: sums of 128 products of 127 and 32767 fit in 32 bits

struct Rows {  // activations (m, n), and their roundings for the kind of the weights
    std::vector<float> exact;
    std::vector<uint16_t> narrow;  // bfloat16
    std::vector<int16_t> whole;    // with a factor for each row and CHUNK inputs
    std::vector<float> factor;

    void resize(long kind, long size) {
        exact.resize(size);
        if (kind != FLOAT) narrow.resize(size);
        if (kind == INT8) whole.resize(size), factor.resize(size);
    }
    void round(long kind, long r, long n) {
        const float *x = exact.data() + r * n;
        if (kind != FLOAT)
            for (long i = 0; i < n; i++) narrow[r * n + i] = ::narrow(x[i]);
        if (kind != INT8) return;
        for (long i = 0; i < n; i += CHUNK) {
            long count = n - i < CHUNK ? n - i : CHUNK;
            float top = 0;
            for (long j = i; j < i + count; j++) top = std::fabs(x[j]) > top ? std::fabs(x[j]) : top;
            float inverse = top > 0 ? 32767 / top : 0;
            for (long j = i; j < i + count; j++) whole[r * n + j] = int16_t(int32_t(std::nearbyintf(x[j] * inverse)));
            factor[r * chunks(n) + i / CHUNK] = top / 32767;
        }
    }
    void move(long kind, long from, long to, long n) {  // copies a row
        std::memmove(exact.data() + to * n, exact.data() + from * n, n * sizeof(float));
        if (kind != FLOAT) std::memmove(narrow.data() + to * n, narrow.data() + from * n, n * sizeof(uint16_t));
        if (kind != INT8) return;
        std::memmove(whole.data() + to * n, whole.data() + from * n, n * sizeof(int16_t));
        std::memmove(factor.data() + to * chunks(n), factor.data() + from * chunks(n), chunks(n) * sizeof(float));
    }
    static long chunks(long n) { return (n + CHUNK - 1) / CHUNK; }
};

// The products of one block of weights and M rows (M, n): sums of 16 outputs each. Each row has two accumulators (s, t), to
// hide latency. They are the same for every M, so that the result of a row does not depend on the other rows.

template <int M>
inline void products(const float *p, const float *x, long n, Sixteen *sum) {
    Sixteen s[M] = {}, t[M] = {}, even, odd;
    Begins<M, float> row(x, n);
    for (long k = 0; k < n; k += 2) {
        two(p + 16 * k, even, odd);
        for (int m = 0; m < M; m++) s[m] += even * row.of[m][k], t[m] += odd * row.of[m][k + 1];
    }
    for (int m = 0; m < M; m++) sum[m] = s[m] + t[m];
}

template <int M>
inline void products(const uint16_t *p, const uint16_t *x, long n, Sixteen *sum) {
#if PAIRS
    __m512 s[M], t[M];
    for (int m = 0; m < M; m++) s[m] = t[m] = _mm512_setzero_ps();
    Begins<M, uint16_t> row(x, n);
    long k = 0;
    for (; k + 2 < n; k += 4) {
        __m512bh one = (__m512bh)_mm512_loadu_si512(p + 16 * k), other = (__m512bh)_mm512_loadu_si512(p + 16 * k + 32);
        for (int m = 0; m < M; m++) {
            s[m] = _mm512_dpbf16_ps(s[m], one, (__m512bh)_mm512_set1_epi32(read<int32_t>(row.of[m] + k)));
            t[m] = _mm512_dpbf16_ps(t[m], other, (__m512bh)_mm512_set1_epi32(read<int32_t>(row.of[m] + k + 2)));
        }
    }
    for (; k < n; k += 2) {
        __m512bh one = (__m512bh)_mm512_loadu_si512(p + 16 * k);
        for (int m = 0; m < M; m++)
            s[m] = _mm512_dpbf16_ps(s[m], one, (__m512bh)_mm512_set1_epi32(read<int32_t>(row.of[m] + k)));
    }
    for (int m = 0; m < M; m++) sum[m] = (Sixteen)_mm512_add_ps(s[m], t[m]);
#else
    Sixteen s[M] = {}, t[M] = {}, even, odd;
    for (long k = 0; k < n; k += 2) {
        two(p + 16 * k, even, odd);
        for (int m = 0; m < M; m++) s[m] += even * widen(x[m * n + k]), t[m] += odd * widen(x[m * n + k + 1]);
    }
    for (int m = 0; m < M; m++) sum[m] = s[m] + t[m];
#endif
}

#if WHOLE
inline __m512i widened(const int8_t *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p)); }
#endif

template <int M>
inline void products(const int8_t *p, const int16_t *x, const float *factor, long n, Sixteen *sum) {
    for (int m = 0; m < M; m++) sum[m] = Sixteen{};
    Begins<M, int16_t> row(x, n);
    for (long first = 0, c = 0; first < n; first += CHUNK, c++) {
        long last = n - first < CHUNK ? n : first + CHUNK;
        const float *f = factor + c;
#if WHOLE
        __m512i s[M], t[M];
        for (int m = 0; m < M; m++) s[m] = t[m] = _mm512_setzero_si512();
        long k = first;
        for (; k + 2 < last; k += 4) {
            __m512i one = widened(p + 16 * k), other = widened(p + 16 * k + 32);
            for (int m = 0; m < M; m++) {
                s[m] = _mm512_dpwssd_epi32(s[m], one, _mm512_set1_epi32(read<int32_t>(row.of[m] + k)));
                t[m] = _mm512_dpwssd_epi32(t[m], other, _mm512_set1_epi32(read<int32_t>(row.of[m] + k + 2)));
            }
        }
        for (; k < last; k += 2) {
            __m512i one = widened(p + 16 * k);
            for (int m = 0; m < M; m++)
                s[m] = _mm512_dpwssd_epi32(s[m], one, _mm512_set1_epi32(read<int32_t>(row.of[m] + k)));
        }
        for (int m = 0; m < M; m++)
            sum[m] += (Sixteen)_mm512_cvtepi32_ps(_mm512_add_epi32(s[m], t[m])) * f[m * Rows::chunks(n)];
#else
        for (int m = 0; m < M; m++) {
            int32_t s[16] = {};
            for (long k = first; k < last; k += 2)
                for (int j = 0; j < 16; j++)
                    s[j] += p[16 * k + 2 * j] * row.of[m][k] + p[16 * k + 2 * j + 1] * row.of[m][k + 1];
            for (int j = 0; j < 16; j++) sum[m][j] += s[j] * f[m * Rows::chunks(n)];
        }
#endif
    }
}

// y (m, outputs) = x (m, inputs) W^T for M rows from r, and block b of 16 outputs.
template <int M>
void few(const Weight &w, long kind, const Rows &x, float *y, long r, long b) {
    long n = w.inputs, at = b * n * 16;
    Sixteen sum[M];
    if (kind == FLOAT) products<M>((const float *)w.data + at, x.exact.data() + r * n, n, sum);
    else if (kind == BF16) products<M>((const uint16_t *)w.data + at, x.narrow.data() + r * n, n, sum);
    else {
        products<M>((const int8_t *)w.data + at, x.whole.data() + r * n, x.factor.data() + r * Rows::chunks(n), n, sum);
        for (int m = 0; m < M; m++) sum[m] *= read<Sixteen>(w.factor + 16 * b);
    }
    for (int m = 0; m < M; m++) write(y + (r + m) * w.outputs + 16 * b, sum[m]);
}

#if TILES
struct Shape {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// 32 inputs of 16 outputs, int8 -> bfloat16 (exact).
inline void unpack(const int8_t *p, uint16_t *out) {
    for (int r = 0; r < 16; r++) {
        __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(p + 32 * r)));
        __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(wide)));
        __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(wide, 1)));
        _mm512_storeu_si512(out + 32 * r, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

// Like `few`, but for many rows by tiles: blocks of 32 (or 16) rows by 16 outputs. The rows of xb are padded to 32.
void many(const Weight &w, long kind, const uint16_t *xb, float *y, long m, long first, long last) {
    long n = w.inputs, deep = n / 32;
    alignas(64) float out[32 * 16];
    std::vector<uint16_t> room(kind == INT8 ? n * 16 : 0);
    for (long b = first; b < last; b++) {
        const uint16_t *right = (const uint16_t *)w.data + b * n * 16;
        if (kind == INT8) {
            for (long k = 0; k < deep; k++) unpack((const int8_t *)w.data + (b * deep + k) * 512, room.data() + 512 * k);
            right = room.data();
        }
        for (long r = 0; r < m; r += 32) {
            bool both = m - r > 16;
            const uint16_t *left = xb + r * n;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            long k = 0;
            for (; k + 1 < deep; k += 2) {  // two accumulators for each block, to hide latency
                _tile_loadd(4, left + 32 * k, 2 * n);
                _tile_loadd(5, right + 512 * k, 64);
                _tile_dpbf16ps(0, 4, 5);
                _tile_loadd(6, left + 32 * k + 32, 2 * n);
                _tile_loadd(7, right + 512 * k + 512, 64);
                _tile_dpbf16ps(1, 6, 7);
                if (both) {
                    _tile_loadd(4, left + 32 * k + 16 * n, 2 * n);
                    _tile_dpbf16ps(2, 4, 5);
                    _tile_loadd(6, left + 32 * k + 32 + 16 * n, 2 * n);
                    _tile_dpbf16ps(3, 6, 7);
                }
            }
            for (; k < deep; k++) {
                _tile_loadd(4, left + 32 * k, 2 * n);
                _tile_loadd(5, right + 512 * k, 64);
                _tile_dpbf16ps(0, 4, 5);
                if (both) {
                    _tile_loadd(4, left + 32 * k + 16 * n, 2 * n);
                    _tile_dpbf16ps(2, 4, 5);
                }
            }
            for (long half = 0; half < (both ? 2 : 1); half++) {
                if (half) {
                    _tile_stored(2, out, 64);
                    _tile_stored(3, out + 256, 64);
                } else {
                    _tile_stored(0, out, 64);
                    _tile_stored(1, out + 256, 64);
                }
                __m512 factor = kind == INT8 ? _mm512_loadu_ps(w.factor + 16 * b) : _mm512_set1_ps(1.0f);
                for (long i = 0; i < 16 && r + 16 * half + i < m; i++) {
                    __m512 sum = _mm512_add_ps(_mm512_load_ps(out + 16 * i), _mm512_load_ps(out + 256 + 16 * i));
                    _mm512_storeu_ps(y + (r + 16 * half + i) * w.outputs + 16 * b, _mm512_mul_ps(sum, factor));
                }
            }
        }
    }
}
#endif

void multiply(const Net &net, const Weight &w, const Rows &x, float *y, long m, Part part) {
    long first, last;
    part.range(w.outputs / 16, first, last);
#if TILES
    if (net.tiles && net.kind != FLOAT && w.inputs % 32 == 0 && m > 4) {
        many(w, net.kind, x.narrow.data(), y, m, first, last);
        return;
    }
#endif
    constexpr long MOST = 8;
    static void (*const of[MOST])(const Weight &, long, const Rows &, float *, long, long) = {
        few<1>, few<2>, few<3>, few<4>, few<5>, few<6>, few<7>, few<8>};
    long groups = (m + MOST - 1) / MOST;
    for (long b = first; b < last; b++)  // a block of weights is used for all rows while it is in the cache
        for (long g = 0; g < groups; g++) {
            long r = m * g / groups, end = m * (g + 1) / groups;
            of[end - r - 1](w, net.kind, x, y, r, b);
        }
}

// ---------------------------------------------------------------------------------------------- attention

// Scores of the 16 positions of each of N blocks of keys. The values v, which are needed next, are prefetched.
template <int N, class T>
inline void scores(const float *q, const T *k, const T *v, float *out, long dim) {
    Sixteen a[N] = {}, b[N] = {}, even, odd;
    for (long d = 0; d < dim; d += 2)
        for (int i = 0; i < N; i++) {
            two(k + (i * dim + d) * 16, even, odd);
            __builtin_prefetch(v + (i * dim + d) * 16);
            a[i] += even * q[d], b[i] += odd * q[d + 1];
        }
    for (int i = 0; i < N; i++) write(out + 16 * i, a[i] + b[i]);
}

// out (16 N) = sum of s[j] v[j] for j = from ... n - 1, with values v (positions, dim).
template <int N, class T>
inline void weigh(const float *s, const T *v, float *out, long from, long n, long dim) {
    Sixteen a[N] = {}, b[N] = {};
    long j = from;
    for (; j + 1 < n; j += 2)
        for (int i = 0; i < N; i++) {
            a[i] += sixteen(v + j * dim + 16 * i) * s[j];
            b[i] += sixteen(v + (j + 1) * dim + 16 * i) * s[j + 1];
        }
    for (int i = 0; i < N; i++) {
        if (j < n) a[i] += sixteen(v + j * dim + 16 * i) * s[j];
        write(out + 16 * i, a[i] + b[i]);
    }
}

inline void put_key(float *k, long place, long d, float v) { k[d * 16 + place] = v; }
inline void put_key(uint16_t *k, long place, long d, float v) { k[d / 2 * 32 + 2 * place + d % 2] = narrow(v); }
inline void put(float *p, float v) { *p = v; }
inline void put(uint16_t *p, float v) { *p = narrow(v); }
inline float get(const float *p) { return *p; }
inline float get(const uint16_t *p) { return widen(*p); }

// Attention of one head of one token to positions from ... place. s is scratch space for them, padded to blocks of 16.
template <class T>
void look(const float *q, const T *k, const T *v, float *out, float *s, long from, long place, long dim) {
    long n = place + 1, b = from / 16, blocks = (n + 15) / 16, d = 0;
    for (; b + 4 <= blocks; b += 4) scores<4>(q, k + b * 16 * dim, v + b * 16 * dim, s + 16 * b, dim);
    for (; b < blocks; b++) scores<1>(q, k + b * 16 * dim, v + b * 16 * dim, s + 16 * b, dim);
    float top = -INFINITY, factor = 1 / std::sqrt(float(dim));
    for (long j = from / 16 * 16; j < from; j++) s[j] = -INFINITY;
    for (long j = n; j < blocks * 16; j++) s[j] = -INFINITY;
    Sixteen best = read<Sixteen>(s + from / 16 * 16), sum = {};
    for (b = from / 16; b < blocks; b++) {
        Sixteen now = read<Sixteen>(s + 16 * b);
        best = now > best ? now : best;
    }
    for (int i = 0; i < 16; i++) top = best[i] > top ? best[i] : top;
    for (b = from / 16; b < blocks; b++) {
        for (long j = 16 * b; j < 16 * b + 16; j++) s[j] = fast_exp((s[j] - top) * factor);  // 1e-38 outside of the range
        sum += read<Sixteen>(s + 16 * b);
    }
    float whole = 0;
    for (int i = 0; i < 16; i++) whole += sum[i];
    for (; d + 64 <= dim; d += 64) weigh<4>(s, v + d, out + d, from, n, dim);
    for (; d + 16 <= dim; d += 16) weigh<1>(s, v + d, out + d, from, n, dim);
    for (long e = d; e < dim; e++) out[e] = 0;
    for (long j = from; j < n && d < dim; j++)
        for (long e = d; e < dim; e++) out[e] += s[j] * get(v + j * dim + e);
    for (long e = 0; e < dim; e++) out[e] /= whole;
}

// ---------------------------------------------------------------------------------------------- the step

inline float scale_of(const float *x, long n, float eps) {
    float square = 0;
    for (long i = 0; i < n; i++) square += x[i] * x[i];
    return 1 / std::sqrt(square / n + eps);
}

inline void turn(float *x, const float *w, const float *cos, const float *sin, long dim, float eps) {
    long half = dim / 2;
    float s = w ? scale_of(x, dim, eps) : 1;
    for (long i = 0; i < half; i++) {
        float a = x[i] * s * (w ? w[i] : 1), b = x[i + half] * s * (w ? w[i + half] : 1);
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

struct Room {  // scratch space of a step, reused by later calls
    std::vector<float> h, qkv, y, wide;
    Rows x, act;
};

template <class T>
void attend(const Net &net, const Layer &layer, const Store &kept, long l, long m, const int64_t *slot, const int64_t *place,
            const int64_t *start, Room &room, Part part) {
    long rows = net.heads + 2 * net.kv, dim = net.dim, stride = layer.qkv.outputs, first, last;
    part.range(m * rows, first, last);
    for (long job = first; job < last; job++) {
        long r = job / rows, h = job % rows, p = place[r];
        float *x = room.qkv.data() + r * stride + h * dim;
        if (layer.bias)
            for (long d = 0; d < dim; d++) x[d] += layer.bias[h * dim + d];
        if (h < net.heads + net.kv)
            turn(x, h < net.heads ? layer.q_norm : layer.k_norm, net.cos + p * (dim / 2), net.sin + p * (dim / 2), dim, net.eps);
        if (h < net.heads) continue;
        long kv = (h - net.heads) % net.kv, at = ((l * kept.slots + slot[r]) * net.kv + kv) * kept.capacity * dim;
        if (h < net.heads + net.kv) {
            T *k = (T *)kept.k + at + p / 16 * 16 * dim;
            for (long d = 0; d < dim; d++) put_key(k, p % 16, d, x[d]);
        } else {
            T *v = (T *)kept.v + at + p * dim;
            for (long d = 0; d < dim; d++) put(v + d, x[d]);
        }
    }
#pragma omp barrier
    std::vector<float> s(kept.capacity + 16);
    part.range(m * net.heads, first, last);
    for (long job = first; job < last; job++) {
        long r = job / net.heads, h = job % net.heads;
        long at = ((l * kept.slots + slot[r]) * net.kv + h / (net.heads / net.kv)) * kept.capacity * dim;
        look(room.qkv.data() + r * stride + h * dim, (const T *)kept.k + at, (const T *)kept.v + at,
             room.act.exact.data() + r * net.heads * dim + h * dim, s.data(), start[r], place[r], dim);
    }
}

}  // namespace

// Feeds m tokens of the sequences in `slot` at the positions `place`: their keys and values are written to the store, and
// the logits (wanted, head.outputs) of the rows in `want` are computed. Each attends to positions start ... place. c (m,
// width) is added to the embeddings and may be null. All earlier positions of a sequence must be stored or part of the call.
extern "C" void decode_step(const Net *given, const Store *kept, long m, const int64_t *token, const int64_t *slot,
                            const int64_t *place, const int64_t *start, const float *c, long wanted, const int64_t *want, float *logits, long threads) {
    static thread_local Room room;
    const Net &net = *given;
    long width = net.width, inner = net.heads * net.dim, filled = (m + 31) / 32 * 32;
    long widest = inner > net.mlp ? inner : net.mlp;
    room.h.resize(filled * width);
    room.x.resize(net.kind, filled * width);
    room.y.resize(filled * ((width + 15) / 16 * 16));
    room.qkv.resize(filled * net.layer[0].qkv.outputs);
    room.wide.resize(filled * net.layer[0].gate_up.outputs);
    room.act.resize(net.kind, filled * widest);
    Room &shared = room;
#pragma omp parallel num_threads(threads)
    {
        Part part = {omp_get_thread_num(), omp_get_num_threads()};
        Room &room = shared;
        long first, last;
#if TILES
        if (net.tiles) {
            Shape shape;
            _tile_loadconfig(&shape);
        }
#endif
        part.range(m, first, last);
        auto normed = [&](const float *w, const Weight *add) {  // h += y (of `add`), x = norm(h)
            for (long r = first; r < last; r++) {
                float *h = room.h.data() + r * width, *x = room.x.exact.data() + r * width;
                if (add)
                    for (long i = 0; i < width; i++) h[i] += room.y[r * add->outputs + i];
                float s = scale_of(h, width, net.eps);
                for (long i = 0; i < width; i++) x[i] = h[i] * s * w[i];
                room.x.round(net.kind, r, width);
            }
        };
        for (long r = first; r < last; r++)
            for (long i = 0; i < width; i++)
                room.h[r * width + i] = net.embedding[token[r] * width + i] + (c ? c[r * width + i] : 0) +
                                        (net.position ? net.position[place[r] * width + i] : 0);
        for (long l = 0; l < net.layers; l++) {
            const Layer &layer = net.layer[l];
            normed(layer.attention_norm, l ? &net.layer[l - 1].down : nullptr);
#pragma omp barrier
            multiply(net, layer.qkv, room.x, room.qkv.data(), m, part);
#pragma omp barrier
            if (net.kind == FLOAT) attend<float>(net, layer, *kept, l, m, slot, place, start, room, part);
            else attend<uint16_t>(net, layer, *kept, l, m, slot, place, start, room, part);
#pragma omp barrier
            for (long r = first; r < last; r++) room.act.round(net.kind, r, inner);
#pragma omp barrier
            multiply(net, layer.out, room.act, room.y.data(), m, part);
#pragma omp barrier
            normed(layer.mlp_norm, &layer.out);
#pragma omp barrier
            multiply(net, layer.gate_up, room.x, room.wide.data(), m, part);
#pragma omp barrier
            for (long r = first; r < last; r++) {
                const float *gate = room.wide.data() + r * layer.gate_up.outputs, *up = gate + net.mlp;
                float *a = room.act.exact.data() + r * net.mlp;
                for (long i = 0; i < net.mlp; i++) a[i] = gate[i] / (1 + fast_exp(-gate[i])) * up[i];
                room.act.round(net.kind, r, net.mlp);
            }
#pragma omp barrier
            multiply(net, layer.down, room.act, room.y.data(), m, part);
#pragma omp barrier
        }
        normed(net.norm, &net.layer[net.layers - 1].down);
#pragma omp barrier
#pragma omp single
        for (long j = 0; j < wanted; j++)  // moves the wanted rows to the front; they are in increasing order
            room.x.move(net.kind, want[j], j, width);
        multiply(net, net.head, room.x, logits, wanted, part);
#if TILES
        if (net.tiles) _tile_release();
#endif
    }
}
