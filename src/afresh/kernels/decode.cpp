// One step of a decoder with a key/value cache, for any tokens of any sequences at once: the first tokens of one prompt, the
// next token of another. Weights are float, bfloat16 or int8 (with a factor for every output), packed once; sums are float.
//
// Packed weights (o, i): blocks of 16 outputs, [o / 16][i / 2][16][2] (floats: [o / 16][i][16]), so that one vector holds 16
// outputs, and so that 32 inputs of a block are one right operand of AMX tiles.

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

namespace {

enum Kind { FLOAT = 0, BF16 = 1, INT8 = 2 };

struct Weight {
    const void *data;
    const float *factor;  // of each output, for int8
    long outputs, inputs;  // outputs filled up to a multiple of 16
};

struct Layer {
    const float *attention_norm, *mlp_norm, *q_norm, *k_norm, *bias;  // q_norm, k_norm, bias may be null
    Weight qkv, out, gate_up, down;
};

struct Net {
    long kind, layers, width, heads, kv, dim, mlp, tiles;
    float eps;
    const float *embedding, *position, *cos, *sin, *norm;  // position (learnt) may be null; cos, sin (places, dim / 2)
    Weight head;
    const Layer *layer;
};

// Keys [layers][slots][kv][capacity / 16][dim / 2][16][2] (floats: [dim][16]); values [layers][slots][kv][capacity][dim].
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

struct Part {  // of the threads that run together
    long me, all;
    void range(long n, long &first, long &last) const { first = n * me / all, last = n * (me + 1) / all; }
};

// ---------------------------------------------------------------------------------------------- products

// y (M, outputs) = x (M, inputs) W^T for M rows at once, over blocks first ... last - 1 of 16 outputs.
template <int M>
void few(const Weight &w, long kind, const float *x, const uint16_t *xb, float *y, long first, long last) {
    long n = w.inputs;
    for (long b = first; b < last; b++) {
        float sum[M][16] = {};
        if (kind == FLOAT) {
            const float *p = (const float *)w.data + b * n * 16;
            Sixteen s[M] = {}, t[M] = {};  // two sums, so that one need not wait for the other
            for (long k = 0; k + 1 < n; k += 2) {
                Sixteen even, odd;
                std::memcpy(&even, p + 16 * k, 64);
                std::memcpy(&odd, p + 16 * k + 16, 64);
                for (int m = 0; m < M; m++) s[m] += even * x[m * n + k], t[m] += odd * x[m * n + k + 1];
            }
            for (int m = 0; m < M; m++) s[m] += t[m];
            std::memcpy(sum, s, sizeof sum);
        } else if (kind == BF16) {
            const uint16_t *p = (const uint16_t *)w.data + b * n * 16;
#if TILES
            __m512 s[M];
            for (int m = 0; m < M; m++) s[m] = _mm512_setzero_ps();
            for (long k = 0; k < n / 2; k++) {
                __m512bh v = (__m512bh)_mm512_loadu_si512(p + 32 * k);
                for (int m = 0; m < M; m++) {
                    int32_t pair;
                    std::memcpy(&pair, xb + m * n + 2 * k, 4);
                    s[m] = _mm512_dpbf16_ps(s[m], v, (__m512bh)_mm512_set1_epi32(pair));
                }
            }
            for (int m = 0; m < M; m++) _mm512_storeu_ps(sum[m], s[m]);
#else
            for (long k = 0; k < n; k += 2)
                for (int m = 0; m < M; m++)
                    for (int j = 0; j < 16; j++)
                        sum[m][j] += widen(p[16 * k + 2 * j]) * widen(xb[m * n + k]) + widen(p[16 * k + 2 * j + 1]) * widen(xb[m * n + k + 1]);
#endif
        } else {
            const int8_t *p = (const int8_t *)w.data + b * n * 16;
#if TILES
            __m512 s[M];
            for (int m = 0; m < M; m++) s[m] = _mm512_setzero_ps();
            for (long k = 0; k < n / 2; k++) {
                __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(p + 32 * k)));
                __m512 even = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(wide, 16), 16));
                __m512 odd = _mm512_cvtepi32_ps(_mm512_srai_epi32(wide, 16));
                for (int m = 0; m < M; m++) {
                    s[m] = _mm512_fmadd_ps(even, _mm512_set1_ps(widen(xb[m * n + 2 * k])), s[m]);
                    s[m] = _mm512_fmadd_ps(odd, _mm512_set1_ps(widen(xb[m * n + 2 * k + 1])), s[m]);
                }
            }
            for (int m = 0; m < M; m++) _mm512_storeu_ps(sum[m], s[m]);
#else
            for (long k = 0; k < n; k += 2)
                for (int m = 0; m < M; m++)
                    for (int j = 0; j < 16; j++)
                        sum[m][j] += p[16 * k + 2 * j] * widen(xb[m * n + k]) + p[16 * k + 2 * j + 1] * widen(xb[m * n + k + 1]);
#endif
        }
        for (int m = 0; m < M; m++)
            for (int j = 0; j < 16; j++)
                y[m * w.outputs + 16 * b + j] = sum[m][j] * (kind == INT8 ? w.factor[16 * b + j] : 1.0f);
    }
}

#if TILES
struct Shape {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// 32 inputs of 16 outputs in int8 -> the same in bfloat16, exactly.
inline void unpack(const int8_t *p, uint16_t *out) {
    for (int r = 0; r < 16; r++) {
        __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(p + 32 * r)));
        __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(wide)));
        __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(wide, 1)));
        _mm512_storeu_si512(out + 32 * r, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

// The same for many rows by tiles: blocks of 32 rows (or 16) by 32 outputs. xb has its rows filled up to 32.
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
            for (; k + 1 < deep; k += 2) {  // two sums a block, so that one need not wait for the other
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

void multiply(const Net &net, const Weight &w, const float *x, const uint16_t *xb, float *y, long m, Part part) {
    long first, last;
    part.range(w.outputs / 16, first, last);
#if TILES
    if (net.tiles && net.kind != FLOAT && w.inputs % 32 == 0 && m > 4) {
        many(w, net.kind, xb, y, m, first, last);
        return;
    }
#endif
    for (long b = first; b < last; b++)  // a block of weights serves all rows while it is in the cache
        for (long r = 0; r < m; r += 4) {
            const float *xr = x + r * w.inputs;
            const uint16_t *xbr = xb + r * w.inputs;
            float *yr = y + r * w.outputs;
            if (m - r >= 4) few<4>(w, net.kind, xr, xbr, yr, b, b + 1);
            else if (m - r == 3) few<3>(w, net.kind, xr, xbr, yr, b, b + 1);
            else if (m - r == 2) few<2>(w, net.kind, xr, xbr, yr, b, b + 1);
            else few<1>(w, net.kind, xr, xbr, yr, b, b + 1);
        }
}

// ---------------------------------------------------------------------------------------------- attention

// Scores of the 16 places of a block of keys.
inline void scores(const float *q, const float *k, float *out, long dim) {
    Sixteen sum = {}, key;
    for (long d = 0; d < dim; d++) {
        std::memcpy(&key, k + 16 * d, 64);
        sum += key * q[d];
    }
    std::memcpy(out, &sum, 64);
}
inline void scores(const float *q, const uint16_t *k, float *out, long dim) {
#if TILES
    __m512 a = _mm512_setzero_ps(), b = _mm512_setzero_ps();
    for (long d = 0; d < dim; d += 2) {
        __m512i v = _mm512_loadu_si512(k + 16 * d);
        a = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(v, 16)), _mm512_set1_ps(q[d]), a);
        b = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(int(0xffff0000)))), _mm512_set1_ps(q[d + 1]), b);
    }
    _mm512_storeu_ps(out, _mm512_add_ps(a, b));
#else
    float sum[16] = {};
    for (long d = 0; d < dim; d += 2)
        for (int j = 0; j < 16; j++) sum[j] += q[d] * widen(k[16 * d + 2 * j]) + q[d + 1] * widen(k[16 * d + 2 * j + 1]);
    std::memcpy(out, sum, sizeof sum);
#endif
}

inline void put_key(float *k, long place, long d, float v) { k[d * 16 + place] = v; }
inline void put_key(uint16_t *k, long place, long d, float v) { k[d / 2 * 32 + 2 * place + d % 2] = narrow(v); }
inline void put(float *p, float v) { *p = v; }
inline void put(uint16_t *p, float v) { *p = narrow(v); }
inline float get(const float *p) { return *p; }
inline float get(const uint16_t *p) { return widen(*p); }

// One head of one token: over places from ... place.
template <class T>
void look(const float *q, const T *k, const T *v, float *out, float *s, long from, long place, long dim) {
    long n = place + 1;
    float top = -INFINITY, sum = 0, factor = 1 / std::sqrt(float(dim));
    for (long b = from / 16; b * 16 < n; b++) scores(q, k + b * 16 * dim, s + 16 * b, dim);
    for (long j = from; j < n; j++) top = s[j] > top ? s[j] : top;
    for (long j = from; j < n; j++) s[j] = fast_exp((s[j] - top) * factor);
    for (long j = from; j < n; j++) sum += s[j];
    for (long d = 0; d < dim; d++) out[d] = 0;
    for (long j = from; j < n; j++) {
        float p = s[j] / sum;
        for (long d = 0; d < dim; d++) out[d] += p * get(v + j * dim + d);
    }
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

struct Room {  // of one step, kept from call to call
    std::vector<float> h, x, qkv, y, wide, act;
    std::vector<uint16_t> xb, actb;
};

void rounded(const float *x, uint16_t *b, long n) {
    for (long i = 0; i < n; i++) b[i] = narrow(x[i]);
}

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
             room.act.data() + r * net.heads * dim + h * dim, s.data(), start[r], place[r], dim);
    }
}

}  // namespace

// Tokens (m) of sequences in `slot` at `place`: their keys and values go to the store; logits (wanted, head.outputs) of the rows
// in `want`. Each looks at places start ... place. c (m, width), added to the embeddings, may be null. Rows of one sequence must come with all places before theirs.
extern "C" void decode_step(const Net *given, const Store *kept, long m, const int64_t *token, const int64_t *slot,
                            const int64_t *place, const int64_t *start, const float *c, long wanted, const int64_t *want, float *logits, long threads) {
    static thread_local Room room;
    const Net &net = *given;
    long width = net.width, inner = net.heads * net.dim, filled = (m + 31) / 32 * 32;
    long widest = inner > net.mlp ? inner : net.mlp;
    room.h.resize(filled * width);
    room.x.resize(filled * width);
    room.xb.resize(filled * width);
    room.y.resize(filled * ((width + 15) / 16 * 16));
    room.qkv.resize(filled * net.layer[0].qkv.outputs);
    room.wide.resize(filled * net.layer[0].gate_up.outputs);
    room.act.resize(filled * widest);
    room.actb.resize(filled * widest);
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
                float *h = room.h.data() + r * width, *x = room.x.data() + r * width;
                if (add)
                    for (long i = 0; i < width; i++) h[i] += room.y[r * add->outputs + i];
                float s = scale_of(h, width, net.eps);
                for (long i = 0; i < width; i++) x[i] = h[i] * s * w[i];
                rounded(x, room.xb.data() + r * width, width);
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
            multiply(net, layer.qkv, room.x.data(), room.xb.data(), room.qkv.data(), m, part);
#pragma omp barrier
            if (net.kind == FLOAT) attend<float>(net, layer, *kept, l, m, slot, place, start, room, part);
            else attend<uint16_t>(net, layer, *kept, l, m, slot, place, start, room, part);
#pragma omp barrier
            for (long r = first; r < last; r++) rounded(room.act.data() + r * inner, room.actb.data() + r * inner, inner);
#pragma omp barrier
            multiply(net, layer.out, room.act.data(), room.actb.data(), room.y.data(), m, part);
#pragma omp barrier
            normed(layer.mlp_norm, &layer.out);
#pragma omp barrier
            multiply(net, layer.gate_up, room.x.data(), room.xb.data(), room.wide.data(), m, part);
#pragma omp barrier
            for (long r = first; r < last; r++) {
                const float *gate = room.wide.data() + r * layer.gate_up.outputs, *up = gate + net.mlp;
                float *a = room.act.data() + r * net.mlp;
                for (long i = 0; i < net.mlp; i++) a[i] = gate[i] / (1 + fast_exp(-gate[i])) * up[i];
                rounded(a, room.actb.data() + r * net.mlp, net.mlp);
            }
#pragma omp barrier
            multiply(net, layer.down, room.act.data(), room.actb.data(), room.y.data(), m, part);
#pragma omp barrier
        }
        normed(net.norm, &net.layer[net.layers - 1].down);
#pragma omp barrier
#pragma omp single
        for (long j = 0; j < wanted; j++) {  // the rows asked for, moved to the front; they are in rising order
            std::memmove(room.x.data() + j * width, room.x.data() + want[j] * width, width * sizeof(float));
            std::memmove(room.xb.data() + j * width, room.xb.data() + want[j] * width, width * sizeof(uint16_t));
        }
        multiply(net, net.head, room.x.data(), room.xb.data(), logits, wanted, part);
#if TILES
        if (net.tiles) _tile_release();
#endif
    }
}
