// Several steps at one temperature in one launch, for problems so small that the host takes longer to ask for a step
// than the device to make it. All blocks of the grid run at once, as a cooperative launch promises, and meet between
// the parts of a step; the host reads a few numbers at the end.
//
// Logits are float64, of coordinates in float64: nothing has to be put in order or centred first, and no search comes
// before a sum. A pair costs 2 d + 2 operations, an exponential and a conversion, little where the pairs are few; what
// counts is that a warp's chain of instructions is short. A warp has BURST_ROWS rows, its lanes share the columns.
// (Coordinates in float32 would have to be converted for every pair of rows, by the unit of the exponentials.)
constexpr int BURST_THREADS = 384;  // three warps for each of four schedulers: 168 registers
constexpr int BURST_ROWS = 2;
constexpr int BURST_FOLD = 64;   // terms of a lane that are summed in the type of the points
constexpr int MATRIX = 3;        // a cost that is stored, beside SQUARE, EUCLIDEAN and CITYBLOCK
constexpr int AGAIN = 0, ENDED = 1, RETREATED = 2;  // what a step decides

__device__ __forceinline__ void pause()
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 700  // older ones have no such instruction
    __nanosleep(20);
#endif
}

// Where all blocks of a grid meet. arrived: zero at first. Block 0 adds what the others lack of 2^31, so that a meeting
// turns the highest bit and leaves the others as they were, for the next one, also of the next launch.
struct Grid {
    unsigned* arrived;
    __device__ __forceinline__ void meet() const
    {
        constexpr unsigned TURN = 0x80000000u;
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();  // what this block wrote is seen by all ...
            const unsigned before = atomicAdd(arrived, blockIdx.x == 0 ? TURN - (gridDim.x - 1) : 1u);
            const volatile unsigned* now = arrived;
            while (((before ^ *now) & TURN) == 0) pause();
            __threadfence();  // ... and what they wrote by this one, whose caches may be older
        }
        __syncthreads();
    }
};

// The costs of pairs, log2(e) C[i, j] / eps, with scale = log2(e) / eps times a factor of the cost. x, y: (d, n) and
// (d, m) coordinates, one after the other, so that lanes read neighbours, with DIM = d, or 0 for any; or x is a matrix,
// `down` and `right` its strides.
template <typename T_, int COST, int DIM, typename Place_ = double> struct Pairs {
    typedef T_ T;          // of the exponentials
    typedef Place_ Place;  // of coordinates or entries
    const Place *x, *y;
    const Index n, m, d, down, right;
    const double scale;
    __device__ __forceinline__ Pairs transposed() const
    {
        return {COST == MATRIX ? x : y, x, m, n, d, right, down, scale};
    }

    struct Rows {
        const Place* at[BURST_ROWS];
        double x[BURST_ROWS][DIM > 0 ? DIM : 1];
    };
    __device__ __forceinline__ void open(Rows& rows, const Index (&i)[BURST_ROWS]) const
    {
#pragma unroll
        for (int r = 0; r < BURST_ROWS; ++r) {
            rows.at[r] = x + i[r] * (COST == MATRIX ? down : 1);
#pragma unroll
            for (int k = 0; k < DIM; ++k) rows.x[r][k] = rows.at[r][k * n];
        }
    }

    // Those of some columns at once, whose numbers are on the way together.
    template <int STEPS>
    __device__ __forceinline__ void
    costs(const Rows& rows, const int (&j)[STEPS], double (&cost)[STEPS][BURST_ROWS]) const
    {
        if constexpr (COST == MATRIX) {
#pragma unroll
            for (int step = 0; step < STEPS; ++step)
#pragma unroll
                for (int r = 0; r < BURST_ROWS; ++r) cost[step][r] = rows.at[r][j[step] * right];
        } else {
#pragma unroll
            for (int step = 0; step < STEPS; ++step)
#pragma unroll
                for (int r = 0; r < BURST_ROWS; ++r) cost[step][r] = 0;
            if constexpr (DIM > 0) {
#pragma unroll
                for (int k = 0; k < DIM; ++k) {
                    double here[BURST_ROWS];
#pragma unroll
                    for (int r = 0; r < BURST_ROWS; ++r) here[r] = rows.x[r][k];
                    lengthen(here, y + k * m, j, cost);
                }
            } else {
                constexpr int AHEAD = COST == CITYBLOCK ? 1 : 8 / STEPS;
#pragma unroll AHEAD
                for (Index k = 0; k < d; ++k) {
                    double here[BURST_ROWS];
#pragma unroll
                    for (int r = 0; r < BURST_ROWS; ++r) here[r] = rows.at[r][k * n];
                    lengthen(here, y + k * m, j, cost);
                }
            }
            if (COST == EUCLIDEAN) {
#pragma unroll
                for (int step = 0; step < STEPS; ++step)
#pragma unroll
                    for (int r = 0; r < BURST_ROWS; ++r) cost[step][r] = root(T(cost[step][r]));
            }
        }
    }
    // The costs over what `costs` returns.
    __device__ __forceinline__ double factor() const
    {
        return COST == SQUARE ? 0.5 * scale : COST == EUCLIDEAN ? 1 : scale;
    }

    // By one coordinate, of rows and of columns.
    template <int STEPS>
    __device__ __forceinline__ void lengthen(const double (&here)[BURST_ROWS], const Place* there,
                                             const int (&j)[STEPS], double (&length)[STEPS][BURST_ROWS]) const
    {
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            const double coordinate = there[j[step]];
#pragma unroll
            for (int r = 0; r < BURST_ROWS; ++r) lengthen(length[step][r], here[r] - coordinate);
        }
    }

    // For a distance scaled first: float32 has no room for the squares of all coordinates, only for those that matter.
    __device__ __forceinline__ void lengthen(double& length, double gap) const
    {
        if constexpr (COST == CITYBLOCK) {
            length += magnitude(gap);
        } else {
            const double part = COST == EUCLIDEAN ? scale * gap : gap;
            length += part * part;
        }
    }

    // total[r] = sum_j 2^(h[j] - cost + offset[r]), of the rows of a warp
    __device__ __forceinline__ void
    sum(const Rows& rows, const double* h, const double (&offset)[BURST_ROWS], double (&total)[BURST_ROWS]) const
    {
        // Steps at once: their columns are on the way together. An exponential in float64 takes as long itself, and
        // absolute values take registers, as do many coordinates, of which several are on the way.
        constexpr bool MANY = COST != MATRIX && DIM == 0;
        constexpr int STEPS = sizeof(T) == 8 ? 2 : COST == CITYBLOCK || MANY ? 4 : 8;
        const double times = factor();
        const int end = int(m);
        T part[BURST_ROWS];
        int since = 0;
#pragma unroll
        for (int r = 0; r < BURST_ROWS; ++r) { total[r] = 0; part[r] = 0; }
#pragma unroll 1
        for (int begin = threadIdx.x % 32; begin < end; begin += 32 * STEPS) {
            int place[STEPS];
            double cost[STEPS][BURST_ROWS];
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                const int j = begin + 32 * step;
                place[step] = j < end ? j : end - 1;
            }
            costs(rows, place, cost);
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                const double there = h[place[step]], weight = begin + 32 * step < end ? there : minus_infinity();
#pragma unroll
                for (int r = 0; r < BURST_ROWS; ++r)
                    part[r] += exponential(T(weight + offset[r] - times * cost[step][r]));
            }
            since += STEPS;
            if (since < BURST_FOLD) continue;
            since = 0;
#pragma unroll
            for (int r = 0; r < BURST_ROWS; ++r) { total[r] += part[r]; part[r] = 0; }
        }
#pragma unroll
        for (int r = 0; r < BURST_ROWS; ++r) total[r] = lane_sum<32>(total[r] + part[r]);
    }

    // offset[r] = -max_j (h[j] - cost), 0 where there is nothing
    __device__ __forceinline__ void peak(const Rows& rows, const double* h, double (&offset)[BURST_ROWS]) const
    {
        const double times = factor();
        double top[BURST_ROWS];
#pragma unroll
        for (int r = 0; r < BURST_ROWS; ++r) top[r] = minus_infinity();
#pragma unroll 1
        for (int j = threadIdx.x % 32; j < int(m); j += 32) {
            const int place[1] = {j};
            double cost[1][BURST_ROWS];
            costs(rows, place, cost);
#pragma unroll
            for (int r = 0; r < BURST_ROWS; ++r) top[r] = larger(h[j] - times * cost[0][r], top[r]);  // nan is no peak
        }
#pragma unroll
        for (int r = 0; r < BURST_ROWS; ++r) {
            top[r] = lane_max<32>(top[r]);
            offset[r] = top[r] > minus_infinity() ? -top[r] : 0;
        }
    }

    // take(i, softmin) for every row, softmin = -eps log sum_j exp(..), by one thread; h in base 2. guess_scale guess is
    // log2(e) / eps times an earlier softmin: the sum around it is near 1, or is done again around its largest term.
    template <class Take>
    __device__ __forceinline__ void
    softmin(const double* h, const double* guess, double guess_scale, double eps, const Take& take) const
    {
        constexpr Index WARPS = BURST_THREADS / 32;
#pragma unroll 1
        for (Index first = (threadIdx.x / 32 * Index(gridDim.x) + blockIdx.x) * BURST_ROWS; first < n;
             first += WARPS * gridDim.x * BURST_ROWS) {
            Index i[BURST_ROWS];
            double offset[BURST_ROWS], total[BURST_ROWS];
#pragma unroll
            for (int r = 0; r < BURST_ROWS; ++r) {
                i[r] = smaller(first + r, n - 1);
                offset[r] = guess_scale * guess[i[r]];
            }
            Rows rows;
            open(rows, i);
#pragma unroll 1
            for (int attempt = 0; attempt < 2; ++attempt) {
                sum(rows, h, offset, total);
                bool fine = true;
#pragma unroll
                for (int r = 0; r < BURST_ROWS; ++r) fine &= trusted(total[r]);
                if (fine || attempt == 1) break;
                peak(rows, h, offset);
            }
            __syncwarp();  // all lanes have read the guesses, which may lie where the results go
#pragma unroll
            for (int r = 0; r < BURST_ROWS; ++r)
                if (threadIdx.x % 32 == r && first + r < n)
                    take(i[r], total[r] > 0 ? -eps * LN_2 * (log2(total[r]) - offset[r]) : -minus_infinity());
        }
    }
};

// One side of the problem. damping: 1 + eps / rho, by which a softmin is divided.
struct Side {
    const double* log_weights;
    const double rho, damping, eps;
    __device__ __forceinline__ double guess_scale() const { return LOG2_E / eps * damping; }
    __device__ __forceinline__ double damped(double softmin) const { return softmin / damping; }
    // The log-density of the measure and a potential, in base 2.
    __device__ __forceinline__ double density(Index i, double f) const { return LOG2_E * (log_weights[i] + f / eps); }
};

// Whether none of the last errors, so many, took it below that factor of the one before them.
struct Rest {
    const int steps;
    const double factor;
    __device__ __forceinline__ bool found(const double* errors, int count) const
    {
        if (count <= steps) return false;
        double least = errors[count - 1];
        for (int k = 2; k <= steps; ++k) least = errors[count - k] < least ? errors[count - k] : least;
        return least >= factor * errors[count - steps - 1];
    }
};

// When a burst ends. errors: of this temperature, `count` of them before the burst; restless: the error above which
// the second rule holds.
struct Terms {
    const int steps;
    const double tol, restless;
    const Rest still, slow;
    double* errors;
    const int count;
    // After a step with its error: whether the host has to look.
    __device__ __forceinline__ bool over(int step, double error) const
    {
        const int known = count + step + 1;
        errors[known - 1] = error;
        return !(magnitude(error) < -minus_infinity()) || error <= tol || step + 1 == steps
               || still.found(errors, known) || (error > restless && slow.found(errors, known));
    }
};

// What the kernels are told beside arrays: the records of `bursts.py`, passed by value, since a launch takes the host
// longer for each argument. The names are those below.
struct AlternateTask {
    Index n, m, d, down, right;
    double scale, eps, rho_a, rho_b, mass, size, expected, lowest_error, lowest_norm;
    double bent, dependent, leap, longest, tol, restless, still_factor, slow_factor;
    int balanced, eased, moved, directions, slot, waited, patience, shares, steps, still, slow, known;
};
struct AverageTask {
    Index n, d, down, right;
    double scale, eps, rho, tol, still_factor;
    int fresh, shares, steps, still, known;
};
struct DescendTask {
    Index n, m, d, down, right;
    double factor, rho_a, rho_b;
    int own, fresh, steps;
};

// ConjugateResiduals.step, again and again, where nothing unusual happens: f <- next_f(g), updated <- next_g(f), and
// the mix of the steps before, as `advance` makes it.
//
// work: two sets of f (n), g, updated, result (m), of which one is the best so far and one the last; start (m), two
// pairs of a result and its residual (4 m), the log-densities k (n) and h (m), what blocks leave for each other.
// numbers: steps made, what the last decided, norm, expected norm, directions, slot, lowest error, lowest norm, waited,
// the last set, the best one or -1; then errors. The shapes of the rest are those of `advance`.
template <class Pairs, int ROWS>
__global__ void __launch_bounds__(BURST_THREADS, 1)
alternate(const typename Pairs::Place* x, const typename Pairs::Place* y, const double* log_a, const double* log_b,
          const double* b, const double* weights, const double* ease, const double* first_f, const double* first_start,
          const double* first_past, double* moves, double* changes, double* work, double* numbers, unsigned* arrived,
          const AlternateTask task)
{
    typedef Advance<BURST_THREADS, ROWS> Step;
    typedef LogMass<BURST_THREADS> Mass;
    __shared__ union {
        typename Step::Meet::Shared step;
        typename Mass::Meet::Shared mass;
    } shared;
    constexpr int HEAD = 11, WINDOW = ROWS - 1;
    const Grid grid = {arrived};
    const Index n = task.n, m = task.m;
    const double eps = task.eps, rho_a = task.rho_a, rho_b = task.rho_b;
    const bool balanced = task.balanced != 0;
    const int shares = task.shares < int(gridDim.x) ? task.shares : int(gridDim.x);  // a grid may get fewer blocks
    const bool sharing = int(blockIdx.x) < shares;
    const Pairs rows = {x, y, n, m, task.d, task.down, task.right, task.scale}, columns = rows.transposed();
    const Side a_side = {log_a, rho_a, 1 + eps / rho_a, eps}, b_side = {log_b, rho_b, 1 + eps / rho_b, eps};
    const Terms terms = {task.steps, task.tol, task.restless, {task.still, task.still_factor},
                         {task.slow, task.slow_factor}, numbers + HEAD, task.known};
    double* start = work + 2 * (n + 3 * m);
    double *pairs = start + m, *k = pairs + 4 * m, *h = k + n, *partial = h + m;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        numbers[2] = task.size;
        numbers[3] = task.expected;
        numbers[4] = task.directions;
        numbers[5] = task.slot;
        numbers[6] = task.lowest_error;
        numbers[7] = task.lowest_norm;
        numbers[8] = task.waited;
        numbers[10] = -1;
    }
    constexpr int THREADS = BURST_THREADS;
    EPSOT_EVERY(j, m, gridDim.x) {
        start[j] = first_start[j];
        h[j] = b_side.density(j, start[j]);
    }
    grid.meet();
    const double* guess = first_f;
#pragma unroll 1
    for (int number = 0;; ++number) {
        const int best = int(numbers[10]), set = best == 0 ? 1 : 0, count = int(numbers[4]), slot = int(numbers[5]);
        double* f = work + set * (n + 3 * m);
        double *g = f + n, *updated = g + m, *result = balanced ? updated : updated + m;
        rows.softmin(h, guess, a_side.guess_scale(), eps, [&](Index i, double softmin) {
            f[i] = a_side.damped(softmin);
            k[i] = a_side.density(i, f[i]);
        });
        EPSOT_EVERY(j, m, gridDim.x) g[j] = start[j];
        grid.meet();
        columns.softmin(k, start, b_side.guess_scale(), eps, [&](Index j, double softmin) {
            updated[j] = b_side.damped(softmin);
        });
        grid.meet();
        if (!balanced) {  // move along the best constant shift
            if (blockIdx.x == 0) {
                double shift = 0;
#pragma unroll 1
                for (int side = 0; side < 2; ++side) {
                    typename Mass::Meet meeting(shared.mass, partial, 1, Mass::PEAKS);
                    const Mass of = {side ? log_b : log_a, side ? updated : f, side ? m : n, side ? rho_b : rho_a};
#pragma unroll 1
                    for (int stage = 0; stage < Mass::STAGES; ++stage) {
                        meeting.open(stage);
                        of.run(meeting, stage);
                    }
                    meeting.open(Mass::STAGES);
                    shift += (side ? -of.result(meeting) : of.result(meeting)) / (1 / rho_a + 1 / rho_b);
                    __syncthreads();  // everybody has read the totals
                }
                EPSOT_EVERY(j, m, 1) result[j] = updated[j] - shift;
            }
            grid.meet();
        }
        int kept = 0;
        for (int back = 1; back <= count; ++back) kept |= 1 << (slot - back + ROWS) % ROWS;
        typename Step::Meet meeting(shared.step, partial, shares, Step::PEAKS);
        // The others do not read what block 0 may have written by now.
        const double size = sharing ? numbers[2] : 0, expected = sharing ? numbers[3] : 0;
        const double *past = number ? pairs + (number + 1) % 2 * (2 * m) : first_past;
        const Step step = {b, weights, ease, g, result, past, {log_b, g, updated, 1 / eps + 1 / rho_b, rho_b}, moves,
                           changes, m, eps, task.mass, balanced, task.eased != 0, number > 0 || task.moved, kept,
                           count == WINDOW ? 1 << (slot + 1) % ROWS : 0, slot, size, expected,
                           {task.bent, task.dependent, task.leap, task.longest}, pairs + number % 2 * (2 * m), start};
#pragma unroll 1
        for (int stage = 0; stage < Step::STAGES; ++stage) {
            if (sharing) {
                meeting.open(stage);
                step.run(meeting, stage);
            }
            if (shares > 1) grid.meet();
        }
        if (sharing) {
            meeting.open(Step::STAGES);
            const double part = step.part(meeting);
            EPSOT_EVERY(j, m, shares) {
                start[j] = step.pair[j] - start[j] * part;
                h[j] = b_side.density(j, start[j]);
            }
        }
        if (blockIdx.x == 0 && threadIdx.x == 0) {
            const typename Step::Verdict found = step.verdict(meeting, Step::STAGES);
            const double error = step.error(meeting);
            const bool better = error < numbers[6], nearer = found.size < numbers[7];
            const int since = nearer ? 0 : better ? 0 : int(numbers[8]) + 1;
            const bool finite = magnitude(error) < -minus_infinity(), retreats = finite && since >= task.patience;
            numbers[0] = number + 1;
            numbers[2] = found.size;
            numbers[3] = step.expectation(meeting);
            numbers[4] = smaller((found.misled ? 0 : count) + found.gained, WINDOW);
            numbers[5] = (slot + found.gained) % ROWS;
            if (better) { numbers[6] = error; numbers[10] = set; }
            if (finite && !retreats) {
                numbers[8] = since;
                if (nearer) numbers[7] = found.size;
            }
            numbers[9] = set;
            numbers[1] = retreats ? RETREATED : AGAIN;
            if (terms.over(number, error) && !retreats) numbers[1] = ENDED;
        }
        grid.meet();
        if (numbers[1] != AGAIN) return;
        guess = f;
    }
}

// SelfTransport.step, again and again: f <- mean, updated <- next_f(f), mean <- (f + updated) / 2. If it is fresh, the
// first mean is an update, not a mean.
//
// work: two means (n each), updated (n), two log-densities (n each), what blocks leave for each other. numbers: steps
// made, the mean whose update is the last (0 or 1), whether to go on; then errors.
template <class Pairs>
__global__ void __launch_bounds__(BURST_THREADS, 1)
average(const typename Pairs::Place* x, const double* log_a, const double* first_mean, double* work, double* numbers,
        unsigned* arrived, const AverageTask task)
{
    typedef Violation<BURST_THREADS> Sums;
    __shared__ typename Sums::Meet::Shared shared;
    constexpr int HEAD = 3, THREADS = BURST_THREADS;
    const Grid grid = {arrived};
    const Index n = task.n;
    const double eps = task.eps, rho = task.rho;
    const bool fresh = task.fresh != 0;
    const int shares = task.shares < int(gridDim.x) ? task.shares : int(gridDim.x);
    const Pairs rows = {x, x, n, n, task.d, task.down, task.right, task.scale};
    const Side side = {log_a, rho, 1 + eps / rho, eps};
    const Rest rest = {task.still, task.still_factor};
    const Terms terms = {task.steps, task.tol, -minus_infinity(), rest, rest, numbers + HEAD, task.known};
    double *updated = work + 2 * n, *densities = updated + n, *partial = densities + 2 * n;
    const Index begin = fresh ? n : 0;
    EPSOT_EVERY(i, n, gridDim.x) {
        work[begin + i] = first_mean[i];
        densities[begin + i] = side.density(i, first_mean[i]);
    }
    grid.meet();
#pragma unroll 1
    for (int number = fresh ? -1 : 0;; ++number) {
        const Index now = (number & 1) * n, then = n - now;
        const double* mean = work + now;
        rows.softmin(densities + now, mean, side.guess_scale(), eps, [&](Index i, double softmin) {
            updated[i] = side.damped(softmin);
            work[then + i] = number < 0 ? updated[i] : (mean[i] + updated[i]) / 2;
            densities[then + i] = side.density(i, work[then + i]);
        });
        grid.meet();
        if (number < 0) continue;
        typename Sums::Meet meeting(shared, partial, shares, Sums::PEAKS);
        const Sums sums = {{log_a, mean, updated, 1 / eps + 1 / rho, rho}, n};
#pragma unroll 1
        for (int stage = 0; stage < Sums::STAGES; ++stage) {
            if (int(blockIdx.x) < shares) {
                meeting.open(stage);
                sums.run(meeting, stage);
            }
            if (shares > 1) grid.meet();
        }
        if (blockIdx.x == 0) {
            meeting.open(Sums::STAGES);
            if (threadIdx.x == 0) {
                numbers[0] = number + 1;
                numbers[1] = number % 2;
                numbers[2] = terms.over(number, sums.error(meeting)) ? ENDED : AGAIN;
            }
        }
        grid.meet();
        if (numbers[2] != AGAIN) return;
    }
}

// Symmetric.step, or SelfTransport.step if `own`, at one temperature after the other, with nothing to decide:
// updated <- (next_f(g), next_g(f)), (f, g) <- ((f, g) + updated) / 2. If it is fresh, the first pair is an update.
//
// work: two of each of f, g (n, m) and of the log-densities k, h (n, m), then the update (n, m); step number k reads
// those of k % 2. Of a measure and itself f and k alone are used.
template <class Pairs>
__global__ void __launch_bounds__(BURST_THREADS, 1)
descend(const typename Pairs::Place* x, const typename Pairs::Place* y, const double* log_a, const double* log_b,
        const double* first_f, const double* first_g, const double* temperatures, double* work, unsigned* arrived,
        const DescendTask task)
{
    constexpr int THREADS = BURST_THREADS;
    const Grid grid = {arrived};
    const Index n = task.n, m = task.m, part = n + m;
    const bool own = task.own != 0, fresh = task.fresh != 0;
    const int steps = task.steps;
    double *densities = work + 2 * part, *updated = work + 4 * part;
    const Index begin = fresh ? part : 0;
    EPSOT_EVERY(i, part, gridDim.x) {
        const double first = i < n ? first_f[i] : first_g[i - n], eps = temperatures[0];
        work[begin + i] = first;
        densities[begin + i] = LOG2_E * ((i < n ? log_a[i] : log_b[i - n]) + first / eps);
    }
    grid.meet();
#pragma unroll 1
    for (int number = fresh ? -1 : 0; number < steps; ++number) {
        const double eps = temperatures[number < 0 ? 0 : number];
        const double next = temperatures[number + 1 < steps ? number + 1 : steps - 1];
        const Index now = (number & 1) * part, then = part - now;
#pragma unroll 1
        for (int side = 0; side < (own ? 1 : 2); ++side) {
            const Pairs rows = {x, y, n, m, task.d, task.down, task.right, LOG2_E * task.factor / eps};
            const Index at = side ? n : 0, across = own || side ? 0 : n;
            const double rho = side ? task.rho_b : task.rho_a;
            const Side measure = {side ? log_b : log_a, rho, 1 + eps / rho, eps};
            (side ? rows.transposed() : rows).softmin(
                densities + now + across, work + now + at, measure.guess_scale(), eps, [&](Index i, double softmin) {
                    const double to = measure.damped(softmin), f = work[now + at + i];
                    const double mean = number < 0 ? to : (f + to) / 2;
                    updated[at + i] = to;
                    work[then + at + i] = mean;
                    densities[then + at + i] = LOG2_E * (measure.log_weights[i] + mean / next);
                });
        }
        grid.meet();
    }
}
