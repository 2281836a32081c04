// Sums along the lines of a lattice, each of which has a block of threads:
//     out[i] = scale log2 sum_j 2^(unit u[j] - c (x[i] - y[j])^2), or -c |x[i] - y[j]|.
//
// The formulas are those of `epsot/kernels/cpu/tilted.py`: a pair of blocks of SIDE rows and SIDE columns is one small
// matrix between columns and rows that are tilted by their distance. A lane is a row, whose line of the matrix stays in
// registers, and tilts a column for all rows of its block. Which columns are summed for a strip of 32 rows is found by
// halving the strips, whose best columns come one after the other, and proved by the tests of
// `epsot/kernels/cpu/windows.py`, which every strip makes for itself, again whenever a window has grown.

template <typename T> struct Whole;  // the integers beside numbers near 1, and that of 0
template <> struct Whole<float> { using Integer = int; static constexpr int EMPTY = -(1 << 29); };
template <> struct Whole<double> { using Integer = Index; static constexpr Index EMPTY = -(Index(1) << 50); };

// 2^k for k at most 1, 0 below the normal numbers.
__device__ __forceinline__ float power_of_two(int k) { return __int_as_float(larger(k + 127, 0) << 23); }
__device__ __forceinline__ double power_of_two(Index k)
{
    return __longlong_as_double(larger(k + 1023, Index(0)) << 52);
}

constexpr double ROUNDING = 6755399441055744.0;  // 1.5 2^52: added to a number, it leaves the integer in the low bits

template <typename I> __device__ __forceinline__ I integer_of(double raised)
{
    return I(__double_as_longlong(raised) - __double_as_longlong(ROUNDING));
}

template <typename T> struct Power {  // size 2^exponent
    using Integer = typename Whole<T>::Integer;
    static constexpr Integer EMPTY = Whole<T>::EMPTY;
    T size;
    Integer exponent;

    // 2^t, of exponents that the integers have room for.
    static __device__ __forceinline__ Power of(double t)
    {
        const double raised = t + ROUNDING;  // a conversion takes as long as eight of these
        return {exponential(T(t - (raised - ROUNDING))), integer_of<Integer>(raised)};
    }
    // 2^t for any t: 0 where that is too far below the others, and nan of nan.
    static __device__ __forceinline__ Power of_any(double t)
    {
        if (t > EMPTY) return of(t);
        return {t <= EMPTY ? T(0) : T(t), EMPTY};
    }
    // No reference moves but to a larger exponent, so that nothing overflows, and sums keep their digits.
    __device__ __forceinline__ void add(T term, Integer at)
    {
        const Integer top = larger(exponent, at);
        size = size * power_of_two(Integer(exponent - top)) + term * power_of_two(Integer(at - top));
        exponent = top;
    }
    __device__ __forceinline__ void add(Power other, Power factor)
    {
        add(other.size * factor.size, other.exponent + factor.exponent);
    }
    __device__ __forceinline__ double log() const
    {
        return exponent > EMPTY / 2 && size != 0 ? log2(double(size)) + double(exponent) : minus_infinity() + size;
    }
};

// An axis as `epsot.kernels.lattice` has it, and what is computed along it; a struct of lattice.py.
struct LatticeAxis {
    Index n, m, inner;    // rows, columns, and the distance from a number of a line to the next
    Index places, first;  // of the line that rows see, which is a circle unrolled, and the number of the first of them
    Index turn;           // places of a period, 0 where there is none
    Index around;         // strips of columns on either side of the best one that a window opens with
    double x0, dx, dy;    // rows are at x0 + i dx, places at j dy
    double c, half, tie;  // how far a row sees, and lengths that are rounding
    double bits;          // what a strip that is left out must be below the sum
    double unit, scale;

    __device__ __forceinline__ double x(double i) const { return x0 + dx * i; }
    __device__ __forceinline__ double y(double j) const { return dy * (double(first) + j); }
    // The column that stands at a place, none at those that fill the last strip.
    __device__ __forceinline__ Index source(Index j) const
    {
        if (turn == 0 || j >= places) return j < places ? j : m;
        const Index place = (first + j) % turn;
        return place < 0 ? place + turn : place;
    }
    // Of two images that are equally near one is seen.
    __device__ __forceinline__ bool seen(double d) const { return turn == 0 || (d > tie - half && d <= tie + half); }
    __device__ __forceinline__ Index start(Index line, Index count) const
    {
        return line / inner * count * inner + line % inner;
    }
};

constexpr int STRIP = 32;           // rows, or columns, of a warp; these as in shapes.py
constexpr int LATTICE_ROOM = 1024;  // places, or columns, that have room in shared memory
constexpr int LATTICE_WARPS = 4;    // of a block at most

// What all exponents of a line are relative to: the largest, as an integer. Every thread gets it; one barrier.
__device__ __forceinline__ double base_of(const double* u, const LatticeAxis& axis, double (&tops)[LATTICE_WARPS])
{
    double most = minus_infinity();
    for (Index j = threadIdx.x; j < axis.m; j += blockDim.x) most = larger(axis.unit * u[j * axis.inner], most);
    most = lane_max<32>(most);
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = most;
    __syncthreads();
    for (int warp = 0; warp < blockDim.x / 32; ++warp) most = larger(tops[warp], most);
    return most > minus_infinity() ? rint(most) : 0;
}

template <typename T, int SIDE> struct Strips {
    using Integer = typename Power<T>::Integer;
    const LatticeAxis& axis;
    const T* sizes;  // of the places of this line
    const Integer* exponents;
    int* windows;  // the first strips of columns, those behind the last, and those that both become
    T (*tilted)[STRIP];  // two lines of this warp
    double* out;  // of this line, the logarithms over its base
    const Index rows, columns;  // strips
    const int lane, warp, warps;
    T matrix[SIDE];

    __device__ __forceinline__ int& low(Index R) const { return windows[R]; }
    __device__ __forceinline__ int& high(Index R) const { return windows[rows + R]; }
    __device__ __forceinline__ int& next_low(Index R) const { return windows[2 * rows + R]; }
    __device__ __forceinline__ int& next_high(Index R) const { return windows[3 * rows + R]; }

    // The first strip of columns that a row of the strip may see, and the one behind the last.
    __device__ __forceinline__ Index strip_at(double y) const
    {
        const double place = y / axis.dy - double(axis.first);
        return smaller(Index(larger(place, 0.0)) / STRIP, columns - 1);
    }
    __device__ __forceinline__ Index begin(Index R) const
    {
        return axis.turn ? strip_at(axis.x(double(R * STRIP)) - axis.half - axis.tie) : 0;
    }
    __device__ __forceinline__ Index end(Index R) const
    {
        return axis.turn ? strip_at(axis.x(double(R * STRIP + STRIP - 1)) + axis.half + axis.tie) + 1 : columns;
    }

    // Where the term of this lane's column of a strip stands, seen from x: that of 0 where it is not.
    __device__ __forceinline__ Integer term(Index J, double x) const
    {
        const double d = x - axis.y(double(J * STRIP + lane));
        const Integer cost = integer_of<Integer>(ROUNDING - axis.c * d * d);
        return axis.seen(d) ? exponents[J * STRIP + lane] + cost : 2 * Power<T>::EMPTY;
    }

    // Whether a strip of columns may carry more than 2^-bits of the sum of row i.
    __device__ __forceinline__ bool matters(Index i, Index J) const
    {
        const Integer at = term(J, axis.x(double(i)));
        const bool more = at > Power<T>::EMPTY / 2 && !(double(at) + axis.bits < out[i * axis.inner]);
        return __ballot_sync(0xffffffffu, more) != 0;
    }

    // The strip among first, ... last that has the largest term of row i, the first of several; -1 where none has any.
    __device__ __forceinline__ Index best(Index i, Index first, Index last) const
    {
        Integer most = Power<T>::EMPTY / 2;
        Index which = -1;
        for (Index J = first; J <= last; ++J) {
            const Integer at = term(J, axis.x(double(i)));
            if (at > most) { most = at; which = J; }
        }
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const Integer other = __shfl_xor_sync(0xffffffffu, most, step);
            const Index place = __shfl_xor_sync(0xffffffffu, which, step);
            if (other > most || (other == most && place < which)) { most = other; which = place; }
        }
        return which;
    }

    // Windows around the best strips, which are no less for later rows.
    __device__ __forceinline__ void open()
    {
        Index stride = 1;
        while (stride < rows) stride *= 2;
        for (; stride >= 1; stride /= 2) {
            for (Index R = stride - 1 + 2 * stride * warp; R < rows; R += 2 * stride * warps) {
                Index first = begin(R), last = end(R) - 1;
                if (R >= stride) first = larger(first, Index(next_low(R - stride)));
                if (R + stride < rows) last = smaller(last, Index(next_high(R + stride)));
                const Index found = best(R * STRIP + STRIP / 2, first, last);
                if (lane == 0) {
                    next_low(R) = int(found < 0 ? first : found);
                    next_high(R) = int(found < 0 ? larger(first, last) : found);
                }
            }
            __syncthreads();
        }
        for (Index R = threadIdx.x; R < rows; R += blockDim.x) {
            const Index a = smaller(larger(begin(R), next_low(R) - axis.around), end(R) - 1);
            low(R) = int(a);
            high(R) = int(larger(smaller(end(R), next_high(R) + axis.around + 1), a + 1));
        }
        __syncthreads();
    }

    // Adds a strip of columns to the sum of a row, one by one.
    __device__ __forceinline__ void add_columns(Index J, double x, Power<T>& sum) const
    {
        for (Index j = J * STRIP; j < (J + 1) * STRIP; ++j) {
            const double d = x - axis.y(double(j));
            if (axis.seen(d)) sum.add({sizes[j], exponents[j]}, Power<T>::of(-axis.c * d * d));
        }
    }

    // Adds a strip of columns to the sums of one of rows, in blocks.
    __device__ __forceinline__ void add_blocks(Index R, Index J, Power<T>& sum) const
    {
        constexpr double MIDDLE = (SIDE - 1) / 2.0;
        const int own = lane % SIDE, others = lane - own;
        const double p = (own - MIDDLE) * axis.dx, q = (own - MIDDLE) * axis.dy;
        const double X = axis.x(double(R * STRIP + others) + MIDDLE);
#pragma unroll 2
        for (int part = 0; part < STRIP / SIDE; ++part) {
            const Index first = J * STRIP + part * SIDE;
            const double D = X - axis.y(double(first) + MIDDLE);
            const Power<T> tilt = Power<T>::of(2 * axis.c * D * q);
            const Integer at = exponents[first + own] + tilt.exponent, most = lane_max<SIDE>(at);
            T* line = tilted[(J * (STRIP / SIDE) + part) % 2];  // the other one may still be read
            line[lane] = sizes[first + own] * tilt.size * power_of_two(Integer(at - most));
            __syncwarp();
            T total = 0;
#pragma unroll
            for (int k = 0; k < SIDE; k += 4) {
                T v[4];
                take(line + others + k, v);
#pragma unroll
                for (int r = 0; r < 4; ++r) total += matrix[k + r] * v[r];
            }
            sum.add({total, most}, Power<T>::of(-axis.c * D * (D + 2 * p)));
        }
    }

    // The logarithms of the sums of a strip of rows over the strips of columns a, ... < z.
    __device__ __forceinline__ void sum(Index R, Index a, Index z) const
    {
        const Index i = R * STRIP + lane;
        Power<T> found = {0, 2 * Power<T>::EMPTY};
        for (Index J = a; J < z; ++J) {
            bool whole = SIDE > 1;  // every row sees every column
            if (axis.turn) {
                constexpr double MIDDLE = (STRIP - 1) / 2.0;
                const double apart = axis.x(double(R * STRIP) + MIDDLE) - axis.y(double(J * STRIP) + MIDDLE);
                whole &= magnitude(apart) + MIDDLE * (axis.dx + axis.dy) <= axis.half - axis.tie;
            }
            if constexpr (SIDE > 1)
                if (whole) { add_blocks(R, J, found); continue; }
            add_columns(J, axis.x(double(i)), found);
        }
        if (i < axis.n) out[i * axis.inner] = found.log();
        __syncwarp();  // the tests of the strip read it
    }

    // The windows that the tests call for: whether this warp has some that grow.
    __device__ __forceinline__ bool test()
    {
        bool more = false;
        for (Index R = warp; R < rows; R += warps) {
            const Index a = low(R), z = high(R), top = smaller(axis.n, (R + 1) * STRIP) - 1;
            Index J = R > 0 ? larger(begin(R), Index(low(R - 1))) : begin(R);
            while (J < a && !matters(R * STRIP, J)) ++J;
            Index K = R + 1 < rows ? smaller(end(R), Index(high(R + 1))) : end(R);
            while (K > z && !matters(top, K - 1)) --K;
            more |= J < a || K > z;
            if (lane == 0) { next_low(R) = int(smaller(J, a)); next_high(R) = int(larger(K, z)); }
        }
        return more;
    }

    __device__ __forceinline__ void sum_all()
    {
        for (Index R = warp; R < rows; R += warps) sum(R, low(R), high(R));
        while (__syncthreads_or(test())) {
            for (Index R = warp; R < rows; R += warps) {
                const int a = next_low(R), z = next_high(R);
                const bool grown = a < low(R) || z > high(R);
                __syncwarp();
                if (!grown) continue;
                if (lane == 0) { low(R) = a; high(R) = z; }
                sum(R, a, z);
            }
            __syncthreads();
        }
    }
};

// work, whole, windows: (lines, strips of 32) and (lines, 4, strips of rows), where shared memory has no room.
template <typename T, int SIDE>
__global__ void __launch_bounds__(32 * LATTICE_WARPS, sizeof(T) == 4 ? 4 : 3)
lattice_squares(const double* u, const LatticeAxis axis, T* work, typename Whole<T>::Integer* whole, int* windows,
                double* out)
{
    using Integer = typename Whole<T>::Integer;
    __shared__ T own_sizes[LATTICE_ROOM], matrix[SIDE][SIDE + 1];
    alignas(16) __shared__ T tilted[LATTICE_WARPS][2][STRIP];
    __shared__ Integer own_exponents[LATTICE_ROOM];
    __shared__ int own_windows[4 * LATTICE_ROOM / STRIP];
    __shared__ double tops[LATTICE_WARPS];
    const Index rows = (axis.n + STRIP - 1) / STRIP, columns = (axis.places + STRIP - 1) / STRIP, line = blockIdx.x;
    T* sizes = columns * STRIP <= LATTICE_ROOM ? own_sizes : work + line * columns * STRIP;
    Integer* exponents = columns * STRIP <= LATTICE_ROOM ? own_exponents : whole + line * columns * STRIP;
    int* edges = rows * STRIP <= LATTICE_ROOM ? own_windows : windows + line * 4 * rows;
    u += axis.start(line, axis.m);
    out += axis.start(line, axis.n);
    const double base = base_of(u, axis, tops);
    for (Index j = threadIdx.x; j < columns * STRIP; j += blockDim.x) {
        const Index k = axis.source(j);
        const Power<T> z = Power<T>::of_any(k < axis.m ? axis.unit * u[k * axis.inner] - base : minus_infinity());
        sizes[j] = z.size;
        exponents[j] = z.exponent;
    }
    for (int k = threadIdx.x; k < SIDE * SIDE; k += blockDim.x) {
        constexpr double MIDDLE = (SIDE - 1) / 2.0;
        const double d = (k / SIDE - MIDDLE) * axis.dx - (k % SIDE - MIDDLE) * axis.dy;
        const Power<T> z = Power<T>::of(-axis.c * d * d);
        matrix[k / SIDE][k % SIDE] = z.size * power_of_two(z.exponent);
    }
    __syncthreads();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Strips<T, SIDE> strips = {axis, sizes, exponents, edges, tilted[warp], out, rows, columns, lane, warp,
                              int(blockDim.x / 32), {}};
#pragma unroll
    for (int k = 0; k < SIDE; ++k) strips.matrix[k] = matrix[lane % SIDE][k];
    strips.open();
    strips.sum_all();
    for (Index i = threadIdx.x; i < axis.n; i += blockDim.x)
        out[i * axis.inner] = axis.scale * (out[i * axis.inner] + base);
}

// The sums of all columns up to each, seen from there, or those of all from it on: a warp, 32 columns at a time.
__device__ __forceinline__ void
walk(const double* u, const LatticeAxis& axis, double base, bool back, double* sizes, Index* exponents)
{
    const int lane = threadIdx.x % 32;
    const double step = axis.c * axis.dy;
    Power<double> before = {0, 2 * Power<double>::EMPTY};
    for (Index first = 0; first < axis.m; first += STRIP) {
        const Index k = first + lane, j = back ? axis.m - 1 - k : k;
        Power<double> sum = Power<double>::of_any(k < axis.m ? axis.unit * u[j * axis.inner] - base : minus_infinity());
#pragma unroll
        for (int apart = 1; apart < 32; apart *= 2) {
            Power<double> other;
            other.size = __shfl_up_sync(0xffffffffu, sum.size, apart);
            other.exponent = __shfl_up_sync(0xffffffffu, sum.exponent, apart);
            if (lane >= apart) sum.add(other, Power<double>::of(-step * apart));
        }
        sum.add(before, Power<double>::of(-step * (lane + 1)));
        before.size = __shfl_sync(0xffffffffu, sum.size, 31);
        before.exponent = __shfl_sync(0xffffffffu, sum.exponent, 31);
        if (k < axis.m) { sizes[j] = sum.size; exponents[j] = sum.exponent; }
    }
}

// A row is what is left of it and what is not. Two warps; work, whole: (lines, 2, m) where shared memory has no room.
template <int THREADS>
__global__ void __launch_bounds__(THREADS)
lattice_lengths(const double* u, const LatticeAxis axis, double* work, Index* whole, double* out)
{
    __shared__ double own_sizes[2 * LATTICE_ROOM];
    __shared__ Index own_exponents[2 * LATTICE_ROOM];
    __shared__ double tops[LATTICE_WARPS];
    const Index line = blockIdx.x, m = axis.m;
    double* sizes = m <= LATTICE_ROOM ? own_sizes : work + line * 2 * m;
    Index* exponents = m <= LATTICE_ROOM ? own_exponents : whole + line * 2 * m;
    u += axis.start(line, m);
    out += axis.start(line, axis.n);
    const double base = base_of(u, axis, tops);
    const bool back = threadIdx.x >= 32;
    walk(u, axis, base, back, sizes + back * m, exponents + back * m);
    __syncthreads();
    for (Index i = threadIdx.x; i < axis.n; i += blockDim.x) {
        const double x = axis.x(double(i)), place = floor(x / axis.dy);
        const Index left = place < 0 ? -1 : place < m ? Index(place) : m - 1, right = left + 1;
        Power<double> sum = {0, 2 * Power<double>::EMPTY};
        if (left >= 0)
            sum.add({sizes[left], exponents[left]}, Power<double>::of(-axis.c * magnitude(x - axis.y(double(left)))));
        if (right < m)
            sum.add({sizes[m + right], exponents[m + right]},
                    Power<double>::of(-axis.c * magnitude(x - axis.y(double(right)))));
        out[i * axis.inner] = axis.scale * (sum.log() + base);
    }
}
