// Points of any dimension around one centre, as a product of matrices: squares of rows and columns, KC coordinates at a
// time, in shared memory; RI x SJ products in the registers of a thread. The sums of squares are float64, of the
// coordinates as they were rounded, so that a point is at distance 0 of itself.
template <typename T, int COST, int THREADS_, int RI_, int SJ_, int KC>
struct Tiled {
    typedef T real, entry;
    typedef Every<Tiled> Walk;
    static constexpr int THREADS = THREADS_, RI = RI_, SJ = SJ_, LX = 16, LY = THREADS / LX, R = LY * RI;
    static constexpr int TILE = LX * SJ, STEPS = 1, FOLD = 16, SLOPES = WIDTH, KIND = COST;
    static constexpr int PAD = 16 / sizeof(T);  // spreads the coordinates over the banks, and keeps 16-byte vectors
    static constexpr bool SKIPS = false;
    static constexpr int RESIDENT = sizeof(T) == 4 && RI_ == 8 ? 3 : 1;  // blocks of a multiprocessor, of plain sums
    static constexpr int UNROLL = 1;
    struct Shared {
        alignas(16) T rows[KC][R + PAD];
        alignas(16) T columns[KC][TILE + PAD];
        alignas(16) T u[TILE];
        double reference;
        Best best;
    };
    struct Columns { T u[SJ]; };

    Shared& shared;
    const Source<T>& p;
    const Index first;
    const T scale;
    Index begin;
    bool staged;

    __device__ Tiled(Shared& shared, const Source<T>& p, Index block)
        : shared(shared), p(p), first(block * R), scale(T(p.scale)), staged(false) {}
    __device__ __forceinline__ int row(int r) const { return threadIdx.x / LX * RI + r; }
    __device__ __forceinline__ int column(int, int s) const { return threadIdx.x % LX * SJ + s; }
    __device__ __forceinline__ double half_square(const double* squares, Index i) const
    {
        return COST == SQUARE ? 0.5 * p.scale * squares[i] : 0.0;
    }

    __device__ __forceinline__ void open(double* rho)
    {
        double best = minus_infinity();
        Index image = -1;
        const Index stride = 1 + p.m / SAMPLES;
#pragma unroll 1
        for (Index j = threadIdx.x * stride; j < p.m; j += THREADS * stride) {
            const double value = p.weight(j) - half_square(p.y_extra, j);
            if (value > best) { best = value; image = j; }
        }
        block_best<THREADS>(shared.best, best, image);
        const double reference = best > minus_infinity() ? best : 0;
        if (threadIdx.x == 0) shared.reference = reference;
#pragma unroll 1
        for (int line = threadIdx.x; line < R; line += THREADS)
            rho[line] = reference - half_square(p.x_extra, smaller(first + line, p.n - 1));
    }

    __device__ __forceinline__ T fill(Index start)
    {
        begin = start;
        for (int t = threadIdx.x; t < TILE; t += THREADS) {
            const Index j = begin + t;
            shared.u[t] = j < p.m ? T(p.weight(j) - half_square(p.y_extra, j) - shared.reference) : T(minus_infinity());
        }
        return 0;
    }

    __device__ __forceinline__ void load(int, Columns& c) const { take<SJ>(&shared.u[column(0, 0)], c.u); }

    template <int COUNT, int LENGTH> __device__ __forceinline__ void
    stage(T (&to)[KC][LENGTH], const T* points, Index start, Index size, Index coordinate) const
    {
        static_assert(THREADS % KC == 0, "each thread has one coordinate");
        const int k = threadIdx.x % KC, last = int(smaller(size - start, COUNT)) - 1;
        const bool there = coordinate + k < p.d;
        const T* from = points + start * p.d + (there ? coordinate + k : 0);
#pragma unroll
        for (int first = 0; first < COUNT; first += THREADS / KC) {
            const int point = first + threadIdx.x / KC, known = point < last ? point : last;
            const T place = from[Index(known) * p.d];
            to[k][point] = there ? place : T(0);
        }
    }

    __device__ __forceinline__ void logits(const Columns& c, T (&z)[RI][SJ], T (&t)[RI][SJ])
    {
#pragma unroll
        for (int r = 0; r < RI; ++r)
#pragma unroll
            for (int s = 0; s < SJ; ++s) t[r][s] = 0;
        for (Index coordinate = 0; coordinate < p.d; coordinate += KC) {
            __syncthreads();  // everybody is done with the coordinates before
            if (!staged) stage<R>(shared.rows, p.x, first, p.n, coordinate);
            staged = p.d <= KC;  // all of them are there, for all tiles
            stage<TILE>(shared.columns, p.y, begin, p.m, coordinate);
            __syncthreads();
#pragma unroll 4
            for (int k = 0; k < KC; ++k) {
                T xs[RI], ys[SJ];
                take<RI>(&shared.rows[k][threadIdx.x / LX * RI], xs);
                take<SJ>(&shared.columns[k][threadIdx.x % LX * SJ], ys);
#pragma unroll
                for (int r = 0; r < RI; ++r)
#pragma unroll
                    for (int s = 0; s < SJ; ++s) accumulate<COST>(t[r][s], xs[r], ys[s]);
            }
        }
#pragma unroll
        for (int r = 0; r < RI; ++r)
#pragma unroll
            for (int s = 0; s < SJ; ++s) {
                t[r][s] = scale * (COST == EUCLIDEAN ? root(t[r][s]) : t[r][s]);
                z[r][s] = COST == SQUARE ? c.u[s] + t[r][s] : c.u[s] - t[r][s];
            }
    }
};
