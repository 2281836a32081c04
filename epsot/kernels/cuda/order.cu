// The lowest and the highest coordinates of the points first, first + stride, ... of a warp, below end.
template <typename T, int D> __device__ __forceinline__ void
extent(const T* x, Index first, Index end, int stride, double (&low)[D], double (&high)[D])
{
    T lowest[D], highest[D];
#pragma unroll
    for (int k = 0; k < D; ++k) { lowest[k] = T(-minus_infinity()); highest[k] = T(minus_infinity()); }
#pragma unroll 4
    for (Index i = first; i < end; i += stride)
#pragma unroll
        for (int k = 0; k < D; ++k) {
            const T place = x[i * D + k];
            lowest[k] = place < lowest[k] ? place : lowest[k];
            highest[k] = larger(place, highest[k]);
        }
#pragma unroll
    for (int k = 0; k < D; ++k) { low[k] = -lane_max<32>(-lowest[k]); high[k] = lane_max<32>(highest[k]); }
}

// The box around points: its lowest coordinates, then its longest side. One block.
template <typename T, int D>
__global__ void __launch_bounds__(1024, 1) box(const T* x, const Index n, double* out)
{
    __shared__ double lows[D][32], highs[D][32];
    double lowest[D], highest[D];
    extent<T, D>(x, threadIdx.x, n, blockDim.x, lowest, highest);
#pragma unroll
    for (int k = 0; k < D; ++k)
        if (threadIdx.x % 32 == 0) { lows[k][threadIdx.x / 32] = lowest[k]; highs[k][threadIdx.x / 32] = highest[k]; }
    __syncthreads();
    if (threadIdx.x > 0) return;
    double longest = 0;
    for (int k = 0; k < D; ++k) {
        double low = lows[k][0], high = highs[k][0];
        for (int warp = 1; warp < blockDim.x / 32; ++warp) {
            low = lows[k][warp] < low ? lows[k][warp] : low;
            high = larger(highs[k][warp], high);
        }
        out[k] = low;
        longest = larger(high - low, longest);
    }
    out[D] = longest;
}

// The middle and the half width of the box around every FRAME points. A warp for each.
template <typename T, int D>
__global__ void frames(const T* x, const Index n, double* out)
{
    const Index frame = (blockIdx.x * Index(blockDim.x) + threadIdx.x) / 32, first = frame * FRAME;
    if (first >= n) return;
    double low[D], high[D];
    extent<T, D>(x, first + threadIdx.x % 32, smaller(first + FRAME, n), 32, low, high);
#pragma unroll
    for (int k = 0; k < D; ++k)
        if (threadIdx.x % 32 == 0) {
            out[frame * (2 * D) + k] = low[k] + (high[k] - low[k]) / 2;
            out[frame * (2 * D) + D + k] = (high[k] - low[k]) / 2;
        }
}

// The place of points on a Hilbert curve (Skilling 2004, Programming the Hilbert curve). A run of neighbours on it is
// compact: the curve has no jumps, which a curve of interleaved bits has.
template <typename T, int D>
__global__ void hilbert(const T* x, const Index n, const double* box, long long* keys)
{
    constexpr int BITS = D == 2 ? 31 : 20;  // keys of 60 or 62 bits
    const Index i = blockIdx.x * Index(blockDim.x) + threadIdx.x;
    if (i >= n) return;
    unsigned cell[D];
    for (int k = 0; k < D; ++k) {
        const double place = box[D] > 0 ? (x[i * D + k] - box[k]) / box[D] : 0;  // 0 to 1
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
