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
    const int peaks;          // bits of the stages whose first value is a maximum, not a sum
    const int block, blocks;  // that take part
    int known;                // stages whose totals are there

    __device__ Meeting(Shared& shared, double* partial, int blocks, int peaks)
        : shared(shared), partial(partial), peaks(peaks), block(blockIdx.x), blocks(blocks), known(0) {}

    __device__ __forceinline__ bool peak(int stage, int k) const { return k == 0 && (peaks >> stage & 1); }
    __device__ __forceinline__ double both(int stage, int k, double a, double b) const
    {
        return peak(stage, k) ? larger(a, b) : a + b;
    }

    // The totals of all earlier stages.
    __device__ __forceinline__ void open(int stage)
    {
#pragma unroll 1
        for (; known < stage; ++known)
#pragma unroll 1
            for (int k = threadIdx.x; k < VALUES; k += THREADS) {
                const double* from = partial + Index(known) * blocks * VALUES + k;
                double all = from[0];
#pragma unroll 1
                for (int other = 1; other < blocks; ++other) all = both(known, k, all, from[other * VALUES]);
                shared.total[known][k] = all;
            }
        __syncthreads();
    }

    // What the threads contribute at the end of a stage; the values beyond are 0.
    template <int COUNT> __device__ __forceinline__ void close(int stage, double (&mine)[COUNT])
    {
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            mine[k] = peak(stage, k) ? lane_max<32>(mine[k]) : lane_sum<32>(mine[k]);
            if (threadIdx.x % 32 == 0) shared.warp[threadIdx.x / 32][k] = mine[k];
        }
        __syncthreads();
        double* to = partial + (Index(stage) * blocks + block) * VALUES;
#pragma unroll 1
        for (int k = threadIdx.x; k < VALUES; k += THREADS) {
            double all = 0;
            if (k < COUNT) {
                all = shared.warp[0][k];
#pragma unroll 1
                for (int warp = 1; warp < THREADS / 32; ++warp) all = both(stage, k, all, shared.warp[warp][k]);
            }
            to[k] = all;
        }
        __syncthreads();
    }
};

// The entries of a thread of this block, of so many, the same in every stage.
#define EPSOT_EVERY(j, m, blocks) \
    for (Index j = blockIdx.x * Index(THREADS) + threadIdx.x; j < m; j += (blocks) * Index(THREADS))

constexpr double MAX_EXPONENT = 400;  // masses beyond e^400 are hopeless, but must stay numbers, also times a cost

// The largest of what was found, as a reference: 0 where nothing was.
__device__ __forceinline__ double top(double most) { return most > minus_infinity() ? most : 0; }

// log_a - f / rho; an infinite rho silences any f.
__device__ __forceinline__ double log_marginal(double log_a, double f, double rho)
{
    return rho < -minus_infinity() ? log_a - f / rho : log_a;
}

// The marginal p of the plan beside m = a exp(-f / rho), which f calls for, as `epsot.kernels.vectors` has it.
// slope: 1 / eps + 1 / rho
struct Marginals {
    static constexpr int SUMS = 3;
    const double *log_a, *f, *next;
    const double slope, rho;

    // log p - log m. Equal potentials agree, infinite ones too.
    __device__ __forceinline__ double exponent(Index i) const { return f[i] == next[i] ? 0 : (f[i] - next[i]) * slope; }

    // log of the larger
    __device__ __forceinline__ double height(Index i) const
    {
        const double more = exponent(i);
        return log_marginal(log_a[i], f[i], rho) + (more > 0 ? more : 0);
    }

    // sums += |p - m|, p, m, all over e^reference, where that is the largest height
    __device__ __forceinline__ void add(Index i, double reference, double* sums) const
    {
        const double more = exponent(i), most = exp(height(i) - reference), missed = -expm1(-magnitude(more)) * most;
        sums[0] += missed;
        sums[1] += more > 0 ? most : most - missed;
        sums[2] += more > 0 ? most - missed : most;
    }

    // From all sums: the error, and the mass of the plan.
    static __device__ __forceinline__ double error(const double* sums)
    {
        const double most = larger(sums[1], sums[2]);
        return most == 0 ? 0 : sums[0] / most;
    }
    static __device__ __forceinline__ double mass(const double* sums, double reference)
    {
        return exp(reference > MAX_EXPONENT ? MAX_EXPONENT : reference) * sums[1];
    }
};

// out = log b + g / eps
template <int THREADS>
__global__ void __launch_bounds__(THREADS, 1)
density(const double* log_b, const double* g, const Index m, const double eps, double* out)
{
#pragma unroll 1
    EPSOT_EVERY(j, m, gridDim.x) out[j] = log_b[j] + g[j] / eps;
}

// The sums of the marginals, over the largest term.
template <int THREADS> struct Violation {
    static constexpr int STAGES = 2, VALUES = Marginals::SUMS, PEAKS = 1;
    typedef Meeting<THREADS, STAGES, VALUES> Meet;
    const Marginals marginals;
    const Index n;
    __device__ __forceinline__ void run(Meet& meeting, int stage) const
    {
        if (stage == 0) {
            double mine[1] = {minus_infinity()};
#pragma unroll 1
            EPSOT_EVERY(i, n, meeting.blocks) mine[0] = larger(marginals.height(i), mine[0]);
            meeting.close(stage, mine);
        } else {
            double mine[VALUES] = {0, 0, 0};
            const double most = top(meeting.shared.total[0][0]);
#pragma unroll 1
            EPSOT_EVERY(i, n, meeting.blocks) marginals.add(i, most, mine);
            meeting.close(stage, mine);
        }
    }
    static __device__ __forceinline__ double error(const Meet& meeting)
    {
        return Marginals::error(meeting.shared.total[1]);
    }
    static __device__ __forceinline__ double mass(const Meet& meeting)
    {
        return Marginals::mass(meeting.shared.total[1], top(meeting.shared.total[0][0]));
    }
};

template <int THREADS>
__global__ void __launch_bounds__(THREADS, 1)
violation(const double* log_a, const double* f, const double* next, const Index n, const double slope,
          const double rho, double* out, double* partial, const int first, const int last)
{
    typedef Violation<THREADS> Sums;
    __shared__ typename Sums::Meet::Shared shared;
    typename Sums::Meet meeting(shared, partial, gridDim.x, Sums::PEAKS);
    const Sums sums = {{log_a, f, next, slope, rho}, n};
#pragma unroll 1
    for (int stage = first; stage < last; ++stage) {
        meeting.open(stage);
        if (stage < Sums::STAGES) sums.run(meeting, stage);
        else if (threadIdx.x == 0 && blockIdx.x == 0) {
            out[0] = sums.error(meeting);
            out[1] = sums.mass(meeting);
        }
    }
}

// log sum_i a[i] exp(-f[i] / rho), from the largest term and the sum of all over it.
template <int THREADS> struct LogMass {
    static constexpr int STAGES = 2, VALUES = 1, PEAKS = 1;
    typedef Meeting<THREADS, STAGES, VALUES> Meet;
    const double *log_a, *f;
    const Index n;
    const double rho;
    __device__ __forceinline__ void run(Meet& meeting, int stage) const
    {
        double mine[1] = {stage == 0 ? minus_infinity() : 0};
        if (stage == 0) {
#pragma unroll 1
            EPSOT_EVERY(i, n, meeting.blocks) mine[0] = larger(log_marginal(log_a[i], f[i], rho), mine[0]);
        } else {
            const double most = top(meeting.shared.total[0][0]);
#pragma unroll 1
            EPSOT_EVERY(i, n, meeting.blocks) mine[0] += exp(log_marginal(log_a[i], f[i], rho) - most);
        }
        meeting.close(stage, mine);
    }
    static __device__ __forceinline__ double result(const Meet& meeting)
    {
        return top(meeting.shared.total[0][0]) + log(meeting.shared.total[1][0]);
    }
};

template <int THREADS>
__global__ void __launch_bounds__(THREADS, 1)
log_mass(const double* log_a, const double* f, const Index n, const double rho, double* out, double* partial,
         const int first, const int last)
{
    typedef LogMass<THREADS> Sums;
    __shared__ typename Sums::Meet::Shared shared;
    typename Sums::Meet meeting(shared, partial, gridDim.x, Sums::PEAKS);
    const Sums sums = {log_a, f, n, rho};
#pragma unroll 1
    for (int stage = first; stage < last; ++stage) {
        meeting.open(stage);
        if (stage < Sums::STAGES) sums.run(meeting, stage);
        else if (threadIdx.x == 0 && blockIdx.x == 0) out[0] = sums.result(meeting);
    }
}

// How far a mix may go, as `epsot.kernels.vectors` says.
struct Limits { double bent, dependent, leap, longest; };

// Directions.advance. moves, changes: (ROWS, m), of which the bits of `rows` say which hold directions; a new one goes
// to `slot`, which is none of them, and takes the place of `oldest`, a bit or 0. past, pair: (2, m), a result and its
// residual, the last and these. start: (m,).
template <int THREADS, int ROWS> struct Advance {
    static constexpr int SUMS = 0, SIZES = 1, LENGTH = 2, FURTHEST = 3, STAGES = 4, VALUES = 1 + 2 * ROWS;
    static constexpr int PEAKS = 1 << SUMS | 1 << FURTHEST;
    typedef Meeting<THREADS, STAGES, VALUES> Meet;
    const double *b, *weights, *scale, *g, *result, *past;
    const Marginals marginals;  // of g and `updated`
    double *moves, *changes;
    const Index m;
    const double eps, mass;
    const bool balanced, eased, moved;
    const int rows, oldest, slot;
    const double past_size, expected;
    const Limits limits;
    double *pair, *start;

    // What was decided: whether old directions mislead, and whether the new one is more than rounding.
    struct Verdict {
        double size, norm;  // of the residual, and of the change that it brought, orthogonal to the others
        bool misled, gained;
        int kept, used;
    };
    __device__ __forceinline__ Verdict verdict(const Meet& meeting, int stage) const
    {
        const double size = stage > SIZES ? sqrt(meeting.shared.total[SIZES][0]) : 0;
        const double norm = stage > LENGTH ? sqrt(meeting.shared.total[LENGTH][0]) : 0;
        const bool misled = size > limits.bent * expected;
        const bool gained = moved && norm > limits.dependent * (past_size + size) && norm < -minus_infinity();
        const int kept = misled ? 0 : rows;
        return {size, norm, misled, gained, kept, gained ? kept & ~oldest : kept};
    }

    __device__ __forceinline__ void run(Meet& meeting, int stage) const
    {
        const double *first = meeting.shared.total[SUMS], *sizes = meeting.shared.total[SIZES];
        const double* length = meeting.shared.total[LENGTH];
        double *residual = pair + m, *move = start;
        const Verdict found = verdict(meeting, stage);
        if (stage == SUMS) {
            double mine[2] = {minus_infinity(), 0};
#pragma unroll 1
            EPSOT_EVERY(j, m, meeting.blocks) {
                mine[0] = larger(marginals.height(j), mine[0]);
                mine[1] += b[j] * ((result[j] - g[j]) / eps);
            }
            meeting.close(stage, mine);
        } else if (stage == SIZES) {  // |r|^2, <change, c_k>, <r, c_k>
            double mine[VALUES];
#pragma unroll
            for (int k = 0; k < VALUES; ++k) mine[k] = 0;
            const double shift = balanced ? first[1] / mass : 0;
#pragma unroll 1
            EPSOT_EVERY(j, m, meeting.blocks) {
                double r = (result[j] - g[j]) / eps - shift, to = result[j];
                if (eased) {
                    const double most = magnitude(r) > limits.longest ? magnitude(r) : limits.longest;
                    const double wide = b[j] > 0 ? r / scale[j] : 0;  // where there is no weight nothing moves
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
        } else if (stage == LENGTH) {  // of the new direction, orthogonal to the others, its <r, c>, and the marginals
            double mine[2 + Marginals::SUMS] = {0, 0, 0, 0, 0};
            const double most = top(first[0]);
#pragma unroll 1
            EPSOT_EVERY(j, m, meeting.blocks) marginals.add(j, most, mine + 2);
            if (moved) {
#pragma unroll 1
                EPSOT_EVERY(j, m, meeting.blocks) {
                    double there = pair[j] - past[j], change = residual[j] - past[m + j];
#pragma unroll 1
                    for (int k = 0; k < ROWS; ++k)
                        if (found.kept >> k & 1) {
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
        } else {  // the way along the directions, and how far it goes
            double mine[1] = {0};
#pragma unroll 1
            EPSOT_EVERY(j, m, meeting.blocks) {
                double way = 0;
#pragma unroll 1
                for (int k = 0; k < ROWS; ++k)
                    if (found.used >> k & 1) way += sizes[1 + ROWS + k] * moves[k * m + j];
                if (found.gained) {
                    changes[slot * m + j] /= found.norm;
                    moves[slot * m + j] /= found.norm;
                    way += length[1] / found.norm * moves[slot * m + j];
                }
                move[j] = way;
                mine[0] = larger(magnitude(way), mine[0]);
            }
            meeting.close(stage, mine);
        }
    }

    // The part of the way that is gone.
    __device__ __forceinline__ double part(const Meet& meeting) const
    {
        const double furthest = meeting.shared.total[FURTHEST][0], far = limits.leap * eps;
        return furthest <= far ? 1 : far / furthest;
    }

    static __device__ __forceinline__ double error(const Meet& meeting)
    {
        return Marginals::error(meeting.shared.total[LENGTH] + 2);
    }

    // The norm of the next residual were the map linear.
    __device__ __forceinline__ double expectation(const Meet& meeting) const
    {
        const double *sizes = meeting.shared.total[SIZES], *length = meeting.shared.total[LENGTH];
        const Verdict found = verdict(meeting, STAGES);
        double left = found.size * found.size;
#pragma unroll 1
        for (int k = 0; k < ROWS; ++k)
            if (found.used >> k & 1) left -= sizes[1 + ROWS + k] * sizes[1 + ROWS + k];
        if (found.gained) left -= length[1] / found.norm * (length[1] / found.norm);
        return found.used || found.gained ? sqrt(left > 0 ? left : 0) : found.size;
    }
};

// numbers: error, norm, expected norm, whether the old directions mislead, whether there is a new one.
template <int THREADS, int ROWS>
__global__ void __launch_bounds__(THREADS, 1)
advance(const double* b, const double* log_b, const double* weights, const double* scale, const double* g,
        const double* updated, const double* result, const double* past, double* moves, double* changes, const Index m,
        const double eps, const double slope, const double rho, const double mass, const int balanced, const int eased,
        const int moved, const int rows, const int oldest, const int slot, const double past_size,
        const double expected, const double bent, const double dependent, const double leap, const double longest,
        double* pair, double* start, double* numbers, double* partial, const int first, const int last)
{
    typedef Advance<THREADS, ROWS> Step;
    __shared__ typename Step::Meet::Shared shared;
    typename Step::Meet meeting(shared, partial, gridDim.x, Step::PEAKS);
    const Step step = {b, weights, scale, g, result, past, {log_b, g, updated, slope, rho}, moves, changes, m, eps,
                       mass, balanced != 0, eased != 0, moved != 0, rows, oldest, slot, past_size, expected,
                       {bent, dependent, leap, longest}, pair, start};
#pragma unroll 1
    for (int stage = first; stage < last; ++stage) {
        meeting.open(stage);
        if (stage < Step::STAGES) {
            step.run(meeting, stage);
            continue;
        }
        const double part = step.part(meeting);
#pragma unroll 1
        EPSOT_EVERY(j, m, meeting.blocks) start[j] = pair[j] - start[j] * part;
        if (threadIdx.x == 0 && blockIdx.x == 0) {
            const typename Step::Verdict found = step.verdict(meeting, stage);
            numbers[0] = step.error(meeting);
            numbers[1] = found.size;
            numbers[2] = step.expectation(meeting);
            numbers[3] = found.misled;
            numbers[4] = found.gained;
        }
    }
}
