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
constexpr int ALTERNATE_HEAD = 11, AVERAGE_HEAD = 3;  // numbers before the errors

__device__ __forceinline__ void pause()
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 700  // older ones have no such instruction
    __nanosleep(20);
#endif
}

// Where all blocks of a grid meet. arrived: zero at first. Block 0 adds what the others lack of 2^31, so that a meeting
// turns the highest bit and leaves the others as they were, for the next one, also of the next launch.
struct Grid {
    static constexpr int THREADS = BURST_THREADS;
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
    template <int THREADS, class Take>
    __device__ __forceinline__ void
    softmin(const double* h, const double* guess, double guess_scale, double eps, const Take& take) const
    {
        constexpr Index WARPS = THREADS / 32;
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
    // A potential, zero where there is no weight: no sum sees it there.
    __device__ __forceinline__ double counted(Index i, double f) const
    {
        return log_weights[i] > minus_infinity() ? f : 0;
    }
    __device__ __forceinline__ double damped(Index i, double softmin) const { return counted(i, softmin / damping); }
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

// Where things lie in `work` of `alternate`: two sets of f (n), g, updated, result (m), of which one is the best so far
// and one the last; start (m), two pairs of a result and its residual (4 m), the log-densities k (n) and h (m), what
// blocks leave for each other.
struct AlternateRoom {
    double* work;
    const Index n, m;
    __device__ __forceinline__ double* f(int set) const { return work + set * (n + 3 * m); }
    __device__ __forceinline__ double* g(int set) const { return f(set) + n; }
    __device__ __forceinline__ double* updated(int set) const { return f(set) + n + m; }
    __device__ __forceinline__ double* result(int set, bool balanced) const
    {
        return f(set) + n + (balanced ? m : 2 * m);
    }
    __device__ __forceinline__ double* start() const { return work + 2 * (n + 3 * m); }
    __device__ __forceinline__ double* pair(int number) const { return start() + m + number % 2 * (2 * m); }
    __device__ __forceinline__ double* k() const { return start() + 5 * m; }
    __device__ __forceinline__ double* h() const { return k() + n; }
    __device__ __forceinline__ double* partial() const { return h() + m; }
};
template <class Place> struct AlternateArrays {
    const Place *x, *y;
    const double *log_a, *log_b, *b, *weights, *ease, *first_f, *first_start, *first_past;
    double *moves, *changes, *work, *numbers, *errors;
};

// ConjugateResiduals.step, again and again, where nothing unusual happens: f <- next_f(g), updated <- next_g(f), and
// the mix of the steps before, as `advance` makes it.
//
// numbers: steps made, what the last decided, norm, expected norm, directions, slot, lowest error, lowest norm, waited,
// the last set, the best one or -1. errors: those before, then those of the steps. The shapes of the rest are those of
// `advance`.
//
// What a part of a step needs is put together where that begins. Kept from the start it would take the registers of the
// sums, unless `at` and `task` are constants of the launch.
template <class Pairs, int ROWS, class Blocks>
__device__ __forceinline__ void
alternate_by(const Blocks& blocks, const AlternateArrays<typename Pairs::Place>& at, const AlternateTask& task)
{
    constexpr int THREADS = Blocks::THREADS, WINDOW = ROWS - 1;
    typedef Advance<THREADS, ROWS> Step;
    typedef LogMass<THREADS> Mass;
    __shared__ union {
        typename Step::Meet::Shared step;
        typename Mass::Meet::Shared mass;
    } shared;
    const int shares = task.shares < int(gridDim.x) ? task.shares : int(gridDim.x);  // a grid may get fewer blocks
    const bool sharing = int(blockIdx.x) < shares;
    const auto room = [&] { return AlternateRoom{at.work, task.n, task.m}; };
    const auto pairs = [&] {
        return Pairs{at.x, at.y, task.n, task.m, task.d, task.down, task.right, task.scale};
    };
    const auto a_side = [&] { return Side{at.log_a, task.rho_a, 1 + task.eps / task.rho_a, task.eps}; };
    const auto b_side = [&] { return Side{at.log_b, task.rho_b, 1 + task.eps / task.rho_b, task.eps}; };
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        at.numbers[2] = task.size;
        at.numbers[3] = task.expected;
        at.numbers[4] = task.directions;
        at.numbers[5] = task.slot;
        at.numbers[6] = task.lowest_error;
        at.numbers[7] = task.lowest_norm;
        at.numbers[8] = task.waited;
        at.numbers[10] = -1;
    }
    EPSOT_EVERY(j, task.m, gridDim.x) {
        const double first = at.first_start[j];
        room().start()[j] = first;
        room().h()[j] = b_side().density(j, first);
    }
    blocks.meet();
    const double* guess = at.first_f;
#pragma unroll 1
    for (int number = 0;; ++number) {
        const int best = int(at.numbers[10]), set = best == 0 ? 1 : 0;
        const int count = int(at.numbers[4]), slot = int(at.numbers[5]);
        {
            const Side side = a_side();
            double *f = room().f(set), *k = room().k();
            pairs().template softmin<THREADS>(room().h(), guess, side.guess_scale(), side.eps,
                                              [&](Index i, double softmin) {
                                                  f[i] = side.damped(i, softmin);
                                                  k[i] = side.density(i, f[i]);
                                              });
            double* g = room().g(set);
            EPSOT_EVERY(j, task.m, gridDim.x) g[j] = room().start()[j];
        }
        blocks.meet();
        {
            const Side side = b_side();
            double* updated = room().updated(set);
            pairs().transposed().template softmin<THREADS>(
                room().k(), room().start(), side.guess_scale(), side.eps,
                [&](Index j, double softmin) { updated[j] = side.damped(j, softmin); });
        }
        blocks.meet();
        const bool balanced = task.balanced != 0;
        if (!balanced) {  // move along the best constant shift
            if (blockIdx.x == 0) {
                double shift = 0;
#pragma unroll 1
                for (int side = 0; side < 2; ++side) {
                    typename Mass::Meet meeting(shared.mass, room().partial(), 1, Mass::PEAKS);
                    const Mass of = {side ? at.log_b : at.log_a, side ? room().updated(set) : room().f(set),
                                     side ? task.m : task.n, side ? task.rho_b : task.rho_a};
#pragma unroll 1
                    for (int stage = 0; stage < Mass::STAGES; ++stage) {
                        meeting.open(stage);
                        of.run(meeting, stage);
                    }
                    meeting.open(Mass::STAGES);
                    shift += (side ? -of.result(meeting) : of.result(meeting)) / (1 / task.rho_a + 1 / task.rho_b);
                    __syncthreads();  // everybody has read the totals
                }
                const double* updated = room().updated(set);
                double* result = room().result(set, false);
                EPSOT_EVERY(j, task.m, 1) result[j] = b_side().counted(j, updated[j] - shift);
            }
            blocks.meet();
        }
        int kept = 0;
        for (int back = 1; back <= count; ++back) kept |= 1 << (slot - back + ROWS) % ROWS;
        typename Step::Meet meeting(shared.step, room().partial(), shares, Step::PEAKS);
        // The others do not read what block 0 may have written by now.
        const double size = sharing ? at.numbers[2] : 0, expected = sharing ? at.numbers[3] : 0;
        const double* past = number ? room().pair(number + 1) : at.first_past;
        const Step step = {at.b, at.weights, at.ease, room().g(set), room().result(set, balanced), past,
                           {at.log_b, room().g(set), room().updated(set), 1 / task.eps + 1 / task.rho_b, task.rho_b},
                           at.moves, at.changes, task.m, task.eps, task.mass, balanced, task.eased != 0,
                           number > 0 || task.moved, kept, count == WINDOW ? 1 << (slot + 1) % ROWS : 0, slot, size,
                           expected, {task.bent, task.dependent, task.leap, task.longest}, room().pair(number),
                           room().start()};
#pragma unroll 1
        for (int stage = 0; stage < Step::STAGES; ++stage) {
            if (sharing) {
                meeting.open(stage);
                step.run(meeting, stage);
            }
            if (shares > 1) blocks.meet();
        }
        if (sharing) {
            meeting.open(Step::STAGES);
            const double part = step.part(meeting);
            double *start = room().start(), *h = room().h();
            EPSOT_EVERY(j, task.m, shares) {
                start[j] = step.pair[j] - start[j] * part;
                h[j] = b_side().density(j, start[j]);
            }
        }
        if (blockIdx.x == 0 && threadIdx.x == 0) {
            const typename Step::Verdict found = step.verdict(meeting, Step::STAGES);
            const Terms terms = {task.steps, task.tol, task.restless, {task.still, task.still_factor},
                                 {task.slow, task.slow_factor}, at.errors, task.known};
            const double error = step.error(meeting);
            const bool better = error < at.numbers[6], nearer = found.size < at.numbers[7];
            const int since = nearer ? 0 : better ? 0 : int(at.numbers[8]) + 1;
            const bool finite = magnitude(error) < -minus_infinity(), retreats = finite && since >= task.patience;
            at.numbers[0] = number + 1;
            at.numbers[2] = found.size;
            at.numbers[3] = step.expectation(meeting);
            at.numbers[4] = smaller((found.misled ? 0 : count) + found.gained, WINDOW);
            at.numbers[5] = (slot + found.gained) % ROWS;
            if (better) { at.numbers[6] = error; at.numbers[10] = set; }
            if (finite && !retreats) {
                at.numbers[8] = since;
                if (nearer) at.numbers[7] = found.size;
            }
            at.numbers[9] = set;
            at.numbers[1] = retreats ? RETREATED : AGAIN;
            if (terms.over(number, error) && !retreats) at.numbers[1] = ENDED;
        }
        blocks.meet();
        if (at.numbers[1] != AGAIN) return;
        guess = room().f(set);
    }
}

template <class Pairs, int ROWS>
__global__ void __launch_bounds__(BURST_THREADS, 1)
alternate(const typename Pairs::Place* x, const typename Pairs::Place* y, const double* log_a, const double* log_b,
          const double* b, const double* weights, const double* ease, const double* first_f, const double* first_start,
          const double* first_past, double* moves, double* changes, double* work, double* numbers, unsigned* arrived,
          const AlternateTask task)
{
    const AlternateArrays<typename Pairs::Place> at = {
        x, y, log_a, log_b, b, weights, ease, first_f, first_start, first_past, moves, changes, work, numbers,
        numbers + ALTERNATE_HEAD};
    alternate_by<Pairs, ROWS>(Grid{arrived}, at, task);
}

// SelfTransport.step, again and again: f <- mean, updated <- next_f(f), mean <- (f + updated) / 2. If it is fresh, the
// first mean is an update, not a mean.
//
// work: two means (n each), updated (n), two log-densities (n each), what blocks leave for each other. numbers: steps
// made, the mean whose update is the last (0 or 1), whether to go on.
template <class Pairs, class Blocks>
__device__ __forceinline__ void
average_by(const Blocks& blocks, const typename Pairs::Place* x, const double* log_a, const double* first_mean,
           double* work, double* numbers, double* errors, const AverageTask& task)
{
    constexpr int THREADS = Blocks::THREADS;
    typedef Violation<THREADS> Sums;
    __shared__ typename Sums::Meet::Shared shared;
    const Index n = task.n;
    const double eps = task.eps, rho = task.rho;
    const bool fresh = task.fresh != 0;
    const int shares = task.shares < int(gridDim.x) ? task.shares : int(gridDim.x);
    const Pairs rows = {x, x, n, n, task.d, task.down, task.right, task.scale};
    const Side side = {log_a, rho, 1 + eps / rho, eps};
    const Rest rest = {task.still, task.still_factor};
    const Terms terms = {task.steps, task.tol, -minus_infinity(), rest, rest, errors, task.known};
    double *updated = work + 2 * n, *densities = updated + n, *partial = densities + 2 * n;
    const Index begin = fresh ? n : 0;
    EPSOT_EVERY(i, n, gridDim.x) {
        work[begin + i] = first_mean[i];
        densities[begin + i] = side.density(i, first_mean[i]);
    }
    blocks.meet();
#pragma unroll 1
    for (int number = fresh ? -1 : 0;; ++number) {
        const Index now = (number & 1) * n, then = n - now;
        const double* mean = work + now;
        rows.template softmin<THREADS>(densities + now, mean, side.guess_scale(), eps, [&](Index i, double softmin) {
            updated[i] = side.damped(i, softmin);
            work[then + i] = number < 0 ? updated[i] : (mean[i] + updated[i]) / 2;
            densities[then + i] = side.density(i, work[then + i]);
        });
        blocks.meet();
        if (number < 0) continue;
        typename Sums::Meet meeting(shared, partial, shares, Sums::PEAKS);
        const Sums sums = {{log_a, mean, updated, 1 / eps + 1 / rho, rho}, n};
#pragma unroll 1
        for (int stage = 0; stage < Sums::STAGES; ++stage) {
            if (int(blockIdx.x) < shares) {
                meeting.open(stage);
                sums.run(meeting, stage);
            }
            if (shares > 1) blocks.meet();
        }
        if (blockIdx.x == 0) {
            meeting.open(Sums::STAGES);
            if (threadIdx.x == 0) {
                numbers[0] = number + 1;
                numbers[1] = number % 2;
                numbers[2] = terms.over(number, sums.error(meeting)) ? ENDED : AGAIN;
            }
        }
        blocks.meet();
        if (numbers[2] != AGAIN) return;
    }
}

template <class Pairs>
__global__ void __launch_bounds__(BURST_THREADS, 1)
average(const typename Pairs::Place* x, const double* log_a, const double* first_mean, double* work, double* numbers,
        unsigned* arrived, const AverageTask task)
{
    average_by<Pairs>(Grid{arrived}, x, log_a, first_mean, work, numbers, numbers + AVERAGE_HEAD, task);
}

// Symmetric.step, or SelfTransport.step if `own`, at one temperature after the other, with nothing to decide:
// updated <- (next_f(g), next_g(f)), (f, g) <- ((f, g) + updated) / 2. If it is fresh, the first pair is an update.
//
// work: two of each of f, g (n, m) and of the log-densities k, h (n, m), then the update (n, m); step number k reads
// those of k % 2. Of a measure and itself f and k alone are used.
template <class Pairs, class Blocks>
__device__ __forceinline__ void
descend_by(const Blocks& blocks, const typename Pairs::Place* x, const typename Pairs::Place* y, const double* log_a,
           const double* log_b, const double* first_f, const double* first_g, const double* temperatures, double* work,
           const DescendTask& task)
{
    constexpr int THREADS = Blocks::THREADS;
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
    blocks.meet();
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
            (side ? rows.transposed() : rows).template softmin<THREADS>(
                densities + now + across, work + now + at, measure.guess_scale(), eps, [&](Index i, double softmin) {
                    const double to = measure.damped(i, softmin), f = work[now + at + i];
                    const double mean = number < 0 ? to : (f + to) / 2;
                    updated[at + i] = to;
                    work[then + at + i] = mean;
                    densities[then + at + i] = LOG2_E * (measure.log_weights[i] + mean / next);
                });
        }
        blocks.meet();
    }
}

template <class Pairs>
__global__ void __launch_bounds__(BURST_THREADS, 1)
descend(const typename Pairs::Place* x, const typename Pairs::Place* y, const double* log_a, const double* log_b,
        const double* first_f, const double* first_g, const double* temperatures, double* work, unsigned* arrived,
        const DescendTask task)
{
    descend_by<Pairs>(Grid{arrived}, x, y, log_a, log_b, first_f, first_g, temperatures, work, task);
}
