// Numbers, vectors and exchanges between threads. NVRTC has no <math.h>: there is no INFINITY, and log2, exp2 and sqrt
// are built in. Everything is in base 2, because the hardware's exponential is.
typedef long long Index;  // n m does not fit in 32 bits, nor does n d of large clouds

constexpr double LOG2_E = 1.4426950408889634, LN_2 = 0.6931471805599453;
constexpr double LOST = -1e30;  // the offset of a row without a reference: its weights are 0, its sum not trusted
// A sum of weights in this window is trusted: nothing has overflowed, and what was flushed to zero cannot matter.
constexpr double SMALLEST = 8.673617379884035e-19, LARGEST = 1.152921504606847e18;  // 2^-60, 2^60

__device__ __forceinline__ bool lost(double offset) { return offset < 0.99 * LOST; }  // LOST rounds in float32
__device__ __forceinline__ double minus_infinity() { return __longlong_as_double(0xfff0000000000000LL); }
__device__ __forceinline__ double not_a_number() { return __longlong_as_double(0x7ff8000000000000LL); }
__device__ __forceinline__ bool trusted(double sum) { return sum >= SMALLEST && sum <= LARGEST; }  // nan is not
__device__ __forceinline__ Index smaller(Index a, Index b) { return a < b ? a : b; }

// The hardware's functions in float32: one instruction, 2 ulp, 0 below 2^-126, which is where no weight matters.
#ifdef __CUDA_ARCH__
__device__ __forceinline__ float exponential(float t)
{
    float w;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(w) : "f"(t));
    return w;
}
__device__ __forceinline__ float root(float t)
{
    float w;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(w) : "f"(t));
    return w;
}
#else
__device__ __forceinline__ float exponential(float t) { return exp2(t); }
__device__ __forceinline__ float root(float t) { return sqrt(t); }
#endif
__device__ __forceinline__ double exponential(double t) { return exp2(t); }
__device__ __forceinline__ double root(double t) { return sqrt(t); }

template <typename T> __device__ __forceinline__ T magnitude(T t) { return t < 0 ? -t : t; }
template <typename T> __device__ __forceinline__ T larger(T a, T b) { return a > b ? a : b; }

// N numbers from shared memory, 16 bytes at a time where N allows it.
template <int N> __device__ __forceinline__ void take(const float* from, float (&to)[N])
{
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            const float4 q = *reinterpret_cast<const float4*>(from + i);
            to[i] = q.x; to[i + 1] = q.y; to[i + 2] = q.z; to[i + 3] = q.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = from[i];
    }
}
template <int N> __device__ __forceinline__ void take(const double* from, double (&to)[N])
{
    if constexpr (N % 2 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            const double2 q = *reinterpret_cast<const double2*>(from + i);
            to[i] = q.x; to[i + 1] = q.y;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = from[i];
    }
}

// A sum that grows in the type of the weights and is folded into float64 now and then: float32 alone would lose sqrt(m)
// roundings, float64 alone would cost an instruction a pair that most devices run at a 64th of the rate.
template <typename T> struct Sum;
template <> struct Sum<float> {
    float part;
    double total;
    __device__ __forceinline__ void clear() { part = 0; total = 0; }
    __device__ __forceinline__ void add(float w) { part += w; }
    __device__ __forceinline__ void add(float w, float v) { part += w * v; }
    __device__ __forceinline__ void fold() { total += part; part = 0; }
};
template <> struct Sum<double> {
    double total;
    __device__ __forceinline__ void clear() { total = 0; }
    __device__ __forceinline__ void add(double w) { total += w; }
    __device__ __forceinline__ void add(double w, double v) { total += w * v; }
    __device__ __forceinline__ void fold() {}
};

// The sum, and the maximum, over LX neighbouring lanes; every lane gets it.
template <int LX> __device__ __forceinline__ double lane_sum(double value)
{
#pragma unroll
    for (int step = 1; step < LX; step *= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}
template <int LX, typename T> __device__ __forceinline__ T lane_max(T value)
{
#pragma unroll
    for (int step = 1; step < LX; step *= 2) value = larger(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}

struct Best { double value[32]; Index index[32]; };

// The largest value of a block and its index, the smallest such index; every thread gets both. Two barriers.
template <int THREADS> __device__ __forceinline__ void block_best(Best& shared, double& value, Index& index)
{
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, value, step);
        const Index place = __shfl_xor_sync(0xffffffffu, index, step);
        if (other > value || (other == value && place < index)) { value = other; index = place; }
    }
    __syncthreads();  // the threads have read what an earlier call left here
    if (threadIdx.x % 32 == 0) { shared.value[threadIdx.x / 32] = value; shared.index[threadIdx.x / 32] = index; }
    __syncthreads();
    value = shared.value[0]; index = shared.index[0];
    for (int warp = 1; warp < THREADS / 32; ++warp) {
        const double other = shared.value[warp];
        const Index place = shared.index[warp];
        if (other > value || (other == value && place < index)) { value = other; index = place; }
    }
}
