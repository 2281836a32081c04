// What happens to vectors between two sweeps, as `epsot.kernels.vectors` defines it, in as few launches as possible.
//
// What needs sums of what came from sums goes in stages, each of which ends with values that all threads contribute to.
// One block goes through all stages of one launch, from 0 to `last`; several blocks need a launch for each, in which
// they all add up what the blocks left before. The order of a sum is that of lanes, warps and blocks: its bits depend
// on the number of blocks, and on nothing else.
template <int THREADS, int STAGES, int VALUES> struct Meeting {
    struct Shared {
        double warp[THREADS / 32][VALUES];
        double total[STAGES][VALUES];
    };
    Shared& shared;
    double* partial;  // (STAGES, blocks, VALUES)
    const int peaks;  // the stage whose values are maxima, not sums
    int known;        // stages whose totals are there

    __device__ Meeting(Shared& shared, double* partial, int peaks = -1)
        : shared(shared), partial(partial), peaks(peaks), known(0) {}

    __device__ __forceinline__ double both(int stage, double a, double b) const
    {
        return stage == peaks ? larger(a, b) : a + b;
    }

    // The totals of all earlier stages.
    __device__ __forceinline__ void open(int stage)
    {
#pragma unroll 1
        for (; known < stage; ++known)
#pragma unroll 1
            for (int k = threadIdx.x; k < VALUES; k += THREADS) {
                const double* from = partial + Index(known) * gridDim.x * VALUES + k;
                double all = from[0];
#pragma unroll 1
                for (int block = 1; block < gridDim.x; ++block) all = both(known, all, from[block * VALUES]);
                shared.total[known][k] = all;
            }
        __syncthreads();
    }

    // What the threads contribute at the end of a stage; the values beyond are 0.
    template <int COUNT> __device__ __forceinline__ void close(int stage, double (&mine)[COUNT])
    {
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            mine[k] = stage == peaks ? lane_max<32>(mine[k]) : lane_sum<32>(mine[k]);
            if (threadIdx.x % 32 == 0) shared.warp[threadIdx.x / 32][k] = mine[k];
        }
        __syncthreads();
        double* to = partial + (Index(stage) * gridDim.x + blockIdx.x) * VALUES;
#pragma unroll 1
        for (int k = threadIdx.x; k < VALUES; k += THREADS) {
            double all = 0;
            if (k < COUNT) {
                all = shared.warp[0][k];
#pragma unroll 1
                for (int warp = 1; warp < THREADS / 32; ++warp) all = both(stage, all, shared.warp[warp][k]);
            }
            to[k] = all;
        }
        __syncthreads();
    }
};

// The entries of a thread, the same in every stage.
#define EPSOT_EVERY(j, m) for (Index j = blockIdx.x * Index(THREADS) + threadIdx.x; j < m; j += gridDim.x * Index(THREADS))

constexpr double MAX_EXPONENT = 80;

// log_a - f / rho; an infinite rho silences any f.
__device__ __forceinline__ double log_marginal(double log_a, double f, double rho)
{
    return rho < -minus_infinity() ? log_a - f / rho : log_a;
}

// What one point adds to the marginal error; slope = 1 / eps + 1 / rho.
__device__ __forceinline__ double excess(double b, double g, double next, double slope, double rho)
{
    const double exponent = (g - next) * slope;
    const double marginal = rho < -minus_infinity() ? b * exp(-g / rho) : b;
    return marginal * magnitude(expm1(exponent > MAX_EXPONENT ? MAX_EXPONENT : exponent));
}

// out = log b + g / eps
template <int THREADS>
__global__ void __launch_bounds__(THREADS, 1)
density(const double* log_b, const double* g, const Index m, const double eps, double* out)
{
#pragma unroll 1
    EPSOT_EVERY(j, m) out[j] = log_b[j] + g[j] / eps;
}

// out[0] = sum_i a[i] exp(-f[i] / rho) |expm1((f - next)[i] slope)| / mass
template <int THREADS>
__global__ void __launch_bounds__(THREADS, 1)
violation(const double* a, const double* f, const double* next, const Index n, const double slope, const double rho,
          const double mass, double* out, double* partial, const int first, const int last)
{
    __shared__ typename Meeting<THREADS, 2, 1>::Shared shared;
    Meeting<THREADS, 2, 1> meeting(shared, partial);
#pragma unroll 1
    for (int stage = first; stage < last; ++stage) {
        meeting.open(stage);
        if (stage == 0) {
            double mine[1] = {0};
#pragma unroll 1
            EPSOT_EVERY(i, n) mine[0] += excess(a[i], f[i], next[i], slope, rho);
            meeting.close(stage, mine);
        } else if (threadIdx.x == 0 && blockIdx.x == 0) {
            out[0] = shared.total[0][0] / mass;
        }
    }
}

// out[0] = log sum_i a[i] exp(-f[i] / rho)
template <int THREADS>
__global__ void __launch_bounds__(THREADS, 1)
log_mass(const double* log_a, const double* f, const Index n, const double rho, double* out, double* partial,
         const int first, const int last)
{
    __shared__ typename Meeting<THREADS, 3, 1>::Shared shared;
    Meeting<THREADS, 3, 1> meeting(shared, partial, 0);
#pragma unroll 1
    for (int stage = first; stage < last; ++stage) {
        meeting.open(stage);
        const double most = stage > 0 ? shared.total[0][0] : minus_infinity();
        const double top = most > minus_infinity() ? most : 0;
        double mine[1] = {stage == 0 ? minus_infinity() : 0};
        if (stage == 0) {
#pragma unroll 1
            EPSOT_EVERY(i, n) mine[0] = larger(log_marginal(log_a[i], f[i], rho), mine[0]);
            meeting.close(stage, mine);
        } else if (stage == 1) {
#pragma unroll 1
            EPSOT_EVERY(i, n) mine[0] += exp(log_marginal(log_a[i], f[i], rho) - top);
            meeting.close(stage, mine);
        } else if (threadIdx.x == 0 && blockIdx.x == 0) {
            out[0] = top + log(shared.total[1][0]);
        }
    }
}

// Directions.advance. moves, changes: (ROWS, m), of which the bits of `rows` say which hold directions; a new one goes
// to `slot`, which is none of them, and takes the place of `oldest`, a bit or 0. past, pair: (2, m), a result and its residual, the last and these. start: (m,), and
// numbers: error, norm, expected norm, whether the old directions mislead, whether there is a new one.
template <int THREADS, int ROWS>
__global__ void __launch_bounds__(THREADS, 1)
advance(const double* b, const double* weights, const double* scale, const double* g, const double* updated,
        const double* result, const double* past, double* moves, double* changes, const Index m, const double eps,
        const double slope, const double rho, const double mass, const int balanced, const int eased, const int moved,
        const int rows, const int oldest, const int slot, const double past_size, const double expected,
        const double bent, const double dependent, const double leap, const double longest, double* pair,
        double* start, double* numbers, double* partial, const int first, const int last)
{
    constexpr int SUMS = 0, SIZES = 1, LENGTH = 2, PEAK = 3, VALUES = 1 + 2 * ROWS;
    __shared__ typename Meeting<THREADS, 5, VALUES>::Shared shared;
    Meeting<THREADS, 5, VALUES> meeting(shared, partial, PEAK);
    const double *mean = shared.total[SUMS], *sizes = shared.total[SIZES], *length = shared.total[LENGTH];
    double *residual = pair + m, *move = start;
#pragma unroll 1
    for (int stage = first; stage < last; ++stage) {
        meeting.open(stage);
        // What was decided: whether old directions mislead, and whether the new one is more than rounding.
        const double size = stage > SIZES ? sqrt(sizes[0]) : 0, norm = stage > LENGTH ? sqrt(length[0]) : 0;
        const bool misled = size > bent * expected;
        const int kept = misled ? 0 : rows;
        const bool gained = moved && norm > dependent * (past_size + size) && norm < -minus_infinity();
        const int used = gained ? kept & ~oldest : kept;
        if (stage == SUMS) {
            double mine[2] = {0, 0};
#pragma unroll 1
            EPSOT_EVERY(j, m) {
                mine[0] += b[j] * ((result[j] - g[j]) / eps);
                mine[1] += excess(b[j], g[j], updated[j], slope, rho);
            }
            meeting.close(stage, mine);
        } else if (stage == SIZES) {  // |r|^2, <change, c_k>, <r, c_k>
            double mine[VALUES];
#pragma unroll
            for (int k = 0; k < VALUES; ++k) mine[k] = 0;
            const double shift = balanced ? mean[0] / mass : 0;
#pragma unroll 1
            EPSOT_EVERY(j, m) {
                double r = (result[j] - g[j]) / eps - shift, to = result[j];
                if (eased) {
                    const double most = magnitude(r) > longest ? magnitude(r) : longest, wide = r / scale[j];
                    r = magnitude(wide) > most ? (wide > 0 ? most : -most) : wide;
                    to = g[j] + eps * r;
                }
                pair[j] = to;
                residual[j] = r;
                const double w = weights[j], change = moved ? w * (r - past[m + j]) : 0;
                mine[0] += w * r * r;
#pragma unroll
                for (int k = 0; k < ROWS; ++k)
                    if (rows >> k & 1) {
                        const double c = changes[k * m + j];
                        mine[1 + k] += c * change;
                        mine[1 + ROWS + k] += c * (w * r);
                    }
            }
            meeting.close(stage, mine);
        } else if (stage == LENGTH) {  // of the new direction, orthogonal to the others, and its <r, c>
            double mine[2] = {0, 0};
            if (moved) {
#pragma unroll 1
                EPSOT_EVERY(j, m) {
                    double there = pair[j] - past[j], change = residual[j] - past[m + j];
#pragma unroll 1
                    for (int k = 0; k < ROWS; ++k)
                        if (kept >> k & 1) {
                            change -= sizes[1 + k] * changes[k * m + j];
                            there -= sizes[1 + k] * moves[k * m + j];
                        }
                    changes[slot * m + j] = change;
                    moves[slot * m + j] = there;
                    mine[0] += weights[j] * change * change;
                    mine[1] += weights[j] * residual[j] * change;
                }
            }
            meeting.close(stage, mine);
        } else if (stage == PEAK) {  // the way along the directions, and how far it goes
            double mine[1] = {0};
#pragma unroll 1
            EPSOT_EVERY(j, m) {
                double way = 0;
#pragma unroll 1
                for (int k = 0; k < ROWS; ++k)
                    if (used >> k & 1) way += sizes[1 + ROWS + k] * moves[k * m + j];
                if (gained) {
                    changes[slot * m + j] /= norm;
                    moves[slot * m + j] /= norm;
                    way += length[1] / norm * moves[slot * m + j];
                }
                move[j] = way;
                mine[0] = larger(magnitude(way), mine[0]);
            }
            meeting.close(stage, mine);
        } else {
            const double furthest = shared.total[PEAK][0], far = leap * eps;
            const double part = furthest <= far ? 1 : far / furthest;
#pragma unroll 1
            EPSOT_EVERY(j, m) start[j] = pair[j] - move[j] * part;
            if (threadIdx.x == 0 && blockIdx.x == 0) {
                double left = size * size;
#pragma unroll 1
                for (int k = 0; k < ROWS; ++k)
                    if (used >> k & 1) left -= sizes[1 + ROWS + k] * sizes[1 + ROWS + k];
                if (gained) left -= length[1] / norm * (length[1] / norm);
                numbers[0] = mean[1] / mass;
                numbers[1] = size;
                numbers[2] = used || gained ? sqrt(left > 0 ? left : 0) : size;
                numbers[3] = misled;
                numbers[4] = gained;
            }
        }
    }
}
