// Products on AMX tiles: attention, and the gradient of a linear map's weight, dW = dY^T X, summed in float. The library
// multiplies a transposed matrix at a third of the speed of a plain one; here both operands are packed into tiles first.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <vector>

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

struct Shape {  // configuration of the eight tiles: 16 rows of 64 bytes
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// 32 rows (stride in numbers) of 32 bf16 -> two tiles of 16 rows of 16 pairs (row 2r, row 2r + 1), the layout of a right
// operand. Cache lines are read as a whole, since rows a power of two apart would evict one another.
inline void pairs(const uint16_t *in, long stride, uint32_t *one, uint32_t *two) {
    for (long r = 0; r < 16; r++) {
        const uint16_t *p = in + 2 * r * stride;
        __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + stride);
        __m512i a0 = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(a)), b0 = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(b));
        __m512i a1 = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(a, 1));
        __m512i b1 = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(b, 1));
        _mm512_storeu_si512(one + 16 * r, _mm512_or_si512(a0, _mm512_slli_epi32(b0, 16)));
        _mm512_storeu_si512(two + 16 * r, _mm512_or_si512(a1, _mm512_slli_epi32(b1, 16)));
    }
}

// Transposes 16 x 16 words of 32 bits in place.
inline void transpose(uint32_t *m) {
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(m + 16 * i);
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        _mm512_storeu_si512(m + 16 * i, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
        _mm512_storeu_si512(m + 16 * (i + 8), _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
    }
}

// The tiles of the left operand: offsets in bytes of the next row, of the next step, and of the 16 rows below (`down`).
struct Left {
    const void *at;
    long row, step, down;
};

// A block of 32 x 32: out (+)= left right, summed over `steps` times 32 numbers. The right operand consists of two
// sequences of packed tiles.
inline void product(Left l, const uint32_t *r0, const uint32_t *r1, float *out, long stride, long steps, bool add) {
    float *below = out + 16 * stride;
    const char *upper = (const char *)l.at, *lower = upper + l.down;
    if (add) {
        _tile_loadd(0, out, 4 * stride);
        _tile_loadd(1, out + 16, 4 * stride);
        _tile_loadd(2, below, 4 * stride);
        _tile_loadd(3, below + 16, 4 * stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (long k = 0; k < steps; k++) {
        _tile_loadd(4, upper + l.step * k, l.row);
        _tile_loadd(6, r0 + 256 * k, 64);
        _tile_loadd(5, lower + l.step * k, l.row);
        _tile_loadd(7, r1 + 256 * k, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, 4 * stride);
    _tile_stored(1, out + 16, 4 * stride);
    _tile_stored(2, below, 4 * stride);
    _tile_stored(3, below + 16, 4 * stride);
}

constexpr long DEEP = 8;  // tiles in a panel of the left operand: two panels of 8 KiB fit the L1 cache
constexpr long WIDE = 32;  // tiles of columns of the right operand in a pass: they fit the L2 cache

// ---------------------------------------------------------------------------------------------- attention

// Packs rows (t, stride) of `dim` numbers as a right operand that is summed over the rows: tiles [dim / 16][t / 32].
inline void pack(const uint16_t *in, long stride, long t, long dim, uint32_t *out) {
    for (long s = 0; s < t / 32; s++)
        for (long c = 0; c < dim / 16; c += 2)
            pairs(in + 32 * s * stride + 16 * c, stride, out + (c * (t / 32) + s) * 256, out + ((c + 1) * (t / 32) + s) * 256);
}

// The same for a right operand that is summed over the numbers of a row: tiles [t / 16][dim / 32].
inline void pack_transposed(const uint16_t *in, long stride, long t, long dim, uint32_t *out) {
    for (long n = 0; n < t / 16; n++)
        for (long d = 0; d < dim / 32; d++) {
            uint32_t *tile = out + (n * (dim / 32) + d) * 256;
            for (long r = 0; r < 16; r++) std::memcpy(tile + 16 * r, in + (16 * n + r) * stride + 32 * d, 64);
            transpose(tile);
        }
}

inline __m512 widen(const uint16_t *p) {  // 16 bf16 -> float
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

inline void narrow(uint16_t *p, __m512 v) {  // 16 float -> bf16, rounded to nearest
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(v));
}

inline __m512 exponential(__m512 x) {  // like fast_exp in numbers.h
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504089f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

// One row of scores (float) to probabilities (bf16) of positions from ... to - 1; zero for others up to `end`, a multiple
// of 32.
inline void softmax_row(float *s, uint16_t *p, long from, long to, long end, float factor) {
    const __m512i count = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (long j = 0; j < end; j += 16) {
        __m512i place = _mm512_add_epi32(count, _mm512_set1_epi32(int(j)));
        __mmask16 seen = _mm512_cmp_epi32_mask(place, _mm512_set1_epi32(int(from)), _MM_CMPINT_NLT) &
                         _mm512_cmp_epi32_mask(place, _mm512_set1_epi32(int(to)), _MM_CMPINT_LT);
        __m512 v = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), seen, s + j);
        _mm512_storeu_ps(s + j, v);
        top = _mm512_max_ps(v, top);
    }
    __m512 most = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (long j = 0; j < end; j += 16) {
        __m512 v = _mm512_loadu_ps(s + j);
        __mmask16 seen = _mm512_cmp_ps_mask(v, _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ);  // true for NaN
        __m512 e = _mm512_maskz_mov_ps(seen, exponential(_mm512_mul_ps(_mm512_sub_ps(v, most), _mm512_set1_ps(factor))));
        e = _mm512_mask_mov_ps(e, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), v);
        _mm512_storeu_ps(s + j, e);
        sum = _mm512_add_ps(sum, e);
    }
    __m512 inverse = _mm512_set1_ps(1 / _mm512_reduce_add_ps(sum));
    for (long j = 0; j < end; j += 16) narrow(p + j, _mm512_mul_ps(_mm512_loadu_ps(s + j), inverse));
}

struct Tiled {  // configures and releases the tiles of a thread
    Tiled() {
        Shape shape;
        _tile_loadconfig(&shape);
    }
    ~Tiled() { _tile_release(); }
};

}  // namespace

// Softmax attention: q (batch, heads, t, dim), k and v (batch, kv, t, dim) -> out (batch, t, heads, dim), and the
// probabilities p (batch, heads, t, t), which are written only where a position may attend. start (batch, t), the first
// position to attend to, may be null. t and dim must be multiples of 32.
extern "C" void attention(const uint16_t *q, const uint16_t *k, const uint16_t *v, const int32_t *start, uint16_t *out,
                          uint16_t *p, long batch, long heads, long kv, long t, long dim, long causal, float factor) {
#pragma omp parallel
    {
        Tiled tiled;
        std::vector<uint32_t> kt(t * dim / 2), vp(t * dim / 2);
        std::vector<float> s(32 * t);
        alignas(64) float o[32 * 32];
        long parts = omp_get_num_threads(), me = omp_get_thread_num(), jobs = batch * heads;
        for (long job = jobs * me / parts; job < jobs * (me + 1) / parts; job++) {
            long b = job / heads, h = job % heads, from = (b * kv + h / (heads / kv)) * t * dim;
            pack_transposed(k + from, dim, t, dim, kt.data());
            pack(v + from, dim, t, dim, vp.data());
            for (long i = 0; i < t; i += 32) {
                long end = causal ? i + 32 : t;
                Left rows = {q + (job * t + i) * dim, 2 * dim, 64, 32 * dim};
                for (long j = 0; j < end; j += 32) {
                    const uint32_t *right = kt.data() + j / 16 * (dim / 32) * 256;
                    product(rows, right, right + dim / 32 * 256, s.data() + j, t, dim / 32, false);
                }
                uint16_t *row = p + (job * t + i) * t;
                for (long r = 0; r < 32; r++)
                    softmax_row(s.data() + r * t, row + r * t, start ? start[b * t + i + r] : 0, causal ? i + r + 1 : t, end, factor);
                for (long c = 0; c < dim; c += 32) {
                    const uint32_t *right = vp.data() + c / 16 * (t / 32) * 256;
                    product({row, 2 * t, 64, 32 * t}, right, right + t / 32 * 256, o, 32, end / 32, false);
                    for (long r = 0; r < 32; r++) {
                        uint16_t *to = out + ((b * t + i + r) * heads + h) * dim + c;
                        narrow(to, _mm512_loadu_ps(o + 32 * r));
                        narrow(to + 16, _mm512_loadu_ps(o + 32 * r + 16));
                    }
                }
            }
        }
    }
}

// The gradient of `attention`; g has the shape of out. A thread handles a head of k with all heads of q that share it.
extern "C" void attention_back(const uint16_t *g, const uint16_t *q, const uint16_t *k, const uint16_t *v, const uint16_t *p,
                               uint16_t *dq, uint16_t *dk, uint16_t *dv, long batch, long heads, long kv, long t, long dim,
                               long causal, float factor) {
#pragma omp parallel
    {
        Tiled tiled;
        std::vector<uint32_t> kp(t * dim / 2), vt(t * dim / 2), qp(t * dim / 2), gp(t * dim / 2), st(t * t / 2), pt(t * t / 2);
        std::vector<float> dp(32 * t), sums(2 * t * dim);
        std::vector<uint16_t> ds(32 * t);
        alignas(64) float o[32 * 32];
        long parts = omp_get_num_threads(), me = omp_get_thread_num(), jobs = batch * kv, deep = t / 32;
        for (long job = jobs * me / parts; job < jobs * (me + 1) / parts; job++) {
            pack(k + job * t * dim, dim, t, dim, kp.data());
            pack_transposed(v + job * t * dim, dim, t, dim, vt.data());
            for (long head = 0; head < heads / kv; head++) {
                long h = job % kv * (heads / kv) + head, b = job / kv, at = (b * heads + h) * t;
                const uint16_t *gh = g + (b * t * heads + h) * dim;
                pack(q + at * dim, dim, t, dim, qp.data());
                pack(gh, heads * dim, t, dim, gp.data());
                for (long i = 0; i < t; i += 32) {
                    long end = causal ? i + 32 : t;
                    Left rows = {gh + i * heads * dim, 2 * heads * dim, 64, 32 * heads * dim};
                    for (long j = 0; j < end; j += 32) {
                        const uint32_t *right = vt.data() + j / 16 * (dim / 32) * 256;
                        product(rows, right, right + dim / 32 * 256, dp.data() + j, t, dim / 32, false);
                    }
                    const uint16_t *pr = p + (at + i) * t;
                    for (long r = 0; r < 32; r++) {
                        __m512 sum = _mm512_setzero_ps();
                        for (long j = 0; j < end; j += 16)
                            sum = _mm512_fmadd_ps(widen(pr + r * t + j), _mm512_loadu_ps(dp.data() + r * t + j), sum);
                        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum)), f = _mm512_set1_ps(factor);
                        for (long j = 0; j < end; j += 16) {
                            __m512 d = _mm512_sub_ps(_mm512_loadu_ps(dp.data() + r * t + j), mean);
                            narrow(ds.data() + r * t + j, _mm512_mul_ps(_mm512_mul_ps(widen(pr + r * t + j), f), d));
                        }
                    }
                    for (long j = 0; j < end; j += 32) {
                        long to = (j / 16 * deep + i / 32) * 256, next = to + deep * 256;
                        pairs(ds.data() + j, t, st.data() + to, st.data() + next);
                        pairs(pr + j, t, pt.data() + to, pt.data() + next);
                        for (uint32_t *tile : {st.data() + to, st.data() + next, pt.data() + to, pt.data() + next}) transpose(tile);
                    }
                    for (long c = 0; c < dim; c += 32) {
                        const uint32_t *right = kp.data() + c / 16 * deep * 256;
                        product({ds.data(), 2 * t, 64, 32 * t}, right, right + deep * 256, o, 32, end / 32, false);
                        for (long r = 0; r < 32; r++) {
                            uint16_t *to = dq + (at + i + r) * dim + c;
                            narrow(to, _mm512_loadu_ps(o + 32 * r));
                            narrow(to + 16, _mm512_loadu_ps(o + 32 * r + 16));
                        }
                    }
                }
                for (long j = 0; j < t; j += 32) {
                    long first = causal ? j / 32 : 0;  // first block of queries that attends to these keys
                    for (long c = 0; c < dim; c += 32) {
                        long left = (j / 16 * deep + first) * 256, right = (c / 16 * deep + first) * 256;
                        float *ks = sums.data() + j * dim + c, *vs = ks + t * dim;
                        const uint32_t *qr = qp.data() + right, *gr = gp.data() + right;
                        product({st.data() + left, 64, 1024, deep * 1024}, qr, qr + deep * 256, ks, dim, deep - first, head > 0);
                        product({pt.data() + left, 64, 1024, deep * 1024}, gr, gr + deep * 256, vs, dim, deep - first, head > 0);
                    }
                }
            }
            for (long n = 0; n < t * dim; n += 16) {
                narrow(dk + job * t * dim + n, _mm512_loadu_ps(sums.data() + n));
                narrow(dv + job * t * dim + n, _mm512_loadu_ps(sums.data() + t * dim + n));
            }
        }
    }
}

extern "C" int amx_ready() {  // the operating system permits the use of tiles on request
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

// dw (o, i) (+)= dy (n, o)^T x (n, i); n, o and i must be multiples of 32. `packed` is scratch space for n * i numbers.
extern "C" void weight_gradient(const uint16_t *dy, const uint16_t *x, float *dw, uint32_t *packed, long n, long o, long i,
                                long add) {
    long deep = n / 32, wide = i / 16;
#pragma omp parallel
    {
        Tiled tiled;
        long parts = omp_get_num_threads(), me = omp_get_thread_num();
        for (long k = deep * me / parts; k < deep * (me + 1) / parts; k++)
            for (long c = 0; c < wide; c += 2)
                pairs(x + 32 * k * i + 16 * c, i, packed + (c * deep + k) * 256, packed + ((c + 1) * deep + k) * 256);
#pragma omp barrier
        alignas(64) uint32_t left[2 * DEEP * 256];
        for (long far = 0; far < wide; far += WIDE)
            for (long b = o / 32 * me / parts; b < o / 32 * (me + 1) / parts; b++)
                for (long from = 0; from < deep; from += DEEP) {
                    long steps = deep - from < DEEP ? deep - from : DEEP;
                    for (long k = 0; k < steps; k++) {
                        uint32_t *one = left + k * 256, *two = one + DEEP * 256;
                        pairs(dy + 32 * (from + k) * o + 32 * b, o, one, two);
                        transpose(one);
                        transpose(two);
                    }
                    for (long c = far; c < far + WIDE && c < wide; c += 2) {
                        const uint32_t *right = packed + (c * deep + from) * 256;
                        float *out = dw + 32 * b * i + 16 * c;
                        product({left, 64, 1024, DEEP * 1024}, right, right + deep * 256, out, i, steps, add || from > 0);
                    }
                }
    }
}

#else
extern "C" int amx_ready() { return 0; }  // the other functions are not called then
#endif
