// The watermark of tokens: SipHash-2-4 of contexts, and tournament sampling over the likely tokens of some rows of
// probabilities (afresh.services.watermark.watermark).

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15u;
constexpr long BLOCK = 32;  // tokens that are passed over together if none of them is likely

inline uint64_t mix(uint64_t z) {  // of SplitMix64, as afresh.core.rng
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

inline uint64_t rotated(uint64_t x, int bits) { return (x << bits) | (x >> (64 - bits)); }

struct Sip {
    uint64_t a, b, c, d;
    Sip(uint64_t k0, uint64_t k1)
        : a(k0 ^ 0x736f6d6570736575u), b(k1 ^ 0x646f72616e646f6du), c(k0 ^ 0x6c7967656e657261u), d(k1 ^ 0x7465646279746573u) {}
    void rounds(int count) {
        for (int i = 0; i < count; i++) {
            a += b, c += d;
            b = rotated(b, 13) ^ a, d = rotated(d, 16) ^ c;
            a = rotated(a, 32);
            c += b, a += d;
            b = rotated(b, 17) ^ c, d = rotated(d, 21) ^ a;
            c = rotated(c, 32);
        }
    }
    void take(uint64_t word) {
        d ^= word;
        rounds(2);
        a ^= word;
    }
};

inline uint64_t hash(const int64_t *words, long k, const int64_t *key) {
    Sip sip{uint64_t(key[0]), uint64_t(key[1])};
    for (long i = 0; i < k; i++) sip.take(uint64_t(words[i]));
    sip.take(uint64_t(8 * k % 256) << 56);
    sip.c ^= 0xff;
    sip.rounds(4);
    return sip.a ^ sip.b ^ sip.c ^ sip.d;
}

struct Likely {
    std::vector<int32_t> token;
    std::vector<double> p;
    std::vector<uint64_t> bits;
    long count = 0;
    explicit Likely(long vocab) : token(vocab), p(vocab), bits(vocab) {}
};

void take(const double *row, long vocab, double least, Likely &likely) {
    long n = 0;
    for (long first = 0; first < vocab; first += BLOCK) {
        long last = std::min(first + BLOCK, vocab);
        int any = 0;
        for (long i = first; i < last; i++) any |= row[i] >= least;
        if (!any) continue;
        for (long i = first; i < last; i++) {
            likely.token[n] = int32_t(i);
            n += row[i] >= least;
        }
    }
    likely.count = n;
}

}  // namespace

extern "C" void siphash(const int64_t *words, const int64_t *key, int64_t *out, long n, long k) {
    for (long r = 0; r < n; r++) out[r] = int64_t(hash(words + r * k, k, key));
}

// afresh.services.watermark.marked_text.contexts_to_mark: rows and what their bits begin with. A table is the number of tokens that
// were drawn, what a variant adds, the number of slots less one, and the slots with the keys of contexts, 0 if empty.
extern "C" void contexts_to_mark(const int64_t *contexts, const int64_t *tables, const int64_t *key, int64_t *rows,
                                 int64_t *begin, int64_t *count, long n, long k) {
    long marked = 0;
    for (long r = 0; r < n; r++) {
        int64_t *table = reinterpret_cast<int64_t *>(tables[r]), *slots = table + 3;
        uint64_t own = std::max<uint64_t>(hash(contexts + r * k, k, key), 1), most = uint64_t(table[2]), at = own & most;
        table[0]++;
        while (slots[at] && uint64_t(slots[at]) != own) at = (at + 1) & most;
        if (slots[at]) continue;
        slots[at] = int64_t(own);
        if (table[0] <= k) continue;
        rows[marked] = r;
        begin[marked++] = int64_t(own + uint64_t(table[1]));
    }
    *count = marked;
}

extern "C" void tournament(double *p, const int64_t *rows, const int64_t *begin, long n, long vocab, long layers,
                           float least) {
#pragma omp parallel if (n >= 32)
    {
        Likely likely(vocab);
        double *q = likely.p.data();
        uint64_t *bits = likely.bits.data();
        const int32_t *token = likely.token.data();
#pragma omp for
        for (long r = 0; r < n; r++) {
            double *row = p + rows[r] * vocab, mass = 0;
            take(row, vocab, least, likely);
            long count = likely.count;
            for (long j = 0; j < count; j++) mass += row[token[j]];
            for (long j = 0; j < count; j++) {
                q[j] = row[token[j]] / mass;
                bits[j] = mix(mix(uint64_t(begin[r]) + uint64_t(token[j] + 1) * GOLDEN));
            }
            for (long layer = 0; layer < layers; layer++) {
                double ones = 0;
                for (long j = 0; j < count; j++) ones += q[j] * double((bits[j] >> layer) & 1);
                for (long j = 0; j < count; j++) q[j] *= 1 + double((bits[j] >> layer) & 1) - ones;
            }
            for (long j = 0; j < count; j++) row[token[j]] = q[j] * mass;
        }
    }
}
