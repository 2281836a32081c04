// The place of points on a Hilbert curve (Skilling 2004, Programming the Hilbert curve). A run of neighbours on it is
// compact: the curve has no jumps, which a curve of interleaved bits has.
template <typename T, int D>
__global__ void hilbert(const T* x, const Index n, const double* low, const double* span, long long* keys)
{
    constexpr int BITS = D == 2 ? 31 : 20;  // keys of 60 or 62 bits
    const Index i = blockIdx.x * Index(blockDim.x) + threadIdx.x;
    if (i >= n) return;
    unsigned cell[D];
    for (int k = 0; k < D; ++k) {
        const double place = span[0] > 0 ? (x[i * D + k] - low[k]) / span[0] : 0;  // 0 to 1
        cell[k] = unsigned(place * ((1u << BITS) - 1));
    }
    for (unsigned bit = 1u << (BITS - 1); bit > 1; bit >>= 1) {
        const unsigned below = bit - 1;
        for (int k = 0; k < D; ++k) {
            const unsigned swap = cell[k] & bit ? 0 : (cell[0] ^ cell[k]) & below;
            cell[0] ^= cell[k] & bit ? below : swap;
            cell[k] ^= swap;
        }
    }
    for (int k = 1; k < D; ++k) cell[k] ^= cell[k - 1];
    unsigned flip = 0;
    for (unsigned bit = 1u << (BITS - 1); bit > 1; bit >>= 1)
        if (cell[D - 1] & bit) flip ^= bit - 1;
    long long key = 0;
    for (int bit = BITS - 1; bit >= 0; --bit)
        for (int k = 0; k < D; ++k) key = key << 1 | ((cell[k] ^ flip) >> bit & 1);
    keys[i] = key;
}
